//! The devices. What they offer, in which order, and their habits, as far as it is known without having them.

use towline_tunnel::crypto::hash::digest;
use towline_tunnel::suite::{Cipher, Group, Hash};

use crate::device::{
    Auth, Device, DhGroup, Encoding, Encryption, Integrity, L2tp, NatFlavour, Phase1, Phase2, Ppp, Selector,
};

pub(crate) const AES256: Encryption = Encryption::Of(Cipher::Aes256);
pub(crate) const AES192: Encryption = Encryption::Of(Cipher::Aes192);
pub(crate) const AES128: Encryption = Encryption::Of(Cipher::Aes128);
pub(crate) const TRIPLE_DES: Encryption = Encryption::Of(Cipher::TripleDes);
const DES: Encryption = Encryption::Des;

const MODP1024: DhGroup = DhGroup::Of(Group::Modp1024);
const MODP1536: DhGroup = DhGroup::Of(Group::Modp1536);
const MODP2048: DhGroup = DhGroup::Of(Group::Modp2048);
const MODP3072: DhGroup = DhGroup::Of(Group::Modp3072);

/// Dead peer detection (RFC 3706 section 5.1).
pub(crate) const DPD: [u8; 16] =
    [0xaf, 0xca, 0xd7, 0x13, 0x68, 0xa1, 0xf1, 0xc9, 0x6b, 0x86, 0x96, 0xfc, 0x77, 0x57, 0x01, 0x00];
/// XAUTH (draft-ietf-ipsec-isakmp-xauth-06).
pub(crate) const XAUTH: [u8; 8] = [0x09, 0x00, 0x26, 0x89, 0xdf, 0xd6, 0xb7, 0x12];

/// A vendor ID that is the MD5 of a text.
pub(crate) fn vendor_id(text: &str) -> Vec<u8> {
    digest(Hash::Md5, &[text.as_bytes()])
}

const RFC_3947: &str = "RFC 3947";
const DRAFT_03: &str = "draft-ietf-ipsec-nat-t-ike-03";
const DRAFT_02: &str = "draft-ietf-ipsec-nat-t-ike-02";
const DRAFT_02_N: &str = "draft-ietf-ipsec-nat-t-ike-02\n";
const DRAFT_00: &str = "draft-ietf-ipsec-nat-t-ike-00";
const FRAGMENTATION: &str = "FRAGMENTATION";

fn named(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| vendor_id(text)).collect()
}

fn offers(ciphers: &[Encryption], hashes: &[Hash], group: DhGroup) -> Vec<Phase1> {
    ciphers.iter().flat_map(|cipher| hashes.iter().map(move |hash| Phase1(*cipher, *hash, group))).collect()
}

fn suites(ciphers: &[Encryption], hashes: &[Integrity]) -> Vec<Phase2> {
    ciphers.iter().flat_map(|cipher| hashes.iter().map(move |hash| Phase2(*cipher, *hash))).collect()
}

const fn sha(hash: Hash) -> Integrity {
    Integrity::Of(hash)
}

/// An option of PPP.
pub(crate) fn option(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind, 2 + value.len() as u8], value].concat()
}

pub(crate) fn mru(mru: u16) -> Vec<u8> {
    option(1, &mru.to_be_bytes())
}

pub(crate) fn magic() -> Vec<u8> {
    option(5, &[0x4d, 0x61, 0x67, 0x63])
}

/// Options of IPCP with the value 0.0.0.0.
fn asked(kinds: &[u8]) -> Vec<Vec<u8>> {
    kinds.iter().map(|kind| option(*kind, &[0; 4])).collect()
}

/// A Configure-Request.
fn request(options: &[Vec<u8>]) -> Vec<u8> {
    let body = options.concat();
    [&[1, 1], &(4 + body.len() as u16).to_be_bytes(), body.as_slice()].concat()
}

/// IPV6CP with an interface identifier.
fn ipv6cp() -> (u16, Vec<u8>) {
    (0x8057, request(&[option(1, &[2, 0, 0, 0xff, 0xfe, 0, 0, 1])]))
}

/// CCP with MPPC or MPPE (RFC 3078).
pub(crate) fn ccp(bits: u32) -> (u16, Vec<u8>) {
    (0x80fd, request(&[option(18, &bits.to_be_bytes())]))
}

