//! The options of LCP (RFC 1661 section 6, RFC 1662 section 7.1), and the answer to all the others that exist: they are rejected.

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::config::Role;
use super::negotiation::{Judgement, Negotiate};
use super::packet::{ConfigOption, DEFAULT_MRU, Protocol, options, write_option};
use crate::config::PppAuth;
use crate::registry;

/// The smallest MRU that is agreed to: what every host must be able to take in one piece (RFC 791 section 3.1).
const MIN_MRU: u16 = 576;

registry! {
    /// The types of LCP options: RFC 1661 section 6, RFC 1662 section 7.1, RFC 1570 section 2.3, RFC 1990 section 5.1.
    pub struct OptionType(u8) {
        MAXIMUM_RECEIVE_UNIT = 1,
        ASYNC_CONTROL_CHARACTER_MAP = 2,
        AUTHENTICATION_PROTOCOL = 3,
        QUALITY_PROTOCOL = 4,
        MAGIC_NUMBER = 5,
        PROTOCOL_FIELD_COMPRESSION = 7,
        ADDRESS_AND_CONTROL_FIELD_COMPRESSION = 8,
        CALLBACK = 13,
        MULTILINK_MRRU = 17,
        MULTILINK_SHORT_SEQUENCE_NUMBERS = 18,
        ENDPOINT_DISCRIMINATOR = 19,
    }
}

/// CHAP with MD5 (RFC 1994 section 3) and MS-CHAPv2 (RFC 2759 section 3): the algorithm behind protocol 0xc223.
const ALGORITHM_MD5: u8 = 5;
const ALGORITHM_MS_CHAP_V2: u8 = 0x81;

/// What the Authentication-Protocol option says for `auth`.
fn authentication_data(auth: PppAuth) -> Vec<u8> {
    let (protocol, algorithm) = match auth {
        PppAuth::Pap => (Protocol::PAP, None),
        PppAuth::Chap => (Protocol::CHAP, Some(ALGORITHM_MD5)),
        PppAuth::MsChapV2 => (Protocol::CHAP, Some(ALGORITHM_MS_CHAP_V2)),
        PppAuth::Eap => (Protocol::EAP, None),
    };
    let [high, low] = protocol.0.to_be_bytes();
    [high, low].into_iter().chain(algorithm).collect()
}

/// The name of what the peer asks for.
fn authentication_name(data: &[u8]) -> String {
    match data {
        [0xc2, 0x23, 0x80] => "MS-CHAP".to_owned(),
        [0xc2, 0x23, 0x81] => PppAuth::MsChapV2.to_string(),
        [0xc2, 0x23, 5] => PppAuth::Chap.to_string(),
        [0xc2, 0x23, algorithm, ..] => format!("CHAP with algorithm {algorithm}"),
        [high, low, ..] => Protocol(u16::from_be_bytes([*high, *low])).to_string(),
        _ => "an authentication protocol without a number".to_owned(),
    }
}

/// The authentication protocol that `data` of the option says, if it is one of `auth`.
fn authentication(auth: &[PppAuth], data: &[u8]) -> Option<PppAuth> {
    auth.iter().copied().find(|auth| authentication_data(*auth) == data)
}

/// Who authenticates whom.
enum Side {
    /// We prove who we are.
    Peer {
        /// What we may use.
        auth: Vec<PppAuth>,
        /// How the peer wants us to authenticate.
        wanted: Option<PppAuth>,
        /// An authentication protocol that was asked for and that we may not use.
        refused: Option<String>,
        /// How many others were proposed instead.
        proposed: usize,
    },
    /// The other end does.
    Authenticator {
        /// What the peer has not refused: the first is demanded.
        left: Vec<PppAuth>,
        /// Whether the peer was told to ask for something else than that we prove who we are.
        declined: bool,
    },
}

/// Both ends' options.
pub(super) struct Lcp {
    side: Side,
    /// Our MRU, unless the peer rejected the option.
    mru: Option<u16>,
    /// Our magic number, unless the peer rejected the option.
    magic: Option<u32>,
    rng: StdRng,
    /// The peer's MRU.
    peer_mru: u16,
}

