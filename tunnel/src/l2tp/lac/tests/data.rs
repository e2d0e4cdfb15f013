//! The data channel.

use super::*;

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
fn sequencing_that_the_lns_requires_stays_on() {
    let mut pair =
        Pair::established(config(), Script { icrp_avps: hex!("8006 0000 0027").to_vec(), ..Script::default() });
    let message = pair.lns.data(None, b"frame");
    assert!(pair.lac.handle_message(pair.now, &message).is_some());
    assert_eq!(pair.lac.data_overhead(), 12);
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
