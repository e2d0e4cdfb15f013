use std::time::{Duration, Instant};

use hex_literal::hex;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use zeroize::Zeroizing;

use super::Lac;
use crate::l2tp::avp::Attribute;
use crate::l2tp::config::{Config, Event, NotEstablished, Peer};
use crate::l2tp::ending::CloseReason;
use crate::l2tp::error::{Authentication, Error};
use crate::l2tp::message::{Body, ControlHeader, DataHeader, Message, MessageType, Packet, SessionId, TunnelId};
use crate::l2tp::outcome::{CdnResult, ErrorCode, Outcome, StopCcnResult};
use crate::l2tp::scripted::{Pair, SESSION, Script, TUNNEL};

const SECOND: Duration = Duration::from_secs(1);

fn config() -> Config {
    Config::new("lac")
}

fn with_secret(secret: &[u8]) -> Config {
    Config { secret: Some(Zeroizing::new(secret.to_vec())), ..config() }
}

fn failure(config: Config, script: Script) -> Error {
    let mut pair = Pair::new(config, script);
    pair.connect();
    pair.run(120 * SECOND);
    match pair.events.pop() {
        Some(Event::Failed(error)) => {
            assert_eq!(pair.lac.poll_timeout(), None, "nothing is left after the last cycle");
            error
        }
        other => panic!("no failure but {other:?}"),
    }
}

#[test]
fn a_session_is_established_in_the_order_of_the_rfc() {
    let mut pair = Pair::new(config(), Script::default());
    pair.connect();
    pair.run(SECOND);
    let peer = Peer { host_name: "lns".into(), vendor_name: Some("script?[31m".into()), firmware_revision: None };
    assert_eq!(pair.events, [Event::ControlEstablished(peer), Event::SessionEstablished]);
    assert_eq!(
        pair.words(),
        [
            "  0.0 SCCRQ to nothing, Ns 0 Nr 0",
            "  0.0 SCCCN to tunnel, Ns 1 Nr 1",
            "  0.0 ICRQ to tunnel, Ns 2 Nr 1",
            "  0.0 ICCN to session, Ns 3 Nr 2",
        ]
    );
    assert_eq!(pair.lns.types(), [MessageType::SCCRQ, MessageType::SCCCN, MessageType::ICRQ, MessageType::ICCN]);
    let [sccrq, _, icrq, iccn] = &pair.lns.received[..] else { panic!() };
    assert_eq!(sccrq.u16(Attribute::PROTOCOL_VERSION), Some(0x0100));
    assert_eq!(sccrq.value(Attribute::HOST_NAME), Some(&b"lac"[..]));
    assert_eq!(sccrq.u32(Attribute::FRAMING_CAPABILITIES), Some(3));
    assert_ne!(sccrq.u16(Attribute::ASSIGNED_TUNNEL_ID), Some(0));
    assert_eq!(sccrq.value(Attribute::CHALLENGE), None);
    assert_eq!(icrq.u32(Attribute::CALL_SERIAL_NUMBER), Some(1));
    assert_eq!(iccn.u32(Attribute::FRAMING_TYPE), Some(1));
    assert!(iccn.u32(Attribute::TX_CONNECT_SPEED).is_some());
}

#[test]
fn loss_duplication_and_reordering_are_repaired() {
    for (trouble, least) in [(0.1, 99), (0.2, 97), (0.3, 80)] {
        let mut established = 0;
        for seed in 0..100 {
            let mut pair = Pair::with_trouble(config(), Script::default(), seed, trouble);
            pair.connect();
            pair.run(50 * SECOND);
            let up = pair.events.contains(&Event::SessionEstablished);
            let lost = pair.events.iter().any(|event| matches!(event, Event::Failed(Error::NoResponse { .. })));
            assert!(up || lost, "seed {seed}, trouble {trouble}: {:?}", pair.events);
            if !pair.lac.is_established() {
                continue;
            }
            established += 1;
            pair.lac.close(pair.now, CloseReason::Administrative);
            pair.run(200 * SECOND);
            assert_eq!(pair.events.iter().filter(|&event| *event == Event::Closed).count(), 1, "seed {seed}");
            let all = [
                MessageType::SCCRQ,
                MessageType::SCCCN,
                MessageType::ICRQ,
                MessageType::ICCN,
                MessageType::CDN,
                MessageType::STOPCCN,
            ];
            let received = pair.lns.types();
            assert!(all.starts_with(&received), "seed {seed}, trouble {trouble}: {received:?}");
        }
        assert!(established >= least, "{established} of 100 at {trouble}");
    }
}

