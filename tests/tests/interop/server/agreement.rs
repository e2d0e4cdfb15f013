//! What both ends agree on: algorithms, PPP authentication, tunnel authentication, compression that is refused.

use serde_json::json;
use towline_tests::peer::{Lns, PppAuth};
use towline_tests::server::User;
use towline_tests::site::Side;

use super::world::World;

/// A client with these proposals of phase 1 and of phase 2.
fn of(ike: &str, esp: &str) -> Lns {
    Lns { ike: ike.to_owned(), esp: esp.to_owned(), ..Lns::default() }
}

/// Dials with each pair of proposals, one client after the other.
fn assert_agreed(world: &World, pairs: &[(&str, &str)]) {
    for (ike, esp) in pairs {
        let client = world.client(Side::Wan, of(ike, esp));
        world.connect(&client);
        let sas = client.exec("swanctl --list-sas").unwrap();
        assert!(sas.contains("ESTABLISHED, IKEv1") && sas.contains("INSTALLED, TRANSPORT"), "{ike} {esp}: {sas}");
        client.hang_up().unwrap();
        client.kill();
    }
}

#[test]
fn each_method_of_ppp_authentication_lets_the_right_password_in() {
    let world = World::new();
    for auth in [PppAuth::MsChapV2, PppAuth::Chap, PppAuth::Pap] {
        let client = world.client(Side::Wan, Lns { auth, ..Lns::default() });
        world.connect(&client);
        assert_eq!(world.user("alice").result, "accepted", "{auth:?}");
        client.hang_up().unwrap();
    }
}

#[test]
fn a_client_proves_its_password_by_eap() {
    let world = World::with(&[User::of(&Lns::default())], |config| {
        config["ppp"] = json!({"auth": ["Eap"]});
    });
    let client = world.client(Side::Wan, Lns { auth: PppAuth::Eap, ..Lns::default() });
    world.connect(&client);
    assert_eq!(world.user("alice").result, "accepted");
}

#[test]
fn proposals_of_the_configuration_are_agreed_on_with_groups_of_both_kinds_and_perfect_forward_secrecy() {
    for (ike, esp) in [
        ("aes256-sha256-ecp384", "aes256-sha256"),
        ("aes128-sha256-ecp256", "aes256gcm16-modp2048"),
        ("aes256-sha512-modp4096", "aes128-sha512"),
    ] {
        let world = World::with(&[User::of(&Lns::default())], |config| {
            config["ike"]["proposals"] = json!([ike]);
            config["esp"]["proposals"] = json!([esp]);
        });
        assert_agreed(&world, &[(ike, esp)]);
    }
}

#[test]
fn old_proposals_are_agreed_on_where_they_are_allowed() {
    let world = World::with(&[User::of(&Lns::default())], |config| {
        config["ike"]["security"] = json!("Legacy");
    });
    assert_agreed(&world, &[("3des-sha1-modp1024", "3des-sha1"), ("aes128-sha1-modp1024", "aes128-sha1")]);
}

#[test]
fn a_server_chooses_what_it_prefers_of_what_is_offered() {
    let world = World::new();
    let offered = of("aes128-sha1-modp2048,aes256-sha256-modp2048", "aes128-sha1,aes256-sha256");
    let client = world.client(Side::Wan, offered);
    world.connect(&client);
    let sas = client.exec("swanctl --list-sas").unwrap();
    assert!(sas.contains("AES_CBC-256/HMAC_SHA2_256_128"), "{sas}");
}

#[test]
fn compression_that_a_client_offers_is_refused_and_the_link_comes_up() {
    let world = World::new();
    let client = world.client(Side::Wan, Lns { compression: true, ..Lns::default() });
    world.connect(&client);
    let log = client.log("pppd");
    assert!(log.contains("sent [CCP ConfReq"), "nothing was offered: {log}");
    assert!(log.contains("rcvd [LCP ProtRej"), "it was not refused: {log}");
}
