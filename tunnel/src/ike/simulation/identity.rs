//! Who the peers are: the pre-shared key, identities, INITIAL-CONTACT.

use super::*;

#[test]
fn a_wrong_key_is_reported_soon_when_the_peer_complains_and_late_when_it_is_silent() {
    for (complains, at) in [(true, 2..4), (false, 30..33)] {
        let mut server = mirrored(&fast());
        server.credentials = psk("another key");
        let mut link = Link::new(fast(), server, 12);
        link.filter = Box::new(move |_, header, _| complains || header.exchange != ExchangeType::INFORMATIONAL);
        link.connect();
        link.run(seconds(60));
        let (when, error) = link.peers[CLIENT].failure().unwrap();
        assert!(matches!(error, Error::AuthenticationFailed { .. }), "{error}");
        assert!(at.contains(&when.as_secs()), "{when:?}");
        assert!(!link.peers[SERVER].ike.is_established());
    }
}

fn key(name: &str, key: &str) -> PreSharedKey {
    let key = Zeroizing::new(key.as_bytes().to_vec());
    PreSharedKey { name: name.to_owned(), key, addresses: Vec::new(), remote_id: None }
}

/// A server with several keys; the client has the one of [`fast`].
fn keeper(keys: &[PreSharedKey]) -> Config {
    let credentials = Credentials { pre_shared_keys: keys.to_vec(), ..Credentials::default() };
    Config { credentials: Arc::new(credentials), ..mirrored(&fast()) }
}

/// By which keys the peer proved itself, one after the other.
fn proofs(peer: &Peer) -> Vec<String> {
    let proof = |event: &Event| match event {
        Event::IsakmpEstablished { authentication, .. } => Some(authentication.to_string()),
        _ => None,
    };
    peer.events.iter().filter_map(|(_, event)| proof(event)).collect()
}

fn dialled(server: Config, seed: u64) -> Link {
    let mut link = Link::new(fast(), server, seed);
    link.connect();
    link.run(seconds(5));
    link
}

#[test]
fn the_responder_finds_the_key_that_message_5_is_written_with() {
    let link = dialled(keeper(&[key("new", "another key"), key("old", "a pre-shared key"), key("third", "third")]), 90);
    link.assert_established();
    assert_eq!(proofs(&link.peers[SERVER]), ["old"]);
    let by = &link.peers[SERVER].ike.isakmp[0].authentication;
    assert_eq!(by, &Authentication::PreSharedKey { index: 1, name: "old".to_owned() });
}

#[test]
fn a_key_for_other_networks_is_not_taken() {
    let far = PreSharedKey { addresses: vec!["198.51.100.0/24".parse().unwrap()], ..key("far", "a pre-shared key") };
    let link = dialled(keeper(&[far.clone(), key("all", "another key")]), 91);
    assert!(matches!(link.peers[CLIENT].failure(), Some((_, Error::AuthenticationFailed { .. }))));
    let near = PreSharedKey { addresses: vec!["192.0.2.0/24".parse().unwrap()], ..far.clone() };
    let link = dialled(keeper(&[far, near]), 92);
    assert_eq!(proofs(&link.peers[SERVER]), ["far"]);
    assert_eq!(link.peers[SERVER].ike.isakmp[0].authentication.to_string(), "far");
}

#[test]
fn a_key_is_good_for_its_identity_only() {
    let rome = Some(Identity::Fqdn("rome.example.com".into()));
    let oslo = Some(Identity::Fqdn("oslo.example.com".into()));
    let of_rome = PreSharedKey { remote_id: rome, ..key("rome", "a pre-shared key") };
    let of_oslo = PreSharedKey { remote_id: oslo.clone(), ..key("oslo", "a pre-shared key") };
    let dialled = |keys: &[PreSharedKey]| {
        let mut link = Link::new(Config { local_id: oslo.clone(), ..fast() }, keeper(keys), 93);
        link.connect();
        link.run(seconds(5));
        link
    };
    let link = dialled(std::slice::from_ref(&of_rome));
    assert!(!link.peers[SERVER].ike.is_established());
    let link = dialled(&[of_rome, of_oslo]);
    link.assert_established();
    assert_eq!(proofs(&link.peers[SERVER]), ["oslo"]);
}

#[test]
fn a_server_renews_with_the_key_that_the_peer_has() {
    let mut server = keeper(&[key("first", "another key"), key("second", "a pre-shared key")]);
    server.lifetime = seconds(600);
    let mut link = dialled(server, 94);
    link.run(seconds(600));
    assert_eq!(proofs(&link.peers[SERVER])[..2], ["second", "second"]);
    assert!(link.peers[SERVER].ike.isakmp.iter().any(|sa| sa.role == main_mode::Role::Initiator));
    assert_eq!(link.peers[SERVER].count(|event| matches!(event, Event::RekeyFailed(_))), 0);
}

