//! PEM files: certificates, keys, and who may read them.
//!
//! Must never put a byte of a key into a message.

use super::TlsError;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use std::sync::Arc;

/// The cipher suites and their implementation.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Has crates that take their cipher suites from the process use the same ones.
#[cfg(feature = "mail")]
pub fn provide_for_all() {
    // An error says that there are some already: these, from an earlier call.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Whether a file holds certificates of CAs, and nothing but those.
///
/// # Errors
/// It does not.
#[cfg(feature = "mail")]
pub fn check_authorities(path: &Path) -> Result<(), TlsError> {
    authorities(path).map(drop)
}

/// Says which file it is.
pub(super) fn wrong(path: &Path, problem: impl ToString) -> TlsError {
    TlsError { path: path.to_owned(), problem: problem.to_string() }
}

/// All certificates of a file, at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = std::fs::read(path).map_err(|error| wrong(path, error))?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates = read.map_err(|error| wrong(path, format!("not PEM: {error}")))?;
    if certificates.is_empty() {
        return Err(wrong(path, "holds no certificate: it must be PEM (-----BEGIN CERTIFICATE-----)"));
    }
    Ok(certificates)
}

/// The certificates of a file as those whose word counts.
pub(super) fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|error| wrong(path, format!("not the certificate of a CA: {error}")))?;
    }
    Ok(store)
}

/// The key of a file that others can not read.
pub(super) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    check_private(path)?;
    let text = std::fs::read(path).map_err(|error| wrong(path, error))?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        wrong(path, "holds no key that can be read: it must be PEM (-----BEGIN PRIVATE KEY-----), without a password")
    })
}

#[cfg(unix)]
fn check_private(path: &Path) -> Result<(), TlsError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).map_err(|error| wrong(path, error))?.permissions().mode();
    match mode & crate::base::limits::SECRET_MODE_FORBIDDEN {
        0 => Ok(()),
        _ => Err(wrong(path, format!("others may use this key (mode {:04o}): chmod 0600 (or 0640) it", mode & 0o7777))),
    }
}

/// Other systems keep to lists of who may read a file, which are not looked at.
#[cfg(not(unix))]
fn check_private(_: &Path) -> Result<(), TlsError> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_that_others_or_its_group_may_change_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("a.key");
        let pem = rcgen::KeyPair::generate().expect("a key").serialize_pem();
        std::fs::write(&path, pem).expect("written");
        for (mode, is_good) in [
            (0o600, true),
            (0o640, true),
            (0o400, true),
            (0o660, false),
            (0o670, false),
            (0o650, false),
            (0o604, false),
        ] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("chmod");
            assert_eq!(key(&path).is_ok(), is_good, "{mode:o}");
        }
    }
}
