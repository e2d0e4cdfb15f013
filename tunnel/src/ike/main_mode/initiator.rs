//! The initiator's part of Main Mode: message 1, and what is made of messages 2, 4 and 6 (RFC 2409 sections 5.1 and 5.4).

use super::*;

impl MainMode {
    /// Begins as initiator; returns message 1 as well.
    pub(in crate::ike) fn initiate(
        context: &mut Context<'_>,
        now: Instant,
        id: u32,
        port: Port,
        before: Option<Authentication>,
        [rekey, initial_contact]: [bool; 2],
    ) -> Result<(Self, Vec<u8>), Error> {
        let cookies = Cookies { initiator: context.cookie(), responder: [0; 8] };
        let config = context.config;
        let method = config.credentials.offer(config.remote, before.as_ref())?;
        let aggressive = config.aggressive && method == Method::PreSharedKey;
        let proposals = if aggressive { of_one_group(&config.proposals) } else { config.proposals.clone() };
        let xauth = config.credentials.xauth.as_ref().map(|_| Role::Initiator);
        let offered = method
            .extended(xauth)
            .ok_or(Error::Config("XAUTH has no number for a certificate with an ECDSA key; use one with an RSA key"))?;
        let sa = proposal::offer_phase1(&proposals, offered, config.lifetime);
        let mut chain = Chain::new();
        chain.push(PayloadType::SA, &sa);
        let (exchange, state) = if aggressive {
            let begun = Begun::new(context, &proposals)?;
            begun.write(config, &mut chain)?;
            (ExchangeType::AGGRESSIVE, State::Aggressive(begun))
        } else {
            (ExchangeType::IDENTITY_PROTECTION, State::Sa)
        };
        Abilities::announce(&mut chain, config.nat_traversal, config.nat_payloads, xauth.is_some());
        let message = Header::new(cookies, exchange, 0).write_plain(&chain);
        let retransmission = Retransmission::new(now, port, message.clone(), context.rng);
        let retransmission = Some(retransmission.with_patience(config.patience));
        let begun = Self {
            id,
            cookies,
            role: Role::Initiator,
            exchange,
            begun: now,
            rekey,
            port,
            sa,
            method,
            offered,
            state,
            retransmission,
            answered: None,
            hint: None,
            initial_contact,
            before,
            dialled: None,
        };
        Ok((begun, message))
    }

    pub(super) fn message_2(&mut self, context: &mut Context<'_>, header: &Header, body: &[u8]) -> Result<Step, Error> {
        let payloads = Payloads::read_plain(header.next_payload, body)?;
        let answer = payloads.sa()?;
        let chosen = proposal::accept_phase1(&context.config.proposals, self.offered, answer)
            .map_err(|reason| Error::NotOffered { phase: 1, reason })?;
        let abilities = Abilities::of(&payloads, context.config.nat_traversal, context.config.nat_payloads)?;
        let agreed = Agreed::new(chosen, abilities);
        self.cookies.responder = header.cookies.responder;
        let pair = Box::new(KeyPair::generate(agreed.proposal.group, context.rng));
        let nonce = context.nonce();
        let nat_d = match self.dialled.filter(|_| agreed.abilities.windows) {
            Some(dialled) => nat::renewing(agreed.proposal.hash, &self.cookies, dialled, context.rng),
            None => Self::nat_d(context, agreed.proposal.hash, &self.cookies, self.port),
        };
        let chain = Self::key_exchange(&agreed, pair.public_value(), &nonce, &nat_d);
        let message = Header::new(self.cookies, ExchangeType::IDENTITY_PROTECTION, 0).write_plain(&chain);
        self.state = State::Ke { agreed, pair, nonce };
        Ok(Step::Send(message))
    }

    /// The bodies of the initiator's NAT-D payloads.
    pub(super) fn nat_d(context: &mut Context<'_>, hash: Hash, cookies: &Cookies, port: Port) -> [Vec<u8>; 2] {
        let (remote, local) = (context.config.remote_end(port), context.config.local_end(port));
        match context.config.nat_payloads {
            NatPayloads::Any | NatPayloads::Drafts => nat::nat_d_bodies(hash, cookies, remote, context.rng),
            NatPayloads::Honest => nat::honest(hash, cookies, [remote, local]),
        }
    }

