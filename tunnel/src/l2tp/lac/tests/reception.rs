//! What a peer may send that has no place.

use super::*;

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