#[test]
fn a_stop_ccn_is_told_with_its_codes_and_text() {
    let outcome = Outcome { result: 2, error: Some(ErrorCode::TRY_ANOTHER), text: "full\x1b\0".into() };
    let error = failure(config(), Script { stop_ccn: Some(outcome), ..Script::default() });
    let (result, code) = (StopCcnResult::GENERAL_ERROR, ErrorCode::TRY_ANOTHER);
    assert_eq!(error, Error::StopCcn { result, error: Some(code), text: "full?".into() });
    assert_eq!(
        error.to_string(),
        "the LNS closed the control connection: general error (result 2, error 7: try another LNS), \"full?\""
    );
}

#[test]
fn a_cdn_is_told_with_its_codes_and_the_tunnel_is_closed() {
    let outcome = Outcome { result: 4, error: None, text: String::new() };
    let mut pair = Pair::new(config(), Script { cdn: Some(outcome), ..Script::default() });
    pair.connect();
    pair.run(SECOND);
    let error = Error::Cdn { result: CdnResult::NO_FACILITIES_NOW, error: None, text: String::new() };
    assert_eq!(pair.events.last(), Some(&Event::Failed(error)));
    let stop = pair.lns.received.last().unwrap();
    assert_eq!(stop.message_type, MessageType::STOPCCN);
    assert_eq!(stop.u16(Attribute::RESULT_CODE), Some(StopCcnResult::CLEAR.0));
}

#[test]
fn result_codes_in_the_order_of_apples_processor_are_understood() {
    let outcome = Outcome { result: 0x0300, error: None, text: String::new() };
    let error = failure(config(), Script { cdn: Some(outcome), ..Script::default() });
    assert_eq!(error, Error::Cdn { result: CdnResult::ADMINISTRATIVE, error: None, text: String::new() });
}

#[test]
fn tunnel_authentication_proves_both_ends() {
    let script = Script { secret: Some(b"secret".to_vec()), sends_challenge: true, ..Script::default() };
    // The scripted LNS asserts that our response is right.
    Pair::established(with_secret(b"secret"), script);
}

#[test]
fn tunnel_authentication_fails_on_a_wrong_or_missing_response() {
    let script = Script { secret: Some(b"other".to_vec()), ..Script::default() };
    let mut pair = Pair::new(with_secret(b"secret"), script.clone());
    pair.connect();
    pair.run(SECOND);
    let error = Error::TunnelAuthenticationFailed(Authentication::ResponseWrong);
    assert_eq!(pair.events, [Event::Failed(error)]);
    assert_eq!(pair.lns.types(), [MessageType::SCCRQ, MessageType::STOPCCN]);
    assert_eq!(pair.lns.received[1].u16(Attribute::RESULT_CODE), Some(StopCcnResult::NOT_AUTHORIZED.0));

    let script = Script { leaves_challenge_unanswered: true, ..script };
    let error = failure(with_secret(b"other"), script);
    assert_eq!(error, Error::TunnelAuthenticationFailed(Authentication::ResponseMissing));

    let error = failure(config(), Script { sends_challenge: true, ..Script::default() });
    assert_eq!(error, Error::TunnelAuthenticationFailed(Authentication::SecretMissing));
}