/// pppd on Linux and Android.
fn pppd(auth: &[Auth]) -> Ppp {
    let mut ipcp = vec![option(3, &[0; 4]), option(2, &[0x00, 0x2d, 0x0f, 0x01])];
    ipcp.extend(asked(&[129, 131]));
    Ppp {
        lcp: vec![mru(1400), option(2, &[0; 4]), magic(), option(7, &[]), option(8, &[])],
        auth: auth.to_vec(),
        ipcp,
        others: vec![ccp(0x0100_0040)],
        address_and_control: true,
        early_echo: true,
    }
}

/// Windows 10 and 11.
pub(crate) fn windows() -> Device {
    let sha1 = sha(Hash::Sha1);
    let mut vendor_ids = vec![[vendor_id("MS NT5 ISAKMPOAKLEY"), vec![0, 0, 0, 9]].concat()];
    vendor_ids.extend(named(&[
        RFC_3947,
        DRAFT_02_N,
        FRAGMENTATION,
        "MS-Negotiation Discovery Capable",
        "Vid-Initial-Contact",
        "IKE CGA version 1",
    ]));
    Device {
        name: "Windows 10 and 11",
        encoding: Encoding::Windows,
        phase1: vec![
            Phase1(AES256, Hash::Sha1, DhGroup::Of(Group::Ecp384)),
            Phase1(AES128, Hash::Sha1, DhGroup::Of(Group::Ecp256)),
            Phase1(AES256, Hash::Sha1, MODP2048),
            Phase1(TRIPLE_DES, Hash::Sha1, MODP2048),
            Phase1(TRIPLE_DES, Hash::Sha1, MODP1024),
        ],
        phase1_life: 28_800,
        phase2: [AES256, AES128, TRIPLE_DES, DES].map(|cipher| vec![Phase2(cipher, sha1)]).into(),
        phase2_life: 3_600,
        phase2_kilobytes: Some(250_000),
        pfs: None,
        vendor_ids,
        later_ids: Vec::new(),
        nat: NatFlavour::Rfc,
        identity: (0, 0),
        selector: Selector::L2tp,
        refuses_server_behind_nat: true,
        nat_d_reversed: false,
        omits_key_length: false,
        commits: false,
        initial_contact: false,
        l2tp: L2tp {
            port: 1701,
            host_name: "DESKTOP-1A2B3C",
            vendor_name: Some("Microsoft"),
            firmware: Some(0x0a00),
            framing: 1,
            bearer: Some(0),
            window: Some(8),
            strict: false,
            ignores_hello: false,
            length_in_data: true,
            little_endian_results: false,
        },
        ppp: Ppp {
            // Callback (RFC 1570 section 2.3) with CBCP; a multilink bundle's MRRU.
            lcp: vec![mru(1400), magic(), option(7, &[]), option(8, &[]), option(13, &[6]), option(17, &[0x06, 0x4e])],
            auth: vec![Auth::MsChapV2],
            ipcp: asked(&[3, 129, 130, 131, 132]),
            others: vec![ipv6cp(), ccp(0x0000_0001)],
            address_and_control: true,
            early_echo: false,
        },
    }
}

/// Windows XP without the hotfix of MS-818043: old algorithms, a name in Quick Mode.
pub(crate) fn windows_xp() -> Device {
    let mut vendor_ids = vec![[vendor_id("MS NT5 ISAKMPOAKLEY"), vec![0, 0, 0, 4]].concat()];
    vendor_ids.extend(named(&[FRAGMENTATION, DRAFT_02_N, "Vid-Initial-Contact"]));
    Device {
        name: "Windows XP",
        phase1: offers(&[TRIPLE_DES], &[Hash::Sha1, Hash::Md5], MODP2048)
            .into_iter()
            .chain(offers(&[TRIPLE_DES], &[Hash::Sha1, Hash::Md5], MODP1024))
            .chain(offers(&[DES], &[Hash::Sha1, Hash::Md5], DhGroup::Modp768))
            .collect(),
        phase2: vec![vec![Phase2(TRIPLE_DES, sha(Hash::Md5))], vec![Phase2(TRIPLE_DES, sha(Hash::Sha1))]],
        phase2_kilobytes: Some(100_000),
        vendor_ids,
        nat: NatFlavour::Draft,
        selector: Selector::Name("laptop.example.com"),
        refuses_server_behind_nat: false,
        ..windows()
    }
}

