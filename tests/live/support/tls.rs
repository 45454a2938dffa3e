//! A certificate authority made for one test: server and client certificates for 127.0.0.1 and localhost.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// The PEM files of a private authority, in a folder of their own.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// The authority.
    pub ca: PathBuf,
    /// The server's certificate and key.
    pub server: (PathBuf, PathBuf),
    /// A client's certificate and key.
    pub client: (PathBuf, PathBuf),
}

impl Certificates {
    /// Makes them in `folder`.
    pub fn make(folder: &Path) -> Certificates {
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name
            .push(DnType::CommonName, "rdbkeeper test authority");
        let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
        let issuer = Issuer::new(ca, ca_key);
        let leaf = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let mut leaf =
                CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])
                    .unwrap();
            leaf.distinguished_name.push(DnType::CommonName, name);
            let certificate = leaf.signed_by(&key, &issuer).unwrap();
            let files = (
                folder.join(format!("{name}.crt")),
                folder.join(format!("{name}.key")),
            );
            std::fs::write(&files.0, certificate.pem()).unwrap();
            std::fs::write(&files.1, key.serialize_pem()).unwrap();
            files
        };
        let certificates = Certificates {
            ca: folder.join("ca.crt"),
            server: leaf("server"),
            client: leaf("client"),
        };
        std::fs::write(&certificates.ca, ca_pem).unwrap();
        certificates
    }
}
