//! What a tunnel process tells about itself: the state of each layer with a reason of one closed list, the peer's own words,
//! and what to do next. The process posts it to the operator; `towline-tunnel status` prints it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::suite::{EspProposal, IkeProposal};

/// The longest message of a layer, in characters; what a peer says is cut to it.
pub const MAX_MESSAGE: usize = 512;

/// The longest text about an export, in characters: those of all exports fit into one report.
pub const MAX_PROBLEM: usize = 128;

/// The layers of a tunnel in the order in which they come up. Each is one condition of a `VpnTunnel`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Layer {
    /// The pre-shared key, user name and password could be read.
    Credentials,
    /// A name was resolved and something answers at the address.
    Peer,
    /// ISAKMP: phase 1.
    Ike,
    /// A pair of ESP security associations: phase 2.
    Ipsec,
    /// The L2TP control connection and session.
    L2tp,
    /// LCP, authentication and IPCP.
    Ppp,
    /// The probe that goes through the tunnel.
    Probe,
    /// (Servers.) The UDP ports are open.
    Listener,
    /// (Servers.) The kernel forwards the packets of clients.
    Forwarding,
    /// (Servers.) A RADIUS server answers, where one is configured.
    Radius,
}

impl Layer {
    /// Every layer.
    pub const ALL: [Self; 10] = [
        Self::Credentials,
        Self::Peer,
        Self::Ike,
        Self::Ipsec,
        Self::L2tp,
        Self::Ppp,
        Self::Probe,
        Self::Listener,
        Self::Forwarding,
        Self::Radius,
    ];

    /// The layers of a client, the lowest first.
    pub const CLIENT: [Self; 7] =
        [Self::Credentials, Self::Peer, Self::Ike, Self::Ipsec, Self::L2tp, Self::Ppp, Self::Probe];

    /// The layers of a server, the lowest first; [`Self::Radius`] only where RADIUS is configured.
    pub const SERVER: [Self; 4] = [Self::Credentials, Self::Listener, Self::Forwarding, Self::Radius];
}

/// Whether a layer works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State {
    /// It works.
    Up,
    /// It failed, or was torn down; the reason says why.
    Down,
    /// It is on its way, or waits for a lower layer.
    Pending,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident),* $(,)?) => {
        /// Why a condition stands as it does: the closed list of every reason that Towline writes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Reason { $($(#[doc = $doc])+ $name),* }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The word in a condition's `reason`.
            pub fn name(self) -> &'static str { match self { $(Self::$name => stringify!($name)),* } }

            /// What the reason means, for documentation.
            pub fn description(self) -> &'static str { match self { $(Self::$name => concat!($($doc),+).trim_ascii()),* } }
        }
    };
}

