//! How values are written: in messages, and in the effective configuration.

use serde_json::Value as Json;

/// The start of a value, escaped, for a message. Never for secrets.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(40).flat_map(char::escape_debug).collect()
}

/// A TOML basic string. JSON's escapes are valid TOML; DEL must be escaped in TOML only.
pub(super) fn quoted(text: &str) -> String {
    Json::from(text).to_string().replace('\u{7f}', "\\u007F")
}

/// A JSON value as TOML. `null` stays `null`: TOML has none, and only the environment can give one.
pub(super) fn toml_value(json: &Json) -> String {
    match json {
        Json::String(text) => quoted(text),
        Json::Array(items) => format!("[{}]", items.iter().map(toml_value).collect::<Vec<_>>().join(", ")),
        Json::Object(pairs) if pairs.is_empty() => "{}".into(),
        Json::Object(pairs) => {
            let pair = |(key, value): (&String, &Json)| format!("{} = {}", toml_key(key), toml_value(value));
            format!("{{ {} }}", pairs.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

fn toml_key(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if bare { key.to_owned() } else { quoted(key) }
}
