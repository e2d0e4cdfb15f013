//! The pairs of ESP SAs of one connection, and what lies between ESP and L2TP: the UDP header of port 1701 (RFC 3193).
//!
//! Old and new SAs stand side by side over a rekey: every inbound SA is open until IKE removes it; packets leave through the
//! newest outbound SA that the peer is known to be ready for, and never through an older one again.

//= out: rfc3193 2.1 "All the IPsec-mandated ciphersuites (described in RFC 2406 [4] and RFC 2402 [3]), including NULL encryption MUST be supported." DES is broken and a tunnel without confidentiality is not offered
//= out: rfc3193 4 "The initiator MUST parse the result and error code information and send a new SCCRQ" a redirection to another address is shown as the failure of the attempt; it would lead to a gateway that nobody configured
//= out: rfc3193 4 "To allow for this behavior when using L2TP and IPsec, when the responder chooses a new IP address it MUST send a StopCCN to the initiator, with the Result and Error Code AVP present." the server never chooses another address
//= out: rfc3193 1.2 "In this document, the key words "MAY", "MUST, "MUST NOT", "OPTIONAL", "RECOMMENDED", "SHOULD", and "SHOULD NOT", are to be interpreted as described in [2]." it says how words are to be read and demands nothing
//= out: rfc3193 2.1 "Note that although an implementation MUST support all IPsec ciphersuites, it is an operator choice which ones will be used." DES is broken and a tunnel without confidentiality is not offered
//= out: rfc3193 4 "The Result Code MUST be set to 2 (General Error) and the Error Code SHOULD be set to 7 (Try Another)." the server never chooses another address
//= out: rfc3193 4 "If the Error Code is set to 7, then the optional error message MUST be present and the contents MUST contain the IP address (ASCII encoded) that the Responder desires to use for subsequent communications." the server never chooses another address
//= out: rfc3193 4.2.3 "The new address the responder chooses to use MUST be reflected in the result and error code AVP of a STOPCCN message." the server never chooses another address
//= out: rfc3193 4.2.3 "The Result Code MUST be set to 2 (General Error) and the Error Code MUST be set to 7 (Try Another)." the server never chooses another address
//= out: rfc3193 4.2.3 "The optional error message MUST be present and the contents MUST contain the IP address (ASCII encoded) the Responder desires to use for subsequent communications." the server never chooses another address
//= out: rfc3193 4.2.3 "The STOPCCN Message MUST be sent using the same address and UDP port information which the initiator used to send the SCCRQ." the server never chooses another address
//= out: rfc3193 4.2.3 "Upon receiving the STOPCCN, the initiator MUST parse the IP address from the Result and Error Code AVP and perform the necessary sanity checks to verify this is a correctly formatted address." a redirection to another address is shown as the failure of the attempt; it would lead to a gateway that nobody configured
//= out: rfc3193 4.2.4 "This decision MUST be made before sending the SCCRP." the server never chooses another port
//= out: rfc3193 4.2.5 "The initial filter set at both sides MUST include the following filter:" an end has one role: the client is not called, and the server does not call
//= out: rfc3193 5.1.1 "In order to provide segregation of traffic between users when user authentication is used, the client MUST ensure that only traffic from that particular user is sent down the L2TP tunnel." IKE authenticates a machine or a pod and no user; what a pod sends into its tunnel is the business of its owner
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;

use super::settings;
use crate::esp::{self, InboundSa, OutboundSa, Truncation};
use crate::ike::{self, MAX_PAIRS};
use crate::inet::{Checksum, L2TP_PORT, PROTOCOL_UDP, UDP_HEADER};

/// How long packets stay on the old SA when the peer sends nothing on the new one. The responder of a Quick Mode installs its
/// SAs with the third message only, so a packet that overtakes it would be lost.
const SWITCH_AFTER: Duration = Duration::from_millis(1_500);

/// A pair, known by the SPI of its inbound SA: we chose that one, so no other pair has it.
struct Pair {
    spi: u32,
    inbound: InboundSa,
    outbound: Option<Outbound>,
}

struct Outbound {
    sa: OutboundSa,
    /// Whether its packets travel in UDP.
    encapsulated: bool,
    /// Grows with each outbound SA.
    number: u64,
    /// When packets move to this SA even if the peer has not used its twin.
    ready_at: Option<Instant>,
    rekey_asked: bool,
}

