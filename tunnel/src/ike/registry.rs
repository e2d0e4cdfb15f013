//! Assigned numbers of ISAKMP (RFC 2408 sections 3.1, 3.14.1), IKE (RFC 2409 appendix A), the IPsec DOI (RFC 2407 section 4) and
//! NAT traversal (RFC 3947 section 9, with the numbers of its drafts 02 and 03).

use crate::registry;
use crate::suite::{Cipher, Group, Hash};

registry! {
    /// Payload types (RFC 2408 section 3.1, RFC 3947 section 9, draft-dukes-ike-mode-cfg-02 section 3.2).
    pub struct PayloadType(u8) {
        NONE = 0,
        SA = 1,
        P = 2,
        T = 3,
        KE = 4,
        ID = 5,
        CERT = 6,
        CR = 7,
        HASH = 8,
        SIG = 9,
        NONCE = 10,
        N = 11,
        D = 12,
        VID = 13,
        ATTRIBUTES = 14,
        NAT_D = 20,
        NAT_OA = 21,
        NAT_D_DRAFT = 130,
        NAT_OA_DRAFT = 131,
        FRAGMENT = 132,
    }
}

registry! {
    /// Exchange types (RFC 2408 section 3.1, RFC 2409 appendix A, draft-dukes-ike-mode-cfg-02 section 3.1).
    pub struct ExchangeType(u8) {
        BASE = 1,
        IDENTITY_PROTECTION = 2,
        AUTHENTICATION_ONLY = 3,
        AGGRESSIVE = 4,
        INFORMATIONAL = 5,
        TRANSACTION = 6,
        QUICK_MODE = 32,
        NEW_GROUP_MODE = 33,
    }
}

registry! {
    /// Notify message types (RFC 2408 section 3.14.1, RFC 2407 section 4.6.3, RFC 3706 section 5.2).
    pub struct NotifyType(u16) {
        INVALID_PAYLOAD_TYPE = 1,
        DOI_NOT_SUPPORTED = 2,
        SITUATION_NOT_SUPPORTED = 3,
        INVALID_COOKIE = 4,
        INVALID_MAJOR_VERSION = 5,
        INVALID_MINOR_VERSION = 6,
        INVALID_EXCHANGE_TYPE = 7,
        INVALID_FLAGS = 8,
        INVALID_MESSAGE_ID = 9,
        INVALID_PROTOCOL_ID = 10,
        INVALID_SPI = 11,
        INVALID_TRANSFORM_ID = 12,
        ATTRIBUTES_NOT_SUPPORTED = 13,
        NO_PROPOSAL_CHOSEN = 14,
        BAD_PROPOSAL_SYNTAX = 15,
        PAYLOAD_MALFORMED = 16,
        INVALID_KEY_INFORMATION = 17,
        INVALID_ID_INFORMATION = 18,
        INVALID_CERT_ENCODING = 19,
        INVALID_CERTIFICATE = 20,
        CERT_TYPE_UNSUPPORTED = 21,
        INVALID_CERT_AUTHORITY = 22,
        INVALID_HASH_INFORMATION = 23,
        AUTHENTICATION_FAILED = 24,
        INVALID_SIGNATURE = 25,
        ADDRESS_NOTIFICATION = 26,
        NOTIFY_SA_LIFETIME = 27,
        CERTIFICATE_UNAVAILABLE = 28,
        UNSUPPORTED_EXCHANGE_TYPE = 29,
        UNEQUAL_PAYLOAD_LENGTHS = 30,
        CONNECTED = 16384,
        RESPONDER_LIFETIME = 24576,
        REPLAY_STATUS = 24577,
        INITIAL_CONTACT = 24578,
        R_U_THERE = 36136,
        R_U_THERE_ACK = 36137,
    }
}

impl NotifyType {
    /// Whether the number lies in the block of error types.
    pub fn is_error(self) -> bool {
        self.0 < Self::CONNECTED.0
    }
}

