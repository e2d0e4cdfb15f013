//! Messages 5 and 6 of Main Mode: who each end is, and what proves it (RFC 2409 sections 5, 5.1 and 5.4; RFC 4945).

use std::time::Instant;

use zeroize::Zeroizing;

use super::{Agreed, Context, Role};
use crate::crypto::hash;
use crate::ike::Config;
use crate::ike::authentication::{Authentication, Candidate, Method};
use crate::ike::certificate;
use crate::ike::error::Error;
use crate::ike::key::{self, Keys};
use crate::ike::message::{Chain, Cookies, Header, Payloads};
use crate::ike::nat::Nat;
use crate::ike::payload::{Identity, Notification};
use crate::ike::registry::{ExchangeType, NotifyType, PayloadType};

/// What messages 1 to 4 agreed on: all that the hashes cover but the identities.
pub(super) struct Exchanged {
    pub(super) agreed: Agreed,
    pub(super) cookies: Cookies,
    /// SAi_b.
    pub(super) sa: Vec<u8>,
    /// g^xy.
    pub(super) secret: Zeroizing<Vec<u8>>,
    pub(super) nonce_i: Vec<u8>,
    pub(super) nonce_r: Vec<u8>,
    pub(super) public_i: Vec<u8>,
    pub(super) public_r: Vec<u8>,
    pub(super) nat: Nat,
    /// The peer has asked for our certificate.
    pub(super) wanted: bool,
}

/// The pre-shared key that the peer has to know.
pub(super) struct Known {
    authentication: Authentication,
    remote_id: Option<Identity>,
}

impl From<Candidate<'_>> for Known {
    fn from(candidate: Candidate<'_>) -> Self {
        Self { authentication: candidate.into(), remote_id: candidate.key.remote_id.clone() }
    }
}

/// A peer that has proved who it is.
pub(super) struct Proved {
    pub(super) id: Identity,
    pub(super) authentication: Authentication,
    pub(super) initial_contact: bool,
    /// It asks for our certificate.
    pub(super) wants: bool,
}

/// A peer that has, by its first encrypted message.
pub(super) struct Opened {
    pub(super) keys: Keys,
    /// The last block of the message.
    pub(super) iv: Vec<u8>,
    pub(super) peer: Proved,
}

/// Compares the identity that the peer has proved with the one that it must have, if any.
fn expect(expected: Option<&Identity>, received: &Identity) -> Result<(), Error> {
    match expected.filter(|expected| !expected.is_same(received)) {
        Some(expected) => Err(Error::InvalidId { expected: expected.clone(), received: received.clone() }),
        None => Ok(()),
    }
}

//= rfc2408 5.8 "When creating an Identification Payload, the transmitting entity (initiator or responder) MUST do the following:"
//= test: every_kind_of_identity_is_proved_and_compared, a_pinned_identity_has_to_be_proved
/// Our identity, for the ID payload.
pub(super) fn own_identity(config: &Config, method: Method) -> Result<Vec<u8>, Error> {
    let own = match method {
        Method::PreSharedKey => config.local_id.clone().unwrap_or(Identity::Address(config.local)),
        _ => config.credentials.own_certificate()?.identity(config.local_id.as_ref())?,
    };
    // RFC 3947 section 4: "the port in the ID payload in Main Mode/Aggressive Mode MUST be set to 0."
    //= rfc2407 4.6.2 "During Phase I negotiations, the ID port and protocol fields MUST be set to zero or to UDP port 500."
    //= test: an_identification_of_phase_1_has_neither_protocol_nor_port, message_1_names_the_client_and_offers_one_group
    //= rfc3947 4 "If the support of the NAT-Traversal is enabled, the port in the ID payload in Main Mode/Aggressive Mode MUST be set to 0."
    //= test: an_identification_of_phase_1_has_neither_protocol_nor_port, message_1_names_the_client_and_offers_one_group
    Ok(own.body(0, 0))
}

impl Exchanged {
    /// The keys of phase 1 for a peer with this pre-shared key, or for one with a certificate.
    pub(super) fn keys(&self, candidate: Option<Candidate<'_>>) -> Result<Keys, Error> {
        let (hash, nonces) = (self.agreed.proposal.hash, [&*self.nonce_i, &*self.nonce_r]);
        let skeyid = match candidate {
            Some(candidate) => key::pre_shared_skeyid(hash, &candidate.key.key, nonces),
            None => key::signature_skeyid(hash, nonces, &self.secret),
        };
        Keys::derive(&self.agreed.proposal, skeyid, &self.secret, &self.cookies)
    }

