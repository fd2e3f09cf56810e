//! Whom a request or a notice is charged to. Sans-IO.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Who causes a request or a notice: a user, or the address of an anonymous client. Each has a share of what the backend and
/// the queues take, and so has the tenant of users.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    name: Arc<str>,
    tenant: Option<Arc<str>>,
}

impl Source {
    /// A user, by the text of the claim.
    pub fn user(name: &str) -> Self {
        Self::named(format!("user {name}"))
    }

    /// The same with the tenant that the user's token names.
    #[must_use]
    pub fn of_tenant(self, tenant: Option<&str>) -> Self {
        Self { tenant: tenant.map(|tenant| format!("tenant {tenant}").into()), ..self }
    }

    /// The same, whatever the tenant.
    #[must_use]
    pub(super) fn without_tenant(&self) -> Self {
        Self { name: self.name.clone(), tenant: None }
    }

    fn named(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), tenant: None }
    }

    /// An anonymous client, by its address. A network of IPv6 counts as one address: whoever has one has all of it.
    pub fn address(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::named(format!("address {address}")),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self::named(format!("network {a:x}:{b:x}:{c:x}:{d:x}"))
            }
        }
    }

    /// The rooms: who has made one occupied is not known.
    pub fn rooms() -> Self {
        Self::named("rooms")
    }

    /// Whether it is a user.
    pub(super) fn is_user(&self) -> bool {
        self.name.starts_with("user ")
    }

    /// The tenant.
    pub(super) fn tenant(&self) -> Option<&Arc<str>> {
        self.tenant.as_ref()
    }

    /// With whom it shares its turn: the others of its tenant, or nobody.
    pub(super) fn group(&self) -> &Arc<str> {
        self.tenant.as_ref().unwrap_or(&self.name)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let address = |text: &str| Source::address(text.parse().unwrap());
        assert_eq!(address("2001:db8:1:2::1"), address("2001:db8:1:2:ffff::9"));
        assert_ne!(address("2001:db8:1:2::1"), address("2001:db8:1:3::1"));
        assert_eq!(address("::ffff:10.0.0.1"), address("10.0.0.1"));
        assert_ne!(address("10.0.0.1"), Source::user("10.0.0.1"));
    }
}