/// macOS and iOS.
pub(crate) fn apple() -> Device {
    use Hash::{Md5, Sha1, Sha256, Sha512};
    let mut vendor_ids = named(&[RFC_3947, "draft-ietf-ipsec-nat-t-ike", DRAFT_03, DRAFT_02, DRAFT_02_N]);
    vendor_ids.extend([[vendor_id(FRAGMENTATION), vec![0x80, 0, 0, 0]].concat(), DPD.to_vec()]);
    Device {
        name: "macOS and iOS",
        encoding: Encoding::Racoon,
        phase1: offers(&[AES256], &[Sha256, Sha1, Md5, Sha512], MODP2048)
            .into_iter()
            .chain(offers(&[AES256], &[Sha256, Sha1, Md5], MODP1536))
            .chain(offers(&[AES256], &[Sha256, Sha1, Md5], MODP1024))
            .chain(offers(&[AES128, TRIPLE_DES], &[Sha1, Md5], MODP1024))
            .collect(),
        phase1_life: 3_600,
        phase2: vec![suites(&[AES256, AES128, TRIPLE_DES], &[sha(Sha256), sha(Sha1), sha(Md5)])],
        phase2_life: 3_600,
        phase2_kilobytes: None,
        pfs: None,
        vendor_ids,
        later_ids: Vec::new(),
        nat: NatFlavour::Rfc,
        identity: (17, 500),
        selector: Selector::Ephemeral(52_312),
        refuses_server_behind_nat: false,
        nat_d_reversed: false,
        omits_key_length: false,
        commits: false,
        initial_contact: true,
        l2tp: L2tp {
            port: 52_312,
            host_name: "Alices-MacBook.local",
            vendor_name: None,
            firmware: None,
            framing: 3,
            bearer: None,
            window: Some(4),
            strict: false,
            ignores_hello: false,
            length_in_data: true,
            little_endian_results: true,
        },
        ppp: Ppp {
            lcp: vec![option(2, &[0; 4]), magic(), option(7, &[]), option(8, &[])],
            auth: vec![Auth::MsChapV2, Auth::ChapMd5, Auth::Pap],
            ipcp: asked(&[3, 129, 131]),
            // The protocol by which Apple's servers tell routes (ACSP).
            others: vec![(0x8235, request(&[option(1, &[0; 4])])), ipv6cp()],
            address_and_control: true,
            early_echo: false,
        },
    }
}

/// Early clients of Apple: the drafts of NAT traversal, with their own end first.
pub(crate) fn apple_older() -> Device {
    use Hash::{Md5, Sha1};
    let mut vendor_ids = named(&["draft-ietf-ipsec-nat-t-ike", DRAFT_03, DRAFT_02]);
    vendor_ids.push(DPD.to_vec());
    let ciphers = [AES256, AES128, TRIPLE_DES];
    Device {
        name: "Mac OS X 10.4",
        phase1: offers(&ciphers, &[Sha1, Md5], MODP1024),
        phase2: vec![suites(&ciphers, &[sha(Sha1), sha(Md5)])],
        vendor_ids,
        nat: NatFlavour::Draft,
        nat_d_reversed: true,
        l2tp: L2tp { ignores_hello: true, ..apple().l2tp },
        ..apple()
    }
}

/// Android 4 and 5.
pub(crate) fn android_4() -> Device {
    let hashes = [Hash::Sha1, Hash::Md5];
    let ciphers = [TRIPLE_DES, DES, AES128];
    let mut vendor_ids = named(&[RFC_3947, DRAFT_02, DRAFT_02_N, DRAFT_00]);
    vendor_ids.push([vendor_id(FRAGMENTATION), vec![0x80, 0, 0, 0]].concat());
    Device {
        name: "Android 4 and 5",
        phase1: offers(&ciphers, &hashes, MODP1024),
        phase1_life: 28_800,
        phase2: vec![suites(&ciphers, &hashes.map(sha))],
        phase2_life: 28_800,
        vendor_ids,
        selector: Selector::AnyPort,
        l2tp: L2tp {
            port: 1701,
            host_name: "anonymous",
            window: Some(1),
            strict: true,
            little_endian_results: false,
            ..apple().l2tp
        },
        ppp: pppd(&[Auth::MsChapV2, Auth::ChapMd5, Auth::Pap]),
        ..apple()
    }
}

