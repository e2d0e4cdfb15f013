//! The initiator of IKEv1 that a device is: Main Mode with a pre-shared key, Quick Modes in both roles, Informational exchanges.
//!
//! It is strict where devices are: what a server returns must be, octet by octet, what was offered.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use towline_tunnel::buffer::Port;
use towline_tunnel::crypto::dh::KeyPair;
use towline_tunnel::crypto::hash::digest;
use towline_tunnel::suite::{Cipher, Hash};

use crate::device::{Device, DhGroup, Encryption, NatFlavour, Phase2, Selector};
use crate::esp::{Sa, key_octets};
use crate::isakmp::{
    COMMIT, DELETE, ENCRYPTED, HASH, IDENTIFICATION, INFORMATIONAL, KEY_EXCHANGE, MAIN_MODE, Message, NONCE,
    NOTIFICATION, Payload, Proposal, QUICK_MODE, SA, VENDOR_ID, chain, every, first, payloads, proposals, sa,
};
use crate::keys::{Exchange, Keys};

pub(crate) const INITIAL_CONTACT: u16 = 24_578;
pub(crate) const R_U_THERE: u16 = 36_136;
pub(crate) const R_U_THERE_ACK: u16 = 36_137;

/// What comes out of it.
pub(crate) enum Event {
    /// A pair of ESP SAs: inbound, outbound.
    Pair(Sa, Sa),
    /// The peer deletes ESP SAs with these SPIs, which are its inbound ones.
    Deleted(Vec<u32>),
    /// The peer deletes the ISAKMP SA.
    IsakmpDeleted,
    /// The peer notifies of this.
    Notified(u16),
}

enum State {
    /// Message 1 is under way.
    Offered,
    /// Message 3 is.
    Exchanged {
        suite: (Cipher, Hash),
        pair: Box<KeyPair>,
        nonce: Vec<u8>,
        public_value: Vec<u8>,
    },
    /// Message 5 is.
    Identified {
        public_values: [Vec<u8>; 2],
    },
    Established,
}

/// A Quick Mode that this end began, or one that the peer did.
struct Quick {
    iv: Vec<u8>,
    nonce: Vec<u8>,
    spi: u32,
    pair: Option<KeyPair>,
    ids: [Vec<u8>; 2],
    offers: Vec<Proposal>,
    /// The peer began it, and its message 3 is awaited with these SAs.
    answered: Option<(Sa, Sa)>,
}

pub(crate) struct Ike {
    device: Device,
    own: Ipv4Addr,
    server: Ipv4Addr,
    psk: Vec<u8>,
    rng: StdRng,
    cookies: [u8; 16],
    state: State,
    sa: Vec<u8>,
    keys: Option<Keys>,
    port: Port,
    /// Whether this end and the server are behind a NAT, by what the server says.
    pub(crate) behind_nat: [bool; 2],
    quick: HashMap<u32, Quick>,
    pub(crate) out: Vec<(Port, Vec<u8>)>,
    pub(crate) events: Vec<Event>,
    /// The server's vendor IDs.
    pub(crate) vendor_ids: Vec<Vec<u8>>,
}

impl Ike {
    /// Begins Main Mode on `port`.
    pub(crate) fn new(
        device: &Device,
        own: Ipv4Addr,
        server: Ipv4Addr,
        psk: &str,
        port: Port,
        mut rng: StdRng,
    ) -> Self {
        let mut cookies = [0; 16];
        rng.fill_bytes(&mut cookies[..8]);
        let transforms = device.phase1_transforms();
        let sa = sa(&[Proposal { number: 1, protocol: 1, spi: Vec::new(), transforms }]);
        let mut begun = Self {
            device: device.clone(),
            own,
            server,
            psk: psk.as_bytes().to_vec(),
            rng,
            cookies,
            state: State::Offered,
            sa,
            keys: None,
            port,
            behind_nat: [false; 2],
            quick: HashMap::new(),
            out: Vec::new(),
            events: Vec::new(),
            vendor_ids: Vec::new(),
        };
        let mut all = vec![(SA, begun.sa.clone())];
        all.extend(device.vendor_ids.iter().map(|id| (VENDOR_ID, id.clone())));
        begun.send(MAIN_MODE, 0, 0, &all);
        begun
    }

