//! The client against scripted packets of a peer.

use super::*;
use mschapv2::Exchange;

const SECOND: Duration = Duration::from_secs(1);

struct Link {
    ppp: Ppp,
    now: Instant,
}

impl Link {
    fn new(auth: &[PppAuth]) -> Self {
        let config = Config {
            username: "alice".to_owned(),
            password: Zeroizing::new("secret".to_owned()),
            auth: auth.to_vec(),
            ..Config::default()
        };
        let mut ppp = Ppp::new(config, StdRng::from_seed([3; 32]));
        let now = Instant::now();
        ppp.open(now);
        Self { ppp, now }
    }

    fn say(&mut self, protocol: Protocol, code: u8, id: u8, data: &[u8]) {
        let frame = Packet { code, id, data }.frame(protocol);
        assert_eq!(self.ppp.handle_frame(self.now, &frame), None);
    }

    /// The next frame as protocol, code, identifier and data.
    fn heard(&mut self) -> (Protocol, u8, u8, Vec<u8>) {
        let frame = self.ppp.poll_transmit().expect("the client says nothing");
        let (protocol, information) = packet::split(&frame).unwrap();
        let packet = Packet::parse(information).unwrap();
        (protocol, packet.code, packet.id, packet.data.to_vec())
    }

    fn silence(&mut self) {
        assert_eq!(self.ppp.poll_transmit(), None);
    }

    fn event(&mut self) -> Option<Event> {
        self.ppp.poll_event()
    }

    /// LCP up to Opened; `options` are those of the peer's request.
    fn establish(&mut self, options: &[u8]) {
        let (protocol, code, id, data) = self.heard();
        assert_eq!((protocol, code), (Protocol::LCP, 1));
        self.say(Protocol::LCP, 2, id, &data);
        self.say(Protocol::LCP, 1, 50, options);
        assert_eq!(self.heard(), (Protocol::LCP, 2, 50, options.to_vec()));
        assert_eq!(self.event(), Some(Event::LcpOpened));
    }

    /// IPCP up to Opened, with the address 10.0.0.9.
    fn address(&mut self) {
        let (protocol, code, id, data) = self.heard();
        assert_eq!((protocol, code), (Protocol::IPCP, 1));
        assert_eq!(data[..6], [3, 6, 0, 0, 0, 0]);
        self.say(Protocol::IPCP, 3, id, &[3, 6, 10, 0, 0, 9, 129, 6, 10, 0, 0, 53]);
        let (_, _, id, data) = self.heard();
        assert_eq!(data[..12], [3, 6, 10, 0, 0, 9, 129, 6, 10, 0, 0, 53]);
        self.say(Protocol::IPCP, 4, id, &data[12..]);
        let (_, _, id, data) = self.heard();
        self.say(Protocol::IPCP, 2, id, &data);
        self.say(Protocol::IPCP, 1, 60, &[3, 6, 10, 0, 0, 1]);
        assert_eq!(self.heard(), (Protocol::IPCP, 2, 60, vec![3, 6, 10, 0, 0, 1]));
        let opened = Event::IpcpOpened {
            address: [10, 0, 0, 9].into(),
            peer: Some([10, 0, 0, 1].into()),
            dns: vec![[10, 0, 0, 53].into()],
        };
        assert_eq!(self.event(), Some(opened));
    }

    fn up() -> Self {
        let mut link = Self::new(&[PppAuth::Pap]);
        link.establish(&[]);
        link.address();
        link
    }

    /// Lets time pass until the link has nothing left to wait for, or `limit` is over.
    fn wait(&mut self, limit: Duration) {
        let end = self.now + limit;
        while let Some(at) = self.ppp.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.ppp.handle_timeout(self.now);
        }
        self.now = end;
    }
}

const PAP: [u8; 4] = [3, 4, 0xc0, 0x23];
const CHAP: [u8; 5] = [3, 5, 0xc2, 0x23, 5];
const MS_CHAP_V2: [u8; 5] = [3, 5, 0xc2, 0x23, 0x81];
const IP: [u8; 24] = [0xff, 3, 0, 0x21, 0x45, 0, 0, 20, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 9];

