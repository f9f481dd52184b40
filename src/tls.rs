//! The server's side of TLS: certificate, key, and which clients' certificates are taken. Loaded from files, and again without
//! a restart.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use thiserror::Error;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};

use crate::config::{Config, TlsAuthClients};

/// Why there can be no TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{option} {path}: {source}")]
    File {
        /// The option that names it.
        option: &'static str,
        /// Its path.
        path: String,
        /// Why.
        source: pem::Error,
    },
    /// Clients are to show certificates, but nothing says which are good.
    #[error("tls-auth-clients needs tls-ca-cert-file")]
    NoAuthority,
    /// The certificates cannot be used.
    #[error("the TLS certificates cannot be used: {0}")]
    Rustls(#[from] rustls::Error),
    /// The authority's certificates cannot be used.
    #[error("tls-ca-cert-file cannot be used: {0}")]
    Authority(#[from] VerifierBuilderError),
}

/// What new TLS connections are made with.
#[derive(Default)]
pub struct Tls(ArcSwapOption<ServerConfig>);

impl Tls {
    /// Reads the files that the configuration names, if there is a TLS port. Connections that are open stay as they are.
    ///
    /// # Errors
    /// When a file is missing or wrong; what was loaded before is kept then.
    pub fn load(&self, config: &Config) -> Result<(), TlsError> {
        if config.tls_port > 0 {
            self.0.store(Some(Arc::new(server_config(config)?)));
        }
        Ok(())
    }

    /// What takes the next connection.
    pub fn acceptor(&self) -> Option<TlsAcceptor> {
        self.0.load_full().map(TlsAcceptor::from)
    }
}

fn certificates(
    option: &'static str,
    path: &std::path::Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::File { option, path: path.display().to_string(), source };
    let read = CertificateDer::pem_file_iter(path).map_err(failed)?;
    read.collect::<Result<_, _>>().map_err(failed)
}

fn server_config(config: &Config) -> Result<ServerConfig, TlsError> {
    let chain = certificates("tls-cert-file", &config.tls_cert_file)?;
    let key = PrivateKeyDer::from_pem_file(&config.tls_key_file).map_err(|source| TlsError::File {
        option: "tls-key-file",
        path: config.tls_key_file.display().to_string(),
        source,
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match config.tls_auth_clients {
        TlsAuthClients::No => builder.with_no_client_auth(),
        _ if config.tls_ca_cert_file.as_os_str().is_empty() => return Err(TlsError::NoAuthority),
        wanted => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates("tls-ca-cert-file", &config.tls_ca_cert_file)? {
                roots.add(certificate)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match wanted {
                TlsAuthClients::Optional => verifier.allow_unauthenticated(),
                _ => verifier,
            };
            builder.with_client_cert_verifier(verifier.build()?)
        }
    };
    Ok(builder.with_single_cert(chain, key)?)
}