/// The SAs of one connection.
pub(super) struct Datapath {
    pairs: Vec<Pair>,
    /// The pair whose outbound SA is in use.
    current: Option<u32>,
    /// How many outbound SAs there have been.
    count: u64,
    limits: esp::Lifetime,
    /// How much of a code of HMAC-SHA2-256 the peer was last seen to send.
    truncation: Option<Truncation>,
    /// The port that the LNS sends from: it may answer from another than 1701 (RFC 2661 section 8.1).
    peer_port: u16,
    rng: StdRng,
}

/// Why an ESP packet was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// No SA has its SPI.
    UnknownSpi,
    /// The SA refused it.
    Esp(esp::OpenError),
    /// What it carries is not UDP for our L2TP port (RFC 3193 section 3.3).
    NotL2tp,
}

impl Refused {
    /// The value of the metric's label `reason`.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::UnknownSpi => "unknown_spi",
            Self::Esp(error) => error.name(),
            Self::NotL2tp => "policy",
        }
    }
}

impl Datapath {
    /// No SAs yet; none of those to come carries more than `limits`.
    pub(super) fn new(limits: esp::Lifetime, rng: StdRng) -> Self {
        Self { pairs: Vec::new(), current: None, count: 0, limits, truncation: None, peer_port: L2TP_PORT, rng }
    }

    //= rfc3193 2 "An L2TP security protocol MUST also provide a scalable approach to key management."
    //= test: each_kind_of_key_establishes_with_each_hash_and_names_the_subjects, a_client_whose_certificate_cannot_be_believed_is_told_and_refused
    //= rfc3193 2.1 "An L2TP security protocol MUST also provide a scalable approach to key management."
    //= test: each_kind_of_key_establishes_with_each_hash_and_names_the_subjects, a_client_whose_certificate_cannot_be_believed_is_told_and_refused
    //= rfc3193 2.1 "L2TP security MUST meet the key management requirements of the IPsec protocol suite."
    //= test: both_phases_are_renewed_for_hours_without_a_new_session, a_wrong_password_and_a_wrong_key_are_refused_and_counted
    /// Opens an inbound SA.
    pub(super) fn install_inbound(&mut self, sa: &ike::Sa) -> Result<(), esp::InvalidSa> {
        let inbound = InboundSa::new(sa.spi, &keys(sa), self.lifetime(sa))?;
        self.pairs.retain(|pair| pair.spi != sa.spi);
        if self.pairs.len() >= MAX_PAIRS
            && let Some(oldest) = self.pairs.iter().position(|pair| Some(pair.spi) != self.current)
        {
            self.pairs.remove(oldest);
        }
        self.pairs.push(Pair { spi: sa.spi, inbound, outbound: None });
        Ok(())
    }

    /// Opens an outbound SA; the first is used at once, and so is one that the peer asked for.
    pub(super) fn install_outbound(&mut self, now: Instant, sa: &ike::Sa) -> Result<(), esp::InvalidSa> {
        let rng = settings::split(&mut self.rng);
        let mut outbound = OutboundSa::new(sa.spi, &keys(sa), self.lifetime(sa), rng)?;
        let at_once = self.current.is_none() || !sa.initiator;
        // Without its twin the pair is gone already.
        let Some(pair) = self.pairs.iter_mut().find(|pair| pair.spi == sa.pair) else { return Ok(()) };
        // What the peer does with this pair, or has done with the one before it.
        pair.inbound.truncation().or(self.truncation).into_iter().for_each(|known| outbound.set_truncation(known));
        self.count = self.count.saturating_add(1);
        let ready_at = (!at_once).then_some(now + SWITCH_AFTER);
        let (encapsulated, number) = (sa.encapsulated, self.count);
        pair.outbound = Some(Outbound { sa: outbound, encapsulated, number, ready_at, rekey_asked: false });
        if at_once {
            self.current = Some(sa.pair);
        }
        Ok(())
    }

    /// The peer carries no more than that much over a pair, in kilobytes of 1024 octets.
    pub(super) fn limit(&mut self, inbound_spi: u32, kilobytes: u32) {
        let octets = u64::from(kilobytes) * 1024;
        if let Some(pair) = self.pairs.iter_mut().find(|pair| pair.spi == inbound_spi) {
            pair.inbound.limit_octets(octets);
            pair.outbound.iter_mut().for_each(|outbound| outbound.sa.limit_octets(octets));
        }
    }