impl Lcp {
    pub(super) fn new(role: &Role, mru: u16, mut rng: StdRng) -> Self {
        let side = match role {
            Role::Client(client) => Side::Peer { auth: client.auth.clone(), wanted: None, refused: None, proposed: 0 },
            Role::Server(server) => Side::Authenticator { left: server.auth.clone(), declined: false },
        };
        //= rfc1661 6.4 "Before this Configuration Option is requested, an implementation MUST choose its Magic-Number."
        //= test: the_magic_number_is_chosen_before_it_is_asked_for_and_differs_from_link_to_link, our_request_follows_naks_and_rejects
        Self { side, mru: Some(mru), magic: Some(magic(&mut rng)), rng, peer_mru: DEFAULT_MRU }
    }

    /// Our MRU from the next Configure-Request on.
    pub(super) fn set_mru(&mut self, mru: u16) {
        self.mru = Some(mru);
    }

    /// The largest packet that the peer takes.
    pub(super) fn peer_mru(&self) -> u16 {
        self.peer_mru
    }

    /// The protocol that was agreed on; none means that the peer of a client wants no proof.
    pub(super) fn authentication(&self) -> Option<PppAuth> {
        match &self.side {
            Side::Peer { wanted, .. } => *wanted,
            Side::Authenticator { left, .. } => left.first().copied(),
        }
    }

    /// What the peer still asks for although no Nak is left: without an agreement on it there is no link.
    pub(super) fn refused_authentication(&self) -> Option<&str> {
        match &self.side {
            Side::Peer { refused, .. } => refused.as_deref(),
            Side::Authenticator { .. } => None,
        }
    }

    /// The peer does not authenticate as demanded: what it proposes is demanded next, or else what comes next.
    fn demand_another(&mut self, proposal: &[u8]) {
        let Side::Authenticator { left, .. } = &mut self.side else { return };
        left.drain(..1.min(left.len()));
        if let Some(proposed) = authentication(left, proposal) {
            left.retain(|auth| *auth != proposed);
            left.insert(0, proposed);
        }
    }

    fn judge_authentication(&mut self, option: &ConfigOption<'_>, nak: &mut Vec<u8>, reject: &mut Vec<u8>) {
        match &mut self.side {
            Side::Peer { auth, wanted, refused, proposed } => {
                if let Some(auth) = authentication(auth, option.data) {
                    (*wanted, *refused, *proposed) = (Some(auth), None, 0);
                    return;
                }
                *refused = Some(authentication_name(option.data));
                // Section 6.2: a peer that does not take one proposal gets the next.
                match auth.iter().cycle().nth(*proposed) {
                    Some(auth) => write_option(nak, option.kind, &authentication_data(*auth)),
                    None => reject.extend(option.whole),
                }
                *proposed = (*proposed + 1) % auth.len().max(1);
            }
            // We prove nothing but what the protocol that we demand proves. Some clients take a Reject only after a Nak.
            Side::Authenticator { left, declined } => {
                let other = left.iter().map(|auth| authentication_data(*auth)).find(|data| data != option.data);
                match other.filter(|_| !*declined) {
                    Some(other) => write_option(nak, option.kind, &other),
                    None => reject.extend(option.whole),
                }
                *declined = true;
            }
        }
    }

    //= rfc1661 5.8 "Until the Magic-Number Configuration Option has been successfully negotiated, the Magic-Number MUST be transmitted as zero."
    //= test: without_a_magic_number_echoes_carry_zero, echoes_are_sent_when_nothing_comes_and_counted_when_they_are_lost
    /// What our echoes carry: the magic number, or zero without one (RFC 1661 section 5.8).
    pub(super) fn magic(&self) -> u32 {
        self.magic.unwrap_or_default()
    }

