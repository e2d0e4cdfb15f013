//! SCCRQs that cross.

use super::*;
use crate::l2tp::channel::{Channel, Retransmission};
use crate::l2tp::response;

/// A LAC that has sent its SCCRQ, and an end that sends one too.
struct Crossing {
    now: Instant,
    lac: Lac,
    ours: [u8; 8],
    other: Channel,
    received: Vec<(SessionId, Message)>,
}

impl Crossing {
    fn new(config: Config) -> Self {
        let now = Instant::now();
        let mut lac = Lac::new(config, StdRng::seed_from_u64(5));
        lac.connect(now);
        let sccrq = lac.poll_transmit().unwrap();
        let Packet::Control(_, body) = Packet::read(&sccrq).unwrap() else { panic!() };
        let sccrq = Message::read(body, None).unwrap();
        let ours = sccrq.value(Attribute::TIE_BREAKER).unwrap().try_into().unwrap();
        Self { now, lac, ours, other: Channel::new(Retransmission::default(), 4), received: Vec::new() }
    }

    fn sccrq(&self, tie_breaker: Option<u64>) -> Body {
        let body = Body::new(MessageType::SCCRQ)
            .u16(Attribute::PROTOCOL_VERSION, 0x0100)
            .bytes(Attribute::HOST_NAME, b"other")
            .u32(Attribute::FRAMING_CAPABILITIES, 3)
            .u16(Attribute::ASSIGNED_TUNNEL_ID, 9);
        match tie_breaker {
            Some(value) => body.bytes(Attribute::TIE_BREAKER, &value.to_be_bytes()),
            None => body,
        }
    }

    /// The other end says something and hears what the LAC has to say.
    fn say(&mut self, body: Body) {
        self.other.send(SessionId(0), body).unwrap();
        for _ in 0..4 {
            self.other.flush(self.now);
            while let Some(datagram) = self.other.poll_transmit() {
                assert_eq!(self.lac.handle_message(self.now, &datagram), None);
            }
            while let Some(datagram) = self.lac.poll_transmit() {
                let Packet::Control(header, body) = Packet::read(&datagram).unwrap() else { panic!() };
                if header.tunnel_id == TunnelId(9) {
                    self.other.handle_message(self.now, &header, body);
                }
            }
            while let Some((session, body)) = self.other.poll_message() {
                let message = Message::read(&body, None).unwrap();
                if message.message_type == MessageType::SCCRP {
                    let id = message.u16(Attribute::ASSIGNED_TUNNEL_ID).unwrap();
                    self.other.set_tunnel_id(TunnelId(id));
                }
                self.received.push((session, message));
            }
        }
    }

    fn types(&self) -> Vec<MessageType> {
        self.received.iter().map(|(_, message)| message.message_type).collect()
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.lac.poll_event()).collect()
    }

    fn number(&self) -> u64 {
        u64::from_be_bytes(self.ours)
    }
}

#[test]
fn the_lower_tie_breaker_wins_and_the_loser_places_its_call_in_the_tunnel_of_the_other() {
    let mut crossing = Crossing::new(config());
    let lost = crossing.lac.tunnel_id;
    let lower = crossing.number() - 1;
    crossing.say(crossing.sccrq(Some(lower)));
    assert_eq!(crossing.types(), [MessageType::SCCRP]);
    assert_ne!(crossing.lac.tunnel_id, lost);
    crossing.say(Body::new(MessageType::SCCCN));
    assert_eq!(crossing.types(), [MessageType::SCCRP, MessageType::ICRQ]);
    let id = crossing.received[1].1.u16(Attribute::ASSIGNED_SESSION_ID).unwrap();
    crossing.other.send(SessionId(id), Body::new(MessageType::ICRP).u16(Attribute::ASSIGNED_SESSION_ID, 3)).unwrap();
    crossing.say(Body::new(MessageType::HELLO));
    assert!(crossing.lac.is_established());
    let [Event::ControlEstablished(peer), Event::SessionEstablished] = &crossing.events()[..] else { panic!() };
    assert_eq!(peer.host_name, "other");
    // What is retransmitted of the tunnel that was discarded, or of the SCCRQ, changes nothing.
    let again = ControlHeader { tunnel_id: TunnelId(0), session_id: SessionId(0), ns: 0, nr: 0 };
    crossing.lac.handle_message(crossing.now, &again.encode(&crossing.sccrq(Some(lower)).into_octets()));
    let late = ControlHeader { tunnel_id: lost, session_id: SessionId(0), ns: 0, nr: 1 };
    crossing.lac.handle_message(crossing.now, &late.encode(&Body::new(MessageType::SCCRP).into_octets()));
    assert!(crossing.lac.is_established());
    assert_eq!(
        crossing.lac.poll_transmit().map(|datagram| datagram.len()),
        Some(12),
        "the acknowledgment of the SCCRQ"
    );
    assert_eq!(crossing.lac.poll_transmit(), None);
}

#[test]
fn the_higher_tie_breaker_loses_silently() {
    let mut crossing = Crossing::new(config());
    let higher = crossing.number() + 1;
    let ours = crossing.lac.tunnel_id;
    crossing.say(crossing.sccrq(Some(higher)));
    assert_eq!(crossing.types(), []);
    assert_eq!(crossing.lac.tunnel_id, ours);
    assert_eq!(crossing.lac.control, control::State::WaitCtlReply);
    assert_eq!(crossing.events(), []);
}

#[test]
fn an_sccrq_without_a_tie_breaker_loses_and_is_told() {
    let mut crossing = Crossing::new(config());
    crossing.say(crossing.sccrq(None));
    assert_eq!(crossing.types(), [MessageType::STOPCCN]);
    assert_eq!(crossing.lac.control, control::State::WaitCtlReply);
}

#[test]
fn equal_tie_breakers_end_both_tunnels() {
    let mut crossing = Crossing::new(config());
    let equal = crossing.number();
    crossing.say(crossing.sccrq(Some(equal)));
    assert_eq!(crossing.types(), []);
    assert_eq!(crossing.events(), [Event::Failed(Error::UnexpectedMessage(MessageType::SCCRQ))]);
    assert_eq!(crossing.lac.poll_timeout(), None);
}

#[test]
fn the_loser_proves_itself_and_demands_proof() {
    for (answer, established) in [(true, true), (false, false)] {
        let mut crossing = Crossing::new(with_secret(b"secret"));
        let lower = crossing.number() - 1;
        crossing.say(crossing.sccrq(Some(lower)).bytes(Attribute::CHALLENGE, b"?"));
        let sccrp = &crossing.received[0].1;
        let expected = response(MessageType::SCCRP, b"secret", b"?");
        assert_eq!(sccrp.value(Attribute::CHALLENGE_RESPONSE), Some(&expected[..]));
        let challenge = sccrp.value(Attribute::CHALLENGE).unwrap();
        let response = response(MessageType::SCCCN, if answer { b"secret" } else { b"wrong!" }, challenge);
        crossing.say(Body::new(MessageType::SCCCN).bytes(Attribute::CHALLENGE_RESPONSE, &response));
        let last = if established { MessageType::ICRQ } else { MessageType::STOPCCN };
        assert_eq!(crossing.types(), [MessageType::SCCRP, last]);
    }
}
