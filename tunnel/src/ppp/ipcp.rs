//! The options of IPCP: addresses (RFC 1332 section 3.3) and name servers (RFC 1877 section 1). Van Jacobson compression and the
//! rest is rejected.

use std::net::Ipv4Addr;

use super::negotiation::{Judgement, Negotiate};
use super::packet::{Protocol, options, write_option};
use crate::registry;

registry! {
    /// The types of IPCP options: RFC 1332 section 3, RFC 1877 sections 1.1 and 1.3.
    pub struct OptionType(u8) {
        IP_ADDRESSES = 1,
        IP_COMPRESSION_PROTOCOL = 2,
        IP_ADDRESS = 3,
        PRIMARY_DNS = 129,
        PRIMARY_NBNS = 130,
        SECONDARY_DNS = 131,
        SECONDARY_NBNS = 132,
    }
}

/// Both ends' options.
pub(super) struct Ipcp {
    /// Our address; unspecified until the peer names one, none once it rejects the option.
    address: Option<Ipv4Addr>,
    /// The primary and the secondary name server; none once the peer rejects the option.
    dns: [Option<Ipv4Addr>; 2],
    /// The peer's address, if it names one.
    peer: Option<Ipv4Addr>,
}

impl Ipcp {
    pub(super) fn new() -> Self {
        let asked = Some(Ipv4Addr::UNSPECIFIED);
        Self { address: asked, dns: [asked; 2], peer: None }
    }

    /// The address that the peer gave us.
    pub(super) fn address(&self) -> Option<Ipv4Addr> {
        self.address.filter(|address| !address.is_unspecified())
    }

    /// The peer's address. Nothing may be routed by it: some gateways name one that is not theirs.
    pub(super) fn peer(&self) -> Option<Ipv4Addr> {
        self.peer
    }

    /// The name servers that the peer named.
    pub(super) fn dns(&self) -> Vec<Ipv4Addr> {
        self.dns.iter().copied().flatten().filter(|address| !address.is_unspecified()).collect()
    }

    fn option(&mut self, kind: u8) -> Option<&mut Option<Ipv4Addr>> {
        let [primary, secondary] = &mut self.dns;
        match OptionType(kind) {
            OptionType::IP_ADDRESS => Some(&mut self.address),
            OptionType::PRIMARY_DNS => Some(primary),
            OptionType::SECONDARY_DNS => Some(secondary),
            _ => None,
        }
    }
}

impl Negotiate for Ipcp {
    const PROTOCOL: Protocol = Protocol::IPCP;

    fn request(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let [primary, secondary] = self.dns;
        let all = [
            (OptionType::IP_ADDRESS, self.address),
            (OptionType::PRIMARY_DNS, primary),
            (OptionType::SECONDARY_DNS, secondary),
        ];
        for (kind, address) in all {
            if let Some(address) = address {
                write_option(&mut out, kind.0, &address.octets());
            }
        }
        out
    }

    fn judge(&mut self, request: &[u8], _last: bool) -> Judgement {
        self.peer = None;
        let Ok(options) = options(request) else { return Judgement::Reject(request.to_vec()) };
        let mut reject = Vec::new();
        for option in options {
            match (OptionType(option.kind), <[u8; 4]>::try_from(option.data)) {
                // A peer without an address asks for one with zeros: we have none to give, and need none of it.
                (OptionType::IP_ADDRESS, Ok(octets)) if octets != [0; 4] => self.peer = Some(octets.into()),
                _ => reject.extend(option.whole),
            }
        }
        if reject.is_empty() { Judgement::Ack } else { Judgement::Reject(reject) }
    }

    fn handle_nak(&mut self, kind: u8, value: &[u8]) {
        let Ok(octets) = <[u8; 4]>::try_from(value) else { return };
        if let Some(Some(option)) = self.option(kind) {
            *option = octets.into();
        }
    }

    fn handle_reject(&mut self, kind: u8) {
        if let Some(option) = self.option(kind) {
            *option = None;
        }
    }

    fn name(kind: u8) -> String {
        OptionType(kind).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_by_nak_and_go_by_reject() {
        let mut ipcp = Ipcp::new();
        assert_eq!(ipcp.request(), [3, 6, 0, 0, 0, 0, 129, 6, 0, 0, 0, 0, 131, 6, 0, 0, 0, 0]);
        ipcp.handle_nak(3, &[10, 0, 0, 9]);
        ipcp.handle_nak(129, &[10, 0, 0, 53]);
        ipcp.handle_nak(3, &[1]);
        ipcp.handle_reject(131);
        assert_eq!(ipcp.request(), [3, 6, 10, 0, 0, 9, 129, 6, 10, 0, 0, 53]);
        assert_eq!((ipcp.address(), ipcp.dns()), (Some([10, 0, 0, 9].into()), vec![[10, 0, 0, 53].into()]));
        // An option that was rejected does not come back.
        ipcp.handle_nak(131, &[10, 0, 0, 54]);
        assert_eq!(ipcp.dns().len(), 1);
    }

    #[test]
    fn the_peer_may_have_any_address_and_no_compression() {
        let mut ipcp = Ipcp::new();
        assert_eq!(ipcp.judge(&[3, 6, 10, 0, 0, 1], false), Judgement::Ack);
        assert_eq!(ipcp.peer(), Some([10, 0, 0, 1].into()));
        let vj = [2, 6, 0, 0x2d, 15, 1];
        assert_eq!(ipcp.judge(&[&vj[..], &[3, 6, 10, 0, 0, 1]].concat(), false), Judgement::Reject(vj.to_vec()));
        assert_eq!(ipcp.judge(&[3, 6, 0, 0, 0, 0], false), Judgement::Reject(vec![3, 6, 0, 0, 0, 0]));
        assert_eq!(ipcp.peer(), None);
        assert_eq!(ipcp.judge(&[], false), Judgement::Ack);
    }
}
