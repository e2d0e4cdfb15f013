//! What tells devices apart: offers, encodings, identities, NAT payloads, L2TP and PPP habits.

use towline_tunnel::suite::{Cipher, Group, Hash};

use crate::isakmp::{Attribute, Transform};

/// One offer of phase 1 with a pre-shared key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Phase1(pub(crate) Encryption, pub(crate) Hash, pub(crate) DhGroup);

/// One offer of phase 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Phase2(pub(crate) Encryption, pub(crate) Integrity);

/// Ciphers that devices offer; with DES nobody may agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encryption {
    Of(Cipher),
    Des,
}

/// Integrity algorithms of ESP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Integrity {
    Of(Hash),
    /// Inside of the cipher (AES-GCM).
    Combined,
    /// HMAC-SHA2-256 that is cut to 96 bits, under the number of the one with 128 (draft-ietf-ipsec-ciph-sha-256-00).
    Sha256Short,
}

/// Groups that devices offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DhGroup {
    Of(Group),
    /// MODP with 768 bits, with which nobody may agree.
    Modp768,
}

/// The order and the form of attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Algorithms, then the lifetime in four octets.
    Windows,
    /// The lifetime first, in two octets where it fits.
    Racoon,
    /// Algorithms, then the lifetime in two octets where it fits.
    Charon,
    /// Likewise in phase 1; in phase 2 the lifetimes before the algorithms (debug output of IOS).
    Ios,
}

/// Which NAT payloads a device knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NatFlavour {
    /// RFC 3947.
    Rfc,
    /// Drafts 02 and 03: other numbers of payloads and of encapsulation modes.
    Draft,
    /// NAT-D of both, and the rest as in RFC 3947 (Cisco).
    Both,
}

/// What identities of Quick Mode say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Selector {
    /// Own address, protocol 17, port 1701.
    L2tp,
    /// Own address, protocol 17, any port.
    AnyPort,
    /// Own address, protocol 17, the port of this socket.
    Ephemeral(u16),
    /// A name in place of the address (Windows before a hotfix; MS-818043).
    Name(&'static str),
}

/// A device and its habits.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) name: &'static str,
    pub(crate) encoding: Encoding,
    pub(crate) phase1: Vec<Phase1>,
    /// Seconds.
    pub(crate) phase1_life: u32,
    /// Proposals, each with its transforms.
    pub(crate) phase2: Vec<Vec<Phase2>>,
    pub(crate) phase2_life: u32,
    /// Kilobytes.
    pub(crate) phase2_kilobytes: Option<u32>,
    pub(crate) pfs: Option<Group>,
    /// Vendor IDs of message 1, and those of message 3.
    pub(crate) vendor_ids: Vec<Vec<u8>>,
    pub(crate) later_ids: Vec<Vec<u8>>,
    pub(crate) nat: NatFlavour,
    /// Protocol and port of the phase 1 identity, which is the own address.
    pub(crate) identity: (u8, u16),
    pub(crate) selector: Selector,
    /// Whether it refuses a server that it finds to be behind a NAT.
    pub(crate) refuses_server_behind_nat: bool,
    /// Whether the first NAT-D is that of the own end, as Apple's first versions had it.
    pub(crate) nat_d_reversed: bool,
    /// Whether AES with 128 bits stands without its Key Length.
    pub(crate) omits_key_length: bool,
    /// Whether the Commit bit is set in Quick Mode (RFC 2408 section 3.1).
    pub(crate) commits: bool,
    /// Whether INITIAL-CONTACT stands in the message with its identity.
    pub(crate) initial_contact: bool,
    pub(crate) l2tp: L2tp,
    pub(crate) ppp: Ppp,
}

/// Habits in L2TP.
#[derive(Debug, Clone)]
pub(crate) struct L2tp {
    pub(crate) port: u16,
    pub(crate) host_name: &'static str,
    pub(crate) vendor_name: Option<&'static str>,
    pub(crate) firmware: Option<u16>,
    pub(crate) framing: u32,
    pub(crate) bearer: Option<u32>,
    pub(crate) window: Option<u16>,
    /// Takes only the ZLB of 12 octets after SCCCN before it goes on, and drops what does not acknowledge its last message.
    pub(crate) strict: bool,
    /// Neither answers nor acknowledges Hello.
    pub(crate) ignores_hello: bool,
    /// Whether the header of data has a length.
    pub(crate) length_in_data: bool,
    /// Result codes are written with the least significant octet first.
    pub(crate) little_endian_results: bool,
}

/// Habits in PPP.
#[derive(Debug, Clone)]
pub(crate) struct Ppp {
    /// Options of its LCP Configure-Request.
    pub(crate) lcp: Vec<Vec<u8>>,
    /// What it takes part in.
    pub(crate) auth: Vec<Auth>,
    /// Options of its IPCP Configure-Request: 3 address, 129 to 132 name servers, 2 Van Jacobson compression.
    pub(crate) ipcp: Vec<Vec<u8>>,
    /// Further protocols that it begins with once it is authenticated, and their first packet.
    pub(crate) others: Vec<(u16, Vec<u8>)>,
    /// Whether it keeps FF 03 in front of frames.
    pub(crate) address_and_control: bool,
    /// Whether it sends an LCP Echo-Request before it is authenticated.
    pub(crate) early_echo: bool,
}

/// Authentication protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Auth {
    Pap,
    ChapMd5,
    MsChapV2,
}

