//! Bodies of single payloads: Identification (RFC 2407 section 4.6.2), Notification and Delete (RFC 2408 sections 3.14 and 3.15).

use std::fmt;
use std::net::IpAddr;

use x509_cert::der::Decode as _;
use x509_cert::name::Name;

use super::certificate::title;
use super::registry::{DOI_IPSEC, IdType, NotifyType, ProtocolId};
use crate::config::{self, IdentityKind};
use crate::wire::{Malformed, Reader};

/// The most SPIs in one Delete payload that are looked at; a peer of ours has a handful of SAs.
const MAX_DELETED: usize = 64;

/// What is kept of an identity that is longer than all that are known.
const MAX_IDENTITY: usize = 512;

/// The longest subject of a certificate.
const MAX_NAME: usize = 2_048;

/// Octets of type, protocol and port in front of an identity.
const ID_HEADER: usize = 4;

/// Who a peer says it is (RFC 2407 section 4.6.2.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Identity {
    /// ID_IPV4_ADDR or ID_IPV6_ADDR.
    Address(IpAddr),
    /// ID_FQDN: a name such as `vpn.example.com`.
    Fqdn(String),
    /// ID_USER_FQDN: a name such as `someone@example.com`.
    UserFqdn(String),
    /// ID_DER_ASN1_DN: the subject of a certificate in DER.
    DistinguishedName(Vec<u8>),
    /// ID_KEY_ID: octets without a meaning to others.
    KeyId(Vec<u8>),
    /// Any other type, or a value that does not fit its type: only a peer sends it.
    Other {
        /// The type.
        kind: IdType,
        /// The octets.
        data: Vec<u8>,
    },
}

impl Identity {
    fn kind(&self) -> IdType {
        match self {
            Self::Address(IpAddr::V4(_)) => IdType::IPV4_ADDR,
            Self::Address(IpAddr::V6(_)) => IdType::IPV6_ADDR,
            Self::Fqdn(_) => IdType::FQDN,
            Self::UserFqdn(_) => IdType::USER_FQDN,
            Self::DistinguishedName(_) => IdType::DER_ASN1_DN,
            Self::KeyId(_) => IdType::KEY_ID,
            Self::Other { kind, .. } => *kind,
        }
    }

    //= rfc2408 3.8 "If unused, then this field MUST be set to 0."
    //= test: an_identification_of_phase_1_has_neither_protocol_nor_port, message_1_names_the_client_and_offers_one_group
    /// The body of an Identification payload.
    pub(super) fn body(&self, protocol: u8, port: u16) -> Vec<u8> {
        let mut body = vec![self.kind().0, protocol];
        body.extend_from_slice(&port.to_be_bytes());
        match self {
            Self::Address(address) => body.extend_from_slice(&address_octets(*address)),
            Self::Fqdn(name) | Self::UserFqdn(name) => body.extend_from_slice(name.as_bytes()),
            Self::DistinguishedName(data) | Self::KeyId(data) | Self::Other { data, .. } => {
                body.extend_from_slice(data)
            }
        }
        body
    }

    //= out: rfc2408 5.8 "When an Identification payload is received, the receiving entity (initiator or responder) MUST do the following:" an identity of an unknown type or a name that cannot be read is kept as octets instead of being refused: Windows, Apple and old gateways send odd ones. What is proved is the key, and where an identity is configured or a certificate names it, nothing else is accepted
    /// Reads the body of an Identification payload. Protocol and port are not judged: real peers put 0, 500, 4500 and other
    /// ports there. What does not fit its type is kept as it is: the peer has proved it, so it is an identity.
    pub(super) fn read(body: &[u8]) -> Self {
        let (header, data) = body.split_at(body.len().min(ID_HEADER));
        let kind = IdType(header.first().copied().unwrap_or_default());
        let text = || String::from_utf8(data.to_vec()).ok().filter(|text| text.len() <= MAX_IDENTITY);
        let known = match kind {
            IdType::IPV4_ADDR => <[u8; 4]>::try_from(data).ok().map(|octets| Self::Address(octets.into())),
            IdType::IPV6_ADDR => <[u8; 16]>::try_from(data).ok().map(|octets| Self::Address(octets.into())),
            IdType::FQDN => text().map(Self::Fqdn),
            IdType::USER_FQDN => text().map(Self::UserFqdn),
            IdType::DER_ASN1_DN if data.len() <= MAX_NAME => Some(Self::DistinguishedName(data.to_vec())),
            IdType::KEY_ID if data.len() <= MAX_IDENTITY => Some(Self::KeyId(data.to_vec())),
            _ => None,
        };
        let kept = data.get(..MAX_IDENTITY).unwrap_or(data);
        known.unwrap_or_else(|| Self::Other { kind, data: kept.to_vec() })
    }