#[test]
fn hidden_values_are_understood_and_sent() {
    let secret = b"secret".to_vec();
    let script = Script { secret: Some(secret), hide: true, sends_challenge: true, ..Script::default() };
    let mut pair = Pair::established(Config { hide_avps: true, ..with_secret(b"secret") }, script.clone());
    let (_, icrq) = &pair.log[2];
    let Packet::Control(_, body) = Packet::read(icrq).unwrap() else { panic!() };
    assert!(Message::read(body, None).is_err(), "the values of ICRQ are hidden");
    pair.lac.close(pair.now, CloseReason::Administrative);
    pair.run(SECOND);
    assert_eq!(pair.lns.types().last(), Some(&MessageType::STOPCCN));

    let script = Script { sends_challenge: false, ..script };
    let error = failure(with_secret(b"wrong"), script);
    assert!(matches!(error, Error::HiddenAvp { message: MessageType::SCCRP, .. }), "{error}");
}

#[test]
fn an_unknown_avp_is_ignored_unless_it_is_mandatory() {
    // Attribute 99 of vendor 9, optional and mandatory; attribute 1 with a reserved bit.
    for (avp, session) in [(hex!("0008 0009 0063 aaaa"), false), (hex!("2008 0000 0001 0000"), true)] {
        let mut script = Script::default();
        if session {
            script.icrp_avps = avp.to_vec()
        } else {
            script.sccrp_avps = avp.to_vec()
        };
        Pair::established(config(), script);
    }
    let mandatory = hex!("8008 0009 0063 aaaa").to_vec();
    let mut pair = Pair::new(config(), Script { sccrp_avps: mandatory.clone(), ..Script::default() });
    pair.connect();
    pair.run(SECOND);
    let unknown = |message| Event::Failed(Error::MandatoryAvp { message, vendor: 9, attribute: Attribute(99) });
    assert_eq!(pair.events, [unknown(MessageType::SCCRP)]);

    let mut pair = Pair::new(config(), Script { icrp_avps: mandatory, ..Script::default() });
    pair.connect();
    pair.run(SECOND);
    assert_eq!(pair.events.last(), Some(&unknown(MessageType::ICRP)));
    let tail = &pair.lns.received[3..];
    let outcome = |message: &Message| Outcome::read(message.value(Attribute::RESULT_CODE).unwrap(), |_| true).unwrap();
    assert_eq!(tail[0].message_type, MessageType::CDN);
    assert_eq!(outcome(&tail[0]).error, Some(ErrorCode::UNKNOWN_MANDATORY_AVP));
    assert_eq!(tail[1].message_type, MessageType::STOPCCN);
    assert_eq!(outcome(&tail[1]).error, Some(ErrorCode::UNKNOWN_MANDATORY_AVP));
}

#[test]
fn a_window_of_zero_is_invalid_and_one_of_one_is_kept() {
    let error = failure(config(), Script { sccrp_avps: hex!("8008 0000 000a 0000").to_vec(), ..Script::default() });
    let attribute = Attribute::RECEIVE_WINDOW_SIZE;
    assert_eq!(error, Error::InvalidAvp { message: MessageType::SCCRP, attribute });

    let pair = Pair::established(config(), Script { window: Some(1), ..Script::default() });
    let words = pair.words();
    // SCCCN has to be acknowledged before ICRQ may go out.
    assert!(words[2].starts_with("  0.0 ICRQ to tunnel, Ns 2 Nr 1"), "{words:?}");
    assert!(pair.log[2].0 > pair.log[1].0);
}

#[test]
fn a_peer_that_falls_silent_is_given_up_after_31_seconds() {
    for message in [MessageType::SCCRQ, MessageType::SCCCN, MessageType::ICRQ, MessageType::ICCN] {
        let mut pair = Pair::new(config(), Script { silent_at: Some(message), ..Script::default() });
        pair.connect();
        pair.run(30 * SECOND);
        assert!(!pair.events.iter().any(|event| matches!(event, Event::Failed(_))), "{message}");
        pair.run(2 * SECOND);
        assert_eq!(pair.events.last(), Some(&Event::Failed(Error::NoResponse { to: message })));
        assert_eq!(pair.lac.poll_timeout(), None);
    }
}

