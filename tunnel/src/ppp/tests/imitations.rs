//! The habits of clients in the field, byte by byte, against the server.

use hex_literal::hex;

use super::server::{asked, assignment};
use super::*;
use crate::aaa::{Grant, Proof};

struct Client {
    link: Link,
    /// The Identifier of the server's first Configure-Request, and its options.
    request: (u8, Vec<u8>),
}

impl Client {
    /// A server that demands each protocol in turn, as a client sees it that answers its first request.
    fn new() -> Self {
        let server = Server { ipv6: true, ..Server::default() };
        let mut link = Link::of(Config { role: Role::Server(server), ..Config::default() });
        let (protocol, code, id, data) = link.heard();
        assert_eq!((protocol, code), (Protocol::LCP, 1));
        assert_eq!((&data[..9], data.len()), (&hex!("01040578 0305c22381")[..], 15));
        Self { link, request: (id, data) }
    }

    /// Sends the octets of a frame.
    fn say(&mut self, frame: &[u8]) {
        assert_eq!(self.link.ppp.handle_frame(self.link.now, frame), None);
    }

    /// Acknowledges the last Configure-Request of LCP.
    fn acknowledge(&mut self) {
        let (id, options) = self.request.clone();
        self.link.say(Protocol::LCP, 2, id, &options);
    }

    /// The next frame of the server is this one.
    fn hears(&mut self, frame: &[u8]) {
        let heard = self.link.ppp.poll_transmit().expect("the server says nothing");
        assert_eq!(heard, frame, "\nheard {heard:02x?}\nwant  {frame:02x?}");
    }

    /// The protocol is rejected with the packet in it.
    fn hears_protocol_reject(&mut self, protocol: [u8; 2], packet: &[u8]) {
        let (of, code, _, data) = self.link.heard();
        assert_eq!((of, code, data), (Protocol::LCP, 8, [&protocol[..], packet].concat()));
    }

    /// The exchange of MS-CHAPv2, from the Challenge to the network phase.
    fn authenticates(&mut self, name: &str) {
        let (protocol, code, id, data) = self.link.heard();
        assert_eq!((protocol, code, data[0]), (Protocol::CHAP, 1, 16));
        let exchange = Exchange {
            authenticator_challenge: data[1..17].try_into().unwrap(),
            peer_challenge: [4; 16],
            username: name,
            password: "secret",
        };
        let value = mschapv2::Response { peer_challenge: [4; 16], nt_response: exchange.nt_response() }.write();
        self.link.say(Protocol::CHAP, 2, id, &[&[49][..], &value, name.as_bytes()].concat());
        assert_eq!(self.link.event(), Some(Event::LcpOpened));
        let request = asked(&mut self.link);
        let Proof::MsChapV2 { nt_response, .. } = request.proof else { panic!("{request:?}") };
        assert_eq!((request.name.as_str(), exchange.verify(&nt_response)), (name, true));
        let response = exchange.authenticator_response(&nt_response);
        let grant = Grant { authenticator_response: Some(response.clone()), ..Grant::default() };
        self.link.ppp.accept(self.link.now, &grant, assignment());
        let success = format!("{response} M=welcome").into_bytes();
        assert_eq!(self.link.heard(), (Protocol::CHAP, 3, id, success));
        assert_eq!(self.link.event(), Some(Event::Authenticated { method: PppAuth::MsChapV2 }));
    }

    /// Acknowledges the requests of the server's network control protocols.
    fn acknowledges_network(&mut self) {
        for expected in [Protocol::IPCP, Protocol::IPV6CP] {
            let (protocol, code, id, data) = self.link.heard();
            assert_eq!((protocol, code), (expected, 1));
            if expected == Protocol::IPCP {
                assert_eq!(data, hex!("0306 0a000001"));
            }
            self.link.say(protocol, 2, id, &data);
        }
    }

    fn is_up(&mut self) {
        self.link.silence();
        let events: Vec<_> = std::iter::from_fn(|| self.link.event()).collect();
        assert!(events.iter().any(|event| matches!(event, Event::IpcpOpened { .. })), "{events:?}");
        assert_eq!(self.link.ppp.handle_frame(self.link.now, &IP), Some(&IP[4..]));
    }
}

