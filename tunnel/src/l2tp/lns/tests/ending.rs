//! How calls and control connections end.

use super::*;

fn cdn(session: u16) -> Body {
    Body::new(MessageType::CDN).bytes(Attribute::RESULT_CODE, &[0, 3]).u16(Attribute::ASSIGNED_SESSION_ID, session)
}

fn stop_ccn(id: u16, result: [u8; 2]) -> Body {
    Body::new(MessageType::STOPCCN).u16(Attribute::ASSIGNED_TUNNEL_ID, id).bytes(Attribute::RESULT_CODE, &result)
}

#[test]
fn the_end_of_a_call_is_told_to_the_lac_with_its_reason() {
    let (mut bench, call) = Bench::established(config());
    bench.lns.close_call(bench.now, call, CloseReason::Failure("no route".into()));
    assert_eq!(bench.lns.write_data_header(call, &mut Vec::new(), 1), Err(NotEstablished));
    bench.run(SECOND);
    let (session, message) = bench.callers[0].received.last().unwrap();
    assert_eq!((*session, message.message_type), (SessionId(2), MessageType::CDN));
    assert_eq!(message.u16(Attribute::ASSIGNED_SESSION_ID), Some(call.session.0));
    let failed = Outcome { result: 2, error: Some(ErrorCode::VENDOR_SPECIFIC), text: "no route".into() };
    assert_eq!(bench.callers[0].told(), failed);
    assert_eq!(bench.events, [LnsEvent::CallClosed { call, error: None }]);
    assert!(!bench.lns.is_idle(), "the control connection stays");
    bench.lns.close_call(bench.now, call, CloseReason::Administrative);
    assert_eq!(bench.lns.poll_event(), None, "once");
}

#[test]
fn a_cdn_ends_the_call_that_it_names_by_either_id() {
    for (session, assigned, ours) in [(true, 2, true), (false, 2, true), (false, 3, false)] {
        let (mut bench, call) = Bench::established(config());
        bench.say(0, if session { call.session.0 } else { 0 }, cdn(assigned));
        let error = Error::Cdn { result: CdnResult::ADMINISTRATIVE, error: None, text: String::new() };
        let expected = ours.then_some(LnsEvent::CallClosed { call, error: Some(error) });
        assert_eq!(bench.events, Vec::from_iter(expected));
        assert_eq!(bench.callers[0].channel.unacknowledged(), 0);
        assert_eq!(bench.callers[0].types().last(), Some(&MessageType::ICRP), "it is not answered");
    }
}

#[test]
fn a_cdn_without_a_result_ends_the_call_all_the_same() {
    let (mut bench, call) = Bench::established(config());
    bench.say(0, call.session.0, Body::new(MessageType::CDN));
    let error = Error::Cdn { result: CdnResult(0), error: None, text: String::new() };
    assert_eq!(bench.events, [LnsEvent::CallClosed { call, error: Some(error) }]);
}

#[test]
fn a_stop_ccn_without_a_result_ends_the_tunnel_all_the_same() {
    let (mut bench, call) = Bench::established(config());
    bench.say(0, 0, Body::new(MessageType::STOPCCN));
    let error = Some(Error::StopCcn { result: StopCcnResult(0), error: None, text: String::new() });
    assert_eq!(bench.events.last(), Some(&LnsEvent::TunnelClosed { tunnel: call.tunnel, error }));
    assert!(bench.lns.is_idle());
}

#[test]
fn result_codes_in_the_order_of_apples_processor_are_understood() {
    let (mut bench, call) = Bench::established(config());
    bench.say(0, 0, stop_ccn(1, [6, 0]));
    let error = Some(Error::StopCcn { result: StopCcnResult::SHUTTING_DOWN, error: None, text: String::new() });
    let tunnel = call.tunnel;
    let expected = [LnsEvent::CallClosed { call, error: error.clone() }, LnsEvent::TunnelClosed { tunnel, error }];
    assert_eq!(bench.events, expected);
}

#[test]
fn the_receiver_of_a_stop_ccn_acknowledges_retransmissions_for_31_seconds() {
    let (mut bench, call) = Bench::established(config());
    bench.say(0, 0, stop_ccn(1, [0, 1]));
    assert!(bench.lns.is_idle());
    let header = ControlHeader { tunnel_id: call.tunnel, session_id: SessionId(0), ns: 4, nr: 2 };
    let again = header.encode(&stop_ccn(1, [0, 1]).into_octets());
    let zlb = ControlHeader { tunnel_id: TunnelId(1), session_id: SessionId(0), ns: 2, nr: 5 };
    for seconds in [0, 1, 29] {
        bench.run(seconds * SECOND);
        bench.lns.handle_message(bench.now, &again);
        assert_eq!(bench.lns.poll_transmit(), Some(zlb.encode(&[])));
    }
    bench.run(SECOND);
    bench.lns.handle_message(bench.now, &again);
    assert_eq!(bench.lns.poll_transmit(), None, "the cycle is over");
    assert_eq!(bench.lns.poll_timeout(), None);
}