    /// Whether the message is of this negotiation.
    pub(crate) fn knows(&self, message: &[u8]) -> bool {
        message.get(..8) == Some(&self.cookies[..8])
    }

    pub(crate) fn is_established(&self) -> bool {
        matches!(self.state, State::Established)
    }

    /// Takes a message, without the marker of port 4500.
    pub(crate) fn handle_message(&mut self, datagram: &[u8]) -> Result<(), String> {
        let message = Message::read(datagram).ok_or("the header is malformed")?;
        match (message.exchange, &self.state) {
            (MAIN_MODE, State::Offered) => self.chosen(&message),
            (MAIN_MODE, State::Exchanged { .. }) => self.exchanged(&message),
            (MAIN_MODE, State::Identified { .. }) => self.identified(&message),
            (QUICK_MODE, State::Established) => self.quick_mode_message(&message),
            (INFORMATIONAL, _) => self.informational(&message),
            // Sent again.
            (MAIN_MODE, State::Established) => Ok(()),
            _ => Err(format!("exchange {} at this time", message.exchange)),
        }
    }

    fn chosen(&mut self, message: &Message) -> Result<(), String> {
        let all = payloads(message.first, &message.body).ok_or("malformed payloads in message 2")?;
        if all.first().is_none_or(|(kind, _)| *kind != SA) {
            return Err("message 2 does not begin with an SA".to_owned());
        }
        let chosen = proposals(&all[0].1).ok_or("malformed SA in message 2")?;
        let ([proposal], offered) = (chosen.as_slice(), self.device.phase1_transforms()) else {
            return Err(format!("{} proposals in message 2", chosen.len()));
        };
        let [transform] = proposal.transforms.as_slice() else {
            return Err("several transforms in message 2".to_owned());
        };
        if proposal.number != 1 || proposal.protocol != 1 {
            return Err(format!("another proposal in message 2: {proposal:?}"));
        }
        let place = offered.iter().position(|one| one == transform);
        let place = place.ok_or_else(|| format!("a transform that was not offered: {transform:?}"))?;
        let request = 28 + self.sa.len() + 4 + self.device.vendor_ids.iter().map(|id| 4 + id.len()).sum::<usize>();
        let reply = 28 + message.body.len();
        if reply > request {
            return Err(format!("message 2 has {reply} octets, and message 1 had {request}"));
        }
        self.vendor_ids = every(&all, VENDOR_ID).into_iter().map(<[u8]>::to_vec).collect();
        self.cookies = message.cookies;
        let DhGroup::Of(group) = self.device.phase1[place].2 else {
            return Err("the server agrees to MODP768".to_owned());
        };
        let Encryption::Of(cipher) = self.device.phase1[place].0 else {
            return Err("the server agrees to DES".to_owned());
        };
        let hash = self.device.phase1[place].1;
        let pair = KeyPair::generate(group, &mut self.rng);
        let public_value = pair.public_value().to_vec();
        let nonce = self.random(20);
        let mut all = vec![(KEY_EXCHANGE, public_value.clone()), (NONCE, nonce.clone())];
        all.extend(self.device.later_ids.iter().map(|id| (VENDOR_ID, id.clone())));
        for kind in self.nat_payloads(20, 130) {
            // RFC 3947 section 3.2: the remote end first.
            let port = if self.port == Port::Ike { 500 } else { 4500 };
            let mut ends = [self.server, self.own];
            if self.device.nat_d_reversed {
                ends.reverse();
            }
            all.extend(ends.map(|address| (kind, self.nat_hash(hash, address, port))));
        }
        self.state = State::Exchanged { suite: (cipher, hash), pair: Box::new(pair), nonce, public_value };
        self.send(MAIN_MODE, 0, 0, &all);
        Ok(())
    }

