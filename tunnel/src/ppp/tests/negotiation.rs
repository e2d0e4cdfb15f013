//! The rules of a negotiation that both roles and every control protocol share (RFC 1661 sections 5.1 to 5.7).

use super::*;

const LCP: Protocol = Protocol::LCP;

#[test]
fn an_answer_counts_only_with_the_identifier_of_the_last_request() {
    let mut link = Link::new(&[PppAuth::Pap]);
    let (.., id, data) = link.heard();
    for code in [2, 3, 4] {
        link.say(LCP, code, id.wrapping_add(1), &data);
        link.silence();
    }
    link.say(LCP, 3, id, &[1, 4, 5, 0]);
    let (.., next, naked) = link.heard();
    assert_eq!(naked[..4], [1, 4, 5, 0]);
    link.say(LCP, 1, 50, &[]);
    link.heard();
    // That of the request before it is one too old.
    link.say(LCP, 2, id, &naked);
    assert_eq!(link.event(), None);
    link.say(LCP, 2, next, &naked);
    assert_eq!(link.event(), Some(Event::LcpOpened));
}

#[test]
fn an_ack_counts_only_with_the_options_of_the_last_request() {
    let mut link = Link::new(&[PppAuth::Pap]);
    let (.., id, data) = link.heard();
    link.say(LCP, 1, 50, &[]);
    link.heard();
    let (first, second) = data.split_at(4);
    for other in [&[][..], first, &[second, first].concat(), &[&data[..], &[7, 2]].concat()] {
        link.say(LCP, 2, id, other);
        assert_eq!(link.event(), None);
    }
    link.say(LCP, 2, id, &data);
    assert_eq!(link.event(), Some(Event::LcpOpened));
}

#[test]
fn the_identifier_changes_with_the_options_and_after_each_answer() {
    let mut link = Link::new(&[PppAuth::Pap]);
    let (.., first, _) = link.heard();
    link.say(LCP, 3, first, &[1, 4, 5, 0]);
    let (.., second, _) = link.heard();
    link.say(LCP, 4, second, &[1, 4, 5, 0]);
    let (.., third, data) = link.heard();
    assert!(first != second && second != third && first != third);
    link.say(LCP, 2, third, &data);
    link.say(LCP, 2, third, &data);
    assert_ne!(link.heard().2, third, "acknowledged twice: asked anew");
}

#[test]
fn the_options_of_a_request_are_acknowledged_as_they_are() {
    let mut link = Link::new(&[PppAuth::Pap]);
    link.heard();
    let request = [8, 2, 5, 6, 1, 2, 3, 4, 7, 2, 1, 4, 5, 0xdc];
    link.say(LCP, 1, 50, &request);
    assert_eq!(link.heard(), (LCP, 2, 50, request.to_vec()));
}

#[test]
fn each_reject_has_an_identifier_of_its_own() {
    let mut link = Link::up();
    let ccp = Packet { code: 1, id: 1, data: &[] }.frame(Protocol::CCP);
    let ids: Vec<u8> = (0..2)
        .flat_map(|_| {
            link.say(LCP, 99, 8, &[]);
            link.ppp.handle_frame(link.now, &ccp);
            [link.heard().2, link.heard().2]
        })
        .collect();
    assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), 4, "{ids:?}");
}

#[test]
fn a_terminate_request_is_acknowledged_whenever_it_comes() {
    let mut link = Link::new(&[PppAuth::Pap]);
    link.heard();
    link.say(LCP, 5, 9, b"bye");
    assert_eq!(link.heard(), (LCP, 6, 9, vec![]));
    let mut link = Link::up();
    link.ppp.close(link.now);
    link.heard();
    link.say(LCP, 5, 10, &[]);
    assert_eq!(link.heard(), (LCP, 6, 10, vec![]), "both ends at once");
}

#[test]
fn every_packet_has_whole_address_control_and_protocol_fields_whatever_the_peer_takes() {
    let mut link = Link::new(&[PppAuth::Pap]);
    link.establish(&[7, 2, 8, 2]);
    link.address();
    let mut header = Vec::new();
    link.ppp.write_header(&mut header, &IP[4..]).unwrap();
    assert_eq!(header, [0xff, 3, 0, 0x21]);
    link.ppp.echo(link.now);
    assert_eq!(link.ppp.poll_transmit().unwrap()[..4], [0xff, 3, 0xc0, 0x21]);
}

#[test]
fn discard_requests_get_no_answer() {
    let mut link = Link::up();
    link.say(LCP, 11, 9, &[0, 0, 0, 1, 5]);
    link.silence();
    assert_eq!(link.event(), None);
}

#[test]
fn echoes_are_no_matter_before_the_link_is_open() {
    let mut link = Link::new(&[PppAuth::Pap]);
    link.heard();
    link.say(LCP, 9, 9, &[0, 0, 0, 1]);
    link.ppp.echo(link.now);
    link.silence();
}

#[test]
fn a_link_is_small_enough_for_ten_thousand() {
    // 16 MB for all of them.
    assert!(size_of::<Ppp>() <= 1_600, "{} octets", size_of::<Ppp>());
}
