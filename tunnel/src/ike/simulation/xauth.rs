//! XAUTH and the configuration method: a gateway that is played message by message.

use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SignatureAlgorithm};

use super::*;
use crate::ike::attribute::{self, Attribute};
use crate::ike::certificate::pki::{Authority, params};
use crate::ike::main_mode::Choice;
use crate::ike::message::{Cookies, Payloads};
use crate::ike::nat::NatPayloads;
use crate::ike::registry::{AuthenticationMethod, ConfigurationType, XauthAttribute};
use crate::ike::transaction::Configuration;
use crate::ike::vendor::Abilities;

const NAME: XauthAttribute = XauthAttribute::USER_NAME;
const PASSWORD: XauthAttribute = XauthAttribute::USER_PASSWORD;
const STATUS: XauthAttribute = XauthAttribute::STATUS;

/// The method in a transform, as it is written.
fn method(number: AuthenticationMethod) -> [u8; 4] {
    let [high, low] = number.0.to_be_bytes();
    [0x80, 3, high, low]
}

/// Puts one method in place of another in an SA payload, or in a message without encryption.
fn replaced(octets: &[u8], from: AuthenticationMethod, to: AuthenticationMethod) -> Vec<u8> {
    let mut octets = octets.to_vec();
    let (from, to) = (method(from), method(to));
    for at in 0..octets.len().saturating_sub(3) {
        if octets[at..at + 4] == from {
            octets[at..at + 4].copy_from_slice(&to);
        }
    }
    octets
}

/// A client whose user is joe.
fn joe(config: &Config) -> Config {
    let pre_shared_keys = config.credentials.pre_shared_keys.clone();
    Config { credentials: with_joe(Credentials { pre_shared_keys, ..Credentials::default() }), ..config.clone() }
}

fn with_joe(credentials: Credentials) -> Arc<Credentials> {
    let [name, password] = ["joe", "foobar"].map(|text| Zeroizing::new(text.to_owned()));
    Arc::new(Credentials { xauth: Some(XauthUser { name, password }), ..credentials })
}

/// The client's message 1 has just been sent: the gateway answers it with the method `chosen` of those that it offers.
fn accept(link: &mut Link, chosen: AuthenticationMethod) {
    let message = link.sent.last().unwrap().2.clone();
    link.under_way.clear();
    let (header, body) = Header::read(&message).unwrap();
    let payloads = Payloads::read_plain(header.next_payload, body).unwrap();
    let sa = payloads.first(PayloadType::SA).unwrap();
    let base = match chosen {
        AuthenticationMethod::XAUTH_INIT_RSA => AuthenticationMethod::RSA_SIGNATURES,
        _ => AuthenticationMethod::PRE_SHARED_KEY,
    };
    let plain = replaced(sa, AuthenticationMethod::XAUTH_INIT_PRE_SHARED, base);
    let plain = replaced(&plain, AuthenticationMethod::XAUTH_INIT_RSA, base);
    let (now, server) = (link.now, &mut link.peers[SERVER].ike);
    let choice = Choice::of(&server.config, &plain).unwrap();
    let abilities = Abilities::of(&payloads, server.config.nat_traversal, NatPayloads::Any).unwrap();
    let cookies = Cookies { responder: link.rng.random(), ..header.cookies };
    let answer = choice.message_2(cookies, abilities, 1000);
    let port = if link.sent.len() == 1 { Port::Ike } else { Port::NatT };
    server.admit(now, port, cookies, sa, &choice, abilities);
    server.transmit(port, replaced(&answer, base, chosen));
    link.drain();
}

/// Both ends after phase 1, and nobody has asked yet.
fn before(config: &Config, seed: u64) -> Link {
    let mut link = Link::new(joe(config), mirrored(config), seed);
    link.connect();
    accept(&mut link, AuthenticationMethod::XAUTH_INIT_PRE_SHARED);
    link.run(seconds(1));
    assert!(link.peers[SERVER].ike.is_established() && !link.peers[CLIENT].ike.is_established());
    link
}