#[test]
fn a_stop_ccn_of_a_peer_that_has_not_heard_the_sccrp_names_the_tunnel_by_its_own_id() {
    let mut bench = Bench::new(config());
    let caller = bench.caller(1);
    bench.say(caller, 0, sccrq(1));
    let header = ControlHeader { tunnel_id: TunnelId(0), session_id: SessionId(0), ns: 1, nr: 0 };
    bench.lns.handle_message(bench.now, &header.encode(&stop_ccn(1, [0, 1]).into_octets()));
    assert!(matches!(bench.lns.poll_event(), Some(LnsEvent::TunnelClosed { error: Some(Error::StopCcn { .. }), .. })));
    assert!(bench.lns.is_idle());
}

#[test]
fn close_tells_all_of_it_to_everybody_and_waits_for_their_acknowledgments() {
    let mut bench = Bench::new(config());
    let callers = [1, 2].map(|id| bench.tunnel(id));
    let calls = [(0, 1), (0, 2), (1, 1)].map(|(caller, session)| bench.call(callers[caller], session));
    bench.events.clear();
    bench.lns.close(bench.now, CloseReason::ShuttingDown);
    assert!(!bench.lns.is_idle());
    bench.run(SECOND);
    assert!(bench.lns.is_idle());
    let [cdn, stop] = [MessageType::CDN, MessageType::STOPCCN];
    assert_eq!(bench.callers[0].types()[3..], [cdn, cdn, stop]);
    assert_eq!(bench.callers[1].types()[2..], [cdn, stop]);
    assert_eq!(bench.callers[1].told().result, StopCcnResult::SHUTTING_DOWN.0);
    assert_eq!(bench.callers[1].last().u16(Attribute::ASSIGNED_TUNNEL_ID), Some(calls[2].tunnel.0));
    let closed =
        |event: &&LnsEvent| matches!(event, LnsEvent::CallClosed { error: None, call } if calls.contains(call));
    assert_eq!(bench.events.iter().filter(closed).count(), 3);
    let late = bench.caller(3);
    bench.say(late, 0, sccrq(3));
    assert_eq!(bench.callers[late].told().result, StopCcnResult::SHUTTING_DOWN.0);
    bench.run(40 * SECOND);
    assert_eq!(bench.lns.poll_timeout(), None);
}

#[test]
fn a_peer_that_does_not_hear_the_goodbye_is_waited_for_one_cycle() {
    let (mut bench, _) = Bench::established(config());
    bench.callers[0].silent = true;
    bench.lns.close(bench.now, CloseReason::ShuttingDown);
    bench.run(5 * SECOND);
    assert!(!bench.lns.is_idle());
    bench.run(40 * SECOND);
    assert!(bench.lns.is_idle());
    assert_eq!(bench.lns.poll_timeout(), None);
    assert!(!bench.events.iter().any(|event| matches!(event, LnsEvent::TunnelClosed { error: Some(_), .. })));
}

#[test]
fn messages_out_of_sequence_end_the_call_or_the_tunnel() {
    for (message, of_call) in [
        (MessageType::SCCRP, false),
        (MessageType::SCCCN, false),
        (MessageType::SCCRQ, false),
        (MessageType::ICRP, true),
        (MessageType::ICCN, true),
        (MessageType::ICRQ, true),
    ] {
        let (mut bench, call) = Bench::established(config());
        bench.say(0, if of_call { call.session.0 } else { 0 }, Body::new(message));
        let error = Some(Error::UnexpectedMessage(message));
        let mut expected = vec![LnsEvent::CallClosed { call, error: error.clone() }];
        if !of_call {
            expected.push(LnsEvent::TunnelClosed { tunnel: call.tunnel, error });
        }
        assert_eq!(bench.events, expected);
        let told = if of_call { MessageType::CDN } else { MessageType::STOPCCN };
        assert_eq!(bench.callers[0].types().last(), Some(&told), "{message}");
    }
}

#[test]
fn a_stop_ccn_that_crosses_ours_ends_both_at_the_lns() {
    let (mut bench, _) = Bench::established(config());
    bench.lns.close(bench.now, CloseReason::Administrative);
    while bench.lns.poll_transmit().is_some() {}
    let header =
        ControlHeader { tunnel_id: bench.callers[0].channel.tunnel_id(), session_id: SessionId(0), ns: 4, nr: 2 };
    assert!(!bench.lns.is_idle());
    bench.lns.handle_message(bench.now, &header.encode(&stop_ccn(1, [0, 1]).into_octets()));
    assert!(bench.lns.is_idle(), "the peer has no ears for ours any more");
}
