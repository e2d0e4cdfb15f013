//! From a call to a link: PPP, whoever decides about the user, and what fits.

use std::net::Ipv4Addr;
use std::time::Instant;

use super::super::ipv6;
use super::super::session::{EndCause, Session};
use super::{Call, Context, ESTABLISHMENT_LIMIT, Peer, Phase, Ppp, Step};
use crate::aaa::{Grant, Refusal};
use crate::inet::UDP_HEADER;
use crate::ppp::Assignment;
use crate::stack::settings;
use crate::{esp, ppp};

/// No link of the Internet has a smaller MTU (RFC 791).
const MIN_MTU: u16 = 576;

impl Peer {
    pub(super) fn begin_session(&mut self, context: &mut Context<'_>, call: Call, calling_number: Option<String>) {
        let now = context.now;
        *context.next_session = context.next_session.saturating_add(1);
        let id = *context.next_session;
        let mut ppp = Ppp::new(settings::ppp_server(context.config, context.eap_tls), settings::split(context.rng));
        ppp.set_mru(self.fitting(call));
        ppp.open(now);
        if let Phase::Lingering(_) = self.phase {
            self.phase = Phase::Secured(now + ESTABLISHMENT_LIMIT);
        }
        self.sessions.push(Session::new(id, call, ppp, calling_number, now));
    }

    /// The owner lets a user in; false when it is too late.
    pub(in crate::stack::server) fn accept(
        &mut self,
        context: &mut Context<'_>,
        session: u64,
        grant: Grant,
        address: Ipv4Addr,
    ) -> bool {
        let addresses = &context.config.addresses;
        let assignment = Assignment { local: addresses.local, peer: address, dns: addresses.dns.clone() };
        let Some(session) = self.session_mut(session) else { return false };
        let in_time = session.ppp.accept(context.now, &grant, assignment);
        if in_time {
            session.admit(context.now, grant, address);
        }
        self.pump(context);
        in_time
    }

    /// The owner refuses a user.
    pub(in crate::stack::server) fn refuse(&mut self, context: &mut Context<'_>, session: u64, refusal: &Refusal) {
        let Some(session) = self.session_mut(session) else { return };
        session.ending = Some(EndCause::Refused);
        session.ppp.reject(context.now, refusal);
        self.pump(context);
    }

    /// A RADIUS server has another question.
    pub(in crate::stack::server) fn challenge(&mut self, context: &mut Context<'_>, session: u64, packet: &[u8]) {
        let Some(session) = self.session_mut(session) else { return };
        session.ppp.challenge(context.now, packet);
        self.pump(context);
    }

    pub(super) fn handle_ppp_event(&mut self, context: &mut Context<'_>, index: usize, event: ppp::Event) {
        let now = context.now;
        let Some(session) = self.sessions.get_mut(index) else { return };
        let (id, call) = (session.id, session.call);
        match event {
            ppp::Event::LcpOpened | ppp::Event::EchoReply { .. } => {}
            ppp::Event::Ipv6cpOpened { local_id, .. } => {
                session.ipv6 = Some(ipv6::Link::new(local_id, session.ipv6));
                self.step(Step::Advertise { session: id });
            }
            ppp::Event::Ipv6cpDown => session.ipv6.iter_mut().for_each(|link| link.advertise_at = None),
            ppp::Event::Authenticate(request) => self.step(Step::Authenticate { session: id, request }),
            ppp::Event::Authenticated { method } => session.auth = Some(method),
            ppp::Event::IpcpOpened { .. } => {
                session.open = true;
                session.last_packet = now;
                // A link that is negotiated anew is the same session.
                let first = session.up.is_none();
                session.up.get_or_insert(now);
                self.phase = Phase::Serving;
                self.follow_mtu();
                self.step(Step::Advertise { session: id });
                if first {
                    self.step(Step::Up { session: id });
                }
            }
            ppp::Event::IpcpDown => session.open = false,
            ppp::Event::EchoLost { count } => {
                let suspicious = session.ppp.echo_failures();
                let verdict = self.life.handle_echo_lost(now, count, suspicious);
                self.handle_life(context, verdict, Some(call));
            }
            ppp::Event::Down { .. } | ppp::Event::Closed => self.end_session_of(context, call, EndCause::PeerClosed),
            ppp::Event::Failed(error) => {
                // A refusal by a user's name is told where it is decided.
                if matches!(error, ppp::Error::NotProved { .. } | ppp::Error::NoCommonAuthentication) {
                    let peer = self.remote().map(|peer| peer.to_string());
                    tracing::warn!(session = id, peer, %error, "a client is refused");
                } else {
                    tracing::debug!(session = id, %error, "PPP failed");
                }
                self.end_session_of(context, call, EndCause::Failed);
            }
        }
    }

    /// Has clients told again of their prefixes when it is time.
    pub(super) fn advertise_due(&mut self, now: Instant) {
        let links = self.sessions.iter_mut().filter_map(|session| Some((session.id, session.ipv6.as_mut()?)));
        let due: Vec<u64> =
            links.filter_map(|(id, link)| link.advertise_at.take_if(|at| *at <= now).map(|_| id)).collect();
        due.into_iter().for_each(|session| self.step(Step::Advertise { session }));
    }

    /// What the path, the suite and the configuration leave for an IP packet.
    fn fitting(&self, call: Call) -> u16 {
        let is_ipv6 = self.remote().is_some_and(|remote| remote.is_ipv6());
        let payload = self
            .esp_proposal
            .map_or(0, |proposal| esp::inner_udp_payload(self.path_mtu.into(), is_ipv6, true, &proposal));
        let overhead = UDP_HEADER + self.lns.data_overhead(call) + ppp::IP_HEADER;
        u16::try_from(payload.saturating_sub(overhead)).unwrap_or(u16::MAX).min(self.mtu_limit).max(MIN_MTU)
    }

    /// Another suite, sequence numbers in L2TP or another path change what fits.
    pub(super) fn follow_mtu(&mut self) {
        let fits: Vec<u16> = self.sessions.iter().map(|session| self.fitting(session.call)).collect();
        for (session, fits) in self.sessions.iter_mut().zip(fits) {
            session.mtu = fits.min(session.ppp.mtu()).max(MIN_MTU);
        }
    }
}