    /// Whether both name the same peer: names of hosts and of users at them have no case.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Fqdn(one), Self::Fqdn(other)) | (Self::UserFqdn(one), Self::UserFqdn(other)) => {
                one.eq_ignore_ascii_case(other)
            }
            (one, other) => one == other,
        }
    }
}

impl From<&config::Identity> for Identity {
    /// An address that is none is taken for opaque octets: the configuration was checked.
    fn from(id: &config::Identity) -> Self {
        let text = || id.value.clone();
        match id.kind {
            IdentityKind::Address => id.value.parse().map_or_else(|_| Self::KeyId(text().into_bytes()), Self::Address),
            IdentityKind::Fqdn => Self::Fqdn(text()),
            IdentityKind::UserFqdn => Self::UserFqdn(text()),
            IdentityKind::KeyId => Self::KeyId(text().into_bytes()),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            // A name from the peer may hold anything: control characters must not reach a terminal.
            Self::Fqdn(name) | Self::UserFqdn(name) => name.escape_debug().fmt(f),
            Self::DistinguishedName(der) => match Name::from_der(der) {
                Ok(name) => title(&name).fmt(f),
                Err(_) => hexadecimal(f, "DER_ASN1_DN", der),
            },
            Self::KeyId(data) => hexadecimal(f, "KEY_ID", data),
            Self::Other { kind, data } => hexadecimal(f, &kind.to_string(), data),
        }
    }
}

fn hexadecimal(f: &mut fmt::Formatter<'_>, kind: &str, data: &[u8]) -> fmt::Result {
    write!(f, "{kind} ")?;
    data.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
}

/// The octets of an address in network order.
pub(super) fn address_octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Reads the domain of interpretation, which is IPsec. Some peers leave it at 0, ISAKMP by itself, which means the same.
fn read_doi(reader: &mut Reader<'_>, what: &'static str) -> Result<(), Malformed> {
    if [0, DOI_IPSEC].contains(&reader.u32(what)?) { Ok(()) } else { Err(Malformed::Invalid(what)) }
}

/// A Notification payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Notification<'a> {
    pub(super) protocol: ProtocolId,
    pub(super) spi: &'a [u8],
    pub(super) kind: NotifyType,
    pub(super) data: &'a [u8],
}