fn attributes(list: &[(XauthAttribute, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (class, value) in list {
        match <[u8; 2]>::try_from(*value) {
            Ok(basic) if [XauthAttribute::TYPE, STATUS].contains(class) => {
                attribute::write_basic(&mut out, class.0, u16::from_be_bytes(basic));
            }
            _ => attribute::write_variable(&mut out, class.0, value),
        }
    }
    out
}

/// A message of the gateway under its newest ISAKMP SA.
fn message(link: &Link, message_id: u32, iv: Option<&[u8]>, kind: ConfigurationType, attributes: &[u8]) -> Vec<u8> {
    let sa = link.peers[SERVER].ike.isakmp.last().unwrap();
    let body = Configuration::body(kind, 0x1234, attributes);
    let content = vec![(PayloadType::ATTRIBUTES, body.to_vec())];
    written(sa, ExchangeType::TRANSACTION, message_id, iv, &[], &content)
}

/// Hands a message to the client; returns its answers in the Transaction exchange.
fn hand(link: &mut Link, message: &[u8]) -> Vec<Vec<u8>> {
    let (before, now) = (link.sent.len(), link.now);
    link.peers[CLIENT].ike.handle_message(now, Port::NatT, message);
    link.drain();
    let answers = link.sent[before..].iter().filter(|(from, ..)| *from == CLIENT).map(|(.., answer)| answer.clone());
    answers.filter(|answer| Header::read(answer).unwrap().0.exchange == ExchangeType::TRANSACTION).collect()
}

/// The attributes of the only answer, which is of that type and has the identifier of the question.
fn read(link: &Link, question: &[u8], answers: &[Vec<u8>], kind: ConfigurationType) -> Vec<(u16, Vec<u8>)> {
    let [answer] = answers else { panic!("{} answers", answers.len()) };
    let sa = link.peers[SERVER].ike.isakmp.last().unwrap();
    let content = opened(sa, answer, Some(last_block(question)));
    // HASH = prf(SKEYID_a, M-ID | ATTR).
    let (header, _) = Header::read(answer).unwrap();
    let mut chain = message::Chain::new();
    chain.push(PayloadType::ATTRIBUTES, &content[1].1);
    let expected = sa.keys.hash(&[&header.message_id.to_be_bytes(), chain.octets()]);
    assert_eq!(content[0], (PayloadType::HASH, expected.to_vec()));
    let configuration = Configuration::read(&content[1].1).unwrap();
    assert_eq!((configuration.kind, configuration.identifier, content.len()), (kind, 0x1234, 2));
    configuration.attributes.iter().map(|Attribute { class, value }| (*class, value.to_vec())).collect()
}

/// Sends a REQUEST and returns the attributes of the REPLY.
fn ask(link: &mut Link, message_id: u32, request: &[(XauthAttribute, &[u8])]) -> Vec<(u16, Vec<u8>)> {
    let question = message(link, message_id, None, ConfigurationType::REQUEST, &attributes(request));
    let answers = hand(link, &question);
    read(link, &question, &answers, ConfigurationType::REPLY)
}

/// Sends a SET and checks that the ACK is empty.
fn set(link: &mut Link, message_id: u32, set: &[(XauthAttribute, &[u8])]) {
    let question = message(link, message_id, None, ConfigurationType::SET, &attributes(set));
    let answers = hand(link, &question);
    assert_eq!(read(link, &question, &answers, ConfigurationType::ACK), []);
}

const QUESTION: [(XauthAttribute, &[u8]); 2] = [(NAME, b""), (PASSWORD, b"")];
const OK: [(XauthAttribute, &[u8]); 1] = [(STATUS, &[0, 1])];

fn proof() -> Vec<(u16, Vec<u8>)> {
    vec![(NAME.0, b"joe".to_vec()), (PASSWORD.0, b"foobar".to_vec())]
}

fn sent_by_client(link: &Link, exchange: ExchangeType) -> usize {
    let sent = link.sent.iter().filter(|(from, ..)| *from == CLIENT);
    sent.filter(|(.., message)| Header::read(message).unwrap().0.exchange == exchange).count()
}

/// What the client failed with, and that nothing is left of it.
fn end(link: &Link) -> Error {
    let ike = &link.peers[CLIENT].ike;
    assert!(ike.is_idle() && ike.poll_timeout().is_none() && ike.transactions.is_empty());
    link.peers[CLIENT].failure().expect("it failed").1.clone()
}

#[test]
fn message_1_offers_xauth_alone_and_names_it_only_with_a_user() {
    for (config, with) in [(joe(&fast()), true), (fast(), false)] {
        let mut link = Link::pair(&config, 400);
        link.connect();
        let message = &link.sent[0].2;
        let has = |number| message.windows(4).any(|window| window == method(number));
        assert_eq!(has(AuthenticationMethod::XAUTH_INIT_PRE_SHARED), with);
        assert_eq!(has(AuthenticationMethod::PRE_SHARED_KEY), !with);
        let vendor_id = hex_literal::hex!("0000000c 09002689dfd6b712");
        assert_eq!(message.windows(12).any(|window| window[1..] == vendor_id[1..]), with);
    }
}

#[test]
fn the_user_is_told_and_quick_mode_waits_for_the_word_of_the_gateway() {
    let mut link = before(&fast(), 401);
    assert_eq!(ask(&mut link, 77, &QUESTION), proof());
    link.run(seconds(20));
    assert_eq!((sent_by_client(&link, ExchangeType::QUICK_MODE), link.peers[CLIENT].count(is_isakmp)), (0, 0));
    set(&mut link, 78, &OK);
    link.run(seconds(2));
    link.assert_established();
    assert_eq!(link.peers[CLIENT].count(is_isakmp), 1);
    let log = format!("{:?}", link.peers[CLIENT].events);
    assert!(!log.contains("foobar") && !log.contains("joe"), "{log}");
}

#[test]
fn it_follows_signatures_by_rsa_and_there_is_none_after_ecdsa() {
    let root = Authority::new("root");
    let client = |algorithm: &'static SignatureAlgorithm| {
        let issued = root.issue(algorithm, &params("client.example.com", &["client.example.com"]));
        let certificate = Some(issued.trusting(&root.pem(), None, &[]));
        Config { credentials: with_joe(Credentials { certificate, ..Credentials::default() }), ..fast() }
    };
    let issued = root.issue(&PKCS_RSA_SHA256, &params("server.example.com", &["server.example.com"]));
    let certificate = Some(issued.trusting(&root.pem(), None, &[]));
    let credentials = Arc::new(Credentials { certificate, ..Credentials::default() });
    let mut link = Link::new(client(&PKCS_RSA_SHA256), Config { credentials, ..mirrored(&fast()) }, 428);
    link.connect();
    accept(&mut link, AuthenticationMethod::XAUTH_INIT_RSA);
    link.run(seconds(1));
    assert!(link.peers[SERVER].ike.is_established() && !link.peers[CLIENT].ike.is_established());
    assert_eq!(ask(&mut link, 77, &QUESTION), proof());
    set(&mut link, 78, &OK);
    link.run(seconds(2));
    link.assert_established();

    let mut link = Link::pair(&client(&PKCS_ECDSA_P256_SHA256), 429);
    link.connect();
    assert!(matches!(end(&link), Error::Config(problem) if problem.contains("RSA")));
    assert!(link.sent.is_empty());
}

#[test]
fn a_gateway_that_knows_the_user_already_need_not_ask() {
    let mut link = before(&fast(), 402);
    set(&mut link, 78, &OK);
    link.run(seconds(2));
    link.assert_established();
}

#[test]
fn name_and_password_may_be_asked_for_apart_and_under_one_message_id() {
    let mut link = before(&fast(), 403);
    assert_eq!(ask(&mut link, 77, &[(NAME, b"")]), proof()[..1]);
    let question = message(&link, 78, None, ConfigurationType::REQUEST, &attributes(&[(PASSWORD, b"")]));
    let answers = hand(&mut link, &question);
    assert_eq!(read(&link, &question, &answers, ConfigurationType::REPLY), proof()[1..]);
    // The same Message ID goes on with the last block of the answer as its IV.
    let verdict = message(&link, 78, Some(last_block(&answers[0])), ConfigurationType::SET, &attributes(&OK));
    let acknowledged = hand(&mut link, &verdict);
    assert_eq!(read(&link, &verdict, &acknowledged, ConfigurationType::ACK), []);
    link.run(seconds(2));
    link.assert_established();
}

#[test]
fn a_refused_user_is_told_with_the_words_of_the_gateway_and_everything_is_deleted() {
    let mut link = before(&fast(), 404);
    ask(&mut link, 77, &QUESTION);
    set(&mut link, 78, &[(STATUS, &[0, 0]), (XauthAttribute::MESSAGE, b"account locked\x07")]);
    assert_eq!(end(&link), Error::XauthRefused { message: "account locked?".to_owned() });
    link.run(seconds(1));
    assert!(!link.peers[SERVER].ike.is_established(), "the gateway has heard of it");
    assert_eq!(sent_by_client(&link, ExchangeType::QUICK_MODE), 0);
}

#[test]
fn a_gateway_that_asks_again_has_not_liked_the_answer_and_gets_no_other() {
    let mut link = before(&fast(), 405);
    ask(&mut link, 77, &QUESTION);
    let again = [(NAME, &b""[..]), (PASSWORD, b""), (XauthAttribute::MESSAGE, b"Authentication failed")];
    assert_eq!(ask(&mut link, 78, &again), [(STATUS.0, vec![0, 0])]);
    assert_eq!(end(&link), Error::XauthRefused { message: "Authentication failed".to_owned() });
}

#[test]
fn what_no_secret_holds_is_refused_in_the_exchange_and_named() {
    let mut link = before(&fast(), 406);
    let chap = [(XauthAttribute::TYPE, &[0, 1][..]), (XauthAttribute::CHALLENGE, b"12345678"), (PASSWORD, b"")];
    assert_eq!(ask(&mut link, 77, &chap), [(XauthAttribute::TYPE.0, vec![0, 1]), (STATUS.0, vec![0, 0])]);
    assert!(end(&link).to_string().contains("RADIUS-CHAP"));
}

#[test]
fn a_gateway_that_asks_where_no_user_is_configured_is_refused_and_told() {
    let mut link = Link::pair(&fast(), 407);
    link.connect();
    link.run(Duration::from_millis(150));
    assert!(link.peers[CLIENT].ike.is_established());
    assert_eq!(ask(&mut link, 77, &QUESTION), [(STATUS.0, vec![0, 0])]);
    assert_eq!(end(&link), Error::XauthUnconfigured);
}

#[test]
fn a_gateway_that_leaves_xauth_out_is_not_believed() {
    let mut link = Link::new(joe(&fast()), mirrored(&fast()), 408);
    link.connect();
    accept(&mut link, AuthenticationMethod::PRE_SHARED_KEY);
    link.run(seconds(5));
    assert!(matches!(end(&link), Error::NotOffered { phase: 1, .. }));
    // One that knows nothing of it says so.
    let mut link = Link::new(joe(&fast()), mirrored(&fast()), 409);
    link.connect();
    link.run(seconds(5));
    assert!(matches!(end(&link), Error::NoProposalChosen { phase: 1, .. }));
}

#[test]
fn a_gateway_that_never_asks_or_never_judges_is_given_a_minute() {
    let mut link = before(&fast(), 410);
    link.run(seconds(58));
    assert_eq!(link.peers[CLIENT].failure(), None);
    link.run(seconds(3));
    assert_eq!(end(&link), Error::XauthTimeout { asked: false });
    let mut link = before(&fast(), 411);
    ask(&mut link, 77, &QUESTION);
    link.run(seconds(61));
    assert_eq!(end(&link), Error::XauthTimeout { asked: true });
}

#[test]
fn a_gateway_that_hangs_up_has_refused_the_user_only_if_it_knew_the_password() {
    for (told, expected) in [(false, Error::PeerDeleted), (true, Error::XauthRefused { message: String::new() })] {
        let mut link = before(&fast(), 412);
        if told {
            ask(&mut link, 77, &QUESTION);
        }
        let now = link.now;
        link.peers[SERVER].ike.close(now);
        link.drain();
        link.run(seconds(1));
        assert_eq!(end(&link), expected);
    }
}

#[test]
fn an_authentication_failure_in_place_of_a_verdict_is_one() {
    let mut link = before(&fast(), 413);
    ask(&mut link, 77, &QUESTION);
    let isakmp = link.peers[SERVER].ike.isakmp[0].id;
    let kind = NotifyType::AUTHENTICATION_FAILED;
    let body = payload::Notification { protocol: ProtocolId::ISAKMP, spi: &[], kind, data: &[] }.body();
    link.peers[SERVER].ike.inform(isakmp, None, PayloadType::N, &body, 1);
    link.drain();
    link.run(seconds(1));
    assert_eq!(end(&link), Error::XauthRefused { message: String::new() });
}

#[test]
fn duplicates_are_answered_with_the_same_octets_and_not_for_ever() {
    let mut link = before(&fast(), 414);
    let question = message(&link, 77, None, ConfigurationType::REQUEST, &attributes(&QUESTION));
    let first = hand(&mut link, &question);
    let repeated: Vec<_> = (0..100).flat_map(|_| hand(&mut link, &question)).collect();
    assert_eq!(repeated.len(), 10);
    assert!(repeated.iter().all(|answer| *answer == first[0]));
    let verdict = message(&link, 78, None, ConfigurationType::SET, &attributes(&OK));
    let acknowledged = hand(&mut link, &verdict);
    assert_eq!(hand(&mut link, &verdict), acknowledged);
    // It is no second verdict, and the password is not told anew.
    link.run(seconds(2));
    link.assert_established();
    assert_eq!(link.peers[CLIENT].count(is_isakmp), 1);
}

#[test]
fn spoiled_and_unprotected_messages_change_nothing() {
    let mut link = before(&fast(), 415);
    let mut rng = StdRng::seed_from_u64(416);
    let question = message(&link, 77, None, ConfigurationType::REQUEST, &attributes(&QUESTION));
    let verdict = message(&link, 78, None, ConfigurationType::SET, &attributes(&OK));
    for round in 0..4000 {
        let mut spoiled = if round % 2 == 0 { question.clone() } else { verdict.clone() };
        if round % 7 == 0 {
            spoiled.truncate(rng.random_range(0..spoiled.len()));
        } else {
            let at = rng.random_range(20..spoiled.len());
            spoiled[at] ^= rng.random_range(1..=255_u8);
        }
        assert_eq!(hand(&mut link, &spoiled), Vec::<Vec<u8>>::new(), "{round}");
    }
    let mut chain = message::Chain::new();
    chain.push(PayloadType::ATTRIBUTES, &Configuration::body(ConfigurationType::SET, 1, &attributes(&OK)));
    let cookies = link.peers[SERVER].ike.isakmp[0].cookies;
    let plain = Header::new(cookies, ExchangeType::TRANSACTION, 79).write_plain(&chain);
    assert_eq!(hand(&mut link, &plain), Vec::<Vec<u8>>::new());
    assert!(!link.peers[CLIENT].ike.is_established());
    assert_eq!(ask(&mut link, 80, &QUESTION), proof());
    set(&mut link, 81, &OK);
    link.run(seconds(2));
    link.assert_established();
}

#[test]
fn a_reply_and_an_unknown_type_of_the_gateway_are_not_answered() {
    let mut link = before(&fast(), 417);
    for (message_id, kind) in [(70, 0), (71, 2), (72, 4), (73, 5), (74, 128)] {
        let odd = message(&link, message_id, None, ConfigurationType(kind), &attributes(&OK));
        assert_eq!(hand(&mut link, &odd), Vec::<Vec<u8>>::new(), "{kind}");
    }
    assert!(!link.peers[CLIENT].ike.is_established() && link.peers[CLIENT].failure().is_none());
}

#[test]
fn addresses_by_the_configuration_method_are_neither_given_nor_taken() {
    // INTERNAL_IP4_ADDRESS and APPLICATION_VERSION asked for, and an address set.
    let (asked, given) = (hex_literal::hex!("00010000 00070000"), hex_literal::hex!("00010004 0a000001"));
    let mut link = before(&fast(), 418);
    for begin in [70, 90] {
        let request = message(&link, begin, None, ConfigurationType::REQUEST, &asked);
        let answers = hand(&mut link, &request);
        assert_eq!(read(&link, &request, &answers, ConfigurationType::REPLY), []);
        let push = message(&link, begin + 1, None, ConfigurationType::SET, &given);
        let answers = hand(&mut link, &push);
        assert_eq!(read(&link, &push, &answers, ConfigurationType::ACK), []);
        if begin == 70 {
            assert!(!link.peers[CLIENT].ike.is_established());
            ask(&mut link, 80, &QUESTION);
            set(&mut link, 81, &OK);
            link.run(seconds(2));
        }
        link.assert_established();
    }
}

#[test]
fn a_flood_of_transactions_is_remembered_in_part_only() {
    let mut link = before(&fast(), 419);
    let request = hex_literal::hex!("00010000");
    for message_id in 100..200 {
        let question = message(&link, message_id, None, ConfigurationType::REQUEST, &request);
        assert_eq!(hand(&mut link, &question).len(), 1);
    }
    assert_eq!(link.peers[CLIENT].ike.transactions.len(), 16);
    // What is forgotten is a replay.
    let question = message(&link, 100, None, ConfigurationType::REQUEST, &request);
    assert_eq!(hand(&mut link, &question), Vec::<Vec<u8>>::new());
}

#[test]
fn a_quick_mode_of_the_gateway_before_its_verdict_is_ignored() {
    let mut link = before(&fast(), 420);
    let now = link.now;
    link.peers[SERVER].ike.begin_quick_mode(now, None);
    link.drain();
    link.run(seconds(5));
    assert!(link.peers[CLIENT].inbound.is_empty());
    assert_eq!(sent_by_client(&link, ExchangeType::QUICK_MODE), 0);
}

#[test]
fn a_renewal_of_phase_1_is_asked_anew_and_the_old_one_serves_until_the_verdict() {
    let mut link = before(&fast(), 421);
    ask(&mut link, 77, &QUESTION);
    set(&mut link, 78, &OK);
    link.run(seconds(2));
    let now = link.now;
    link.peers[CLIENT].ike.begin_main_mode(now);
    link.drain();
    accept(&mut link, AuthenticationMethod::XAUTH_INIT_PRE_SHARED);
    link.run(seconds(1));
    let ike = &link.peers[CLIENT].ike;
    assert_eq!((ike.isakmp.len(), ike.current().unwrap().id), (2, ike.isakmp[0].id));
    // Neither a second Main Mode nor a failure meanwhile.
    link.peers[CLIENT].ike.begin_main_mode(now);
    assert!(link.peers[CLIENT].ike.negotiations.is_empty());
    assert_eq!(ask(&mut link, 79, &QUESTION), proof());
    set(&mut link, 80, &OK);
    let ike = &link.peers[CLIENT].ike;
    assert!(ike.isakmp[0].superseded && ike.current().unwrap().id == ike.isakmp[1].id);
    assert_eq!(link.peers[CLIENT].count(is_isakmp), 2);
    link.run(seconds(2));
    link.assert_established();
}

#[test]
fn a_renewal_without_a_verdict_leaves_the_old_one_and_a_refusal_takes_all() {
    let renewed = |seed| {
        let mut link = before(&fast(), seed);
        ask(&mut link, 77, &QUESTION);
        set(&mut link, 78, &OK);
        link.run(seconds(2));
        let now = link.now;
        link.peers[CLIENT].ike.begin_main_mode(now);
        link.drain();
        accept(&mut link, AuthenticationMethod::XAUTH_INIT_PRE_SHARED);
        link.run(seconds(1));
        ask(&mut link, 79, &QUESTION);
        link
    };
    let mut link = renewed(422);
    link.run(seconds(60));
    assert_eq!(renewal_error(&link), Some(&Error::XauthTimeout { asked: true }));
    let client = &link.peers[CLIENT];
    assert_eq!((client.ike.isakmp.len(), client.inbound.len(), client.failure()), (1, 1, None));
    let mut link = renewed(423);
    set(&mut link, 80, &[(STATUS, &[0, 0])]);
    assert!(matches!(end(&link), Error::XauthRefused { .. }));
    link.run(seconds(1));
    assert!(link.peers[SERVER].inbound.is_empty(), "the gateway has heard of it");
}

/// The gateway begins a Main Mode after which it asks.
fn renew_as_gateway(link: &mut Link) {
    let (now, asks) = (link.now, AuthenticationMethod::XAUTH_RESP_PRE_SHARED);
    let server = &mut link.peers[SERVER].ike;
    server.begin_main_mode(now);
    let negotiation = &mut server.negotiations[0];
    negotiation.sa = replaced(&negotiation.sa, AuthenticationMethod::PRE_SHARED_KEY, asks);
    negotiation.offered = asks;
    let Some(Transmit::Message { port, message }) = server.transmits.pop_back() else { panic!("no message 1") };
    server.transmit(port, replaced(&message, AuthenticationMethod::PRE_SHARED_KEY, asks));
    link.drain();
    link.run(seconds(1));
}

#[test]
fn a_gateway_that_renews_phase_1_again_and_again_without_asking_takes_no_more_room() {
    let mut link = before(&fast(), 427);
    ask(&mut link, 77, &QUESTION);
    set(&mut link, 78, &OK);
    link.run(seconds(2));
    let first = link.peers[CLIENT].ike.isakmp[0].id;
    // It deletes what it has too many of itself, and nobody hears of it.
    link.filter = Box::new(|from, header, _| from == CLIENT || header.exchange != ExchangeType::INFORMATIONAL);
    for _ in 0..20 {
        renew_as_gateway(&mut link);
    }
    let ike = &link.peers[CLIENT].ike;
    assert_eq!((ike.isakmp.len(), ike.current().unwrap().id), (8, first));
}

#[test]
fn a_gateway_that_renews_phase_1_itself_asks_as_its_initiator() {
    let mut link = before(&fast(), 424);
    ask(&mut link, 77, &QUESTION);
    set(&mut link, 78, &OK);
    link.run(seconds(2));
    renew_as_gateway(&mut link);
    let ike = &link.peers[CLIENT].ike;
    assert_eq!((ike.isakmp.len(), ike.current().unwrap().id), (2, ike.isakmp[0].id));
    assert_eq!(ask(&mut link, 79, &QUESTION), proof());
    set(&mut link, 80, &OK);
    assert_eq!(link.peers[CLIENT].ike.current().unwrap().role, main_mode::Role::Responder);
    link.run(seconds(2));
    link.assert_established();
}

#[test]
fn the_user_may_be_asked_again_at_any_time() {
    let mut link = before(&fast(), 425);
    ask(&mut link, 77, &QUESTION);
    set(&mut link, 78, &OK);
    link.run(seconds(2));
    for begin in [80, 90] {
        assert_eq!(ask(&mut link, begin, &QUESTION), proof());
        set(&mut link, begin + 1, &OK);
    }
    link.assert_established();
    ask(&mut link, 100, &QUESTION);
    set(&mut link, 101, &[(STATUS, &[0, 0])]);
    assert!(matches!(end(&link), Error::XauthRefused { .. }));
}

#[test]
fn a_bad_link_does_not_keep_the_user_out() {
    for seed in 0..40 {
        let mut link = before(&fast(), 430 + seed);
        link.loss = 0.3;
        link.duplication = 0.3;
        let mut rng = StdRng::seed_from_u64(seed);
        let question = message(&link, 77, None, ConfigurationType::REQUEST, &attributes(&QUESTION));
        let verdict = message(&link, 78, None, ConfigurationType::SET, &attributes(&OK));
        // The gateway sends each until an answer gets through, and an old question comes late.
        for (sent, late) in [(&question, &question), (&verdict, &question)] {
            let mut through = false;
            for _ in 0..200 {
                let mut copies = if rng.random_bool(0.3) { vec![late] } else { vec![] };
                copies.extend((0..rng.random_range(0..3)).map(|_| sent));
                let answered: usize = copies.iter().map(|copy| hand(&mut link, copy).len()).sum();
                through = answered > 0 && rng.random_bool(0.6) && copies.contains(&sent);
                if through {
                    break;
                }
                link.run(Duration::from_millis(500));
            }
            assert!(through, "{seed}: no answer gets through");
        }
        link.run(seconds(40));
        assert!(link.peers[CLIENT].ike.is_established(), "{seed}: {:?}", link.peers[CLIENT].events);
        assert!(link.peers[CLIENT].outbound.len() == 1, "{seed}");
    }
}