/// Android 6 to 11: SHA2-256 is cut to 96 bits.
pub(crate) fn android_6() -> Device {
    use Hash::{Md5, Sha1, Sha256, Sha384, Sha512};
    let hashes = [Sha384, Sha256, Sha512, Sha1, Md5];
    let integrity = [sha(Sha512), sha(Sha384), Integrity::Sha256Short, sha(Sha1), sha(Md5)];
    Device {
        name: "Android 6 to 11",
        phase1: offers(&[AES256, AES128, TRIPLE_DES, DES], &hashes, MODP1024),
        phase2: vec![suites(&[AES256, AES128, TRIPLE_DES, DES], &integrity)],
        ..android_4()
    }
}

/// Android 6 to 11 where nothing but SHA2-256 is common.
pub(crate) fn android_sha256() -> Device {
    Device {
        name: "Android 6 to 11 with SHA2-256 alone",
        phase2: vec![suites(&[AES256, AES128], &[Integrity::Sha256Short])],
        ..android_6()
    }
}

/// ChromeOS: strongSwan, xl2tpd and pppd.
pub(crate) fn chrome_os() -> Device {
    let mut vendor_ids = vec![XAUTH.to_vec(), DPD.to_vec(), [vendor_id(FRAGMENTATION), vec![0x80, 0, 0, 0]].concat()];
    vendor_ids.extend(named(&[RFC_3947, DRAFT_02_N]));
    Device {
        name: "ChromeOS",
        encoding: Encoding::Charon,
        phase1: vec![
            Phase1(AES128, Hash::Sha256, MODP3072),
            Phase1(AES128, Hash::Sha1, MODP2048),
            Phase1(TRIPLE_DES, Hash::Sha1, MODP1536),
            Phase1(TRIPLE_DES, Hash::Sha1, MODP1024),
        ],
        phase1_life: 10_800,
        phase2: vec![vec![
            Phase2(Encryption::Of(Cipher::Aes128Gcm16), Integrity::Combined),
            Phase2(AES128, sha(Hash::Sha256)),
            Phase2(AES128, sha(Hash::Sha1)),
            Phase2(TRIPLE_DES, sha(Hash::Sha1)),
            Phase2(TRIPLE_DES, sha(Hash::Md5)),
        ]],
        vendor_ids,
        identity: (0, 0),
        selector: Selector::L2tp,
        initial_contact: false,
        l2tp: xl2tpd(),
        ppp: pppd(&[Auth::MsChapV2, Auth::ChapMd5, Auth::Pap]),
        ..apple()
    }
}

fn xl2tpd() -> L2tp {
    L2tp {
        port: 1701,
        host_name: "localhost",
        vendor_name: Some("xelerance.com"),
        firmware: Some(0x0690),
        framing: 3,
        bearer: Some(0),
        window: Some(4),
        strict: false,
        ignores_hello: false,
        length_in_data: true,
        little_endian_results: false,
    }
}

/// RouterOS as a client, with perfect forward secrecy.
pub(crate) fn router_os() -> Device {
    let mut vendor_ids = named(&[RFC_3947, DRAFT_03, DRAFT_02, DRAFT_02_N, DRAFT_00]);
    vendor_ids.push(DPD.to_vec());
    Device {
        name: "RouterOS",
        encoding: Encoding::Racoon,
        phase1: offers(&[AES128, TRIPLE_DES], &[Hash::Sha1], MODP2048)
            .into_iter()
            .chain(offers(&[AES128, TRIPLE_DES], &[Hash::Sha1], MODP1024))
            .collect(),
        phase1_life: 86_400,
        phase2: vec![suites(&[AES256, AES192, AES128], &[sha(Hash::Sha1)])],
        phase2_life: 1_800,
        pfs: Some(Group::Modp1024),
        vendor_ids,
        selector: Selector::L2tp,
        l2tp: L2tp {
            host_name: "MikroTik",
            vendor_name: Some("MikroTik"),
            framing: 1,
            length_in_data: false,
            ..xl2tpd()
        },
        ppp: Ppp {
            lcp: vec![mru(1450), magic()],
            auth: vec![Auth::MsChapV2, Auth::ChapMd5, Auth::Pap],
            ipcp: asked(&[3, 129, 131]),
            others: Vec::new(),
            address_and_control: true,
            early_echo: false,
        },
        ..apple()
    }
}

