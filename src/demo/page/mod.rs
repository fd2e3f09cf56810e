//! The files of the demo's page, built into the binary.

use crate::http::Page;
use bytes::Bytes;
use serde_json::Value;

/// Where the facts go in `index.html`.
const HOLE: &str = "{{demo}}";

/// The page, with these facts for its script.
pub(super) fn pages(facts: &Value) -> Vec<Page> {
    let index = include_str!("index.html").replacen(HOLE, &for_html(facts), 1);
    let file =
        |path, content_type, text: &'static str| Page { path, content_type, body: Bytes::from_static(text.as_bytes()) };
    vec![
        Page { path: "/", content_type: "text/html; charset=utf-8", body: index.into() },
        // For a page of an earlier demo, whose tokens are of another secret.
        Page { path: "/demo/facts.json", content_type: "application/json", body: facts.to_string().into() },
        file("/demo/page.css", "text/css; charset=utf-8", include_str!("page.css")),
        file("/demo/page.js", "text/javascript; charset=utf-8", include_str!("page.js")),
        file("/demo/socket.io.min.js", "text/javascript; charset=utf-8", include_str!("socket.io.min.js")),
    ]
}

/// JSON that a `<script>` element can hold: nothing in it ends the element or begins a comment (HTML, 4.12.1.3).
fn for_html(facts: &Value) -> String {
    facts.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// Reads the facts back as the page's script does.
#[cfg(test)]
pub(super) fn facts_of(index: &Page) -> Value {
    let html = std::str::from_utf8(&index.body).unwrap();
    let (_, rest) = html.split_once(r#"id="demo">"#).unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn facts_cannot_break_out_of_their_element() {
        let facts = json!({ "path": "/</script><script>alert(1)</script><!--&amp;" });
        let pages = pages(&facts);
        let html = std::str::from_utf8(&pages[0].body).unwrap();
        assert_eq!(facts_of(&pages[0]), facts);
        assert!(!html.contains("<script>alert") && !html.contains(HOLE));
    }

    /// `default-src 'none'` in the page forbids what would break it: inline scripts, styles and handlers.
    #[test]
    fn nothing_is_inline_and_nothing_comes_from_elsewhere() {
        let html = include_str!("index.html");
        assert!(html.contains("default-src 'none'; script-src 'self'; style-src 'self'"));
        for inline in
            ["<style", " style=", " onclick=", " onload=", " onerror=", " oninput=", " onsubmit=", "javascript:"]
        {
            assert!(!html.contains(inline), "{inline}");
        }
        let own = |text: &str| !text.contains("//cdn") && !text.contains("https://");
        assert!(own(html) && own(include_str!("page.css")) && own(include_str!("page.js")));
        assert!(include_str!("socket.io.min.js").starts_with("/*!\n * Socket.IO v4."), "the licence header stays");
    }
}
