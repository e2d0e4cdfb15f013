//! Names of algorithms and of their combinations, as people write them (`aes256-sha256-modp2048`). Data only: no primitive.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! names {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vmeta])* $variant),* }

        impl $name {
            /// Every value, the strongest of a kind first.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The word that people write.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }

            fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)* _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.name()) }
        }
    };
}

names! {
    /// Ciphers of ISAKMP and ESP.
    pub enum Cipher {
        /// AES-CBC with a 256-bit key (RFC 3602).
        Aes256 = "aes256",
        /// AES-CBC with a 192-bit key.
        Aes192 = "aes192",
        /// AES-CBC with a 128-bit key.
        Aes128 = "aes128",
        /// AES-GCM with a 256-bit key and a 16-octet ICV (RFC 4106); ESP only.
        Aes256Gcm16 = "aes256gcm16",
        /// AES-GCM with a 128-bit key and a 16-octet ICV (RFC 4106); ESP only.
        Aes128Gcm16 = "aes128gcm16",
        /// Triple DES in CBC mode (RFC 2451).
        TripleDes = "3des",
    }
}

names! {
    /// Hash functions: the hash and PRF of phase 1 (RFC 2409), the HMAC of ESP.
    pub enum Hash {
        /// SHA2-512; HMAC-SHA2-512-256 in ESP (RFC 4868).
        Sha512 = "sha512",
        /// SHA2-384; HMAC-SHA2-384-192 in ESP.
        Sha384 = "sha384",
        /// SHA2-256; HMAC-SHA2-256-128 in ESP.
        Sha256 = "sha256",
        /// SHA-1; HMAC-SHA1-96 in ESP (RFC 2404).
        Sha1 = "sha1",
        /// MD5; HMAC-MD5-96 in ESP (RFC 2403).
        Md5 = "md5",
    }
}

names! {
    /// Diffie-Hellman groups.
    pub enum Group {
        /// Group 16 (RFC 3526).
        Modp4096 = "modp4096",
        /// Group 15 (RFC 3526).
        Modp3072 = "modp3072",
        /// Group 14 (RFC 3526).
        Modp2048 = "modp2048",
        /// Group 5 (RFC 3526).
        Modp1536 = "modp1536",
        /// Group 2 (RFC 2409 section 6.2).
        Modp1024 = "modp1024",
        /// Group 20 (RFC 5903).
        Ecp384 = "ecp384",
        /// Group 19 (RFC 5903).
        Ecp256 = "ecp256",
    }
}

impl Cipher {
    /// Whether the cipher protects integrity as well, so that no hash stands beside it in ESP.
    pub fn is_aead(self) -> bool {
        matches!(self, Self::Aes256Gcm16 | Self::Aes128Gcm16)
    }
}

/// What phase 1 agrees on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IkeProposal {
    /// Cipher of phase 1; never an AEAD.
    pub cipher: Cipher,
    /// Hash and, as HMAC, PRF.
    pub hash: Hash,
    /// Diffie-Hellman group.
    pub group: Group,
}

/// What phase 2 agrees on for ESP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EspProposal {
    /// Cipher.
    pub cipher: Cipher,
    /// Integrity; none with an AEAD cipher.
    pub integrity: Option<Hash>,
    /// Group of a fresh exchange (perfect forward secrecy), if any.
    pub group: Option<Group>,
}

impl EspProposal {
    /// Octets of keying material that one SA takes: of the cipher, with its salt (RFC 4106 section 8.1), and of the integrity
    /// algorithm, whose key is as long as its hash (RFC 2403, 2404, 4868).
    pub fn key_sizes(&self) -> (usize, usize) {
        let encryption = match self.cipher {
            Cipher::Aes256 => 32,
            Cipher::Aes192 | Cipher::TripleDes => 24,
            Cipher::Aes128 => 16,
            Cipher::Aes256Gcm16 => 32 + 4,
            Cipher::Aes128Gcm16 => 16 + 4,
        };
        let integrity = match self.integrity {
            None => 0,
            Some(Hash::Md5) => 16,
            Some(Hash::Sha1) => 20,
            Some(Hash::Sha256) => 32,
            Some(Hash::Sha384) => 48,
            Some(Hash::Sha512) => 64,
        };
        (encryption, integrity)
    }
}

