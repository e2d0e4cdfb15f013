//! What the control packets of the other end do to a link, by its phase.

use std::time::Instant;

use super::packet::{CONTROL_HEADER, Code, Packet, Protocol};
use super::{Error, Event, Phase, Ppp, State};

impl Ppp {
    pub(super) fn handle_control(&mut self, now: Instant, protocol: Protocol, information: &[u8]) {
        let packet = Packet::parse(information);
        match (protocol, packet) {
            (Protocol::LCP, Ok(packet)) => self.handle_lcp(now, &packet),
            //= rfc1661 3.7 "Any non-LCP packets received during this phase MUST be silently discarded."
            //= test: a_close_asks_the_peer_to_terminate_and_waits_for_its_answer, every_frame_in_every_phase_of_the_server_does_what_is_written_down
            // "Any non-LCP packets received during this phase MUST be silently discarded" (section 3.7).
            _ if self.state == State::Terminate => {}
            //= rfc1661 3.4 "Any non-LCP packets received during this phase MUST be silently discarded."
            //= test: every_frame_in_every_phase_of_the_client_does_what_is_written_down, every_frame_in_every_phase_of_the_server_does_what_is_written_down
            //= rfc1661 3.5 "All other packets received during this phase MUST be silently discarded."
            //= test: a_link_with_ms_chap_v2_comes_up_and_carries_packets, nothing_passes_before_the_authentication
            //= rfc1661 3.5 "An implementation MUST NOT allow the exchange of link quality determination packets to delay authentication indefinitely."
            //= test: link_quality_reports_do_not_hold_the_authentication_up, every_frame_in_every_phase_of_the_client_does_what_is_written_down
            // RFC 1661 section 3.5: until it is their turn, packets of other protocols are silently discarded.
            (Protocol::PAP | Protocol::CHAP | Protocol::EAP, Ok(packet)) if self.lcp.is_opened() => {
                self.handle_authentication(now, protocol, &packet);
            }
            (Protocol::IPCP, Ok(packet)) => self.handle_ipcp(now, &packet),
            (Protocol::IPV6CP, Ok(packet)) if self.state == State::Network && self.ipv6cp.is_some() => {
                self.ipv6cp.iter_mut().for_each(|ipv6cp| ipv6cp.handle(now, &packet));
            }
            (Protocol::LCP | Protocol::PAP | Protocol::CHAP | Protocol::EAP | Protocol::IPCP, _) => {}
            //= rfc1661 3.6 "any protocol packet which is unsupported by the implementation MUST be returned"
            //= test: protocols_that_are_not_spoken_are_rejected_once_the_link_is_up, nothing_passes_before_the_authentication
            //= rfc1661 5.7 "this MUST be reported back to the peer by transmitting a Protocol-Reject."
            //= test: protocols_that_are_not_spoken_are_rejected_once_the_link_is_up, every_frame_in_every_phase_of_the_client_does_what_is_written_down
            // A Protocol-Reject may only be sent while LCP is open (section 5.7).
            (_, _) if self.lcp.is_opened() && self.state == State::Network => {
                self.reject_protocol(protocol, information)
            }
            (_, _) => {}
        }
    }

    fn handle_ipcp(&mut self, now: Instant, packet: &Packet<'_>) {
        if self.state == State::Authenticate
            && let Some(authentication) = &mut self.authentication
        {
            let outcome = authentication.handle_success_below();
            self.take(now, outcome);
        }
        if self.state == State::Network {
            self.ipcp.handle(now, packet);
        }
    }

    fn reject_protocol(&mut self, protocol: Protocol, information: &[u8]) {
        let field = protocol.0.to_be_bytes();
        //= rfc1661 5.7 "The Rejected-Information MUST be truncated to comply with the peer's established MRU."
        //= test: protocols_that_are_not_spoken_are_rejected_once_the_link_is_up, rejects_are_cut_to_the_mru_of_the_peer
        let rejected = self.lcp.truncated(CONTROL_HEADER + field.len(), information);
        let data = [&field[..], rejected].concat();
        //= rfc1661 5.7 "The Identifier field MUST be changed for each Protocol-Reject sent."
        //= test: each_reject_has_an_identifier_of_its_own, each_reject_has_an_identifier_of_its_own
        let id = self.lcp.next_id();
        self.lcp.send_extended(&Packet { code: Code::PROTOCOL_REJECT.0, id, data: &data });
    }