#[test]
fn windows() {
    let mut windows = Client::new();
    // MRU 1400, magic number, PFC, ACFC, callback by CBCP, MRRU 1614, endpoint discriminator.
    windows.say(&hex!(
        "ff03 c021 01 00 0030 01040578 0506 1c2d3e4f 0702 0802 0d0306 1104064e"
        "1317 01 00112233445566778899aabbccddeeff 00000000"
    ));
    windows.hears(&hex!("ff03 c021 04 00 0022 0d0306 1104064e 1317 01 00112233445566778899aabbccddeeff 00000000"));
    windows.acknowledge();
    windows.say(&hex!("ff03 c021 01 01 0012 01040578 0506 1c2d3e4f 0702 0802"));
    windows.hears(&hex!("ff03 c021 02 01 0012 01040578 0506 1c2d3e4f 0702 0802"));
    // Identification, MSRASV5.20 and the name of the machine, without address and control field.
    windows.say(&hex!("c021 0c 02 0012 1c2d3e4f 4d53524153 56352e3230"));
    windows.say(&hex!("c021 0c 03 0017 1c2d3e4f 4d53524153 2d302d 4445534b544f50"));
    windows.authenticates("CORP\\alice");
    // CCP with MPPE and MPPC, before anything else.
    windows.say(&hex!("80fd 01 06 000a 1206 01000001"));
    windows.hears_protocol_reject([0x80, 0xfd], &hex!("01 06 000a 1206 01000001"));
    windows.acknowledges_network();
    windows.say(&hex!("8057 01 05 000e 010a 0102030405060708"));
    windows.hears(&hex!("ff03 8057 02 05 000e 010a 0102030405060708"));
    windows.say(&hex!("8021 01 07 0022 0306 00000000 8106 00000000 8206 00000000 8306 00000000 8406 00000000"));
    windows.hears(&hex!("ff03 8021 04 07 0016 8206 00000000 8306 00000000 8406 00000000"));
    windows.say(&hex!("8021 01 08 0010 0306 00000000 8106 00000000"));
    windows.hears(&hex!("ff03 8021 03 08 0010 0306 0a000009 8106 0a000035"));
    windows.say(&hex!("8021 01 09 0010 0306 0a000009 8106 0a000035"));
    windows.hears(&hex!("ff03 8021 02 09 0010 0306 0a000009 8106 0a000035"));
    windows.is_up();
    // Address, control and protocol field compressed.
    let packet = [&[0x21][..], &IP[4..]].concat();
    assert_eq!(windows.link.ppp.handle_frame(windows.link.now, &packet), Some(&IP[4..]));
}

#[test]
fn windows_that_is_set_to_eap() {
    let server = Server { auth: vec![PppAuth::MsChapV2, PppAuth::Eap], ..Server::default() };
    let mut link = Link::of(Config { role: Role::Server(server), ..Config::default() });
    let id = link.heard().2;
    link.say(Protocol::LCP, 3, id, &hex!("0304c227"));
    let (_, code, id, data) = link.heard();
    assert_eq!((code, &data[..8]), (1, &hex!("01040578 0304c227")[..]));
    link.say(Protocol::LCP, 2, id, &data);
    link.say(Protocol::LCP, 1, 1, &hex!("01040578 0506 1c2d3e4f 0702 0802"));
    link.heard();
    assert_eq!(link.event(), Some(Event::LcpOpened));
    let id = link.heard().2;
    // The Identity, without address and control field.
    let frame = [&hex!("c227 02")[..], &[id], &hex!("000f 01 434f52505c616c696365")[..]].concat();
    assert_eq!(link.ppp.handle_frame(link.now, &frame[..]), None);
    let (_, code, id, data) = link.heard();
    assert_eq!((code, &data[..2]), (1, &[26, 1][..]));
    let exchange = Exchange {
        authenticator_challenge: data[6..22].try_into().unwrap(),
        peer_challenge: [4; 16],
        username: "CORP\\alice",
        password: "secret",
    };
    let value = mschapv2::Response { peer_challenge: [4; 16], nt_response: exchange.nt_response() }.write();
    let response = [&[26, 2, data[2], 0, 64, 49][..], &value, b"CORP\\alice"].concat();
    link.say(Protocol::EAP, 2, id, &response);
    let request = asked(&mut link);
    assert_eq!(request.name, "CORP\\alice");
    let proof = Some(exchange.authenticator_response(&exchange.nt_response()));
    assert!(link.ppp.accept(link.now, &Grant { authenticator_response: proof, ..Grant::default() }, assignment()));
    let id = link.heard().2;
    link.say(Protocol::EAP, 2, id, &[26, 3]);
    assert_eq!((link.heard().1, link.event()), (3, Some(Event::Authenticated { method: PppAuth::Eap })));
}

