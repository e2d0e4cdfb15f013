//! The options of IPCP: addresses (RFC 1332 section 3.3) and name servers (RFC 1877 section 1). Van Jacobson compression and the
//! rest is rejected.

use std::net::Ipv4Addr;

use super::config::Assignment;
use super::negotiation::{Judgement, Negotiate};
use super::packet::{ConfigOption, Protocol, options, write_option};
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
    /// The primary and the secondary name server that we ask for; none where we ask for none or the peer rejects the option.
    dns: [Option<Ipv4Addr>; 2],
    /// The peer's address, if it names one.
    peer: Option<Ipv4Addr>,
    /// In the role of the server: what the peer gets.
    assignment: Option<Assignment>,
    /// Whether a peer that asked for no address was told the one that it has.
    offered: bool,
}

impl Ipcp {
    /// The end that gets its address from the other one, until it is told otherwise by [`Self::assign`].
    pub(super) fn new() -> Self {
        let asked = Some(Ipv4Addr::UNSPECIFIED);
        Self { address: asked, dns: [asked; 2], peer: None, assignment: None, offered: false }
    }

    /// The role of the server: addresses are assigned to the peer.
    pub(super) fn assign(&mut self, assignment: Assignment) {
        (self.address, self.dns, self.offered) = (Some(assignment.local), [None; 2], false);
        self.assignment = Some(assignment);
    }

    /// Our address: assigned by us, or given by the peer.
    pub(super) fn address(&self) -> Option<Ipv4Addr> {
        match &self.assignment {
            Some(assignment) => Some(assignment.local),
            None => self.address.filter(|address| !address.is_unspecified()),
        }
    }

    /// The peer's address: assigned by us, or else what it says. By what it says nothing may be routed: some gateways name one
    /// that is not theirs.
    pub(super) fn peer(&self) -> Option<Ipv4Addr> {
        self.assignment.as_ref().map_or(self.peer, |assignment| Some(assignment.peer))
    }

