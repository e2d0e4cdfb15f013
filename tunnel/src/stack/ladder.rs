//! The climb with each peer: the rung that is dialled next, the one that worked, and why those before it did not.
//!
//! A refusal that another rung may help against is followed by that rung at once, and everything else by a wait
//! ([`super::recovery`]). What worked is where the next attempt begins, until the peer refuses it: then all begins again with the
//! strongest. A peer that never answered is offered what is older a few seconds later. The memory is that of the process.

use std::collections::BTreeMap;

use super::rung::{Facet, MAX_RUNGS, Rung};
use super::verdict::Failure;
use crate::config::{Config, MAX_PEERS};
use crate::report::{Layer, Reason};
use crate::suite::Group;

/// What follows a failure.
#[derive(Debug)]
pub(super) enum Next {
    /// Another rung at once, which differs in this, with whether that is news to whoever reads the log.
    Climb(Facet, bool),
    /// A wait, after a failure that tells of the whole climb.
    Wait(Failure),
}

/// What is known of one peer.
#[derive(Debug)]
struct Place {
    /// The rung that it agreed to last.
    worked: Option<Rung>,
    /// The rung that is dialled.
    now: Rung,
    /// The attempt under way came as far as phase 2, so that whatever fails after that is not for the rung.
    agreed: bool,
    /// Why the rungs before this one failed, at most [`MAX_RUNGS`].
    causes: Vec<Failure>,
    /// In what those after the first differed.
    tried: Vec<String>,
    /// A whole climb has failed since something worked: the next one is no news.
    known: bool,
}

impl Place {
    fn new(config: &Config) -> Self {
        let now = Rung::first(config);
        Self { worked: None, now, agreed: false, causes: Vec::new(), tried: Vec::new(), known: false }
    }

    /// Goes on where the next attempt begins.
    fn begin(&mut self, config: &Config, fresh_ports: bool) {
        let start = self.worked.clone().unwrap_or_else(|| Rung::first(config));
        self.now = start.with_ports(fresh_ports);
        self.agreed = false;
        self.causes.clear();
        self.tried.clear();
    }

    /// The rung that may help after a failure.
    fn next(&mut self, config: &Config, failure: &Failure) -> Option<(Facet, Rung)> {
        // Silence says nothing of a peer that has answered before.
        let is_away = failure.reason == Reason::PeerSilent && self.worked.is_some();
        if is_away || failure.facets.is_empty() || self.causes.len().saturating_add(1) >= MAX_RUNGS {
            return None;
        }
        let first = Rung::first(config).with_ports(self.now.fresh_ports);
        // The peer is another than it was.
        match self.worked.take() {
            Some(_) if self.now != first => Some((Facet::Memory, first)),
            _ => self.now.next(config, failure.facets),
        }
    }

    /// The failure that tells the most of all those of the climb: the one of the rung that got furthest, the earliest of them.
    fn telling(&mut self, last: Failure) -> Failure {
        // A secret that cannot be read is no answer of the peer.
        if last.layer == Layer::Credentials {
            return last;
        }
        let refused = last.refused || self.causes.iter().any(|cause| cause.refused);
        let mut told = last;
        for cause in std::mem::take(&mut self.causes).into_iter().rev() {
            if reach(&cause) >= reach(&told) {
                told = cause;
            }
        }
        if !self.tried.is_empty() {
            told.message = format!("{} Tried as well: {}.", told.message, self.tried.join("; "));
        }
        Failure { refused, ..told }
    }
}

/// How far an attempt got.
fn reach(failure: &Failure) -> (Layer, u8) {
    let stage = match failure.reason {
        Reason::NoProposalChosen => 0,
        Reason::InvalidIdentity | Reason::AuthenticationFailed | Reason::XauthFailed => 2,
        _ => 1,
    };
    (failure.layer, stage)
}

/// Every peer's place, by its address in the configuration.
#[derive(Debug, Default)]
pub(super) struct Ladder(BTreeMap<String, Place>);

impl Ladder {
    fn place(&mut self, peer: &str, config: &Config) -> &mut Place {
        // Those of the configuration before this one.
        if self.0.len() >= MAX_PEERS && !self.0.contains_key(peer) {
            self.0.clear();
        }
        self.0.entry(peer.to_owned()).or_insert_with(|| Place::new(config))
    }

    /// The rung that `peer` is dialled by.
    pub(super) fn rung(&mut self, peer: &str, config: &Config) -> &Rung {
        &self.place(peer, config).now
    }

