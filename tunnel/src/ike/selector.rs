//! Identifications of Quick Mode: which traffic its SAs are for (RFC 2409 section 5.5, RFC 2407 section 4.6.2, RFC 2661 section
//! 8.1).
//!
//! Addresses are not judged: behind a NAT neither end knows what the other calls itself.

use super::Config;
use super::error::Error;
use super::main_mode::Role;
use super::message::Payloads;
use super::payload::Identity;
use super::registry::PayloadType;
use crate::inet::{L2TP_PORT, PROTOCOL_UDP};
use crate::wire::Reader;

/// IDci and IDcr of the initiator: L2TP between both ends.
pub(super) fn offer(config: &Config) -> [Vec<u8>; 2] {
    //= rfc2409 5.5 "If ISAKMP is acting as a client negotiator on behalf of another party, the identities of the parties MUST be passed as IDci and then IDcr."
    //= test: quick_mode_names_l2tp_and_the_original_addresses_on_the_wire, a_quick_mode_for_other_traffic_is_refused_with_invalid_id_information
    //= rfc3193 4.2.2 "The port numbers in the Quick Mode IDs sent by the initiator MUST contain the specific port numbers used to identify the UDP socket."
    //= test: quick_mode_names_l2tp_and_the_original_addresses_on_the_wire, other_protocols_and_ports_are_refused
    [config.local, config.remote].map(|address| Identity::Address(address).body(PROTOCOL_UDP, L2TP_PORT))
}

/// Judges the peer's IDci and IDcr; `role` is ours. Without any the SAs are for the two ends themselves.
pub(super) fn judge(payloads: &Payloads<'_>, role: Role) -> Result<(), Error> {
    let ids: Vec<&[u8]> = payloads.all(PayloadType::ID).collect();
    let [initiator, responder] = ids.as_slice() else {
        return if ids.is_empty() { Ok(()) } else { Err(Error::InvalidSelectors { protocol: 0, port: 0 }) };
    };
    let (ours, theirs) = match role {
        Role::Initiator => (initiator, responder),
        Role::Responder => (responder, initiator),
    };
    // RFC 2661 section 8.1: "The recipient picks a free port on its own system (which may or may not be 1701)".
    suits(ours, |port| port == 0 || port == L2TP_PORT)?;
    suits(theirs, |_| true)
}

fn suits(body: &[u8], port_suits: impl Fn(u16) -> bool) -> Result<(), Error> {
    let mut reader = Reader::new(body);
    reader.u8("identification type")?;
    let (protocol, port) = (reader.u8("identification protocol")?, reader.u16("identification port")?);
    if (protocol == 0 || protocol == PROTOCOL_UDP) && port_suits(port) {
        Ok(())
    } else {
        Err(Error::InvalidSelectors { protocol, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ike::message::Chain;

    fn judged(role: Role, ids: &[(u8, u16)]) -> Result<(), Error> {
        let mut chain = Chain::new();
        for &(protocol, port) in ids {
            let [high, low] = port.to_be_bytes();
            chain.push(PayloadType::ID, &[2, protocol, high, low, b'x']);
        }
        judge(&Payloads::read(chain.first(), chain.octets()).unwrap(), role)
    }

    #[test]
    fn our_side_is_udp_with_the_port_of_l2tp_or_any_and_the_peer_may_use_every_port() {
        for fits in [[(17, 1701), (17, 1701)], [(17, 40_000), (17, 1701)], [(17, 0), (17, 0)], [(0, 0), (0, 0)]] {
            assert_eq!(judged(Role::Responder, &fits), Ok(()), "{fits:?}");
            let [initiator, responder] = fits;
            assert_eq!(judged(Role::Initiator, &[responder, initiator]), Ok(()), "{fits:?}");
        }
        assert_eq!(judged(Role::Responder, &[]), Ok(()));
    }

    #[test]
    fn other_protocols_and_ports_are_refused() {
        for odd in [[(6, 1701), (17, 1701)], [(17, 1701), (6, 1701)], [(17, 1701), (17, 53)]] {
            assert!(matches!(judged(Role::Responder, &odd), Err(Error::InvalidSelectors { .. })), "{odd:?}");
        }
        assert_eq!(
            judged(Role::Initiator, &[(17, 53), (17, 1701)]),
            Err(Error::InvalidSelectors { protocol: 17, port: 53 })
        );
        assert!(judged(Role::Responder, &[(17, 1701)]).is_err(), "one of two");
    }
}