#[test]
fn retransmissions_double_up_to_8_seconds() {
    let mut pair = Pair::new(config(), Script { silent_at: Some(MessageType::SCCRQ), ..Script::default() });
    pair.connect();
    pair.run(60 * SECOND);
    let times: Vec<_> = pair.log.iter().map(|(at, _)| at.as_secs()).collect();
    assert_eq!(times, [0, 1, 3, 7, 15, 23]);
    assert!(pair.log.iter().all(|(_, datagram)| *datagram == pair.log[0].1));
}

#[test]
fn an_acknowledged_request_without_an_answer_is_given_up() {
    for (message, last) in [(MessageType::SCCRQ, None), (MessageType::ICRQ, Some(CdnResult::TIMED_OUT.0))] {
        let script = Script { acknowledges_only: vec![message], ..Script::default() };
        let mut pair = Pair::new(config(), script);
        pair.connect();
        pair.run(100 * SECOND);
        assert_eq!(pair.events.last(), Some(&Event::Failed(Error::NoResponse { to: message })));
        assert_eq!(pair.lns.types().last(), Some(&MessageType::STOPCCN));
        let cdn = pair.lns.received.iter().find(|message| message.message_type == MessageType::CDN);
        assert_eq!(cdn.and_then(|cdn| cdn.u16(Attribute::RESULT_CODE)), last);
    }
}

#[test]
fn hello_is_sent_only_after_silence_and_a_dead_peer_is_found() {
    let script = Script { silent_at: Some(MessageType::HELLO), ..Script::default() };
    let mut pair = Pair::established(config(), script);
    for _ in 0..10 {
        pair.run(50 * SECOND);
        pair.lac.handle_activity(pair.now);
    }
    assert!(!pair.words().iter().any(|line| line.contains("HELLO")), "activity keeps Hello back");
    pair.run(59 * SECOND);
    assert!(pair.words().last().unwrap().contains("ICCN"));
    pair.run(2 * SECOND);
    assert!(pair.words().last().unwrap().contains("HELLO to tunnel"));
    pair.run(40 * SECOND);
    let to = MessageType::HELLO;
    assert_eq!(pair.events, [Event::Failed(Error::NoResponse { to })]);
}

#[test]
fn hello_goes_on_for_a_peer_that_acknowledges() {
    let mut pair = Pair::established(config(), Script::default());
    pair.run(Duration::from_secs(3600));
    assert!(pair.events.is_empty(), "{:?}", pair.events);
    let hellos = pair.lns.types().iter().filter(|&&kind| kind == MessageType::HELLO).count();
    assert!((55..=60).contains(&hellos), "{hellos}");
    assert!(pair.lac.is_established());
}

#[test]
fn a_hello_without_acknowledgment_does_not_end_a_live_session() {
    let script = Script { ignores: Some(MessageType::HELLO), ..Script::default() };
    let mut pair = Pair::established(config(), script);
    pair.run(61 * SECOND);
    for _ in 0..100 {
        pair.run(10 * SECOND);
        pair.lac.handle_activity(pair.now);
    }
    assert!(pair.lac.is_established());
    assert!(pair.events.is_empty(), "{:?}", pair.events);
    let hellos = pair.words().iter().filter(|line| line.contains("HELLO")).count();
    assert!(hellos > 100, "it is sent on: {hellos}");
}