    fn judge_option(&mut self, option: &ConfigOption<'_>, nak: &mut Vec<u8>, reject: &mut Vec<u8>) {
        match (OptionType(option.kind), option.data) {
            (OptionType::MAXIMUM_RECEIVE_UNIT, &[high, low]) => {
                let mru = u16::from_be_bytes([high, low]);
                if mru < MIN_MRU {
                    write_option(nak, option.kind, &MIN_MRU.to_be_bytes());
                } else {
                    self.peer_mru = mru;
                }
            }
            (OptionType::AUTHENTICATION_PROTOCOL, _) => self.judge_authentication(option, nak, reject),
            //= rfc1661 6.4 "If an implementation does transmit a Configure-Request with a Magic-Number Configuration Option, then it MUST NOT respond with a Configure-Reject when it receives a Configure-Request with a Magic-Number Configuration Option."
            //= test: a_peer_may_ask_for_everything_that_pppd_asks_for, a_magic_number_is_never_rejected_by_an_end_that_has_one_itself
            //= rfc1661 6.4 "That is, if an implementation desires to use Magic Numbers, then it MUST also allow its peer to do so."
            //= test: a_peer_may_ask_for_everything_that_pppd_asks_for, a_magic_number_is_never_rejected_by_an_end_that_has_one_itself
            // Who asks for a number has to let the peer have one, whatever it names.
            (OptionType::MAGIC_NUMBER, data) if data.len() == 4 || self.magic.is_some() => {
                //= rfc1661 6.4 "To determine this, a Configure-Nak MUST be sent specifying a different Magic-Number value."
                //= test: a_magic_number_of_zero_or_our_own_is_naked, a_peer_may_ask_for_everything_that_pppd_asks_for
                //= rfc1661 6.4 "A Magic-Number of zero is illegal and MUST always be Nak'd, if it is not Rejected outright."
                //= test: a_magic_number_of_zero_or_our_own_is_naked, a_peer_may_ask_for_everything_that_pppd_asks_for
                // Zero is not allowed, and our own number means a loop (section 6.4).
                if data.len() != 4 || *data == [0; 4] || self.magic.is_some_and(|magic| magic.to_be_bytes() == *data) {
                    write_option(nak, option.kind, &magic(&mut self.rng).to_be_bytes());
                }
            }
            //= rfc1661 5.3 "Options which have no value fields (boolean options) MUST use the Configure-Reject reply instead."
            //= test: a_peer_may_ask_for_everything_that_pppd_asks_for, what_is_not_wanted_is_rejected_in_order_and_before_anything_is_naked
            // They say what the peer can take. We send neither escapes nor compressed fields, which it takes as well.
            (OptionType::ASYNC_CONTROL_CHARACTER_MAP, &[_, _, _, _])
            | (OptionType::PROTOCOL_FIELD_COMPRESSION | OptionType::ADDRESS_AND_CONTROL_FIELD_COMPRESSION, &[]) => {}
            // Callback, multilink, link quality and whatever else there is, or a length that the type does not have.
            //= rfc1661 1.1 "An implementation which does not include this option MUST be prepared to interoperate with another implementation which does include the option."
            //= test: windows, a_peer_that_insists_is_given_up_and_told_by_what
            _ => reject.extend(option.whole),
        }
    }
}

fn magic(rng: &mut StdRng) -> u32 {
    rng.random_range(1..=u32::MAX)
}

impl Negotiate for Lcp {
    const PROTOCOL: Protocol = Protocol::LCP;

    fn request(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(mru) = self.mru {
            //= rfc1661 6.1 "If smaller packets are requested, an implementation MUST still be able to receive the full 1500 octet information field in case link synchronization is lost."
            //= test: a_packet_of_1500_octets_is_taken_although_a_smaller_mru_is_asked_for, packets_survive_a_round_and_padding_is_cut_off
            write_option(&mut out, OptionType::MAXIMUM_RECEIVE_UNIT.0, &mru.to_be_bytes());
        }
        if let Side::Authenticator { left, .. } = &self.side
            && let Some(auth) = left.first()
        {
            //= rfc1661 3.5 "then it MUST request the use of that authentication protocol during Link Establishment phase."
            //= test: the_client_may_choose_among_what_is_configured, a_client_that_refuses_every_authentication_gets_no_link
            //= rfc1994 1 "If authentication of the link is desired, an implementation MUST specify the Authentication-Protocol Configuration Option"
            //= test: the_client_may_choose_among_what_is_configured, a_client_that_refuses_every_authentication_gets_no_link
            //= rfc1661 6.2 "An implementation MUST NOT include multiple Authentication-Protocol Configuration Options in its Configure-Request packets."
            //= test: a_server_asks_for_one_authentication_protocol_at_a_time, a_server_follows_a_nak_to_a_protocol_that_it_has_and_else_demands_the_next
            write_option(&mut out, OptionType::AUTHENTICATION_PROTOCOL.0, &authentication_data(*auth));
        }
        if let Some(magic) = self.magic {
            write_option(&mut out, OptionType::MAGIC_NUMBER.0, &magic.to_be_bytes());
        }
        out
    }

