//! Main Mode with signatures (RFC 2409 section 5.1, RFC 4754, RFC 4945).

use rcgen::{CertificateParams, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, SignatureAlgorithm};

use super::*;
use crate::ike::certificate::Problem;
use crate::ike::certificate::pki::{Authority, Issued, params};

const P256: &SignatureAlgorithm = &PKCS_ECDSA_P256_SHA256;

const CLIENT_NAME: &str = "client.example.com";
const SERVER_NAME: &str = "server.example.com";

fn fqdn(name: &str) -> Identity {
    Identity::Fqdn(name.to_owned())
}

fn issue(authority: &Authority, algorithm: &'static SignatureAlgorithm, name: &str) -> Issued {
    authority.issue(algorithm, &params(name, &[name]))
}

fn with(certificate: Certificate) -> Arc<Credentials> {
    Arc::new(Credentials { certificate: Some(certificate), ..Credentials::default() })
}

/// A client and a server that expect each other's names.
fn pair(config: &Config, client: &Issued, server: &Issued, authority: &Authority) -> [Config; 2] {
    let client = client.trusting(&authority.pem(), None, &[fqdn(SERVER_NAME)]);
    let server = server.trusting(&authority.pem(), None, &[]);
    [Config { credentials: with(client), ..config.clone() }, Config { credentials: with(server), ..mirrored(config) }]
}

fn dialled([client, server]: [Config; 2], seed: u64) -> Link {
    let mut link = Link::new(client, server, seed);
    link.connect();
    link.run(seconds(5));
    link
}

fn proof(peer: &Peer) -> Option<&Authentication> {
    peer.events.iter().find_map(|(_, event)| match event {
        Event::IsakmpEstablished { authentication, .. } => Some(authentication),
        _ => None,
    })
}

#[test]
fn each_kind_of_key_establishes_with_each_hash_and_names_the_subjects() {
    let root = Authority::new("root");
    for algorithm in [&PKCS_RSA_SHA256, P256, &PKCS_ECDSA_P384_SHA384] {
        let (client, server) = (issue(&root, algorithm, CLIENT_NAME), issue(&root, algorithm, SERVER_NAME));
        for hash in ["sha1", "sha256", "sha512"] {
            let config = config(&format!("aes128-{hash}-ecp256"), "aes128-sha256");
            let link = dialled(pair(&config, &client, &server, &root), 100);
            link.assert_established();
            let certificate = |name| Some(Authentication::Certificate { subject: format!("CN={name}") });
            assert_eq!(proof(&link.peers[CLIENT]), certificate(SERVER_NAME).as_ref());
            assert_eq!(proof(&link.peers[SERVER]), certificate(CLIENT_NAME).as_ref());
        }
    }
}

#[test]
fn chains_over_intermediate_authorities_are_sent_and_fit_into_the_messages() {
    let root = Authority::new("root");
    let middle = root.below("middle", |_| ()).below("lower", |_| ());
    let (client, server) = (issue(&middle, P256, CLIENT_NAME), issue(&middle, P256, SERVER_NAME));
    dialled(pair(&fast(), &client, &server, &root), 101).assert_established();
}

#[test]
fn a_server_with_both_proofs_takes_the_one_that_the_client_offers() {
    let root = Authority::new("root");
    let [client, mut server] = pair(&fast(), &issue(&root, P256, CLIENT_NAME), &issue(&root, P256, SERVER_NAME), &root);
    let certificate = issue(&root, P256, SERVER_NAME).trusting(&root.pem(), None, &[]);
    let psk = PreSharedKey {
        name: "key".to_owned(),
        key: Zeroizing::new(b"a pre-shared key".to_vec()),
        addresses: Vec::new(),
        remote_id: None,
    };
    let both = Credentials { pre_shared_keys: vec![psk], certificate: Some(certificate), xauth: None };
    server.credentials = Arc::new(both);
    let link = dialled([client, server.clone()], 102);
    assert!(matches!(proof(&link.peers[SERVER]), Some(Authentication::Certificate { .. })));
    let link = dialled([fast(), server.clone()], 103);
    assert!(matches!(proof(&link.peers[SERVER]), Some(Authentication::PreSharedKey { .. })));
    // And renews with what the client has.
    server.lifetime = seconds(600);
    let mut link = dialled([fast(), server], 104);
    link.run(seconds(600));
    assert!(link.peers[SERVER].count(is_isakmp) >= 2);
    assert_eq!(link.peers[SERVER].count(|event| matches!(event, Event::RekeyFailed(_))), 0);
}

#[test]
fn a_client_with_a_certificate_is_not_served_with_a_key_alone() {
    let root = Authority::new("root");
    let [client, _] = pair(&fast(), &issue(&root, P256, CLIENT_NAME), &issue(&root, P256, SERVER_NAME), &root);
    let link = dialled([client, mirrored(&fast())], 105);
    assert!(matches!(link.peers[CLIENT].failure(), Some((_, Error::NoProposalChosen { phase: 1, .. }))));
}

