//! A Cisco router with IOS as the server.
//!
//! | habit | known from |
//! |---|---|
//! | message 2 has RFC 3947 alone; message 4 has Unity, DPD and an ID of IOS between the nonce and NAT-D | published output of `debug crypto isakmp` at both ends |
//! | each of its policies by priority against all that is offered; proposals of phase 2 in the peer's order | the same |
//! | identity 17/500 without a NAT, 17/0 with one | the same |
//! | in its own offers of phase 2: mode, seconds, kilobytes (4608000), algorithms, Key Length | the same |
//! | NO-PROPOSAL-CHOSEN where phase 2 does not fit | an issue of NetworkManager-l2tp with its log |
//! | PPP waits for the client; LCP: authentication, magic number; Terminate-Request at the end | published output of `debug ppp negotiation`, over PPPoE |
//! | AVPs of SCCRP and their order, no framing capability at all, tunnel authentication | Cisco's document 23980 as it is remembered; its debug output was not found |
//! | RESPONDER-LIFETIME inside message 2 of Quick Mode | a log of pluto against a gateway without a name; that IOS does so is assumed |
//! | an ASA: FRAGMENTATION in message 2; Unity, XAUTH, that of IOS and that of its concentrators in message 4 | a log of strongSwan |
//! | a renewal 30 seconds before the end, CDP, echoes every 10 seconds, AVP 46 of RFC 3145 | assumed |

use std::time::Duration;

use towline_tunnel::report::{Layer, Reason};
use towline_tunnel::suite::{Group, Hash};

use super::world::{Place, Setting, World};
use super::{Contact, Gateway, L2tp, Pfs, Policy, Ppp, Preference, Renewal, may, must};
use crate::device::{Auth, DhGroup, Encoding, Integrity, NatFlavour, Phase1, Phase2};
use crate::table::{AES128, AES256, DPD, TRIPLE_DES, XAUTH, magic, option, vendor_id};

/// MD5("CISCO-UNITY") with the version 1.0 in place of its last two octets.
fn unity() -> Vec<u8> {
    let mut id = vendor_id("CISCO-UNITY");
    id[14..].copy_from_slice(&[1, 0]);
    id
}

/// What another IOS knows it by: four octets, and others that are made anew each time.
const IOS: [u8; 16] = [0x3e, 0x98, 0x40, 0x48, 0x4a, 0x88, 0x74, 0xf0, 0x92, 0xc2, 0xb1, 0x32, 0xae, 0x3e, 0xda, 0xa9];

/// IOS with policies for old clients before those for new ones.
pub(crate) fn ios() -> Gateway {
    let sha1 = Integrity::Of(Hash::Sha1);
    Gateway {
        name: "Cisco IOS",
        ike: Policy {
            phase1: vec![
                Phase1(TRIPLE_DES, Hash::Sha1, DhGroup::Of(Group::Modp1024)),
                Phase1(AES256, Hash::Sha1, DhGroup::Of(Group::Modp2048)),
            ],
            phase2: vec![Phase2(TRIPLE_DES, sha1), Phase2(AES128, sha1)],
            preference: [Preference::Own, Preference::Peers],
            pfs: Pfs::Obeys,
            encoding: Encoding::Ios,
            vendor_ids: [vec![vendor_id("RFC 3947")], vec![unity(), DPD.to_vec(), IOS.to_vec()], Vec::new()],
            nat: NatFlavour::Rfc,
            strict: false,
            identity: [(17, 500), (17, 0)],
            life: (3_600, Some(4_608_000)),
            claims_life: true,
            original_addresses: 2,
            initial_contact: Contact::Never,
            dpd: None,
            renewal: Renewal::Own(3_570),
            prefers_old: false,
            ignores_deletes: false,
        },
        l2tp: L2tp {
            sccrp: vec![
                must(2, &[1, 0]),
                must(3, &[0; 4]),
                must(4, &[0; 4]),
                may(6, &[0x11, 0x30]),
                must(7, b"Router"),
                may(8, b"Cisco Systems, Inc."),
                must(9, &[]),
                must(10, &[4, 0]),
            ],
            // Of a vendor, and of no account.
            icrp: vec![(false, 9, 1, vec![0, 0, 0, 1])],
            secret: None,
            hides: false,
            acknowledges_first: false,
            begins_early: false,
            length_in_data: false,
            hello: Some(60),
            cdn: Some((3, vec![may(46, &[0, 3, 0, 0, 2])])),
        },
        ppp: Ppp {
            waits: true,
            lcp: vec![option(3, &[]), magic()],
            auth: vec![Auth::MsChapV2, Auth::ChapMd5],
            name: "Router",
            greeting: "",
            rejects: Vec::new(),
            ipcp: vec![option(3, &[10, 20, 5, 1])],
            dns: Vec::new(),
            // CDPCP (RFC 1700, PPP numbers).
            others: vec![(0x8207, vec![1, 1, 0, 4])],
            address_and_control: true,
            echo: Some(10),
        },
    }
}