    fn handle_lcp(&mut self, now: Instant, packet: &Packet<'_>) {
        match Code(packet.code) {
            // "Received in any state other than the LCP Opened state SHOULD be silently discarded" (section 5.7).
            Code::PROTOCOL_REJECT if !self.lcp.is_opened() => {}
            Code::PROTOCOL_REJECT => self.handle_protocol_reject(now, packet.data),
            Code::ECHO_REQUEST => self.handle_echo_request(packet),
            //= out: rfc1661 6.4 "All received Magic-Number fields MUST be equal to either zero or the peer's unique Magic-Number, depending on whether or not the peer negotiated a Magic-Number." a demand on the peer: a reply with any number shows that it lives, and a request with our own, which is a loop, gets no answer
            Code::ECHO_REPLY => {
                if let Some(round_trip) = self.echo.handle_reply(now, packet.id) {
                    self.emit(Event::EchoReply { round_trip });
                }
            }
            //= rfc1661 5.9 "On reception, the receiver MUST silently discard"
            //= test: discard_requests_get_no_answer, every_frame_in_every_phase_of_the_client_does_what_is_written_down
            //= out: rfc1661 5.9 "Discard-Request packets MUST only be sent in the LCP Opened state." no Discard-Request is sent
            //= out: rfc1661 5.9 "The Identifier field MUST be changed for each Discard-Request sent." no Discard-Request is sent
            //= out: rfc1661 5.9 "Until the Magic-Number Configuration Option has been successfully negotiated, the Magic-Number MUST be transmitted as zero." no Discard-Request is sent
            // They ask for nothing (RFC 1661 section 5.9, RFC 1570 section 2).
            Code::DISCARD_REQUEST | Code::IDENTIFICATION | Code::TIME_REMAINING => {}
            _ => self.lcp.handle(now, packet),
        }
    }

    fn handle_protocol_reject(&mut self, now: Instant, data: &[u8]) {
        let Some(&[high, low]) = data.first_chunk::<2>() else { return };
        match Protocol(u16::from_be_bytes([high, low])) {
            Protocol::LCP => self.lcp.handle_reject(now, false),
            //= rfc1661 5.7 "Upon reception of a Protocol-Reject, the implementation MUST stop sending packets of the indicated protocol"
            //= test: a_rejected_ipcp_is_an_error, a_protocol_reject_counts_only_while_lcp_is_open_and_for_what_is_under_way
            Protocol::IPCP => self.ipcp.handle_reject(now, false),
            Protocol::IPV6CP => self.ipv6cp.iter_mut().for_each(|ipv6cp| ipv6cp.handle_reject(now, false)),
            protocol
                if self.state == State::Authenticate
                    && self
                        .authentication
                        .as_ref()
                        .is_some_and(|authentication| authentication.protocol() == protocol) =>
            {
                let problem = "the peer rejects the authentication protocol that it agreed to".to_owned();
                self.fail(Error::NegotiationFailed { phase: Phase::Authentication, problem });
            }
            _ => self.lcp.handle_reject(now, true),
        }
    }

    fn handle_echo_request(&mut self, packet: &Packet<'_>) {
        let Some((magic, rest)) = packet.data.split_first_chunk::<4>() else { return };
        let ours = self.lcp.options.magic();
        //= rfc1661 5.8 "Upon reception of an Echo-Request in the LCP Opened state, an Echo-Reply MUST be transmitted."
        //= test: an_echo_is_answered_with_our_number_unless_it_is_our_own, echoes_are_no_matter_before_the_link_is_open
        // Our own number coming back means a loop (section 5.8).
        if !self.lcp.is_opened() || (ours != 0 && u32::from_be_bytes(*magic) == ours) {
            return;
        }
        let data = [&ours.to_be_bytes()[..], self.lcp.truncated(CONTROL_HEADER + magic.len(), rest)].concat();
        self.lcp.send_extended(&Packet { code: Code::ECHO_REPLY.0, id: packet.id, data: &data });
    }

    fn handle_authentication(&mut self, now: Instant, protocol: Protocol, packet: &Packet<'_>) {
        if let Some(authentication) = &mut self.authentication {
            let outcome = authentication.handle(now, protocol, packet, !self.asked);
            self.take(now, outcome);
        }
    }
}
