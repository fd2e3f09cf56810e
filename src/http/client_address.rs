//! Which client a request comes from: `http.trusted_proxies`. A proxy that is trusted names it in `X-Forwarded-For`, or in
//! `Forwarded` (RFC 7239). Each proxy on the way appends the address that it was connected from, so the list is read from
//! its end, up to the first address that is not a trusted proxy. What stands before that, the client may have invented.

use crate::model::network::Network;
use hyper::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Trusted proxies on the way of one request. A longer list is not believed.
const MAX_HOPS: usize = 32;

/// `http.trusted_proxies`.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Vec<Network>);

impl TrustedProxies {
    /// These.
    pub fn new(networks: &[Network]) -> Self {
        Self(networks.to_vec())
    }

    /// Whether what this address says of its clients is believed.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// The client of a request that a trusted `peer` sent: the last address in the header that is not a trusted proxy, or
    /// the first if all are. Without a header, or if it cannot be read that far, the peer.
    ///
    /// `X-Forwarded-For` wins: of the two it is what proxies write unasked, and most pass on a `Forwarded` of their client.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let named = if headers.contains_key(X_FORWARDED_FOR) {
            self.first_untrusted(headers.get_all(X_FORWARDED_FOR).iter().rev().flat_map(entries).map(address))
        } else {
            self.first_untrusted(headers.get_all(FORWARDED).iter().rev().flat_map(entries).map(forwarded_for))
        };
        named.unwrap_or(peer)
    }

    /// `hops` come from the nearest to the farthest; `None` among them is one that cannot be read.
    fn first_untrusted(&self, hops: impl Iterator<Item = Option<IpAddr>>) -> Option<IpAddr> {
        let mut farthest = None;
        for (number, hop) in hops.enumerate() {
            let hop = hop.filter(|_| number < MAX_HOPS)?;
            if !self.trusts(hop) {
                return Some(hop);
            }
            farthest = Some(hop);
        }
        farthest
    }
}

/// The entries of a comma list from its end. Read backwards, a quote that the client did not close stays on its own side.
fn entries(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let mut is_quoted = false;
    let split = value.as_bytes().rsplit(move |byte| {
        is_quoted ^= *byte == b'"';
        *byte == b',' && !is_quoted
    });
    split.map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty())
}

/// `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:4711`.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text).ok()?;
    let is_port = |port: &str| port.parse::<u16>().is_ok();
    let address = if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let is_whole = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        is_whole.then(|| address.parse::<Ipv6Addr>().ok()).flatten()?.into()
    } else if let Ok(address) = text.parse::<IpAddr>() {
        address
    } else {
        let (address, port) = text.split_once(':')?;
        is_port(port).then(|| address.parse::<Ipv4Addr>().ok()).flatten()?.into()
    };
    Some(address.to_canonical())
}

/// The address of an entry like `for="[2001:db8::1]:4711";proto=https`.
fn forwarded_for(entry: &[u8]) -> Option<IpAddr> {
    let value = entry.split(|byte| *byte == b';').find_map(|pair| {
        let (name, value) = pair.split_at_checked(pair.iter().position(|byte| *byte == b'=')?)?;
        name.trim_ascii().eq_ignore_ascii_case(b"for").then(|| value[1..].trim_ascii())
    })?;
    let bare = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    address(bare.unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

    /// The client of a request from a proxy in 10.0.0.0/8.
    fn client(lines: &[(&'static str, &[u8])]) -> String {
        let networks = ["10.0.0.0/8", "2001:db8:ff::/48"].map(|network| network.parse().unwrap());
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        TrustedProxies::new(&networks).client(PEER, &headers).to_string()
    }

    fn xff(value: &str) -> String {
        client(&[("x-forwarded-for", value.as_bytes())])
    }

    fn forwarded(value: &str) -> String {
        client(&[("forwarded", value.as_bytes())])
    }

    #[test]
    fn the_last_address_that_is_no_trusted_proxy_is_the_client() {
        assert_eq!(xff("203.0.113.7"), "203.0.113.7");
        assert_eq!(xff("1.2.3.4, 203.0.113.7"), "203.0.113.7", "the client wrote the first");
        assert_eq!(xff("1.2.3.4,203.0.113.7 , 10.9.9.9,2001:db8:ff::1"), "203.0.113.7");
        assert_eq!(xff("10.0.0.9, 10.0.0.8"), "10.0.0.9", "all are trusted: the farthest");
        let lines: [(_, &[u8]); 2] = [("x-forwarded-for", b"1.2.3.4"), ("x-forwarded-for", b"203.0.113.7, 10.0.0.2")];
        assert_eq!(client(&lines), "203.0.113.7", "several lines are one list");
    }

    #[test]
    fn addresses_may_have_ports_and_brackets() {
        assert_eq!(xff("203.0.113.7:4711"), "203.0.113.7");
        assert_eq!(xff("2001:db8::7"), "2001:db8::7");
        assert_eq!(xff("[2001:db8::7]"), "2001:db8::7");
        assert_eq!(xff("[2001:db8::7]:4711"), "2001:db8::7");
        assert_eq!(xff("::ffff:203.0.113.7"), "203.0.113.7");
        assert_eq!(xff("203.0.113.7,, ,"), "203.0.113.7", "empty entries are none");
    }

    #[test]
    fn what_cannot_be_read_falls_back_to_the_peer() {
        let peer = PEER.to_string();
        assert_eq!(client(&[]), peer);
        for bad in
            ["", ",", "unknown", "_hidden", "203.0.113.7:x", "203.0.113.7:99999", "[2001:db8::7", "a, b", "1.2.3"]
        {
            assert_eq!(xff(bad), peer, "{bad}");
        }
        assert_eq!(xff("203.0.113.7, unknown, 10.0.0.2"), peer, "who is behind the unreadable one is not known");
        for bad in ["for=unknown", "proto=https", "for", "=", "for=\"203.0.113.7", "for=_gazonk"] {
            assert_eq!(forwarded(bad), peer, "{bad}");
        }
    }

    #[test]
    fn forwarded_is_read_where_there_is_no_x_forwarded_for() {
        assert_eq!(forwarded("for=203.0.113.7"), "203.0.113.7");
        assert_eq!(forwarded("proto=https; For=\"203.0.113.7:4711\";by=10.0.0.1"), "203.0.113.7");
        assert_eq!(forwarded("for=1.2.3.4, for=\"[2001:db8::7]:4711\", for=10.0.0.2;host=\"a,b\""), "2001:db8::7");
        assert_eq!(forwarded("for=\"1.2.3.4, for=203.0.113.7"), "203.0.113.7", "a quote that the client left open");
        assert_eq!(client(&[("forwarded", b"for=1.2.3.4"), ("x-forwarded-for", b"203.0.113.7")]), "203.0.113.7");
    }

    #[test]
    fn hostile_headers_change_nothing_and_are_bounded() {
        let many = |entry: &str, last: &str| xff(&format!("{}{last}", entry.repeat(8_192 / entry.len())));
        assert_eq!(many("1.2.3.4,", "203.0.113.7"), "203.0.113.7");
        assert_eq!(many(",", "203.0.113.7"), "203.0.113.7");
        assert_eq!(many("10.0.0.2,", "10.0.0.3"), PEER.to_string(), "more proxies than anybody has");
        assert_eq!(client(&[("x-forwarded-for", b"\xff\xfe\"\\, 203.0.113.7")]), "203.0.113.7");
    }
}
