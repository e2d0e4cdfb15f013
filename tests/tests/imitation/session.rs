//! Every device against the whole server, from its first message to a ping, and what is particular to some of them.

use std::time::Duration;

use towline_tunnel::buffer::Port;

use crate::device::{Auth, Device, Selector};
use crate::table::{self, android_4, android_sha256, apple, apple_older, cisco, windows, windows_xp, yamaha};
use crate::world::{DNS, HOST, PASSWORD, PSK, Place, World};

fn assert_each_comes_up(place: Place, port: Port) {
    let mut faults = Vec::new();
    for device in table::all() {
        let mut world = World::new(place);
        let number = world.dial_with(&device, PSK, PASSWORD, port);
        let up = world.seats[number].fault.is_none() && world.seats[number].client.ppp.is_open();
        if !up || !world.pings(number, HOST) || world.seats[number].fault.is_some() {
            faults.push(world.story(number));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

#[test]
fn every_device_comes_up_behind_a_nat() {
    assert_each_comes_up(Place::Nat, Port::Ike);
}

#[test]
fn every_device_comes_up_without_a_nat() {
    assert_each_comes_up(Place::Direct, Port::Ike);
}

#[test]
fn every_device_comes_up_when_the_server_is_behind_a_load_balancer() {
    assert_each_comes_up(Place::Balanced, Port::Ike);
}

#[test]
fn every_device_comes_up_when_it_begins_on_port_4500() {
    assert_each_comes_up(Place::Nat, Port::NatT);
}

#[test]
fn all_devices_are_served_at_once_behind_one_nat_with_one_address() {
    let mut world = World::new(Place::Nat);
    let numbers: Vec<usize> = table::all().iter().map(|device| world.dial(device)).collect();
    for number in &numbers {
        world.assert_up(*number);
    }
    let mut addresses: Vec<_> = numbers.iter().map(|number| world.seats[*number].address()).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), numbers.len());
    assert_eq!(world.server.report().sessions, Some(numbers.len() as u32));
}

#[test]
fn every_device_hangs_up_and_nothing_is_left() {
    for device in table::all() {
        let mut world = World::new(Place::Nat);
        let number = world.dial(&device);
        world.assert_up(number);
        world.seats[number].client.hang_up();
        world.run(Duration::from_secs(60));
        assert_eq!(world.server.report().sessions, Some(0), "{}", world.story(number));
        assert_eq!(world.server.peers(), (0, 0), "{}", world.story(number));
    }
}

#[test]
fn every_device_renews_its_sas_and_no_packet_is_lost() {
    for device in table::all() {
        let mut world = World::new(Place::Nat);
        let number = world.dial(&device);
        world.assert_up(number);
        for round in 2..5 {
            world.seats[number].client.rekey();
            world.run(Duration::from_secs(1));
            world.assert_up(number);
            let client = &world.seats[number].client;
            assert!(client.pairs.len() >= 2 && *client.opened.last().unwrap() > 0, "{round} {}", world.story(number));
        }
    }
}

#[test]
fn the_server_renews_the_sas_of_every_device_where_it_does_not_do_so_itself() {
    for device in table::all() {
        let mut world = World::with(Place::Nat, |config| config["esp"]["lifetimeSeconds"] = serde_json::json!(600));
        let number = world.dial(&device);
        for _ in 0..40 {
            world.run(Duration::from_secs(30));
            world.assert_up(number);
        }
        let opened = &world.seats[number].client.opened;
        assert!(opened.len() >= 3, "{opened:?} {}", world.story(number));
    }
}

#[test]
fn a_client_whose_nat_forgets_it_is_followed_with_its_first_packet() {
    for device in table::all() {
        let mut world = World::new(Place::Nat);
        let number = world.dial(&device);
        world.assert_up(number);
        world.move_seat(number);
        world.assert_up(number);
    }
}

#[test]
fn windows_never_hears_that_the_server_is_behind_a_nat_and_all_are_told_enough_to_put_esp_into_udp() {
    for place in [Place::Direct, Place::Nat, Place::Balanced] {
        for device in table::all() {
            let mut world = World::new(place);
            let number = world.dial(&device);
            let [own, server] = world.seats[number].client.ike.behind_nat;
            assert!(own || server, "{place:?} {}", world.story(number));
            assert!(!(server && device.refuses_server_behind_nat), "{place:?} {}", world.story(number));
        }
    }
}

#[test]
fn name_servers_are_told_and_those_of_windows_names_are_rejected() {
    let mut world = World::new(Place::Nat);
    let number = world.dial(&windows());
    let ppp = &world.seats[number].client.ppp;
    assert_eq!([ppp.value(129), ppp.value(131)], DNS.map(|server| Some(server.octets())));
    assert_eq!([ppp.value(130), ppp.value(132)], [None, None]);
}

#[test]
fn protocols_that_the_server_does_not_speak_are_rejected_by_name() {
    let mut world = World::new(Place::Nat);
    let number = world.dial(&apple());
    // ACSP: macOS waits for this.
    assert!(world.seats[number].client.ppp.rejected.contains(&0x8235), "{}", world.story(number));
    let number = world.dial(&windows());
    // CCP.
    assert!(world.seats[number].client.ppp.rejected.contains(&0x80fd), "{}", world.story(number));
}

#[test]
fn every_method_of_authentication_that_a_device_knows_lets_it_in() {
    for auth in [Auth::MsChapV2, Auth::ChapMd5, Auth::Pap] {
        let mut device = apple();
        device.ppp.auth = vec![auth];
        let mut world = World::new(Place::Nat);
        let number = world.dial(&device);
        world.assert_up(number);
    }
}

#[test]
fn a_wrong_password_is_told_with_the_code_of_every_refusal() {
    let mut world = World::new(Place::Nat);
    let number = world.dial_with(&windows(), PSK, "looking-glass", Port::Ike);
    world.run(Duration::from_secs(30));
    let client = &world.seats[number].client;
    let said = client.ppp.failure.clone().unwrap_or_else(|| panic!("{}", world.story(number)));
    assert!(said.starts_with("E=691 R=0"), "{said}");
    assert!(!client.ppp.authenticated && world.server.report().sessions == Some(0));
}

#[test]
fn a_wrong_pre_shared_key_is_never_established_and_forgotten() {
    for device in table::all() {
        let mut world = World::new(Place::Nat);
        let number = world.dial_with(&device, "not-the-preshared-key", PASSWORD, Port::Ike);
        assert!(!world.seats[number].client.ike.is_established());
        world.run(Duration::from_secs(120));
        assert_eq!(world.server.peers(), (0, 0), "{}", world.story(number));
    }
}

#[test]
fn an_apple_device_that_renews_with_other_identities_keeps_its_session() {
    let mut world = World::new(Place::Nat);
    let number = world.dial(&apple());
    world.assert_up(number);
    for selector in [Selector::L2tp, Selector::AnyPort, Selector::Name("Alices-MacBook.local")] {
        world.seats[number].client.rekey_with(selector);
        world.run(Duration::from_secs(1));
        world.assert_up(number);
    }
    assert_eq!(world.seats[number].client.opened.len(), 4);
}

#[test]
fn sha_256_of_96_bits_is_found_out_and_so_is_that_of_128() {
    let mut world = World::new(Place::Nat);
    let short = world.dial(&android_sha256());
    let long = world.dial(&Device { phase2: apple().phase2, ..android_4() });
    for number in [short, long] {
        world.assert_up(number);
        assert_eq!(world.seats[number].client.unopened, 0, "{}", world.story(number));
    }
}

#[test]
fn a_cisco_that_sends_the_nat_payloads_of_the_drafts_too_is_served() {
    let mut world = World::new(Place::Nat);
    let number = world.dial(&cisco());
    world.assert_up(number);
}

#[test]
fn a_yamaha_that_asks_for_no_address_is_told_the_one_that_it_has() {
    let mut world = World::new(Place::Nat);
    let number = world.dial(&yamaha());
    world.assert_up(number);
    assert!(yamaha().ppp.ipcp.iter().all(|option| option[0] != 3));
}

#[test]
fn a_windows_xp_with_a_name_in_quick_mode_and_the_payloads_of_the_drafts_is_served() {
    let mut world = World::new(Place::Nat);
    let number = world.dial(&windows_xp());
    world.assert_up(number);
}

#[test]
fn a_device_that_sleeps_through_a_hello_keeps_its_session() {
    let mut world = World::with(Place::Nat, |config| {
        config["l2tp"]["helloSeconds"] = serde_json::json!(20);
    });
    let number = world.dial(&android_4());
    world.assert_up(number);
    // It is heard now and then, and hears nothing, for longer than a Hello is sent again.
    world.seats[number].deaf = true;
    for _ in 0..30 {
        world.run(Duration::from_secs(5));
        let packet = [
            vec![0x45, 0, 0, 20, 0, 0, 0, 0, 64, 99, 0, 0],
            world.seats[number].address().octets().to_vec(),
            HOST.octets().to_vec(),
        ]
        .concat();
        world.seats[number].client.send_ip(&packet);
    }
    world.seats[number].deaf = false;
    world.run(Duration::from_secs(5));
    world.assert_up(number);
}

#[test]
fn a_device_that_ignores_hello_for_ever_keeps_its_session() {
    let mut world = World::with(Place::Nat, |config| config["l2tp"]["helloSeconds"] = serde_json::json!(5));
    let number = world.dial(&apple_older());
    for _ in 0..20 {
        world.run(Duration::from_secs(10));
        world.assert_up(number);
    }
    assert!(world.seats[number].client.l2tp.hellos > 0, "none was sent");
}

#[test]
fn idle_devices_stay_and_only_those_that_know_dead_peer_detection_are_asked_by_it() {
    for device in table::all() {
        let mut world = World::new(Place::Nat);
        let number = world.dial(&device);
        for _ in 0..5 {
            world.run(Duration::from_secs(600));
            world.assert_up(number);
        }
        let asked = world.seats[number].client.notified.contains(&36_136);
        assert!(!asked || device.vendor_ids.contains(&table::DPD.to_vec()), "{}", world.story(number));
    }
}

#[test]
fn every_device_renews_phase_1_in_its_time_for_hours_and_keeps_its_session() {
    for device in table::all() {
        let mut world = World::new(Place::Nat);
        let number = world.dial(&device);
        let address = world.seats[number].address();
        for _ in 0..12 {
            world.run(Duration::from_secs(1_500));
            world.assert_up(number);
            world.seats[number].client.renew();
            world.run(Duration::from_secs(300));
            world.assert_up(number);
        }
        assert_eq!(world.seats[number].address(), address);
        assert_eq!(world.server.peers(), (0, 1), "{}", world.story(number));
        assert_eq!(world.server.report().users[0].sessions, 1);
    }
}

#[test]
fn nat_d_in_the_other_order_is_understood_with_the_vendor_id_that_tells_it() {
    let mut world = World::new(Place::Nat);
    let number = world.dial(&apple_older());
    world.assert_up(number);
}

#[test]
fn aes_without_a_key_length_is_that_of_128_bits() {
    let mut device = Device { omits_key_length: true, ..table::chrome_os() };
    device.phase1.retain(|offer| offer.0 == table::AES128);
    device.phase2[0].retain(|offer| offer.0 == table::AES128);
    let mut world = World::new(Place::Nat);
    let number = world.dial(&device);
    world.assert_up(number);
}

#[test]
fn the_commit_bit_of_quick_mode_is_ignored() {
    let mut world = World::new(Place::Nat);
    let number = world.dial(&Device { commits: true, ..windows() });
    world.assert_up(number);
}

#[test]
fn a_client_that_demands_that_the_server_prove_itself_is_told_that_it_does_not() {
    let mut device = apple();
    device.ppp.lcp.push(vec![3, 5, 0xc2, 0x23, 5]);
    let mut world = World::new(Place::Nat);
    let number = world.dial(&device);
    world.assert_up(number);
}

#[test]
fn the_server_says_only_what_it_can_and_no_name_of_a_product() {
    let known = [
        "RFC 3947",
        "draft-ietf-ipsec-nat-t-ike-03",
        "draft-ietf-ipsec-nat-t-ike-02\n",
        "draft-ietf-ipsec-nat-t-ike-02",
    ];
    let known = known.map(table::vendor_id);
    let fragmentation = table::vendor_id("FRAGMENTATION");
    for device in table::all() {
        let mut world = World::new(Place::Nat);
        let number = world.dial(&device);
        for id in &world.seats[number].client.ike.vendor_ids {
            let is_known = known.contains(id) || *id == table::DPD || id.starts_with(&fragmentation);
            assert!(is_known, "{id:02x?} {}", world.story(number));
        }
    }
}
