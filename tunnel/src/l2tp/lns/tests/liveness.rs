//! What silence means.

use super::*;

fn hellos(bench: &Bench) -> usize {
    bench.callers[0].types().iter().filter(|&&kind| kind == MessageType::HELLO).count()
}

#[test]
fn a_tunnel_that_nobody_completes_ends_after_the_cycle() {
    let mut bench = Bench::new(config());
    let caller = bench.caller(1);
    bench.say(caller, 0, sccrq(1));
    // The SCCRP is acknowledged, and nothing follows.
    bench.run(37 * SECOND);
    let tunnel = bench.callers[caller].channel.tunnel_id();
    let error = Some(Error::NoResponse { to: MessageType::SCCRP });
    assert_eq!(bench.events, [LnsEvent::TunnelClosed { tunnel, error }]);
    assert_eq!(bench.callers[caller].types().last(), Some(&MessageType::STOPCCN));

    let mut bench = Bench::new(config());
    let caller = bench.caller(1);
    let header = ControlHeader { tunnel_id: TunnelId(0), session_id: SessionId(0), ns: 0, nr: 0 };
    bench.callers[caller].silent = true;
    bench.lns.handle_message(bench.now, &header.encode(&sccrq(1).into_octets()));
    bench.run(32 * SECOND);
    assert!(matches!(bench.events[..], [LnsEvent::TunnelClosed { error: Some(Error::NoResponse { .. }), .. }]));
    assert_eq!(bench.lns.poll_timeout(), None);
}

#[test]
fn a_call_that_is_never_connected_ends_and_the_tunnel_stays() {
    let mut bench = Bench::new(config());
    let caller = bench.tunnel(1);
    let other = bench.call(caller, 1);
    bench.say(caller, 0, icrq(2));
    bench.events.clear();
    bench.run(37 * SECOND);
    assert_eq!(bench.callers[caller].received.last().unwrap().0, SessionId(2));
    assert_eq!(bench.callers[caller].told().result, CdnResult::TIMED_OUT.0);
    assert_eq!(bench.lns.write_data_header(other, &mut Vec::new(), 1), Ok(()));
    assert_eq!(bench.events, []);
}

#[test]
fn a_tunnel_without_a_call_ends_after_a_minute_and_one_with_a_call_does_not() {
    let mut bench = Bench::new(config());
    let [unused, used] = [1, 2].map(|id| bench.tunnel(id));
    let call = bench.call(used, 1);
    bench.run(59 * SECOND);
    assert_ne!(bench.callers[unused].types().last(), Some(&MessageType::STOPCCN));
    bench.run(2 * SECOND);
    assert_eq!(bench.callers[unused].types().last(), Some(&MessageType::STOPCCN));
    bench.run(300 * SECOND);
    assert_eq!(bench.lns.write_data_header(call, &mut Vec::new(), 1), Ok(()));
    bench.lns.close_call(bench.now, call, CloseReason::Administrative);
    bench.run(61 * SECOND);
    assert_eq!(bench.callers[used].types().last(), Some(&MessageType::STOPCCN));
}

#[test]
fn hello_is_sent_only_after_silence_and_a_dead_peer_is_found() {
    let (mut bench, call) = Bench::established(config());
    for _ in 0..10 {
        bench.run(50 * SECOND);
        bench.lns.handle_activity(bench.now);
    }
    assert_eq!(hellos(&bench), 0, "activity keeps Hello back");
    bench.run(61 * SECOND);
    assert_eq!(hellos(&bench), 1);
    bench.callers[0].silent = true;
    bench.run(100 * SECOND);
    let error = Some(Error::NoResponse { to: MessageType::HELLO });
    let tunnel = call.tunnel;
    let expected = [LnsEvent::CallClosed { call, error: error.clone() }, LnsEvent::TunnelClosed { tunnel, error }];
    assert_eq!(bench.events, expected);
    assert!(bench.lns.is_idle());
}

#[test]
fn hello_can_be_switched_off() {
    let (mut bench, _) = Bench::established(LnsConfig { hello: Duration::ZERO, ..config() });
    bench.run(1000 * SECOND);
    assert_eq!(hellos(&bench), 0);
}

#[test]
fn a_probe_sends_one_hello_at_once() {
    let (mut bench, _) = Bench::established(config());
    bench.lns.probe(bench.now);
    bench.lns.probe(bench.now);
    bench.run(Duration::ZERO);
    assert_eq!(hellos(&bench), 1);
}

#[test]
fn a_hello_without_acknowledgment_does_not_end_the_call_of_a_live_peer() {
    let (mut bench, call) = Bench::established(config());
    bench.callers[0].silent = true;
    bench.run(61 * SECOND);
    for _ in 0..100 {
        bench.run(10 * SECOND);
        bench.lns.handle_activity(bench.now);
    }
    assert_eq!(bench.lns.write_data_header(call, &mut Vec::new(), 1), Ok(()));
    assert_eq!(bench.take_events(), [LnsEvent::HelloLost { tunnel: call.tunnel }], "told once");
    // It wakes, and falls asleep again.
    bench.callers[0].silent = false;
    bench.run(61 * SECOND);
    assert_eq!(bench.take_events(), []);
    bench.callers[0].silent = true;
    bench.lns.probe(bench.now);
    bench.run(10 * SECOND);
    bench.lns.handle_activity(bench.now);
    bench.run(30 * SECOND);
    assert_eq!(bench.take_events(), [LnsEvent::HelloLost { tunnel: call.tunnel }]);
    bench.run(100 * SECOND);
    assert!(matches!(bench.events.last(), Some(LnsEvent::TunnelClosed { error: Some(_), .. })), "silent for good");
}

#[test]
fn a_call_closed_behind_a_hello_that_is_lost_takes_the_tunnel_with_it() {
    let (mut bench, call) = Bench::established(config());
    bench.callers[0].silent = true;
    bench.lns.probe(bench.now);
    bench.lns.close_call(bench.now, call, CloseReason::Administrative);
    for _ in 0..40 {
        bench.run(SECOND);
        bench.lns.handle_activity(bench.now);
    }
    let error = Some(Error::NoResponse { to: MessageType::HELLO });
    assert_eq!(bench.events.last(), Some(&LnsEvent::TunnelClosed { tunnel: call.tunnel, error }));
}
