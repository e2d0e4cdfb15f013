//! Certificates in place of a pre-shared key.

use towline_tests::peer::pki::{Authority, Certificate, Key, Validity};
use towline_tests::peer::{Guest, Lns};
use towline_tests::server::{self, User};
use towline_tests::site::Side;

use super::world::{SERVER, World};

fn client(world: &World, certificate: &Certificate) -> Guest {
    world.client(Side::Lan, Lns { certificate: Some(certificate.clone()), ..Lns::default() })
}

fn world(authority: &Authority) -> World {
    let own = authority.issue("server", &format!("IP:{SERVER}"), Validity::Valid).unwrap();
    World::with_key(&server::Key::Certificate(own), &[User::of(&Lns::default())], |_| {})
}

/// A certificate of an authority that only the client itself trusts.
fn foreign(authority: &Authority, key: Key) -> Certificate {
    let mut foreign = Authority::new("foreign", key).unwrap().issue("mallory", "", Validity::Valid).unwrap();
    foreign.authority = authority.issue("any", "", Validity::Valid).unwrap().authority;
    foreign
}

fn assert_served_and_refused(key: Key) {
    let authority = Authority::new("root", key).unwrap();
    let mut world = world(&authority);
    let right = authority.issue("alice", "email:alice@example.com", Validity::Valid).unwrap();
    let served = client(&world, &right);
    world.connect(&served);
    served.hang_up().unwrap();
    served.kill();
    let refused = [
        ("foreign", foreign(&authority, key)),
        ("expired", authority.issue("old", "", Validity::Expired).unwrap()),
        ("early", authority.issue("new", "", Validity::Future).unwrap()),
    ];
    for (what, certificate) in refused {
        let client = client(&world, &certificate);
        client.dial_ipsec().unwrap_err();
        client.kill();
        assert_eq!(world.server.report().unwrap().sessions, Some(0), "{what}");
    }
    let log = world.server.log().unwrap();
    for words in ["authority", "expired", "not valid yet"] {
        assert!(log.contains(words), "{words:?} is not in the log\n{log}");
    }
    world.server.wait_ready().unwrap();
}

#[test]
fn a_client_with_an_rsa_certificate_is_served_and_one_of_a_foreign_authority_or_out_of_its_time_is_refused() {
    assert_served_and_refused(Key::Rsa);
}

#[test]
fn a_client_with_an_ecdsa_certificate_is_served_and_one_of_a_foreign_authority_or_out_of_its_time_is_refused() {
    assert_served_and_refused(Key::Ecdsa256);
}

#[test]
fn a_certificate_of_an_authority_below_is_trusted_by_its_chain_and_a_revoked_one_is_not() {
    let root = Authority::new("root", Key::Rsa).unwrap();
    let world = world(&root);
    let below = root.intermediate("below").unwrap().issue("alice", "", Validity::Valid).unwrap();
    let served = client(&world, &below);
    world.connect(&served);
    served.hang_up().unwrap();
    served.kill();
    let revoked = root.issue("bob", "", Validity::Valid).unwrap();
    let list = root.revoke(&revoked).unwrap();
    std::fs::write(world.server.folder().join("crl.pem"), list).unwrap();
    let client = client(&world, &revoked);
    client.dial_ipsec().unwrap_err();
    let log = world.server.log().unwrap();
    assert!(log.contains("revoked"), "{log}");
}