    /// What one SA may carry: what the configuration says and what both ends agreed on, whichever is less.
    fn lifetime(&self, sa: &ike::Sa) -> esp::Lifetime {
        let agreed = sa.lifetime.kilobytes.map(|kilobytes| u64::from(kilobytes) * 1024);
        let octets = self.limits.octets.into_iter().chain(agreed).min();
        esp::Lifetime { octets, ..self.limits }
    }

    /// Closes the pair with that inbound SPI. Packets go on through the newest of the others.
    pub(super) fn remove(&mut self, inbound_spi: u32) {
        self.pairs.retain(|pair| pair.spi != inbound_spi);
        if self.current == Some(inbound_spi) {
            self.current = self.newest().map(|(spi, _)| spi);
        }
    }

    /// Whether the peer sends 96 bits of HMAC-SHA2-256 where RFC 4868 wants 128: a weakness, and the wish of old Android.
    pub(super) fn is_truncated(&self) -> bool {
        self.truncation == Some(Truncation::Bits96)
    }

    /// Whether packets can be sent.
    pub(super) fn can_send(&self) -> bool {
        self.current.is_some()
    }

    /// Whether what [`Self::seal`] makes is to travel in UDP.
    pub(super) fn is_encapsulated(&self) -> bool {
        let in_use = self.pairs.iter().find(|pair| Some(pair.spi) == self.current);
        in_use.and_then(|pair| pair.outbound.as_ref()).is_none_or(|outbound| outbound.encapsulated)
    }

    /// Moves packets to SAs whose time has come.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let due = |outbound: &Outbound| outbound.ready_at.is_some_and(|at| at <= now);
        let ready: Vec<u32> =
            self.pairs.iter().filter(|pair| pair.outbound.as_ref().is_some_and(due)).map(|pair| pair.spi).collect();
        for spi in ready {
            self.switch_to(spi);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.pairs.iter().filter_map(|pair| pair.outbound.as_ref()?.ready_at).min()
    }

    /// Whether the pair in use has nearly used up its packets or octets in one direction; true once for each pair.
    pub(super) fn take_rekey_request(&mut self) -> bool {
        let current = self.current;
        let Some(pair) = self.pairs.iter_mut().find(|pair| Some(pair.spi) == current) else { return false };
        let Some(outbound) = pair.outbound.as_mut().filter(|outbound| !outbound.rekey_asked) else { return false };
        outbound.rekey_asked = pair.inbound.needs_rekey() || outbound.sa.needs_rekey();
        outbound.rekey_asked
    }

    /// Appends an ESP packet with the L2TP message `parts` to `out`.
    pub(super) fn seal(
        &mut self,
        path: (IpAddr, IpAddr),
        parts: [&[u8]; 2],
        out: &mut Vec<u8>,
    ) -> Result<(), esp::SealError> {
        self.leave_exhausted();
        let peer_port = self.peer_port;
        let current = self.current;
        let outbound = self.pairs.iter_mut().find(|pair| Some(pair.spi) == current);
        //= rfc3193 4.2.2 "If the SA cannot be setup for some reason, the packet MUST be dropped."
        //= test: packets_move_to_a_new_pair_when_the_peer_uses_it_or_after_a_while, without_an_sa_nothing_is_sent
        //= rfc3193 4.2.2 "In either case, this filter MUST be present before the L2TP tunnel setup messages start to flow."
        //= test: packets_move_to_a_new_pair_when_the_peer_uses_it_or_after_a_while, without_an_sa_nothing_is_sent
        let outbound = outbound.and_then(|pair| pair.outbound.as_mut()).ok_or(esp::SealError::Exhausted)?;
        //= rfc2661 8.1 "Once the source and destination ports and addresses are established, they MUST remain static for the life of the tunnel."
        //= test: the_port_that_the_peer_answers_from_is_the_one_that_it_is_sent_to, only_udp_for_port_1701_is_taken
        //= rfc2661 8.2 "When operating in IP environments, L2TP MUST offer the UDP encapsulation described in 8.1 as its default configuration for IP operation."
        //= test: the_port_that_the_peer_answers_from_is_the_one_that_it_is_sent_to, only_udp_for_port_1701_is_taken
        let header = udp_header(path, peer_port, parts);
        let [first, second] = parts;
        //= rfc3193 2.1 "To meet the above requirements, all L2TP security compliant implementations MUST implement IPsec ESP for securing both L2TP control and data packets."
        //= test: a_client_dials_in_and_packets_go_both_ways, only_udp_for_port_1701_is_taken
        outbound.sa.seal(out, PROTOCOL_UDP, &[&header, first, second])
    }

