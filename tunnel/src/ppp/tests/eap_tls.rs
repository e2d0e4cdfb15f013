//! EAP-TLS at both ends, with certificates of authorities that exist for a test.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::server::{assignment, established_with};
use super::simulation::World;
use super::*;
use crate::aaa::{Cause, Grant, Proof, Refusal};

const EAP: Protocol = Protocol::EAP;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// Credentials of `name` from this authority, for an end that believes the certificates of `believed`.
    fn issue(&self, believed: &Self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Credentials {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        // Long enough for a few fragments.
        params.custom_extensions =
            vec![CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5; 3_000])];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Credentials {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            authorities: vec![believed.certificate.clone()],
            revocations: Vec::new(),
        }
    }

    fn revokes(&self, serial: u64) -> CertificateRevocationListDer<'static> {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2099, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().der().clone()
    }
}

fn dns(name: &str) -> impl FnOnce(&mut CertificateParams) {
    let name = SanType::DnsName(name.try_into().unwrap());
    move |params| params.subject_alt_names = vec![name]
}

fn client(credentials: Credentials) -> Client {
    let tls = Some(TlsClient::new(credentials, "gate.example").unwrap());
    Client { username: "anybody".to_owned(), auth: vec![PppAuth::Eap], tls, ..Client::default() }
}

fn server(credentials: Credentials) -> Server {
    let methods = vec![Method::Tls(TlsServer::new(credentials).unwrap()), Method::MsChapV2];
    Server { auth: vec![PppAuth::Eap], eap: Eap::Local(methods), ..Server::default() }
}

/// A client against a server; returns what became of both.
fn meet(client: Client, server: Server) -> World {
    let mut world = World::of(1, 0, client, server);
    world.run();
    world
}

fn why(events: &[Event]) -> String {
    events
        .iter()
        .find_map(|event| match event {
            Event::Failed(error) => Some(error.to_string()),
            _ => None,
        })
        .unwrap_or_else(|| format!("{events:?}"))
}

#[test]
fn a_client_with_a_certificate_comes_in_although_frames_are_lost_and_repeated() {
    let authority = Authority::new("ours");
    for seed in 0..20 {
        let server = server(authority.issue(&authority, "gate", dns("gate.example")));
        let client = client(authority.issue(&authority, "alice", |_| {}));
        let mut world = World::of(seed, 10, client, server);
        world.run();
        assert!(world.client.carries_packets() && world.server.carries_packets(), "seed {seed}\n{}", world.story());
        let asked = world.server_events.iter().find_map(|event| match event {
            Event::Authenticate(request) => Some((request.name.clone(), request.proof.clone())),
            _ => None,
        });
        assert_eq!(asked, Some(("alice".to_owned(), Proof::Certificate)));
    }
}

#[test]
fn a_client_whose_certificate_is_worth_nothing_stays_outside() {
    let (ours, foreign) = (Authority::new("ours"), Authority::new("foreign"));
    let cases: [(&str, Credentials); 3] = [
        ("unknownissuer", foreign.issue(&ours, "alice", |_| {})),
        ("expired", ours.issue(&ours, "alice", |params| params.not_after = date_time_ymd(2020, 1, 1))),
        ("revoked", ours.issue(&ours, "alice", |params| params.serial_number = Some(SerialNumber::from(7)))),
    ];
    for (problem, credentials) in cases {
        let mut gate = ours.issue(&ours, "gate", dns("gate.example"));
        gate.revocations = vec![ours.revokes(7)];
        let world = meet(client(credentials), server(gate));
        let said = why(&world.server_events).to_lowercase();
        assert!(said.contains("did not prove who it is") && said.contains(problem), "{problem}: {said}");
        assert!(!world.server_events.iter().any(|event| matches!(event, Event::Authenticate(_))), "{problem}");
        assert!(!world.client.carries_packets());
        let said = why(&world.client_events);
        assert!(said.contains("refused"), "{problem}: {said}");
    }
}

#[test]
fn a_server_whose_certificate_is_worth_nothing_gets_no_client() {
    let (ours, foreign) = (Authority::new("ours"), Authority::new("foreign"));
    let cases = [
        foreign.issue(&ours, "gate", dns("gate.example")),
        ours.issue(&ours, "gate", dns("other.example")),
        ours.issue(&ours, "gate", |params| {
            dns("gate.example")(params);
            params.not_after = date_time_ymd(2020, 1, 1);
        }),
    ];
    for credentials in cases {
        let world = meet(client(ours.issue(&ours, "alice", |_| {})), server(credentials));
        assert_eq!(why(&world.client_events), Error::AuthenticatorNotVerified.to_string());
        assert!(why(&world.server_events).contains("it says"), "it hears the alert: {}", world.story());
        assert!(!world.server.carries_packets());
    }
}

