//! Keys in the form of Wireshark's preference tables, for captures that somebody has asked to read.

use std::fmt::Write as _;

use crate::ike;
use crate::suite::{Cipher, Hash};

/// A row of `ikev1_decryption_table`: the initiator's cookie and the key of phase 1.
pub(super) fn of_isakmp(keys: &ike::Keys) -> String {
    format!("uat:ikev1_decryption_table:{},{}", hex(&keys.initiator_cookie), hex(&keys.encryption_key))
}

/// A row of `esp_sa`. The addresses are left open: behind a NAT ours is not the one on the wire.
pub(super) fn of_esp(sa: &ike::Sa) -> String {
    let cipher = match sa.proposal.cipher {
        Cipher::Aes256 | Cipher::Aes192 | Cipher::Aes128 => "AES-CBC [RFC3602]",
        Cipher::Aes256Gcm16 | Cipher::Aes128Gcm16 => "AES-GCM with 16 octet ICV [RFC4106]",
        Cipher::TripleDes => "TripleDES-CBC [RFC2451]",
    };
    let (integrity, integrity_key) = match sa.proposal.integrity {
        None => ("NULL", String::new()),
        Some(hash) => {
            let name = match hash {
                Hash::Sha512 => "HMAC-SHA-512-256 [RFC4868]",
                Hash::Sha384 => "HMAC-SHA-384-192 [RFC4868]",
                Hash::Sha256 => "HMAC-SHA-256-128 [RFC4868]",
                Hash::Sha1 => "HMAC-SHA-1-96 [RFC2404]",
                Hash::Md5 => "HMAC-MD5-96 [RFC2403]",
            };
            (name, format!("0x{}", hex(&sa.integrity_key)))
        }
    };
    format!(
        "uat:esp_sa:\"IPv4\",\"*\",\"*\",\"0x{:08x}\",\"{cipher}\",\"0x{}\",\"{integrity}\",\"{integrity_key}\"",
        sa.spi,
        hex(&sa.encryption_key)
    )
}

fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::with_capacity(octets.len() * 2), |mut text, octet| {
        // Writing to a String cannot fail.
        let written = write!(text, "{octet:02x}");
        debug_assert!(written.is_ok());
        text
    })
}
