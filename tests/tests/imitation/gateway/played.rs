//! Every gateway against our whole client, from its first message to the end. What is particular to one is in its own file.

use std::time::Duration;

use towline_tunnel::report::{Layer, Reason};
use towline_tunnel::suite::{Group, Hash};

use super::world::{Place, Setting, World};
use super::{Gateway, Renewal, all};
use crate::device::{DhGroup, Integrity, Phase1, Phase2};
use crate::ike::R_U_THERE_ACK;
use crate::table::{DPD, TRIPLE_DES, vendor_id};

/// What the client offers as the lifetimes of phase 1 and 2.
const LIVES: (u64, u64) = (28_800, 3_600);

#[test]
fn every_gateway_lets_the_client_in_and_packets_pass_both_ways() {
    for gateway in all() {
        for place in [Place::Direct, Place::Client, Place::Both] {
            let world = World::up(&gateway, place);
            // The client says that it is behind a NAT even where there is none.
            let ike = world.gateway.ike.last().unwrap();
            assert_eq!(ike.behind_nat, [true, place == Place::Both], "{}", world.story());
        }
    }
}

#[test]
fn a_gateway_that_tells_of_dead_peer_detection_beside_its_identity_and_of_one_address_is_spoken_to() {
    // Seen of a gateway without a name, in a log of strongSwan.
    for mut gateway in all() {
        gateway.ike.vendor_ids = [vec![vendor_id("RFC 3947")], Vec::new(), vec![DPD.to_vec()]];
        gateway.ike.original_addresses = 1;
        World::up(&gateway, Place::Client);
    }
}

#[test]
fn the_client_renews_both_phases_with_every_gateway_for_half_a_day_and_no_packet_is_lost() {
    for gateway in all() {
        for place in [Place::Direct, Place::Both] {
            let mut gateway = gateway.clone();
            gateway.ike.renewal = Renewal::Peers;
            let mut world = World::up(&gateway, place);
            for _ in 0..12 * 12 {
                world.run(Duration::from_secs(300));
                world.assert_up();
            }
            let hours = 12 * 3_600;
            let head_end = &world.gateway;
            assert!(u64::from(head_end.agreed[0]) >= hours / LIVES.1 && head_end.opened() > 0, "{}", world.story());
            assert!(head_end.ike.len() as u64 > hours / LIVES.0, "{}", world.story());
            assert_eq!((world.downs, head_end.expired), (0, 0), "{}", world.story());
        }
    }
}

#[test]
fn every_gateway_that_renews_its_sas_itself_finds_the_client_ready() {
    for gateway in all() {
        for place in [Place::Direct, Place::Both] {
            let mut gateway = gateway.clone();
            gateway.ike.renewal = Renewal::Own(300);
            let mut world = World::up(&gateway, place);
            for _ in 0..24 {
                world.run(Duration::from_secs(150));
                world.assert_up();
            }
            let head_end = &world.gateway;
            assert!(
                head_end.agreed == [head_end.agreed[1] + 1, 12 - 1] || head_end.agreed == [13, 12],
                "{}",
                world.story()
            );
            assert_eq!((world.downs, head_end.expired), (0, 0), "{}", world.story());
        }
    }
}

#[test]
fn renewals_in_the_way_of_each_gateway_lose_nothing() {
    for gateway in all() {
        let mut world = World::up(&gateway, Place::Client);
        for _ in 0..6 * 12 {
            world.run(Duration::from_secs(300));
            world.assert_up();
        }
        assert!(world.gateway.agreed[0] >= 6, "{}", world.story());
        assert_eq!((world.downs, world.gateway.expired), (0, 0), "{}", world.story());
        // Where it does so after three quarters of the lifetime, the client is never first.
        let begun = if gateway.ike.renewal == Renewal::Own(2_700) { world.gateway.agreed[0] - 1 } else { 0 };
        assert_eq!(world.gateway.agreed[1], begun, "{}", world.story());
    }
}

#[test]
fn every_question_of_a_gateway_about_life_is_answered() {
    for gateway in all() {
        let mut world = World::up(&gateway, Place::Client);
        world.run(Duration::from_secs(600));
        world.assert_up();
        let head_end = &world.gateway;
        let [asked, answered] = head_end.ppp.echoes;
        assert!(asked == answered && (asked > 0) == gateway.ppp.echo.is_some(), "{}", world.story());
        assert!(head_end.lns.hellos > 0 && head_end.lns.is_acknowledged(), "{}", world.story());
        assert_eq!(head_end.notified.contains(&R_U_THERE_ACK), gateway.ike.dpd.is_some(), "{}", world.story());
    }
}

