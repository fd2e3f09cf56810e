//! Whose connections count together: the address of a client, as limits know it.

use std::net::{IpAddr, Ipv6Addr};

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

#[cfg(test)]
mod tests {
    #[test]
    fn one_customer_has_one_address() {
        let shown = |text: &str| super::accounted(text.parse().unwrap()).to_string();
        assert_eq!(shown("192.0.2.7"), "192.0.2.7");
        assert_eq!(shown("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(shown("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_ne!(shown("2001:db8:1:2::1"), shown("2001:db8:1:3::1"));
    }
}
