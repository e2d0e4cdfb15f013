//! What tells gateways apart that our client dials: policies of IKE, AVPs, options of PPP, and how they go on and end.
//!
//! Each has a file of its own, which says where every habit is known from: a log, a source, a manual; or that it is assumed.

mod cisco;
mod head_end;
mod lns;
mod played;
mod ppp;
mod quick;
mod responder;
mod router_os;
mod seil;
mod world;
mod yamaha;

use towline_tunnel::suite::Group;

use crate::device::{Auth, Encoding, NatFlavour, Phase1, Phase2};
use crate::table::{DPD, vendor_id};

/// A gateway and its habits.
#[derive(Debug, Clone)]
pub(crate) struct Gateway {
    pub(crate) name: &'static str,
    pub(crate) ike: Policy,
    pub(crate) l2tp: L2tp,
    pub(crate) ppp: Ppp,
}

/// Habits in IKE.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    /// In the order of its own preference.
    pub(crate) phase1: Vec<Phase1>,
    /// In the order of its own preference.
    pub(crate) phase2: Vec<Phase2>,
    /// In phase 1 and 2.
    pub(crate) preference: [Preference; 2],
    pub(crate) pfs: Pfs,
    /// The order and the form of attributes in what it offers by itself.
    pub(crate) encoding: Encoding,
    /// Vendor IDs of messages 2, 4 and 6.
    pub(crate) vendor_ids: [Vec<Vec<u8>>; 3],
    pub(crate) nat: NatFlavour,
    /// Takes no payload but those that it knows in Main Mode, and answers nothing that it does not like.
    pub(crate) strict: bool,
    /// Protocol and port of its identity, where there is no NAT and where there is one.
    pub(crate) identity: [(u8, u16); 2],
    /// Its own limits of an ESP SA: seconds and kilobytes.
    pub(crate) life: (u32, Option<u32>),
    /// Whether its own limits count where they are tighter than those that are offered, and RESPONDER-LIFETIME says so.
    pub(crate) claims_life: bool,
    /// How many NAT-OA payloads it answers with.
    pub(crate) original_addresses: usize,
    pub(crate) initial_contact: Contact,
    /// Seconds between its questions by dead peer detection.
    pub(crate) dpd: Option<u64>,
    pub(crate) renewal: Renewal,
    /// Whether it sends under the older pair of SAs as long as that lives (KAME: `net.key.prefered_oldsa`).
    pub(crate) prefers_old: bool,
    /// Whether Deletes of the client are lost on it.
    pub(crate) ignores_deletes: bool,
}

/// Whose order of offers counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Preference {
    /// Its own policies one after the other, each against all that is offered.
    Own,
    /// The first that is offered and that it knows.
    Peers,
}

/// A fresh exchange of Diffie and Hellman in Quick Mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pfs {
    /// As the peer wants it.
    Obeys,
    /// In this group, or nothing.
    Demands(Group),
    /// Never.
    Refuses,
}

/// Where INITIAL-CONTACT stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contact {
    Never,
    /// Beside its identity.
    InMessage6,
    /// In an Informational exchange of its own, once phase 1 is done.
    Afterwards,
}

/// Who renews the ESP SAs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Renewal {
    /// The client has to.
    Peers,
    /// It does so itself, that many seconds after the last Quick Mode.
    Own(u64),
}

/// An AVP: whether it is mandatory, its vendor, type and value.
pub(crate) type Avp = (bool, u16, u16, Vec<u8>);

/// Habits in L2TP.
#[derive(Debug, Clone)]
pub(crate) struct L2tp {
    /// AVPs of SCCRP behind the Message Type, in order; an Assigned Tunnel ID has no value here.
    pub(crate) sccrp: Vec<Avp>,
    /// AVPs of ICRP behind the Assigned Session ID.
    pub(crate) icrp: Vec<Avp>,
    /// For tunnel authentication.
    pub(crate) secret: Option<&'static str>,
    /// Whether the Assigned Session ID of ICRP is hidden.
    pub(crate) hides: bool,
    /// Whether a ZLB goes before each answer, which then acknowledges nothing new.
    pub(crate) acknowledges_first: bool,
    /// Whether PPP begins before ICCN is acknowledged.
    pub(crate) begins_early: bool,
    pub(crate) length_in_data: bool,
    /// Seconds between its Hellos.
    pub(crate) hello: Option<u64>,
    /// Whether a CDN goes before StopCCN, with this result code and what else stands in it.
    pub(crate) cdn: Option<(u16, Vec<Avp>)>,
}

/// Habits in PPP.
#[derive(Debug, Clone)]
pub(crate) struct Ppp {
    /// Whether it waits for the client's LCP.
    pub(crate) waits: bool,
    /// Options of its LCP, in order; the authentication protocol is an option of two octets here.
    pub(crate) lcp: Vec<Vec<u8>>,
    /// What it demands, one after the other, as long as the client takes part in none.
    pub(crate) auth: Vec<Auth>,
    /// Its name in a Challenge, and what it says besides `S=`.
    pub(crate) name: &'static str,
    pub(crate) greeting: &'static str,
    /// LCP options of a client that it rejects.
    pub(crate) rejects: Vec<u8>,
    /// Options of its IPCP.
    pub(crate) ipcp: Vec<Vec<u8>>,
    /// Name servers that it has to tell; it rejects the question for what it has not.
    pub(crate) dns: Vec<[u8; 4]>,
    /// Further protocols that it begins with, and their first packet.
    pub(crate) others: Vec<(u16, Vec<u8>)>,
    pub(crate) address_and_control: bool,
    /// Seconds between its LCP Echo-Requests.
    pub(crate) echo: Option<u64>,
}

/// A mandatory AVP of RFC 2661, and one that is not.
fn must(kind: u16, value: &[u8]) -> Avp {
    (true, 0, kind, value.to_vec())
}

fn may(kind: u16, value: &[u8]) -> Avp {
    (false, 0, kind, value.to_vec())
}

/// NAT traversal by the RFC, and dead peer detection: what racoon says in message 2, in this order (its source: ident_r1send).
fn racoon_ids() -> Vec<Vec<u8>> {
    vec![vendor_id("RFC 3947"), DPD.to_vec()]
}

/// Every gateway that is dialled.
pub(crate) fn all() -> Vec<Gateway> {
    vec![cisco::ios(), router_os::router_os(), yamaha::rtx(), seil::seil()]
}