    pub(super) fn message_4(&mut self, context: &mut Context<'_>, header: &Header, body: &[u8]) -> Result<Step, Error> {
        let State::Ke { agreed, pair, nonce } = &self.state else { return Err(Error::Undecryptable) };
        let agreed = *agreed;
        let payloads = Payloads::read_plain(header.next_payload, body)?;
        let public_r = payloads.single(PayloadType::KE, "KE payload")?.to_vec();
        let nonce_r = payloads.nonce()?;
        // Our own value, sent back, would give a secret that the peer does not need to know.
        if public_r == pair.public_value() {
            return Err(Error::InvalidKeyInformation("public value (it is ours)"));
        }
        let secret = pair.shared_secret(&public_r).map_err(|_| Error::InvalidKeyInformation("public value"))?;
        let exchanged = Box::new(Exchanged {
            agreed,
            cookies: self.cookies,
            sa: self.sa.clone(),
            secret,
            nonce_i: nonce.clone(),
            nonce_r: nonce_r.to_vec(),
            public_i: pair.public_value().to_vec(),
            public_r,
            nat: Self::verdict(context.config, &agreed, &self.cookies, self.port, &payloads),
            wanted: certificate::asks(&payloads),
        });
        let config = context.config;
        let key = match agreed.method {
            Method::PreSharedKey => Some(config.credentials.own_key(config.remote, self.before.as_ref())?),
            _ => None,
        };
        let keys = Box::new(exchanged.keys(key)?);
        let mut iv = keys.first_iv(&exchanged.public_i, &exchanged.public_r);
        let mut chain = Chain::new();
        exchanged.write_proof(context, &keys, Role::Initiator, exchanged.wanted, &mut chain)?;
        //= rfc2407 4.6.3 "Notification Status Messages MUST be sent under the protection of an ISAKMP SA: either as a payload in the last Main Mode exchange; in a separate Informational Exchange after Main Mode or Aggressive Mode processing is complete; or as a payload in any Quick Mode exchange."
        //= test: initial_contact_is_said_once, initial_contact_is_not_said_when_others_have_the_same_identity
        if self.initial_contact {
            chain.push(PayloadType::N, &initial_contact(&self.cookies));
        }
        let header = Header::new(self.cookies, ExchangeType::IDENTITY_PROTECTION, 0);
        let message = keys.seal(header, &chain, &mut iv);
        // RFC 3947 section 4: "the initiator MUST change ports when sending the ID payload if there is NAT between the hosts",
        // and our NAT-D says that there is one.
        //= rfc3947 4 "In Main Mode, the initiator MUST change ports when sending the ID payload if there is NAT between the hosts."
        //= test: message_5_and_everything_after_it_goes_to_port_4500, messages_on_port_500_are_old_once_the_port_has_changed
        //= rfc3947 4 "The initiator MUST set both UDP source and destination ports to 4500."
        //= test: message_5_and_everything_after_it_goes_to_port_4500, a_message_6_on_port_500_is_old
        self.float(agreed.abilities);
        self.state = State::Id { exchanged, keys, iv, key: key.map(Known::from) };
        Ok(Step::Send(message))
    }

    pub(super) fn message_6(
        &mut self,
        context: &mut Context<'_>,
        now: Instant,
        header: &Header,
        body: &[u8],
    ) -> Result<Step, Error> {
        let State::Id { exchanged, keys, iv, key } = &self.state else { return Err(Error::Undecryptable) };
        let (agreed, nat) = (exchanged.agreed, exchanged.nat);
        let (plain, last_block) = keys.open(iv, body)?;
        let payloads = Keys::payloads(header.next_payload, &plain)?;
        let peer = match exchanged.read_proof(context.config, now, keys, key.as_ref(), Role::Responder, &payloads) {
            Err(error) if error.is_final() => {
                let (spi, message_id) = (self.cookies.spi(), message_id(context.rng));
                let body = Delete::body(ProtocolId::ISAKMP, &spi);
                let farewell = keys.informational(self.cookies, &last_block, message_id, PayloadType::D, &body);
                return Ok(Step::Stranger { error, farewell });
            }
            other => Proved { initial_contact: false, ..other? },
        };
        let State::Id { keys, .. } = std::mem::replace(&mut self.state, State::Sa) else {
            return Err(Error::Undecryptable);
        };
        let established = Established::new(context.config, agreed, nat, *keys, last_block, peer);
        Ok(Step::Established(Box::new(established)))
    }
}