#[test]
fn every_gateway_sees_the_client_hang_up_in_order_and_keeps_nothing() {
    for gateway in all() {
        let mut world = World::up(&gateway, Place::Client);
        world.hang_up();
        world.run(Duration::from_secs(5));
        let head_end = &world.gateway;
        assert_eq!((world.closed, head_end.ppp.terminated), (true, true), "{}", world.story());
        assert!(head_end.fault.is_none(), "{}", world.story());
        // CDN for administrative reasons, then StopCCN of an end that is shut down.
        assert_eq!(head_end.told, [(14, 3), (4, 6)], "{}", world.story());
        assert!(head_end.is_idle(), "{}", world.story());
    }
}

#[test]
fn a_gateway_that_hangs_up_is_dialled_again() {
    for gateway in all() {
        let mut world = World::up(&gateway, Place::Client);
        world.gateway.hang_up();
        world.run(Duration::from_millis(500));
        assert!(
            world.link.is_none() && world.has_reported(Layer::Ppp, Reason::PeerClosed, "ended PPP"),
            "{}",
            world.story()
        );
        world.revive();
        world.run(Duration::from_secs(30));
        world.assert_up();
    }
}

#[test]
fn a_gateway_that_restarts_without_a_word_is_noticed_and_dialled_again() {
    for gateway in all() {
        let mut world = World::up(&gateway, Place::Client);
        world.revive();
        world.run(Duration::from_secs(240));
        assert_eq!(world.downs, 1, "{}", world.story());
        // What the client sent under the old SAs nobody opens any more.
        world.gateway.unopened = 0;
        world.assert_up();
    }
}

#[test]
fn what_a_gateway_begins_besides_ip_is_rejected_by_name() {
    for gateway in all() {
        let world = World::up(&gateway, Place::Client);
        let began: Vec<u16> = gateway.ppp.others.iter().map(|(protocol, _)| *protocol).collect();
        assert_eq!(world.gateway.ppp.rejected, began, "{}", world.story());
    }
}

/// A client that gets no link for a minute, and what it says about it.
fn fails(gateway: &Gateway, setting: &Setting) -> World {
    let mut world = World::dial(gateway, setting);
    world.run(Duration::from_secs(60));
    assert!(world.link.is_none(), "{}", world.story());
    world
}

#[test]
fn a_wrong_pre_shared_key_is_suspected_where_a_gateway_says_nothing_to_the_identity() {
    for gateway in all() {
        let world = fails(&gateway, &Setting { psk: "not-the-preshared-key", ..Setting::default() });
        let reported = world.has_reported(Layer::Ike, Reason::AuthenticationFailed, "pre-shared keys differ");
        assert!(reported, "{}", world.story());
    }
}

#[test]
fn a_wrong_password_is_named_with_what_the_gateway_says() {
    for gateway in all() {
        let world = fails(&gateway, &Setting { password: "looking-glass", ..Setting::default() });
        let reported = world.has_reported(Layer::Ppp, Reason::PppAuthenticationFailed, "user name and password");
        assert!(reported && world.gateway.fault.is_none(), "{}", world.story());
    }
}

#[test]
fn a_gateway_without_an_offer_of_phase_1_in_common_says_so_or_is_silent() {
    for mut gateway in all() {
        gateway.ike.phase1.truncate(0);
        let world = fails(&gateway, &Setting::default());
        let (layer, reason) = match gateway.ike.strict {
            true => (Layer::Peer, Reason::PeerSilent),
            false => (Layer::Ike, Reason::NoProposalChosen),
        };
        assert!(world.has_reported(layer, reason, ""), "{}", world.story());
    }
}

#[test]
fn a_gateway_without_an_offer_of_phase_2_in_common_is_asked_twice_and_named() {
    for mut gateway in all() {
        gateway.ike.phase2.truncate(0);
        let world = fails(&gateway, &Setting::default());
        assert!(world.has_reported(Layer::Ipsec, Reason::QuickModeRejected, "esp.proposals"), "{}", world.story());
    }
}

#[test]
fn old_algorithms_alone_are_enough_at_the_legacy_level_and_named_as_what_is_missing_below() {
    for mut gateway in all() {
        gateway.ike.phase1 = vec![Phase1(TRIPLE_DES, Hash::Sha1, DhGroup::Of(Group::Modp1024))];
        gateway.ike.phase2 = vec![Phase2(TRIPLE_DES, Integrity::Of(Hash::Sha1))];
        let world = World::up(&gateway, Place::Client);
        let negotiated = world.client.report().negotiated.clone().unwrap();
        let agreed = [negotiated.ike.to_string(), negotiated.esp.unwrap().to_string()];
        assert_eq!(agreed, ["3des-sha1-modp1024", "3des-sha1"]);
        assert!(negotiated.weakness.is_some());
        let config = |json: &mut serde_json::Value| json["ike"]["security"] = "Compatible".into();
        let world = fails(&gateway, &Setting { config, ..Setting::default() });
        let named = world.has_reported(Layer::Ike, Reason::NoProposalChosen, "ike.security");
        assert!(named || gateway.ike.strict, "{}", world.story());
    }
}
