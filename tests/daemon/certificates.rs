//! Certificates made when a test (or a benchmark) runs: two CAs, a server, clients good and bad, as PEM files.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tilecatcher::tls::{ClientFiles, ClientTls};

/// The name of the client `client`.
pub const CLIENT: &str = "camera-pc-7";

/// A directory of `NAME.pem` and `NAME.key`.
pub struct Certificates {
    dir: TempDir,
}

type Issuer = CertifiedIssuer<'static, KeyPair>;

impl Certificates {
    /// `ca` has signed `server` (127.0.0.1), `client` ([`CLIENT`]) and `expired`; `other` has signed `stranger`.
    pub fn make() -> Self {
        let made = Self { dir: tempfile::tempdir().expect("a temporary directory") };
        let (ca, other) = (made.authority("ca"), made.authority("other"));
        made.issue("server", &["127.0.0.1"], &ca, |_| {});
        made.issue("client", &[CLIENT], &ca, |_| {});
        made.issue("stranger", &["stranger"], &other, |_| {});
        made.issue("expired", &["late"], &ca, |params| {
            (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        });
        made
    }

    pub fn certificate(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.pem"))
    }

    pub fn key(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.key"))
    }

    /// What a client loads that trusts `ca` and shows `identity`.
    pub fn client_files(&self, ca: &str, identity: Option<&str>) -> ClientFiles {
        let identity = identity.map(|name| (self.certificate(name), self.key(name)));
        ClientFiles { ca: self.certificate(ca), identity, server_name: None }
    }

    pub fn client(&self, ca: &str, identity: Option<&str>) -> ClientTls {
        ClientTls::load(&self.client_files(ca, identity)).expect("good files")
    }

    /// Settings of a daemon whose capture port has an encrypted one beside it.
    pub fn capture_settings(&self) -> Vec<String> {
        vec![
            "capture.tls_address=127.0.0.1:0".to_owned(),
            format!("capture.tls_certificate={}", self.certificate("server").display()),
            format!("capture.tls_key={}", self.key("server").display()),
            format!("capture.tls_client_ca={}", self.certificate("ca").display()),
        ]
    }

    fn authority(&self, name: &str) -> Issuer {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA");
        write(&self.certificate(name), &issuer.pem());
        issuer
    }

    fn issue(&self, name: &str, names: &[&str], issuer: &Issuer, change: impl Fn(&mut CertificateParams)) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("good names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, issuer).expect("signed");
        write(&self.certificate(name), &certificate.pem());
        write(&self.key(name), &key.serialize_pem());
    }
}

/// Only for the owner, as keys must be.
fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("written");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("only for its owner");
    }
}
