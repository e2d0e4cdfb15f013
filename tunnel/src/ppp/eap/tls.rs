//! EAP-TLS (RFC 5216): a TLS handshake by which both ends prove that they have the key of a certificate, in fragments of EAP packets.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::{Ia5StringRef, PrintableStringRef, Utf8StringRef};
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::oid::db::rfc4519::COMMON_NAME;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::aaa::MAX_NAME;

/// The longest message, or set of messages, in octets (section 2.1.5).
const MAX_MESSAGE: usize = 65_536;
/// The TLS data of one packet: an EAP packet of 1020 octets passes every link (RFC 3748 section 3.1), and Code, Identifier, Length,
/// Type, Flags and TLS Message Length take ten of them.
const FRAGMENT: usize = 1_010;
/// The most names of a certificate that are looked at.
const MAX_NAMES: usize = 16;

/// The Flags (section 3.1).
const LENGTH_INCLUDED: u8 = 0x80;
const MORE_FRAGMENTS: u8 = 0x40;
const START: u8 = 0x20;

/// The user principal name of a certificate that Windows uses: an otherName of this type with a UTF8String.
const USER_PRINCIPAL_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.20.2.3");

/// What an authenticator needs: its certificate, and whose certificates of clients it believes.
#[derive(Clone)]
pub struct TlsServer(Arc<ServerConfig>);

/// What a client needs: its certificate, and whose certificate of which server it believes.
#[derive(Clone)]
pub struct TlsClient(Arc<ClientConfig>, ServerName<'static>);

/// The certificates or the key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("EAP-TLS: {0}")]
pub struct Unusable(String);

impl Unusable {
    fn new(error: impl fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// One end's certificate with what is between it and its authority, and its key.
pub struct Credentials {
    /// The certificate, then those that lead to the authority.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the first certificate.
    pub key: PrivateKeyDer<'static>,
    /// The authorities whose certificates the other end may have.
    pub authorities: Vec<CertificateDer<'static>>,
    /// Their revocation lists. An authority without one revokes nothing.
    pub revocations: Vec<CertificateRevocationListDer<'static>>,
}

impl Credentials {
    fn roots(&self) -> Result<Arc<RootCertStore>, Unusable> {
        let mut roots = RootCertStore::empty();
        for authority in &self.authorities {
            roots.add(authority.clone()).map_err(Unusable::new)?;
        }
        Ok(Arc::new(roots))
    }
}

impl TlsServer {
    /// An authenticator that believes certificates of the authorities.
    ///
    /// # Errors
    /// When certificates, key or lists cannot be used.
    pub fn new(credentials: Credentials) -> Result<Self, Unusable> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(credentials.roots()?, Arc::clone(&provider))
            .with_crls(credentials.revocations)
            .allow_unknown_revocation_status()
            .build()
            .map_err(Unusable::new)?;
        // TLS 1.3 has another end of the conversation (RFC 9190).
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS12])
            .map_err(Unusable::new)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(credentials.chain, credentials.key)
            .map_err(Unusable::new)?;
        // Whoever was revoked since must not come back by what was agreed before.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self(Arc::new(config)))
    }
}

impl TlsClient {
    /// A client that believes a server of that name with a certificate of the authorities.
    ///
    /// # Errors
    /// When certificates, key, lists or the name cannot be used.
    pub fn new(credentials: Credentials, server: &str) -> Result<Self, Unusable> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = ServerName::try_from(server.to_owned()).map_err(Unusable::new)?;
        let verifier = WebPkiServerVerifier::builder_with_provider(credentials.roots()?, Arc::clone(&provider))
            .with_crls(credentials.revocations)
            .allow_unknown_revocation_status()
            .build()
            .map_err(Unusable::new)?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS12])
            .map_err(Unusable::new)?
            .with_webpki_verifier(verifier)
            .with_client_auth_cert(credentials.chain, credentials.key)
            .map_err(Unusable::new)?;
        Ok(Self(Arc::new(config), server))
    }
}

