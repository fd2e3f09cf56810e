//! A network of IP addresses, such as `10.0.0.0/8`, or a single address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The prefix of the IPv6 addresses that stand for IPv4 ones: `::ffff:0:0/96`.
const MAPPED: u8 = 96;

/// The addresses that share a prefix. IPv4 written as IPv6 (`::ffff:a.b.c.d`) counts as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// There is no address before the slash.
    #[error("it is neither an IP address nor a network like \"10.0.0.0/8\"")]
    Address,
    /// The number of bits is none, or more than the address has.
    #[error("the bits after the slash must be a number from 0 to {0}")]
    Prefix(u8),
    /// The address is one within the network, so it is not clear which of the two is meant.
    #[error("the address has bits outside of its network; write \"{0}\"")]
    HostBits(Network),
}

impl Network {
    /// Whether an address is one of it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            address if address.is_ipv4() != self.address.is_ipv4() => false,
            address => masked(address, self.prefix) == self.address,
        }
    }
}

/// The address with all bits but the first `prefix` cleared.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let given: IpAddr = address.parse().map_err(|_| NetworkError::Address)?;
        let max = bits(given);
        let prefix = match prefix {
            None => max,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|prefix| *prefix <= max).ok_or(NetworkError::Prefix(max))?
            }
            Some(_) => return Err(NetworkError::Prefix(max)),
        };
        let (address, prefix) = match given.to_canonical() {
            address if address.is_ipv4() && given.is_ipv6() && prefix >= MAPPED => (address, prefix - MAPPED),
            _ => (given, prefix),
        };
        let network = Self { address: masked(address, prefix), prefix };
        if network.address == address { Ok(network) } else { Err(NetworkError::HostBits(network)) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix == bits(self.address) {
            true => write!(f, "{}", self.address),
            false => write!(f, "{}/{}", self.address, self.prefix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        network.parse::<Network>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn a_network_has_the_addresses_of_its_prefix() {
        assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("192.0.2.7", "192.0.2.7") && !contains("192.0.2.7", "192.0.2.8"));
        assert!(contains("172.16.0.0/12", "172.31.255.255") && !contains("172.16.0.0/12", "172.32.0.0"));
        assert!(contains("2001:db8::/32", "2001:db8:ffff::1") && !contains("2001:db8::/32", "2001:db9::1"));
        assert!(contains("0.0.0.0/0", "203.0.113.1") && !contains("0.0.0.0/0", "2001:db8::1"));
        assert!(contains("::/0", "2001:db8::1") && !contains("::/0", "203.0.113.1"));
    }

    #[test]
    fn ipv4_written_as_ipv6_is_ipv4() {
        assert!(contains("10.0.0.0/8", "::ffff:10.0.0.1") && contains("::ffff:10.0.0.0/104", "10.0.0.1"));
        assert_eq!("::ffff:10.0.0.1".parse::<Network>().unwrap().to_string(), "10.0.0.1");
    }

    #[test]
    fn what_is_written_reads_the_same() {
        for text in ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1", "::/0"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        assert_eq!("127.0.0.1/32".parse::<Network>().unwrap().to_string(), "127.0.0.1");
    }

    #[test]
    fn mistakes_say_what_is_wrong() {
        let why = |text: &str| text.parse::<Network>().unwrap_err().to_string();
        for text in ["", "proxy", "10.0.0", "10.0.0.0:80", "/8"] {
            assert_eq!(why(text), NetworkError::Address.to_string(), "{text}");
        }
        for text in ["10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/x"] {
            assert_eq!(why(text), NetworkError::Prefix(32).to_string(), "{text}");
        }
        assert!(why("10.1.0.0/8").contains("10.0.0.0/8"));
    }
}