registry! {
    /// Security protocol identifiers (RFC 2407 section 4.4.1).
    pub struct ProtocolId(u8) { ISAKMP = 1, AH = 2, ESP = 3, IPCOMP = 4 }
}

registry! {
    /// Identification types (RFC 2407 section 4.6.2.1).
    pub struct IdType(u8) {
        IPV4_ADDR = 1,
        FQDN = 2,
        USER_FQDN = 3,
        IPV4_ADDR_SUBNET = 4,
        IPV6_ADDR = 5,
        IPV6_ADDR_SUBNET = 6,
        IPV4_ADDR_RANGE = 7,
        IPV6_ADDR_RANGE = 8,
        DER_ASN1_DN = 9,
        DER_ASN1_GN = 10,
        KEY_ID = 11,
    }
}

registry! {
    /// Attribute classes of phase 1 (RFC 2409 appendix A).
    pub struct Phase1Attribute(u16) {
        ENCRYPTION_ALGORITHM = 1,
        HASH_ALGORITHM = 2,
        AUTHENTICATION_METHOD = 3,
        GROUP_DESCRIPTION = 4,
        LIFE_TYPE = 11,
        LIFE_DURATION = 12,
        KEY_LENGTH = 14,
    }
}

registry! {
    /// Authentication methods (RFC 2409 appendix A, RFC 4754 section 6, draft-beaulieu-ike-xauth-02 section 7.2).
    pub struct AuthenticationMethod(u16) {
        PRE_SHARED_KEY = 1,
        DSS_SIGNATURES = 2,
        RSA_SIGNATURES = 3,
        ECDSA_256 = 9,
        ECDSA_384 = 10,
        ECDSA_521 = 11,
        XAUTH_INIT_PRE_SHARED = 65001,
        XAUTH_RESP_PRE_SHARED = 65002,
        XAUTH_INIT_DSS = 65003,
        XAUTH_RESP_DSS = 65004,
        XAUTH_INIT_RSA = 65005,
        XAUTH_RESP_RSA = 65006,
        XAUTH_INIT_RSA_ENCRYPTION = 65007,
        XAUTH_RESP_RSA_ENCRYPTION = 65008,
        XAUTH_INIT_RSA_REVISED_ENCRYPTION = 65009,
        XAUTH_RESP_RSA_REVISED_ENCRYPTION = 65010,
    }
}

registry! {
    /// Messages of a configuration transaction (draft-dukes-ike-mode-cfg-02 section 3.3).
    pub struct ConfigurationType(u8) { REQUEST = 1, REPLY = 2, SET = 3, ACK = 4 }
}

registry! {
    /// Attributes of XAUTH (draft-beaulieu-ike-xauth-02 section 6.2).
    pub struct XauthAttribute(u16) {
        TYPE = 16520,
        USER_NAME = 16521,
        USER_PASSWORD = 16522,
        PASSCODE = 16523,
        MESSAGE = 16524,
        CHALLENGE = 16525,
        DOMAIN = 16526,
        STATUS = 16527,
        NEXT_PIN = 16528,
        ANSWER = 16529,
    }
}

registry! {
    /// Types of XAUTH (draft-beaulieu-ike-xauth-02 section 6.3).
    pub struct XauthType(u16) { GENERIC = 0, RADIUS_CHAP = 1, OTP = 2, S_KEY = 3 }
}

registry! {
    /// Values of XAUTH-STATUS (draft-beaulieu-ike-xauth-02 section 6.2).
    pub struct XauthStatus(u16) { FAIL = 0, OK = 1 }
}

registry! {
    /// Encodings of certificates (RFC 2408 section 3.9).
    pub struct CertificateEncoding(u8) {
        PKCS7 = 1,
        PGP = 2,
        DNS_SIGNED_KEY = 3,
        X509_SIGNATURE = 4,
        X509_KEY_EXCHANGE = 5,
        KERBEROS_TOKENS = 6,
        CRL = 7,
        ARL = 8,
        SPKI = 9,
        X509_ATTRIBUTE = 10,
    }
}

