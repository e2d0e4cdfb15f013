//! The responder's part of Main Mode once message 1 is answered: messages 3 and 5, and what answers them (RFC 2409 sections 5.1
//! and 5.4).

use super::*;

impl MainMode {
    pub(super) fn message_3(
        &mut self,
        context: &mut Context<'_>,
        port: Port,
        header: &Header,
        body: &[u8],
    ) -> Result<Step, Error> {
        let State::InitiatorKe { agreed } = &self.state else { return Err(Error::Undecryptable) };
        let agreed = *agreed;
        let payloads = Payloads::read_plain(header.next_payload, body)?;
        let public_i = payloads.single(PayloadType::KE, "KE payload")?.to_vec();
        let nonce_i = payloads.nonce()?;
        let pair = KeyPair::generate(agreed.proposal.group, context.rng);
        let secret = pair.shared_secret(&public_i).map_err(|_| Error::InvalidKeyInformation("public value"))?;
        let nonce = context.nonce();
        let remote = context.config.remote_end(port);
        let nat_d = match nat::parroted(&agreed.abilities, agreed.proposal.hash, &payloads, context.rng) {
            Some(parroted) => parroted,
            None => nat::nat_d_bodies(agreed.proposal.hash, &self.cookies, remote, context.rng),
        };
        let mut chain = Self::key_exchange(&agreed, pair.public_value(), &nonce, &nat_d);
        if agreed.method != Method::PreSharedKey {
            context.config.credentials.own_certificate()?.write_requests(&mut chain);
        }
        let message = Header::new(self.cookies, ExchangeType::IDENTITY_PROTECTION, 0).write_plain(&chain);
        let exchanged = Box::new(Exchanged {
            agreed,
            cookies: self.cookies,
            sa: self.sa.clone(),
            secret,
            nonce_i: nonce_i.to_vec(),
            nonce_r: nonce,
            public_i,
            public_r: pair.public_value().to_vec(),
            nat: Self::verdict(context.config, &agreed, &self.cookies, port, &payloads),
            wanted: certificate::asks(&payloads),
        });
        self.state = State::InitiatorId { exchanged };
        Ok(Step::Send(message))
    }

    pub(super) fn message_5(
        &mut self,
        context: &mut Context<'_>,
        now: Instant,
        header: &Header,
        [body, message]: [&[u8]; 2],
    ) -> Result<Step, Error> {
        let State::InitiatorId { exchanged } = &self.state else { return Err(Error::Undecryptable) };
        let Opened { keys, mut iv, peer } = exchanged.open(context.config, now, header, body)?;
        let mut chain = Chain::new();
        let wanted = exchanged.wanted || peer.wants;
        exchanged.write_proof(context, &keys, Role::Responder, wanted, &mut chain)?;
        let header = Header::new(self.cookies, ExchangeType::IDENTITY_PROTECTION, 0);
        let response = keys.seal(header, &chain, &mut iv);
        let mut established = Established::new(context.config, exchanged.agreed, exchanged.nat, keys, iv, peer);
        established.answered = Some(Answered::new(message, response));
        Ok(Step::Established(Box::new(established)))
    }
}