    //= rfc2408 1.6.2 "An authenticated key exchange MUST be supported by ISAKMP."
    //= test: messages_5_and_6_are_readable_and_their_hashes_are_ours, a_gateway_with_another_key_is_not_believed
    //= rfc2408 5.11 "When creating a Hash Payload, the transmitting entity (initiator or responder) MUST do the following:"
    //= test: messages_5_and_6_are_readable_and_their_hashes_are_ours, the_messages_of_quick_mode_are_readable_and_their_hashes_are_ours
    /// HASH_I or HASH_R over the identification body `id` of that role.
    fn hash(&self, keys: &Keys, role: Role, id: &[u8]) -> Zeroizing<Vec<u8>> {
        let (initiator, responder) = (&self.cookies.initiator[..], &self.cookies.responder[..]);
        let (public, cookies) = match role {
            Role::Initiator => ([&*self.public_i, &*self.public_r], [initiator, responder]),
            Role::Responder => ([&*self.public_r, &*self.public_i], [responder, initiator]),
        };
        let hash = self.agreed.method.hash(self.agreed.proposal.hash);
        keys.main_mode_hash(hash, public, cookies, &self.sa, id)
    }

    /// Appends HASH alone: our identity was sent before.
    pub(super) fn write_hash(&self, config: &Config, keys: &Keys, role: Role, chain: &mut Chain) -> Result<(), Error> {
        let id = own_identity(config, self.agreed.method)?;
        chain.push(PayloadType::HASH, &self.hash(keys, role, &id));
        Ok(())
    }

    //= rfc2408 5.9 "When creating a Certificate Payload, the transmitting entity (initiator or responder) MUST do the following:"
    //= test: chains_over_intermediate_authorities_are_sent_and_fit_into_the_messages, certificates_are_asked_for_in_messages_4_and_5_and_sent_to_those_who_ask
    //= rfc2408 5.12 "When creating a Signature Payload, the transmitting entity (initiator or responder) MUST do the following:"
    //= test: each_kind_of_key_establishes_with_each_hash_and_names_the_subjects, a_signature_by_another_key_or_over_another_hash_is_refused
    /// Appends our identity and what proves it: HASH, or SIG with the certificates that it needs.
    pub(super) fn write_proof(
        &self,
        context: &mut Context<'_>,
        keys: &Keys,
        role: Role,
        wanted: bool,
        chain: &mut Chain,
    ) -> Result<(), Error> {
        let id = own_identity(context.config, self.agreed.method)?;
        let hash = self.hash(keys, role, &id);
        chain.push(PayloadType::ID, &id);
        if self.agreed.method == Method::PreSharedKey {
            chain.push(PayloadType::HASH, &hash);
            return Ok(());
        }
        let certificate = context.config.credentials.own_certificate()?;
        if certificate.method() != self.agreed.method {
            return Err(Error::Config("our certificate was replaced by one of another kind"));
        }
        // RFC 4945 section 3.3.6: who asks for none "SHOULD NOT" get any.
        //= rfc2408 3.10 "The responder to the Certificate Request payload MUST send its certificate, if certificates are supported, based on the values contained in the payload."
        //= test: certificates_are_asked_for_in_messages_4_and_5_and_sent_to_those_who_ask, a_peer_without_a_certificate_is_told_apart_from_one_whose_certificate_cannot_be_read
        if wanted {
            certificate.write_chain(chain);
        }
        // RFC 4945 section 3.2.5: "the CERTREQ payload MUST be in messages 4 and 5."
        if role == Role::Initiator {
            certificate.write_requests(chain);
        }
        //= rfc2409 5.1 "Therefore, RSA signatures MUST be encoded as a private key encryption in PKCS #1 format and not as a signature in PKCS #1 format (which includes the OID of the hash algorithm)."
        //= test: each_kind_of_key_establishes_with_each_hash_and_names_the_subjects, a_signature_by_another_key_or_over_another_hash_is_refused
        chain.push(PayloadType::SIG, &certificate.sign(context.rng, &hash)?);
        Ok(())
    }