/// The error that ended the client, and what the server noted.
fn refused(link: &Link) -> (Error, String) {
    assert!(!link.peers[SERVER].ike.is_established());
    let (when, error) = link.peers[CLIENT].failure().expect("the client failed");
    assert!(when < seconds(5), "{when:?}");
    let notices = link.peers[SERVER].events.iter().filter_map(|(_, event)| match event {
        Event::Notice(text) => Some(text.as_str()),
        _ => None,
    });
    (error.clone(), notices.collect::<Vec<_>>().join("; "))
}

#[test]
fn a_client_whose_certificate_cannot_be_believed_is_told_and_refused() {
    let root = Authority::new("root");
    let server = issue(&root, P256, SERVER_NAME);
    let expired = |params: &mut CertificateParams| params.not_after = rcgen::date_time_ymd(2029, 12, 1);
    let mut late = params(CLIENT_NAME, &[CLIENT_NAME]);
    expired(&mut late);
    let strange = issue(&Authority::new("other"), P256, CLIENT_NAME);
    for (client, notification, told) in [
        (strange, NotifyType::INVALID_CERT_AUTHORITY, "no authority that is trusted"),
        (root.issue(P256, &late), NotifyType::INVALID_CERTIFICATE, "has expired"),
    ] {
        let link = dialled(pair(&fast(), &client, &server, &root), 106);
        let (error, notice) = refused(&link);
        assert_eq!(error, Error::CertificateRefused { notification: Some(notification) });
        assert!(notice.contains(told) && notice.contains(CLIENT_NAME), "{notice}");
    }
}

#[test]
fn a_server_that_cannot_be_believed_is_refused_and_told_that_its_isakmp_sa_is_gone() {
    let root = Authority::new("root");
    let client = issue(&root, P256, CLIENT_NAME);
    let strange = issue(&Authority::new("other"), P256, SERVER_NAME);
    let link = dialled(pair(&fast(), &client, &strange, &root), 107);
    let subject = format!("CN={SERVER_NAME}");
    let untrusted = Error::InvalidCertificate { subject: subject.clone(), problem: Problem::Untrusted };
    assert_eq!(link.peers[CLIENT].failure().map(|(_, error)| error), Some(&untrusted));
    assert_eq!(link.peers[SERVER].count(|event| *event == Event::PeerDeletedIsakmp), 1);
    let other = root.issue(P256, &params(SERVER_NAME, &["other.example.com"]));
    let link = dialled(pair(&fast(), &client, &other, &root), 108);
    let unnamed = Error::NotInCertificate { subject, name: fqdn(SERVER_NAME) };
    assert_eq!(link.peers[CLIENT].failure().map(|(_, error)| error), Some(&unnamed));
}

#[test]
fn an_identity_that_is_not_in_the_certificate_is_refused() {
    let root = Authority::new("root");
    let (client, server) = (issue(&root, P256, CLIENT_NAME), issue(&root, P256, SERVER_NAME));
    let [client, server] = pair(&fast(), &client, &server, &root);
    let client = Config { local_id: Some(fqdn("admin.example.com")), ..client };
    let (error, notice) = refused(&dialled([client, server], 109));
    assert!(matches!(error, Error::IdentityRefused { notification: NotifyType::INVALID_ID_INFORMATION }), "{error}");
    assert!(notice.contains("admin.example.com"), "{notice}");
}

#[test]
fn a_revoked_client_is_refused_and_others_are_not() {
    let root = Authority::new("root");
    let server = issue(&root, P256, SERVER_NAME);
    for (serial, served) in [(7_u64, false), (8, true)] {
        let mut params = params(CLIENT_NAME, &[CLIENT_NAME]);
        params.serial_number = Some(serial.into());
        let [client, mut responder] = pair(&fast(), &root.issue(P256, &params), &server, &root);
        responder.credentials = with(server.trusting(&root.pem(), Some(&root.revoke(&[7], 2030)), &[]));
        assert_eq!(dialled([client, responder], 110).peers[SERVER].ike.is_established(), served);
    }
}

#[test]
fn a_peer_that_is_silent_about_a_certificate_is_not_said_to_have_another_key() {
    let root = Authority::new("root");
    let strange = issue(&Authority::new("other"), P256, CLIENT_NAME);
    let [client, server] = pair(&fast(), &strange, &issue(&root, P256, SERVER_NAME), &root);
    let mut link = Link::new(client, server, 111);
    link.filter = Box::new(|from, header, _| from == CLIENT || header.exchange != ExchangeType::INFORMATIONAL);
    link.connect();
    link.run(seconds(60));
    let failure = link.peers[CLIENT].failure().map(|(_, error)| error.clone());
    assert_eq!(failure, Some(Error::CertificateRefused { notification: None }));
}