    /// The same, and whether one that does not answer may like the next rung better: some gateways are silent where they have
    /// nothing of an offer. One that has answered before is away.
    pub(super) fn rung_and_hope(&mut self, peer: &str, config: &Config) -> (&Rung, bool) {
        let place = self.place(peer, config);
        let hopes = place.worked.is_none() && place.now.next(config, &[Facet::Level]).is_some();
        (&place.now, hopes)
    }

    /// Whether the attempt under way goes on with the climb of the one before.
    pub(super) fn is_climbing(&mut self, peer: &str, config: &Config) -> bool {
        !self.place(peer, config).causes.is_empty()
    }

    /// The peer has agreed to phase 2, with a fresh exchange in `group` if it asked for one. Returns the rung in words, and whether
    /// it is another than before.
    pub(super) fn agreed(&mut self, peer: &str, config: &Config, group: Option<Group>) -> (String, bool) {
        let place = self.place(peer, config);
        // A group that the configuration names is in its proposals.
        place.now.pfs = group.filter(|_| config.esp.proposals.is_empty());
        let is_news = place.worked.as_ref().map_or_else(|| place.now != Rung::first(config), |old| *old != place.now);
        place.worked = Some(place.now.clone());
        (place.agreed, place.known) = (true, false);
        place.causes.clear();
        place.tried.clear();
        (place.now.words(config), is_news)
    }

    /// The attempt under way failed, or the tunnel, which was `up`.
    pub(super) fn failed(&mut self, peer: &str, config: &Config, failure: Failure, up: bool) -> Next {
        let place = self.place(peer, config);
        if !place.agreed
            && let Some((facet, rung)) = place.next(config, &failure)
        {
            place.tried.extend(rung.facet_words(facet));
            place.causes.push(failure);
            place.now = rung;
            return Next::Climb(facet, !place.known);
        }
        let told = if place.agreed { failure } else { place.telling(failure) };
        place.known |= !place.agreed;
        // A NAT may hold a dead mapping for the ports, and a filter may let only the well-known ones pass: they take turns until
        // the link is up.
        place.begin(config, place.now.fresh_ports ^ !up);
        Next::Wait(told)
    }

    /// Begins again where the next attempt begins: the credentials are new.
    pub(super) fn start_over(&mut self, config: &Config) {
        self.0.values_mut().for_each(|place| place.begin(config, place.now.fresh_ports));
    }

    /// Forgets everything: the configuration is new.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ike;
    use crate::ike::registry::NotifyType;
    use crate::stack::rung::tests::with;
    use crate::stack::verdict;
    use crate::suite::Security;

    const PEER: &str = "gateway.example.com";

    fn legacy() -> Config {
        with(|config| config.ike.security = Security::Legacy)
    }

    fn no_proposal() -> Failure {
        verdict::of_ike(
            &ike::Error::NoProposalChosen { phase: 1, notification: Some(NotifyType::NO_PROPOSAL_CHOSEN) },
            None,
        )
    }

    fn silent() -> Failure {
        let exchange = ike::registry::ExchangeType::IDENTITY_PROTECTION;
        verdict::of_ike(&ike::Error::NoResponse { exchange, message: 1 }, None)
    }

    /// What differs in the attempt that follows at once, if one does.
    fn climbed(ladder: &mut Ladder, config: &Config, failure: Failure) -> Option<(Facet, bool)> {
        match ladder.failed(PEER, config, failure, false) {
            Next::Climb(facet, is_news) => Some((facet, is_news)),
            Next::Wait(_) => None,
        }
    }

    #[test]
    fn a_climb_ends_begins_anew_with_the_first_rung_and_is_news_once() {
        let (mut ladder, config) = (Ladder::default(), legacy());
        for is_news in [true, false, false] {
            assert_eq!(ladder.rung(PEER, &config).words(&config).split(',').next(), Some("Strong proposals"));
            for _ in 0..2 {
                assert_eq!(climbed(&mut ladder, &config, no_proposal()), Some((Facet::Level, is_news)));
                assert!(ladder.is_climbing(PEER, &config));
            }
            assert_eq!(climbed(&mut ladder, &config, no_proposal()), None);
            assert!(!ladder.is_climbing(PEER, &config));
        }
    }