/// A combination that cannot be used, with the word that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProposal {
    /// A word is not the name of an algorithm.
    #[error("{word:?} in proposal {proposal:?} is not a known algorithm; known are {known}")]
    UnknownWord {
        /// The whole proposal.
        proposal: String,
        /// The word.
        word: String,
        /// The names that may stand there.
        known: String,
    },
    /// The words do not make a proposal.
    #[error("proposal {proposal:?} is not of the form {form}")]
    Form {
        /// The whole proposal.
        proposal: String,
        /// How one is written.
        form: &'static str,
    },
}

const IKE_FORM: &str = "CIPHER-HASH-GROUP, such as aes256-sha256-modp2048";
const ESP_FORM: &str = "CIPHER-HASH, CIPHER-HASH-GROUP, or with AES-GCM CIPHER or CIPHER-GROUP, such as aes256-sha256";

fn word<T: Copy + fmt::Display>(
    proposal: &str,
    word: &str,
    from_name: impl Fn(&str) -> Option<T>,
    all: &[T],
) -> Result<T, InvalidProposal> {
    from_name(word).ok_or_else(|| InvalidProposal::UnknownWord {
        proposal: proposal.to_owned(),
        word: word.to_owned(),
        known: all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    })
}

impl FromStr for IkeProposal {
    type Err = InvalidProposal;

    fn from_str(text: &str) -> Result<Self, InvalidProposal> {
        let form = || InvalidProposal::Form { proposal: text.to_owned(), form: IKE_FORM };
        let words: Vec<&str> = text.split('-').collect();
        let [cipher, hash, group] = words.as_slice() else { return Err(form()) };
        let cipher = word(text, cipher, Cipher::from_name, Cipher::ALL)?;
        if cipher.is_aead() {
            return Err(form());
        }
        let hash = word(text, hash, Hash::from_name, Hash::ALL)?;
        Ok(Self { cipher, hash, group: word(text, group, Group::from_name, Group::ALL)? })
    }
}

impl fmt::Display for IkeProposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.cipher, self.hash, self.group)
    }
}

impl FromStr for EspProposal {
    type Err = InvalidProposal;

    fn from_str(text: &str) -> Result<Self, InvalidProposal> {
        let form = || InvalidProposal::Form { proposal: text.to_owned(), form: ESP_FORM };
        let mut words = text.split('-');
        let cipher = word(text, words.next().ok_or_else(form)?, Cipher::from_name, Cipher::ALL)?;
        let integrity = if cipher.is_aead() {
            None
        } else {
            Some(word(text, words.next().ok_or_else(form)?, Hash::from_name, Hash::ALL)?)
        };
        let group = words.next().map(|group| word(text, group, Group::from_name, Group::ALL)).transpose()?;
        if words.next().is_some() {
            return Err(form());
        }
        Ok(Self { cipher, integrity, group })
    }
}

impl fmt::Display for EspProposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cipher.fmt(f)?;
        self.integrity.iter().try_for_each(|hash| write!(f, "-{hash}"))?;
        self.group.iter().try_for_each(|group| write!(f, "-{group}"))
    }
}

macro_rules! serde_as_text {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
serde_as_text!(IkeProposal, EspProposal);

/// How old the algorithms may be that are offered when no proposal is named. Each level holds those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum Security {
    /// AES with SHA-1 or better, MODP-2048 and ECP groups.
    Strong,
    /// MODP-1536 and 3DES with MODP-2048 as well.
    #[default]
    Compatible,
    /// MODP-1024 and 3DES in ESP as well.
    Legacy,
}