#[test]
fn certificates_are_asked_for_in_messages_4_and_5_and_sent_to_those_who_ask() {
    let root = Authority::new("root");
    let (client, server) = (issue(&root, P256, CLIENT_NAME), issue(&root, P256, SERVER_NAME));
    let mut link = Link::new(pair(&fast(), &client, &server, &root)[0].clone(), mirrored(&fast()), 112);
    let [_, config] = pair(&fast(), &client, &server, &root);
    link.peers[SERVER] = Peer::new(config, 113);
    // Whoever drops the request of message 4 gets no certificate, and cannot believe the client.
    let asked = std::rc::Rc::new(std::cell::RefCell::new(0));
    let count = asked.clone();
    link.filter = Box::new(move |from, header, message| {
        if from == SERVER && !header.is_encrypted() && header.exchange == ExchangeType::IDENTITY_PROTECTION {
            let (header, body) = Header::read(message).unwrap();
            let payloads = message::Payloads::read_plain(header.next_payload, body).unwrap();
            *count.borrow_mut() += payloads.all(PayloadType::CR).count();
            let mut chain = message::Chain::new();
            payloads
                .iter()
                .filter(|payload| payload.kind != PayloadType::CR)
                .for_each(|kept| chain.push(kept.kind, kept.body));
            *message = Header { next_payload: PayloadType::NONE, ..header }.write_plain(&chain);
        }
        true
    });
    link.connect();
    link.run(seconds(5));
    assert_eq!(*asked.borrow(), 1);
    let (error, notice) = refused(&link);
    assert_eq!(error, Error::CertificateRefused { notification: Some(NotifyType::CERTIFICATE_UNAVAILABLE) });
    assert!(notice.contains("sent no certificate"), "{notice}");
}

#[test]
fn certificates_and_the_requests_for_them_add_no_message() {
    let root = Authority::new("root");
    let link = dialled(pair(&fast(), &issue(&root, P256, CLIENT_NAME), &issue(&root, P256, SERVER_NAME), &root), 116);
    link.assert_established();
    assert_eq!(link.sent.len(), 9);
}

#[test]
fn a_new_certificate_is_taken_on_at_the_next_renewal_without_a_lost_packet() {
    let root = Authority::new("root");
    let next = Authority::new("next root");
    let config = Config { lifetime: seconds(600), ..fast() };
    let [client, server] = pair(&config, &issue(&root, P256, CLIENT_NAME), &issue(&root, P256, SERVER_NAME), &root);
    let mut link = Link::new(client, server, 114);
    link.traffic = Some(Duration::from_millis(500));
    link.connect();
    link.run(seconds(60));
    let both = root.pem() + &next.pem();
    let renewed = |authority, name| with(issue(authority, P256, name).trusting(&both, None, &[]));
    link.peers[SERVER].ike.set_credentials(renewed(&next, SERVER_NAME));
    link.peers[CLIENT].ike.set_credentials(renewed(&next, CLIENT_NAME));
    link.run(seconds(1_200));
    assert!(link.peers[CLIENT].count(is_isakmp) >= 3);
    for peer in &link.peers {
        assert_eq!(peer.count(|event| matches!(event, Event::RekeyFailed(_) | Event::Failed(_))), 0);
    }
    link.assert_no_packet_lost();
}

#[test]
fn a_certificate_that_expires_ends_no_tunnel_but_its_renewal() {
    let root = Authority::new("root");
    let mut short = params(CLIENT_NAME, &[CLIENT_NAME]);
    short.not_after = rcgen::date_time_ymd(2030, 1, 1) + Duration::from_secs(300);
    let config = Config { lifetime: seconds(600), ..fast() };
    let mut link = dialled(pair(&config, &root.issue(P256, &short), &issue(&root, P256, SERVER_NAME), &root), 115);
    link.run(seconds(400));
    link.assert_established();
    link.run(seconds(500));
    let failed = |event: &Event| matches!(event, Event::RekeyFailed(Error::CertificateRefused { .. }));
    assert!(link.peers[CLIENT].count(failed) > 0, "{:?}", link.peers[CLIENT].events);
}

#[test]
fn loss_and_duplication_are_survived_with_certificates() {
    let root = Authority::new("root");
    let (client, server) = (issue(&root, P256, CLIENT_NAME), issue(&root, P256, SERVER_NAME));
    for seed in 0..10 {
        let [client, server] = pair(&fast(), &client, &server, &root);
        let mut link = Link::new(client, server, seed);
        (link.loss, link.duplication, link.delay) = (0.25, 0.3, [1, 1500]);
        link.connect();
        link.run(seconds(60));
        assert_eq!(link.peers[CLIENT].failure(), None, "seed {seed}");
        assert!(link.peers[SERVER].ike.is_established());
    }
}
