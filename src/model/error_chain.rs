//! An error with its causes, as text.

use std::error::Error;

/// An error and its causes in one line. Without them, hyper says only "client error (Connect)".
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