#[test]
fn a_user_that_the_owner_refuses_hears_it_although_the_certificate_is_right() {
    let ours = Authority::new("ours");
    let world =
        meet(client(ours.issue(&ours, "mallory", |_| {})), server(ours.issue(&ours, "gate", dns("gate.example"))));
    let refused = Error::Refused { method: PppAuth::Eap, cause: Cause::UnknownUser };
    assert!(world.server_events.contains(&Event::Failed(refused)), "{}", world.story());
    assert!(why(&world.client_events).contains("refused"), "{}", world.story());
}

#[test]
fn the_name_is_an_alternative_name_and_the_one_that_the_client_says_if_it_has_it() {
    let ours = Authority::new("ours");
    let email = |name: &str| SanType::Rfc822Name(name.try_into().unwrap());
    let names = || vec![email("alice"), email("bob@corp.example")];
    for (identity, expected) in [("anybody", "alice"), ("bob@corp.example", "bob@corp.example")] {
        let credentials = ours.issue(&ours, "carol", |params| params.subject_alt_names = names());
        let client = Client { username: identity.to_owned(), ..client(credentials) };
        let world = meet(client, server(ours.issue(&ours, "gate", dns("gate.example"))));
        let asked = |event: &Event| matches!(event, Event::Authenticate(request) if request.name == expected);
        assert!(world.server_events.iter().any(asked), "{expected}: {}", world.story());
    }
}

#[test]
fn a_client_without_a_certificate_gets_the_other_method() {
    let ours = Authority::new("ours");
    let (username, password) = ("alice".to_owned(), Zeroizing::new("secret".to_owned()));
    let client = Client { username, password, auth: vec![PppAuth::Eap], ..Client::default() };
    let world = meet(client, server(ours.issue(&ours, "gate", dns("gate.example"))));
    assert!(world.client.carries_packets() && world.server.carries_packets(), "{}", world.story());
}

/// A server that has sent its start.
fn started() -> (Link, u8) {
    let ours = Authority::new("ours");
    let mut link = established_with(server(ours.issue(&ours, "gate", dns("gate.example"))));
    let id = link.heard().2;
    link.say(EAP, 2, id, b"\x01alice");
    let (_, code, next, data) = link.heard();
    assert_eq!((code, next, data), (1, id.wrapping_add(1), vec![13, 0x20]));
    (link, next)
}

/// Code and Type of the answer to a Nak with this data.
fn answer_to_nak(wanted: &[u8]) -> (u8, Option<u8>) {
    let (mut link, id) = started();
    link.say(EAP, 2, id, &[&[3][..], wanted].concat());
    let (_, code, _, data) = link.heard();
    (code, data.first().copied())
}

#[test]
fn a_client_hears_of_no_method_that_it_does_not_name() {
    for (wanted, answer) in [(&[0][..], (4, None)), (&[26, 0], (4, None)), (&[4, 26], (1, Some(26)))] {
        assert_eq!(answer_to_nak(wanted), answer, "{wanted:?}");
    }
}

#[test]
fn a_client_that_names_none_of_our_methods_gets_the_next_one() {
    // EAP SRP-SHA1, with which pppd answers whatever it has no secret for.
    assert_eq!(answer_to_nak(&[19]), (1, Some(26)));
}

#[test]
fn fragments_are_acknowledged_and_a_message_has_a_bound() {
    let (mut link, mut id) = started();
    for _ in 0..65 {
        link.say(EAP, 2, id, &[&[13, 0x40][..], &[22; 1_000]].concat());
        let (_, code, next, data) = link.heard();
        assert_eq!((code, next, data), (1, id.wrapping_add(1), vec![13, 0]));
        id = next;
    }
    link.say(EAP, 2, id, &[&[13, 0x40][..], &[22; 1_000]].concat());
    assert_eq!(link.heard().1, 4, "66 000 octets");
    let (mut link, id) = started();
    link.say(EAP, 2, id, &[13, 0xc0, 0, 1, 0, 1, 22]);
    assert_eq!(link.heard().1, 4, "65 537 octets are announced");
    link.wait(4 * SECOND);
    assert!(matches!(link.event(), Some(Event::Failed(Error::NotProved { .. }))));
}