    #[test]
    fn the_last_message_tells_of_the_rung_that_got_furthest_and_of_all_that_was_tried() {
        let config = legacy();
        let refused = || verdict::of_ike(&ike::Error::AuthenticationFailed { notification: None }, None);
        for failures in [[no_proposal(), refused()], [no_proposal(), silent()], [no_proposal(), no_proposal()]] {
            let mut ladder = Ladder::default();
            let [first, last] = failures;
            let expected =
                if last.reason == Reason::AuthenticationFailed { last.message.clone() } else { first.message.clone() };
            let is_refused = last.refused;
            assert!(climbed(&mut ladder, &config, first).is_some());
            let told = match ladder.failed(PEER, &config, Failure { facets: &[], ..last }, false) {
                Next::Wait(told) => told,
                Next::Climb(facet, _) => panic!("{facet:?}"),
            };
            assert_eq!(told.message, format!("{expected} Tried as well: Compatible proposals in phase 1."));
            assert_eq!(told.refused, is_refused);
        }
    }

    #[test]
    fn a_secret_that_cannot_be_read_is_told_whatever_was_refused_before() {
        let (mut ladder, config) = (Ladder::default(), legacy());
        assert!(climbed(&mut ladder, &config, no_proposal()).is_some());
        let missing = Failure::new(Layer::Credentials, Reason::CredentialsMissing, "It is gone.".to_owned());
        let Next::Wait(told) = ladder.failed(PEER, &config, missing.clone(), false) else { panic!("it climbs") };
        assert_eq!(told, missing);
    }

    #[test]
    fn what_worked_is_kept_by_silence_and_forgotten_by_a_refusal() {
        let (mut ladder, config) = (Ladder::default(), legacy());
        climbed(&mut ladder, &config, no_proposal());
        let (words, is_news) = ladder.agreed(PEER, &config, Some(Group::Modp1536));
        assert_eq!(words, "Compatible proposals in phase 1 and Strong ones for ESP, modp1536 in phase 2 (PFS)");
        assert!(is_news);
        // The tunnel was up and is gone, and then nobody answers.
        for (failure, up) in [(silent(), true), (silent(), false), (silent(), false)] {
            assert!(matches!(ladder.failed(PEER, &config, failure, up), Next::Wait(_)));
            assert_eq!(ladder.rung(PEER, &config).pfs, Some(Group::Modp1536));
        }
        assert!(!ladder.agreed(PEER, &config, Some(Group::Modp1536)).1);
        assert!(matches!(ladder.failed(PEER, &config, silent(), true), Next::Wait(_)));
        assert_eq!(climbed(&mut ladder, &config, no_proposal()), Some((Facet::Memory, true)));
        assert_eq!(*ladder.rung(PEER, &config), Rung::first(&config));
        assert_eq!(climbed(&mut ladder, &config, no_proposal()), Some((Facet::Level, true)));
        ladder.agreed(PEER, &config, None);
        ladder.forget();
        assert_eq!(*ladder.rung(PEER, &config), Rung::first(&config));
    }

    #[test]
    fn ports_take_turns_until_the_link_is_up_and_stay_then() {
        let (mut ladder, config) = (Ladder::default(), legacy());
        let fresh = |ladder: &mut Ladder| ladder.rung(PEER, &config).fresh_ports;
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(fresh(&mut ladder));
            while climbed(&mut ladder, &config, silent()).is_some() {}
        }
        assert_eq!(seen, [false, true, false]);
        // A climb goes on with the ports that it began with.
        climbed(&mut ladder, &config, no_proposal());
        assert!(fresh(&mut ladder));
        ladder.agreed(PEER, &config, None);
        assert!(matches!(ladder.failed(PEER, &config, silent(), true), Next::Wait(_)));
        assert!(fresh(&mut ladder));
        // Phase 2 was agreed on, and nothing came through.
        ladder.agreed(PEER, &config, None);
        assert!(matches!(ladder.failed(PEER, &config, silent(), false), Next::Wait(_)));
        assert!(!fresh(&mut ladder));
    }

    #[test]
    fn each_peer_has_its_own_place_and_there_are_no_more_than_peers() {
        let (mut ladder, config) = (Ladder::default(), legacy());
        climbed(&mut ladder, &config, no_proposal());
        assert!(!ladder.is_climbing("other.example.com", &config));
        for number in 0..100 {
            ladder.rung(&number.to_string(), &config);
            assert!(ladder.0.len() <= MAX_PEERS);
        }
    }
}
