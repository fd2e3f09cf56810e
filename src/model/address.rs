//! Whose connections count together: the address of a client, as limits know it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The part of an IPv6 address that a provider gives to one customer: they choose the other half freely.
const CUSTOMER: u128 = u128::MAX << 64;

/// The address that a client's connections are counted by: an IPv4 address, also where it is written as IPv6
/// (`::ffff:a.b.c.d`), or the /64 network of an IPv6 address.
pub fn accounted(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & CUSTOMER)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// What [`accounted`] gave, in nine bytes: every connection keeps its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactAddress {
    /// An IPv4 address.
    V4([u8; 4]),
    /// The /64 network of an IPv6 address.
    V6([u8; 8]),
}

impl CompactAddress {
    /// The address by which this peer is counted.
    pub fn of(peer: IpAddr) -> Self {
        match accounted(peer) {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => Self::V6(((address.to_bits() >> 64) as u64).to_be_bytes()),
        }
    }

    /// The address as maps have it.
    pub fn get(self) -> IpAddr {
        match self {
            Self::V4(octets) => Ipv4Addr::from_octets(octets).into(),
            Self::V6(network) => Ipv6Addr::from_bits(u128::from(u64::from_be_bytes(network)) << 64).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_customer_has_one_address() {
        let shown = |text: &str| {
            let peer = text.parse().unwrap();
            assert_eq!(CompactAddress::of(peer).get(), accounted(peer));
            accounted(peer).to_string()
        };
        assert_eq!(shown("192.0.2.7"), "192.0.2.7");
        assert_eq!(shown("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(shown("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_ne!(shown("2001:db8:1:2::1"), shown("2001:db8:1:3::1"));
        assert_eq!(size_of::<CompactAddress>(), 9);
    }
}