    /// Opens an ESP packet in place and returns the L2TP message in it.
    pub(super) fn open<'a>(&mut self, spi: u32, packet: &'a mut [u8]) -> Result<&'a [u8], Refused> {
        //= rfc4303 2.1 "This mechanism for mapping inbound traffic to unicast SAs MUST be supported by all ESP implementations."
        //= test: many_clients_behind_one_nat_with_one_inner_address_are_all_served, an_spi_names_its_slot
        //= rfc4303 3.4.2 "If no valid Security Association exists for this packet, the receiver MUST discard the packet; this is an auditable event."
        //= test: a_packet_of_an_unknown_sa_is_dropped, the_newest_pair_that_is_left_takes_over
        //= rfc4303 2.1 "In practice, an implementation MAY choose any method to accelerate this search, although its externally visible behavior MUST be functionally equivalent to having searched the SAD in the above order."
        //= test: many_clients_behind_one_nat_with_one_inner_address_are_all_served, a_packet_of_an_unknown_sa_is_dropped
        let pair = self.pairs.iter_mut().find(|pair| pair.spi == spi).ok_or(Refused::UnknownSpi)?;
        //= rfc3193 2.1 "The L2TP security protocol MUST provide authentication, integrity and replay protection for control packets."
        //= test: a_client_dials_in_and_packets_go_both_ways, every_changed_or_missing_octet_is_noticed
        //= rfc3193 2.1 "It MUST provide integrity and replay protection of data packets, and MAY protect confidentiality of data packets."
        //= test: what_one_end_seals_the_other_opens_under_every_suite, every_changed_or_missing_octet_is_noticed
        //= rfc3193 2.1 "The implementations MUST implement replay protection mechanisms of IPsec."
        //= test: the_window_moves_only_for_authentic_packets_and_takes_each_once, each_number_is_taken_once
        //= rfc3193 2 "To address these threats, the L2TP security protocol MUST be able to provide authentication, integrity and replay protection for control packets."
        //= test: a_client_dials_in_and_packets_go_both_ways, every_changed_or_missing_octet_is_noticed
        //= rfc3193 2 "It MUST be able to provide integrity and replay protection of data packets, and MAY be able to protect confidentiality of data packets."
        //= test: the_window_moves_only_for_authentic_packets_and_takes_each_once, every_changed_or_missing_octet_is_noticed
        let opened = pair.inbound.open(packet).map_err(Refused::Esp)?;
        if let Some(truncation) = pair.inbound.truncation()
            && let Some(outbound) = &mut pair.outbound
            && outbound.sa.truncation() != Some(truncation)
        {
            outbound.sa.set_truncation(truncation);
        }
        self.truncation = pair.inbound.truncation();
        // The peer uses the twin, so it is ready for ours.
        if pair.outbound.as_ref().is_some_and(|outbound| outbound.ready_at.is_some()) {
            self.switch_to(spi);
        }
        //= rfc3948 1 "L2TP/IPsec clients MUST support the modes as defined in [RFC3193]."
        //= test: a_client_dials_in_and_packets_go_both_ways, only_udp_for_port_1701_is_taken
        if opened.next_header != PROTOCOL_UDP {
            return Err(Refused::NotL2tp);
        }
        let payload: &'a [u8] = opened.payload;
        let (header, rest) = payload.split_first_chunk::<UDP_HEADER>().ok_or(Refused::NotL2tp)?;
        let [source_high, source_low, to_high, to_low, length_high, length_low, _, _] = *header;
        let length = usize::from(u16::from_be_bytes([length_high, length_low]));
        let body = length.checked_sub(UDP_HEADER).and_then(|length| rest.get(..length)).ok_or(Refused::NotL2tp)?;
        //= rfc3193 3.3 "When a packet arrives from a tunnel which requires security, L2TP MUST:"
        //= test: a_client_dials_in_and_packets_go_both_ways, only_udp_for_port_1701_is_taken
        if u16::from_be_bytes([to_high, to_low]) != L2TP_PORT {
            return Err(Refused::NotL2tp);
        }
        //= rfc3948 3.1.2 "Depending on local policy, one of the following MUST be done:"
        //= test: over_ipv6_the_udp_checksum_is_computed_and_over_ipv4_it_is_none, a_client_dials_in_and_packets_go_both_ways
        // The checksum is not verified: behind a NAT it covers addresses that are not on the wire, and the ICV says more
        // (RFC 3948 section 3.1.2).
        //= rfc3193 4.2 "However, the initiator MUST allow the responder to float its port and SHOULD allow the responder to choose a new IP address (see section 4.2.3, below)."
        //= test: the_port_that_the_peer_answers_from_is_the_one_that_it_is_sent_to, only_udp_for_port_1701_is_taken
        self.peer_port = u16::from_be_bytes([source_high, source_low]);
        Ok(body)
    }

    fn number_of(&self, spi: u32) -> Option<u64> {
        self.pairs.iter().find(|pair| pair.spi == spi)?.outbound.as_ref().map(|outbound| outbound.number)
    }

    /// The newest pair that can send, and its number.
    fn newest(&self) -> Option<(u32, u64)> {
        let sending = |pair: &Pair| pair.outbound.as_ref().map(|outbound| (pair.spi, outbound.number));
        self.pairs.iter().filter_map(sending).max_by_key(|&(_, number)| number)
    }

    /// The peer is ready for the outbound SA of this pair: packets take it unless they are on a newer one already.
    fn switch_to(&mut self, spi: u32) {
        let in_use = self.current.and_then(|current| self.number_of(current));
        let Some(pair) = self.pairs.iter_mut().find(|pair| pair.spi == spi) else { return };
        let Some(outbound) = &mut pair.outbound else { return };
        outbound.ready_at = None;
        if in_use < Some(outbound.number) {
            self.current = Some(spi);
        }
    }

    /// An SA that may carry nothing more is left for the newest that may, without waiting for the peer.
    fn leave_exhausted(&mut self) {
        let Some(current) = self.current else { return };
        let is_exhausted = |pair: &Pair| pair.outbound.as_ref().is_some_and(|outbound| outbound.sa.is_exhausted());
        if self.pairs.iter().any(|pair| pair.spi == current && is_exhausted(pair))
            && let Some((newest, _)) = self.newest()
        {
            self.switch_to(newest);
        }
    }
}

