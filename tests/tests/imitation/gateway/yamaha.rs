//! A Yamaha RTX as the server. By its documentation (2023) it is that alone: no client, and nothing between networks.
//!
//! | habit | known from |
//! |---|---|
//! | its IKE has the address of its inner network, before which its own NAT is; NAT traversal switched on; AES-128 with SHA-1 in phase 2 | configurations, as published |
//! | ISAKMP and IPsec phases that it begins itself ("ipsec auto refresh") | its log between two of them, as published |
//! | tunnel authentication, keepalives every 60 seconds | configurations |
//! | CHAP, then PAP; no compression; options of LCP: MRU and magic number | configurations and its status, as published |
//! | takes in phase 1 whatever is offered and known; renews at three quarters; an MRU of 1792 | its manual as it is remembered |
//! | vendor IDs, its identity, one NAT-OA, the order of AVPs and options, a StopCCN alone at the end | assumed |

use std::time::Duration;

use towline_tunnel::config::PppAuth;
use towline_tunnel::report::{Layer, Nat, Reason};
use towline_tunnel::suite::{Group, Hash};

use super::world::{Place, Setting, World};
use super::{Contact, Gateway, L2tp, Pfs, Policy, Ppp, Preference, Renewal, may, must};
use crate::device::{Auth, DhGroup, Encoding, Integrity, NatFlavour, Phase1, Phase2};
use crate::table::{AES128, AES256, TRIPLE_DES, magic, mru, option, vendor_id};

/// An RTX in the manner of its examples for remote access.
pub(crate) fn rtx() -> Gateway {
    let groups = [Group::Modp1024, Group::Modp1536, Group::Modp2048].map(DhGroup::Of);
    let phase1 = |cipher| {
        [Hash::Sha1, Hash::Sha256].into_iter().flat_map(move |hash| groups.map(|group| Phase1(cipher, hash, group)))
    };
    Gateway {
        name: "Yamaha RTX",
        ike: Policy {
            phase1: [TRIPLE_DES, AES128, AES256].into_iter().flat_map(phase1).collect(),
            phase2: vec![Phase2(AES128, Integrity::Of(Hash::Sha1))],
            preference: [Preference::Peers; 2],
            pfs: Pfs::Refuses,
            encoding: Encoding::Charon,
            vendor_ids: [vec![vendor_id("RFC 3947")], Vec::new(), Vec::new()],
            nat: NatFlavour::Rfc,
            strict: false,
            identity: [(0, 0); 2],
            life: (28_800, None),
            claims_life: false,
            original_addresses: 1,
            initial_contact: Contact::InMessage6,
            dpd: None,
            renewal: Renewal::Own(2_700),
            prefers_old: false,
            ignores_deletes: false,
        },
        l2tp: L2tp {
            sccrp: vec![
                must(2, &[1, 0]),
                must(7, b"RTX1210"),
                must(3, &[0, 0, 0, 3]),
                must(9, &[]),
                must(10, &[0, 4]),
                may(8, b"YAMAHA Corporation"),
            ],
            icrp: Vec::new(),
            secret: None,
            hides: false,
            acknowledges_first: false,
            begins_early: false,
            length_in_data: true,
            hello: Some(60),
            cdn: None,
        },
        ppp: Ppp {
            waits: false,
            lcp: vec![option(3, &[]), magic(), mru(1792)],
            auth: vec![Auth::ChapMd5, Auth::Pap],
            name: "RTX1210",
            greeting: "",
            rejects: Vec::new(),
            ipcp: vec![option(3, &[192, 168, 100, 1])],
            dns: vec![[192, 168, 100, 1]],
            others: Vec::new(),
            address_and_control: true,
            echo: None,
        },
    }
}

#[test]
fn the_inner_address_of_an_rtx_is_taken_as_its_identity() {
    let world = World::up(&rtx(), Place::Both);
    let report = world.client.report().layer(Layer::Ike).unwrap();
    assert!(report.message.contains("172.16.0.2"), "{}", report.message);
    assert_eq!(world.client.report().negotiated.as_ref().unwrap().nat, Nat::Both);
}

#[test]
fn an_rtx_takes_the_best_of_phase_1_and_what_it_is_set_to_in_phase_2() {
    let world = World::up(&rtx(), Place::Both);
    let negotiated = world.client.report().negotiated.clone().unwrap();
    assert_eq!(negotiated.ike.to_string(), "aes256-sha256-modp2048");
    assert_eq!(negotiated.esp.unwrap().to_string(), "aes128-sha1");
    assert_eq!(negotiated.ppp_auth, Some(PppAuth::Chap));
    // It would take 1792 octets.
    assert!(negotiated.mtu.unwrap() < 1450, "{}", world.story());
}

#[test]
fn an_rtx_that_asks_for_a_proof_that_the_client_may_not_give_is_named() {
    let config = |json: &mut serde_json::Value| json["ppp"]["auth"] = serde_json::json!(["MsChapV2"]);
    let world = World::dial(&rtx(), &Setting { config, ..Setting::default() });
    let reported = world.has_reported(Layer::Ppp, Reason::PppNegotiationFailed, "ppp.auth");
    assert!(reported && world.link.is_none(), "{}", world.story());
}

#[test]
fn an_rtx_that_refuses_a_fresh_exchange_is_named_where_the_configuration_insists_on_one() {
    let config = |json: &mut serde_json::Value| json["esp"]["proposals"] = serde_json::json!(["aes128-sha1-modp1024"]);
    let mut world = World::dial(&rtx(), &Setting { config, ..Setting::default() });
    world.run(Duration::from_secs(120));
    let reported = world.has_reported(Layer::Ipsec, Reason::QuickModeRejected, "esp.proposals");
    assert!(reported && world.link.is_none(), "{}", world.story());
}

#[test]
fn an_rtx_with_tunnel_authentication_is_answered() {
    let mut gateway = rtx();
    gateway.l2tp.secret = Some("yamaha");
    let setting = Setting { place: Place::Both, tunnel_secret: Some("yamaha"), ..Setting::default() };
    World::dial(&gateway, &setting).assert_up();
}

#[test]
fn an_rtx_that_closes_an_idle_tunnel_with_stop_ccn_alone_is_dialled_again() {
    let mut world = World::up(&rtx(), Place::Both);
    world.gateway.stop_l2tp();
    world.run(Duration::from_millis(500));
    assert!(world.link.is_none() && world.has_reported(Layer::L2tp, Reason::PeerClosed, ""), "{}", world.story());
    world.revive();
    world.run(Duration::from_secs(30));
    world.assert_up();
}
