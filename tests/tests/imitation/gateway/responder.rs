//! The responder of Main Mode with a pre-shared key that a gateway is, for one ISAKMP SA. What follows is in [`super::quick`].
//!
//! A fault that it returns is what such a gateway would not go on with.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use towline_tunnel::buffer::Port;
use towline_tunnel::crypto::dh::KeyPair;
use towline_tunnel::crypto::hash::digest;
use towline_tunnel::suite::{Cipher, Group, Hash};

use super::quick::Quick;
use super::{Contact, Policy, Preference};
use crate::device::{DhGroup, Encryption, NatFlavour, Phase1};
use crate::ike::{Event, INITIAL_CONTACT, identification, notification};
use crate::isakmp::{
    ENCRYPTED, HASH, IDENTIFICATION, INFORMATIONAL, KEY_EXCHANGE, MAIN_MODE, Message, NONCE, NOTIFICATION, Payload,
    Proposal, QUICK_MODE, SA, Transform, VENDOR_ID, chain, every, first, payloads, proposals, sa,
};
use crate::keys::{Exchange, Keys};
use crate::table::vendor_id;

pub(super) const NO_PROPOSAL_CHOSEN: u16 = 14;

enum State {
    /// Nothing is agreed on.
    Idle,
    /// Message 2 is under way.
    Chosen(Phase1),
    /// Message 4 is.
    Exchanged {
        public_values: [Vec<u8>; 2],
    },
    Established,
}

pub(crate) struct Responder {
    pub(super) policy: Policy,
    /// Its own address, and where it sees the client on port 500 and on 4500.
    pub(super) own: Ipv4Addr,
    pub(super) seen: [SocketAddr; 2],
    psk: Vec<u8>,
    pub(super) rng: StdRng,
    cookies: [u8; 16],
    state: State,
    /// The body of the client's SA payload.
    offered: Vec<u8>,
    pub(super) keys: Option<Keys>,
    /// The group of phase 1.
    pub(super) group: Option<Group>,
    port: Port,
    /// Whether the client and this end are behind a NAT.
    pub(crate) behind_nat: [bool; 2],
    /// Quick Modes by their message IDs.
    pub(super) quick: HashMap<u32, Quick>,
    /// The identities of the last Quick Mode: the client's and its own.
    pub(super) ids: [Vec<u8>; 2],
    pub(crate) out: Vec<(Port, Vec<u8>)>,
    pub(crate) events: Vec<Event>,
    /// Whether the client has sent INITIAL-CONTACT.
    pub(crate) contacted: bool,
}

impl Responder {
    pub(crate) fn new(policy: &Policy, own: Ipv4Addr, seen: [SocketAddr; 2], psk: &str, mut rng: StdRng) -> Self {
        let mut cookies = [0; 16];
        rng.fill_bytes(&mut cookies[8..]);
        Self {
            policy: policy.clone(),
            own,
            seen,
            psk: psk.as_bytes().to_vec(),
            rng,
            cookies,
            state: State::Idle,
            offered: Vec::new(),
            keys: None,
            group: None,
            port: Port::Ike,
            behind_nat: [false; 2],
            quick: HashMap::new(),
            ids: [const { Vec::new() }; 2],
            out: Vec::new(),
            events: Vec::new(),
            contacted: false,
        }
    }

    /// Whether a message is of this ISAKMP SA.
    pub(crate) fn knows(&self, message: &[u8]) -> bool {
        self.cookies[..8] != [0; 8] && message.get(..8) == Some(&self.cookies[..8])
    }

    pub(crate) fn is_established(&self) -> bool {
        matches!(self.state, State::Established)
    }

    pub(super) fn cookies(&self) -> &[u8; 16] {
        &self.cookies
    }

    /// Takes a message that came to `port`, without the marker of 4500.
    pub(crate) fn handle_message(&mut self, port: Port, datagram: &[u8]) -> Result<(), String> {
        let message = Message::read(datagram).ok_or("the header is malformed")?;
        match (message.exchange, &self.state) {
            (MAIN_MODE, State::Idle) => self.choose(port, &message),
            (MAIN_MODE, State::Chosen(_)) => self.exchange(port, &message),
            (MAIN_MODE, State::Exchanged { .. }) => self.identify(port, &message),
            (QUICK_MODE, State::Established) => self.quick_mode(&message),
            (INFORMATIONAL, State::Established) => self.informational(&message),
            (exchange, _) => Err(format!("exchange {exchange} at this time")),
        }
    }