    fn judge(&mut self, request: &[u8], last: bool) -> Judgement {
        // What the request does not name has its default (section 5.1).
        self.peer_mru = DEFAULT_MRU;
        if let Side::Peer { wanted, refused, .. } = &mut self.side {
            (*wanted, *refused) = (None, None);
        }
        let (mut nak, mut reject) = (Vec::new(), Vec::new());
        // Options that cannot be told apart are rejected whole.
        let Ok(options) = options(request) else { return Judgement::Reject(request.to_vec()) };
        for option in &options {
            self.judge_option(option, &mut nak, &mut reject);
        }
        if !reject.is_empty() {
            Judgement::Reject(reject)
        } else if nak.is_empty() {
            Judgement::Ack
        } else if last {
            let is_kept = |kind: &u8| self.magic.is_some() && OptionType(*kind) == OptionType::MAGIC_NUMBER;
            let naked = super::packet::options(&nak).into_iter().flatten().map(|option| option.kind);
            let kinds: Vec<u8> = naked.filter(|kind| !is_kept(kind)).collect();
            let rejected = options.iter().filter(|option| kinds.contains(&option.kind));
            let rejected: Vec<u8> = rejected.flat_map(|option| option.whole).copied().collect();
            if rejected.is_empty() { Judgement::Nak(nak) } else { Judgement::Reject(rejected) }
        } else {
            Judgement::Nak(nak)
        }
    }

    //= rfc1661 5.3 "Since the Nak'd Option has been modified by the peer, the implementation MUST be able to handle an Option length which is different from the original Configure-Request."
    //= test: a_server_follows_a_nak_to_a_protocol_that_it_has_and_else_demands_the_next, addresses_come_by_nak_and_go_by_reject
    fn handle_nak(&mut self, kind: u8, value: &[u8]) {
        match (OptionType(kind), value) {
            (OptionType::MAXIMUM_RECEIVE_UNIT, &[high, low]) => {
                // Without the option the peer may send 1500 octets: then rather none than one that is too small for IP.
                let mru = u16::from_be_bytes([high, low]);
                self.mru = (mru >= MIN_MRU).then_some(mru.min(DEFAULT_MRU));
            }
            //= rfc1661 6.4 "a new Magic-Number MUST be chosen."
            //= test: our_request_follows_naks_and_rejects, our_request_follows_naks_and_rejects
            (OptionType::MAGIC_NUMBER, _) => self.magic = Some(magic(&mut self.rng)),
            (OptionType::AUTHENTICATION_PROTOCOL, proposal) => self.demand_another(proposal),
            // A wish for an option that we did not name: not followed.
            _ => {}
        }
    }

    fn handle_reject(&mut self, kind: u8) {
        match OptionType(kind) {
            //= rfc1661 5.4 "it MUST NOT include any of the Configuration Options listed in the Configure-Reject."
            //= test: our_request_follows_naks_and_rejects, our_request_follows_naks_and_rejects
            OptionType::MAXIMUM_RECEIVE_UNIT => self.mru = None,
            OptionType::MAGIC_NUMBER => self.magic = None,
            OptionType::AUTHENTICATION_PROTOCOL => self.demand_another(&[]),
            _ => {}
        }
    }

    fn is_hopeless(&self) -> bool {
        matches!(&self.side, Side::Authenticator { left, .. } if left.is_empty())
    }