#[test]
fn a_link_with_ms_chap_v2_comes_up_and_carries_packets() {
    let mut link = Link::new(&[PppAuth::MsChapV2]);
    assert!(link.ppp.write_ip_header(&mut Vec::new()).is_err());
    link.establish(&MS_CHAP_V2);
    link.say(Protocol::CHAP, 1, 4, &[&[16][..], &[9; 16], b"lns"].concat());
    let (_, code, id, data) = link.heard();
    assert_eq!((code, id, data[0], &data[50..]), (2, 4, 49, &b"alice"[..]));
    let exchange = Exchange {
        authenticator_challenge: [9; 16],
        peer_challenge: data[1..17].try_into().unwrap(),
        username: "alice",
        password: "secret",
    };
    let response = data[25..49].try_into().unwrap();
    assert_eq!(exchange.nt_response(), response);
    // Not yet: the peer has proved nothing.
    link.say(Protocol::IPCP, 1, 1, &[3, 6, 10, 0, 0, 1]);
    link.silence();
    link.say(Protocol::CHAP, 3, 4, exchange.authenticator_response(&response).as_bytes());
    assert_eq!(link.event(), Some(Event::Authenticated { method: PppAuth::MsChapV2 }));
    link.address();
    assert_eq!(link.ppp.handle_frame(link.now, &IP), Some(&IP[4..]));
    let mut header = Vec::new();
    link.ppp.write_ip_header(&mut header).unwrap();
    assert_eq!(header, IP[..IP_HEADER]);
    // The peer repeats its challenge while the link is up, and gets the same answer.
    link.say(Protocol::CHAP, 1, 4, &[&[16][..], &[9; 16], b"lns"].concat());
    assert_eq!(link.heard().3, data);
}

#[test]
fn an_authenticator_without_the_password_gets_no_link() {
    let mut link = Link::new(&[PppAuth::MsChapV2]);
    link.establish(&MS_CHAP_V2);
    link.say(Protocol::CHAP, 1, 4, &[&[16][..], &[9; 16], b"lns"].concat());
    link.say(Protocol::CHAP, 3, 4, b"S=0123456789ABCDEF0123456789ABCDEF01234567 M=welcome");
    assert_eq!(link.event(), Some(Event::Failed(Error::AuthenticatorNotVerified)));
    assert_eq!(link.ppp.handle_frame(link.now, &IP), None);
}

#[test]
fn pap_is_repeated_until_it_is_answered_and_names_the_refusal() {
    let mut link = Link::new(&[PppAuth::Pap]);
    link.establish(&PAP);
    let first = link.heard();
    assert_eq!(first.3, b"\x05alice\x06secret");
    link.wait(3 * SECOND);
    assert_eq!(link.heard(), first);
    link.say(Protocol::PAP, 3, first.2, b"\x09who's that");
    let error = Error::AuthenticationFailed { method: PppAuth::Pap, code: None, message: "who's tha".to_owned() };
    assert_eq!(link.event(), Some(Event::Failed(error)));
}

#[test]
fn an_authenticator_that_falls_silent_is_given_up() {
    for (option, protocol) in [(&PAP[..], PppAuth::Pap), (&CHAP, PppAuth::Chap)] {
        let mut link = Link::new(&[protocol]);
        link.establish(option);
        link.wait(60 * SECOND);
        let error = Error::NoResponse { phase: Phase::Authentication };
        assert_eq!(link.event(), Some(Event::Failed(error)));
    }
}

