//! Calls and their data.

use super::*;
use crate::l2tp::message::Hiding;
use crate::l2tp::response;

#[test]
fn a_call_is_opened_with_what_the_lac_says_about_it() {
    let mut bench = Bench::new(config());
    let caller = bench.tunnel(1);
    bench.events.clear();
    let body = icrq(2)
        .u32(Attribute::BEARER_TYPE, 1)
        .bytes(Attribute::CALLING_NUMBER, b"555\x1b1")
        .bytes(Attribute::CALLED_NUMBER, &[b'9'; 1000]);
    bench.say(caller, 0, body);
    let icrp = bench.callers[caller].received.last().unwrap().clone();
    assert_eq!((icrp.0, icrp.1.message_type), (SessionId(2), MessageType::ICRP));
    let id = icrp.1.u16(Attribute::ASSIGNED_SESSION_ID).unwrap();
    assert_eq!(bench.events, []);
    bench.say(caller, id, iccn());
    let call = Call { tunnel: bench.callers[caller].channel.tunnel_id(), session: SessionId(id) };
    assert_eq!(
        bench.events,
        [LnsEvent::CallOpened {
            call,
            serial_number: 7,
            bearer_type: Some(1),
            calling_number: Some("555?1".into()),
            called_number: Some("9".repeat(160)),
        }]
    );
}

#[test]
fn a_call_without_a_required_avp_is_refused() {
    let no_number = Body::new(MessageType::ICRQ).u16(Attribute::ASSIGNED_SESSION_ID, 2);
    let mut bench = Bench::new(config());
    let caller = bench.tunnel(1);
    bench.say(caller, 0, no_number);
    assert_eq!(bench.callers[caller].received.last().unwrap().0, SessionId(2));
    assert_eq!(bench.callers[caller].last().message_type, MessageType::CDN);
    bench.say(caller, 0, icrq(0));
    assert_eq!(bench.callers[caller].types().len(), 2, "session 0 cannot be told anything");
    for body in [
        Body::new(MessageType::ICCN).u32(Attribute::FRAMING_TYPE, 1),
        Body::new(MessageType::ICCN).u32(Attribute::TX_CONNECT_SPEED, 1),
        Body::new(MessageType::ICCN).u32(Attribute::TX_CONNECT_SPEED, 1).u32(Attribute::FRAMING_TYPE, 4),
    ] {
        let mut bench = Bench::new(config());
        let caller = bench.tunnel(1);
        bench.say(caller, 0, icrq(2));
        let id = bench.callers[caller].last().u16(Attribute::ASSIGNED_SESSION_ID).unwrap();
        bench.events.clear();
        bench.say(caller, id, body);
        assert_eq!(bench.callers[caller].last().message_type, MessageType::CDN);
        assert_eq!(bench.callers[caller].told().error, Some(ErrorCode::OUT_OF_RANGE));
        assert_eq!(bench.events, [], "it was never opened");
    }
}

#[test]
fn both_framing_types_at_once_are_taken() {
    let mut bench = Bench::new(config());
    let caller = bench.tunnel(1);
    bench.say(caller, 0, icrq(2));
    let id = bench.callers[caller].last().u16(Attribute::ASSIGNED_SESSION_ID).unwrap();
    let both = Body::new(MessageType::ICCN).u32(Attribute::TX_CONNECT_SPEED, 1).u32(Attribute::FRAMING_TYPE, 3);
    bench.say(caller, id, both);
    assert!(matches!(bench.events.last(), Some(LnsEvent::CallOpened { .. })));
}

#[test]
fn data_flows_both_ways_and_its_numbers_are_those_of_the_lac_only_where_required() {
    let (mut bench, call) = Bench::established(config());
    let frame = &b"\xff\x03\xc0\x21"[..];
    // The LAC may number its messages; an LNS that wants none sends none.
    for (ns, fresh) in [(None, true), (Some(0), true), (Some(0), false), (Some(1), true), (None, true)] {
        let got =
            bench.lns.handle_message(bench.now, &data(call, ns, frame)).map(|(call, frame)| (call, frame.to_vec()));
        assert_eq!(got, fresh.then(|| (call, frame.to_vec())), "{ns:?}");
        assert_eq!(bench.lns.data_overhead(call), 8);
    }

    bench.say(0, 0, icrq(3));
    let id = bench.callers[0].last().u16(Attribute::ASSIGNED_SESSION_ID).unwrap();
    bench.say(0, id, iccn().bytes(Attribute::SEQUENCING_REQUIRED, &[]));
    let call = Call { session: SessionId(id), ..call };
    let numbers: Vec<_> = (0..3)
        .map(|_| {
            let mut out = Vec::new();
            bench.lns.write_data_header(call, &mut out, 0).unwrap();
            assert_eq!(out.len(), bench.lns.data_overhead(call));
            let Packet::Data(header, _) = Packet::read(&out).unwrap() else { panic!() };
            assert_eq!(header.session_id, SessionId(3));
            header.ns
        })
        .collect();
    assert_eq!(numbers, [Some(0), Some(1), Some(2)]);
}

