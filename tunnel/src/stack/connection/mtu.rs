//! The MTU of the link (RFC 3193 section 3.2): what ESP, L2TP and PPP leave of a packet of the path.

use std::time::Instant;

use super::{Connection, State, Step};
use crate::inet::UDP_HEADER;
use crate::report::Encapsulation;
use crate::{esp, ppp};

/// No link of the Internet has a smaller MTU (RFC 791).
const MIN_MTU: u16 = 576;

impl Connection {
    /// What the path, the suite and the configuration leave for an IP packet, in both directions.
    pub(super) fn fitting(&self) -> u16 {
        let (path, is_ipv6) = (self.path.mtu.into(), self.path.remote.is_ipv6());
        let payload = self.esp.zip(self.encapsulation).map_or(0, |(proposal, encapsulation)| {
            esp::inner_udp_payload(path, is_ipv6, encapsulation == Encapsulation::Udp, &proposal)
        });
        let overhead = UDP_HEADER + self.lac.data_overhead() + ppp::IP_HEADER;
        let fits = u16::try_from(payload.saturating_sub(overhead)).unwrap_or(u16::MAX);
        fits.min(self.mtu_limit.unwrap_or(u16::MAX)).max(MIN_MTU)
    }

    /// The MTU of the device: what fits, if the peer's MRU is not smaller.
    pub(super) fn mtu(&self) -> u16 {
        self.fitting().min(self.ppp.mtu()).max(MIN_MTU)
    }

    /// Another suite, sequence numbers in L2TP or another path change what fits.
    pub(super) fn follow_mtu(&mut self) {
        let mtu = self.mtu();
        if self.state == State::Up
            && let Some(link) = self.link.as_mut().filter(|link| link.mtu != mtu)
        {
            link.mtu = mtu;
            self.step(Step::Mtu(mtu));
        }
    }

    /// The path takes IP packets of at most `mtu` octets.
    pub(in crate::stack) fn handle_path_mtu(&mut self, now: Instant, mtu: u16) {
        self.path.mtu = mtu;
        self.pump(now);
    }
}