impl Security {
    /// The phase 1 proposals of the level, the preferred first.
    pub fn ike_proposals(self) -> Vec<IkeProposal> {
        use Cipher::{Aes128, Aes256, TripleDes};
        use Group::{Ecp256, Ecp384, Modp1024, Modp1536, Modp2048};
        use Hash::{Sha1, Sha256};
        let strong = [
            (Aes256, Sha256, Modp2048),
            (Aes128, Sha256, Modp2048),
            (Aes256, Sha1, Modp2048),
            (Aes256, Sha1, Ecp384),
            (Aes128, Sha1, Ecp256),
            (Aes128, Sha1, Modp2048),
        ];
        let compatible = [(Aes256, Sha256, Modp1536), (Aes256, Sha1, Modp1536), (TripleDes, Sha1, Modp2048)];
        let legacy = [(Aes256, Sha1, Modp1024), (Aes128, Sha1, Modp1024), (TripleDes, Sha1, Modp1024)];
        let mut chosen = strong.to_vec();
        if self >= Self::Compatible {
            chosen.extend(compatible);
        }
        if self >= Self::Legacy {
            chosen.extend(legacy);
        }
        chosen.into_iter().map(|(cipher, hash, group)| IkeProposal { cipher, hash, group }).collect()
    }

    /// The phase 1 proposals of the level that a server accepts, the preferred first: far more than are offered, because peers have
    /// their own taste. Groups of elliptic curves cost the least.
    pub fn accepted_ike_proposals(self) -> Vec<IkeProposal> {
        use Cipher::{Aes128, Aes192, Aes256, TripleDes};
        use Group::{Ecp256, Ecp384, Modp1024, Modp1536, Modp2048, Modp3072, Modp4096};
        use Hash::{Sha1, Sha256, Sha384, Sha512};
        let (aes, strong) = (&[Aes256, Aes192, Aes128][..], &[Ecp384, Ecp256, Modp2048, Modp3072, Modp4096][..]);
        let tiers = [
            (Self::Strong, aes, strong),
            (Self::Compatible, aes, &[Modp1536]),
            (Self::Compatible, &[TripleDes], strong),
            (Self::Compatible, &[TripleDes], &[Modp1536]),
            (Self::Legacy, aes, &[Modp1024]),
            (Self::Legacy, &[TripleDes], &[Modp1024]),
        ];
        let mut accepted = Vec::new();
        for (_, ciphers, groups) in tiers.into_iter().filter(|(level, ..)| *level <= self) {
            for hash in [Sha256, Sha384, Sha512, Sha1] {
                for &cipher in ciphers {
                    accepted.extend(groups.iter().map(|&group| IkeProposal { cipher, hash, group }));
                }
            }
        }
        accepted
    }

    /// The ESP proposals of the level that a server accepts, the preferred first. A fresh exchange is up to the peer.
    pub fn accepted_esp_proposals(self) -> Vec<EspProposal> {
        use Cipher::{Aes128, Aes128Gcm16, Aes192, Aes256, Aes256Gcm16, TripleDes};
        use Hash::{Sha1, Sha256, Sha384, Sha512};
        let aead = [Aes256Gcm16, Aes128Gcm16].map(|cipher| EspProposal { cipher, integrity: None, group: None });
        let mut accepted = aead.to_vec();
        let legacy: &[Cipher] = if self >= Self::Legacy { &[TripleDes] } else { &[] };
        for ciphers in [&[Aes256, Aes192, Aes128][..], legacy] {
            for hash in [Sha256, Sha384, Sha512, Sha1] {
                let with = |&cipher: &Cipher| EspProposal { cipher, integrity: Some(hash), group: None };
                accepted.extend(ciphers.iter().map(with));
            }
        }
        accepted
    }

    /// The ESP proposals of the level, the preferred first; none asks for a fresh exchange.
    pub fn esp_proposals(self) -> Vec<EspProposal> {
        use Cipher::{Aes128, Aes256, TripleDes};
        use Hash::{Sha1, Sha256};
        let mut chosen = vec![(Aes256, Sha256), (Aes128, Sha256), (Aes256, Sha1), (Aes128, Sha1)];
        if self >= Self::Legacy {
            chosen.push((TripleDes, Sha1));
        }
        chosen.into_iter().map(|(cipher, hash)| EspProposal { cipher, integrity: Some(hash), group: None }).collect()
    }
}