#[test]
fn a_rotation_of_keys_loses_no_packet() {
    let mut client = fast();
    client.lifetime = seconds(600);
    let server = Config { lifetime: seconds(600), ..keeper(&[key("old", "a pre-shared key")]) };
    let mut link = Link::new(client, server, 95);
    link.traffic = Some(Duration::from_millis(500));
    link.connect();
    link.run(seconds(60));
    let keys =
        |keys: &[PreSharedKey]| Arc::new(Credentials { pre_shared_keys: keys.to_vec(), ..Credentials::default() });
    let (old, new) = (key("old", "a pre-shared key"), key("new", "another key"));
    link.peers[SERVER].ike.set_credentials(keys(&[new.clone(), old]));
    link.run(seconds(900));
    link.peers[CLIENT].ike.set_credentials(keys(std::slice::from_ref(&new)));
    link.run(seconds(900));
    link.peers[SERVER].ike.set_credentials(keys(&[new]));
    link.run(seconds(900));
    let proofs = proofs(&link.peers[SERVER]);
    assert!(proofs.iter().filter(|name| *name == "old").count() >= 2, "{proofs:?}");
    assert!(proofs.iter().filter(|name| *name == "new").count() >= 2, "{proofs:?}");
    assert_eq!(link.peers[CLIENT].count(|event| matches!(event, Event::RekeyFailed(_))), 0);
    link.assert_no_packet_lost();
}

#[test]
fn a_pinned_identity_has_to_be_proved() {
    let mut client = fast();
    client.remote_id = Some(Identity::Fqdn("vpn.example.com".into()));
    let mut link = Link::new(client.clone(), mirrored(&fast()), 15);
    link.connect();
    link.run(seconds(5));
    assert!(matches!(link.peers[CLIENT].failure(), Some((_, Error::InvalidId { .. }))));
    let mut server = mirrored(&fast());
    server.local_id = client.remote_id.clone();
    let mut link = Link::new(client, server, 16);
    link.connect();
    link.run(seconds(5));
    link.assert_established();
    assert_eq!(link.peers[CLIENT].ike.isakmp[0].peer_id, Identity::Fqdn("vpn.example.com".into()));
}

#[test]
fn initial_contact_is_said_once() {
    let mut config = fast();
    config.lifetime = seconds(600);
    let mut link = Link::connected(&config, 35);
    link.run(seconds(2000));
    assert!(link.peers[SERVER].count(is_isakmp) >= 3);
    let said = |event: &Event| matches!(event, Event::IsakmpEstablished { initial_contact: true, .. });
    assert_eq!(link.peers[SERVER].count(said), 1);
}

#[test]
fn every_kind_of_identity_is_proved_and_compared() {
    let pinned = |name: &str| Identity::Fqdn(name.to_owned());
    for (local, remote) in [
        (Identity::UserFqdn("a@example.com".into()), Identity::UserFqdn("a@example.com".into())),
        (Identity::KeyId(vec![0, 1, 0xff]), Identity::KeyId(vec![0, 1, 0xff])),
        (pinned("VPN.Example.com"), pinned("vpn.example.com")),
    ] {
        let server = Config { local_id: Some(local.clone()), ..mirrored(&fast()) };
        let mut link = Link::new(Config { remote_id: Some(remote), ..fast() }, server, 80);
        link.connect();
        link.run(seconds(2));
        link.assert_established();
        assert_eq!(link.peers[CLIENT].ike.isakmp[0].peer_id, local);
    }
}

#[test]
fn an_identity_that_cannot_be_read_is_not_taken_for_a_wrong_key() {
    let odd = Identity::Other { kind: registry::IdType::FQDN, data: vec![0xff; 600] };
    let mut link = Link::new(fast(), Config { local_id: Some(odd), ..mirrored(&fast()) }, 81);
    link.connect();
    link.run(seconds(2));
    link.assert_established();
}

#[test]
fn a_peer_that_is_somebody_else_is_told_that_its_isakmp_sa_is_gone() {
    let client = Config { remote_id: Some(Identity::Fqdn("vpn.example.com".into())), ..fast() };
    let mut link = Link::new(client, mirrored(&fast()), 82);
    link.connect();
    link.run(seconds(2));
    assert!(matches!(link.peers[CLIENT].failure(), Some((_, Error::InvalidId { .. }))));
    assert_eq!(link.peers[SERVER].count(is_isakmp), 1);
    assert_eq!(link.peers[SERVER].count(|event| *event == Event::PeerDeletedIsakmp), 1);
}

#[test]
fn initial_contact_is_not_said_when_others_have_the_same_identity() {
    let link = Link::connected(&Config { initial_contact: false, ..fast() }, 83);
    let said = |event: &Event| matches!(event, Event::IsakmpEstablished { initial_contact: true, .. });
    assert_eq!(link.peers[SERVER].count(said), 0);
}