/// What came of a packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing: not what was expected.
    Ignored,
    /// This follows the Type of the next packet.
    Send(Vec<u8>),
    /// The handshake is complete, and nothing is left to be sent.
    Complete,
    /// There is no trust between the ends, and this end has said so where it could.
    Failed(Failure),
}

/// Why a handshake failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The other end did not prove who it is, or says what makes no sense.
    Ours(String),
    /// The other end says so.
    Theirs(String),
}

/// One handshake.
pub(super) struct Conversation {
    connection: Connection,
    /// The fragments of what is being received.
    incoming: Vec<u8>,
    /// What is being sent, and how much of it is.
    outgoing: Vec<u8>,
    sent: usize,
    failure: Option<Failure>,
}

impl Conversation {
    /// The authenticator's end.
    pub(super) fn server(config: &TlsServer) -> Result<Self, Failure> {
        let connection = ServerConnection::new(Arc::clone(&config.0)).map_err(ours)?;
        Ok(Self::new(connection.into()))
    }

    /// The client's end.
    pub(super) fn client(config: &TlsClient) -> Result<Self, Failure> {
        let connection = ClientConnection::new(Arc::clone(&config.0), config.1.clone()).map_err(ours)?;
        Ok(Self::new(connection.into()))
    }

    fn new(mut connection: Connection) -> Self {
        connection.set_buffer_limit(Some(MAX_MESSAGE));
        Self { connection, incoming: Vec::new(), outgoing: Vec::new(), sent: 0, failure: None }
    }

    /// What follows the Type of the packet that begins a conversation.
    pub(super) fn start() -> Vec<u8> {
        vec![START]
    }

    /// Whether a packet begins a conversation.
    pub(super) fn is_start(data: &[u8]) -> bool {
        data.first().is_some_and(|flags| flags & START != 0)
    }

    /// Takes what follows the Type of a packet.
    pub(super) fn handle(&mut self, data: &[u8]) -> Progress {
        let Some((flags, rest)) = data.split_first() else { return Progress::Ignored };
        let (length, body) = if flags & LENGTH_INCLUDED == 0 {
            (0, rest)
        } else {
            let Some((length, body)) = rest.split_first_chunk::<4>() else { return Progress::Ignored };
            (u32::from_be_bytes(*length), body)
        };
        if self.sent < self.outgoing.len() {
            // Only an acknowledgement makes way for the next fragment.
            //= rfc5216 2.1.5 "The EAP server MUST wait until it receives the EAP-Response before sending another fragment."
            //= test: a_client_with_a_certificate_comes_in_although_frames_are_lost_and_repeated, the_next_fragment_goes_out_when_the_one_before_it_is_acknowledged
            return if body.is_empty() { Progress::Send(self.fragment()) } else { Progress::Ignored };
        }
        if let Some(failure) = self.failure.clone() {
            return Progress::Failed(failure);
        }
        let announced = usize::try_from(length).unwrap_or(usize::MAX);
        if announced.max(self.incoming.len().saturating_add(body.len())) > MAX_MESSAGE {
            return Progress::Failed(Failure::Ours("a message is too long".to_owned()));
        }
        self.incoming.extend(body);
        if flags & MORE_FRAGMENTS != 0 {
            //= rfc5216 2.1.5 "it MUST respond with an EAP-Request with EAP-Type=EAP-TLS and no data."
            //= test: fragments_are_acknowledged_and_a_message_has_a_bound, a_client_waits_for_each_fragment_and_for_the_success
            return Progress::Send(vec![0]);
        }
        self.advance()
    }