    fn name(kind: u8) -> String {
        OptionType(kind).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ppp::config::{Client, Server};
    use rand::SeedableRng;

    fn lcp(auth: &[PppAuth]) -> Lcp {
        let role = Role::Client(Client { auth: auth.to_vec(), ..Client::default() });
        Lcp::new(&role, 1400, StdRng::from_seed([7; 32]))
    }

    fn server(auth: &[PppAuth]) -> Lcp {
        let role = Role::Server(Server { auth: auth.to_vec(), ..Server::default() });
        Lcp::new(&role, 1400, StdRng::from_seed([7; 32]))
    }

    const PAP: &[u8] = &[0xc0, 0x23];
    const CHAP: &[u8] = &[0xc2, 0x23, 5];
    const MS_CHAP_V2: &[u8] = &[0xc2, 0x23, 0x81];

    /// What the next Configure-Request demands.
    fn demand(lcp: &Lcp) -> Option<Vec<u8>> {
        let request = lcp.request();
        options(&request).unwrap().iter().find(|option| option.kind == 3).map(|option| option.data.to_vec())
    }

    #[test]
    fn a_server_follows_a_nak_to_a_protocol_that_it_has_and_else_demands_the_next() {
        let mut lcp = server(&[PppAuth::MsChapV2, PppAuth::Chap, PppAuth::Pap]);
        assert_eq!(demand(&lcp), Some(MS_CHAP_V2.to_vec()));
        lcp.handle_nak(3, PAP);
        assert_eq!(demand(&lcp), Some(PAP.to_vec()), "proposed");
        lcp.handle_nak(3, &[0xc2, 0x27]);
        assert_eq!(demand(&lcp), Some(CHAP.to_vec()), "the next");
        lcp.handle_reject(3);
        assert!(lcp.is_hopeless());
        // What was refused does not come back.
        let mut lcp = server(&[PppAuth::MsChapV2, PppAuth::Chap]);
        lcp.handle_nak(3, MS_CHAP_V2);
        assert_eq!(demand(&lcp), Some(CHAP.to_vec()));
        lcp.handle_nak(3, MS_CHAP_V2);
        assert!(lcp.is_hopeless());
    }

    #[test]
    fn a_client_that_wants_a_proof_of_the_server_gets_a_nak_and_then_a_reject() {
        let mut lcp = server(&[PppAuth::MsChapV2, PppAuth::Chap]);
        let asks = [3, 5, 0xc2, 0x23, 0x81];
        assert_eq!(lcp.judge(&asks, false), Judgement::Nak(vec![3, 5, 0xc2, 0x23, 5]));
        assert_eq!(lcp.judge(&asks, false), Judgement::Reject(asks.to_vec()));
        assert_eq!(server(&[PppAuth::MsChapV2]).judge(&asks, false), Judgement::Reject(asks.to_vec()));
    }

    #[test]
    fn a_peer_may_ask_for_everything_that_pppd_asks_for() {
        // Configure-Request of pppd 2.4.9 with MRU 1280, MS-CHAPv2, a magic number, PFC and ACFC.
        let request = [1, 4, 5, 0, 2, 6, 0, 0, 0, 0, 3, 5, 0xc2, 0x23, 0x81, 5, 6, 1, 2, 3, 4, 7, 2, 8, 2];
        let mut lcp = lcp(&[PppAuth::MsChapV2]);
        assert_eq!(lcp.judge(&request, false), Judgement::Ack);
        assert_eq!((lcp.peer_mru(), lcp.authentication()), (1280, Some(PppAuth::MsChapV2)));
        assert_eq!(lcp.judge(&[], false), Judgement::Ack);
        assert_eq!((lcp.peer_mru(), lcp.authentication()), (1500, None));
    }

    #[test]
    fn what_is_not_wanted_is_rejected_in_order_and_before_anything_is_naked() {
        let callback = [13, 3, 6];
        let mrru = [17, 4, 5, 0xdc];
        let quality = [4, 8, 0xc0, 0x25, 0, 0, 0, 9];
        let request = [&[1, 4, 0, 99][..], &callback, &mrru, &[5, 6, 0, 0, 0, 0], &quality, &[7, 3, 0]].concat();
        let rejected = [&callback[..], &mrru, &quality, &[7, 3, 0]].concat();
        assert_eq!(lcp(&[PppAuth::Pap]).judge(&request, false), Judgement::Reject(rejected));
    }

    #[test]
    fn a_magic_number_of_zero_or_our_own_is_naked() {
        let mut lcp = lcp(&[PppAuth::Pap]);
        let own = lcp.magic().to_be_bytes();
        for number in [[0; 4], own] {
            let request = [&[5, 6][..], &number].concat();
            let Judgement::Nak(nak) = lcp.judge(&request, false) else { panic!("accepted") };
            assert!(nak.len() == 6 && nak[..2] == [5, 6] && nak[2..] != number);
        }
    }

    #[test]
    fn another_authentication_gets_ours_in_turn_and_is_named_when_no_nak_is_left() {
        let mut lcp = lcp(&[PppAuth::MsChapV2, PppAuth::Chap]);
        let pap = [3, 4, 0xc0, 0x23];
        for algorithm in [0x81, 5, 0x81] {
            assert_eq!(lcp.judge(&pap, false), Judgement::Nak(vec![3, 5, 0xc2, 0x23, algorithm]));
        }
        assert_eq!(lcp.judge(&pap, true), Judgement::Reject(pap.to_vec()));
        assert_eq!(lcp.refused_authentication(), Some("PAP"));
        assert_eq!(lcp.judge(&[3, 5, 0xc2, 0x23, 5], true), Judgement::Ack);
        assert_eq!((lcp.refused_authentication(), lcp.authentication()), (None, Some(PppAuth::Chap)));
        assert_eq!(authentication_name(&[0xc2, 0x23, 0x80]), "MS-CHAP");
        assert_eq!(authentication_name(&[0xc2, 0x27]), "EAP");
    }

    #[test]
    fn our_request_follows_naks_and_rejects() {
        let mut lcp = lcp(&[PppAuth::Pap]);
        assert_eq!(lcp.request()[..4], [1, 4, 5, 0x78]);
        let before = lcp.magic();
        lcp.handle_nak(1, &[4, 0]);
        lcp.handle_nak(5, &[0, 0, 0, 1]);
        assert_eq!(lcp.request()[..4], [1, 4, 4, 0]);
        assert_ne!(lcp.magic(), before);
        lcp.handle_reject(1);
        lcp.handle_reject(5);
        assert_eq!((lcp.request(), lcp.magic()), (vec![], 0));
    }

    #[test]
    fn a_magic_number_is_never_rejected_by_an_end_that_has_one_itself() {
        let mut lcp = lcp(&[PppAuth::Pap]);
        let own = lcp.magic().to_be_bytes();
        for magic in [&[5, 6, 0, 0, 0, 0][..], &[&[5, 6][..], &own].concat(), &[5, 4, 1, 2], &[5, 2]] {
            assert!(matches!(lcp.judge(magic, true), Judgement::Nak(_)), "{magic:?}");
            let with_mru = [&[1, 4, 0, 99][..], magic].concat();
            assert_eq!(lcp.judge(&with_mru, true), Judgement::Reject(vec![1, 4, 0, 99]), "{magic:?}");
        }
        lcp.handle_reject(5);
        assert_eq!(lcp.judge(&[5, 4, 1, 2], false), Judgement::Reject(vec![5, 4, 1, 2]));
        assert_eq!(lcp.judge(&[5, 6, 0, 0, 0, 0], true), Judgement::Reject(vec![5, 6, 0, 0, 0, 0]));
    }

    #[test]
    fn a_nak_keeps_the_order_and_says_what_is_acceptable() {
        let mut lcp = lcp(&[PppAuth::MsChapV2]);
        let options = [&[1, 4, 0, 99][..], &[5, 6, 0, 0, 0, 0], &[3, 4, 0xc0, 0x23]];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let request: Vec<u8> = order.iter().flat_map(|index| options[*index]).copied().collect();
            // The good one is filtered out.
            let Judgement::Nak(nak) = lcp.judge(&[&request[..], &[7, 2]].concat(), false) else { panic!("no Nak") };
            let kinds: Vec<u8> = super::options(&nak).unwrap().iter().map(|option| option.kind).collect();
            assert_eq!(kinds, order.map(|index| options[index][0]));
            assert_eq!(lcp.judge(&nak, false), Judgement::Ack);
        }
    }