#[test]
fn data_of_no_call_and_before_iccn_is_dropped() {
    let mut bench = Bench::new(config());
    let caller = bench.tunnel(1);
    bench.say(caller, 0, icrq(2));
    let id = bench.callers[caller].last().u16(Attribute::ASSIGNED_SESSION_ID).unwrap();
    let call = Call { tunnel: bench.callers[caller].channel.tunnel_id(), session: SessionId(id) };
    let message = data(call, None, b"frame");
    assert_eq!(bench.lns.handle_message(bench.now, &message), None);
    assert_eq!(bench.lns.write_data_header(call, &mut Vec::new(), 5), Err(NotEstablished));
    bench.say(caller, id, iccn());
    assert!(bench.lns.handle_message(bench.now, &message).is_some());
    for octet in 4..8 {
        let mut other = message.clone();
        other[octet] ^= 1;
        assert_eq!(bench.lns.handle_message(bench.now, &other), None);
    }
}

#[test]
fn calls_beyond_the_bound_are_refused_and_the_others_go_on() {
    let mut bench = Bench::new(LnsConfig { max_calls: 2, ..config() });
    let [first, second] = [1, 2].map(|id| bench.tunnel(id));
    let call = bench.call(first, 1);
    bench.call(second, 1);
    bench.say(second, 0, icrq(9));
    assert_eq!(bench.callers[second].last().message_type, MessageType::CDN);
    assert_eq!(bench.callers[second].told().result, CdnResult::NO_FACILITIES_NOW.0);
    bench.lns.close_call(bench.now, call, CloseReason::Administrative);
    bench.call(second, 10);
}

#[test]
fn a_call_before_the_tunnel_is_established_is_refused() {
    let mut bench = Bench::new(config());
    let caller = bench.caller(1);
    bench.say(caller, 0, sccrq(1));
    bench.say(caller, 0, icrq(2));
    assert_eq!(bench.callers[caller].last().message_type, MessageType::CDN);
    assert_eq!(bench.callers[caller].told().error, Some(ErrorCode::NO_CONTROL_CONNECTION));
}

#[test]
fn an_outgoing_call_that_the_peer_asks_for_is_refused() {
    let (mut bench, call) = Bench::established(config());
    bench.say(0, 0, Body::new(MessageType::OCRQ).u16(Attribute::ASSIGNED_SESSION_ID, 9));
    let (session, cdn) = bench.callers[0].received.last().unwrap();
    assert_eq!((*session, cdn.message_type), (SessionId(9), MessageType::CDN));
    assert_ne!(cdn.u16(Attribute::ASSIGNED_SESSION_ID), Some(call.session.0));
    assert_eq!(bench.events, []);
}

#[test]
fn the_answer_to_a_call_that_was_not_announced_is_refused() {
    let (mut bench, _) = Bench::established(config());
    bench.say(0, 0, Body::new(MessageType::ICRP).u16(Attribute::ASSIGNED_SESSION_ID, 9));
    let (session, cdn) = bench.callers[0].received.last().unwrap();
    assert_eq!((*session, cdn.message_type), (SessionId(9), MessageType::CDN));
    assert_eq!(bench.events, []);
}

#[test]
fn a_call_that_is_announced_again_ends() {
    let (mut bench, call) = Bench::established(config());
    bench.say(0, 0, icrq(2));
    let (session, cdn) = bench.callers[0].received.last().unwrap();
    assert_eq!((*session, cdn.message_type), (SessionId(2), MessageType::CDN));
    let error = Some(Error::UnexpectedMessage(MessageType::ICRQ));
    assert_eq!(bench.events, [LnsEvent::CallClosed { call, error }]);
}