#[test]
fn an_authentication_that_may_not_be_used_is_named_at_the_end() {
    let mut link = Link::new(&[PppAuth::MsChapV2]);
    let (.., id, data) = link.heard();
    link.say(Protocol::LCP, 2, id, &data);
    link.say(Protocol::LCP, 1, 1, &PAP);
    assert_eq!(link.heard(), (Protocol::LCP, 3, 1, MS_CHAP_V2.to_vec()));
    link.say(Protocol::LCP, 5, 2, b"peer refused to authenticate");
    assert_eq!(link.event(), Some(Event::Failed(Error::NoAcceptableAuthentication { wanted: "PAP".to_owned() })));

    let mut link = Link::new(&[PppAuth::MsChapV2]);
    for id in 0..5 {
        link.say(Protocol::LCP, 1, id, &PAP);
    }
    while link.ppp.poll_transmit().is_some() {}
    link.say(Protocol::LCP, 1, 5, &PAP);
    assert_eq!(link.heard(), (Protocol::LCP, 4, 5, PAP.to_vec()));
    link.wait(60 * SECOND);
    assert_eq!(link.event(), Some(Event::Failed(Error::NoAcceptableAuthentication { wanted: "PAP".to_owned() })));
}

#[test]
fn a_silent_peer_gets_ten_requests_and_no_more() {
    let mut link = Link::new(&[PppAuth::Pap]);
    link.heard();
    for milliseconds in [750, 1500, 3000, 3000, 3000, 3000, 3000, 3000, 3000] {
        link.silence();
        link.wait(Duration::from_millis(milliseconds));
        link.heard();
    }
    assert_eq!(link.event(), None);
    link.wait(3 * SECOND);
    link.silence();
    assert_eq!(link.event(), Some(Event::Failed(Error::NoResponse { phase: Phase::Establishment })));
    assert_eq!(link.ppp.poll_timeout(), None);
}

#[test]
fn a_peer_that_never_agrees_is_given_up() {
    let mut link = Link::new(&[PppAuth::Pap]);
    for _ in 0..=20 {
        let (.., id, _) = link.heard();
        link.say(Protocol::LCP, 3, id, &[1, 4, 5, 0]);
    }
    let Some(Event::Failed(error)) = link.event() else { panic!("still trying") };
    assert_eq!(error.to_string(), "LCP found no common ground: the gateway never agrees");
}

#[test]
fn protocols_that_are_not_spoken_are_rejected_once_the_link_is_up() {
    let mut link = Link::new(&[PppAuth::Pap]);
    link.establish(&[]);
    let ccp = [1, 1, 0, 10, 18, 6, 1, 0, 0, 0x40];
    let frame = [&[0xff, 3, 0x80, 0xfd][..], &ccp].concat();
    while link.ppp.poll_transmit().is_some() {}
    assert_eq!(link.ppp.handle_frame(link.now, &frame), None);
    let (protocol, code, _, data) = link.heard();
    assert_eq!((protocol, code, data), (Protocol::LCP, 8, [&[0x80, 0xfd][..], &ccp].concat()));
}

#[test]
fn unknown_codes_are_rejected_with_the_packet() {
    let mut link = Link::new(&[PppAuth::Pap]);
    link.heard();
    link.say(Protocol::LCP, 99, 8, &[1, 2]);
    let (protocol, code, _, data) = link.heard();
    assert_eq!((protocol, code, data), (Protocol::LCP, 7, vec![99, 8, 0, 6, 1, 2]));
}

#[test]
fn a_peer_without_an_address_for_us_is_no_use() {
    let mut link = Link::new(&[PppAuth::Pap]);
    link.establish(&[]);
    let (.., id, data) = link.heard();
    link.say(Protocol::IPCP, 4, id, &data);
    let (.., id, data) = link.heard();
    assert!(data.is_empty());
    link.say(Protocol::IPCP, 2, id, &[]);
    link.say(Protocol::IPCP, 1, 60, &[]);
    let Some(Event::Failed(error)) = link.event() else { panic!("no failure") };
    assert_eq!(error.to_string(), "IPCP found no common ground: the gateway gives no address");
}

#[test]
fn a_rejected_ipcp_is_an_error() {
    let mut link = Link::new(&[PppAuth::Pap]);
    link.establish(&[]);
    link.say(Protocol::LCP, 8, 9, &[0x80, 0x21, 1, 1, 0, 4]);
    assert!(matches!(link.event(), Some(Event::Failed(Error::NegotiationFailed { phase: Phase::Network, .. }))));
}

