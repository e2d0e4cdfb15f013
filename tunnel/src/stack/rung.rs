//! One way to dial a peer: all that may differ from one attempt to the next, and the order in which it is tried.
//!
//! A peer that refuses says what it refuses, and only that is changed: each [`Facet`] has an order of its own, the best first, and
//! each refusal has the facets that may help against it. Nothing is tried that the configuration does not allow.

use crate::config::{self, Config, Encapsulation, Exchange, IdentityKind};
use crate::ike::registry::{ExchangeType, NotifyType};
use crate::ike::{self, NatPayloads};
use crate::suite::{EspProposal, Group, IkeProposal, Security};

/// The levels of algorithms, the strongest first; each offers what those before it do and more, up to the configured one.
const LEVELS: [Security; 3] = [Security::Strong, Security::Compatible, Security::Legacy];
/// The kinds of the text of `ike.localId`, the likeliest first, behind the configured one: administrators agree on a text and forget
/// the kind. Our address comes last.
const KINDS: [IdentityKind; 3] = [IdentityKind::Fqdn, IdentityKind::UserFqdn, IdentityKind::KeyId];

/// The most rungs that are tried one after the other: the one that is remembered, the first, and the rest of each facet.
pub(super) const MAX_RUNGS: usize = 2 + 2 * (LEVELS.len() - 1) + KINDS.len() + (NatPayloads::ALL.len() - 1) + 1;

/// In what a rung differs from the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Facet {
    /// Older algorithms in phase 1.
    Level,
    /// Older algorithms in ESP.
    EspLevel,
    /// A fresh exchange in phase 2, in the group of phase 1 (PFS). It is asked for under the same phase 1.
    Pfs,
    /// Another form of our identity.
    Identity,
    /// Other payloads of NAT traversal.
    NatPayloads,
    /// ESP without UDP, and so without port 4500.
    Encapsulation,
    /// Back to the first rung: the one that worked before does so no more.
    Memory,
}

impl Facet {
    /// The word for it in metrics and logs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Level => "level",
            Self::EspLevel => "esp_level",
            Self::Pfs => "pfs",
            Self::Identity => "identity",
            Self::NatPayloads => "nat_payloads",
            Self::Encapsulation => "encapsulation",
            Self::Memory => "memory",
        }
    }

    /// What may help after the peer failed so, the likeliest first. One that does not know us by our key is not asked for anything
    /// else.
    pub(super) fn after(error: &ike::Error) -> &'static [Self] {
        match error {
            ike::Error::NoProposalChosen { phase: 1, .. } => &[Self::Level],
            // Some gateways are silent where they have nothing of an offer.
            ike::Error::NoResponse { exchange: ExchangeType::QUICK_MODE, .. } => &[Self::EspLevel],
            ike::Error::NoResponse { message: 1, .. } => &[Self::Level],
            // PFS was tried before: it needs no other phase 1.
            ike::Error::NoProposalChosen { .. } => &[Self::EspLevel, Self::NatPayloads],
            ike::Error::IdentityRefused { .. } => &[Self::Identity],
            // Message 3 is the first with NAT-D, and Quick Mode the first with NAT-OA and the number of the encapsulation.
            ike::Error::NoResponse { exchange: ExchangeType::IDENTITY_PROTECTION, message: 3 }
            | ike::Error::NotOffered { phase: 2, .. } => &[Self::NatPayloads],
            // Message 5 is the first on port 4500, which a filter may swallow; a wrong key looks the same.
            ike::Error::AuthenticationFailed { notification: None } => &[Self::Encapsulation],
            ike::Error::Rejected { notification, .. } if complains_about_payloads(*notification) => {
                &[Self::NatPayloads]
            }
            _ => &[],
        }
    }
}

fn complains_about_payloads(notification: NotifyType) -> bool {
    matches!(
        notification,
        NotifyType::INVALID_PAYLOAD_TYPE | NotifyType::PAYLOAD_MALFORMED | NotifyType::UNEQUAL_PAYLOAD_LENGTHS
    )
}

