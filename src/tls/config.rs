//! `[tls]`.

use std::path::{Path, PathBuf};

/// `[tls]`: without the two files `listen` is plain.
#[derive(Clone, Debug, Default)]
pub struct TlsConfig {
    /// The certificate, and behind it those that lead to a known one (PEM).
    pub cert_file: Option<PathBuf>,
    /// The private key of the first (PEM, without a password).
    pub key_file: Option<PathBuf>,
}

impl TlsConfig {
    /// The certificate's file and the key's.
    pub fn files(&self) -> Option<(&Path, &Path)> {
        self.cert_file.as_deref().zip(self.key_file.as_deref())
    }
}
