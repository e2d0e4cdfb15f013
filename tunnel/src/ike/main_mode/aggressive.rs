//! Aggressive Mode with a pre-shared key, as initiator (RFC 2409 section 5.4, RFC 3947 section 3.2).
//!
//! ```text
//!   1  HDR, SA, KE, Ni, IDii, VID …         ->
//!                                           <-       HDR, SA, KE, Nr, IDir, VID …, NAT-D, NAT-D, HASH_R   2
//!   3  HDR*, NAT-D, NAT-D, HASH_I (4500)    ->
//!      HDR*, HASH, N (Informational)        ->
//! ```
//!
//! Both identities travel in the clear, and so does HASH_R: whoever answers message 1, or hears the answer, can try keys on it for
//! as long as he likes. No responder of this crate speaks it.

use super::*;

/// Aggressive Mode after message 1.
pub(super) struct Begun {
    pub(super) pair: Box<KeyPair>,
    pub(super) nonce: Vec<u8>,
}

/// The proposals of one group, that of the first one: message 1 holds one public value already (RFC 2409 section 5).
pub(super) fn of_one_group(proposals: &[IkeProposal]) -> Vec<IkeProposal> {
    let offered = || proposals.iter().filter(|proposal| !proposal.cipher.is_aead());
    let group = offered().next().map(|first| first.group);
    offered().filter(|proposal| Some(proposal.group) == group).copied().collect()
}

impl Begun {
    pub(super) fn new(context: &mut Context<'_>, proposals: &[IkeProposal]) -> Result<Self, Error> {
        let first = proposals.first().ok_or(Error::Config("it offers no proposal"))?;
        let nonce = context.nonce();
        Ok(Self { pair: Box::new(KeyPair::generate(first.group, context.rng)), nonce })
    }

    /// Appends what message 1 has and that of Main Mode has not.
    pub(super) fn write(&self, config: &Config, chain: &mut Chain) -> Result<(), Error> {
        chain.push(PayloadType::KE, self.pair.public_value());
        chain.push(PayloadType::NONCE, &self.nonce);
        chain.push(PayloadType::ID, &proof::own_identity(config, Method::PreSharedKey)?);
        Ok(())
    }
}

impl MainMode {
    /// Takes message 2: all that Main Mode has in its messages 2, 4 and 6.
    pub(super) fn aggressive_message_2(
        &mut self,
        context: &mut Context<'_>,
        now: Instant,
        header: &Header,
        [body, message]: [&[u8]; 2],
    ) -> Result<Step, Error> {
        let State::Aggressive(Begun { pair, nonce }) = &self.state else { return Err(Error::Undecryptable) };
        let config = context.config;
        let payloads = Payloads::read_plain(header.next_payload, body)?;
        let answer = payloads.sa()?;
        let chosen = proposal::accept_phase1(&of_one_group(&config.proposals), self.offered, answer)
            .map_err(|reason| Error::NotOffered { phase: 1, reason })?;
        let abilities = Abilities::of(&payloads, config.nat_traversal, config.nat_payloads)?;
        let agreed = Agreed::new(chosen, abilities);
        let public_r = payloads.single(PayloadType::KE, "KE payload")?.to_vec();
        if public_r == pair.public_value() {
            return Err(Error::InvalidKeyInformation("public value (it is ours)"));
        }
        let secret = pair.shared_secret(&public_r).map_err(|_| Error::InvalidKeyInformation("public value"))?;
        let cookies = Cookies { responder: header.cookies.responder, ..self.cookies };
        let exchanged = Exchanged {
            agreed,
            cookies,
            sa: self.sa.clone(),
            secret,
            nonce_i: nonce.clone(),
            nonce_r: payloads.nonce()?.to_vec(),
            public_i: pair.public_value().to_vec(),
            public_r,
            nat: Self::verdict(config, &agreed, &cookies, self.port, &payloads),
            wanted: false,
        };
        let key = config.credentials.own_key(config.remote, self.before.as_ref())?;
        let keys = exchanged.keys(Some(key))?;
        let known = Known::from(key);
        let proof = exchanged.read_proof(config, now, &keys, Some(&known), Role::Responder, &payloads);
        let peer = match proof {
            Err(Error::InvalidHash(_)) => return Err(Error::InvalidHash(self.exchange)),
            proof => Proved { initial_contact: false, ..proof? },
        };
        let mut chain = Chain::new();
        let nat_d = Self::nat_d(context, agreed.proposal.hash, &cookies, self.port);
        agreed.abilities.write_nat_d(&nat_d, &mut chain);
        exchanged.write_hash(config, &keys, Role::Initiator, &mut chain)?;
        let mut iv = keys.first_iv(&exchanged.public_i, &exchanged.public_r);
        let response = keys.seal(Header::new(cookies, self.exchange, 0), &chain, &mut iv);
        self.cookies = cookies;
        // As with message 5 of Main Mode.
        self.float(agreed.abilities);
        let mut established = Established::new(config, agreed, exchanged.nat, keys, iv, peer);
        established.answered = Some(Answered::new(message, response));
        Ok(Step::Established(Box::new(established)))
    }

