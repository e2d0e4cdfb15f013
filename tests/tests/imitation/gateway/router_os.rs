//! RouterOS as the server.
//!
//! | habit | known from |
//! |---|---|
//! | AES-128 and 3DES with SHA-1 in MODP-2048 and MODP-1024; AES with SHA-1 for half an hour, MODP-1024 for a fresh exchange | its manual |
//! | messages of racoon: RFC 3947, then DPD; no payload but the known ones; silence where nothing fits; the peer's order; INITIAL-CONTACT once phase 1 is done | source of ipsec-tools, from which its IKE comes |
//! | proposal-check "obey" takes the peer's lifetime and its wish for a fresh exchange, "strict" insists on its own group | the same, and its manual |
//! | a ZLB before ICRP and after ICCN, Hello and LCP echoes | a capture and its log, as published |
//! | a result code without an error code | an issue of xl2tpd |
//! | LCP: authentication, then the magic number; rejects ACCM, PFC and ACFC; its name; IPCP with its public address; IPV6CP and MPLSCP at once; rejects VJ, tells name servers by Nak | a log of pppd against it, over SSTP |
//! | an MRU of 1450; MS-CHAPv2, CHAP, PAP | its manual |
//! | AVPs of SCCRP; where the MRU stands; CCP of an encrypting profile; no NAT-OA; dead peer detection every two minutes | assumed |

use std::net::Ipv4Addr;
use std::time::Duration;

use towline_tunnel::report::{Layer, Reason};
use towline_tunnel::suite::{Group, Hash};

use super::world::{PUBLIC, Place, Setting, World};
use super::{Contact, Gateway, L2tp, Pfs, Policy, Ppp, Preference, Renewal, may, must, racoon_ids};
use crate::device::{Auth, DhGroup, Encoding, Integrity, NatFlavour, Phase1, Phase2};
use crate::table::{AES128, AES192, AES256, TRIPLE_DES, ccp, magic, mru, option};

/// RouterOS 6 and 7 with what its L2TP server sets up for IPsec.
pub(crate) fn router_os() -> Gateway {
    let sha1 = Integrity::Of(Hash::Sha1);
    let groups = [Group::Modp2048, Group::Modp1024].map(DhGroup::Of);
    let phase1 = |cipher| groups.map(|group| Phase1(cipher, Hash::Sha1, group));
    Gateway {
        name: "RouterOS",
        ike: Policy {
            phase1: [AES128, TRIPLE_DES].into_iter().flat_map(phase1).collect(),
            phase2: [AES256, AES192, AES128].map(|cipher| Phase2(cipher, sha1)).into(),
            preference: [Preference::Peers; 2],
            pfs: Pfs::Obeys,
            encoding: Encoding::Racoon,
            vendor_ids: [racoon_ids(), Vec::new(), Vec::new()],
            nat: NatFlavour::Rfc,
            strict: true,
            identity: [(17, 500); 2],
            life: (1_800, None),
            claims_life: false,
            original_addresses: 0,
            initial_contact: Contact::Afterwards,
            dpd: Some(120),
            renewal: Renewal::Peers,
            prefers_old: false,
            ignores_deletes: false,
        },
        l2tp: L2tp {
            sccrp: vec![
                must(2, &[1, 0]),
                must(3, &[0, 0, 0, 1]),
                must(4, &[0; 4]),
                may(6, &[0, 1]),
                must(7, b"MikroTik"),
                may(8, b"MikroTik"),
                must(9, &[]),
                must(10, &[0, 4]),
            ],
            icrp: Vec::new(),
            secret: None,
            hides: false,
            acknowledges_first: true,
            begins_early: false,
            length_in_data: true,
            hello: Some(30),
            cdn: Some((1, Vec::new())),
        },
        ppp: Ppp {
            waits: false,
            lcp: vec![mru(1450), option(3, &[]), magic()],
            auth: vec![Auth::MsChapV2, Auth::ChapMd5, Auth::Pap],
            name: "MikroTik",
            greeting: "",
            rejects: vec![2, 7, 8],
            ipcp: vec![option(3, &PUBLIC.octets())],
            dns: vec![[208, 67, 222, 222], [208, 67, 220, 220]],
            others: vec![
                (0x8057, vec![1, 1, 0, 14, 1, 10, 0, 0, 0, 0, 0, 0, 0, 0x77]),
                (0x8281, vec![1, 1, 0, 4]),
                ccp(0x0100_0040),
            ],
            address_and_control: true,
            echo: Some(30),
        },
    }
}

#[test]
fn a_router_os_that_obeys_is_not_asked_for_a_fresh_exchange() {
    let world = World::up(&router_os(), Place::Client);
    let negotiated = world.client.report().negotiated.clone().unwrap();
    assert_eq!(negotiated.ike.to_string(), "aes128-sha1-modp2048");
    assert_eq!(negotiated.esp.unwrap().to_string(), "aes256-sha1");
}

#[test]
fn a_router_os_that_insists_on_a_fresh_exchange_gets_one_in_the_group_of_phase_1_and_again_in_each_renewal() {
    for group in [Group::Modp1024, Group::Modp2048] {
        let mut gateway = router_os();
        gateway.ike.pfs = Pfs::Demands(group);
        gateway.ike.phase1.retain(|Phase1(_, _, of)| *of == DhGroup::Of(group));
        let mut world = World::up(&gateway, Place::Client);
        let esp = world.client.report().negotiated.clone().unwrap().esp.unwrap();
        assert_eq!(esp.group, Some(group), "{}", world.story());
        for _ in 0..24 {
            world.run(Duration::from_secs(300));
            world.assert_up();
        }
        assert!(world.gateway.agreed[0] >= 3 && world.downs == 0, "{}", world.story());
    }
}

#[test]
fn a_router_os_that_insists_on_another_group_than_that_of_phase_1_is_a_case_for_the_configuration() {
    let mut gateway = router_os();
    gateway.ike.pfs = Pfs::Demands(Group::Modp1024);
    let mut world = World::dial(&gateway, &Setting::default());
    world.run(Duration::from_secs(120));
    let reported = world.has_reported(Layer::Ipsec, Reason::QuickModeRejected, "with a group if it asks for PFS");
    assert!(reported && world.link.is_none(), "{}", world.story());
    let config = |json: &mut serde_json::Value| json["esp"]["proposals"] = serde_json::json!(["aes128-sha1-modp1024"]);
    World::dial(&gateway, &Setting { config, ..Setting::default() }).assert_up();
}

#[test]
fn the_public_address_of_a_router_os_is_taken_as_its_inner_one_and_its_name_servers_are_told() {
    let world = World::up(&router_os(), Place::Client);
    let link = world.link.as_ref().unwrap();
    assert_eq!(link.peer, Some(PUBLIC));
    assert_eq!(link.dns.iter().map(Ipv4Addr::octets).collect::<Vec<_>>(), router_os().ppp.dns);
    // It wants 1450 octets, which do not fit.
    assert!(link.mtu < 1450 && world.gateway.ppp.refused.is_empty(), "{}", world.story());
}

#[test]
fn a_router_os_that_is_set_to_pap_or_to_chap_alone_lets_the_client_in() {
    for auth in [Auth::Pap, Auth::ChapMd5] {
        let mut gateway = router_os();
        gateway.ppp.auth = vec![auth];
        World::up(&gateway, Place::Client);
    }
}