#[test]
fn data_flows_both_ways_and_sequencing_follows_the_lns() {
    let mut pair = Pair::established(config(), Script::default());
    let frame = hex!("ff03 c021 0101 0004");
    let send = |pair: &mut Pair| {
        let mut out = Vec::new();
        let overhead = pair.lac.data_overhead();
        pair.lac.write_data_header(&mut out, frame.len()).unwrap();
        assert_eq!(out.len(), overhead);
        out.extend_from_slice(&frame);
        match Packet::read(&out).unwrap() {
            Packet::Data(DataHeader { tunnel_id: TUNNEL, session_id: SESSION, ns }, payload) => {
                assert_eq!(payload, frame);
                ns
            }
            other => panic!("{other:?}"),
        }
    };
    let receive = |pair: &mut Pair, ns| {
        let message = pair.lns.data(ns, &frame);
        pair.lac.handle_message(pair.now, &message).map(<[u8]>::to_vec)
    };
    assert_eq!(send(&mut pair), None);
    assert_eq!(receive(&mut pair, None).as_deref(), Some(&frame[..]));
    // "It MUST begin sending sequence numbers".
    assert!(receive(&mut pair, Some(0)).is_some());
    assert_eq!([send(&mut pair), send(&mut pair)], [Some(0), Some(1)]);
    assert!(receive(&mut pair, Some(0)).is_none(), "twice");
    assert!(receive(&mut pair, Some(3)).is_some(), "with loss");
    assert!(receive(&mut pair, Some(2)).is_none(), "late");
    // "It MUST stop", and later "picks up where it left off".
    assert!(receive(&mut pair, None).is_some());
    assert_eq!(send(&mut pair), None);
    assert!(receive(&mut pair, Some(4)).is_some());
    assert_eq!(send(&mut pair), Some(2));
}

#[test]
fn required_sequencing_stays_on() {
    let script = Script { icrp_avps: hex!("8006 0000 0027").to_vec(), ..Script::default() };
    let required = Config { require_sequencing: true, ..config() };
    for (mut pair, announced) in
        [(Pair::established(required, Script::default()), true), (Pair::established(config(), script), false)]
    {
        let iccn = pair.lns.received.last().unwrap();
        assert_eq!(iccn.value(Attribute::SEQUENCING_REQUIRED).is_some(), announced);
        let message = pair.lns.data(None, b"frame");
        assert!(pair.lac.handle_message(pair.now, &message).is_some());
        assert_eq!(pair.lac.data_overhead(), 12);
    }
}

#[test]
fn data_of_another_session_and_before_establishment_is_dropped() {
    let mut lac = Lac::new(config(), StdRng::seed_from_u64(1));
    assert_eq!(lac.write_data_header(&mut Vec::new(), 4), Err(NotEstablished));
    let mut pair = Pair::established(config(), Script::default());
    let message = pair.lns.data(None, b"frame");
    assert_eq!(lac.handle_message(pair.now, &message), None);
    for octet in 4..8 {
        let mut other = message.clone();
        other[octet] ^= 1;
        assert_eq!(pair.lac.handle_message(pair.now, &other), None);
    }
    assert!(pair.lac.handle_message(pair.now, &message).is_some());
    pair.lac.close(pair.now, CloseReason::Administrative);
    assert_eq!(pair.lac.handle_message(pair.now, &message), None);
}

#[test]
fn close_sends_cdn_then_stop_ccn_and_waits_for_both() {
    let mut pair = Pair::established(config(), Script::default());
    pair.lac.close(pair.now, CloseReason::Failure("PPP authentication failed".into()));
    assert_eq!(pair.lac.poll_event(), None, "not before the peer knows");
    pair.run(SECOND);
    assert_eq!(pair.events, [Event::Closed]);
    let [cdn, stop] = &pair.lns.received[4..] else { panic!("{:?}", pair.lns.types()) };
    assert_eq!((cdn.message_type, stop.message_type), (MessageType::CDN, MessageType::STOPCCN));
    let outcome = Outcome::read(cdn.value(Attribute::RESULT_CODE).unwrap(), |_| true).unwrap();
    let text = "PPP authentication failed".to_owned();
    assert_eq!(outcome, Outcome { result: 2, error: Some(ErrorCode::VENDOR_SPECIFIC), text });
    assert_eq!(cdn.u16(Attribute::ASSIGNED_SESSION_ID), Some(pair.lns.lac_session.0));
    assert!(pair.lac.poll_timeout().is_some(), "lingers");
    pair.run(32 * SECOND);
    assert_eq!(pair.lac.poll_timeout(), None);
}