    //= rfc2407 4.6.3 "These messages MUST NOT be sent in Aggressive Mode exchange, since Aggressive Mode does not provide the necessary protection to bind the Notify Status Message to the exchange."
    //= test: initial_contact_follows_aggressive_mode_in_a_message_of_its_own, initial_contact_is_said_once
    /// The notification that has to follow this exchange, because it binds none to itself: INITIAL-CONTACT.
    pub(in crate::ike) fn status_apart(&self) -> Option<Vec<u8>> {
        let says = self.initial_contact && self.exchange == ExchangeType::AGGRESSIVE;
        says.then(|| initial_contact(&self.cookies))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ike::authentication::Credentials;
    use crate::ike::{Event, Ike, NatTraversal, Transmit, XauthUser};
    use rand::SeedableRng;
    use std::sync::Arc;
    use zeroize::Zeroizing;

    const KEY: &[u8] = b"a pre-shared key";

    fn config(key: &[u8]) -> Config {
        let credentials = Credentials::pre_shared_key(Zeroizing::new(key.to_vec()));
        let mut config = Config::new([192, 0, 2, 1].into(), [192, 0, 2, 2].into(), credentials);
        config.proposals = ["aes128-sha256-ecp256", "aes256-sha1-ecp256", "aes128-sha1-ecp384"]
            .map(|text| text.parse().unwrap())
            .to_vec();
        config.local_id = Some(Identity::Fqdn("client.example.com".to_owned()));
        config.aggressive = true;
        config
    }

    fn sent(ike: &mut Ike) -> Vec<(Port, Vec<u8>)> {
        let all = std::iter::from_fn(|| ike.poll_transmit());
        all.filter_map(|sent| match sent {
            Transmit::Message { port, message } => Some((port, message)),
            Transmit::Keepalive => None,
        })
        .collect()
    }

    fn events(ike: &mut Ike) -> Vec<Event> {
        std::iter::from_fn(|| ike.poll_event()).collect()
    }

    /// A client that has sent message 1.
    fn begun(now: Instant) -> (Ike, Vec<u8>) {
        let mut ike = Ike::new(config(KEY), StdRng::seed_from_u64(1));
        ike.connect(now);
        let mut sent = sent(&mut ike);
        assert_eq!(sent.len(), 1);
        (ike, sent.remove(0).1)
    }

    /// Message 2 of a gateway that has this key.
    fn answer(message_1: &[u8], key: &[u8]) -> (Exchanged, Keys, Vec<u8>) {
        answer_as(NatTraversal::Required, message_1, key)
    }

    fn answer_as(nat_traversal: NatTraversal, message_1: &[u8], key: &[u8]) -> (Exchanged, Keys, Vec<u8>) {
        let (local, remote) = ([192, 0, 2, 2].into(), [192, 0, 2, 1].into());
        let gateway = Config { local, remote, local_id: None, nat_traversal, ..config(key) };
        let (header, body) = Header::read(message_1).unwrap();
        let payloads = Payloads::read_plain(header.next_payload, body).unwrap();
        let sa = payloads.first(PayloadType::SA).unwrap();
        let methods = [AuthenticationMethod::PRE_SHARED_KEY, AuthenticationMethod::XAUTH_INIT_PRE_SHARED];
        let (chosen, answer) = proposal::choose_phase1(&gateway.proposals, &methods, sa).unwrap().unwrap();
        let abilities = Abilities::of(&payloads, gateway.nat_traversal, gateway.nat_payloads).unwrap();
        let agreed = Agreed::new(chosen, abilities);
        let pair = KeyPair::generate(agreed.proposal.group, &mut StdRng::seed_from_u64(2));
        let public_i = payloads.first(PayloadType::KE).unwrap().to_vec();
        let exchanged = Exchanged {
            agreed,
            cookies: Cookies { responder: [9; 8], ..header.cookies },
            sa: sa.to_vec(),
            secret: pair.shared_secret(&public_i).unwrap(),
            nonce_i: payloads.nonce().unwrap().to_vec(),
            nonce_r: vec![7; 32],
            public_i,
            public_r: pair.public_value().to_vec(),
            nat: Nat { local: false, remote: false },
            wanted: false,
        };
        let keys = exchanged.keys(gateway.credentials.own_key(gateway.remote, None).ok()).unwrap();
        let mut chain = Chain::new();
        chain.push(PayloadType::SA, &answer);
        chain.push(PayloadType::KE, &exchanged.public_r);
        chain.push(PayloadType::NONCE, &exchanged.nonce_r);
        chain.push(PayloadType::ID, &proof::own_identity(&gateway, Method::PreSharedKey).unwrap());
        agreed.abilities.vendor_ids().for_each(|id| chain.push(PayloadType::VID, &id));
        exchanged.write_hash(&gateway, &keys, Role::Responder, &mut chain).unwrap();
        let message = Header::new(exchanged.cookies, ExchangeType::AGGRESSIVE, 0).write_plain(&chain);
        (exchanged, keys, message)
    }

    #[test]
    fn message_1_names_the_client_and_offers_one_group() {
        let (_, message) = begun(Instant::now());
        let (header, body) = Header::read(&message).unwrap();
        assert_eq!(header.exchange, ExchangeType::AGGRESSIVE);
        let payloads = Payloads::read_plain(header.next_payload, body).unwrap();
        let id = payloads.first(PayloadType::ID).map(Identity::read);
        assert_eq!(id, Some(Identity::Fqdn("client.example.com".to_owned())));
        assert_eq!(payloads.first(PayloadType::ID).map(|body| &body[1..4]), Some(&[0; 3][..]));
        let groups: Vec<String> = of_one_group(&config(KEY).proposals).iter().map(ToString::to_string).collect();
        assert_eq!(groups, ["aes128-sha256-ecp256", "aes256-sha1-ecp256"]);
    }

    #[test]
    fn with_a_gateway_that_does_not_traverse_nats_message_3_stays_on_port_500() {
        let now = Instant::now();
        let mut ike = Ike::new(Config { nat_traversal: NatTraversal::Off, ..config(KEY) }, StdRng::seed_from_u64(1));
        ike.connect(now);
        let (_, message_1) = sent(&mut ike).remove(0);
        let (exchanged, keys, message_2) = answer_as(NatTraversal::Offered, &message_1, KEY);
        ike.handle_message(now, Port::Ike, &message_2);
        let sent = sent(&mut ike);
        assert!(sent.len() > 1 && sent.iter().all(|(port, _)| *port == Port::Ike));
        let (header, body) = Header::read(&sent[0].1).unwrap();
        let (plain, _) = keys.open(&keys.first_iv(&exchanged.public_i, &exchanged.public_r), body).unwrap();
        let payloads = Keys::payloads(header.next_payload, &plain).unwrap();
        assert!(payloads.first(PayloadType::NAT_D).is_none());
    }

    #[test]
    fn one_round_trip_establishes_and_message_3_proves_the_key_on_port_4500() {
        let now = Instant::now();
        let (mut ike, message_1) = begun(now);
        let (exchanged, keys, message_2) = answer(&message_1, KEY);
        ike.handle_message(now, Port::Ike, &message_2);
        let first = sent(&mut ike);
        let (port, message_3) = &first[0];
        let (header, body) = Header::read(message_3).unwrap();
        assert_eq!((*port, header.exchange), (Port::NatT, ExchangeType::AGGRESSIVE));
        let (plain, _) = keys.open(&keys.first_iv(&exchanged.public_i, &exchanged.public_r), body).unwrap();
        let payloads = Keys::payloads(header.next_payload, &plain).unwrap();
        let mut expected = Chain::new();
        exchanged.write_hash(&config(KEY), &keys, Role::Initiator, &mut expected).unwrap();
        assert_eq!(payloads.first(PayloadType::HASH), expected.octets().get(4..));
        assert!(payloads.first(exchanged.agreed.abilities.flavour.unwrap().nat_d()).is_some());
        let established = |event: &Event| matches!(event, Event::IsakmpEstablished { .. });
        assert!(events(&mut ike).iter().any(established));
        assert!(first.len() > 1, "Quick Mode follows");
        // A gateway that has lost message 3 asks again.
        ike.handle_message(now, Port::Ike, &message_2);
        assert_eq!(sent(&mut ike), [(Port::NatT, message_3.clone())]);
    }

    #[test]
    fn initial_contact_follows_aggressive_mode_in_a_message_of_its_own() {
        for said in [true, false] {
            let now = Instant::now();
            let mut ike = Ike::new(Config { initial_contact: said, ..config(KEY) }, StdRng::seed_from_u64(1));
            ike.connect(now);
            let (exchanged, keys, message_2) = answer(&sent(&mut ike)[0].1, KEY);
            ike.handle_message(now, Port::Ike, &message_2);
            let messages = sent(&mut ike);
            let (header, body) = Header::read(&messages[0].1).unwrap();
            let (plain, last) = keys.open(&keys.first_iv(&exchanged.public_i, &exchanged.public_r), body).unwrap();
            assert_eq!(Keys::payloads(header.next_payload, &plain).unwrap().first(PayloadType::N), None);
            let (header, body) = Header::read(&messages[1].1).unwrap();
            // Before Quick Mode, so that nothing new is taken for what is left of an earlier connection.
            assert_eq!(header.exchange == ExchangeType::INFORMATIONAL, said);
            if said {
                let plain = keys.open_informational(&last, &header, body).unwrap();
                let payloads = Keys::payloads(header.next_payload, &plain).unwrap();
                // IPsec DOI, ISAKMP, 16 octets of SPI, 24578, both cookies and nothing behind them.
                let expected = [&[0, 0, 0, 1, 1, 16, 0x60, 2][..], &exchanged.cookies.spi()].concat();
                assert_eq!((messages[1].0, payloads.first(PayloadType::N)), (Port::NatT, Some(&expected[..])));
            }
            let quick_mode = Header::read(&messages.last().unwrap().1).unwrap().0.exchange;
            assert_eq!((messages.len(), quick_mode), (2 + usize::from(said), ExchangeType::QUICK_MODE));
        }
    }

    #[test]
    fn a_gateway_with_another_key_is_not_believed() {
        let now = Instant::now();
        let (mut ike, message_1) = begun(now);
        let (_, _, message_2) = answer(&message_1, b"another key");
        ike.handle_message(now, Port::Ike, &message_2);
        assert!(sent(&mut ike).is_empty() && !ike.is_established());
        // Whoever sees message 1 can write a message 2: the true one still counts.
        let mut other = begun(now).0;
        other.handle_message(now, Port::Ike, &message_2);
        other.handle_message(now, Port::Ike, &answer(&message_1, KEY).2);
        assert!(other.is_established());
        ike.handle_timeout(now + Duration::from_secs(3));
        let failed = Event::Failed(Error::InvalidHash(ExchangeType::AGGRESSIVE));
        assert!(events(&mut ike).contains(&failed));
    }

    #[test]
    fn a_gateway_that_fails_us_before_we_have_proved_anything_refuses_our_identity() {
        let now = Instant::now();
        let (mut ike, message_1) = begun(now);
        let (header, _) = Header::read(&message_1).unwrap();
        let cookies = Cookies { responder: [9; 8], ..header.cookies };
        let notification = NotifyType::AUTHENTICATION_FAILED;
        let body = Notification { protocol: ProtocolId::ISAKMP, spi: &cookies.spi(), kind: notification, data: &[] };
        let mut chain = Chain::new();
        chain.push(PayloadType::N, &body.body());
        ike.handle_message(now, Port::Ike, &Header::new(cookies, ExchangeType::INFORMATIONAL, 7).write_plain(&chain));
        ike.handle_timeout(now + Duration::from_secs(3));
        assert!(events(&mut ike).contains(&Event::Failed(Error::IdentityRefused { notification })));
    }

    #[test]
    fn xauth_follows_it_as_it_follows_main_mode() {
        let now = Instant::now();
        let user = XauthUser { name: Zeroizing::new("joe".to_owned()), password: Zeroizing::new("foobar".to_owned()) };
        let credentials = Credentials { xauth: Some(user), ..Credentials::of_key(Zeroizing::new(KEY.to_vec())) };
        let config = Config { credentials: Arc::new(credentials), ..config(KEY) };
        let mut ike = Ike::new(config, StdRng::seed_from_u64(1));
        ike.connect(now);
        let message_1 = sent(&mut ike).remove(0).1;
        let (exchanged, keys, message_2) = answer(&message_1, KEY);
        ike.handle_message(now, Port::Ike, &message_2);
        let messages = sent(&mut ike);
        assert_eq!((messages.len(), ike.is_established()), (2, false), "message 3 and INITIAL-CONTACT");
        let mut question = Chain::new();
        // REQUEST, identifier 7, USER-NAME and USER-PASSWORD.
        question.push(PayloadType::ATTRIBUTES, &hex_literal::hex!("01000007 40890000 408a0000"));
        let hash = keys.hash(&[&99_u32.to_be_bytes(), question.octets()]);
        let message_3 = &messages[0].1;
        let mut iv = keys.exchange_iv(&message_3[message_3.len() - 16..], 99);
        let header = Header::new(exchanged.cookies, ExchangeType::TRANSACTION, 99);
        let request = keys.seal(header, &question.behind_hash(&hash), &mut iv);
        ike.handle_message(now, Port::NatT, &request);
        let reply = sent(&mut ike).remove(0);
        let (header, body) = Header::read(&reply.1).unwrap();
        let (plain, _) = keys.open(&iv, body).unwrap();
        let payloads = Keys::payloads(header.next_payload, &plain).unwrap();
        let expected = hex_literal::hex!("02000007 40890003 6a6f65 408a0006 666f6f626172");
        assert_eq!((reply.0, payloads.first(PayloadType::ATTRIBUTES)), (Port::NatT, Some(&expected[..])));
    }

    #[test]
    fn nobody_is_answered_in_aggressive_mode() {
        let now = Instant::now();
        let (_, message_1) = begun(now);
        let mut responder = Ike::new(config(KEY), StdRng::seed_from_u64(3));
        responder.handle_message(now, Port::Ike, &message_1);
        assert!(sent(&mut responder).is_empty());
    }
}