/// A Cisco router as the access concentrator: by published output of `debug crypto isakmp`, but for L2TP and PPP.
pub(crate) fn cisco() -> Device {
    let vendor_ids = named(&[RFC_3947, "draft-ietf-ipsec-nat-t-ike-07", DRAFT_03, DRAFT_02_N]);
    Device {
        name: "Cisco",
        encoding: Encoding::Ios,
        phase1: vec![Phase1(AES256, Hash::Sha1, MODP1536), Phase1(TRIPLE_DES, Hash::Sha1, MODP1024)],
        phase1_life: 86_400,
        phase2: vec![vec![Phase2(AES256, sha(Hash::Sha1))], vec![Phase2(TRIPLE_DES, sha(Hash::Sha1))]],
        phase2_life: 3_600,
        phase2_kilobytes: Some(4_608_000),
        pfs: None,
        vendor_ids,
        // The last but one is by which one IOS knows another.
        later_ids: vec![DPD.to_vec(), [[0x3e, 0x98, 0x40, 0x48].as_slice(), &[0xc5; 12]].concat(), XAUTH.to_vec()],
        nat: NatFlavour::Both,
        identity: (17, 0),
        selector: Selector::L2tp,
        initial_contact: true,
        l2tp: L2tp {
            host_name: "Router",
            vendor_name: Some("Cisco Systems, Inc."),
            firmware: Some(0x1130),
            window: Some(1024),
            length_in_data: false,
            ..xl2tpd()
        },
        ppp: Ppp {
            lcp: vec![magic()],
            auth: vec![Auth::MsChapV2, Auth::ChapMd5],
            ipcp: asked(&[3]),
            others: Vec::new(),
            address_and_control: true,
            early_echo: false,
        },
        ..apple()
    }
}

/// A SEIL that dials as a site: a port of its own, algorithms, lifetime and fresh exchange by its manual.
pub(crate) fn seil() -> Device {
    Device {
        name: "SEIL",
        phase1: offers(&[AES128, TRIPLE_DES], &[Hash::Sha1, Hash::Md5], MODP1536)
            .into_iter()
            .chain(offers(&[AES128, TRIPLE_DES], &[Hash::Sha1, Hash::Md5], MODP1024))
            .collect(),
        phase1_life: 28_800,
        phase2: vec![suites(&[AES128, TRIPLE_DES], &[sha(Hash::Sha1), sha(Hash::Md5)])],
        phase2_life: 3_600,
        pfs: Some(Group::Modp1536),
        vendor_ids: vec![vendor_id(RFC_3947), DPD.to_vec()],
        selector: Selector::Ephemeral(49_733),
        l2tp: L2tp { port: 49_733, host_name: "seil", vendor_name: Some("IIJ"), window: Some(8), ..xl2tpd() },
        ppp: Ppp {
            lcp: vec![mru(1400), magic()],
            auth: vec![Auth::MsChapV2, Auth::ChapMd5],
            ipcp: asked(&[3, 129, 131]),
            others: Vec::new(),
            address_and_control: false,
            early_echo: false,
        },
        ..apple()
    }
}

/// A Yamaha RTX as it would dial. By its documentation it does not, by L2TP; by PPTP and PPPoE it does, and the source of npppd
/// tells of its IPCP without an address. Its algorithms are those that it is set to between networks.
pub(crate) fn yamaha() -> Device {
    Device {
        name: "Yamaha RTX",
        encoding: Encoding::Charon,
        phase1: vec![
            Phase1(TRIPLE_DES, Hash::Sha1, MODP1024),
            Phase1(AES128, Hash::Sha1, MODP1024),
            Phase1(AES256, Hash::Sha256, MODP2048),
        ],
        phase1_life: 28_800,
        phase2: vec![vec![Phase2(AES128, sha(Hash::Sha1))]],
        phase2_life: 28_800,
        vendor_ids: named(&[RFC_3947]),
        identity: (0, 0),
        selector: Selector::L2tp,
        l2tp: L2tp { host_name: "RTX1210", vendor_name: Some("YAMAHA Corporation"), firmware: None, ..xl2tpd() },
        ppp: Ppp {
            lcp: vec![mru(1454), magic()],
            auth: vec![Auth::ChapMd5, Auth::Pap],
            ipcp: asked(&[129, 131]),
            others: Vec::new(),
            address_and_control: true,
            early_echo: false,
        },
        ..apple()
    }
}

/// Every device that dials.
pub(crate) fn all() -> Vec<Device> {
    vec![
        windows(),
        windows_xp(),
        apple(),
        apple_older(),
        android_4(),
        android_6(),
        android_sha256(),
        chrome_os(),
        router_os(),
        cisco(),
        seil(),
        yamaha(),
    ]
}
