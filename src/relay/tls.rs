//! TLS between nodes: a fresh self-signed certificate per run, and both sides pin the other's by
//! its SHA-256, which the origin carried over SSH. Names, authorities and dates mean nothing here.

use std::net::TcpStream;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, DistinguishedName,
    ServerConfig, ServerConnection, SignatureScheme, StreamOwned,
};

use crate::digest::Sha256;
use crate::error::{Error, Result};

/// The sending end of a pinned connection.
pub type Sending = StreamOwned<ClientConnection, TcpStream>;

/// The receiving end of a pinned connection.
pub type Receiving = StreamOwned<ServerConnection, TcpStream>;

/// A certificate and its key, made for one run and never stored.
pub struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// A new one.
    pub fn generate() -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec!["bundle".to_owned()])
            .map_err(|error| Error::Failed(format!("cannot make a TLS certificate: {error}")))?;
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        Ok(Self {
            certificate: made.cert.der().clone(),
            key,
        })
    }

    /// What the other side pins.
    #[must_use]
    pub fn fingerprint(&self) -> Sha256 {
        Sha256::of(&self.certificate)
    }

    /// Connects over `tcp` to the one peer with this fingerprint.
    pub fn connect(&self, tcp: TcpStream, peer: Sha256) -> Result<Sending> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| failed(&error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pins::new(vec![peer])))
            .with_client_auth_cert(vec![self.certificate.clone()], self.key.clone_key())
            .map_err(|error| failed(&error))?;
        let name = ServerName::try_from("bundle").map_err(|error| failed(&error))?;
        let connection =
            ClientConnection::new(Arc::new(config), name).map_err(|error| failed(&error))?;
        let mut stream = StreamOwned::new(connection, tcp);
        while stream.conn.is_handshaking() {
            stream
                .conn
                .complete_io(&mut stream.sock)
                .map_err(|error| failed(&error))?;
        }
        Ok(stream)
    }

    /// Answers on `tcp` to whoever has one of these fingerprints.
    pub fn accept(&self, tcp: TcpStream, peers: &[Sha256]) -> Result<Receiving> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| failed(&error))?
            .with_client_cert_verifier(Arc::new(Pins::new(peers.to_vec())))
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())
            .map_err(|error| failed(&error))?;
        // The sender never reads: tickets would stay in its buffer and turn its close into a reset.
        config.send_tls13_tickets = 0;
        let connection = ServerConnection::new(Arc::new(config)).map_err(|error| failed(&error))?;
        let mut stream = StreamOwned::new(connection, tcp);
        while stream.conn.is_handshaking() {
            stream
                .conn
                .complete_io(&mut stream.sock)
                .map_err(|error| failed(&error))?;
        }
        Ok(stream)
    }
}

fn failed(error: &impl std::fmt::Display) -> Error {
    Error::Failed(format!("the TLS handshake failed: {error}"))
}

/// One suite: the fastest where the processor has AES instructions, as servers do.
fn provider() -> Arc<CryptoProvider> {
    let suites = vec![ring::cipher_suite::TLS13_AES_128_GCM_SHA256];
    Arc::new(CryptoProvider {
        cipher_suites: suites,
        ..ring::default_provider()
    })
}

/// Accepts exactly the certificates with these fingerprints.
#[derive(Debug)]
struct Pins {
    fingerprints: Vec<Sha256>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Pins {
    fn new(fingerprints: Vec<Sha256>) -> Self {
        Self {
            fingerprints,
            algorithms: ring::default_provider().signature_verification_algorithms,
        }
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> std::result::Result<(), rustls::Error> {
        if self.fingerprints.contains(&Sha256::of(certificate)) {
            return Ok(());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    /// Proves that the peer has the key of its certificate.
    fn check_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }
}

/// Only TLS 1.3 is offered; see [`Identity::connect`].
const NO_TLS12: rustls::Error =
    rustls::Error::PeerIncompatible(rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13);

impl ServerCertVerifier for Pins {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        self.check(certificate)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Err(NO_TLS12)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Pins {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> std::result::Result<ClientCertVerified, rustls::Error> {
        self.check(certificate)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Err(NO_TLS12)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// What the acceptor read, given whom each side pins.
    fn exchange(
        client: &Identity,
        server: &Identity,
        client_pins: Sha256,
        server_pins: &[Sha256],
    ) -> Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                let tcp = TcpStream::connect(address).unwrap();
                if let Ok(mut stream) = client.connect(tcp, client_pins) {
                    let _ = stream.write_all(b"hello");
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                }
            });
            let mut stream = server.accept(listener.accept().unwrap().0, server_pins)?;
            let mut text = String::new();
            stream
                .read_to_string(&mut text)
                .map_err(|error| failed(&error))?;
            Ok(text)
        })
    }

    #[test]
    fn only_pinned_peers_talk() {
        let [alice, bob, eve] = [(); 3].map(|()| Identity::generate().unwrap());
        let (a, b, e) = (alice.fingerprint(), bob.fingerprint(), eve.fingerprint());
        assert_eq!(exchange(&alice, &bob, b, &[e, a]).unwrap(), "hello");
        assert!(exchange(&eve, &bob, b, &[a]).is_err());
        assert!(exchange(&alice, &eve, b, &[a]).is_err());
        assert!(exchange(&alice, &bob, b, &[]).is_err());
    }
}