#[test]
fn the_end_of_a_link_comes_with_the_words_of_the_peer() {
    let mut link = Link::up();
    link.say(Protocol::LCP, 5, 77, b"idle time is over");
    assert_eq!(link.heard(), (Protocol::LCP, 6, 77, vec![]));
    assert_eq!(link.event(), Some(Event::Down { text: "idle time is over".to_owned() }));
    assert_eq!(link.ppp.handle_frame(link.now, &IP), None);

    let mut link = Link::new(&[PppAuth::Pap]);
    link.establish(&PAP);
    link.say(Protocol::LCP, 5, 77, b"");
    let error = Error::PeerTerminated { phase: Phase::Authentication, message: String::new() };
    assert_eq!(link.event(), Some(Event::Failed(error)));
}

#[test]
fn echoes_are_sent_when_nothing_comes_and_counted_when_they_are_lost() {
    let mut link = Link::up();
    link.wait(15 * SECOND);
    link.ppp.handle_activity(link.now);
    link.wait(15 * SECOND);
    link.silence();
    link.wait(5 * SECOND);
    let (protocol, code, id, data) = link.heard();
    assert_eq!((protocol, code, data), (Protocol::LCP, 9, link.ppp.lcp.options.magic().to_be_bytes().to_vec()));
    link.now += SECOND;
    link.say(Protocol::LCP, 10, id, &[0; 4]);
    assert_eq!(link.event(), Some(Event::EchoReply { round_trip: SECOND }));
    link.wait(30 * SECOND);
    let lost: Vec<_> = std::iter::from_fn(|| link.event()).collect();
    assert_eq!(lost, [1, 2, 3].map(|count| Event::EchoLost { count }));
}

#[test]
fn an_echo_is_answered_with_our_number_unless_it_is_our_own() {
    let mut link = Link::up();
    let magic = link.ppp.lcp.options.magic().to_be_bytes();
    link.say(Protocol::LCP, 9, 5, &[1, 1, 1, 1, b'x']);
    assert_eq!(link.heard(), (Protocol::LCP, 10, 5, [&magic[..], b"x"].concat()));
    link.say(Protocol::LCP, 9, 6, &magic);
    link.silence();
}

#[test]
fn a_link_that_is_negotiated_anew_comes_up_again() {
    let mut link = Link::up();
    link.say(Protocol::LCP, 1, 51, &[]);
    assert_eq!(link.ppp.handle_frame(link.now, &IP), None);
    let (.., id, data) = link.heard();
    assert_eq!(link.heard().1, 2);
    link.say(Protocol::LCP, 2, id, &data);
    assert_eq!(link.event(), Some(Event::LcpOpened));
    let (protocol, code, ..) = link.heard();
    assert_eq!((protocol, code), (Protocol::IPCP, 1));
}

#[test]
fn nothing_that_a_peer_sends_makes_it_panic_or_queue_without_bound() {
    use rand::RngExt;
    let mut rng = StdRng::from_seed([9; 32]);
    for _ in 0..300 {
        let mut link = Link::new(&[PppAuth::MsChapV2, PppAuth::Pap]);
        for _ in 0..60 {
            let protocol = [0xc021_u16, 0xc023, 0xc223, 0x8021, 0x80fd, 0x21][rng.random_range(0..6)];
            let mut frame = protocol.to_be_bytes().to_vec();
            let length = rng.random_range(0..24);
            frame.extend([rng.random_range(0..14), rng.random_range(0..4), 0, length]);
            frame.extend((0..rng.random_range(0..24)).map(|_| rng.random_range(0..12)));
            link.ppp.handle_frame(link.now, &frame);
            link.now += Duration::from_millis(rng.random_range(0..4000));
            link.ppp.handle_timeout(link.now);
        }
        assert!(std::iter::from_fn(|| link.ppp.poll_transmit()).count() <= 16);
        assert!(std::iter::from_fn(|| link.event()).count() <= MAX_EVENTS);
    }
}
