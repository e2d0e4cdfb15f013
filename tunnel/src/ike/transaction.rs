//! The Transaction exchange of the ISAKMP configuration method (draft-dukes-ike-mode-cfg-02), as its responder.
//!
//! ```text
//!   initiator                                 responder
//!   HDR*, HASH, ATTR (REQUEST or SET)  ->
//!                                      <-     HDR*, HASH, ATTR (REPLY or ACK)
//!
//!  +---------------+---------------+-------------------------------+
//!  | Next Payload  |   RESERVED    |        Payload Length         |
//!  |     Type      |   RESERVED    |          Identifier           |
//!  |                          Attributes                           |
//!  +---------------------------------------------------------------+
//! ```
//!
//! What it carries of XAUTH is answered by [`super::xauth`]. All else, addresses and name servers, comes by PPP in L2TP: requests
//! are answered with nothing, and nothing of what is set is accepted.

use std::time::Instant;

use zeroize::Zeroizing;

use super::attribute::{self, Attribute};
use super::error::Error;
use super::key::Keys;
use super::message::{Chain, Header};
use super::registry::{ConfigurationType, ExchangeType, PayloadType};
use super::retransmission::Answered;
use super::sa::IsakmpSa;
use super::{Ike, xauth};
use crate::buffer::Port;
use crate::crypto::hash;
use crate::wire::{Malformed, Reader};

/// The most exchanges that are remembered to answer duplicates: those of XAUTH and some more.
const MAX_TRANSACTIONS: usize = 16;

/// An exchange that was answered.
pub(super) struct Transaction {
    pub(super) isakmp: u32,
    message_id: u32,
    /// The last block of our answer: some peers go on under the same Message ID.
    iv: Vec<u8>,
    answered: Answered,
}

/// The body of an Attributes payload (section 3.2).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Configuration<'a> {
    pub(super) kind: ConfigurationType,
    pub(super) identifier: u16,
    pub(super) attributes: Vec<Attribute<'a>>,
}

impl<'a> Configuration<'a> {
    pub(super) fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let kind = ConfigurationType(reader.u8("configuration type")?);
        reader.u8("configuration reserved")?;
        let identifier = reader.u16("configuration identifier")?;
        Ok(Self { kind, identifier, attributes: attribute::read(reader.rest())? })
    }

    pub(super) fn body(kind: ConfigurationType, identifier: u16, attributes: &[u8]) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(vec![kind.0, 0]);
        out.extend_from_slice(&identifier.to_be_bytes());
        out.extend_from_slice(attributes);
        out
    }
}

/// Decrypts a message and checks its hash; returns the IV of the answer as well.
fn open(sa: &IsakmpSa, iv: &[u8], header: &Header, body: &[u8]) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), Error> {
    let (plain, iv) = sa.keys.open(iv, body)?;
    let payloads = Keys::payloads(header.next_payload, &plain)?;
    let (hash, covered) = payloads.hashed().ok_or(Error::Undecryptable)?;
    if !hash::eq(hash, &sa.keys.hash(&[&header.message_id.to_be_bytes(), covered])) {
        return Err(Error::InvalidHash(ExchangeType::TRANSACTION));
    }
    Ok((plain, iv))
}

/// Writes and encrypts a message; `iv` moves on to its last block.
fn seal(sa: &IsakmpSa, iv: &mut Vec<u8>, message_id: u32, body: &[u8]) -> Vec<u8> {
    let mut chain = Chain::new();
    chain.push(PayloadType::ATTRIBUTES, body);
    let hash = sa.keys.hash(&[&message_id.to_be_bytes(), chain.octets()]);
    let header = Header::new(sa.cookies, ExchangeType::TRANSACTION, message_id);
    sa.keys.seal(header, &chain.behind_hash(&hash), iv)
}

