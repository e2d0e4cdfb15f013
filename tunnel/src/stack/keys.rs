//! Keys in the form of Wireshark's preference tables, for captures that somebody has asked to read.

use std::fmt::{self, Write as _};

use zeroize::Zeroizing;

use crate::ike;
use crate::suite::{Cipher, Hash};

/// A row of such a table. Only `Display` shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyRow(Zeroizing<String>);

impl fmt::Display for KeyRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRow").finish_non_exhaustive()
    }
}

/// A row of `ikev1_decryption_table`: the initiator's cookie and the key of phase 1.
pub(super) fn of_isakmp(keys: &ike::Keys) -> KeyRow {
    let row = format!("uat:ikev1_decryption_table:{},{}", *hex(&keys.initiator_cookie), *hex(&keys.encryption_key));
    KeyRow(Zeroizing::new(row))
}

/// A row of `esp_sa`, for packets over IPv6 or IPv4. The addresses are left open: behind a NAT ours is not the one on the wire.
pub(super) fn of_esp(sa: &ike::Sa, over_ipv6: bool) -> KeyRow {
    let family = if over_ipv6 { "IPv6" } else { "IPv4" };
    let cipher = match sa.proposal.cipher {
        Cipher::Aes256 | Cipher::Aes192 | Cipher::Aes128 => "AES-CBC [RFC3602]",
        Cipher::Aes256Gcm16 | Cipher::Aes128Gcm16 => "AES-GCM with 16 octet ICV [RFC4106]",
        Cipher::TripleDes => "TripleDES-CBC [RFC2451]",
    };
    let (integrity, integrity_key) = match sa.proposal.integrity {
        None => ("NULL", Zeroizing::default()),
        Some(hash) => {
            let name = match hash {
                Hash::Sha512 => "HMAC-SHA-512-256 [RFC4868]",
                Hash::Sha384 => "HMAC-SHA-384-192 [RFC4868]",
                Hash::Sha256 => "HMAC-SHA-256-128 [RFC4868]",
                Hash::Sha1 => "HMAC-SHA-1-96 [RFC2404]",
                Hash::Md5 => "HMAC-MD5-96 [RFC2403]",
            };
            (name, Zeroizing::new(format!("0x{}", *hex(&sa.integrity_key))))
        }
    };
    KeyRow(Zeroizing::new(format!(
        "uat:esp_sa:\"{family}\",\"*\",\"*\",\"0x{:08x}\",\"{cipher}\",\"0x{}\",\"{integrity}\",\"{}\"",
        sa.spi,
        *hex(&sa.encryption_key),
        *integrity_key
    )))
}

fn hex(octets: &[u8]) -> Zeroizing<String> {
    let text = String::with_capacity(octets.len() * 2);
    Zeroizing::new(octets.iter().fold(text, |mut text, octet| {
        // Writing to a String cannot fail.
        let written = write!(text, "{octet:02x}");
        debug_assert!(written.is_ok());
        text
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_shown_where_it_is_asked_for_and_in_no_log() {
        let keys = ike::Keys { initiator_cookie: [0xab; 8], encryption_key: Zeroizing::new(vec![0x5e, 0xc2]) };
        let row = of_isakmp(&keys);
        assert_eq!(row.to_string(), "uat:ikev1_decryption_table:abababababababab,5ec2");
        assert!(!format!("{row:?}").contains("5ec2"));
    }

    #[test]
    fn a_row_of_esp_names_the_family_of_the_packets_and_the_algorithms() {
        let sa = ike::Sa {
            spi: 0xc0ff_ee01,
            proposal: "aes128-sha1".parse().unwrap(),
            encryption_key: Zeroizing::new(vec![0x11; 2]),
            integrity_key: Zeroizing::new(vec![0x22; 2]),
            lifetime: ike::Lifetime { seconds: std::time::Duration::from_secs(3600), kilobytes: None },
            pair: 1,
            initiator: true,
            encapsulated: true,
        };
        let rest = r#""*","*","0xc0ffee01","AES-CBC [RFC3602]","0x1111","HMAC-SHA-1-96 [RFC2404]","0x2222""#;
        assert_eq!(of_esp(&sa, false).to_string(), format!(r#"uat:esp_sa:"IPv4",{rest}"#));
        assert_eq!(of_esp(&sa, true).to_string(), format!(r#"uat:esp_sa:"IPv6",{rest}"#));
    }
}