#[test]
fn the_next_fragment_goes_out_when_the_one_before_it_is_acknowledged() {
    let ours = Authority::new("ours");
    let role = Role::Client(client(ours.issue(&ours, "alice", |_| {})));
    let mut alice = Link::of(Config { role, ..Config::default() });
    alice.establish(&[3, 4, 0xc2, 0x27]);
    alice.say(EAP, 1, 3, &[13, 0x20]);
    let hello = alice.heard().3;
    let (mut link, id) = started();
    link.say(EAP, 2, id, &hello);
    let (_, _, id, data) = link.heard();
    assert_eq!((&data[..2], data.len()), (&[13, 0xc0][..], 6 + 1_010), "the first of several, with the length of all");
    link.say(EAP, 2, id, &[13, 0, 22]);
    link.silence();
    link.say(EAP, 2, id, &[13, 0]);
    let (_, _, next, data) = link.heard();
    assert_eq!((next, &data[..2]), (id.wrapping_add(1), &[13, 0x40][..]));
}

#[test]
fn nonsense_in_place_of_a_handshake_is_the_end_of_it() {
    let (mut link, id) = started();
    link.say(EAP, 2, id, &[13]);
    link.say(EAP, 2, id, &[13, 0x80, 0, 0]);
    link.silence();
    link.say(EAP, 2, id, b"\x0d\x00GET / HTTP/1.1\r\n\r\n");
    let (_, code, id, data) = link.heard();
    assert_eq!((code, &data[..3]), (1, &[13, 0, 21][..]), "an alert");
    // No other method now that one has begun.
    link.say(EAP, 2, id, &[3, 26]);
    assert_eq!(link.heard().1, 4);
}

#[test]
fn a_client_waits_for_each_fragment_and_for_the_success() {
    let ours = Authority::new("ours");
    let mut link =
        Link::of(Config { role: Role::Client(client(ours.issue(&ours, "alice", |_| {}))), ..Config::default() });
    link.establish(&[3, 4, 0xc2, 0x27]);
    // A Success or IPCP before anything is proved is worth nothing.
    link.say(EAP, 1, 1, b"\x01");
    link.heard();
    link.say(EAP, 3, 1, &[]);
    link.say(Protocol::IPCP, 1, 1, &[3, 6, 10, 0, 0, 1]);
    assert_eq!(link.event(), None);
    link.silence();
    // Not the start of a conversation.
    link.say(EAP, 1, 2, &[13, 0]);
    link.silence();
    link.say(EAP, 1, 3, &[13, 0x20]);
    let (_, code, _, data) = link.heard();
    assert_eq!((code, &data[..3]), (2, &[13, 0, 22][..]), "the hello");
    link.say(EAP, 1, 4, &[13, 0xc0, 0, 0, 8, 0, 22, 3, 3]);
    assert_eq!(link.heard().3, [13, 0], "a fragment is acknowledged");
    link.say(EAP, 1, 5, &[3, 26]);
    link.silence();
}

#[test]
fn a_refusal_or_a_grant_of_the_owner_ends_the_conversation_once() {
    let ours = Authority::new("ours");
    let mut world = World::of(
        1,
        0,
        client(ours.issue(&ours, "mallory", |_| {})),
        server(ours.issue(&ours, "gate", dns("gate.example"))),
    );
    world.run();
    // The link is over: neither verdict does anything any more.
    world.server.accept(Instant::now(), &Grant::default(), assignment());
    world.server.reject(Instant::now(), &Refusal::new(Cause::Suspended));
    assert!(!world.server.carries_packets());
}

#[test]
fn a_method_without_usable_certificates_is_said_to_be_unusable() {
    let ours = Authority::new("ours");
    let mut credentials = ours.issue(&ours, "gate", dns("gate.example"));
    credentials.authorities.clear();
    assert!(TlsServer::new(credentials).is_err(), "nobody could come in");
    let mut credentials = ours.issue(&ours, "gate", dns("gate.example"));
    credentials.chain = ours.issue(&ours, "other", dns("gate.example")).chain;
    assert!(TlsServer::new(credentials).is_err(), "the key is another one's");
    assert!(TlsClient::new(ours.issue(&ours, "alice", |_| {}), "not a name").is_err());
}
