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

#[test]
fn a_reject_counts_only_with_options_of_the_last_request() {
    let mut link = Link::new(&[PppAuth::Pap]);
    let (.., id, data) = link.heard();
    let (mru, magic) = data.split_at(4);
    for other in [&[3, 4, 0xc0, 0x23][..], &[1, 4, 5, 0], &[mru, &[7, 2]].concat(), &mru[..3]] {
        link.say(LCP, 4, id, other);
        link.silence();
    }
    link.say(LCP, 4, id, mru);
    let (.., id, data) = link.heard();
    assert_eq!(data, magic);
    link.say(LCP, 4, id, magic);
    assert!(link.heard().3.is_empty(), "all that was asked for");
}

#[test]
fn a_code_that_was_rejected_is_not_sent_again() {
    let mut link = Link::up();
    link.ppp.echo(link.now);
    let (.., id, _) = link.heard();
    link.say(LCP, 7, 90, &[9, id, 0, 8, 0, 0, 0, 0]);
    link.ppp.echo(link.now);
    link.wait(100 * SECOND);
    link.silence();
    assert_eq!((link.event(), link.ppp.poll_timeout()), (None, None), "no echo is lost");
    link.say(LCP, 9, 91, &[0; 4]);
    assert_eq!(link.heard().1, 10, "another code");
    link.say(LCP, 7, 92, &[10, 91, 0, 8, 0, 0, 0, 0]);
    link.say(LCP, 9, 93, &[0; 4]);
    link.say(LCP, 7, 94, &[8]);
    link.ppp.handle_frame(link.now, &Packet { code: 1, id: 1, data: &[] }.frame(Protocol::CCP));
    link.silence();
}

#[test]
fn an_answer_that_the_peer_could_not_read_is_not_sent() {
    let mut link = Link::new(&[PppAuth::Pap]);
    link.establish(&[1, 4, 2, 0x40]);
    link.rest();
    let unknown = [200, 4, 1, 2];
    link.say(Protocol::IPCP, 1, 1, &unknown.repeat(143));
    assert_eq!(link.heard().3.len(), 576 - 4);
    link.say(Protocol::IPCP, 1, 2, &unknown.repeat(144));
    link.silence();
}

#[test]
fn the_restart_timer_is_short_again_whenever_the_counter_begins_anew() {
    let mut link = Link::new(&[PppAuth::Pap]);
    let restart = |link: &Link| link.ppp.lcp.poll_timeout().unwrap() - link.now;
    assert_eq!(restart(&link), Duration::from_millis(750));
    for _ in 0..5 {
        link.wait(3 * SECOND);
    }
    let (.., id, _) = link.rest().pop().unwrap();
    link.now = link.ppp.lcp.poll_timeout().unwrap() - SECOND;
    link.say(LCP, 3, id, &[1, 4, 5, 0]);
    assert_eq!(restart(&link), Duration::from_millis(750), "an answer came");
}

#[test]
fn whoever_is_told_to_terminate_pauses_for_a_restart_time_and_then_ends() {
    let mut link = Link::up();
    link.say(LCP, 5, 9, b"bye");
    assert!(link.ppp.lcp.is_terminating());
    assert_eq!(link.ppp.lcp.poll_timeout(), Some(link.now + 3 * SECOND));
    link.ppp.lcp.handle_timeout(link.now + 3 * SECOND);
    assert!(!link.ppp.lcp.is_terminating());
}

#[test]
fn each_terminate_request_and_each_echo_has_an_identifier_of_its_own() {
    let mut link = Link::up();
    let mut ids = Vec::new();
    for _ in 0..2 {
        link.ppp.echo(link.now);
        let (_, code, id, data) = link.heard();
        assert_eq!(code, 9);
        link.say(LCP, 10, id.wrapping_add(1), &data);
        assert_eq!(link.event(), None, "not the answer to it");
        link.say(LCP, 10, id, &data);
        assert!(matches!(link.event(), Some(Event::EchoReply { .. })));
        ids.push(id);
    }
    link.ppp.close(link.now);
    link.wait(4 * SECOND);
    let terminates: Vec<u8> = link.rest().iter().filter(|(_, code, ..)| *code == 5).map(|(.., id, _)| *id).collect();
    assert!(ids[0] != ids[1] && terminates.len() == 2 && terminates[0] != terminates[1], "{ids:?} {terminates:?}");
}

#[test]
fn without_a_magic_number_echoes_carry_zero() {
    let mut link = Link::new(&[PppAuth::Pap]);
    let (.., id, data) = link.heard();
    link.say(LCP, 4, id, &data[4..]);
    link.establish(&[]);
    link.rest();
    link.say(LCP, 9, 5, &[1, 1, 1, 1]);
    assert_eq!(link.heard(), (LCP, 10, 5, vec![0; 4]));
    link.ppp.echo(link.now);
    assert_eq!(link.heard().3, [0; 4]);
}

#[test]
fn a_packet_of_1500_octets_is_taken_although_a_smaller_mru_is_asked_for() {
    let mut link = Link::up();
    link.say(LCP, 9, 5, &[0; 1500 - 4]);
    assert_eq!(link.heard().3.len(), 1500 - 4);
    let mut packet = IP.to_vec();
    packet.resize(4 + 1500, 0);
    assert_eq!(link.ppp.handle_frame(link.now, &packet), Some(&packet[4..]));
}

#[test]
fn protocols_that_are_even_or_begin_oddly_are_rejected_as_unknown() {
    let mut link = Link::up();
    for (field, reported) in
        [(&[0x00, 0x20][..], [0x00, 0x20]), (&[0xc0, 0x20], [0xc0, 0x20]), (&[0xc1, 0x21], [0, 0xc1])]
    {
        // What would be an echo or an IP packet if the field were one octet longer or one bit better.
        let frame = [&[0xff, 3][..], field, &[9, 5, 0, 8, 0, 0, 0, 0]].concat();
        assert_eq!(link.ppp.handle_frame(link.now, &frame), None);
        let (protocol, code, _, data) = link.heard();
        assert_eq!((protocol, code, &data[..2]), (LCP, 8, &reported[..]));
    }
}

#[test]
fn link_quality_reports_do_not_hold_the_authentication_up() {
    let mut link = Link::new(&[PppAuth::Pap]);
    let quality = [4, 8, 0xc0, 0x25, 0, 0, 0, 9];
    let (.., id, data) = link.heard();
    link.say(LCP, 2, id, &data);
    link.say(LCP, 1, 50, &[&PAP[..], &quality].concat());
    assert_eq!(link.heard(), (LCP, 4, 50, quality.to_vec()));
    link.say(LCP, 1, 51, &PAP);
    link.heard();
    link.say(Protocol::LQR, 0, 0, &[0; 44]);
    let (protocol, _, id, _) = link.heard();
    assert_eq!(protocol, Protocol::PAP, "at once");
    link.silence();
    link.say(Protocol::PAP, 2, id, &[0]);
    assert_eq!(link.heard().0, Protocol::IPCP);
}