    #[test]
    fn the_magic_number_is_chosen_before_it_is_asked_for_and_differs_from_link_to_link() {
        let numbers: Vec<Vec<u8>> = (0..50)
            .map(|seed| Lcp::new(&Role::Client(Client::default()), 1400, StdRng::from_seed([seed; 32])).request())
            .map(|request| options(&request).unwrap().iter().find(|option| option.kind == 5).unwrap().data.to_vec())
            .collect();
        assert!(numbers.iter().all(|number| number.len() == 4 && *number != [0; 4]));
        assert_eq!(numbers.iter().collect::<std::collections::BTreeSet<_>>().len(), 50);
    }

    #[test]
    fn a_server_asks_for_one_authentication_protocol_at_a_time() {
        let mut lcp = server(&[PppAuth::MsChapV2, PppAuth::Chap, PppAuth::Pap]);
        for left in (0..=3).rev() {
            let request = lcp.request();
            let asked = options(&request).unwrap().iter().filter(|option| option.kind == 3).count();
            assert_eq!(asked, usize::from(left > 0));
            lcp.handle_nak(3, &[]);
        }
    }

    #[test]
    fn a_request_that_cannot_be_read_is_rejected_whole() {
        assert_eq!(lcp(&[PppAuth::Pap]).judge(&[1, 9, 0], false), Judgement::Reject(vec![1, 9, 0]));
    }
}
