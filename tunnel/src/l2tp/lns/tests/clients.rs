//! The very octets of clients of the field.

use hex_literal::hex;
use rand::{Rng, RngExt};

use super::*;

/// A client whose messages are written down; only the names that the LNS gives are put into them.
struct Recording {
    now: Instant,
    lns: Lns,
    tunnel: [u8; 2],
    session: [u8; 2],
}

impl Recording {
    fn new() -> Self {
        let lns = Lns::new(config(), StdRng::seed_from_u64(3));
        Self { now: Instant::now(), lns, tunnel: [0; 2], session: [0; 2] }
    }

    /// What the LNS answers to `message`, which is sent with these IDs in its header.
    fn send(&mut self, message: &[u8], tunnel: [u8; 2], session: [u8; 2]) -> Vec<Vec<u8>> {
        let mut message = message.to_vec();
        message[4..6].copy_from_slice(&tunnel);
        message[6..8].copy_from_slice(&session);
        assert_eq!(self.lns.handle_message(self.now, &message), None);
        std::iter::from_fn(|| self.lns.poll_transmit()).collect()
    }

    fn only(&mut self, message: &[u8], tunnel: [u8; 2], session: [u8; 2]) -> Vec<u8> {
        let mut answers = self.send(message, tunnel, session);
        assert_eq!(answers.len(), 1, "{answers:02x?}");
        answers.remove(0)
    }

    fn opened(&mut self) -> bool {
        std::iter::from_fn(|| self.lns.poll_event()).any(|event| matches!(event, LnsEvent::CallOpened { .. }))
    }
}

fn id(message: &[u8], attribute: Attribute) -> [u8; 2] {
    let Packet::Control(_, body) = Packet::read(message).unwrap() else { panic!() };
    Message::read(body, None).unwrap().u16(attribute).unwrap().to_be_bytes()
}

#[test]
fn xl2tpd_1_3_18_gets_its_call() {
    // A retransmission before the first answer is part of what it does.
    let sccrq = hex!(
        "c8020064000000000000000080080000000000018008000000020100800a0000000300000003800a00000004000000000008000000060690"
        "8009000000076c616300130000000878656c6572616e63652e636f6d800800000009ea9a80080000000a0004"
    );
    let scccn = hex!("c8020014f5830000000100018008000000000003");
    let icrq = hex!("c8020030f583000000020001800800000000000a80080000000ebfc0800a0000000f00000001800a0000001200000000");
    let iccn =
        hex!("c8020032f583b03f00030002800800000000000c800a0000001800000000800a0000001300000001000a0000002600000000");
    let stop_ccn = hex!("c802002eebaa00000004000280080000000000048008000000097c2180120000000100010000476f6f6462796521");
    let mut client = Recording::new();
    let sccrp = client.only(&sccrq, [0; 2], [0; 2]);
    assert_eq!(sccrp[4..12], hex!("ea9a 0000 0000 0001"));
    assert_eq!(client.only(&sccrq, [0; 2], [0; 2]), hex!("c802000c ea9a 0000 0001 0001"));
    client.tunnel = id(&sccrp, Attribute::ASSIGNED_TUNNEL_ID);
    let tunnel = client.tunnel;
    assert_eq!(client.only(&scccn, tunnel, [0; 2]), hex!("c802000c ea9a 0000 0001 0002"));
    let icrp = client.only(&icrq, tunnel, [0; 2]);
    assert_eq!(icrp[..26], hex!("c802001c ea9a bfc0 0001 0003 800800000000000b 80080000000e"));
    client.session = id(&icrp, Attribute::ASSIGNED_SESSION_ID);
    let session = client.session;
    assert_eq!(client.only(&iccn, tunnel, session), hex!("c802000c ea9a 0000 0002 0004"));
    assert!(client.opened());
    // Its first frame, without a Length field.
    let lcp =
        [&hex!("0002")[..], &tunnel, &session, &hex!("ff03c02101010014010405780206000000000506b7c0dbe5")].concat();
    let (call, frame) = client.lns.handle_message(client.now, &lcp).unwrap();
    assert_eq!((call.session.0.to_be_bytes(), &frame[..4]), (session, &hex!("ff03c021")[..]));
    assert_eq!(client.only(&stop_ccn, tunnel, [0; 2]), hex!("c802000c ea9a 0000 0002 0005"));
    let closed = std::iter::from_fn(|| client.lns.poll_event()).last();
    let Some(LnsEvent::TunnelClosed { error: Some(error), .. }) = closed else { panic!("{closed:?}") };
    assert!(error.to_string().ends_with("\"Goodbye!\""), "{error}");
}

/// What Android's client (mtpd) demands of a message before it looks into it: the flags of the header, an Ns that is the next
/// and an Nr that acknowledges all it has sent; 12 octets are an acknowledgment, and anything else starts with a Message Type
/// AVP that has the M bit. Returns the message type, zero for an acknowledgment.
fn mtpd_reads(datagram: &[u8], tunnel: [u8; 2], ns: u8, nr: u8) -> u8 {
    assert_eq!(datagram[..2], hex!("c802"), "no more and no fewer flags");
    assert_eq!(usize::from(u16::from_be_bytes([datagram[2], datagram[3]])), datagram.len());
    assert_eq!(datagram[4..6], tunnel);
    assert_eq!(datagram[8..12], [0, ns, 0, nr]);
    if datagram.len() == 12 {
        return 0;
    }
    assert_eq!(datagram[12..19], hex!("8008 0000 0000 00"));
    datagram[19]
}