#[test]
fn macos() {
    let mut macos = Client::new();
    macos.say(&hex!("ff03 c021 01 01 0014 0206 00000000 0506 1f2e3d4c 0702 0802"));
    macos.hears(&hex!("ff03 c021 02 01 0014 0206 00000000 0506 1f2e3d4c 0702 0802"));
    macos.acknowledge();
    macos.authenticates("alice");
    macos.acknowledges_network();
    macos.say(&hex!("ff03 8021 01 01 0016 0306 00000000 8106 00000000 8306 00000000"));
    macos.hears(&hex!("ff03 8021 04 01 000a 8306 00000000"));
    macos.say(&hex!("ff03 8057 01 01 000e 010a 021122fffe334455"));
    macos.hears(&hex!("ff03 8057 02 01 000e 010a 021122fffe334455"));
    // ACSP: routes and domains, which wait for an answer.
    macos.say(&hex!("ff03 8235 01 01 0010 0106 00000000 0206 00000000"));
    macos.hears_protocol_reject([0x82, 0x35], &hex!("01 01 0010 0106 00000000 0206 00000000"));
    macos.say(&hex!("ff03 8021 01 02 0010 0306 00000000 8106 00000000"));
    macos.hears(&hex!("ff03 8021 03 02 0010 0306 0a000009 8106 0a000035"));
    macos.say(&hex!("ff03 8021 01 03 0010 0306 0a000009 8106 0a000035"));
    macos.hears(&hex!("ff03 8021 02 03 0010 0306 0a000009 8106 0a000035"));
    macos.is_up();
}

#[test]
fn android() {
    let mut android = Client::new();
    android.say(&hex!("ff03 c021 01 01 0018 01040578 0206 00000000 0506 5a6b7c8d 0702 0802"));
    android.hears(&hex!("ff03 c021 02 01 0018 01040578 0206 00000000 0506 5a6b7c8d 0702 0802"));
    android.acknowledge();
    android.authenticates("alice");
    android.acknowledges_network();
    // CCP of pppd: Deflate, its draft and BSD-Compress.
    android.say(&hex!("ff03 80fd 01 01 000f 1a04 7800 1804 7800 1503 2f"));
    android.hears_protocol_reject([0x80, 0xfd], &hex!("01 01 000f 1a04 7800 1804 7800 1503 2f"));
    // Van Jacobson headers as well.
    android.say(&hex!("ff03 8021 01 01 001c 0206 002d 0f01 0306 00000000 8106 00000000 8306 00000000"));
    android.hears(&hex!("ff03 8021 04 01 0010 0206 002d 0f01 8306 00000000"));
    android.say(&hex!("ff03 8021 01 02 0010 0306 00000000 8106 00000000"));
    android.hears(&hex!("ff03 8021 03 02 0010 0306 0a000009 8106 0a000035"));
    android.say(&hex!("ff03 8021 01 03 0010 0306 0a000009 8106 0a000035"));
    android.hears(&hex!("ff03 8021 02 03 0010 0306 0a000009 8106 0a000035"));
    android.is_up();
}

#[test]
fn router_os_that_may_use_pap_alone() {
    let mut router = Client::new();
    let (id, options) = router.request.clone();
    router.link.say(Protocol::LCP, 3, id, &hex!("0304c023"));
    let (_, code, id, data) = router.link.heard();
    assert_eq!((code, &data[..8], &data[8..]), (1, &hex!("01040578 0304c023")[..], &options[9..]));
    router.request = (id, data);
    router.say(&hex!("ff03 c021 01 01 000e 010405aa 0506 77665544"));
    router.hears(&hex!("ff03 c021 02 01 000e 010405aa 0506 77665544"));
    router.acknowledge();
    assert_eq!(router.link.event(), Some(Event::LcpOpened));
    assert_eq!(router.link.ppp.mtu(), 1450);
    router.say(&hex!("ff03 c023 01 01 0011 05 616c696365 06 736563726574"));
    assert_eq!(asked(&mut router.link).proof, Proof::Pap { password: Zeroizing::new(b"secret".to_vec()) });
    router.link.ppp.accept(router.link.now, &Grant::default(), assignment());
    router.hears(&hex!("ff03 c023 02 01 000c 07 77656c636f6d65"));
    router.acknowledges_network();
    // MPLSCP.
    router.say(&hex!("ff03 8281 01 01 0004"));
    router.hears_protocol_reject([0x82, 0x81], &hex!("01 01 0004"));
    router.say(&hex!("ff03 8021 01 01 000a 0306 00000000"));
    router.hears(&hex!("ff03 8021 03 01 000a 0306 0a000009"));
    router.say(&hex!("ff03 8021 01 02 000a 0306 0a000009"));
    router.hears(&hex!("ff03 8021 02 02 000a 0306 0a000009"));
    assert!(matches!(router.link.event(), Some(Event::Authenticated { method: PppAuth::Pap })));
    router.is_up();
}

#[test]
fn a_client_that_wants_the_server_to_prove_itself() {
    let mut client = Client::new();
    client.say(&hex!("ff03 c021 01 01 000f 0305 c22381 0506 01020304"));
    client.hears(&hex!("ff03 c021 03 01 0009 0305 c22305"));
    client.say(&hex!("ff03 c021 01 02 000f 0305 c22305 0506 01020304"));
    client.hears(&hex!("ff03 c021 04 02 0009 0305 c22305"));
    client.say(&hex!("ff03 c021 01 03 000a 0506 01020304"));
    client.hears(&hex!("ff03 c021 02 03 000a 0506 01020304"));
    client.acknowledge();
    client.authenticates("alice");
}