#[test]
fn values_are_hidden_from_a_lac_that_hides_its_own() {
    for hide in [false, true] {
        let secret = Zeroizing::new(b"secret".to_vec());
        let hiding = hide.then(|| Hiding { secret, random_vector: [7; 16] });
        let new = |kind| Body::new(kind).hide(hiding.clone());
        let mut bench = Bench::new(with_secret(b"secret"));
        let caller = bench.caller(1);
        bench.callers[caller].secret = Some(b"secret".to_vec());
        bench.say(caller, 0, avps_of_sccrq(new(MessageType::SCCRQ), 1));
        let challenge = bench.callers[caller].last().value(Attribute::CHALLENGE).unwrap();
        let answer = response(MessageType::SCCCN, b"secret", challenge);
        bench.say(caller, 0, new(MessageType::SCCCN).bytes(Attribute::CHALLENGE_RESPONSE, &answer));
        let announcement = new(MessageType::ICRQ)
            .u16(Attribute::ASSIGNED_SESSION_ID, 2)
            .u32(Attribute::CALL_SERIAL_NUMBER, 7)
            .bytes(Attribute::CALLING_NUMBER, b"5551");
        bench.say(caller, 0, announcement);
        let id = bench.callers[caller].last().u16(Attribute::ASSIGNED_SESSION_ID).unwrap();
        bench.say(caller, id, iccn());
        let Some(LnsEvent::CallOpened { call, calling_number, .. }) = bench.events.last().cloned() else { panic!() };
        assert_eq!(calling_number.as_deref(), Some("5551"));
        bench.lns.close_call(bench.now, call, CloseReason::Administrative);
        bench.run(SECOND);
        let hidden = bench.callers[caller].received.iter().map(|(_, message)| message.is_hidden());
        assert_eq!(hidden.collect::<Vec<_>>(), [hide; 3], "SCCRP, ICRP, CDN");
    }
}

#[test]
fn messages_about_a_line_are_acknowledged_and_change_nothing() {
    let (mut bench, call) = Bench::established(config());
    let received = bench.callers[0].received.len();
    let sli = Body::new(MessageType::SLI).bytes(Attribute::ACCM, &[0; 10]);
    let wen = Body::new(MessageType::WEN).bytes(Attribute::CALL_ERRORS, &[0; 26]);
    for body in [sli, wen, Body::new(MessageType::HELLO)] {
        bench.say(0, call.session.0, body);
        assert_eq!(bench.callers[0].channel.unacknowledged(), 0);
    }
    assert_eq!((bench.callers[0].received.len(), bench.events.len()), (received, 0));
}

#[test]
fn an_optional_unknown_avp_leaves_call_and_tunnel_alone() {
    let unknown = [0, 8, 0, 9, 0, 99, 0xaa, 0xaa];
    let (mut bench, call) = Bench::established(config());
    let wen = Body::new(MessageType::WEN).bytes(Attribute::CALL_ERRORS, &[0; 26]).raw(&unknown);
    bench.say(0, call.session.0, wen);
    bench.say(0, 0, Body::new(MessageType::HELLO).raw(&unknown));
    bench.say(0, 0, icrq(3).raw(&unknown));
    assert_eq!(bench.callers[0].types()[1..], [MessageType::ICRP, MessageType::ICRP]);
    assert_eq!(bench.events, []);
}

#[test]
fn an_unknown_message_type_is_ignored_unless_it_is_mandatory() {
    let (mut bench, call) = Bench::established(config());
    let header = |ns| ControlHeader { tunnel_id: call.tunnel, session_id: SessionId(0), ns, nr: 2 };
    let message = |flags: u8| [flags, 8, 0, 0, 0, 0, 0, 99];
    bench.lns.handle_message(bench.now, &header(4).encode(&message(0)));
    bench.run(SECOND);
    assert_eq!(bench.events, []);
    bench.lns.handle_message(bench.now, &header(5).encode(&message(0x80)));
    bench.run(SECOND);
    let error = Some(Error::UnknownMessage(MessageType(99)));
    assert_eq!(bench.events.last(), Some(&LnsEvent::TunnelClosed { tunnel: call.tunnel, error }));
    assert_eq!(bench.callers[0].types().last(), Some(&MessageType::STOPCCN));
}

#[test]
fn an_unknown_mandatory_avp_ends_the_call_that_its_message_is_about() {
    let unknown = [0x80, 8, 0, 9, 0, 99, 0xaa, 0xaa];
    let (mut bench, call) = Bench::established(config());
    bench.say(0, 0, icrq(3).raw(&unknown));
    assert_eq!(bench.callers[0].received.last().unwrap().0, SessionId(3));
    assert_eq!(bench.callers[0].told().error, Some(ErrorCode::UNKNOWN_MANDATORY_AVP));
    assert_eq!(bench.events, [], "the other call goes on");

    let wen = Body::new(MessageType::WEN).bytes(Attribute::CALL_ERRORS, &[0; 26]).raw(&unknown);
    bench.say(0, call.session.0, wen);
    assert_eq!(bench.callers[0].received.last().unwrap().0, SessionId(2));
    assert_eq!(bench.callers[0].told().error, Some(ErrorCode::UNKNOWN_MANDATORY_AVP));
    let error = Error::MandatoryAvp { message: MessageType::WEN, vendor: 9, attribute: Attribute(99) };
    assert_eq!(bench.take_events(), [LnsEvent::CallClosed { call, error: Some(error) }]);

    bench.say(0, 0, Body::new(MessageType::HELLO).raw(&unknown));
    assert_eq!(bench.callers[0].last().message_type, MessageType::STOPCCN);
}