    /// Hands over what is received, and takes what is to be sent.
    pub(super) fn advance(&mut self) -> Progress {
        let message = std::mem::take(&mut self.incoming);
        let mut rest = message.as_slice();
        while !rest.is_empty() && self.failure.is_none() {
            if let Err(error) = self.connection.read_tls(&mut rest) {
                self.failure = Some(Failure::Ours(error.to_string()));
            } else if let Err(error) = self.connection.process_new_packets() {
                self.failure = Some(match error {
                    rustls::Error::AlertReceived(alert) => Failure::Theirs(format!("{alert:?}")),
                    error => ours(error),
                });
            }
        }
        (self.outgoing, self.sent) = (Vec::new(), 0);
        while self.connection.wants_write() {
            if let Err(error) = self.connection.write_tls(&mut self.outgoing) {
                self.failure = Some(Failure::Ours(error.to_string()));
                break;
            }
        }
        match &self.failure {
            _ if !self.outgoing.is_empty() => Progress::Send(self.fragment()),
            Some(failure) => Progress::Failed(failure.clone()),
            None if !self.connection.is_handshaking() => Progress::Complete,
            None => Progress::Failed(Failure::Ours("the handshake stops".to_owned())),
        }
    }

    /// The next fragment of what is being sent.
    fn fragment(&mut self) -> Vec<u8> {
        let (first, total) = (self.sent == 0, self.outgoing.len());
        let end = total.min(self.sent.saturating_add(FRAGMENT));
        let mut flags = if end < total { MORE_FRAGMENTS } else { 0 };
        let mut out = Vec::with_capacity(5 + FRAGMENT);
        if first && end < total {
            //= rfc5216 2.1.5 "MUST be set for the first fragment of a fragmented TLS message or set of messages."
            //= test: the_next_fragment_goes_out_when_the_one_before_it_is_acknowledged, nonsense_in_place_of_a_handshake_is_the_end_of_it
            flags |= LENGTH_INCLUDED;
        }
        out.push(flags);
        if flags & LENGTH_INCLUDED != 0 {
            out.extend(u32::try_from(total).unwrap_or(u32::MAX).to_be_bytes());
        }
        out.extend(self.outgoing.get(self.sent..end).unwrap_or_default());
        self.sent = end;
        out
    }

    /// Why the handshake failed, if it did.
    pub(super) fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// The names in the other end's certificate (section 5.2): subject alternative names, else the common name of the subject.
    pub(super) fn names(&self) -> Vec<String> {
        self.connection.peer_certificates().and_then(<[_]>::first).map(|der| names(der)).unwrap_or_default()
    }
}

fn ours(error: rustls::Error) -> Failure {
    Failure::Ours(error.to_string())
}

/// The names in a certificate. Those that are too long for a user's are none.
fn names(der: &[u8]) -> Vec<String> {
    let Ok(certificate) = Certificate::from_der(der) else { return Vec::new() };
    let tbs = certificate.tbs_certificate();
    let alternatives = tbs.get_extension::<SubjectAltName>().ok().flatten().map(|(_, names)| names.0);
    let names: Vec<String> = alternatives.iter().flatten().take(MAX_NAMES).filter_map(alternative).collect();
    let subject = || {
        let attributes = tbs.subject().iter_rdn().flat_map(|name| name.iter());
        attributes.filter(|attribute| attribute.oid == COMMON_NAME).filter_map(|attribute| {
            let value = &attribute.value;
            let utf8 = value.decode_as::<Utf8StringRef<'_>>().map(|text| text.as_str().to_owned());
            let printable = || value.decode_as::<PrintableStringRef<'_>>().map(|text| text.as_str().to_owned());
            utf8.or_else(|_| printable()).ok()
        })
    };
    let names = if names.is_empty() { subject().take(MAX_NAMES).collect() } else { names };
    names.into_iter().filter(|name| !name.is_empty() && name.len() <= MAX_NAME).collect()
}

fn alternative(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::OtherName(other) if other.type_id == USER_PRINCIPAL_NAME => {
            let utf8 = other.value.decode_as::<Utf8StringRef<'_>>().map(|text| text.as_str().to_owned());
            let ia5 = || other.value.decode_as::<Ia5StringRef<'_>>().map(|text| text.as_str().to_owned());
            utf8.or_else(|_| ia5()).ok()
        }
        GeneralName::Rfc822Name(name) | GeneralName::DnsName(name) => Some(name.as_str().to_owned()),
        _ => None,
    }
}
