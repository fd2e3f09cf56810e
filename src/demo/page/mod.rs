//! The files of the demo's page, built into the binary.

use crate::http::Page;
use bytes::Bytes;
use serde_json::Value;

/// Where the facts go in `index.html`.
const HOLE: &str = "{{demo}}";

/// Where the address of the demo's own answers goes, in what the page may connect to.
const CONTROL_HOLE: &str = "{{control}}";

/// The page, with these facts for its script.
pub(super) fn pages(facts: &Value) -> Vec<Page> {
    // The page may ask the demo itself, which has another port, and nobody else.
    let control = facts["control"].as_str().and_then(|url| url.rsplit_once('/')).map_or("", |(origin, _)| origin);
    let index = include_str!("index.html").replacen(CONTROL_HOLE, control, 1).replacen(HOLE, &for_html(facts), 1);
    let file =
        |path, content_type, text: &'static str| Page { path, content_type, body: Bytes::from_static(text.as_bytes()) };
    let script = |path, text: &'static str| file(path, "text/javascript; charset=utf-8", text);
    vec![
        Page { path: "/", content_type: "text/html; charset=utf-8", body: index.into() },
        // For a page of an earlier demo, whose tokens are of another secret.
        Page { path: "/demo/facts.json", content_type: "application/json", body: facts.to_string().into() },
        file("/demo/page.css", "text/css; charset=utf-8", include_str!("page.css")),
        script("/demo/page.js", include_str!("page.js")),
        script("/demo/pane.js", include_str!("pane.js")),
        script("/demo/nodes.js", include_str!("nodes.js")),
        script("/demo/count.js", include_str!("count.js")),
        script("/demo/wire.js", include_str!("wire.js")),
        script("/demo/snippets.js", include_str!("snippets.js")),
        script("/demo/socket.io.min.js", include_str!("socket.io.min.js")),
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
        for page in pages(&json!({})).iter().filter(|page| !page.path.ends_with("socket.io.min.js")) {
            assert!(own(std::str::from_utf8(&page.body).unwrap()), "{}", page.path);
        }
        assert!(include_str!("socket.io.min.js").starts_with("/*!\n * Socket.IO v4."), "the licence header stays");
    }
}
