//! TLS as a client: which certificates are trusted, which one we show, and what went wrong.
//!
//! The trap: with TLS 1.3 a server that misses our certificate says so only after the handshake
//! has succeeded on our side, as an alert in the middle of the first read.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};

use super::Error;
use super::error::TlsProblem;

/// The PEM files of a TLS connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The CA certificates to trust, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Our certificate, with the chain up to the server's CA.
    pub cert_file: Option<PathBuf>,
    /// The private key of `cert_file`.
    pub key_file: Option<PathBuf>,
}

impl TlsFiles {
    /// Reads the files into a client configuration.
    ///
    /// # Errors
    /// [`Error::TlsFile`] when one can't be read or does not hold what it should.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Tls {
                place: "any server".to_owned(),
                problem: TlsProblem::Other(error.to_string()),
            })?
            .with_root_certificates(self.roots()?);
        let config = match (&self.cert_file, &self.key_file) {
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), Some(key)) => {
                let certs = read_certs(cert)?;
                let private = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| file_error(key, error.to_string()))?;
                builder
                    .with_client_auth_cert(certs, private)
                    .map_err(|error| file_error(key, error.to_string()))?
            }
            (Some(cert), None) => {
                return Err(file_error(cert, "its `key_file` is missing".to_owned()));
            }
            (None, Some(key)) => {
                return Err(file_error(key, "its `cert_file` is missing".to_owned()));
            }
        };
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        match &self.ca_file {
            Some(path) => {
                for cert in read_certs(path)? {
                    roots
                        .add(cert)
                        .map_err(|error| file_error(path, error.to_string()))?;
                }
            }
            None => {
                // Some of a system's certificates are always unusable; none at all shows as UnknownCa.
                let (_added, _ignored) =
                    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        Ok(roots)
    }
}

fn read_certs(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certs: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| file_error(path, error.to_string()))?;
    if certs.is_empty() {
        return Err(file_error(path, "it holds no certificate".to_owned()));
    }
    Ok(certs)
}

fn file_error(path: &Path, problem: String) -> Error {
    Error::TlsFile {
        path: path.to_owned(),
        problem,
    }
}

/// What of TLS is behind an I/O error; `None` when it is not TLS's.
pub(super) fn problem(error: &io::Error, host: &str) -> Option<TlsProblem> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match error {
        rustls::Error::InvalidCertificate(fault) => match fault {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                TlsProblem::UnknownCa
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                TlsProblem::WrongName(host.to_owned())
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => TlsProblem::OutOfDate,
            other => TlsProblem::Certificate(other.to_string()),
        },
        rustls::Error::InvalidMessage(_) => TlsProblem::PlainText,
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError
            | AlertDescription::HandshakeFailure
            | AlertDescription::UnknownCA => TlsProblem::ClientCertificate,
            other => TlsProblem::Other(format!("the server ended the handshake: {other:?}")),
        },
        other => TlsProblem::Other(other.to_string()),
    })
}