#[test]
fn close_before_anything_was_sent_is_immediate_and_without_a_peer_it_ends() {
    let mut pair = Pair::new(config(), Script::default());
    pair.lac.close(pair.now, CloseReason::ShuttingDown);
    pair.run(SECOND);
    assert_eq!(pair.events, [Event::Closed]);
    assert!(pair.log.is_empty());

    let mut pair = Pair::new(config(), Script { silent_at: Some(MessageType::SCCRQ), ..Script::default() });
    pair.connect();
    pair.run(5 * SECOND);
    pair.lac.close(pair.now, CloseReason::ShuttingDown);
    pair.run(60 * SECOND);
    assert_eq!(pair.events, [Event::Closed]);
}

#[test]
fn close_while_the_sccrp_is_awaited_stops_the_tunnel_by_its_name() {
    let mut pair = Pair::new(config(), Script::default());
    pair.connect();
    pair.lac.close(pair.now, CloseReason::Administrative);
    pair.run(SECOND);
    assert_eq!(pair.events, [Event::Closed]);
    assert_eq!(pair.lns.types(), [MessageType::SCCRQ, MessageType::STOPCCN]);
    assert!(pair.words()[1].contains("STOPCCN to tunnel"), "{:?}", pair.words());
}

fn lns_stop_ccn(pair: &mut Pair) {
    let outcome = Outcome { result: 6, error: None, text: String::new() };
    let body = Body::new(MessageType::STOPCCN)
        .u16(Attribute::ASSIGNED_TUNNEL_ID, TUNNEL.0)
        .bytes(Attribute::RESULT_CODE, &outcome.encode());
    pair.lns.send(pair.now, SessionId(0), body);
}

#[test]
fn the_receiver_of_a_stop_ccn_acknowledges_retransmissions_for_31_seconds() {
    let mut pair = Pair::established(config(), Script::default());
    lns_stop_ccn(&mut pair);
    let stop = pair.lns.channel.poll_transmit().unwrap();
    for second in [0, 1, 29] {
        pair.now += Duration::from_secs(second);
        pair.lac.handle_timeout(pair.now);
        assert_eq!(pair.lac.handle_message(pair.now, &stop), None);
        let zlb = pair.lac.poll_transmit().unwrap();
        let Packet::Control(header, body) = Packet::read(&zlb).unwrap() else { panic!() };
        assert_eq!((header.ns, header.nr, body.len()), (4, 3, 0), "after {second} seconds");
    }
    pair.now += SECOND;
    pair.lac.handle_timeout(pair.now);
    pair.lac.handle_message(pair.now, &stop);
    assert_eq!(pair.lac.poll_transmit(), None, "the cycle is over");
    assert!(matches!(
        pair.lac.poll_event(),
        Some(Event::Failed(Error::StopCcn { result: StopCcnResult::SHUTTING_DOWN, .. }))
    ));
    assert_eq!(pair.lac.poll_event(), None);
}

#[test]
fn a_stop_ccn_that_names_no_tunnel_answers_the_sccrq() {
    let mut pair = Pair::new(config(), Script::default());
    pair.connect();
    assert!(pair.lac.poll_transmit().is_some());
    let body = Body::new(MessageType::STOPCCN)
        .u16(Attribute::ASSIGNED_TUNNEL_ID, TUNNEL.0)
        .bytes(Attribute::RESULT_CODE, &hex!("0004"));
    let header = ControlHeader { tunnel_id: TunnelId(0), session_id: SessionId(0), ns: 0, nr: 1 };
    pair.lac.handle_message(pair.now, &header.encode(&body.into_octets()));
    let result = StopCcnResult::NOT_AUTHORIZED;
    let error = Error::StopCcn { result, error: None, text: String::new() };
    assert_eq!(pair.lac.poll_event(), Some(Event::Failed(error)));
    let zlb = ControlHeader { tunnel_id: TUNNEL, session_id: SessionId(0), ns: 1, nr: 1 };
    assert_eq!(pair.lac.poll_transmit(), Some(zlb.encode(&[])));
}