fn keys(sa: &ike::Sa) -> esp::Keys {
    esp::Keys { proposal: sa.proposal, encryption: sa.encryption_key.clone(), integrity: sa.integrity_key.clone() }
}

//= out: rfc2661 8.1 "The default for any L2TP implementation is that UDP checksums MUST be enabled for both control and data messages." over IPv4 none is sent to any peer: ESP protects the same octets, and behind a NAT the checksum would be wrong; a peer that demands one drops everything, and none is known
/// The UDP header in front of an L2TP message. Over IPv4 the checksum is zero, "none" (RFC 768): ESP protects the octets, and
/// the receiver could not verify it behind a NAT. Over IPv6 it must not be zero (RFC 8200 section 8.1).
fn udp_header(path: (IpAddr, IpAddr), peer_port: u16, parts: [&[u8]; 2]) -> [u8; UDP_HEADER] {
    let [first, second] = parts;
    let length = u16::try_from(UDP_HEADER + first.len() + second.len()).unwrap_or(u16::MAX);
    let [port_high, port_low] = L2TP_PORT.to_be_bytes();
    let [to_high, to_low] = peer_port.to_be_bytes();
    let [length_high, length_low] = length.to_be_bytes();
    let header = [port_high, port_low, to_high, to_low, length_high, length_low, 0, 0];
    let (IpAddr::V6(local), IpAddr::V6(remote)) = path else { return header };
    let pseudo_header = Checksum::default()
        .with(&local.octets())
        .with(&remote.octets())
        .with(&u32::from(length).to_be_bytes())
        .with(&[0, 0, 0, PROTOCOL_UDP]);
    // A sum of zero is sent as all ones (RFC 768).
    let sum = match pseudo_header.with(&header).with(first).with(second).finish() {
        0 => u16::MAX,
        sum => sum,
    };
    let [high, low] = sum.to_be_bytes();
    [port_high, port_low, to_high, to_low, length_high, length_low, high, low]
}

#[cfg(test)]
mod tests;
