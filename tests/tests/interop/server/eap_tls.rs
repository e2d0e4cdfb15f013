//! EAP-TLS of pppd, whose TLS is that of OpenSSL.

use serde_json::json;
use towline_tests::peer::pki::{Authority, Certificate, Key, Validity};
use towline_tests::peer::{Guest, Lac, Lns, PppAuth};
use towline_tests::server::{self, User};
use towline_tests::site::Side;
use towline_tests::tunnel::wait_for_text;

use super::world::{PATIENCE, SERVER, World};

/// Dials in vain with a certificate; the one line of the server's log that says why.
fn refused(world: &World, client: &Guest, certificate: &Certificate) -> String {
    let before = world.server.log().unwrap().len();
    client.prove(certificate).unwrap();
    client.dial().unwrap_err();
    assert!(client.log("pppd").contains("EAP: peer reports authentication failure"), "{}", world.logs(client));
    client.hang_up().unwrap();
    assert_eq!(world.server.report().unwrap().sessions, Some(0));
    let log = world.server.log().unwrap()[before..].to_owned();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("a client is refused")).collect();
    let [line] = lines.as_slice() else { panic!("{log}") };
    (*line).to_owned()
}

#[test]
fn pppd_with_a_certificate_comes_in_by_eap_tls_and_with_a_foreign_an_expired_or_a_revoked_one_it_does_not() {
    let root = Authority::new("root", Key::Rsa).unwrap();
    let below = root.intermediate("below").unwrap();
    // pppd compares the common name of the server with its `remotename`.
    let own = below.issue("lns", &format!("IP:{SERVER}"), Validity::Valid).unwrap();
    let alice = below.issue("alice", "", Validity::Valid).unwrap();
    let world = World::with_key(&server::Key::Certificate(own), &[User::of(&Lns::default())], |config| {
        config["ppp"] = json!({"auth": ["Eap"]});
    });
    let like = Lns { certificate: Some(alice.clone()), auth: PppAuth::Eap, ..Lns::default() };
    let lac = Lac { eap_tls: Some(alice), ..Lac::new(SERVER, like) };
    let client = world.client_at(Side::Wan, "192.0.2.20", &lac);
    for newest in ["1.2", "1.3"] {
        client.exec(&format!("echo max-tls-version {newest} >> /etc/ppp/options.l2tp")).unwrap();
        world.connect(&client);
        let log = client.log("pppd");
        // TLS 1.3 is not spoken, and not insisted on.
        assert!(log.contains("Handshake: Finished: TLS 1.2"), "{log}");
        // The certificates of both ends take several packets: L and M are the flags of the first.
        for from in ["sent [EAP Response", "rcvd [EAP Request"] {
            assert!(log.lines().any(|line| line.contains(from) && line.contains("TLS LM-")), "{from}: {log}");
        }
        client.hang_up().unwrap();
    }
    let foreign = Authority::new("foreign", Key::Rsa).unwrap().issue("alice", "", Validity::Valid).unwrap();
    let line = refused(&world, &client, &foreign);
    assert!(line.contains("UnknownIssuer"), "{line}");
    let line = refused(&world, &client, &below.issue("alice", "", Validity::Expired).unwrap());
    assert!(line.contains("expired"), "{line}");
    // Not that of IKE, which would be refused there.
    let gone = below.issue("alice", "", Validity::Valid).unwrap();
    std::fs::write(world.server.folder().join("crl.pem"), below.revoke(&gone).unwrap()).unwrap();
    wait_for_text("a secret changed", PATIENCE, || world.server.log().unwrap()).unwrap();
    let line = refused(&world, &client, &gone);
    assert!(line.contains("Revoked"), "{line}");
}
