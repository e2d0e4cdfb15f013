//! Conditions of a `VpnTunnel`: their types, and how one is written over another.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use towline_tunnel::report::{Layer, Reason};

use super::tunnel::{Mode, VpnTunnelSpec};

macro_rules! condition_types {
    ($($(#[doc = $doc:literal])+ $name:ident),* $(,)?) => {
        /// The conditions of a `VpnTunnel`, in the order in which a person reads them: the first False up to `Ready` is the cause.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ConditionType { $($(#[doc = $doc])+ $name),* }

        impl ConditionType {
            /// Every type.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The word in a condition's `type`.
            pub fn name(self) -> &'static str { match self { $(Self::$name => stringify!($name)),* } }
        }
    };
}

condition_types! {
    /// The specification can be carried out.
    Accepted,
    /// The objects and pods of the tunnel are there and run the specification as it stands.
    Provisioned,
    /// The Secrets could be read.
    CredentialsResolved,
    /// The peer's name was resolved and something answers there.
    PeerReachable,
    /// Phase 1.
    IkeEstablished,
    /// Phase 2.
    IpsecEstablished,
    /// L2TP control connection and session.
    L2tpEstablished,
    /// LCP, authentication and IPCP.
    PppEstablished,
    /// (Servers.) The UDP ports are open.
    Listening,
    /// (Servers.) The kernel forwards the packets of clients.
    Forwarding,
    /// (Servers.) A RADIUS server answers.
    RadiusReachable,
    /// Traffic goes through the tunnel; a server accepts people and sites at its addresses.
    Ready,
    /// What was agreed on is weak. True is bad, as with the pressures of a node, and says nothing about `Ready`.
    WeakCrypto,
}

impl ConditionType {
    /// Whether `tunnel` has it.
    pub fn is_of(self, tunnel: &VpnTunnelSpec) -> bool {
        match self {
            Self::Accepted | Self::Provisioned | Self::CredentialsResolved | Self::Ready | Self::WeakCrypto => true,
            Self::PeerReachable
            | Self::IkeEstablished
            | Self::IpsecEstablished
            | Self::L2tpEstablished
            | Self::PppEstablished => tunnel.mode == Mode::Client,
            Self::Listening | Self::Forwarding => tunnel.mode == Mode::Server,
            Self::RadiusReachable => tunnel.server.as_ref().is_some_and(|server| server.radius.is_some()),
        }
    }
}

impl From<Layer> for ConditionType {
    fn from(layer: Layer) -> Self {
        match layer {
            Layer::Credentials => Self::CredentialsResolved,
            Layer::Peer => Self::PeerReachable,
            Layer::Ike => Self::IkeEstablished,
            Layer::Ipsec => Self::IpsecEstablished,
            Layer::L2tp => Self::L2tpEstablished,
            Layer::Ppp => Self::PppEstablished,
            Layer::Probe => Self::Ready,
            Layer::Listener => Self::Listening,
            Layer::Forwarding => Self::Forwarding,
            Layer::Radius => Self::RadiusReachable,
        }
    }
}

/// The `status` of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It is not known, or not decided yet.
    Unknown,
}

impl Truth {
    /// The word in a condition's `status`.
    pub fn name(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// What a condition says, before it has a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it holds.
    pub truth: Truth,
    /// Why.
    pub reason: Reason,
    /// A sentence for a person.
    pub message: String,
}

impl Verdict {
    /// It holds.
    pub fn yes(reason: Reason, message: impl Into<String>) -> Self {
        Self { truth: Truth::True, reason, message: message.into() }
    }

    /// It does not hold.
    pub fn no(reason: Reason, message: impl Into<String>) -> Self {
        Self { truth: Truth::False, reason, message: message.into() }
    }

    /// It is not known.
    pub fn unknown(reason: Reason, message: impl Into<String>) -> Self {
        Self { truth: Truth::Unknown, reason, message: message.into() }
    }

    /// The condition as the API writes it; its transition time is that of `old` unless the status changes.
    pub fn condition(
        &self,
        type_: ConditionType,
        old: &[Condition],
        generation: Option<i64>,
        now: Timestamp,
    ) -> Condition {
        let since = find(old, type_)
            .filter(|condition| condition.status == self.truth.name())
            .map_or_else(|| Time(now), |condition| condition.last_transition_time.clone());
        Condition {
            type_: type_.name().to_owned(),
            status: self.truth.name().to_owned(),
            reason: self.reason.name().to_owned(),
            message: self.message.clone(),
            observed_generation: generation,
            last_transition_time: since,
        }
    }
}

/// The condition of a type.
pub fn find(conditions: &[Condition], type_: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == type_.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = Verdict::no(Reason::PeerSilent, "no answer").condition(ConditionType::Ready, &[], Some(1), at(10));
        let again = Verdict::no(Reason::ProbeFailed, "no echo").condition(
            ConditionType::Ready,
            std::slice::from_ref(&first),
            Some(2),
            at(20),
        );
        assert_eq!((again.last_transition_time.0, again.observed_generation), (at(10), Some(2)));
        assert_eq!(again.reason, "ProbeFailed");
        let up = Verdict::yes(Reason::ProbeSucceeded, "ok").condition(ConditionType::Ready, &[again], Some(2), at(30));
        assert_eq!(up.last_transition_time.0, at(30));
    }
}
