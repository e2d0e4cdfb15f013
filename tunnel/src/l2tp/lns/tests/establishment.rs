//! Setting up control connections.

use super::*;
use crate::l2tp::response;

fn refused(config: LnsConfig, body: Body) -> Outcome {
    let mut bench = Bench::new(config);
    let caller = bench.caller(1);
    bench.say(caller, 0, body);
    assert_eq!(bench.callers[caller].types(), [MessageType::STOPCCN]);
    assert!(bench.lns.is_idle(), "nothing is kept of it");
    assert_eq!(bench.lns.poll_timeout(), None);
    bench.callers[caller].told()
}

fn plain(result: StopCcnResult) -> Outcome {
    Outcome { result: result.0, error: None, text: String::new() }
}

#[test]
fn a_control_connection_is_accepted_in_the_order_of_the_rfc() {
    let mut bench = Bench::new(config());
    let caller = bench.caller(0x1234);
    bench.say(caller, 0, sccrq(0x1234).bytes(Attribute::VENDOR_NAME, b"a\x1bb"));
    assert_eq!(bench.events, []);
    let sccrp = bench.callers[caller].last().clone();
    assert_eq!(sccrp.message_type, MessageType::SCCRP);
    assert_eq!(sccrp.u16(Attribute::PROTOCOL_VERSION), Some(0x0100));
    assert_eq!(sccrp.u32(Attribute::FRAMING_CAPABILITIES), Some(3));
    assert_eq!(sccrp.value(Attribute::HOST_NAME), Some(&b"lns"[..]));
    assert_eq!(sccrp.u16(Attribute::RECEIVE_WINDOW_SIZE), Some(16));
    assert_eq!(sccrp.value(Attribute::CHALLENGE), None);
    let id = TunnelId(sccrp.u16(Attribute::ASSIGNED_TUNNEL_ID).unwrap());
    assert_ne!(id, TunnelId(0));
    bench.say(caller, 0, Body::new(MessageType::SCCCN));
    let peer = Peer { host_name: "lac".into(), vendor_name: Some("a?b".into()), firmware_revision: None };
    assert_eq!(bench.events, [LnsEvent::TunnelOpened { tunnel: id, peer }]);
    assert_eq!(bench.callers[caller].types(), [MessageType::SCCRP]);
}

#[test]
fn an_sccrq_without_a_required_avp_is_refused() {
    let version = |body: Body| body.u16(Attribute::PROTOCOL_VERSION, 0x0100);
    let name = |body: Body| body.bytes(Attribute::HOST_NAME, b"lac");
    let framing = |body: Body| body.u32(Attribute::FRAMING_CAPABILITIES, 3);
    let id = |body: Body| body.u16(Attribute::ASSIGNED_TUNNEL_ID, 1);
    let new = || Body::new(MessageType::SCCRQ);
    for body in [id(name(framing(new()))), id(version(framing(new()))), id(version(name(new())))] {
        let outcome = refused(config(), body);
        assert_eq!((outcome.result, outcome.error), (2, Some(ErrorCode::OUT_OF_RANGE)));
    }
}

#[test]
fn an_sccrq_that_names_no_tunnel_is_refused_at_tunnel_0() {
    for id in [None, Some(0)] {
        let mut bench = Bench::new(config());
        let mut body = Body::new(MessageType::SCCRQ)
            .u16(Attribute::PROTOCOL_VERSION, 0x0100)
            .bytes(Attribute::HOST_NAME, b"lac")
            .u32(Attribute::FRAMING_CAPABILITIES, 3);
        if let Some(id) = id {
            body = body.u16(Attribute::ASSIGNED_TUNNEL_ID, id);
        }
        let caller = bench.caller(0);
        bench.say(caller, 0, body);
        assert_eq!(bench.callers[caller].types(), [MessageType::STOPCCN]);
        assert!(bench.lns.is_idle());
    }
}