/// One way to dial a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rung {
    /// How old the algorithms of phase 1 and of ESP may be, where the configuration names none.
    level: Security,
    esp_level: Security,
    /// The group of a fresh exchange in phase 2, if the peer has asked for one.
    pub(super) pfs: Option<Group>,
    /// Who we say that we are; our own address, or the subject of our certificate, if nothing is said.
    pub(super) identity: Option<config::Identity>,
    pub(super) nat_payloads: NatPayloads,
    /// Whether NAT traversal is left out, so that ESP travels as an IP protocol.
    pub(super) unencapsulated: bool,
    /// Whether ports 500 and 4500 must not be used as source ports.
    pub(super) fresh_ports: bool,
}

impl Rung {
    /// The one that is tried first: the strongest, and as the configuration has it.
    pub(super) fn first(config: &Config) -> Self {
        Self {
            level: Security::Strong,
            esp_level: Security::Strong,
            pfs: None,
            identity: config.ike.local_id.clone(),
            nat_payloads: NatPayloads::default(),
            unencapsulated: config.esp.encapsulation == Encapsulation::None,
            fresh_ports: false,
        }
    }

    /// The same from other source ports, or from the well-known ones. They take turns from one attempt to the next, after the wait.
    pub(super) fn with_ports(self, fresh_ports: bool) -> Self {
        Self { fresh_ports, ..self }
    }

    /// The next one by the first of `facets` that has one, and which facet that is.
    pub(super) fn next(&self, config: &Config, facets: &[Facet]) -> Option<(Facet, Self)> {
        facets.iter().find_map(|facet| {
            let next = match facet {
                Facet::Level => {
                    self.next_level(config, self.level, Self::ike_proposals, |level| Self { level, ..self.clone() })
                }
                Facet::EspLevel => self.next_level(config, self.esp_level, Self::esp_proposals, |esp_level| Self {
                    esp_level,
                    ..self.clone()
                }),
                Facet::Identity => self.next_identity(config),
                // Without NAT traversal there are none.
                Facet::NatPayloads if self.unencapsulated => None,
                Facet::NatPayloads => {
                    let next = after(&NatPayloads::ALL, &self.nat_payloads)?;
                    Some(Self { nat_payloads: *next, ..self.clone() })
                }
                Facet::Encapsulation => {
                    let may = config.esp.encapsulation == Encapsulation::Auto && !self.unencapsulated;
                    may.then(|| Self { unencapsulated: true, ..self.clone() })
                }
                Facet::Pfs | Facet::Memory => None,
            };
            next.map(|next| (*facet, next))
        })
    }

    /// The rung of the next level behind `level` that is allowed and has anything else to offer.
    fn next_level<T: PartialEq>(
        &self,
        config: &Config,
        level: Security,
        offer: impl Fn(&Self, &Config) -> Vec<T>,
        at: impl Fn(Security) -> Self,
    ) -> Option<Self> {
        let allowed = LEVELS.into_iter().filter(|next| *next > level && *next <= config.ike.security);
        allowed.map(at).find(|next| offer(next, config) != offer(self, config))
    }

    fn next_identity(&self, config: &Config) -> Option<Self> {
        let forms = identities(config);
        let identity = after(&forms, &self.identity)?.clone();
        Some(Self { identity, ..self.clone() })
    }

    /// The proposals of phase 1. Aggressive Mode can offer a single group: of a level it offers what the one before has not.
    pub(super) fn ike_proposals(&self, config: &Config) -> Vec<IkeProposal> {
        if !config.ike.proposals.is_empty() {
            return config.ike.proposals.clone();
        }
        let mut proposals = self.level.ike_proposals();
        if config.ike.exchange == Exchange::Aggressive
            && let Some(before) = LEVELS.into_iter().rfind(|level| *level < self.level)
        {
            let known = before.ike_proposals();
            proposals.retain(|proposal| !known.contains(proposal));
        }
        proposals
    }