    //= rfc2408 1.5.3 "Strong authentication MUST be provided on ISAKMP exchanges."
    //= test: each_kind_of_key_establishes_with_each_hash_and_names_the_subjects, a_signature_by_another_key_or_over_another_hash_is_refused, a_gateway_with_another_key_is_not_believed
    //= rfc2408 5.11 "When a Hash payload is received, the receiving entity (initiator or responder) MUST do the following:"
    //= test: messages_5_and_6_are_readable_and_their_hashes_are_ours, a_gateway_with_another_key_is_not_believed, a_quick_mode_with_a_wrong_hash_or_another_sa_payload_is_not_answered
    /// Checks what the peer proves itself by: `key` is the pre-shared key, if it is not a certificate.
    pub(super) fn read_proof(
        &self,
        config: &Config,
        now: Instant,
        keys: &Keys,
        key: Option<&Known>,
        from: Role,
        payloads: &Payloads<'_>,
    ) -> Result<Proved, Error> {
        //= rfc2407 4.2.1 "All IPSEC DOI implementations MUST support SIT_IDENTITY_ONLY by including an Identification Payload in at least one of the Phase I Oakley exchanges ([IKE], Section 5) and MUST abort any association setup that does not include an Identification Payload."
        //= test: every_kind_of_identity_is_proved_and_compared, a_pinned_identity_has_to_be_proved
        let id = payloads.first(PayloadType::ID).ok_or(Error::Undecryptable)?;
        let hash = self.hash(keys, from, id);
        let (id, authentication) = match key {
            Some(known) => {
                let proof = payloads.first(PayloadType::HASH).ok_or(Error::Undecryptable)?;
                if !hash::eq(proof, &hash) {
                    return Err(Error::InvalidHash(ExchangeType::IDENTITY_PROTECTION));
                }
                let id = Identity::read(id);
                expect(config.remote_id.as_ref(), &id)?;
                expect(known.remote_id.as_ref(), &id)?;
                (id, known.authentication.clone())
            }
            None => {
                let certificate = config.credentials.own_certificate()?;
                let peer = certificate.judge(now, payloads, id, &hash, config.remote_id.as_ref())?;
                (peer.id, Authentication::Certificate { subject: peer.subject })
            }
        };
        let initial_contact = payloads
            .all(PayloadType::N)
            .filter_map(|body| Notification::read(body).ok())
            .any(|notification| notification.kind == NotifyType::INITIAL_CONTACT);
        Ok(Proved { id, authentication, initial_contact, wants: certificate::asks(payloads) })
    }

    /// Responder: reads message 5.
    pub(super) fn open(&self, config: &Config, now: Instant, header: &Header, body: &[u8]) -> Result<Opened, Error> {
        if self.agreed.method != Method::PreSharedKey {
            return self.open_with(config, now, None, header, body);
        }
        // The identity would tell whose key it is, but is under that very key (RFC 2409 section 5.4). Every key is tried, so that
        // the time tells neither which one is right nor whether one is.
        let candidates = config.credentials.candidates(config.remote).into_iter();
        let tried: Vec<_> =
            candidates.map(|candidate| self.open_with(config, now, Some(candidate), header, body)).collect();
        // Of the failures the one that got furthest is told.
        let rank = |tried: &Result<Opened, Error>| match tried {
            Ok(_) => 0,
            Err(Error::InvalidId { .. }) => 1,
            Err(Error::InvalidHash(_)) => 2,
            Err(_) => 3,
        };
        tried.into_iter().min_by_key(rank).unwrap_or(Err(Error::Undecryptable))
    }

    fn open_with(
        &self,
        config: &Config,
        now: Instant,
        candidate: Option<Candidate<'_>>,
        header: &Header,
        body: &[u8],
    ) -> Result<Opened, Error> {
        let keys = self.keys(candidate)?;
        let (plain, iv) = keys.open(&keys.first_iv(&self.public_i, &self.public_r), body)?;
        let payloads = Keys::payloads(header.next_payload, &plain)?;
        let known = candidate.map(Known::from);
        let peer = self.read_proof(config, now, &keys, known.as_ref(), Role::Initiator, &payloads)?;
        Ok(Opened { keys, iv, peer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ike::simulation;

    #[test]
    fn an_identification_of_phase_1_has_neither_protocol_nor_port() {
        let config = simulation::config("aes256-sha1-modp2048", "aes256-sha1");
        for local_id in [None, Some(Identity::Fqdn("vpn.example.com".to_owned()))] {
            let config = Config { local_id, ..config.clone() };
            let body = own_identity(&config, Method::PreSharedKey).unwrap();
            assert_eq!(body.get(1..4), Some(&[0; 3][..]));
        }
    }
}