    /// Takes message 1.
    fn choose(&mut self, port: Port, message: &Message) -> Result<(), String> {
        self.port = port;
        self.cookies[..8].copy_from_slice(&message.cookies[..8]);
        let all = payloads(message.first, &message.body).ok_or("malformed payloads in message 1")?;
        self.permit(&all, &[SA, VENDOR_ID])?;
        let [(SA, offered), rest @ ..] = all.as_slice() else {
            return Err("message 1 does not begin with SA".to_owned());
        };
        let ids = every(rest, VENDOR_ID);
        let nat = if self.policy.nat == NatFlavour::Draft { "draft-ietf-ipsec-nat-t-ike-02\n" } else { "RFC 3947" };
        if !ids.contains(&vendor_id(nat).as_slice()) {
            // What else the client tries after a refusal may be without it, and the device has no use for that.
            return self.refuse();
        }
        let offers = proposals(offered).ok_or("malformed SA in message 1")?;
        let [Proposal { protocol: 1, transforms, .. }] = offers.as_slice() else {
            return Err(format!("{} proposals in message 1", offers.len()));
        };
        let Some((policy, transform)) = self.agree(transforms) else { return self.refuse() };
        self.offered.clone_from(offered);
        let answer = Proposal { transforms: vec![transform.clone()], ..offers[0].clone() };
        let mut reply = vec![(SA, sa(&[answer]))];
        reply.extend(self.vendor_ids(0));
        self.state = State::Chosen(policy);
        self.send(MAIN_MODE, 0, 0, &reply);
        Ok(())
    }