    /// The proposals of phase 2, without a fresh exchange unless the configuration names it.
    pub(super) fn esp_proposals(&self, config: &Config) -> Vec<EspProposal> {
        if config.esp.proposals.is_empty() { self.esp_level.esp_proposals() } else { config.esp.proposals.clone() }
    }

    /// The rung in words: what is offered, and in what it is not the first.
    pub(super) fn words(&self, config: &Config) -> String {
        let offer = match (config.ike.proposals.is_empty(), config.esp.proposals.is_empty()) {
            (false, false) => "configured proposals".to_owned(),
            (true, false) => format!("{:?} proposals in phase 1", self.level),
            (false, true) => format!("{:?} proposals for ESP", self.esp_level),
            (true, true) if self.level == self.esp_level => format!("{:?} proposals", self.level),
            (true, true) => format!("{:?} proposals in phase 1 and {:?} ones for ESP", self.level, self.esp_level),
        };
        let pfs = self.pfs.map(|group| format!("{group} in phase 2 (PFS)"));
        let first = Self::first(config);
        let identity =
            (self.identity != first.identity).then(|| format!("identity as {}", form(self.identity.as_ref())));
        let nat = (self.nat_payloads != first.nat_payloads).then(|| payloads(self.nat_payloads).to_owned());
        let bare = (self.unencapsulated != first.unencapsulated).then(|| BARE.to_owned());
        let ports = self.fresh_ports.then(|| "fresh source ports".to_owned());
        let more = [pfs, identity, nat, bare, ports].into_iter().flatten();
        std::iter::once(offer).chain(more).collect::<Vec<_>>().join(", ")
    }

    /// What `facet` of it is, in words.
    pub(super) fn facet_words(&self, facet: Facet) -> Option<String> {
        match facet {
            Facet::Level => Some(format!("{:?} proposals in phase 1", self.level)),
            Facet::EspLevel => Some(format!("{:?} proposals for ESP", self.esp_level)),
            Facet::Identity => Some(format!("identity as {}", form(self.identity.as_ref()))),
            Facet::NatPayloads => Some(payloads(self.nat_payloads).to_owned()),
            Facet::Encapsulation => Some(BARE.to_owned()),
            Facet::Pfs | Facet::Memory => None,
        }
    }
}

/// What comes behind `now` in `order`.
fn after<'a, T: PartialEq>(order: &'a [T], now: &T) -> Option<&'a T> {
    order.iter().skip_while(|one| *one != now).nth(1)
}

/// The forms of our identity, all of them true: the configured one, its text as another kind that it fits, and our address. A
/// certificate proves one identity, so with it there is no other.
fn identities(config: &Config) -> Vec<Option<config::Identity>> {
    let mut forms = vec![config.ike.local_id.clone()];
    if let (Some(own), None) = (&config.ike.local_id, &config.credentials.certificate) {
        let others = KINDS.into_iter().filter(|kind| *kind != own.kind && fits(*kind, own));
        forms.extend(others.map(|kind| Some(config::Identity { kind, value: own.value.clone() })));
        forms.push(None);
    }
    forms
}

/// Whether the text of an identity may be one of this kind.
fn fits(kind: IdentityKind, own: &config::Identity) -> bool {
    let is_name = |text: &str| {
        let is_label = |label: &str| {
            !label.is_empty()
                && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_'))
        };
        text.split('.').all(is_label)
    };
    match kind {
        IdentityKind::Address => false,
        // The text of an address is no name.
        IdentityKind::Fqdn | IdentityKind::KeyId if own.kind == IdentityKind::Address => false,
        IdentityKind::Fqdn => is_name(&own.value),
        IdentityKind::UserFqdn => {
            own.value.split_once('@').is_some_and(|(user, domain)| !user.is_empty() && is_name(domain))
        }
        IdentityKind::KeyId => true,
    }
}

