//! Who the peers are: the pre-shared key, identities, INITIAL-CONTACT.

use super::*;

#[test]
fn a_wrong_key_is_reported_soon_when_the_peer_complains_and_late_when_it_is_silent() {
    for (complains, at) in [(true, 2..4), (false, 30..33)] {
        let mut server = mirrored(&fast());
        server.pre_shared_key = Zeroizing::new(b"another key".to_vec());
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
    let said = |event: &Event| matches!(event, Event::Notice(text) if text.contains("first contact"));
    assert_eq!(link.peers[SERVER].count(said), 0);
}