reasons! {
    /// Nothing is known yet.
    Pending,
    /// The specification is complete and consistent.
    Valid,
    /// The specification cannot be carried out; the message names the field and the remedy.
    InvalidSpec,
    /// Every pod of the tunnel runs the specification as it stands.
    PodsReady,
    /// A pod of the tunnel is not running yet.
    PodsPending,
    /// The specification changed and a pod does not run the change yet.
    RollingOut,
    /// A sidecar tunnel has no pod: none carries its label.
    NoPods,
    /// A pod of the tunnel has not reported for a while; the tunnel may still carry traffic.
    PodSilent,
    /// The objects of the tunnel could not be written.
    ApplyFailed,
    /// Another object came first with the same name or address; the message names it.
    Conflict,
    /// The VpnTunnel that the object names does not exist.
    TunnelNotFound,
    /// The tunnel is switched off by `suspend`.
    Suspended,

    /// The Secrets hold everything that is needed.
    CredentialsRead,
    /// A Secret or a key of it is not there.
    CredentialsMissing,
    /// A Secret's value cannot be used: empty, too long, or not text.
    CredentialsInvalid,

    /// The layer waits for the one below it.
    WaitingForLowerLayer,
    /// The layer is being negotiated.
    Negotiating,
    /// The peer's name is being resolved.
    ResolvingPeer,
    /// The peer's name has no address.
    PeerUnresolvable,
    /// The network says that the peer cannot be reached.
    PeerUnreachable,
    /// The peer does not answer at all.
    PeerSilent,
    /// The peer answers.
    PeerAnswers,
    /// The process waits before its next attempt.
    BackingOff,
    /// The peer stopped answering on an established tunnel.
    DeadPeer,
    /// The peer closed the layer.
    PeerClosed,
    /// The tunnel process ends.
    Stopping,
    /// The TUN device, an address or a route could not be set up.
    DeviceFailed,

    /// Phase 1 is established.
    MainModeDone,
    /// The peer accepts none of the proposals of phase 1.
    NoProposalChosen,
    /// The pre-shared key is wrong, as far as can be told.
    AuthenticationFailed,
    /// The peer does not let the user of XAUTH in, asks for one where none is set, or asks for what no Secret holds.
    XauthFailed,
    /// The peer's identity is not the one that is asked for, or it refuses ours.
    InvalidIdentity,
    /// The peer does not support NAT traversal.
    NatTraversalUnsupported,
    /// The socket for ESP without UDP cannot be opened: the process has not the capability NET_RAW.
    RawSocketFailed,
    /// The peer stopped answering during phase 1, or gives no verdict on the user of XAUTH.
    IkeTimeout,
    /// The peer refused phase 1 with another notification, or broke a rule.
    IkeRefused,

    /// Phase 2 is established.
    QuickModeDone,
    /// The peer refused phase 2: no proposal, identity or policy in common.
    QuickModeRejected,
    /// The peer stopped answering during phase 2.
    QuickModeTimeout,

    /// The L2TP session is up.
    SessionUp,
    /// The peer refused the L2TP control connection or the call, or closed it before there was a link.
    L2tpRefused,
    /// The peer does not answer L2TP inside IPsec.
    L2tpTimeout,
    /// The L2TP tunnel secret is wrong or missing at one end.
    TunnelAuthenticationFailed,

    /// IPCP is open: the tunnel has an address.
    IpcpOpened,
    /// The user name or the password is wrong, or the account may not dial in.
    PppAuthenticationFailed,
    /// The peer did not prove that it knows the password.
    AuthenticatorNotVerified,
    /// LCP or IPCP found no common ground.
    PppNegotiationFailed,
    /// The peer does not answer PPP.
    PppTimeout,

    /// The probe answers through the tunnel.
    ProbeSucceeded,
    /// The probe does not answer through the tunnel.
    ProbeFailed,

    /// The UDP ports of the server are open.
    Listening,
    /// A UDP port of the server cannot be opened.
    ListenFailed,
    /// The kernel forwards the packets of clients.
    ForwardingEnabled,
    /// The settings of the node or of the pod forbid forwarding.
    ForwardingDisabled,
    /// A RADIUS server answers, or none was asked yet.
    RadiusAnswers,
    /// No RADIUS server answers.
    RadiusSilent,
    /// The server accepts people and sites.
    Serving,
    /// The Service of the server has no address that people and sites could dial.
    AddressPending,

    /// What was agreed on is weak by RFC 8221, RFC 8247 or the way it was agreed on; the message says what.
    WeakCrypto,
    /// Nothing that was agreed on is weak.
    NoWeakness,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One layer's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerReport {
    /// Which layer.
    pub layer: Layer,
    /// Whether it works.
    pub state: State,
    /// Why.
    pub reason: Reason,
    /// A sentence for a person: what happened, what the peer said, what to do. At most [`MAX_MESSAGE`] characters.
    pub message: String,
}

/// Which end of the path a NAT was found at (RFC 3947 section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Nat {
    /// No NAT.
    None,
    /// We are behind one.
    Local,
    /// The peer is behind one, or says so to make sure that ESP is sent in UDP.
    Remote,
    /// Both are, likewise.
    Both,
}

/// How ESP travels (RFC 2407 section 4.5, RFC 3947 section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Encapsulation {
    /// In UDP (RFC 3948): UDP-Encapsulated-Transport.
    Udp,
    /// As IP protocol 50: Transport.
    None,
}

