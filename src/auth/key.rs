//! One verification key, and the algorithms pinned to it.

use crate::auth::algorithm::{Algorithm, KeyKind};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk};

/// A key and what it may verify. The header of a token chooses among the pinned algorithms and cannot add one.
pub(super) struct Key {
    id: Option<Box<str>>,
    kind: KeyKind,
    algorithms: Vec<Algorithm>,
    material: Material,
}

enum Material {
    /// A secret, prepared for each algorithm once rather than for each token.
    Hmac(Vec<(Algorithm, hmac::Key)>),
    Library(DecodingKey),
    /// jsonwebtoken has no ES512.
    P521(Box<ParsedPublicKey>),
}

impl Key {
    /// The shared secret.
    pub(super) fn secret(secret: &[u8], pinned: &[Algorithm]) -> Self {
        let prepared = |algorithm: &Algorithm| Some((*algorithm, hmac::Key::new(digest_of(*algorithm)?, secret)));
        let keys = pinned.iter().filter_map(prepared).collect();
        Self::new(None, KeyKind::Secret, pinned, None, Material::Hmac(keys))
    }

    /// A public key in PEM (SPKI, PKCS#1 or a certificate).
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn from_pem(pem: &str, pinned: &[Algorithm]) -> Result<Self, &'static str> {
        if pem.contains("PRIVATE KEY") {
            return Err(
                "contains a private key; roomcast only checks tokens, so give it the public key (`openssl pkey -in KEY -pubout`)",
            );
        }
        let pem = pem.as_bytes();
        if let Ok(key) = DecodingKey::from_rsa_pem(pem)
            && let Some((n, e)) = rsa_components(&key)
        {
            return Self::rsa(None, &n, &e, pinned, None);
        }
        if let Ok(key) = DecodingKey::from_ec_pem(pem) {
            return Self::curve(None, key.try_get_as_bytes().unwrap_or_default(), pinned, None);
        }
        if let Ok(key) = DecodingKey::from_ed_pem(pem) {
            return Self::ed25519(None, key.try_get_as_bytes().unwrap_or_default(), pinned, None);
        }
        Err("not the PEM text of an RSA, EC (P-256, P-384, P-521) or Ed25519 public key")
    }

    /// From RSA modulus and exponent, big-endian.
    pub(super) fn rsa(
        id: Option<&str>,
        n: &[u8],
        e: &[u8],
        pinned: &[Algorithm],
        only: Option<&str>,
    ) -> Result<Self, &'static str> {
        let n = &n[n.iter().take_while(|byte| **byte == 0).count()..];
        if !(256..=1024).contains(&n.len()) {
            return Err("an RSA key must have 2048 to 8192 bits");
        }
        (RsaPublicKeyComponents { n, e })
            .to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
            .map_err(|_| "not a valid RSA public key")?;
        let material = Material::Library(DecodingKey::from_rsa_raw_components(n, e));
        Ok(Self::new(id, KeyKind::Rsa, pinned, only, material))
    }

    /// From an uncompressed point (SEC 1 section 2.3.3), whose length determines the curve.
    pub(super) fn curve(
        id: Option<&str>,
        point: &[u8],
        pinned: &[Algorithm],
        only: Option<&str>,
    ) -> Result<Self, &'static str> {
        let (kind, algorithm) = match point.len() {
            65 => (KeyKind::P256, &ECDSA_P256_SHA256_FIXED),
            97 => (KeyKind::P384, &ECDSA_P384_SHA384_FIXED),
            133 => (KeyKind::P521, &ECDSA_P521_SHA512_FIXED),
            _ => return Err("an EC key must be on P-256, P-384 or P-521"),
        };
        let parsed = ParsedPublicKey::new(algorithm, point).map_err(|_| "not a point on its curve")?;
        let material = match kind {
            KeyKind::P521 => Material::P521(Box::new(parsed)),
            _ => Material::Library(DecodingKey::from_ec_der(point)),
        };
        Ok(Self::new(id, kind, pinned, only, material))
    }

    /// From the 32 bytes of an Ed25519 public key.
    pub(super) fn ed25519(
        id: Option<&str>,
        bytes: &[u8],
        pinned: &[Algorithm],
        only: Option<&str>,
    ) -> Result<Self, &'static str> {
        ParsedPublicKey::new(&ED25519, bytes).map_err(|_| "not an Ed25519 public key")?;
        Ok(Self::new(id, KeyKind::Ed25519, pinned, only, Material::Library(DecodingKey::from_ed_der(bytes))))
    }

    fn new(id: Option<&str>, kind: KeyKind, pinned: &[Algorithm], only: Option<&str>, material: Material) -> Self {
        // RFC 9864 names EdDSA on this curve "Ed25519" in a JWK's `alg`.
        let matches = |a: &Algorithm| only.is_none_or(|o| o == a.name() || (o == "Ed25519" && *a == Algorithm::EdDSA));
        let algorithms = pinned.iter().copied().filter(|a| a.key_kind() == kind && matches(a)).collect();
        Self { id: id.map(Into::into), kind, algorithms, material }
    }

    /// Its `kid`.
    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Its kind.
    pub(super) fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The algorithms that the configuration, and the `alg` of a JWK, pin to it.
    pub(super) fn algorithms(&self) -> &[Algorithm] {
        &self.algorithms
    }

    /// Whether it may verify this algorithm.
    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Whether this key made the signature (base64url) of the message.
    pub(super) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &str) -> bool {
        debug_assert!(self.fits(algorithm));
        match (&self.material, algorithm.library()) {
            (Material::Hmac(keys), _) => {
                let Some((_, key)) = keys.iter().find(|(own, _)| *own == algorithm) else { return false };
                // No digest is longer.
                let mut tag = [0; 64];
                let decoded = URL_SAFE_NO_PAD.decode_slice(signature, &mut tag);
                decoded.is_ok_and(|length| hmac::verify(key, message, &tag[..length]).is_ok())
            }
            // The library refuses a key of another family (jsonwebtoken 11, `JwtVerifier::new`).
            (Material::Library(key), Some(library)) => {
                jsonwebtoken::crypto::verify(signature, message, key, library).unwrap_or(false)
            }
            (Material::P521(key), None) => {
                URL_SAFE_NO_PAD.decode(signature).is_ok_and(|signature| key.verify_sig(message, &signature).is_ok())
            }
            _ => false,
        }
    }
}

fn digest_of(algorithm: Algorithm) -> Option<hmac::Algorithm> {
    match algorithm {
        Algorithm::HS256 => Some(hmac::HMAC_SHA256),
        Algorithm::HS384 => Some(hmac::HMAC_SHA384),
        Algorithm::HS512 => Some(hmac::HMAC_SHA512),
        _ => None,
    }
}

fn rsa_components(key: &DecodingKey) -> Option<(Vec<u8>, Vec<u8>)> {
    match Jwk::from_decoding_key(key, None).ok()?.algorithm {
        AlgorithmParameters::RSA(rsa) => {
            Some((URL_SAFE_NO_PAD.decode(rsa.n).ok()?, URL_SAFE_NO_PAD.decode(rsa.e).ok()?))
        }
        _ => None,
    }
}