    fn exchanged(&mut self, message: &Message) -> Result<(), String> {
        let all = payloads(message.first, &message.body).ok_or("malformed payloads in message 4")?;
        let State::Exchanged { suite: (cipher, hash), pair, nonce, public_value } =
            std::mem::replace(&mut self.state, State::Offered)
        else {
            return Err("out of turn".to_owned());
        };
        let theirs = first(&all, KEY_EXCHANGE).ok_or("no key exchange in message 4")?;
        let their_nonce = first(&all, NONCE).filter(|nonce| (8..=256).contains(&nonce.len())).ok_or("no nonce")?;
        let shared = pair.shared_secret(theirs).map_err(|error| error.to_string())?;
        let mut keys = Keys::new(
            cipher,
            hash,
            &self.psk,
            &Exchange {
                cookies: self.cookies,
                nonces: [&nonce, their_nonce],
                public_values: [&public_value, theirs],
                shared: &shared,
            },
        );
        if let Some(kind) = self.nat_payloads(20, 130).first().copied() {
            let found = every(&all, kind);
            let (mine, servers) = found.split_first().ok_or("no NAT-D in message 4")?;
            let port = if self.port == Port::Ike { 500 } else { 4500 };
            let own = self.nat_hash(hash, self.own, port);
            let server = self.nat_hash(hash, self.server, port);
            self.behind_nat = [*mine != own, !servers.iter().any(|one| *one == server)];
            if self.behind_nat[1] && self.device.refuses_server_behind_nat {
                return Err("error 809: the server is behind a NAT".to_owned());
            }
            if self.behind_nat != [false; 2] {
                self.port = Port::NatT;
            }
        }
        let (protocol, port) = self.device.identity;
        let id = identification(protocol, port, self.own);
        let parts: [&[u8]; 5] = [&public_value, theirs, &self.cookies, &self.sa, &id];
        let hash_i = keys.identity_hash(&parts);
        let mut payloads = vec![(IDENTIFICATION, id), (HASH, hash_i)];
        if self.device.initial_contact {
            payloads.push((NOTIFICATION, notification(1, &self.cookies, INITIAL_CONTACT, &[])));
        }
        let public_values = [public_value, theirs.to_vec()];
        let mut iv = keys.iv.clone();
        let body = keys.encrypt(&mut iv, &chain(&payloads));
        keys.iv = iv;
        self.keys = Some(keys);
        self.state = State::Identified { public_values };
        self.send_body(MAIN_MODE, 0, IDENTIFICATION, body);
        Ok(())
    }

    fn identified(&mut self, message: &Message) -> Result<(), String> {
        let State::Identified { public_values: [own, theirs] } = &self.state else {
            return Err("out of turn".to_owned());
        };
        let keys = self.keys.as_mut().ok_or("no keys")?;
        if message.flags & ENCRYPTED == 0 {
            return Err("message 6 is not encrypted".to_owned());
        }
        let mut iv = keys.iv.clone();
        let plain = keys.decrypt(&mut iv, &message.body).ok_or("message 6 cannot be decrypted")?;
        let all = payloads(message.first, &plain).ok_or("message 6 is malformed: another pre-shared key?")?;
        let id = first(&all, IDENTIFICATION).ok_or("no identity in message 6")?;
        let hash = first(&all, HASH).ok_or("no HASH in message 6")?;
        let (i, r) = self.cookies.split_at(8);
        if keys.identity_hash(&[theirs, own, r, i, &self.sa, id]) != hash {
            return Err("HASH_R is wrong".to_owned());
        }
        keys.iv = iv;
        self.state = State::Established;
        Ok(())
    }