#[test]
fn an_l2f_packet_gets_no_answer() {
    let (mut bench, call) = Bench::established(config());
    for version in [0, 1, 3] {
        let control = ControlHeader { tunnel_id: TunnelId(0), session_id: SessionId(0), ns: 0, nr: 0 };
        let (mut sccrq, mut frame) = (control.encode(&sccrq(9).into_octets()), data(call, None, b"frame"));
        (sccrq[1], frame[1]) = (version, version);
        for message in [sccrq, frame] {
            assert_eq!(bench.lns.handle_message(bench.now, &message), None);
            assert_eq!((bench.lns.poll_transmit(), bench.lns.poll_event()), (None, None));
        }
    }
    assert!(bench.lns.handle_message(bench.now, &data(call, None, b"frame")).is_some());
}

#[test]
fn an_sccrq_that_is_not_the_first_message_is_ignored() {
    let mut bench = Bench::new(config());
    let header = ControlHeader { tunnel_id: TunnelId(0), session_id: SessionId(0), ns: 1, nr: 0 };
    bench.lns.handle_message(bench.now, &header.encode(&sccrq(1).into_octets()));
    assert_eq!(bench.lns.poll_transmit(), None);
    assert!(bench.lns.tunnels.is_empty());
}

#[test]
fn another_protocol_version_is_refused_with_ours() {
    let body = Body::new(MessageType::SCCRQ)
        .u16(Attribute::PROTOCOL_VERSION, 0x0200)
        .bytes(Attribute::HOST_NAME, b"lac")
        .u32(Attribute::FRAMING_CAPABILITIES, 3)
        .u16(Attribute::ASSIGNED_TUNNEL_ID, 1);
    let expected = Outcome { result: 5, error: Some(ErrorCode(0x0100)), text: String::new() };
    assert_eq!(refused(config(), body), expected);
}

#[test]
fn an_unknown_mandatory_avp_in_an_sccrq_refuses_the_tunnel_and_an_optional_one_does_not() {
    let unknown = |flags: u16| [&flags.to_be_bytes()[..], &[0, 9, 0, 99, 0xaa, 0xaa]].concat();
    let outcome = refused(config(), sccrq(1).raw(&unknown(0x8008)));
    assert_eq!((outcome.result, outcome.error), (2, Some(ErrorCode::UNKNOWN_MANDATORY_AVP)));
    let mut bench = Bench::new(config());
    let caller = bench.caller(1);
    bench.say(caller, 0, sccrq(1).raw(&unknown(0x0008)));
    assert_eq!(bench.callers[caller].types(), [MessageType::SCCRP]);
}

#[test]
fn tunnel_authentication_proves_both_ends() {
    let mut bench = Bench::new(with_secret(b"secret"));
    let caller = bench.caller(1);
    bench.say(caller, 0, sccrq(1).bytes(Attribute::CHALLENGE, b"who are you?"));
    let sccrp = bench.callers[caller].last();
    let expected = response(MessageType::SCCRP, b"secret", b"who are you?");
    assert_eq!(sccrp.value(Attribute::CHALLENGE_RESPONSE), Some(&expected[..]));
    let answer = response(MessageType::SCCCN, b"secret", sccrp.value(Attribute::CHALLENGE).unwrap());
    bench.say(caller, 0, Body::new(MessageType::SCCCN).bytes(Attribute::CHALLENGE_RESPONSE, &answer));
    assert!(matches!(bench.events[..], [LnsEvent::TunnelOpened { .. }]));
}