#[test]
fn a_cdn_names_the_session_by_either_id() {
    for (session, assigned, ours) in [(0, SESSION.0, true), (0, 0x1111, false), (0x2222, SESSION.0, false)] {
        let mut pair = Pair::established(config(), Script::default());
        let body = Body::new(MessageType::CDN)
            .bytes(Attribute::RESULT_CODE, &hex!("0003"))
            .u16(Attribute::ASSIGNED_SESSION_ID, assigned);
        pair.lns.send(pair.now, SessionId(session), body);
        pair.run(SECOND);
        assert_eq!(pair.lac.is_established(), !ours);
        assert_eq!(pair.lns.channel.unacknowledged(), 0);
    }
}

#[test]
fn a_stop_ccn_that_crosses_ours_ends_both() {
    let mut pair = Pair::established(config(), Script::default());
    lns_stop_ccn(&mut pair);
    pair.lac.close(pair.now, CloseReason::Administrative);
    pair.run(SECOND);
    assert_eq!(pair.events, [Event::Closed]);
}

#[test]
fn an_sccrq_of_the_peer_is_refused_and_ours_goes_on() {
    // The SCCRQ of xl2tpd 1.3.18.
    let sccrq = hex!(
        "c8020064000000000000000080080000000000018008000000020100800a0000000300000003800a00000004000000000008000000060690"
        "8009000000076c616300130000000878656c6572616e63652e636f6d800800000009ea9a80080000000a0004"
    );
    let mut pair = Pair::established(config(), Script::default());
    assert_eq!(pair.lac.handle_message(pair.now, &sccrq), None);
    let refusal = pair.lac.poll_transmit().unwrap();
    let Packet::Control(header, body) = Packet::read(&refusal).unwrap() else { panic!() };
    let expected = ControlHeader { tunnel_id: TunnelId(0xea9a), session_id: SessionId(0), ns: 0, nr: 1 };
    assert_eq!(header, expected);
    assert_eq!(Message::read(body, None).unwrap().u16(Attribute::RESULT_CODE), Some(StopCcnResult::NOT_AUTHORIZED.0));
    assert!(pair.lac.is_established());
}

#[test]
fn a_call_of_the_peer_is_refused_and_ours_goes_on() {
    for message in [MessageType::OCRQ, MessageType::ICRQ] {
        let mut pair = Pair::established(config(), Script::default());
        let body = Body::new(message).u16(Attribute::ASSIGNED_SESSION_ID, 0x1234);
        pair.lns.send(pair.now, SessionId(0), body);
        pair.run(SECOND);
        let (_, last) = pair.log.last().unwrap();
        let Packet::Control(header, body) = Packet::read(last).unwrap() else { panic!() };
        assert_eq!(header.session_id, SessionId(0x1234));
        assert_eq!(Message::read(body, None).unwrap().message_type, MessageType::CDN);
        assert!(pair.lac.is_established());
    }
}

#[test]
fn messages_about_a_line_are_acknowledged_and_change_nothing() {
    let mut pair = Pair::established(config(), Script::default());
    let sli = Body::new(MessageType::SLI).bytes(Attribute::ACCM, &[0; 10]);
    let wen = Body::new(MessageType::WEN).bytes(Attribute::CALL_ERRORS, &[0; 26]);
    let session = pair.lns.lac_session;
    for body in [sli, wen, Body::new(MessageType::HELLO)] {
        pair.lns.send(pair.now, session, body);
    }
    pair.run(SECOND);
    assert_eq!(pair.lns.channel.unacknowledged(), 0);
    assert!(pair.words().last().unwrap().starts_with("  1.0 ZLB to tunnel, Ns 4 Nr 5"), "{:?}", pair.words());
    assert!(pair.lac.is_established());
}

