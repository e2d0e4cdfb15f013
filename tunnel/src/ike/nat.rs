//! NAT traversal: Vendor IDs, NAT-D and NAT-OA (RFC 3947 sections 3 to 5 and its drafts 02 and 03).

use std::net::IpAddr;

use rand::Rng;
use rand::rngs::StdRng;

use super::error::Error;
use super::message::{Chain, Cookies, Payloads};
use super::payload::address_octets;
use super::registry::{EncapsulationMode, IdType, PayloadType};
use super::vendor::Abilities;
use crate::buffer::Port;
use crate::crypto::hash;
use crate::suite::Hash;

//= out: rfc3947 2 "This document shall use the keywords "MUST", "MUST NOT", "REQUIRED", "SHALL", "SHALL NOT", "SHOULD", "SHOULD NOT", "RECOMMENDED, "MAY", and "OPTIONAL" to describe requirements." says which words demand something
//= out: rfc3947 4 "The responder does similar processing to the above, and if successful, MUST update it's internal IKE ports." binds the responder of Aggressive Mode, which is not answered

/// Which ends are behind a NAT, as far as this end can tell from the peer's NAT-D payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Nat {
    /// This end is.
    pub local: bool,
    /// The peer is, or says so to force UDP encapsulation.
    pub remote: bool,
}

/// Whether this end traverses NATs, and with it how ESP travels: in UDP with each peer that does too, else as IP protocol
/// 50.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum NatTraversal {
    /// It does, and so must the peer.
    #[default]
    Required,
    /// It does if the peer does.
    Offered,
    /// It says nothing of it.
    Off,
}

impl NatTraversal {
    /// What both ends do when the peer names `flavour`.
    pub(super) fn agree(self, flavour: Option<Flavour>) -> Result<Option<Flavour>, Error> {
        match self {
            Self::Required => flavour.map(Some).ok_or(Error::NoNatTraversal),
            Self::Offered => Ok(flavour),
            Self::Off => Ok(None),
        }
    }
}

/// The form of NAT traversal that both ends speak, the preferred first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Flavour {
    Rfc3947,
    Draft03,
    /// Draft 02 with the line feed that its Vendor ID was computed with by mistake.
    Draft02LineFeed,
    Draft02,
}

impl Flavour {
    pub(super) const ALL: [Self; 4] = [Self::Rfc3947, Self::Draft03, Self::Draft02LineFeed, Self::Draft02];

    /// The MD5 of the name of the document.
    pub(super) fn vendor_id(self) -> [u8; 16] {
        match self {
            Self::Rfc3947 => 0x4a13_1c81_0703_5845_5c57_28f2_0e95_452f_u128,
            Self::Draft03 => 0x7d94_19a6_5310_ca6f_2c17_9d92_1552_9d56,
            Self::Draft02LineFeed => 0x90cb_8091_3ebb_696e_0863_81b5_ec42_7b1f,
            Self::Draft02 => 0xcd60_4643_35df_21f8_7cfd_b2fc_68b6_a448,
        }
        .to_be_bytes()
    }

    /// The best form of those in `known` that the Vendor IDs of the peer name.
    pub(super) fn of(payloads: &Payloads<'_>, known: &[Self]) -> Option<Self> {
        known.iter().copied().find(|flavour| payloads.all(PayloadType::VID).any(|id| id == flavour.vendor_id()))
    }

    pub(super) fn nat_d(self) -> PayloadType {
        if self == Self::Rfc3947 { PayloadType::NAT_D } else { PayloadType::NAT_D_DRAFT }
    }

    pub(super) fn nat_oa(self) -> PayloadType {
        if self == Self::Rfc3947 { PayloadType::NAT_OA } else { PayloadType::NAT_OA_DRAFT }
    }

    fn udp_transport(self) -> EncapsulationMode {
        if self == Self::Rfc3947 { EncapsulationMode::UDP_TRANSPORT } else { EncapsulationMode::UDP_TRANSPORT_DRAFT }
    }
}

/// The encapsulation mode that this end offers: transport, in UDP between ends that traverse NATs.
pub(super) fn offered_mode(flavour: Option<Flavour>) -> EncapsulationMode {
    flavour.map_or(EncapsulationMode::TRANSPORT, Flavour::udp_transport)
}

/// The encapsulation modes that this end accepts.
pub(super) fn accepted_modes(flavour: Option<Flavour>) -> &'static [EncapsulationMode] {
    if flavour.is_some() { &EncapsulationMode::IN_UDP } else { &[EncapsulationMode::TRANSPORT] }
}

/// How an initiator writes its payloads of NAT traversal, as most peers like it first. ESP is in UDP with each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum NatPayloads {
    /// By the RFC or a draft, whichever the peer prefers, with a NAT at our end that is made up.
    #[default]
    Any,
    /// By a draft, for peers that name the RFC and do not keep to its numbers.
    Drafts,
    /// As [`Self::Any`] with the truth about our end, for peers that want nobody to be behind a NAT who is not.
    Honest,
}