#[test]
fn a_wrong_or_missing_response_ends_the_tunnel_without_a_word_about_why() {
    let wrong = response(MessageType::SCCCN, b"other", b"?");
    for (answer, error) in [(Some(wrong), Authentication::ResponseWrong), (None, Authentication::ResponseMissing)] {
        let mut bench = Bench::new(with_secret(b"secret"));
        let caller = bench.caller(1);
        bench.say(caller, 0, sccrq(1));
        let body = Body::new(MessageType::SCCCN);
        let body = match answer {
            Some(answer) => body.bytes(Attribute::CHALLENGE_RESPONSE, &answer),
            None => body,
        };
        bench.say(caller, 0, body);
        assert_eq!(bench.callers[caller].types(), [MessageType::SCCRP, MessageType::STOPCCN]);
        assert_eq!(bench.callers[caller].told(), plain(StopCcnResult::NOT_AUTHORIZED));
        let tunnel = bench.callers[caller].channel.tunnel_id();
        let error = Some(Error::TunnelAuthenticationFailed(error));
        assert_eq!(bench.events, [LnsEvent::TunnelClosed { tunnel, error }]);
        bench.say(caller, 0, icrq(5));
        assert_eq!(bench.callers[caller].types().len(), 2, "it has no calls");
    }
}

#[test]
fn a_challenge_that_cannot_be_answered_is_refused() {
    let outcome = refused(config(), sccrq(1).bytes(Attribute::CHALLENGE, b"?"));
    assert_eq!(outcome, plain(StopCcnResult::NOT_AUTHORIZED));
}

#[test]
fn the_sccrq_of_a_tunnel_once_more_is_acknowledged_and_makes_no_other() {
    let mut bench = Bench::new(config());
    let caller = bench.tunnel(1);
    let header = ControlHeader { tunnel_id: TunnelId(0), session_id: SessionId(0), ns: 0, nr: 0 };
    let again = header.encode(&sccrq(1).into_octets());
    bench.events.clear();
    bench.lns.handle_message(bench.now, &again);
    let zlb = ControlHeader { tunnel_id: TunnelId(1), session_id: SessionId(0), ns: 1, nr: 2 };
    assert_eq!(bench.lns.poll_transmit(), Some(zlb.encode(&[])));
    bench.run(SECOND);
    assert_eq!(
        bench.callers[caller].types().last(),
        Some(&MessageType::HELLO),
        "which the tunnel answers if it is known"
    );
    assert_eq!(bench.events, []);
    bench.call(caller, 9);
}

#[test]
fn a_peer_that_has_forgotten_its_tunnel_gets_another_for_the_same_sccrq() {
    let (mut bench, call) = Bench::established(config());
    let caller = bench.caller(1);
    bench.say(caller, 0, sccrq(1));
    // It goes on asking, which shows that it lives, and acknowledges nothing.
    bench.run(60 * SECOND);
    let error = Some(Error::NoResponse { to: MessageType::HELLO });
    assert_eq!(
        bench.take_events(),
        [LnsEvent::CallClosed { call, error: error.clone() }, LnsEvent::TunnelClosed { tunnel: call.tunnel, error },]
    );
    let caller = bench.caller(1);
    bench.say(caller, 0, sccrq(1));
    assert_eq!(bench.callers[caller].types(), [MessageType::SCCRP]);
}

#[test]
fn another_sccrq_for_the_same_name_replaces_a_tunnel_that_its_peer_has_forgotten() {
    let (mut bench, call) = Bench::established(config());
    let caller = bench.caller(1);
    bench.say(caller, 0, sccrq(1).u16(Attribute::FIRMWARE_REVISION, 2));
    assert_eq!(bench.callers[caller].types(), [MessageType::SCCRP], "no StopCCN, which would end the new one");
    bench.say(caller, 0, Body::new(MessageType::SCCCN));
    let tunnel = call.tunnel;
    let [closed, ended, LnsEvent::TunnelOpened { tunnel: opened, .. }] = &bench.events[..] else {
        panic!("{:?}", bench.events)
    };
    assert_eq!(*closed, LnsEvent::CallClosed { call, error: None });
    assert_eq!(*ended, LnsEvent::TunnelClosed { tunnel, error: None });
    assert_ne!(*opened, tunnel);
}