/// What of an agreed combination the standards advise against, in their words, for status; none when there is nothing to say.
/// RFC 8247 sections 2.1, 2.2 and 2.4 grade phase 1, RFC 8221 sections 5 and 6 grade ESP.
pub fn weakness(ike: &IkeProposal, esp: Option<&EspProposal>) -> Option<String> {
    let mut weak = Vec::new();
    if matches!(ike.group, Group::Modp1024 | Group::Modp1536) {
        weak.push(format!("{} SHOULD NOT be used in phase 1 (RFC 8247)", ike.group.name()));
    }
    if ike.hash == Hash::Md5 {
        weak.push("md5 MUST NOT be used in phase 1 (RFC 8247)".to_owned());
    }
    if ike.cipher == Cipher::TripleDes {
        weak.push("3des MAY be used in phase 1 and no more than that (RFC 8247)".to_owned());
    }
    if esp.is_some_and(|esp| esp.cipher == Cipher::TripleDes) {
        weak.push("3des SHOULD NOT be used in ESP (RFC 8221)".to_owned());
    }
    if esp.is_some_and(|esp| esp.integrity == Some(Hash::Md5)) {
        weak.push("md5 MUST NOT be used in ESP (RFC 8221)".to_owned());
    }
    (!weak.is_empty()).then(|| weak.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proposals_survive_the_round_trip() {
        for text in ["aes256-sha256-modp2048", "3des-md5-modp1024", "aes192-sha512-ecp384"] {
            assert_eq!(text.parse::<IkeProposal>().unwrap().to_string(), text);
        }
        for text in ["aes256-sha256", "aes128gcm16", "aes256gcm16-ecp256", "3des-sha1-modp1024"] {
            assert_eq!(text.parse::<EspProposal>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_server_accepts_all_that_is_offered_at_its_level_and_nothing_of_the_levels_above() {
        for level in [Security::Strong, Security::Compatible, Security::Legacy] {
            let (ike, esp) = (level.accepted_ike_proposals(), level.accepted_esp_proposals());
            assert!(level.ike_proposals().iter().all(|proposal| ike.contains(proposal)), "{level:?}");
            assert!(level.esp_proposals().iter().all(|proposal| esp.contains(proposal)), "{level:?}");
        }
        let has = |level: Security, proposal: &str| level.accepted_ike_proposals().contains(&proposal.parse().unwrap());
        assert!(has(Security::Legacy, "3des-sha1-modp1024") && !has(Security::Compatible, "aes256-sha256-modp1024"));
        assert!(has(Security::Compatible, "aes256-sha1-modp1536") && !has(Security::Strong, "aes256-sha1-modp1536"));
        assert!(!has(Security::Strong, "3des-sha1-modp2048") && !has(Security::Legacy, "aes256-md5-modp2048"));
        let old: EspProposal = "3des-sha1".parse().unwrap();
        assert!(!Security::Compatible.accepted_esp_proposals().contains(&old));
    }

    #[test]
    fn wrong_proposals_name_the_word_and_the_form() {
        let error = "aes256-sha3-modp2048".parse::<IkeProposal>().unwrap_err().to_string();
        assert!(error.contains("\"sha3\"") && error.contains("sha256"), "{error}");
        assert!(matches!("aes256".parse::<EspProposal>(), Err(InvalidProposal::Form { .. })));
        assert!(matches!("aes256gcm16-sha256-modp2048".parse::<IkeProposal>(), Err(InvalidProposal::Form { .. })));
        assert!("aes256gcm16-sha256".parse::<EspProposal>().is_err());
    }

    #[test]
    fn levels_grow_and_only_the_weak_are_called_weak() {
        assert_eq!(
            [Security::Strong, Security::Compatible, Security::Legacy].map(|s| s.ike_proposals().len()),
            [6, 9, 12]
        );
        for proposal in Security::Strong.ike_proposals() {
            assert_eq!(weakness(&proposal, None), None, "{proposal}");
        }
        let esp = "3des-sha1".parse().unwrap();
        let said = weakness(&"aes256-sha1-modp1024".parse().unwrap(), Some(&esp)).unwrap();
        assert!(said.contains("modp1024") && said.contains("3des"), "{said}");
    }
}