//= out: rfc2407 4.6.3.1 "When present, the Notification Payload MUST have the following format:" binds who sends RESPONDER-LIFETIME: this end never does, and lets a shorter life of its own take effect without a word (section 4.5.4); those of peers are read
//= out: rfc2407 4.6.3.2 "When present, the Notification Payload MUST have the following format:" binds who sends REPLAY-STATUS: this end never does
//= out: rfc2408 3.14 "If the SPI Size is non-zero, the content of the SPI field MUST be ignored." it is ignored but in R-U-THERE and its answer, whose cookies RFC 3706 section 6.1 wants compared
impl<'a> Notification<'a> {
    //= rfc2408 5.14 "When a Notification payload is received, the receiving entity (initiator or responder) MUST do the following:"
    //= test: a_question_and_its_answer_have_the_form_of_the_rfc_and_the_same_number, notifications_and_deletes_of_another_domain_are_refused, unprotected_messages_change_nothing
    //= out: rfc2408 5.14 "When a Notification payload is received, the receiving entity (initiator or responder) MUST do the following:" of the six steps the third is left out: an unknown Protocol-ID does not discard an authenticated payload, because peers put 0 and odd numbers beside a refusal that means the Quick Mode in flight
    pub(super) fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        read_doi(&mut reader, "notification DOI")?;
        let protocol = ProtocolId(reader.u8("notification protocol")?);
        let spi_size = reader.u8("notification SPI size")?;
        let kind = NotifyType(reader.u16("notify message type")?);
        let spi = reader.take(usize::from(spi_size), "notification SPI")?;
        Ok(Self { protocol, spi, kind, data: reader.rest() })
    }

    //= rfc2407 4.6.3.3 "When present, the Notification Payload MUST have the following format:"
    //= test: initial_contact_follows_aggressive_mode_in_a_message_of_its_own, notifications_and_deletes_survive_the_round_trip_and_refuse_truncation
    //= rfc2408 5.14 "When creating a Notification Payload, the transmitting entity (initiator or responder) MUST do the following:"
    //= test: a_question_and_its_answer_have_the_form_of_the_rfc_and_the_same_number, notifications_and_deletes_survive_the_round_trip_and_refuse_truncation
    pub(super) fn body(&self) -> Vec<u8> {
        let mut body = DOI_IPSEC.to_be_bytes().to_vec();
        let spi_size = u8::try_from(self.spi.len()).expect("an SPI of this crate has 0, 4 or 16 octets");
        body.extend_from_slice(&[self.protocol.0, spi_size]);
        body.extend_from_slice(&self.kind.0.to_be_bytes());
        body.extend_from_slice(self.spi);
        body.extend_from_slice(self.data);
        body
    }
}

/// A Delete payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Delete<'a> {
    pub(super) protocol: ProtocolId,
    pub(super) spis: Vec<&'a [u8]>,
}