    /// Begins Quick Mode with the selector of the device.
    pub(crate) fn quick_mode(&mut self) {
        let selector = self.device.selector;
        self.quick_mode_with(selector);
    }

    /// Begins Quick Mode with another selector.
    pub(crate) fn quick_mode_with(&mut self, selector: Selector) {
        let ids = match selector {
            Selector::L2tp => [identification(17, 1701, self.own), identification(17, 1701, self.server)],
            Selector::AnyPort => [identification(17, 0, self.own), identification(17, 1701, self.server)],
            Selector::Ephemeral(port) => [identification(17, port, self.own), identification(17, 1701, self.server)],
            // ID_FQDN (2).
            Selector::Name(name) => {
                [[&[2, 17, 0x06, 0xa5], name.as_bytes()].concat(), identification(17, 1701, self.server)]
            }
        };
        let message_id = self.rng.random_range(1..=u32::MAX);
        let spi = self.rng.random_range(0x1000..=u32::MAX);
        let mode = self.encapsulation();
        let proposal = |(index, offers): (usize, &Vec<Phase2>)| Proposal {
            number: index as u8 + 1,
            protocol: 3,
            spi: spi.to_be_bytes().to_vec(),
            transforms: self.device.phase2_transforms(offers, mode),
        };
        let offers: Vec<_> = self.device.phase2.iter().enumerate().map(proposal).collect();
        let nonce = self.random(16);
        let pair = self.device.pfs.map(|group| KeyPair::generate(group, &mut self.rng));
        let mut all = vec![(SA, sa(&offers)), (NONCE, nonce.clone())];
        all.extend(pair.as_ref().map(|pair| (KEY_EXCHANGE, pair.public_value().to_vec())));
        all.extend(ids.iter().map(|id| (IDENTIFICATION, id.clone())));
        all.extend(self.original_addresses());
        let keys = self.keys.as_ref().unwrap();
        let hash = keys.hash(&[&message_id.to_be_bytes(), &chain(&all)]);
        let mut iv = keys.iv_of(message_id);
        all.insert(0, (HASH, hash));
        let body = keys.encrypt(&mut iv, &chain(&all));
        self.quick.insert(message_id, Quick { iv, nonce, spi, pair, ids, offers, answered: None });
        self.send_body(QUICK_MODE, message_id, HASH, body);
    }