impl NatPayloads {
    /// All of them, in their order.
    pub const ALL: [Self; 3] = [Self::Any, Self::Drafts, Self::Honest];

    /// The forms that the peer may choose from.
    pub(super) fn flavours(self) -> &'static [Flavour] {
        match self {
            Self::Any | Self::Honest => &Flavour::ALL,
            Self::Drafts => &[Flavour::Draft03, Flavour::Draft02LineFeed, Flavour::Draft02],
        }
    }
}

/// One end as its owner sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Endpoint {
    pub(super) address: IpAddr,
    pub(super) port: u16,
}

impl Endpoint {
    /// An end at the port that everybody dials (RFC 2408 section 2.5.1, RFC 3947 section 4).
    pub(super) fn well_known(address: IpAddr, port: Port) -> Self {
        let port = match port {
            Port::Ike => 500,
            Port::NatT => 4500,
        };
        Self { address, port }
    }
}

fn nat_d(hash: Hash, cookies: &Cookies, end: Endpoint) -> Vec<u8> {
    hash::digest(hash, &[&cookies.spi(), &address_octets(end.address), &end.port.to_be_bytes()])
}

/// The bodies of our two NAT-D payloads, the peer's end first.
///
/// Our own end is a random value: the peer then sees a NAT always and agrees to UDP encapsulation, which is the only one that
/// passes Services, cloud gateways and pods without `NET_RAW`. Nobody who can have that goes without.
pub(super) fn nat_d_bodies(hash: Hash, cookies: &Cookies, remote: Endpoint, rng: &mut StdRng) -> [Vec<u8>; 2] {
    //= out: rfc3947 5.1 "Thus, UDP-Encapsulation SHOULD NOT be used." UDP is used with every peer that traverses NATs: nothing else passes Services, cloud gateways and pods without NET_RAW
    let mut own = vec![0; hash::output_size(hash)];
    rng.fill_bytes(&mut own);
    [nat_d(hash, cookies, remote), own]
}

/// The bodies of our two NAT-D payloads with the truth about both ends, as far as this one knows it.
pub(super) fn honest(hash: Hash, cookies: &Cookies, [remote, own]: [Endpoint; 2]) -> [Vec<u8>; 2] {
    [remote, own].map(|end| nat_d(hash, cookies, end))
}

/// The bodies of our two NAT-D payloads for a Windows client that a server asks for a renewal: as in [`parroted`], but what it says
/// of our end is not known yet, so that it is made of the address that it `dialled`.
pub(super) fn renewing(hash: Hash, cookies: &Cookies, dialled: Endpoint, rng: &mut StdRng) -> [Vec<u8>; 2] {
    let mut theirs = vec![0; hash::output_size(hash)];
    rng.fill_bytes(&mut theirs);
    [theirs, nat_d(hash, cookies, dialled)]
}

/// The bodies of our two NAT-D payloads in answer to those of Windows, which sends no ESP to a server that is behind a NAT.
///
/// Our end is what the client itself says that it is: behind a Service or a load balancer nothing else would be true for it. The
/// client's end is a random value, so that it sees a NAT at its own side and agrees to UDP encapsulation.
pub(super) fn parroted(
    peer: &Abilities,
    hash: Hash,
    payloads: &Payloads<'_>,
    rng: &mut StdRng,
) -> Option<[Vec<u8>; 2]> {
    let named = payloads.all(peer.flavour?.nat_d()).next().filter(|_| peer.windows)?;
    let mut theirs = vec![0; hash::output_size(hash)];
    rng.fill_bytes(&mut theirs);
    Some([theirs, named.to_vec()])
}

/// What the peer's NAT-D payloads say. The order in which they come is not judged: old clients of Apple send their own end first,
/// and an end with several addresses has several payloads.
pub(super) fn verdict(
    flavour: Flavour,
    hash: Hash,
    cookies: &Cookies,
    local: Endpoint,
    remote: Endpoint,
    payloads: &Payloads<'_>,
) -> Nat {
    let says = |end| payloads.all(flavour.nat_d()).any(|body| hash::eq(body, &nat_d(hash, cookies, end)));
    Nat { local: !says(local), remote: !says(remote) }
}

/// Appends the original addresses of the initiator and of the responder (RFC 3947 section 5.2), if both ends traverse NATs.
pub(super) fn write_nat_oa(flavour: Option<Flavour>, addresses: [IpAddr; 2], chain: &mut Chain) {
    if let Some(flavour) = flavour {
        addresses.into_iter().for_each(|address| chain.push(flavour.nat_oa(), &nat_oa_body(address)));
    }
}

/// The body of a NAT-OA payload (RFC 3947 section 5.2).
fn nat_oa_body(address: IpAddr) -> Vec<u8> {
    let kind = if address.is_ipv4() { IdType::IPV4_ADDR } else { IdType::IPV6_ADDR };
    let mut body = vec![kind.0, 0, 0, 0];
    body.extend_from_slice(&address_octets(address));
    body
}
