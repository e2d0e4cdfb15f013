//! The Certificate and the Certificate Request payload (RFC 2408 sections 3.9 and 3.10, RFC 4945 sections 3.2 and 3.3).

use x509_cert::der::oid::db::rfc5911::ID_SIGNED_DATA;
use x509_cert::der::{self, AnyRef, Decode as _, Reader, SliceReader, Tag, TagNumber, Tagged as _};
use x509_cert::spki::ObjectIdentifier;

use super::MAX_CHAIN;
use crate::ike::message::Payloads;
use crate::ike::registry::{CertificateEncoding, PayloadType};

/// The body of a CERT payload.
pub(super) fn certificate(der: &[u8]) -> Vec<u8> {
    [&[CertificateEncoding::X509_SIGNATURE.0], der].concat()
}

//= rfc2408 5.10 "When creating a Certificate Request Payload, the transmitting entity (initiator or responder) MUST do the following:"
//= test: requests_name_the_authorities_or_ask_for_any, certificates_are_asked_for_in_messages_4_and_5_and_sent_to_those_who_ask
/// The body of a CERTREQ payload for certificates of this authority; of any if the name is empty.
pub(super) fn request(authority: &[u8]) -> Vec<u8> {
    [&[CertificateEncoding::X509_SIGNATURE.0], authority].concat()
}

//= out: rfc2408 3.10 "The Certificate Request payload MUST be accepted at any point during the exchange." it is obeyed where RFC 4945 section 3.2.4 and peers put it, in messages 3, 4 and 5 of Main Mode; elsewhere it is passed over, because nothing is kept of message 1 and message 6 is the last
//= out: rfc2408 5.10 "When a Certificate Request payload is received, the receiving entity (initiator or responder) MUST do the following:" the encoding is judged, but not the authority: there is one certificate to send, and a peer that asks by an intermediate or cross-signed authority believes it all the same. It learns the subject of a certificate that it may not trust
/// Whether the peer wants our certificate, whatever authority it names: there is one certificate to send.
pub(in crate::ike) fn asks(payloads: &Payloads<'_>) -> bool {
    payloads.all(PayloadType::CR).filter_map(|body| body.first()).any(|&encoding| {
        // RFC 4945 section 3.2.4: a request for PKCS #7 may be treated as one for X.509.
        matches!(CertificateEncoding(encoding), CertificateEncoding::X509_SIGNATURE | CertificateEncoding::PKCS7)
    })
}

//= rfc2408 5.9 "When a Certificate payload is received, the receiving entity (initiator or responder) MUST do the following:"
//= test: pkcs_7_is_unwrapped_and_what_is_no_certificate_left_out, a_peer_without_a_certificate_is_told_apart_from_one_whose_certificate_cannot_be_read
/// The certificates of a message in DER, each once and as many as a chain has. What is neither X.509 nor PKCS #7 is left out:
/// revocation lists of a peer revoke nothing here (RFC 4945 section 3.3.10.5).
pub(super) fn received(payloads: &Payloads<'_>) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for body in payloads.all(PayloadType::CERT) {
        let Some((&encoding, data)) = body.split_first() else { continue };
        let found = match CertificateEncoding(encoding) {
            CertificateEncoding::X509_SIGNATURE => vec![data.to_vec()],
            CertificateEncoding::PKCS7 => unwrapped(data).unwrap_or_default(),
            _ => Vec::new(),
        };
        for der in found {
            if all.len() < MAX_CHAIN && !all.contains(&der) {
                all.push(der);
            }
        }
    }
    all
}

/// The certificates inside of a SignedData that signs nothing (RFC 2315 sections 7 and 9.1).
fn unwrapped(der: &[u8]) -> der::Result<Vec<Vec<u8>>> {
    let content_info = AnyRef::from_der(der)?;
    content_info.tag().assert_eq(Tag::Sequence)?;
    let mut reader = SliceReader::new(content_info.value())?;
    if ObjectIdentifier::decode(&mut reader)? != ID_SIGNED_DATA {
        return Err(Tag::ObjectIdentifier.value_error().into());
    }
    let content = AnyRef::decode(&mut reader)?;
    let signed_data = AnyRef::from_der(content.value())?;
    signed_data.tag().assert_eq(Tag::Sequence)?;
    let mut reader = SliceReader::new(signed_data.value())?;
    // version, digestAlgorithms, contentInfo
    for _ in 0..3 {
        AnyRef::decode(&mut reader)?;
    }
    let certificates = AnyRef::decode(&mut reader)?;
    if !matches!(certificates.tag(), Tag::ContextSpecific { constructed: true, number: TagNumber(0) }) {
        return Ok(Vec::new());
    }
    let mut reader = SliceReader::new(certificates.value())?;
    let mut found = Vec::new();
    while !reader.is_finished() && found.len() < MAX_CHAIN {
        found.push(reader.tlv_bytes()?.to_vec());
    }
    Ok(found)
}