/// What both ends agreed on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Negotiated {
    /// Phase 1.
    pub ike: IkeProposal,
    /// ESP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub esp: Option<EspProposal>,
    /// How ESP travels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encapsulation: Option<Encapsulation>,
    /// The PPP authentication protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ppp_auth: Option<crate::config::PppAuth>,
    /// Where NATs are, as far as both ends look for them: a peer without NAT traversal does not.
    pub nat: Nat,
    /// The MTU of the TUN device in octets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// What of it is weak, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weakness: Option<String>,
    /// By which way of dialling it came about, in words: what was offered, and in what that was not the first way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rung: Option<String>,
}

/// The state of one tunnel process. Unknown fields are no error: the operator may be older than the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The `revision` of the configuration that the process runs.
    pub revision: String,
    /// What is wrong with a newer configuration that the process could not apply; it goes on with the one it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected_revision: Option<RejectedRevision>,
    /// Each layer once, the lowest first.
    pub layers: Vec<LayerReport>,
    /// The peer of the list that is in use or was tried last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_peer: Option<String>,
    /// The address that its name was resolved to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_endpoint: Option<IpAddr>,
    /// Our address inside the tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned_address: Option<IpAddr>,
    /// The peer's address inside the tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_address: Option<IpAddr>,
    /// Name servers that the peer pushed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_servers: Vec<IpAddr>,
    /// What was agreed; none before phase 1 is established.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negotiated: Option<Negotiated>,
    /// When PPP came up, in seconds since the Unix epoch; none while it is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub established_at: Option<u64>,
    /// How many attempts failed since the tunnel was last up.
    #[serde(default)]
    pub failed_attempts: u32,
    /// Each export of the configuration, at most [`crate::config::MAX_EXPORTS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exports: Vec<ExportReport>,
    /// Each import of the configuration, at most [`crate::config::server::MAX_IMPORTS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub imports: Vec<ExportReport>,
    /// (Servers.) How many sessions are up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u32>,
    /// (Servers.) Those of them that agreed on something weak; none if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weak_sessions: Option<WeakSessions>,
    /// (Servers.) The last result of each user of the configuration who has tried to come in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<UserReport>,
}

/// Sessions of a server that agreed on something weak.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WeakSessions {
    /// How many.
    pub count: u32,
    /// What of one of them is weak, in words. `towline-tunnel status --sessions` tells it of each.
    pub weakness: String,
}

/// A session of a server that is up, as `towline-tunnel status` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionReport {
    /// Its number, which no other session of the process has.
    pub id: u64,
    /// The name of the user.
    pub user: String,
    /// The client's address inside.
    pub address: Ipv4Addr,
    /// The client's prefix of IPv6, if it speaks that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6_prefix: Option<ipnet::Ipv6Net>,
    /// Networks behind the client.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<ipnet::Ipv4Net>,
    /// Since when it is up, in seconds since the Unix epoch.
    pub since: u64,
    /// Where the client's packets come from.
    pub peer: SocketAddr,
    /// Phase 1.
    pub ike: IkeProposal,
    /// ESP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub esp: Option<EspProposal>,
    /// What of the algorithms is weak, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weakness: Option<String>,
    /// The PPP authentication protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<crate::config::PppAuth>,
    /// Octets of IP packets from the client.
    pub rx_octets: u64,
    /// Octets of IP packets to the client.
    pub tx_octets: u64,
}

/// How the last attempt of a user ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserReport {
    /// The name.
    pub name: String,
    /// Sessions that are up.
    pub sessions: u32,
    /// When the last attempt ended, in seconds since the Unix epoch.
    pub last_attempt: u64,
    /// Whether it brought a session.
    pub accepted: bool,
    /// What came of it, in a few words of a closed list, such as `wrong_password`.
    pub result: String,
}

/// One export's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExportReport {
    /// Its name.
    pub name: String,
    /// Why it does not listen, in a sentence of at most [`MAX_PROBLEM`] characters; none while it does. It is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A configuration that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RejectedRevision {
    /// Its revision, if it could be read.
    pub revision: String,
    /// What is wrong with it.
    pub message: String,
}

impl Report {
    /// The report of a client in which nothing has happened.
    pub fn new(revision: String) -> Self {
        Self::of_layers(revision, &Layer::CLIENT)
    }