    fn quick_mode_message(&mut self, message: &Message) -> Result<(), String> {
        let keys = self.keys.clone().ok_or("no keys")?;
        let Some(mut quick) = self.quick.remove(&message.id) else { return self.quick_mode_of_peer(message, &keys) };
        let plain = keys.decrypt(&mut quick.iv, &message.body).ok_or("Quick Mode cannot be decrypted")?;
        let all = payloads(message.first, &plain).ok_or("malformed payloads in Quick Mode")?;
        let id = message.id.to_be_bytes();
        if let Some((inbound, outbound)) = quick.answered {
            // Message 3 of the peer's.
            return match first(&all, HASH) {
                Some(_) => {
                    self.events.push(Event::Pair(inbound, outbound));
                    Ok(())
                }
                None => Err("no HASH(3)".to_owned()),
            };
        }
        let [(HASH, hash), rest @ ..] = all.as_slice() else {
            return Err("message 2 does not begin with a HASH".to_owned());
        };
        if keys.hash(&[&id, &quick.nonce, &chain(rest)]) != *hash {
            return Err("HASH(2) is wrong".to_owned());
        }
        if first(rest, NOTIFICATION).is_some() && first(rest, SA).is_none() {
            return Err("the server refuses Quick Mode".to_owned());
        }
        let chosen = proposals(first(rest, SA).ok_or("no SA")?).ok_or("malformed SA")?;
        let [proposal] = chosen.as_slice() else { return Err("several proposals".to_owned()) };
        let offered =
            quick.offers.iter().position(|one| one.number == proposal.number && one.protocol == proposal.protocol);
        let offered = offered.ok_or_else(|| format!("another proposal: {proposal:?}"))?;
        let [transform] = proposal.transforms.as_slice() else { return Err("several transforms".to_owned()) };
        let place = quick.offers[offered].transforms.iter().position(|one| one == transform);
        let place = place.ok_or_else(|| format!("a transform that was not offered: {transform:?}"))?;
        if every(rest, IDENTIFICATION) != quick.ids.iter().map(Vec::as_slice).collect::<Vec<_>>() {
            return Err("the identities are not those that were sent".to_owned());
        }
        self.check_original_addresses(rest)?;
        let nonce = first(rest, NONCE).ok_or("no nonce")?;
        let shared = match (&quick.pair, first(rest, KEY_EXCHANGE)) {
            (None, None) => None,
            (Some(pair), Some(theirs)) => Some(pair.shared_secret(theirs).map_err(|error| error.to_string())?),
            _ => return Err("a key exchange at one end only".to_owned()),
        };
        let their_spi = u32::from_be_bytes(proposal.spi.as_slice().try_into().map_err(|_| "an SPI of another size")?);
        if their_spi < 256 {
            return Err("a reserved SPI".to_owned());
        }
        let suite = self.device.phase2[offered][place];
        let material =
            |spi| keys.keymat(shared.as_ref().map(|s| s.as_slice()), spi, [&quick.nonce, nonce], key_octets(suite));
        let pair = (Sa::new(quick.spi, suite, material(quick.spi)), Sa::new(their_spi, suite, material(their_spi)));
        let hash = keys.hash(&[&[0], &id, &quick.nonce, nonce]);
        let body = keys.encrypt(&mut quick.iv, &chain(&[(HASH, hash)]));
        self.send_body(QUICK_MODE, message.id, HASH, body);
        self.events.push(Event::Pair(pair.0, pair.1));
        Ok(())
    }

    /// The peer begins Quick Mode: its first offer that this device has too is taken.
    fn quick_mode_of_peer(&mut self, message: &Message, keys: &Keys) -> Result<(), String> {
        let mut iv = keys.iv_of(message.id);
        let plain = keys.decrypt(&mut iv, &message.body).ok_or("Quick Mode of the peer cannot be decrypted")?;
        let all = payloads(message.first, &plain).ok_or("malformed payloads in the peer's Quick Mode")?;
        let [(HASH, hash), rest @ ..] = all.as_slice() else {
            return Err("Quick Mode does not begin with a HASH".to_owned());
        };
        if keys.hash(&[&message.id.to_be_bytes(), &chain(rest)]) != *hash {
            return Err("HASH(1) is wrong".to_owned());
        }
        let offers = proposals(first(rest, SA).ok_or("no SA")?).ok_or("malformed SA")?;
        let (mode, suites) = (self.encapsulation(), self.device.phase2.concat());
        let mut candidates = offers.iter().flat_map(|offer| offer.transforms.iter().map(move |one| (offer, one)));
        let found = candidates.find_map(|(offer, transform)| {
            let same = |suite: &&Phase2| {
                let own = &self.device.phase2_transforms(&[**suite], mode)[0];
                own.id == transform.id && [3, 4, 5, 6].iter().all(|kind| own.value(*kind) == transform.value(*kind))
            };
            suites.iter().find(same).map(|suite| (offer, transform, *suite))
        });
        let (offer, transform, suite) = found.ok_or_else(|| format!("no offer that this device knows: {offers:?}"))?;
        let nonce = self.random(16);
        let spi = self.rng.random_range(0x1000..=u32::MAX);
        let answer = Proposal { spi: spi.to_be_bytes().to_vec(), transforms: vec![transform.clone()], ..offer.clone() };
        let mut reply: Vec<Payload> = vec![(SA, sa(&[answer])), (NONCE, nonce.clone())];
        let theirs = first(rest, NONCE).ok_or("no nonce")?;
        let pair = first(rest, KEY_EXCHANGE).zip(self.device.pfs).map(|(theirs, group)| {
            let pair = KeyPair::generate(group, &mut self.rng);
            (pair.public_value().to_vec(), pair.shared_secret(theirs))
        });
        let shared = match pair {
            None => None,
            Some((own, shared)) => {
                reply.push((KEY_EXCHANGE, own));
                Some(shared.map_err(|error| error.to_string())?)
            }
        };
        reply.extend(every(rest, IDENTIFICATION).into_iter().map(|id| (IDENTIFICATION, id.to_vec())));
        reply.extend(self.original_addresses());
        let hash = keys.hash(&[&message.id.to_be_bytes(), theirs, &chain(&reply)]);
        reply.insert(0, (HASH, hash));
        let body = keys.encrypt(&mut iv, &chain(&reply));
        let their_spi = u32::from_be_bytes(offer.spi.as_slice().try_into().map_err(|_| "an SPI of another size")?);
        let material =
            |spi| keys.keymat(shared.as_ref().map(|s| s.as_slice()), spi, [theirs, &nonce], key_octets(suite));
        let answered = Some((Sa::new(spi, suite, material(spi)), Sa::new(their_spi, suite, material(their_spi))));
        let ids = [Vec::new(), Vec::new()];
        self.quick.insert(message.id, Quick { iv, nonce, spi, pair: None, ids, offers: Vec::new(), answered });
        self.send_body(QUICK_MODE, message.id, HASH, body);
        Ok(())
    }