    /// The name servers of the link.
    pub(super) fn dns(&self) -> Vec<Ipv4Addr> {
        match &self.assignment {
            Some(assignment) => assignment.dns.clone(),
            None => self.dns.iter().copied().flatten().filter(|address| !address.is_unspecified()).collect(),
        }
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

    fn judge(&mut self, request: &[u8], last: bool) -> Judgement {
        let Ok(options) = options(request) else { return Judgement::Reject(request.to_vec()) };
        if let Some(assignment) = &self.assignment {
            let judgement = judge_by(assignment, &options, last, !self.offered);
            self.offered |= matches!(judgement, Judgement::Nak(_));
            return judgement;
        }
        self.peer = None;
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
        if self.assignment.is_some() {
            // Our address is ours: a peer that wants another one hears none.
            return self.handle_reject(kind);
        }
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

/// The answer of a server. `offers` says whether a peer that asks for no address is told which one it has.
fn judge_by(assignment: &Assignment, options: &[ConfigOption<'_>], last: bool, offers: bool) -> Judgement {
    let (mut nak, mut reject, mut asks) = (Vec::new(), Vec::new(), false);
    for option in options {
        let kind = OptionType(option.kind);
        asks |= kind == OptionType::IP_ADDRESS;
        let value = match kind {
            OptionType::IP_ADDRESS => Some(assignment.peer),
            OptionType::PRIMARY_DNS => assignment.dns.first().copied(),
            OptionType::SECONDARY_DNS => assignment.dns.get(1).copied(),
            //= out: rfc1332 4.1 "All compressed TCP packets must set the C bit in every change mask, and must include the slot identifier." Van Jacobson compression is rejected
            //= out: rfc1332 4 "Each end of the link must separately request this option if bi-directional compression is desired." Van Jacobson compression is rejected
            //= out: rfc1332 4.1 "0 The slot identifier must not be compressed." Van Jacobson compression is rejected
            //= out: rfc1332 4.1 "The slot identifier must not be compressed if there is no ability for the PPP link level to indicate an error in reception to the decompression module." Van Jacobson compression is rejected
            // Van Jacobson headers do not survive loss and reordering, and there are no NetBIOS name servers.
            _ => None,
        };
        match value {
            Some(value) if option.data == value.octets() => {}
            Some(value) if !last => write_option(&mut nak, option.kind, &value.octets()),
            Some(_) | None => reject.extend(option.whole),
        }
    }
    //= rfc1332 3.3 "The value of the IP-address given must be acceptable as the remote IP-address"
    //= test: a_peer_that_asks_for_no_address_is_told_it_once_and_then_left_alone, a_server_naks_another_address_and_name_server_with_the_assigned_ones
    //= rfc1332 3.3 "If negotiation about the remote IP-address is required, and the peer did not provide the option in its Configure-Request, the option SHOULD be appended to a Configure-Nak."
    //= test: a_peer_that_asks_for_no_address_is_told_it_once_and_then_left_alone, a_client_that_has_no_ipcp_gets_no_link_and_one_without_options_does
    //= rfc1661 5.3 "Any value fields for the option MUST indicate values acceptable to the Configure-Nak sender."
    //= test: a_peer_that_asks_for_no_address_is_told_it_once_and_then_left_alone, a_server_naks_another_address_and_name_server_with_the_assigned_ones
    if !asks && offers && !last {
        write_option(&mut nak, OptionType::IP_ADDRESS.0, &assignment.peer.octets());
    }
    match (reject.is_empty(), nak.is_empty()) {
        (false, _) => Judgement::Reject(reject),
        (true, false) => Judgement::Nak(nak),
        (true, true) => Judgement::Ack,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(dns: &[[u8; 4]]) -> Ipcp {
        let mut ipcp = Ipcp::new();
        let dns = dns.iter().copied().map(Ipv4Addr::from).collect();
        ipcp.assign(Assignment { local: [10, 0, 0, 1].into(), peer: [10, 0, 0, 9].into(), dns });
        ipcp
    }

    #[test]
    fn a_server_naks_another_address_and_name_server_with_the_assigned_ones() {
        let mut ipcp = server(&[[10, 0, 0, 53], [10, 0, 0, 54]]);
        assert_eq!(ipcp.request(), [3, 6, 10, 0, 0, 1]);
        let assigned = [3, 6, 10, 0, 0, 9, 129, 6, 10, 0, 0, 53, 131, 6, 10, 0, 0, 54];
        for asked in [[0; 4], [192, 168, 1, 1]] {
            let request = [&[3, 6][..], &asked, &[129, 6], &asked, &[131, 6], &asked].concat();
            assert_eq!(ipcp.judge(&request, false), Judgement::Nak(assigned.to_vec()));
            assert_eq!(ipcp.judge(&request, true), Judgement::Reject(request.clone()), "no Nak is left");
        }
        assert_eq!(ipcp.judge(&assigned, false), Judgement::Ack);
        assert_eq!((ipcp.address(), ipcp.peer()), (Some([10, 0, 0, 1].into()), Some([10, 0, 0, 9].into())));
    }

    #[test]
    fn a_server_rejects_what_it_does_not_have_before_it_naks() {
        let wins = [130, 6, 0, 0, 0, 0, 132, 6, 0, 0, 0, 0];
        let vj = [2, 6, 0, 0x2d, 15, 1];
        let dns = [129, 6, 0, 0, 0, 0, 131, 6, 0, 0, 0, 0];
        let request = [&[3, 6, 0, 0, 0, 0][..], &vj, &dns, &wins].concat();
        let rejected = [&vj[..], &dns, &wins].concat();
        assert_eq!(server(&[]).judge(&request, false), Judgement::Reject(rejected));
        let rejected = [&vj[..], &dns[6..], &wins].concat();
        assert_eq!(server(&[[10, 0, 0, 53]]).judge(&request, false), Judgement::Reject(rejected), "one name server");
    }

    #[test]
    fn a_peer_that_asks_for_no_address_is_told_it_once_and_then_left_alone() {
        let mut ipcp = server(&[]);
        assert_eq!(ipcp.judge(&[], false), Judgement::Nak(vec![3, 6, 10, 0, 0, 9]));
        assert_eq!(ipcp.judge(&[], false), Judgement::Ack);
        assert_eq!(ipcp.peer(), Some([10, 0, 0, 9].into()));
    }

    #[test]
    fn a_server_whose_address_is_not_wanted_names_none_and_keeps_it() {
        for refusal in [|ipcp: &mut Ipcp| ipcp.handle_reject(3), |ipcp: &mut Ipcp| ipcp.handle_nak(3, &[1, 2, 3, 4])] {
            let mut ipcp = server(&[]);
            refusal(&mut ipcp);
            assert_eq!((ipcp.request(), ipcp.address()), (vec![], Some([10, 0, 0, 1].into())));
        }
    }

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
