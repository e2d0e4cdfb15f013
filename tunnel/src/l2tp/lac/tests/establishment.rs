//! Setting up the tunnel and the session.

use super::*;

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
fn values_are_hidden_from_an_lns_that_hides_its_own_and_never_in_the_sccrq() {
    let hidden = |hide| {
        let script = Script { secret: Some(b"secret".to_vec()), hide, sends_challenge: true, ..Script::default() };
        let mut pair = Pair::established(with_secret(b"secret"), script);
        pair.lac.close(pair.now, CloseReason::Administrative);
        pair.run(SECOND);
        assert_eq!(pair.lns.types().last(), Some(&MessageType::STOPCCN));
        pair.lns.received.iter().map(|message| (message.message_type, message.is_hidden())).take(5).collect::<Vec<_>>()
    };
    let types = [MessageType::SCCRQ, MessageType::SCCCN, MessageType::ICRQ, MessageType::ICCN, MessageType::CDN];
    let [sccrq, scccn, icrq, iccn, cdn] = types;
    assert_eq!(hidden(true), [(sccrq, false), (scccn, true), (icrq, true), (iccn, true), (cdn, true)]);
    assert_eq!(hidden(false), types.map(|message| (message, false)));
}

#[test]
fn hidden_values_that_do_not_open_are_told() {
    let script = Script { secret: Some(b"secret".to_vec()), hide: true, ..Script::default() };
    let error = failure(with_secret(b"wrong"), script);
    assert!(matches!(error, Error::HiddenAvp { message: MessageType::SCCRP, .. }), "{error}");
}

#[test]
fn a_call_has_the_serial_number_that_it_was_given() {
    let pair = Pair::established(Config { call_serial_number: 7, ..config() }, Script::default());
    assert_eq!(pair.lns.received[2].u32(Attribute::CALL_SERIAL_NUMBER), Some(7));
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
fn an_sccrp_without_a_required_avp_is_refused() {
    let version = |body: Body| body.u16(Attribute::PROTOCOL_VERSION, 0x0100);
    let framing = |body: Body| body.u32(Attribute::FRAMING_CAPABILITIES, 3);
    let name = |body: Body| body.bytes(Attribute::HOST_NAME, b"lns");
    let id = |body: Body| body.u16(Attribute::ASSIGNED_TUNNEL_ID, 5);
    let new = || Body::new(MessageType::SCCRP);
    for (body, attribute) in [
        (id(name(framing(new()))), Attribute::PROTOCOL_VERSION),
        (id(name(version(new()))), Attribute::FRAMING_CAPABILITIES),
        (id(framing(version(new()))), Attribute::HOST_NAME),
        (name(framing(version(new()))), Attribute::ASSIGNED_TUNNEL_ID),
    ] {
        let start = Instant::now();
        let mut lac = Lac::new(config(), StdRng::seed_from_u64(4));
        lac.connect(start);
        let header = ControlHeader { tunnel_id: lac.tunnel_id, session_id: SessionId(0), ns: 0, nr: 1 };
        lac.handle_message(start, &header.encode(&body.into_octets()));
        let error = Error::InvalidAvp { message: MessageType::SCCRP, attribute };
        assert_eq!(lac.poll_event(), Some(Event::Failed(error)));
    }
}

#[test]
fn an_icrp_without_a_session_id_is_refused() {
    for icrp in [Body::new(MessageType::ICRP), Body::new(MessageType::ICRP).u16(Attribute::ASSIGNED_SESSION_ID, 0)] {
        let script = Script { acknowledges_only: vec![MessageType::ICRQ], ..Script::default() };
        let mut pair = Pair::new(config(), script);
        pair.connect();
        pair.run(SECOND);
        pair.lns.send(pair.now, pair.lac.session_id, icrp);
        pair.run(SECOND);
        let attribute = Attribute::ASSIGNED_SESSION_ID;
        let error = Error::InvalidAvp { message: MessageType::ICRP, attribute };
        assert_eq!(pair.events.last(), Some(&Event::Failed(error)));
    }
}

#[test]
fn another_protocol_version_is_refused_with_ours() {
    for version in [0, 2] {
        let start = Instant::now();
        let mut lac = Lac::new(config(), StdRng::seed_from_u64(4));
        lac.connect(start);
        let sccrp = Body::new(MessageType::SCCRP)
            .u16(Attribute::PROTOCOL_VERSION, u16::from_be_bytes([version, 0]))
            .u16(Attribute::ASSIGNED_TUNNEL_ID, 5);
        let header = ControlHeader { tunnel_id: lac.tunnel_id, session_id: SessionId(0), ns: 0, nr: 1 };
        lac.handle_message(start, &header.encode(&sccrp.into_octets()));
        assert_eq!(lac.poll_event(), Some(Event::Failed(Error::UnsupportedVersion { version })));
        let stop = std::iter::from_fn(|| lac.poll_transmit()).last().unwrap();
        let Packet::Control(_, body) = Packet::read(&stop).unwrap() else { panic!() };
        assert_eq!(Message::read(body, None).unwrap().value(Attribute::RESULT_CODE), Some(&hex!("0005 0100")[..]));
    }
}