    /// The report of a server in which nothing has happened.
    pub fn of_server(revision: String, radius: bool) -> Self {
        let layers: Vec<Layer> = Layer::SERVER.into_iter().filter(|layer| radius || *layer != Layer::Radius).collect();
        Self { sessions: Some(0), ..Self::of_layers(revision, &layers) }
    }

    fn of_layers(revision: String, layers: &[Layer]) -> Self {
        let pending = |layer: &Layer| LayerReport {
            layer: *layer,
            state: State::Pending,
            reason: Reason::Pending,
            message: "The tunnel process has just started.".to_owned(),
        };
        Self {
            revision,
            rejected_revision: None,
            layers: layers.iter().map(pending).collect(),
            active_peer: None,
            peer_endpoint: None,
            assigned_address: None,
            peer_address: None,
            dns_servers: Vec::new(),
            negotiated: None,
            established_at: None,
            failed_attempts: 0,
            exports: Vec::new(),
            imports: Vec::new(),
            sessions: None,
            weak_sessions: None,
            users: Vec::new(),
        }
    }

    /// The state of `layer`.
    pub fn layer(&self, layer: Layer) -> Option<&LayerReport> {
        self.layers.iter().find(|report| report.layer == layer)
    }

    /// Changes the state of `layer`; returns whether anything is different now.
    pub fn set(&mut self, layer: Layer, state: State, reason: Reason, message: impl Into<String>) -> bool {
        let mut message = message.into();
        if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE) {
            message.truncate(end);
        }
        let report = LayerReport { layer, state, reason, message };
        let Some(place) = self.layers.iter_mut().find(|place| place.layer == layer) else { return false };
        if *place == report {
            return false;
        }
        *place = report;
        true
    }

    /// Whether traffic goes through the tunnel: the probe answers. A server is ready when each of its layers works.
    pub fn is_ready(&self) -> bool {
        match self.layer(Layer::Probe) {
            Some(probe) => probe.state == State::Up,
            None => self.layers.iter().all(|layer| layer.state == State::Up),
        }
    }

    /// The cause of a tunnel that is not ready: the lowest layer that is down, or else the lowest that is not up.
    pub fn cause(&self) -> Option<&LayerReport> {
        let first = |state: State| self.layers.iter().find(|layer| layer.state == state);
        first(State::Down).or_else(|| first(State::Pending))
    }
}

/// What the operator answers to a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Acknowledgement {
    /// Seconds until the next report is expected even if nothing changes.
    pub heartbeat_seconds: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_the_lowest_layer_that_is_down() {
        let mut report = Report::new("1".to_owned());
        assert!(report.set(Layer::Credentials, State::Up, Reason::CredentialsRead, "read"));
        assert_eq!(report.cause().unwrap().layer, Layer::Peer);
        assert!(report.set(Layer::Ppp, State::Down, Reason::PppAuthenticationFailed, "E=691"));
        assert_eq!(report.cause().unwrap().layer, Layer::Ppp);
        assert!(!report.is_ready());
        assert!(report.set(Layer::Probe, State::Up, Reason::ProbeSucceeded, "answered"));
        assert!(report.is_ready());
    }

    #[test]
    fn messages_are_cut_at_a_character_and_equal_states_are_no_change() {
        let mut report = Report::new(String::new());
        assert!(report.set(Layer::L2tp, State::Down, Reason::L2tpRefused, "ä".repeat(MAX_MESSAGE + 9)));
        assert_eq!(report.layer(Layer::L2tp).unwrap().message.chars().count(), MAX_MESSAGE);
        assert!(!report.set(Layer::L2tp, State::Down, Reason::L2tpRefused, "ä".repeat(MAX_MESSAGE + 1)));
    }

    #[test]
    fn reports_survive_json() {
        let mut report = Report::new("7".to_owned());
        report.negotiated = Some(Negotiated {
            ike: "aes256-sha256-modp2048".parse().unwrap(),
            esp: Some("aes256gcm16".parse().unwrap()),
            encapsulation: Some(Encapsulation::None),
            ppp_auth: Some(crate::config::PppAuth::MsChapV2),
            nat: Nat::Local,
            mtu: Some(1354),
            weakness: None,
            rung: Some("Strong proposals".to_owned()),
        });
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }
}