/// What an unencapsulated rung is called.
const BARE: &str = "ESP as IP protocol 50";

fn form(identity: Option<&config::Identity>) -> String {
    identity.map_or_else(|| "own Address".to_owned(), |identity| format!("{:?}", identity.kind))
}

fn payloads(payloads: NatPayloads) -> &'static str {
    match payloads {
        NatPayloads::Any => "NAT payloads of RFC 3947",
        NatPayloads::Drafts => "NAT payloads of the drafts",
        NatPayloads::Honest => "NAT payloads that make no NAT up",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A configuration of a client that says no more than it must, but for what `change` does.
    pub(in crate::stack) fn with(change: impl FnOnce(&mut Config)) -> Config {
        let text = r#"{"peers": [{"address": "gateway.example.com"}], "credentials": {"preSharedKey": {"path": "psk"},
            "username": {"path": "user"}, "password": {"path": "password"}}}"#;
        let mut config = config::parse(text).unwrap();
        change(&mut config);
        config
    }

    /// All rungs that are reached by `facet` alone, in words.
    fn climb(config: &Config, facet: Facet) -> Vec<String> {
        let climb =
            std::iter::successors(Some(Rung::first(config)), |rung| rung.next(config, &[facet]).map(|(_, next)| next));
        climb.map(|rung| rung.words(config)).collect()
    }

    #[test]
    fn each_facet_has_its_order_and_ends_at_what_is_allowed() {
        let legacy = with(|config| config.ike.security = Security::Legacy);
        assert_eq!(
            climb(&legacy, Facet::Level),
            [
                "Strong proposals",
                "Compatible proposals in phase 1 and Strong ones for ESP",
                "Legacy proposals in phase 1 and Strong ones for ESP"
            ]
        );
        assert_eq!(
            climb(&legacy, Facet::EspLevel),
            ["Strong proposals", "Strong proposals in phase 1 and Legacy ones for ESP"]
        );
        let compatible = with(|config| config.ike.security = Security::Compatible);
        assert_eq!(climb(&compatible, Facet::Level).len(), 2);
        assert_eq!(climb(&compatible, Facet::EspLevel), ["Strong proposals"]);
        let strong = with(|config| config.ike.security = Security::Strong);
        assert_eq!(climb(&strong, Facet::Level), ["Strong proposals"]);
        let named = with(|config| {
            config.ike.security = Security::Legacy;
            config.ike.proposals = vec!["aes256-sha256-modp2048".parse().unwrap()];
        });
        assert_eq!(climb(&named, Facet::Level), ["Strong proposals for ESP"]);
        assert_eq!(
            climb(&compatible, Facet::NatPayloads)[1..],
            ["Strong proposals, NAT payloads of the drafts", "Strong proposals, NAT payloads that make no NAT up"]
        );
    }

    #[test]
    fn the_last_rung_of_a_level_offers_all_that_the_configuration_allows() {
        for security in LEVELS {
            let config = with(|config| config.ike.security = security);
            let last = |facet| {
                std::iter::successors(Some(Rung::first(&config)), |rung| Some(rung.next(&config, &[facet])?.1)).last()
            };
            assert_eq!(last(Facet::Level).unwrap().ike_proposals(&config), security.ike_proposals());
            assert_eq!(last(Facet::EspLevel).unwrap().esp_proposals(&config), security.esp_proposals());
        }
    }

    #[test]
    fn aggressive_mode_offers_the_group_of_the_level_alone() {
        let config = with(|config| {
            config.ike.security = Security::Legacy;
            config.ike.exchange = Exchange::Aggressive;
        });
        let climb =
            std::iter::successors(Some(Rung::first(&config)), |rung| Some(rung.next(&config, &[Facet::Level])?.1));
        let groups: Vec<Group> = climb.map(|rung| rung.ike_proposals(&config)[0].group).collect();
        assert_eq!(groups, [Group::Modp2048, Group::Modp1536, Group::Modp1024]);
    }

    #[test]
    fn every_form_of_an_identity_is_true() {
        let forms = |kind, value: &str| {
            let value = value.to_owned();
            let config = with(|config| config.ike.local_id = Some(config::Identity { kind, value }));
            identities(&config).iter().map(|identity| form(identity.as_ref())).collect::<Vec<_>>()
        };
        assert_eq!(forms(IdentityKind::Fqdn, "branch.example.com"), ["Fqdn", "KeyId", "own Address"]);
        assert_eq!(forms(IdentityKind::KeyId, "branch"), ["KeyId", "Fqdn", "own Address"]);
        assert_eq!(forms(IdentityKind::KeyId, "oslo@example.com"), ["KeyId", "UserFqdn", "own Address"]);
        assert_eq!(forms(IdentityKind::KeyId, "a group with spaces"), ["KeyId", "own Address"]);
        assert_eq!(forms(IdentityKind::UserFqdn, "oslo@example.com"), ["UserFqdn", "KeyId", "own Address"]);
        assert_eq!(forms(IdentityKind::Address, "203.0.113.7"), ["Address", "own Address"]);
        assert_eq!(identities(&with(|_| ())), [None]);
        let certified = with(|config| {
            config.ike.local_id = Some(config::Identity { kind: IdentityKind::Fqdn, value: "a.b".to_owned() });
            let file = || config::SecretFile { path: "x".into(), source: None };
            config.credentials.certificate = Some(config::server::Certificate {
                chain: file(),
                key: file(),
                authorities: file(),
                revocations: None,
                remote_id: None,
            });
        });
        assert_eq!(identities(&certified).len(), 1);
    }

    #[test]
    fn no_climb_is_longer_than_its_bound() {
        for kind in KINDS {
            let config = with(|config| {
                config.ike.security = Security::Legacy;
                config.ike.local_id = Some(config::Identity { kind, value: "a@b.c".to_owned() });
            });
            let all = &[Facet::Level, Facet::EspLevel, Facet::Identity, Facet::NatPayloads];
            let climb = std::iter::successors(Some(Rung::first(&config)), |rung| Some(rung.next(&config, all)?.1));
            assert!(climb.count() < MAX_RUNGS, "{kind:?}");
        }
    }

    #[test]
    fn each_refusal_has_its_remedy_and_silence_about_an_offer_is_one() {
        let rejected =
            |notification| ike::Error::Rejected { exchange: ExchangeType::IDENTITY_PROTECTION, notification };
        let silent = |message| ike::Error::NoResponse { exchange: ExchangeType::IDENTITY_PROTECTION, message };
        let unanswered = ike::Error::NoResponse { exchange: ExchangeType::QUICK_MODE, message: 1 };
        let none = |phase| ike::Error::NoProposalChosen { phase, notification: None };
        let refused = ike::Error::IdentityRefused { notification: NotifyType::INVALID_ID_INFORMATION };
        for (error, facets) in [
            (none(1), &[Facet::Level][..]),
            (none(2), &[Facet::EspLevel, Facet::NatPayloads]),
            (refused, &[Facet::Identity]),
            (silent(3), &[Facet::NatPayloads]),
            (rejected(NotifyType::INVALID_PAYLOAD_TYPE), &[Facet::NatPayloads]),
            (rejected(NotifyType::INVALID_COOKIE), &[]),
            (silent(1), &[Facet::Level]),
            (unanswered, &[Facet::EspLevel]),
            (ike::Error::AuthenticationFailed { notification: None }, &[Facet::Encapsulation]),
            (ike::Error::NoNatTraversal, &[]),
        ] {
            assert_eq!(Facet::after(&error), facets, "{error}");
        }
    }
}
