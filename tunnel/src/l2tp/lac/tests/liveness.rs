//! Silence: of a peer that is gone, and of one that is not.

use super::*;

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