registry! {
    /// Attribute classes of phase 2 (RFC 2407 section 4.5).
    pub struct Phase2Attribute(u16) {
        LIFE_TYPE = 1,
        LIFE_DURATION = 2,
        GROUP_DESCRIPTION = 3,
        ENCAPSULATION_MODE = 4,
        AUTHENTICATION_ALGORITHM = 5,
        KEY_LENGTH = 6,
    }
}

registry! {
    /// Encapsulation modes (RFC 2407 section 4.5, RFC 3947 section 9).
    pub struct EncapsulationMode(u16) {
        TUNNEL = 1,
        TRANSPORT = 2,
        UDP_TUNNEL = 3,
        UDP_TRANSPORT = 4,
        UDP_TUNNEL_DRAFT = 61443,
        UDP_TRANSPORT_DRAFT = 61444,
    }
}

impl EncapsulationMode {
    /// Transport mode in UDP under both of its numbers: peers that know the RFC may still use that of the drafts.
    pub const IN_UDP: [Self; 2] = [Self::UDP_TRANSPORT, Self::UDP_TRANSPORT_DRAFT];
}

/// The IPsec DOI (RFC 2407 section 4.1).
pub const DOI_IPSEC: u32 = 1;
/// SIT_IDENTITY_ONLY (RFC 2407 section 4.2.1).
pub const SITUATION_IDENTITY_ONLY: u32 = 1;
/// KEY_IKE, the only transform of the protocol ISAKMP (RFC 2407 section 4.4.2).
pub const KEY_IKE: u8 = 1;
/// Life type "seconds" in both phases.
pub const SECONDS: u16 = 1;
/// Life type "kilobytes" in both phases.
pub const KILOBYTES: u16 = 2;

/// The encryption algorithm of phase 1 and its Key Length attribute in bits; none for ciphers that only ESP has.
pub fn phase1_cipher(cipher: Cipher) -> Option<(u16, Option<u16>)> {
    match cipher {
        Cipher::Aes256 => Some((7, Some(256))),
        Cipher::Aes192 => Some((7, Some(192))),
        Cipher::Aes128 => Some((7, Some(128))),
        Cipher::TripleDes => Some((5, None)),
        Cipher::Aes256Gcm16 | Cipher::Aes128Gcm16 => None,
    }
}

/// The ESP transform and its Key Length attribute in bits (RFC 2407 section 4.4.4, RFC 3602, RFC 4106 section 8).
pub fn esp_transform(cipher: Cipher) -> (u8, Option<u16>) {
    match cipher {
        Cipher::Aes256 => (12, Some(256)),
        Cipher::Aes192 => (12, Some(192)),
        Cipher::Aes128 => (12, Some(128)),
        Cipher::Aes256Gcm16 => (20, Some(256)),
        Cipher::Aes128Gcm16 => (20, Some(128)),
        Cipher::TripleDes => (3, None),
    }
}

/// The hash algorithm of phase 1 (RFC 2409 appendix A; SHA2 by IANA).
pub fn phase1_hash(hash: Hash) -> u16 {
    match hash {
        Hash::Md5 => 1,
        Hash::Sha1 => 2,
        Hash::Sha256 => 4,
        Hash::Sha384 => 5,
        Hash::Sha512 => 6,
    }
}

/// The authentication algorithm of ESP (RFC 2407 section 4.5, RFC 4868 section 3.1).
pub fn esp_integrity(hash: Hash) -> u16 {
    match hash {
        Hash::Md5 => 1,
        Hash::Sha1 => 2,
        Hash::Sha256 => 5,
        Hash::Sha384 => 6,
        Hash::Sha512 => 7,
    }
}

/// The group description (RFC 2409 section 6, RFC 3526, RFC 5903).
pub fn group(group: Group) -> u16 {
    match group {
        Group::Modp1024 => 2,
        Group::Modp1536 => 5,
        Group::Modp2048 => 14,
        Group::Modp3072 => 15,
        Group::Modp4096 => 16,
        Group::Ecp256 => 19,
        Group::Ecp384 => 20,
    }
}