#[test]
fn messages_out_of_sequence_end_session_and_tunnel() {
    for (message, session) in [
        (MessageType::SCCRP, false),
        (MessageType::SCCCN, false),
        (MessageType::SCCRQ, false),
        (MessageType::ICRP, true),
        (MessageType::ICCN, true),
        (MessageType::ICRQ, true),
        (MessageType::OCRP, true),
    ] {
        let mut pair = Pair::established(config(), Script::default());
        let id = if session { pair.lns.lac_session } else { SessionId(0) };
        pair.lns.send(pair.now, id, Body::new(message));
        pair.run(SECOND);
        assert_eq!(pair.events, [Event::Failed(Error::UnexpectedMessage(message))]);
        let cdn = pair.lns.types().contains(&MessageType::CDN);
        assert_eq!((cdn, pair.lns.types().last()), (session, Some(&MessageType::STOPCCN)), "{message}");
    }
}

#[test]
fn an_unknown_message_type_ends_the_tunnel_only_if_it_is_mandatory() {
    let mut pair = Pair::established(config(), Script::default());
    let header = |ns| ControlHeader { tunnel_id: pair.lac.tunnel_id, session_id: SessionId(0), ns, nr: 4 };
    let optional = header(2).encode(&hex!("0008 0000 0000 0063"));
    let mandatory = header(3).encode(&hex!("8008 0000 0000 0063"));
    pair.lac.handle_message(pair.now, &optional);
    assert!(pair.lac.is_established());
    pair.lac.handle_message(pair.now, &mandatory);
    assert_eq!(pair.lac.poll_event(), Some(Event::Failed(Error::UnknownMessage(MessageType(99)))));
}

#[test]
fn another_protocol_version_is_refused_with_ours() {
    let version = hex!("8008 0000 0002 0200");
    let start = Instant::now();
    let mut lac = Lac::new(config(), StdRng::seed_from_u64(4));
    lac.connect(start);
    let sccrp = Body::new(MessageType::SCCRP).raw(&version).u16(Attribute::ASSIGNED_TUNNEL_ID, 5);
    let header = ControlHeader { tunnel_id: lac.tunnel_id, session_id: SessionId(0), ns: 0, nr: 1 };
    lac.handle_message(start, &header.encode(&sccrp.into_octets()));
    assert_eq!(lac.poll_event(), Some(Event::Failed(Error::UnsupportedVersion { version: 2 })));
    let stop = std::iter::from_fn(|| lac.poll_transmit()).last().unwrap();
    let Packet::Control(_, body) = Packet::read(&stop).unwrap() else { panic!() };
    assert_eq!(Message::read(body, None).unwrap().value(Attribute::RESULT_CODE), Some(&hex!("0005 0100")[..]));
}

#[test]
fn no_input_panics() {
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut pair = if seed % 3 == 0 {
            Pair::new(config(), Script::default())
        } else {
            Pair::established(with_secret(b"s"), Script { secret: Some(b"s".to_vec()), ..Script::default() })
        };
        pair.connect();
        let samples: Vec<_> = pair.log.iter().map(|(_, datagram)| datagram.clone()).collect();
        for _ in 0..200 {
            let mut input = match rng.random_range(0..3) {
                0 if !samples.is_empty() => samples[rng.random_range(0..samples.len())].clone(),
                1 => {
                    let mut body = vec![0; rng.random_range(0..80)];
                    rng.fill_bytes(&mut body);
                    let header = ControlHeader {
                        tunnel_id: pair.lac.tunnel_id,
                        session_id: pair.lac.session_id,
                        ns: rng.random_range(0..6),
                        nr: rng.random_range(0..6),
                    };
                    header.encode(&body)
                }
                _ => (0..rng.random_range(0..40)).map(|_| rng.random()).collect(),
            };
            for _ in 0..rng.random_range(0..4) {
                if !input.is_empty() {
                    let at = rng.random_range(0..input.len());
                    input[at] = rng.random();
                }
            }
            input.truncate(rng.random_range(0..=input.len()));
            pair.lac.handle_message(pair.now, &input);
            pair.run(Duration::from_millis(100));
        }
    }
}
