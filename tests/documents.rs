//! What the documents tell people to write is right.
#![allow(clippy::unwrap_used)]

use roomcast::auth::Authenticator;
use roomcast::config::{Config, Environment, Flags, Purpose};
use roomcast::rules::Rules;
use std::fs;

/// The code blocks of a document in one language.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let path = format!("{}/{document}", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(path).unwrap();
    let open = format!("\n```{language}\n");
    text.split(&open).skip(1).map(|rest| rest.split("\n```").next().unwrap().to_owned()).collect()
}

#[test]
fn the_configurations_of_the_documents_are_accepted() {
    let blocks = ["README.md", "docs/backend.md", "docs/from-socketio.md", "docs/presence.md", "docs/rules.md"].map(
        |document| {
            let blocks = blocks(document, "toml");
            assert!(!blocks.is_empty(), "{document}");
            blocks
        },
    );
    let environment: Environment = [
        ("JWT_SECRET", "a secret of at least 32 bytes, for tests"),
        ("ROOMCAST_PUBLISH__KEYS", "a-long-random-publish-key"),
    ]
    .into_iter()
    .collect();
    for (number, block) in blocks.iter().flatten().enumerate() {
        let file = std::env::temp_dir().join(format!("roomcast-readme-{}-{number}.toml", std::process::id()));
        fs::write(&file, block).unwrap();
        let flags = Flags { config: Some(file.clone()), ..Flags::default() };
        let config = Config::load(&flags, &environment, Purpose::Serve);
        fs::remove_file(&file).unwrap();
        let config = config.unwrap_or_else(|mistakes| panic!("{block}\n{mistakes:?}"));
        assert_eq!(Rules::compile(&config.rooms, &config.on).err(), None, "{block}");
        assert!(Authenticator::new(&config.auth).is_ok());
    }
}