#[test]
fn two_tunnels_with_sessions_of_the_same_name_are_kept_apart() {
    let mut bench = Bench::new(config());
    let callers = [1, 2].map(|id| bench.tunnel(id));
    let calls = callers.map(|caller| bench.call(caller, 1));
    assert_ne!(calls[0], calls[1]);
    for (call, id) in calls.into_iter().zip([1, 2]) {
        assert_eq!(bench.lns.handle_message(bench.now, &data(call, None, b"frame")), Some((call, &b"frame"[..])));
        let mut out = Vec::new();
        bench.lns.write_data_header(call, &mut out, 5).unwrap();
        out.extend_from_slice(b"frame");
        let header = DataHeader { tunnel_id: TunnelId(id), session_id: SessionId(1), ns: None };
        assert_eq!(Packet::read(&out), Ok(Packet::Data(header, b"frame")));
    }
    bench.say(
        callers[0],
        0,
        Body::new(MessageType::CDN).bytes(Attribute::RESULT_CODE, &[0, 3]).u16(Attribute::ASSIGNED_SESSION_ID, 1),
    );
    assert_eq!(bench.lns.write_data_header(calls[0], &mut Vec::new(), 1), Err(NotEstablished));
    assert_eq!(bench.lns.write_data_header(calls[1], &mut Vec::new(), 1), Ok(()));
}

#[test]
fn tunnels_beyond_the_bound_are_refused_and_one_without_a_call_makes_room() {
    let mut bench = Bench::new(LnsConfig { max_tunnels: 2, ..config() });
    let [first, second] = [1, 2].map(|id| bench.tunnel(id));
    let calls = [first, second].map(|caller| bench.call(caller, 1));
    let third = bench.caller(3);
    bench.say(third, 0, sccrq(3));
    assert_eq!(bench.callers[third].types(), [MessageType::STOPCCN]);
    let told = bench.callers[third].told();
    assert_eq!((told.result, told.error), (2, Some(ErrorCode::INSUFFICIENT_RESOURCES)));
    bench.lns.close_call(bench.now, calls[0], CloseReason::Administrative);
    bench.run(SECOND);
    bench.events.clear();
    bench.tunnel(4);
    assert_eq!(bench.callers[first].types().last(), Some(&MessageType::STOPCCN));
    let tunnel = calls[0].tunnel;
    assert_eq!(bench.events[0], LnsEvent::TunnelClosed { tunnel, error: None });
    assert!(matches!(bench.events[1], LnsEvent::TunnelOpened { .. }));
    assert_eq!(bench.lns.write_data_header(calls[1], &mut Vec::new(), 1), Ok(()));
}

#[test]
fn the_window_of_the_peer_is_kept() {
    let mut bench = Bench::new(config());
    let caller = bench.caller(1);
    bench.say(caller, 0, sccrq(1).u16(Attribute::RECEIVE_WINDOW_SIZE, 1));
    bench.say(caller, 0, Body::new(MessageType::SCCCN));
    bench.callers[caller].silent = true;
    let header = |ns| ControlHeader {
        tunnel_id: bench.callers[caller].channel.tunnel_id(),
        session_id: SessionId(0),
        ns,
        nr: 1,
    };
    let requests = [2, 3, 4].map(|ns| header(ns).encode(&icrq(ns).into_octets()));
    for request in &requests {
        bench.lns.handle_message(bench.now, request);
    }
    let sent: Vec<_> =
        std::iter::from_fn(|| bench.lns.poll_transmit()).filter(|datagram| datagram.len() > 12).collect();
    assert_eq!(sent.len(), 1, "the ICRPs for the others wait");

    let outcome = refused(config(), sccrq(1).u16(Attribute::RECEIVE_WINDOW_SIZE, 0));
    assert_eq!((outcome.result, outcome.error), (2, Some(ErrorCode::OUT_OF_RANGE)));
}