impl Encryption {
    /// Number in phase 1 (RFC 2409 appendix A), transform identifier in ESP (RFC 2407 section 4.4.4), Key Length: but not that of
    /// 128 bits where it is omitted.
    pub(crate) fn numbers(self, omits_128: bool) -> (u16, u8, Option<u16>) {
        match self {
            Self::Des => (1, 2, None),
            Self::Of(Cipher::TripleDes) => (5, 3, None),
            Self::Of(Cipher::Aes128) => (7, 12, (!omits_128).then_some(128)),
            Self::Of(Cipher::Aes192) => (7, 12, Some(192)),
            Self::Of(Cipher::Aes256) => (7, 12, Some(256)),
            Self::Of(Cipher::Aes128Gcm16) => (0, 20, (!omits_128).then_some(128)),
            Self::Of(Cipher::Aes256Gcm16) => (0, 20, Some(256)),
        }
    }
}

impl DhGroup {
    pub(crate) fn number(self) -> u16 {
        match self {
            Self::Modp768 => 1,
            Self::Of(Group::Modp1024) => 2,
            Self::Of(Group::Modp1536) => 5,
            Self::Of(Group::Modp2048) => 14,
            Self::Of(Group::Modp3072) => 15,
            Self::Of(Group::Modp4096) => 16,
            Self::Of(Group::Ecp256) => 19,
            Self::Of(Group::Ecp384) => 20,
        }
    }
}

/// A number of seconds or kilobytes: its unit, then the number.
fn life(unit: u16, [kind_of_unit, kind]: [u16; 2], value: u32, long: bool) -> [Attribute; 2] {
    let value = match u16::try_from(value) {
        Ok(short) if !long => Attribute::Short(kind, short),
        _ => Attribute::Long(kind, value.to_be_bytes().to_vec()),
    };
    [Attribute::Short(kind_of_unit, unit), value]
}

impl Device {
    /// The transforms of phase 1.
    pub(crate) fn phase1_transforms(&self) -> Vec<Transform> {
        let one = |(index, offer): (usize, &Phase1)| {
            let Phase1(encryption, hash, group) = *offer;
            let hash = match hash {
                Hash::Md5 => 1,
                Hash::Sha1 => 2,
                Hash::Sha256 => 4,
                Hash::Sha384 => 5,
                Hash::Sha512 => 6,
            };
            let (cipher, _, length) = encryption.numbers(self.omits_key_length);
            let cipher = std::iter::once(Attribute::Short(1, cipher));
            let cipher = cipher.chain(length.map(|length| Attribute::Short(14, length)));
            let (hash, group) = (Attribute::Short(2, hash), Attribute::Short(4, group.number()));
            let auth = Attribute::Short(3, 1);
            let life = life(1, [11, 12], self.phase1_life, self.encoding == Encoding::Windows);
            let attributes = match self.encoding {
                Encoding::Windows | Encoding::Charon | Encoding::Ios => {
                    cipher.chain([hash, group, auth]).chain(life).collect()
                }
                Encoding::Racoon => life.into_iter().chain(cipher).chain([auth, hash, group]).collect(),
            };
            Transform { number: index as u8 + 1, id: 1, attributes }
        };
        self.phase1.iter().enumerate().map(one).collect()
    }

    /// The transforms of a proposal of phase 2.
    pub(crate) fn phase2_transforms(&self, offers: &[Phase2], encapsulation: u16) -> Vec<Transform> {
        Form {
            encoding: self.encoding,
            omits_key_length: self.omits_key_length,
            pfs: self.pfs,
            seconds: self.phase2_life,
            kilobytes: self.phase2_kilobytes,
        }
        .transforms(offers, encapsulation)
    }
}

/// How offers of phase 2 are written, and what they say besides their algorithms.
pub(crate) struct Form {
    pub(crate) encoding: Encoding,
    pub(crate) omits_key_length: bool,
    pub(crate) pfs: Option<Group>,
    pub(crate) seconds: u32,
    pub(crate) kilobytes: Option<u32>,
}

impl Form {
    /// The transforms of a proposal.
    pub(crate) fn transforms(&self, offers: &[Phase2], encapsulation: u16) -> Vec<Transform> {
        let one = |(index, offer): (usize, &Phase2)| {
            let (_, id, length) = offer.0.numbers(self.omits_key_length);
            let auth = match offer.1 {
                Integrity::Of(Hash::Md5) => Some(1),
                Integrity::Of(Hash::Sha1) => Some(2),
                Integrity::Of(Hash::Sha256) | Integrity::Sha256Short => Some(5),
                Integrity::Of(Hash::Sha384) => Some(6),
                Integrity::Of(Hash::Sha512) => Some(7),
                Integrity::Combined => None,
            };
            let mode = Attribute::Short(4, encapsulation);
            let (auth, length) = (auth.map(|auth| Attribute::Short(5, auth)), length.map(|n| Attribute::Short(6, n)));
            let group = self.pfs.map(|group| Attribute::Short(3, DhGroup::Of(group).number()));
            let long = self.encoding == Encoding::Windows;
            let lives = life(1, [1, 2], self.seconds, long).into_iter();
            let lives = lives.chain(self.kilobytes.into_iter().flat_map(|kb| life(2, [1, 2], kb, long)));
            let attributes = match self.encoding {
                Encoding::Windows => [mode].into_iter().chain(length).chain(auth).chain(group).chain(lives).collect(),
                Encoding::Racoon => lives.chain([mode]).chain(length).chain(auth).chain(group).collect(),
                Encoding::Charon => length.into_iter().chain(auth).chain(group).chain([mode]).chain(lives).collect(),
                Encoding::Ios => [mode].into_iter().chain(lives).chain(auth).chain(length).chain(group).collect(),
            };
            Transform { number: index as u8 + 1, id, attributes }
        };
        offers.iter().enumerate().map(one).collect()
    }
}
