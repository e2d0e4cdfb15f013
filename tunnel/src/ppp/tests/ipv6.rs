//! IPV6CP beside IPCP.

use super::*;

const IPV6CP: Protocol = Protocol::IPV6CP;
const THEIRS: [u8; 10] = [1, 10, 0, 0, 0, 0, 0, 0, 0, 7];

/// A client that wants IPv6 on a link that is up for IPv4, and its Configure-Request.
fn up() -> (Link, u8, Vec<u8>) {
    let client = Client { ipv6: true, ..Client::default() };
    let mut link = Link::of(Config { role: Role::Client(client), ..Config::default() });
    link.establish(&[]);
    let (mut request, mut ipcp) = (None, Vec::new());
    for frame in link.rest() {
        if frame.0 == IPV6CP { request = Some(frame) } else { ipcp.push(frame) }
    }
    let (_, code, id, data) = request.unwrap();
    assert_eq!((code, &data[..2]), (1, &[1, 10][..]));
    let (_, _, ipcp_id, _) = ipcp.remove(0);
    link.say(Protocol::IPCP, 3, ipcp_id, &[3, 6, 10, 0, 0, 9]);
    let (_, _, ipcp_id, ipcp_data) = link.heard();
    link.say(Protocol::IPCP, 2, ipcp_id, &ipcp_data);
    link.say(Protocol::IPCP, 1, 60, &[]);
    link.heard();
    assert!(matches!(link.event(), Some(Event::IpcpOpened { .. })));
    (link, id, data)
}

fn packet() -> Vec<u8> {
    let mut frame = vec![0xff, 3, 0, 0x57, 0x60];
    frame.resize(4 + 40, 0);
    frame
}

#[test]
fn ipv6_packets_pass_once_both_identifiers_are_known() {
    let (mut link, id, data) = up();
    assert_eq!(link.ppp.handle_frame(link.now, &packet()), None);
    assert_eq!(link.ppp.write_header(&mut Vec::new(), &packet()[4..]), Err(NotOpened));
    link.say(IPV6CP, 2, id, &data);
    link.say(IPV6CP, 1, 9, &THEIRS);
    assert_eq!(link.heard(), (IPV6CP, 2, 9, THEIRS.to_vec()));
    let (local_id, peer_id) = (data[2..].try_into().unwrap(), THEIRS[2..].try_into().unwrap());
    assert_eq!(link.event(), Some(Event::Ipv6cpOpened { local_id, peer_id }));
    assert_eq!(link.ppp.handle_frame(link.now, &packet()), Some(&packet()[4..]));
    let mut header = Vec::new();
    link.ppp.write_header(&mut header, &packet()[4..]).unwrap();
    assert_eq!(header, packet()[..IP_HEADER]);
    // The protocol field and the version must agree.
    let mut wrong = packet();
    wrong[4] = 0x45;
    assert_eq!(link.ppp.handle_frame(link.now, &wrong), None);
    link.say(IPV6CP, 1, 10, &THEIRS);
    assert_eq!(link.event(), Some(Event::Ipv6cpDown));
    assert_eq!(link.ppp.handle_frame(link.now, &IP), Some(&IP[4..]), "IPv4 goes on");
}

#[test]
fn a_peer_without_ipv6_keeps_its_link_however_it_says_so() {
    type Refusal = fn(&mut Link, u8, &[u8]);
    let refusals: [(&str, Refusal); 5] = [
        ("Protocol-Reject", |link, _, _| link.say(Protocol::LCP, 8, 9, &[0x80, 0x57, 1, 1, 0, 4])),
        ("Configure-Reject", |link, id, data| link.say(IPV6CP, 4, id, data)),
        ("Terminate-Request", |link, _, _| link.say(IPV6CP, 5, 9, &[])),
        ("silence", |link, _, _| link.wait(60 * SECOND)),
        ("no identifier", |link, id, data| {
            link.say(IPV6CP, 2, id, data);
            link.say(IPV6CP, 1, 9, &[]);
            link.say(IPV6CP, 1, 10, &[]);
        }),
    ];
    for (what, refusal) in refusals {
        let (mut link, id, data) = up();
        refusal(&mut link, id, &data);
        while let Some(event) = link.event() {
            assert!(matches!(event, Event::EchoLost { .. }), "{what}: {event:?}");
        }
        assert_eq!(link.ppp.handle_frame(link.now, &IP), Some(&IP[4..]), "{what}");
        assert_eq!(link.ppp.handle_frame(link.now, &packet()), None, "{what}");
    }
}

#[test]
fn a_rejected_ipv6cp_is_asked_for_no_more() {
    let (mut link, id, data) = up();
    link.rest();
    link.say(IPV6CP, 4, id, &data);
    link.wait(10 * SECOND);
    let requests = link.rest().into_iter().filter(|(protocol, code, ..)| (*protocol, *code) == (IPV6CP, 1));
    assert_eq!(requests.count(), 0);
}

#[test]
fn ipv6cp_is_rejected_where_nobody_asked_for_it() {
    let mut link = Link::up();
    link.say(IPV6CP, 1, 9, &THEIRS);
    let (protocol, code, _, data) = link.heard();
    assert_eq!((protocol, code, &data[..2]), (Protocol::LCP, 8, &[0x80, 0x57][..]));
}
