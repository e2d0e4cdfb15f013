//! What RADIUS servers are asked and told about sessions, and what they want ended.

use std::time::Instant;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::{Message, Process};
use crate::aaa::{Cause, Refusal, Request, Verdict};
use crate::io::lifecycle::seed;
use crate::io::radius::{self as task, Radius};
use crate::radius;
use crate::radius::{Account, Authentic, Disconnect, Event, Known, TerminateCause};
use crate::report::Layer;
use crate::stack::server::{EndCause, Place, SessionInfo, Traffic};

impl From<task::Event> for Message {
    fn from(event: task::Event) -> Self {
        Self::Radius(event)
    }
}

impl Process {
    /// Begins to speak with RADIUS servers, goes on with other ones, or ends it, as the configuration says.
    pub(super) async fn follow_radius(&mut self) {
        match (&self.config.radius, &self.radius) {
            (Some(config), Some(radius)) => log(radius.reconfigure(config.clone()), "another configuration"),
            (Some(config), None) => match start(config, self.sender.clone()) {
                Ok(radius) => self.radius = Some(radius),
                Err(error) => tracing::error!(%error, "there is no socket for RADIUS"),
            },
            (None, Some(_)) => {
                if let Some(radius) = self.radius.take() {
                    radius.end().await;
                }
            }
            (None, None) => {}
        }
    }

    pub(super) fn ask(&mut self, session: u64, request: Request, place: Place) {
        let asked = self.radius.as_ref().map(|radius| radius.authenticate(session, request, info(session, place)));
        if !matches!(asked, Some(Ok(()))) {
            let refusal = Refusal::new(Cause::RadiusSilent);
            self.server.handle_verdict(Instant::now(), session, Verdict::Reject(refusal));
        }
    }

    pub(super) fn handle_radius(&mut self, event: task::Event) {
        match event {
            task::Event::Client(Event::Answered { key, verdict }) => {
                self.server.handle_verdict(Instant::now(), key, verdict);
            }
            task::Event::Client(Event::InterimDue { key }) => {
                let session = self.server.session(key);
                if let (Some(radius), Some(session)) = (&self.radius, session) {
                    log(radius.update(key, traffic(session.traffic)), "an interim update");
                }
            }
            task::Event::Client(Event::Disconnect(wanted)) => self.disconnect(&wanted),
            task::Event::Layer(layer) => {
                self.server.set(Layer::Radius, layer.state, layer.reason, &layer.message);
            }
        }
    }

    fn disconnect(&mut self, wanted: &Disconnect) {
        let meant = |session: &SessionInfo| {
            let info = info(session.id, session.place);
            let known = Known { key: session.id, name: &session.user, address: session.address, info: &info };
            wanted.selector.matches(&known)
        };
        let sessions: Vec<u64> = self.server.sessions().filter(meant).map(|session| session.id).collect();
        for session in &sessions {
            self.server.disconnect(Instant::now(), *session);
        }
        if let Some(radius) = &self.radius {
            log(radius.disconnected(wanted.token, !sessions.is_empty()), "the answer to a Disconnect-Request");
        }
    }

    pub(super) fn session_up(&mut self, session: &SessionInfo) {
        let known = |network| self.config.users.iter().any(|user| user.networks.contains(network));
        let told: Vec<_> = session.networks.iter().filter(|network| !known(*network)).copied().collect();
        if !told.is_empty() {
            self.told.insert(session.id, told);
            self.reroute = true;
        }
        let Some(radius) = &self.radius else { return };
        let is_ours = self.config.users.iter().any(|user| user.name == session.user);
        let configured = self.config.radius.as_ref().and_then(|radius| radius.interim_seconds);
        let account = Account {
            name: session.user.clone(),
            address: session.address,
            info: info(session.id, session.place),
            class: session.class.clone(),
            authentic: if is_ours { Authentic::LOCAL } else { Authentic::RADIUS },
            interim: session
                .interim
                .or_else(|| configured.map(|seconds| std::time::Duration::from_secs(seconds.into()))),
        };
        log(radius.account(session.id, account), "the start of a session");
    }

    pub(super) fn session_down(&mut self, session: &SessionInfo, cause: EndCause) {
        self.reroute |= self.told.remove(&session.id).is_some();
        if let Some(radius) = &self.radius {
            log(radius.stop(session.id, traffic(session.traffic), terminate_cause(cause)), "the end of a session");
        }
    }
}

fn start(
    config: &crate::config::server::Radius,
    sender: tokio::sync::mpsc::Sender<Message>,
) -> std::io::Result<Radius> {
    Radius::start(config.clone(), StdRng::from_seed(*seed()?), sender)
}

fn log(told: Result<(), task::Busy>, what: &str) {
    if let Err(error) = told {
        tracing::error!(%error, "RADIUS servers do not hear of {what}");
    }
}

fn info(session: u64, place: Place) -> radius::SessionInfo {
    let Place { peer, local, mtu } = place;
    // The number wraps after four billion sessions, of which no two are up at a time.
    radius::SessionInfo { port: session as u32, peer: peer.ip(), local, mtu }
}

fn traffic(traffic: Traffic) -> radius::Traffic {
    radius::Traffic {
        input_octets: traffic.rx_octets,
        output_octets: traffic.tx_octets,
        input_packets: traffic.rx_packets,
        output_packets: traffic.tx_packets,
    }
}

/// RFC 2866 section 5.10.
fn terminate_cause(cause: EndCause) -> TerminateCause {
    match cause {
        EndCause::PeerClosed => TerminateCause::USER_REQUEST,
        EndCause::DeadPeer => TerminateCause::LOST_CARRIER,
        EndCause::Idle => TerminateCause::IDLE_TIMEOUT,
        EndCause::Total => TerminateCause::SESSION_TIMEOUT,
        EndCause::Revoked | EndCause::Administrative => TerminateCause::ADMIN_RESET,
        EndCause::Replaced => TerminateCause::PORT_PREEMPTED,
        EndCause::Refused => TerminateCause::USER_ERROR,
        EndCause::Failed => TerminateCause::NAS_ERROR,
        EndCause::Stopping => TerminateCause::NAS_REBOOT,
    }
}