    fn informational(&mut self, message: &Message) -> Result<(), String> {
        let Some(keys) = self.keys.clone().filter(|_| message.flags & ENCRYPTED != 0) else {
            let all = payloads(message.first, &message.body).ok_or("a malformed notification")?;
            let kind = first(&all, NOTIFICATION).and_then(|body| body.get(6..8)).ok_or("no notification")?;
            self.events.push(Event::Notified(u16::from_be_bytes([kind[0], kind[1]])));
            return Ok(());
        };
        let plain = keys.decrypt(&mut keys.iv_of(message.id), &message.body).ok_or("cannot be decrypted")?;
        let all = payloads(message.first, &plain).ok_or("a malformed Informational exchange")?;
        let [(HASH, hash), rest @ ..] = all.as_slice() else { return Err("it does not begin with a HASH".to_owned()) };
        if keys.hash(&[&message.id.to_be_bytes(), &chain(rest)]) != *hash {
            return Err("HASH(1) of an Informational exchange is wrong".to_owned());
        }
        for (kind, body) in rest {
            match *kind {
                DELETE if body.get(4) == Some(&3) => {
                    let spis = body[8..].chunks(4).filter_map(|spi| Some(u32::from_be_bytes(spi.try_into().ok()?)));
                    self.events.push(Event::Deleted(spis.collect()));
                }
                DELETE => self.events.push(Event::IsakmpDeleted),
                NOTIFICATION => {
                    let notified = u16::from_be_bytes([body[6], body[7]]);
                    let data = body[8 + usize::from(body[5])..].to_vec();
                    if notified == R_U_THERE {
                        self.inform(&[(NOTIFICATION, notification(1, &self.cookies, R_U_THERE_ACK, &data))]);
                    }
                    self.events.push(Event::Notified(notified));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Deletes an ESP SA by this end's SPI.
    pub(crate) fn delete(&mut self, spi: u32) {
        self.inform(&[(DELETE, [&[0, 0, 0, 1, 3, 4, 0, 1], spi.to_be_bytes().as_slice()].concat())]);
    }

    /// Deletes the ISAKMP SA.
    pub(crate) fn delete_isakmp(&mut self) {
        self.inform(&[(DELETE, [&[0, 0, 0, 1, 1, 16, 0, 1], self.cookies.as_slice()].concat())]);
    }

    fn inform(&mut self, rest: &[Payload]) {
        let keys = self.keys.clone().unwrap();
        let id: u32 = self.rng.random_range(1..=u32::MAX);
        let hash = keys.hash(&[&id.to_be_bytes(), &chain(rest)]);
        let body = keys.encrypt(&mut keys.iv_of(id), &chain(&[&[(HASH, hash)], rest].concat()));
        self.send_body(INFORMATIONAL, id, HASH, body);
    }

    /// The encapsulation mode: transport, or the device's number of UDP-encapsulated transport.
    fn encapsulation(&self) -> u16 {
        match (self.behind_nat, self.device.nat) {
            ([false, false], _) => 2,
            (_, NatFlavour::Rfc | NatFlavour::Both) => 4,
            (_, NatFlavour::Draft) => 61_444,
        }
    }

    /// The types of a NAT payload in the device's flavour.
    fn nat_payloads(&self, rfc: u8, draft: u8) -> Vec<u8> {
        match self.device.nat {
            NatFlavour::Rfc => vec![rfc],
            NatFlavour::Draft => vec![draft],
            NatFlavour::Both => vec![rfc, draft],
        }
    }

    /// The type of NAT-OA, where it is sent.
    fn original_address(&self) -> Option<u8> {
        let kinds = self.nat_payloads(21, 131);
        kinds.first().copied().filter(|_| self.behind_nat != [false; 2])
    }

    fn nat_hash(&self, hash: Hash, address: Ipv4Addr, port: u16) -> Vec<u8> {
        digest(hash, &[&self.cookies, &address.octets(), &port.to_be_bytes()])
    }

    /// NAT-OA of both ends where ESP goes in UDP (RFC 3947 section 5.2): the own address, and the server's as it is seen.
    fn original_addresses(&self) -> Vec<Payload> {
        let Some(kind) = self.original_address() else { return Vec::new() };
        [self.own, self.server].map(|address| (kind, identification(0, 0, address))).into()
    }

    fn check_original_addresses(&self, payloads: &[Payload]) -> Result<(), String> {
        let (found, expected) = match self.original_address() {
            Some(kind) => (every(payloads, kind).len(), 2),
            None => (every(payloads, 21).len() + every(payloads, 131).len(), 0),
        };
        if found == expected { Ok(()) } else { Err(format!("{found} NAT-OA payloads in place of {expected}")) }
    }

    fn random(&mut self, octets: usize) -> Vec<u8> {
        let mut random = vec![0; octets];
        self.rng.fill_bytes(&mut random);
        random
    }

    fn send(&mut self, exchange: u8, id: u32, flags: u8, all: &[Payload]) {
        let first = all.first().map_or(0, |(kind, _)| *kind);
        self.send_message(&Message { cookies: self.cookies, first, exchange, flags, id, body: chain(all) });
    }

    fn send_body(&mut self, exchange: u8, id: u32, first: u8, body: Vec<u8>) {
        let commit = if self.device.commits && exchange == QUICK_MODE { COMMIT } else { 0 };
        self.send_message(&Message { cookies: self.cookies, first, exchange, flags: ENCRYPTED | commit, id, body });
    }

    fn send_message(&mut self, message: &Message) {
        let marker: &[u8] = if self.port == Port::NatT { &[0; 4] } else { &[] };
        self.out.push((self.port, [marker, &message.write()].concat()));
    }
}

/// The body of an identification payload of an IPv4 address (RFC 2407 section 4.6.2), which is that of NAT-OA too.
pub(crate) fn identification(protocol: u8, port: u16, address: Ipv4Addr) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    [[1, protocol, high, low], address.octets()].concat()
}

/// The body of a notification payload (RFC 2408 section 3.14).
pub(crate) fn notification(protocol: u8, spi: &[u8], kind: u16, data: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 0, 0, 1, protocol, spi.len() as u8];
    body.extend(kind.to_be_bytes());
    body.extend(spi);
    body.extend(data);
    body
}