impl<'a> Delete<'a> {
    //= rfc2408 5.15 "When a Delete payload is received, the receiving entity (initiator or responder) MUST do the following:"
    //= test: closing_deletes_everything_at_the_other_end_even_over_a_bad_link, a_delete_with_the_spi_of_another_protocol_or_domain_or_with_a_wrong_hash_deletes_nothing, deletes_of_what_is_unknown_or_already_replaced_touch_nothing_else
    pub(super) fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        read_doi(&mut reader, "delete DOI")?;
        let protocol = ProtocolId(reader.u8("delete protocol")?);
        let spi_size = usize::from(reader.u8("delete SPI size")?);
        let count = usize::from(reader.u16("number of SPIs")?);
        if count > MAX_DELETED || spi_size == 0 {
            return Err(Malformed::Invalid("number of SPIs"));
        }
        let spis = (0..count).map(|_| reader.take(spi_size, "deleted SPI")).collect::<Result<_, _>>()?;
        reader.finish("delete payload")?;
        Ok(Self { protocol, spis })
    }

    //= rfc2408 3.15 "Mixing of Protocol Identifiers MUST NOT be performed with the Delete payload."
    //= test: what_goes_is_named_by_its_protocol_with_an_spi_of_its_size, a_delete_with_the_spi_of_another_protocol_or_domain_or_with_a_wrong_hash_deletes_nothing
    //= rfc2408 5.15 "When creating a Delete Payload, the transmitting entity (initiator or responder) MUST do the following:"
    //= test: what_goes_is_named_by_its_protocol_with_an_spi_of_its_size, notifications_and_deletes_survive_the_round_trip_and_refuse_truncation
    /// The body of a payload that deletes one SA.
    pub(super) fn body(protocol: ProtocolId, spi: &[u8]) -> Vec<u8> {
        let mut body = DOI_IPSEC.to_be_bytes().to_vec();
        let spi_size = u8::try_from(spi.len()).expect("an SPI of this crate has 4 or 16 octets");
        body.extend_from_slice(&[protocol.0, spi_size, 0, 1]);
        body.extend_from_slice(spi);
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_survive_the_round_trip() {
        for identity in [
            Identity::Address([192, 0, 2, 1].into()),
            Identity::Address("2001:db8::1".parse().unwrap()),
            Identity::Fqdn("vpn.example.com".into()),
            Identity::UserFqdn("a@example.com".into()),
            Identity::KeyId(vec![1, 2, 3]),
            Identity::DistinguishedName(vec![0x30, 0]),
            Identity::Other { kind: IdType::DER_ASN1_GN, data: vec![0x30, 0] },
        ] {
            // The RFC allows 0/0 and 17/500; peers behind a NAT and others send what they like.
            for (protocol, port) in [(0, 0), (17, 0), (17, 500), (17, 4500), (6, 80)] {
                assert_eq!(Identity::read(&identity.body(protocol, port)), identity);
            }
        }
    }

    #[test]
    fn what_does_not_fit_its_type_is_an_identity_all_the_same() {
        let other = |kind, data: &[u8]| Identity::Other { kind, data: data.to_vec() };
        assert_eq!(Identity::read(&[1, 0, 0, 0, 192, 0, 2]), other(IdType::IPV4_ADDR, &[192, 0, 2]));
        assert_eq!(Identity::read(&[2, 0, 0, 0, 0xff, 0xfe]), other(IdType::FQDN, &[0xff, 0xfe]));
        assert_eq!(Identity::read(&[11, 0, 0]), Identity::KeyId(vec![]));
        assert_eq!(Identity::read(&[]), other(IdType(0), &[]));
        let long = [&[11, 0, 0, 0][..], &[7; 2000]].concat();
        assert_eq!(Identity::read(&long), other(IdType::KEY_ID, &[7; MAX_IDENTITY]));
    }

    #[test]
    fn names_are_compared_without_case_and_octets_with_it() {
        let fqdn = |name: &str| Identity::Fqdn(name.to_owned());
        assert!(fqdn("VPN.example.com").is_same(&fqdn("vpn.Example.com")));
        assert!(!fqdn("vpn.example.com").is_same(&fqdn("vpn.example.org")));
        assert!(!fqdn("a@b").is_same(&Identity::UserFqdn("a@b".to_owned())));
        assert!(!Identity::KeyId(b"A".to_vec()).is_same(&Identity::KeyId(b"a".to_vec())));
    }

    #[test]
    fn names_of_the_peer_are_printed_without_control_characters() {
        assert_eq!(Identity::Fqdn("a\u{1b}[31m".into()).to_string(), "a\\u{1b}[31m");
    }

    #[test]
    fn notifications_and_deletes_of_another_domain_are_refused() {
        let (spi, kind) = (&[1, 2, 3, 4], NotifyType::INVALID_SPI);
        let notification = Notification { protocol: ProtocolId::ESP, spi, kind, data: &[] }.body();
        let delete = Delete::body(ProtocolId::ESP, spi);
        for (doi, taken) in [(0, true), (1, true), (2, false), (255, false)] {
            let [mut notification, mut delete] = [notification.clone(), delete.clone()];
            (notification[3], delete[3]) = (doi, doi);
            assert_eq!(Notification::read(&notification).is_ok(), taken, "{doi}");
            assert_eq!(Delete::read(&delete).is_ok(), taken, "{doi}");
        }
    }

    #[test]
    fn notifications_and_deletes_survive_the_round_trip_and_refuse_truncation() {
        let notification = Notification {
            protocol: ProtocolId::ISAKMP,
            spi: &[5; 16],
            kind: NotifyType::R_U_THERE,
            data: &[0, 0, 0, 9],
        };
        let body = notification.body();
        assert_eq!(Notification::read(&body), Ok(notification));
        assert!((0..24).all(|length| Notification::read(&body[..length]).is_err()));
        let body = Delete::body(ProtocolId::ESP, &[1, 2, 3, 4]);
        assert_eq!(Delete::read(&body), Ok(Delete { protocol: ProtocolId::ESP, spis: vec![&[1, 2, 3, 4]] }));
        assert!((0..body.len()).all(|length| Delete::read(&body[..length]).is_err()));
    }
}