    /// A policy, and what is offered that fits it.
    fn agree<'a>(&self, offered: &'a [Transform]) -> Option<(Phase1, &'a Transform)> {
        let fits = |policy: &Phase1, transform: &Transform| {
            let Phase1(encryption, hash, group) = *policy;
            let (cipher, _, length) = encryption.numbers(false);
            let hash = match hash {
                Hash::Md5 => 1,
                Hash::Sha1 => 2,
                Hash::Sha256 => 4,
                Hash::Sha384 => 5,
                Hash::Sha512 => 6,
            };
            let wanted = [(1, Some(cipher)), (14, length), (2, Some(hash)), (3, Some(1)), (4, Some(group.number()))];
            wanted.iter().all(|(kind, value)| transform.value(*kind) == value.map(u64::from))
        };
        let mut all = self.policy.phase1.iter();
        match self.policy.preference[0] {
            Preference::Own => all.find_map(|own| Some((*own, offered.iter().find(|one| fits(own, one))?))),
            Preference::Peers => {
                offered.iter().find_map(|one| Some((*self.policy.phase1.iter().find(|own| fits(own, one))?, one)))
            }
        }
    }

    /// Nothing is in common: a strict gateway says nothing, others do, without any protection.
    fn refuse(&mut self) -> Result<(), String> {
        if !self.policy.strict {
            let notified = notification(1, &[], NO_PROPOSAL_CHOSEN, &[]);
            self.send(INFORMATIONAL, 0, 0, &[(NOTIFICATION, notified)]);
        }
        self.cookies[..8].fill(0);
        Ok(())
    }

    /// Takes message 3.
    fn exchange(&mut self, port: Port, message: &Message) -> Result<(), String> {
        let State::Chosen(Phase1(Encryption::Of(cipher), hash, DhGroup::Of(group))) = self.state else {
            return Err("out of turn".to_owned());
        };
        self.port = port;
        let all = payloads(message.first, &message.body).ok_or("malformed payloads in message 3")?;
        let detection = if self.policy.nat == NatFlavour::Draft { 130 } else { 20 };
        self.permit(&all, &[KEY_EXCHANGE, NONCE, VENDOR_ID, detection])?;
        let theirs = first(&all, KEY_EXCHANGE).ok_or("no key exchange in message 3")?;
        let their_nonce = first(&all, NONCE).filter(|nonce| (8..=256).contains(&nonce.len())).ok_or("no nonce")?;
        let found = every(&all, detection);
        let (mine, clients) = found.split_first().ok_or("no NAT-D in message 3")?;
        let end = usize::from(port == Port::NatT);
        let own = self.nat_hash(hash, SocketAddr::new(self.own.into(), [500, 4500][end]));
        let client = self.nat_hash(hash, self.seen[end]);
        self.behind_nat = [!clients.iter().any(|one| *one == client), *mine != own];
        let pair = KeyPair::generate(group, &mut self.rng);
        let (public_value, nonce) = (pair.public_value().to_vec(), self.random(16));
        let shared = pair.shared_secret(theirs).map_err(|error| error.to_string())?;
        self.derive(cipher, hash, [their_nonce, &nonce], [theirs, &public_value], &shared);
        self.group = Some(group);
        let mut reply = vec![(KEY_EXCHANGE, public_value.clone()), (NONCE, nonce)];
        reply.extend(self.vendor_ids(1));
        // RFC 3947 section 3.2: the remote end first.
        reply.extend([(detection, client), (detection, own)]);
        self.send(MAIN_MODE, 0, 0, &reply);
        self.state = State::Exchanged { public_values: [theirs.to_vec(), public_value] };
        Ok(())
    }

    fn derive(&mut self, cipher: Cipher, hash: Hash, nonces: [&[u8]; 2], public_values: [&[u8]; 2], shared: &[u8]) {
        let exchange = Exchange { cookies: self.cookies, nonces, public_values, shared };
        self.keys = Some(Keys::new(cipher, hash, &self.psk, &exchange));
    }

    /// Takes message 5.
    fn identify(&mut self, port: Port, message: &Message) -> Result<(), String> {
        let State::Exchanged { public_values: [theirs, own] } = &self.state else {
            return Err("out of turn".to_owned());
        };
        if self.behind_nat != [false; 2] && port != Port::NatT {
            return Err("message 5 came to port 500 though there is a NAT".to_owned());
        }
        let mut keys = self.keys.clone().ok_or("no keys")?;
        let mut iv = keys.iv.clone();
        let plain = keys.decrypt(&mut iv, &message.body).ok_or("message 5 cannot be decrypted")?;
        let all = payloads(message.first, &plain).ok_or("message 5 is malformed: another pre-shared key?")?;
        self.permit(&all, &[IDENTIFICATION, HASH, VENDOR_ID, NOTIFICATION])?;
        let id = first(&all, IDENTIFICATION).ok_or("no identity in message 5")?;
        let (i, r) = self.cookies.split_at(8);
        let expected = keys.identity_hash(&[theirs, own, i, r, &self.offered, id]);
        if first(&all, HASH) != Some(&expected) {
            return Err("HASH_I is wrong".to_owned());
        }
        let (protocol, number) = self.policy.identity[usize::from(self.behind_nat != [false; 2])];
        let id = identification(protocol, number, self.own);
        let proof = keys.identity_hash(&[own, theirs, r, i, &self.offered, &id]);
        let mut reply = vec![(IDENTIFICATION, id), (HASH, proof)];
        reply.extend(self.vendor_ids(2));
        if self.policy.initial_contact == Contact::InMessage6 {
            reply.push((NOTIFICATION, notification(1, &self.cookies, INITIAL_CONTACT, &[])));
        }
        let contacts =
            every(&all, NOTIFICATION).iter().any(|body| body.get(6..8) == Some(&INITIAL_CONTACT.to_be_bytes()));
        let body = keys.encrypt(&mut iv, &chain(&reply));
        keys.iv = iv;
        (self.port, self.keys, self.contacted) = (port, Some(keys), contacts);
        self.state = State::Established;
        self.send_body(MAIN_MODE, 0, IDENTIFICATION, body);
        if self.policy.initial_contact == Contact::Afterwards {
            self.inform(&[(NOTIFICATION, notification(1, &self.cookies.clone(), INITIAL_CONTACT, &[]))]);
        }
        Ok(())
    }

    /// A strict gateway stops at a payload that it has no use for in this message.
    fn permit(&self, all: &[Payload], known: &[u8]) -> Result<(), String> {
        match all.iter().find(|(kind, _)| !known.contains(kind)) {
            Some((kind, _)) if self.policy.strict => Err(format!("payload {kind} is not expected here")),
            _ => Ok(()),
        }
    }

    fn vendor_ids(&self, message: usize) -> Vec<Payload> {
        self.policy.vendor_ids[message].iter().map(|id| (VENDOR_ID, id.clone())).collect()
    }

    fn nat_hash(&self, hash: Hash, end: SocketAddr) -> Vec<u8> {
        let IpAddr::V4(address) = end.ip() else { panic!("no gateway is played over IPv6") };
        digest(hash, &[&self.cookies, &address.octets(), &end.port().to_be_bytes()])
    }

    pub(super) fn random(&mut self, octets: usize) -> Vec<u8> {
        let mut random = vec![0; octets];
        self.rng.fill_bytes(&mut random);
        random
    }

    /// An Informational exchange.
    pub(super) fn inform(&mut self, rest: &[Payload]) {
        let keys = self.keys.clone().unwrap();
        let id: u32 = self.rng.random_range(1..=u32::MAX);
        let hash = keys.hash(&[&id.to_be_bytes(), &chain(rest)]);
        let body = keys.encrypt(&mut keys.iv_of(id), &chain(&[&[(HASH, hash)], rest].concat()));
        self.send_body(INFORMATIONAL, id, HASH, body);
    }

    fn send(&mut self, exchange: u8, id: u32, flags: u8, all: &[Payload]) {
        let first = all.first().map_or(0, |(kind, _)| *kind);
        self.send_message(&Message { cookies: self.cookies, first, exchange, flags, id, body: chain(all) });
    }

    pub(super) fn send_body(&mut self, exchange: u8, id: u32, first: u8, body: Vec<u8>) {
        self.send_message(&Message { cookies: self.cookies, first, exchange, flags: ENCRYPTED, id, body });
    }

    fn send_message(&mut self, message: &Message) {
        let marker: &[u8] = if self.port == Port::NatT { &[0; 4] } else { &[] };
        self.out.push((self.port, [marker, &message.write()].concat()));
    }
}
