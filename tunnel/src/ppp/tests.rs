//! The client against scripted packets of a peer; the server in [`server`], both against each other in [`simulation`].

use super::*;
use crate::config::PppAuth;
use mschapv2::Exchange;
use zeroize::Zeroizing;

mod eap;
mod eap_tls;
mod hostile;
mod imitations;
mod ipv6;
mod negotiation;
mod phases;
mod server;
mod simulation;

const SECOND: Duration = Duration::from_secs(1);

struct Link {
    ppp: Ppp,
    now: Instant,
}

impl Link {
    fn new(auth: &[PppAuth]) -> Self {
        Self::with(auth, Config::default())
    }

    fn with(auth: &[PppAuth], config: Config) -> Self {
        let client = Client {
            username: "alice".to_owned(),
            password: Zeroizing::new("secret".to_owned()),
            auth: auth.to_vec(),
            ..Client::default()
        };
        Self::of(Config { role: Role::Client(client), ..config })
    }

    fn of(config: Config) -> Self {
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

    /// What is said in one second, each frame as [`Link::heard`] has it.
    fn second(&mut self) -> Vec<(Protocol, u8, u8, Vec<u8>)> {
        self.wait(SECOND);
        self.rest()
    }

    fn rest(&mut self) -> Vec<(Protocol, u8, u8, Vec<u8>)> {
        let mut frames = Vec::new();
        while let Some(frame) = self.ppp.poll_transmit() {
            let (protocol, information) = packet::split(&frame).unwrap();
            let packet = Packet::parse(information).unwrap();
            frames.push((protocol, packet.code, packet.id, packet.data.to_vec()));
        }
        frames
    }

    /// Seconds until the link fails while a peer does what `peer` does in each of them, and why it fails.
    fn outlasts(&mut self, mut peer: impl FnMut(&mut Self)) -> (u64, String) {
        for second in 0..120 {
            while let Some(event) = self.event() {
                if let Event::Failed(error) = event {
                    return (second, error.to_string());
                }
            }
            peer(self);
            self.wait(SECOND);
        }
        panic!("still trying");
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
    assert!(link.ppp.write_header(&mut Vec::new(), &IP[4..]).is_err());
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
    link.ppp.write_header(&mut header, &IP[4..]).unwrap();
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
fn pap_is_repeated_with_another_identifier_until_one_of_them_is_answered() {
    for answered in 0..2 {
        let mut link = Link::new(&[PppAuth::Pap]);
        link.establish(&PAP);
        let first = link.heard();
        assert_eq!(first.3, b"\x05alice\x06secret");
        link.wait(3 * SECOND);
        let second = link.heard();
        assert_eq!((second.2, &second.3), (first.2.wrapping_add(1), &first.3));
        link.say(Protocol::PAP, 3, second.2.wrapping_add(1), b"\x01?");
        assert_eq!(link.event(), None);
        link.say(Protocol::PAP, 3, [first.2, second.2][answered], b"\x09who's that");
        let error = Error::AuthenticationFailed { method: PppAuth::Pap, code: None, message: "who's tha".to_owned() };
        assert_eq!(link.event(), Some(Event::Failed(error)));
    }
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
    assert_eq!(error.to_string(), "LCP found no common ground: the peer never agrees");
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
    assert_eq!(error.to_string(), "IPCP found no common ground: the peer gives no address");
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
fn a_link_that_is_negotiated_anew_is_down_until_it_comes_up_again() {
    let mut link = Link::up();
    assert_eq!(link.ppp.limit, None);
    link.say(Protocol::LCP, 1, 51, &[]);
    assert_eq!(link.event(), Some(Event::IpcpDown));
    assert_eq!(link.ppp.handle_frame(link.now, &IP), None);
    let (.., id, data) = link.heard();
    assert_eq!(link.heard().1, 2);
    link.say(Protocol::LCP, 2, id, &data);
    assert_eq!(link.event(), Some(Event::LcpOpened));
    let (protocol, code, id, data) = link.heard();
    assert_eq!((protocol, code, &data[..6]), (Protocol::IPCP, 1, &[3, 6, 10, 0, 0, 9][..]));
    link.say(Protocol::IPCP, 2, id, &data);
    link.say(Protocol::IPCP, 1, 61, &[3, 6, 10, 0, 0, 1]);
    assert!(matches!(link.event(), Some(Event::IpcpOpened { .. })));
    link.say(Protocol::IPCP, 1, 62, &[3, 6, 10, 0, 0, 2]);
    assert_eq!(link.event(), Some(Event::IpcpDown), "IPCP alone");
}

#[test]
fn a_link_that_is_negotiated_anew_for_ever_is_given_up() {
    let mut link = Link::up();
    // LCP opens again and again, and IPCP never: the time does not begin anew.
    let (seconds, why) = link.outlasts(|link| {
        link.say(Protocol::LCP, 1, 51, &[]);
        for (protocol, code, id, data) in link.rest() {
            if (protocol, code) == (Protocol::LCP, 1) {
                link.say(Protocol::LCP, 2, id, &data);
            }
        }
    });
    assert_eq!((seconds, &*why), (60, "IPCP found no common ground: the peer comes to no end within 60 s"));
}

#[test]
fn a_peer_that_accepts_everything_and_asks_for_nothing_is_given_up() {
    let (seconds, why) = Link::new(&[PppAuth::Pap]).outlasts(|link| {
        for (protocol, _, id, data) in link.rest() {
            link.say(protocol, 2, id, &data);
        }
    });
    assert_eq!((seconds, &*why), (60, "LCP found no common ground: the peer comes to no end within 60 s"));
}

#[test]
fn a_peer_that_insists_is_given_up_and_told_by_what() {
    let insists = |options: &'static [u8]| {
        Link::new(&[PppAuth::Chap]).outlasts(move |link| {
            for (protocol, code, id, data) in link.rest() {
                if code == 1 {
                    link.say(protocol, 2, id, &data);
                }
            }
            link.say(Protocol::LCP, 1, 9, options);
        })
    };
    let callback = "LCP found no common ground: after 60 s the peer still insists on CALLBACK, MULTILINK_MRRU";
    assert_eq!(insists(&[13, 3, 6, 17, 4, 5, 0xdc]), (60, callback.to_owned()));
    assert_eq!(insists(&PAP), (60, "the gateway insists on PAP, which ppp.auth does not list".to_owned()));
}

#[test]
fn a_peer_that_challenges_for_ever_is_given_up() {
    let mut link = Link::new(&[PppAuth::Chap]);
    link.establish(&CHAP);
    let mut id = 0;
    let (seconds, why) = link.outlasts(|link| {
        id += 1;
        link.say(Protocol::CHAP, 1, id, &[4, id, 1, 2, 3]);
        assert!(link.rest().iter().any(|(protocol, code, ..)| (*protocol, *code) == (Protocol::CHAP, 2)));
    });
    assert_eq!(
        (seconds, &*why),
        (60, "PPP authentication found no common ground: the peer comes to no end within 60 s")
    );
}

#[test]
fn a_link_that_is_up_has_no_limit() {
    let mut link = Link::up();
    for _ in 0..100 {
        for (protocol, code, id, data) in link.second() {
            assert_eq!((protocol, code), (Protocol::LCP, 9));
            link.say(Protocol::LCP, 10, id, &data);
        }
    }
    assert_eq!(link.ppp.handle_frame(link.now, &IP), Some(&IP[4..]));
}

#[test]
fn a_peer_that_asks_for_no_authentication_gets_no_link_where_it_must_prove_itself() {
    let mut link = Link::new(&[PppAuth::MsChapV2]);
    link.establish(&[]);
    assert_eq!(link.event(), Some(Event::Failed(Error::AuthenticationSkipped)));
    link.silence();

    let mut link = Link::new(&[PppAuth::MsChapV2, PppAuth::Chap]);
    link.establish(&[]);
    link.address();
}

#[test]
fn a_close_asks_the_peer_to_terminate_and_waits_for_its_answer() {
    let mut link = Link::up();
    link.ppp.close(link.now);
    let (protocol, code, id, data) = link.heard();
    assert_eq!((protocol, code, data), (Protocol::LCP, 5, vec![]));
    assert_eq!(link.ppp.handle_frame(link.now, &IP), None);
    link.say(Protocol::IPCP, 1, 61, &[3, 6, 10, 0, 0, 1]);
    link.say(Protocol::LCP, 1, 62, &[]);
    link.silence();
    assert_eq!(link.event(), None);
    link.say(Protocol::LCP, 6, id, &[]);
    assert_eq!(link.event(), Some(Event::Closed));
    assert_eq!(link.ppp.poll_timeout(), None);
}

#[test]
fn a_close_without_an_answer_ends_after_max_terminate_requests() {
    let mut link = Link::up();
    link.ppp.close(link.now);
    link.wait(60 * SECOND);
    let codes: Vec<_> = link.rest().into_iter().map(|(_, code, ..)| code).collect();
    assert_eq!(codes, [5, 5]);
    assert_eq!(link.event(), Some(Event::Closed));
}

#[test]
fn a_close_after_a_failure_says_goodbye_and_before_the_beginning_nothing() {
    let mut link = Link::new(&[PppAuth::Pap]);
    link.establish(&PAP);
    let (.., id, _) = link.heard();
    link.say(Protocol::PAP, 3, id, &[]);
    assert!(matches!(link.event(), Some(Event::Failed(_))));
    link.ppp.close(link.now);
    assert_eq!(link.heard().1, 5);

    let mut ppp = Ppp::new(Config::default(), StdRng::from_seed([3; 32]));
    ppp.close(link.now);
    assert_eq!((ppp.poll_event(), ppp.poll_transmit()), (Some(Event::Closed), None));
}

#[test]
fn a_reject_of_ours_leaves_the_identifier_of_our_request_alone() {
    let mut link = Link::new(&[PppAuth::Pap]);
    let (.., id, data) = link.heard();
    link.say(Protocol::LCP, 99, 8, &[]);
    assert_ne!(link.heard().2, id);
    link.say(Protocol::LCP, 2, id, &data);
    link.say(Protocol::LCP, 1, 50, &[]);
    assert_eq!(link.heard().1, 2);
    assert_eq!(link.event(), Some(Event::LcpOpened));
}

#[test]
fn rejects_are_cut_to_the_mru_of_the_peer() {
    let mut link = Link::new(&[PppAuth::Pap]);
    link.establish(&[1, 4, 2, 0x40]);
    link.rest();
    let big = [7; 1000];
    let whole = [&[0x80, 0xfd][..], &big].concat();
    link.ppp.handle_frame(link.now, &whole);
    assert_eq!(link.heard().3, whole[..576 - 4], "Protocol-Reject");
    link.say(Protocol::LCP, 99, 8, &big);
    assert_eq!(link.heard().3.len(), 576 - 4, "Code-Reject");
    link.say(Protocol::IPCP, 99, 8, &big);
    assert_eq!(link.heard().3.len(), 576 - 4, "Code-Reject of IPCP");
    link.say(Protocol::LCP, 9, 8, &big);
    assert_eq!(link.heard().3.len(), 576 - 4, "Echo-Reply");
}

#[test]
fn a_protocol_reject_counts_only_while_lcp_is_open_and_for_what_is_under_way() {
    let mut link = Link::new(&[PppAuth::Pap]);
    link.say(Protocol::LCP, 8, 9, &[0xc0, 0x21, 1, 1, 0, 4]);
    assert_eq!(link.event(), None);
    link.establish(&PAP);
    // IPCP has not begun.
    link.say(Protocol::LCP, 8, 9, &[0x80, 0x21, 1, 1, 0, 4]);
    assert_eq!(link.event(), None);
    link.say(Protocol::LCP, 8, 9, &[0xc0, 0x23, 1, 1, 0, 4]);
    assert!(matches!(link.event(), Some(Event::Failed(Error::NegotiationFailed { phase: Phase::Authentication, .. }))));
}

#[test]
fn counters_and_timers_are_those_of_the_configuration() {
    let counters = Counters { restart: 8 * SECOND, max_configure: 2, max_terminate: 1, max_failure: 1 };
    let mut link = Link::with(&[PppAuth::MsChapV2], Config { counters, ..Config::default() });
    link.say(Protocol::LCP, 1, 1, &PAP);
    link.say(Protocol::LCP, 1, 2, &PAP);
    let codes = |link: &mut Link| link.rest().into_iter().map(|(_, code, ..)| code).collect::<Vec<_>>();
    assert_eq!(codes(&mut link), [1, 3, 4], "one Nak");

    let mut link = Link::with(&[PppAuth::Pap], Config { counters, ..Config::default() });
    link.wait(2 * SECOND);
    assert_eq!(codes(&mut link), [1, 1], "a quarter of the Restart timer");
    link.wait(4 * SECOND);
    assert!(matches!(link.event(), Some(Event::Failed(Error::NoResponse { .. }))));

    let mut link = Link::with(&[PppAuth::Pap], Config { counters, ..Config::default() });
    link.ppp.close(link.now);
    link.wait(20 * SECOND);
    assert_eq!(codes(&mut link), [1, 5], "one Terminate-Request");
}
