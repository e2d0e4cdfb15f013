//! How either end ends it.

use super::*;

#[test]
fn a_stop_ccn_is_told_with_its_codes_and_text() {
    let outcome = Outcome { result: 2, error: Some(ErrorCode::TRY_ANOTHER), text: "full\x1b\0".into() };
    let error = failure(config(), Script { stop_ccn: Some(outcome), ..Script::default() });
    let (result, code) = (StopCcnResult::GENERAL_ERROR, ErrorCode::TRY_ANOTHER);
    assert_eq!(error, Error::StopCcn { result, error: Some(code), text: "full?".into() });
    assert_eq!(
        error.to_string(),
        "the peer closed the control connection: general error (result 2, error 7: try another LNS), \"full?\""
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

/// The Result Code, Error Code and text of a CDN or StopCCN.
fn told(message: &Message) -> Outcome {
    Outcome::read(message.value(Attribute::RESULT_CODE).unwrap(), |_| true).unwrap()
}

#[test]
fn close_sends_cdn_then_stop_ccn_and_waits_for_both() {
    let mut pair = Pair::established(config(), Script::default());
    pair.lac.close(pair.now, CloseReason::Administrative);
    assert_eq!(pair.lac.poll_event(), None, "not before the peer knows");
    pair.run(SECOND);
    assert_eq!(pair.events, [Event::Closed]);
    let [cdn, stop] = &pair.lns.received[4..] else { panic!("{:?}", pair.lns.types()) };
    assert_eq!((cdn.message_type, stop.message_type), (MessageType::CDN, MessageType::STOPCCN));
    assert_eq!(cdn.u16(Attribute::ASSIGNED_SESSION_ID), Some(pair.lns.lac_session.0));
    assert!(pair.lac.poll_timeout().is_some(), "lingers");
    pair.run(32 * SECOND);
    assert_eq!(pair.lac.poll_timeout(), None);
}

#[test]
fn a_call_that_the_lns_has_not_named_is_ended_at_session_0_by_our_name_of_it() {
    let script = Script { acknowledges_only: vec![MessageType::ICRQ], ..Script::default() };
    let mut pair = Pair::new(config(), script);
    pair.connect();
    pair.run(SECOND);
    pair.lac.close(pair.now, CloseReason::Administrative);
    pair.run(SECOND);
    assert!(pair.words().iter().any(|line| line.contains("CDN to tunnel")), "{:?}", pair.words());
    let cdn = pair.lns.received.iter().find(|message| message.message_type == MessageType::CDN).unwrap();
    assert_eq!(cdn.u16(Attribute::ASSIGNED_SESSION_ID), Some(pair.lac.session_id.0));
}

#[test]
fn the_lns_is_told_why() {
    let plain = |result| Outcome { result, error: None, text: String::new() };
    let text = "é".repeat(200);
    let failed = || Outcome { result: 2, error: Some(ErrorCode::VENDOR_SPECIFIC), text: "é".repeat(160) };
    for (reason, cdn, stop) in [
        (CloseReason::Administrative, plain(3), plain(1)),
        (CloseReason::ShuttingDown, plain(3), plain(6)),
        (CloseReason::Failure(text), failed(), failed()),
    ] {
        let mut pair = Pair::established(config(), Script::default());
        pair.lac.close(pair.now, reason);
        pair.run(SECOND);
        assert_eq!([&pair.lns.received[4], &pair.lns.received[5]].map(told), [cdn, stop]);
    }
}

#[test]
fn goodbyes_leave_together_and_are_repeated_early() {
    for lost in [&[1, 2][..], &[1], &[2]] {
        let mut pair = Pair::established(config(), Script::default());
        let closed = pair.now;
        pair.lac.close(pair.now, CloseReason::ShuttingDown);
        let flight: Vec<_> = std::iter::from_fn(|| pair.lac.poll_transmit()).collect();
        assert_eq!(flight.len(), 2, "CDN and StopCCN");
        for (number, datagram) in (1..).zip(&flight) {
            if !lost.contains(&number) {
                pair.lns_hears(datagram);
            }
        }
        pair.run(Duration::from_millis(500));
        assert_eq!(pair.events, [Event::Closed], "{lost:?} {:?}", pair.now - closed);
        assert_eq!(pair.lns.types()[4..], [MessageType::CDN, MessageType::STOPCCN]);
    }
}

#[test]
fn goodbyes_keep_to_the_window_of_the_peer_and_their_repetition_backs_off() {
    let mut pair = Pair::established(config(), Script { window: Some(1), ..Script::default() });
    pair.lac.close(pair.now, CloseReason::ShuttingDown);
    let start = pair.now;
    let mut times = Vec::new();
    while pair.now < start + 2 * SECOND {
        times.extend(std::iter::from_fn(|| pair.lac.poll_transmit()).map(|_| (pair.now - start).as_millis()));
        pair.now = pair.lac.poll_timeout().unwrap();
        pair.lac.handle_timeout(pair.now);
    }
    assert_eq!(times, [0, 200, 600, 1400]);
}

#[test]
fn an_end_with_an_avp_that_cannot_be_used_keeps_its_result_and_text() {
    let outcome = Outcome { result: 2, error: Some(ErrorCode::TRY_ANOTHER), text: "full".into() };
    // Attribute 99 of vendor 9; a hidden Assigned Tunnel ID for which there is no secret.
    let unusable = hex!("8008 0009 0063 aaaa c00a 0000 0009 372c0fd9");
    for end in [MessageType::STOPCCN, MessageType::CDN] {
        let mut pair = Pair::established(config(), Script::default());
        let body = Body::new(end).raw(&unusable).bytes(Attribute::RESULT_CODE, &outcome.encode());
        let session = if end == MessageType::CDN { pair.lns.lac_session } else { SessionId(0) };
        pair.lns.send(pair.now, session, body);
        pair.run(SECOND);
        let [Event::Failed(error)] = &pair.events[..] else { panic!("{:?}", pair.events) };
        assert!(error.to_string().ends_with("(result 2, error 7: try another LNS), \"full\""), "{error}");
    }
}

#[test]
fn a_refusal_of_our_version_says_which_is_supported() {
    for (code, words) in [(0x0201, "it supports version 2.1 at most)"), (3, "it supports version 3 at most)")] {
        let outcome = Outcome { result: 5, error: Some(ErrorCode(code)), text: String::new() };
        let error = failure(config(), Script { stop_ccn: Some(outcome), ..Script::default() });
        assert!(error.to_string().ends_with(words), "{error}");
    }
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