/// An older IOS: a draft of NAT traversal, the form with the newline.
fn old_ios() -> Gateway {
    let mut gateway = ios();
    gateway.ike.nat = NatFlavour::Draft;
    gateway.ike.vendor_ids[0] = vec![vendor_id("draft-ietf-ipsec-nat-t-ike-02\n")];
    gateway
}

/// An ASA, by what it says in Main Mode.
fn asa() -> Gateway {
    let concentrator = [0x1f, 0x07, 0xf7, 0x0e, 0xaa, 0x65, 0x14, 0xd3, 0xb0, 0xfa, 0x96, 0x54, 0x2a, 0x50, 0x01, 0x00];
    let mut gateway = ios();
    gateway.ike.vendor_ids = [
        vec![vendor_id("RFC 3947"), [vendor_id("FRAGMENTATION"), vec![0x80, 0, 0, 0]].concat()],
        vec![unity(), XAUTH.to_vec(), IOS.to_vec(), concentrator.to_vec()],
        Vec::new(),
    ];
    gateway
}

#[test]
fn an_asa_with_vendor_ids_of_its_own_is_spoken_to() {
    for place in [Place::Direct, Place::Client, Place::Both] {
        World::up(&asa(), place);
    }
}

#[test]
fn the_policy_with_the_lowest_number_counts_though_the_client_prefers_another() {
    let config = |json: &mut serde_json::Value| {
        json["ike"]["proposals"] = serde_json::json!(["aes256-sha1-modp2048", "3des-sha1-modp1024"]);
    };
    let mut world = World::dial(&ios(), &Setting { config, ..Setting::default() });
    world.assert_up();
    let negotiated = world.client.report().negotiated.clone().unwrap();
    assert_eq!(negotiated.ike.to_string(), "3des-sha1-modp1024");
    assert_eq!(negotiated.esp.unwrap().to_string(), "aes128-sha1");
    assert!(negotiated.weakness.unwrap().contains("modp1024"));
}

#[test]
fn name_servers_that_an_ios_does_not_have_are_given_up() {
    let world = World::up(&ios(), Place::Client);
    assert_eq!(world.gateway.ppp.refused, [129, 131], "{}", world.story());
    assert!(world.link.as_ref().unwrap().dns.is_empty(), "{}", world.story());
}

#[test]
fn a_lifetime_that_an_ios_claims_is_kept_to() {
    let mut gateway = ios();
    gateway.ike.life.0 = 600;
    gateway.ike.renewal = Renewal::Peers;
    let mut world = World::up(&gateway, Place::Client);
    for _ in 0..120 {
        world.run(Duration::from_secs(60));
        world.assert_up();
    }
    assert!(world.gateway.agreed[0] >= 12, "{}", world.story());
    assert_eq!((world.downs, world.gateway.expired), (0, 0), "{}", world.story());
}

#[test]
fn an_ios_that_knows_a_draft_of_nat_traversal_alone_is_spoken_to_by_it() {
    for place in [Place::Direct, Place::Client, Place::Both] {
        World::up(&old_ios(), place);
    }
}

#[test]
fn an_ios_that_asks_for_tunnel_authentication_and_hides_avps_is_answered() {
    let mut gateway = ios();
    (gateway.l2tp.secret, gateway.l2tp.hides) = (Some("tunnel-secret"), true);
    let setting = Setting { tunnel_secret: Some("tunnel-secret"), ..Setting::default() };
    World::dial(&gateway, &setting).assert_up();
}

#[test]
fn an_ios_with_another_tunnel_secret_is_named() {
    let mut gateway = ios();
    gateway.l2tp.secret = Some("another-secret");
    for tunnel_secret in [None, Some("tunnel-secret")] {
        let world = World::dial(&gateway, &Setting { tunnel_secret, ..Setting::default() });
        let reported = world.has_reported(Layer::L2tp, Reason::TunnelAuthenticationFailed, "tunnelSecret");
        assert!(reported && world.link.is_none(), "{}", world.story());
    }
}