impl Ike {
    pub(super) fn handle_transaction(&mut self, now: Instant, port: Port, header: &Header, parts: [&[u8]; 2]) {
        let Some(sa) = self.isakmp.iter().find(|sa| sa.cookies == header.cookies) else { return };
        if !header.is_encrypted() || header.message_id == 0 {
            return self.notice("an unprotected configuration message is ignored".to_owned());
        }
        if sa.is_stale(port) {
            return;
        }
        let [body, message] = parts;
        let is_known = |known: &&mut Transaction| known.isakmp == sa.id && known.message_id == header.message_id;
        let iv = match self.transactions.iter_mut().find(is_known) {
            Some(known) if known.answered.is_for(message) => {
                if let Some(response) = known.answered.again() {
                    self.transmit(port, response);
                }
                return;
            }
            Some(known) => known.iv.clone(),
            None if sa.refuses(header.message_id) => return,
            None => sa.keys.exchange_iv(&sa.last_block, header.message_id),
        };
        let isakmp = sa.id;
        match open(sa, &iv, header, body) {
            Ok((plain, iv)) => self.take_configuration(now, port, isakmp, header, message, (plain, iv)),
            Err(error) => self.notice(format!("a configuration message is ignored: {error}")),
        }
    }

    /// Takes what the peer has proved to have sent.
    fn take_configuration(
        &mut self,
        now: Instant,
        port: Port,
        isakmp: u32,
        header: &Header,
        message: &[u8],
        (plain, iv): (Zeroizing<Vec<u8>>, Vec<u8>),
    ) {
        self.heard(now);
        let Some(sa) = self.isakmp.iter_mut().find(|sa| sa.id == isakmp) else { return };
        if !sa.has_seen(header.message_id) {
            sa.remember(header.message_id);
        }
        sa.touch(now);
        let configuration = Keys::payloads(header.next_payload, &plain).and_then(|payloads| {
            Ok(payloads.single(PayloadType::ATTRIBUTES, "Attributes payload").map(<[u8]>::to_vec)?)
        });
        let configuration = configuration.map(Zeroizing::new);
        let configuration = match configuration.as_ref().map(|body| Configuration::read(body)) {
            Ok(Ok(configuration)) => configuration,
            Ok(Err(error)) => return self.notice(format!("a configuration message is ignored: {error}")),
            Err(error) => return self.notice(format!("a configuration message is ignored: {error}")),
        };
        let Configuration { kind, identifier, attributes } = configuration;
        let (kind, answer, verdict, end) = match kind {
            ConfigurationType::REQUEST if xauth::is_about(&attributes) => {
                let (reply, end) = sa.xauth.answer(self.config.credentials.xauth.as_ref(), &attributes);
                (ConfigurationType::REPLY, reply, None, end)
            }
            // Section 2: "A Reply MUST always be sent when a Request is received, even if it is an empty Reply".
            ConfigurationType::REQUEST => (ConfigurationType::REPLY, Zeroizing::default(), None, None),
            // The same section: what is not accepted does not come back. XAUTH wants nothing in this place.
            ConfigurationType::SET => (ConfigurationType::ACK, Zeroizing::default(), sa.xauth.judge(&attributes), None),
            other => return self.notice(format!("a configuration message of type {other} is ignored")),
        };
        let body = Configuration::body(kind, identifier, &answer);
        let mut iv = iv;
        let response = seal(sa, &mut iv, header.message_id, &body);
        let answered = Answered::new(message, response.clone());
        self.remember_transaction(Transaction { isakmp, message_id: header.message_id, iv, answered });
        self.transmit(port, response);
        if let Some(error) = end {
            self.end_by_xauth(now, error);
        } else if let Some(verdict) = verdict {
            self.xauth_judged(now, isakmp, verdict);
        }
    }

    fn remember_transaction(&mut self, new: Transaction) {
        self.transactions.retain(|old| (old.isakmp, old.message_id) != (new.isakmp, new.message_id));
        if self.transactions.len() >= MAX_TRANSACTIONS {
            self.transactions.remove(0);
        }
        self.transactions.push(new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hex_literal::hex;

    #[test]
    fn the_body_is_that_of_the_draft() {
        // REQUEST, identifier 0x1234, USER-NAME and USER-PASSWORD empty.
        let body = hex!("01 00 1234 40890000 408a0000");
        let request = Configuration::read(&body).unwrap();
        assert_eq!((request.kind, request.identifier), (ConfigurationType::REQUEST, 0x1234));
        let classes: Vec<_> = request.attributes.iter().map(|asked| (asked.class, asked.value.len())).collect();
        assert_eq!(classes, [(16_521, 0), (16_522, 0)]);
        assert_eq!(*Configuration::body(ConfigurationType::REQUEST, 0x1234, &body[4..]), body);
        for length in [0, 1, 2, 3, 5, 6, 7, 9, 10, 11] {
            assert!(Configuration::read(&body[..length]).is_err(), "{length}");
        }
    }
}