#[test]
fn android_gets_its_call_with_a_window_of_one_and_bare_acknowledgments() {
    let ours = hex!("4a51");
    let sccrq = hex!(
        "c802 0045 0000 0000 0000 0000 8008 0000 0000 0001 8008 0000 0002 0100 800f 0000 0007 616e6f6e796d6f7573"
        "800a 0000 0003 00000003 8008 0000 0009 4a51 8008 0000 000a 0001"
    );
    let scccn = hex!("c802 0014 0000 0000 0001 0001 8008 0000 0000 0003");
    let icrq = hex!("c802 0026 0000 0000 0002 0001 8008 0000 0000 000a 8008 0000 000e 1c2d 800a 0000 000f 6b8b4567");
    let iccn =
        hex!("c802 0028 0000 0000 0003 0002 8008 0000 0000 000c 800a 0000 0018 05f5e100 800a 0000 0013 00000003");
    let mut client = Recording::new();
    let sccrp = client.only(&sccrq, [0; 2], [0; 2]);
    assert_eq!(mtpd_reads(&sccrp, ours, 0, 1), 2);
    let tunnel = id(&sccrp, Attribute::ASSIGNED_TUNNEL_ID);
    // It waits for this before it announces its call, and asks again after two seconds if it is lost.
    for _ in 0..2 {
        assert_eq!(mtpd_reads(&client.only(&scccn, tunnel, [0; 2]), ours, 1, 2), 0);
    }
    let icrp = client.only(&icrq, tunnel, [0; 2]);
    assert_eq!((mtpd_reads(&icrp, ours, 1, 3), &icrp[6..8]), (11, &hex!("1c2d")[..]));
    let session = id(&icrp, Attribute::ASSIGNED_SESSION_ID);
    assert_eq!(mtpd_reads(&client.only(&iccn, tunnel, session), ours, 2, 4), 0);
    assert!(client.opened());
    // Its goodbye.
    let stop_ccn = hex!("c802 0024 0000 0000 0004 0002 8008 0000 0000 0004 8008 0000 0009 4a51 8008 0000 0001 0006");
    assert_eq!(mtpd_reads(&client.only(&stop_ccn, tunnel, [0; 2]), ours, 2, 5), 0);
}

#[test]
fn the_scccn_is_acknowledged_by_itself_even_where_the_call_is_announced_already() {
    let mut client = Recording::new();
    let sccrq = ControlHeader { tunnel_id: TunnelId(0), session_id: SessionId(0), ns: 0, nr: 0 };
    let sccrp = client.only(&sccrq.encode(&sccrq_octets()), [0; 2], [0; 2]);
    let tunnel = id(&sccrp, Attribute::ASSIGNED_TUNNEL_ID);
    let header = |ns| ControlHeader { tunnel_id: TunnelId(0), session_id: SessionId(0), ns, nr: 1 };
    // They overtake each other.
    assert_eq!(client.only(&header(2).encode(&icrq(2).into_octets()), tunnel, [0; 2]).len(), 12);
    let answers = client.send(&header(1).encode(&Body::new(MessageType::SCCCN).into_octets()), tunnel, [0; 2]);
    assert_eq!(mtpd_reads(&answers[0], [0, 1], 1, 3), 0);
    assert_eq!(mtpd_reads(&answers[1], [0, 1], 1, 3), 11);
    assert_eq!(answers.len(), 2);
}

fn sccrq_octets() -> Vec<u8> {
    sccrq(1).into_octets()
}

#[test]
fn no_input_panics_and_none_fills_the_memory() {
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut bench, call) = Bench::established(config());
        let samples = [
            ControlHeader { tunnel_id: TunnelId(0), session_id: SessionId(0), ns: 0, nr: 0 }
                .encode(&sccrq(7).into_octets()),
            ControlHeader { tunnel_id: call.tunnel, session_id: SessionId(0), ns: 4, nr: 2 }
                .encode(&icrq(5).into_octets()),
            ControlHeader { tunnel_id: call.tunnel, session_id: call.session, ns: 5, nr: 3 }
                .encode(&iccn().into_octets()),
            data(call, Some(4), b"frame"),
        ];
        for _ in 0..200 {
            let mut input = match rng.random_range(0..3) {
                0 => samples[rng.random_range(0..samples.len())].clone(),
                1 => {
                    let mut body = vec![0; rng.random_range(0..80)];
                    rng.fill_bytes(&mut body);
                    let [ns, nr] = [4, 2].map(|next| next + rng.random_range(0..4));
                    ControlHeader { tunnel_id: call.tunnel, session_id: call.session, ns, nr }.encode(&body)
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
            bench.lns.handle_message(bench.now, &input);
            bench.run(Duration::from_millis(100));
        }
        assert!(bench.lns.tunnels.len() <= 4 && bench.lns.shared.calls <= 4);
        bench.lns.close(bench.now, CloseReason::Administrative);
        bench.run(200 * SECOND);
        assert!(bench.lns.tunnels.is_empty());
        assert_eq!(bench.lns.shared.calls, 0, "seed {seed}");
    }
}
