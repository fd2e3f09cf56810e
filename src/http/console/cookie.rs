//! The console's cookie: where it is in a request, and how it is set and taken back.

use hyper::header::{COOKIE, HeaderMap};
use std::time::Duration;

/// Its name. By TLS it is the one that browsers accept from this host alone, and never in the clear.
const NAME: &str = "roomcast-console";
const SECURE_NAME: &str = "__Host-roomcast-console";

/// Texts of the console's cookies in a request. A browser has two where it has used both http and https.
pub(super) fn given(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(';')).filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == NAME || name == SECURE_NAME).then_some(value)
    })
}

/// Has the browser keep it. Its path is the whole host: the console calls the admin API.
pub(super) fn set(value: &str, lasts: Duration, secure: bool) -> String {
    let (name, secure) = if secure { (SECURE_NAME, "; Secure") } else { (NAME, "") };
    format!("{name}={value}; Path=/; Max-Age={}; HttpOnly; SameSite=Strict{secure}", lasts.as_secs())
}

/// Has the browser forget it, under either name.
pub(super) fn remove() -> [String; 2] {
    [set("", Duration::ZERO, false), set("", Duration::ZERO, true)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, "a=b; roomcast-console=1.x.y; xroomcast-console=no".parse().unwrap());
        headers.append(COOKIE, "__Host-roomcast-console=2.x.y;roomcast-consolex=no".parse().unwrap());
        assert_eq!(given(&headers).collect::<Vec<_>>(), ["1.x.y", "2.x.y"]);
    }

    #[test]
    fn scripts_and_other_sites_do_not_get_it() {
        let hour = Duration::from_secs(3600);
        assert_eq!(
            set("v", hour, true),
            "__Host-roomcast-console=v; Path=/; Max-Age=3600; HttpOnly; SameSite=Strict; Secure"
        );
        assert_eq!(set("v", hour, false), "roomcast-console=v; Path=/; Max-Age=3600; HttpOnly; SameSite=Strict");
        assert!(remove().iter().all(|removed| removed.contains("Max-Age=0")));
    }
}
