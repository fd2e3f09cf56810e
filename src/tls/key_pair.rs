//! The certificate and its key, read from their files and tried against each other.

use crate::model::clock::unix_ms;
use crate::tls::config::TlsConfig;
use crate::tls::validity::Validity;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{Error, ServerConfig};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// No chain and no key is longer. Without a limit, a path to `/dev/zero` would fill the memory.
const MAX_BYTES: u64 = 1_000_000;

/// Why the two files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyPairError {
    /// One cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// `cert_file` or `key_file`.
        key: &'static str,
        /// Its path.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// One is not PEM, or has nothing of what it should have.
    #[error("{} has no {what} (PEM)", path.display())]
    Nothing {
        /// `cert_file` or `key_file`.
        key: &'static str,
        /// Its path.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
    },
    /// Both are good, but not together.
    #[error("{} is not the key of the first certificate in {}", key.display(), certificate.display())]
    Mismatch {
        /// The path of the key.
        key: PathBuf,
        /// The path of the certificate.
        certificate: PathBuf,
    },
    /// The certificate cannot be read as one, or the key is of an unknown kind.
    #[error("cannot use {}: {error}", path.display())]
    Unusable {
        /// `cert_file` or `key_file`.
        key: &'static str,
        /// Its path.
        path: PathBuf,
        /// What rustls says.
        error: Error,
    },
    /// Its time is over, or has not come.
    #[error("{} {}", path.display(), describe(*.not_before, *.not_after))]
    OutOfTime {
        /// The path of the certificate.
        path: PathBuf,
        /// Unix seconds.
        not_before: u64,
        /// Unix seconds.
        not_after: u64,
    },
}

impl KeyPairError {
    /// The key of `[tls]` that it is about.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Unreadable { key, .. } | Self::Nothing { key, .. } | Self::Unusable { key, .. } => key,
            Self::Mismatch { .. } => "key_file",
            Self::OutOfTime { .. } => "cert_file",
        }
    }
}

fn describe(not_before: u64, not_after: u64) -> String {
    match now() < not_before {
        true => format!("is not valid before {}", date(not_before)),
        false => format!("has expired at {}; renew it", date(not_after)),
    }
}

fn now() -> u64 {
    unix_ms() / 1000
}

fn date(seconds: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

/// A certificate with its key, ready to serve.
#[derive(Clone)]
pub struct KeyPair {
    path: PathBuf,
    chain: Vec<CertificateDer<'static>>,
    validity: Validity,
    pub(super) config: Arc<ServerConfig>,
}

impl KeyPair {
    /// Reads the two files; `None` where `[tls]` names none.
    ///
    /// # Errors
    /// What is wrong with which of them. A certificate whose time is over is none of that: see [`Self::check_time`].
    pub fn read(config: &TlsConfig) -> Result<Option<Self>, KeyPairError> {
        let Some((cert_file, key_file)) = config.files() else { return Ok(None) };
        let nothing = |key, path: &Path, what| KeyPairError::Nothing { key, path: path.to_owned(), what };
        let unusable = |key, path: &Path| {
            let path = path.to_owned();
            move |error| KeyPairError::Unusable { key, path, error }
        };
        let text = read("cert_file", cert_file)?;
        let chain: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&text).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain = chain.ok_or_else(|| nothing("cert_file", cert_file, "certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(&read("key_file", key_file)?)
            .map_err(|_| nothing("key_file", key_file, "private key without a password"))?;
        let provider = Arc::new(default_provider());
        let key = provider.key_provider.load_private_key(key).map_err(unusable("key_file", key_file))?;
        let certified = CertifiedKey::new(chain.clone(), key);
        match certified.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(Error::InconsistentKeys(_)) => {
                return Err(KeyPairError::Mismatch { key: key_file.into(), certificate: cert_file.into() });
            }
            Err(error) => return Err(unusable("cert_file", cert_file)(error)),
        }
        let validity =
            Validity::of(&chain[0]).ok_or_else(|| nothing("cert_file", cert_file, "certificate with a validity"))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable("cert_file", cert_file))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // What a client needs to come back cheaply it keeps itself, encrypted for us.
        config.ticketer = Ticketer::new().map_err(unusable("cert_file", cert_file))?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Some(Self { path: cert_file.into(), chain, validity, config: Arc::new(config) }))
    }

    /// Whether it is valid now.
    ///
    /// # Errors
    /// When its time is over, or has not come.
    pub fn check_time(&self) -> Result<(), KeyPairError> {
        let Validity { not_before, not_after } = self.validity;
        match (not_before..=not_after).contains(&now()) {
            true => Ok(()),
            false => Err(KeyPairError::OutOfTime { path: self.path.clone(), not_before, not_after }),
        }
    }

    /// The end of its time, in Unix seconds.
    pub fn not_after(&self) -> u64 {
        self.validity.not_after
    }

    /// For people: `/etc/tls/cert.pem, valid until 2027-01-01T00:00:00Z`.
    pub fn describe(&self) -> String {
        format!("{}, valid until {}", self.path.display(), date(self.validity.not_after))
    }

    /// Whether both serve the same certificates.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.chain == other.chain
    }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, KeyPairError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    let read = match read {
        Ok(count) if count as u64 > MAX_BYTES => Err(io::Error::other(format!("it is longer than {MAX_BYTES} bytes"))),
        read => read,
    };
    read.map(|_| bytes).map_err(|error| KeyPairError::Unreadable { key, path: path.to_owned(), error })
}
