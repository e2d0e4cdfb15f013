//! The Informational exchange: notifications, Deletes and dead peer detection (RFC 2408 sections 3.14, 3.15, 5.14, 5.15; RFC 2409
//! section 5.7; RFC 3706).

use std::time::{Duration, Instant};

use super::error::{Error, rfc_name};
use super::main_mode::message_id;
use super::message::{Chain, Cookies, Header, Payloads};
use super::payload::{Delete, Notification};
use super::proposal::StatedLife;
use super::registry::{ExchangeType, NotifyType, PayloadType, ProtocolId};
use super::sa::IsakmpSa;
use super::{Event, Ike, Timer};
use crate::buffer::Port;

/// How long a suspicion that nothing proves may ripen before it is reported: time for a true answer to arrive.
const HINT_PATIENCE: Duration = Duration::from_secs(2);

impl Ike {
    //= rfc2408 5.14 "Once the keying material has been exchanged or the ISAKMP SA has been established, the Informational Exchange MUST be transmitted under the protection provided by the keying material or the ISAKMP SA."
    //= test: an_informational_message_is_written_as_charon_writes_it, unprotected_messages_change_nothing
    //= rfc2408 3.1 "Section 4.8 states that a Phase 2 Informational Exchange MUST be sent under the protection of an ISAKMP SA."
    //= test: what_goes_is_named_by_its_protocol_with_an_spi_of_its_size, unprotected_messages_change_nothing
    //= rfc2408 4.8 "Once keying material has been exchanged or an ISAKMP SA has been established, the Informational Exchange MUST be transmitted under the protection provided by the keying material or the ISAKMP SA."
    //= test: an_informational_message_is_written_as_charon_writes_it, unprotected_messages_change_nothing
    /// An encrypted Informational message under the ISAKMP SA with the given id, and the port that its SA is on.
    pub(super) fn informational(&mut self, isakmp: u32, kind: PayloadType, body: &[u8]) -> Option<(Port, Vec<u8>)> {
        let message_id = self.message_id(isakmp);
        let sa = self.isakmp.iter().find(|sa| sa.id == isakmp)?;
        Some((sa.port, sa.keys.informational(sa.cookies, &sa.last_block, message_id, kind, body)))
    }

    /// Sends an encrypted Informational message.
    pub(super) fn inform(&mut self, isakmp: u32, port: Option<Port>, kind: PayloadType, body: &[u8], times: usize) {
        let Some((usual, message)) = self.informational(isakmp, kind, body) else { return };
        for _ in 0..times {
            self.transmit(port.unwrap_or(usual), message.clone());
        }
    }

    //= rfc2408 5.15 "Deletion of Security Associations MUST always be performed under the protection of an ISAKMP SA."
    //= test: closing_deletes_everything_at_the_other_end_even_over_a_bad_link, unprotected_messages_change_nothing
    //= rfc2408 5.15 "As described above, the Informational Exchange with a Delete payload MUST be transmitted under the protection provided by an ISAKMP SA."
    //= test: what_goes_is_named_by_its_protocol_with_an_spi_of_its_size, unprotected_messages_change_nothing
    /// Tells the peer that an SA is gone; twice, because nobody acknowledges it.
    pub(super) fn inform_delete(&mut self, isakmp: u32, protocol: ProtocolId, spi: &[u8]) {
        self.inform(isakmp, None, PayloadType::D, &Delete::body(protocol, spi), 2);
    }

    //= out: rfc2408 4.8 "Once keying material has been exchanged or an ISAKMP SA has been established, the Informational Exchange MUST be transmitted under the protection provided by the keying material or the ISAKMP SA." a refusal of message 5 is sent in the clear, as RFC 2409 section 5.7 has it until there is an ISAKMP SA: the peer may have other keys, and believes nothing of it anyway
    /// Tells the peer of a phase 1 that has no keys yet what is wrong with it. Anybody may have caused it, so that the number of
    /// these messages is limited.
    pub(super) fn inform_plain(&mut self, now: Instant, cookies: Cookies, port: Port, kind: NotifyType) {
        if !self.complaints.allow(now) {
            return;
        }
        let spi = cookies.spi();
        let notification = Notification { protocol: ProtocolId::ISAKMP, spi: &spi, kind, data: &[] };
        let mut chain = Chain::new();
        chain.push(PayloadType::N, &notification.body());
        let message_id = message_id(&mut self.rng);
        let message = Header::new(cookies, ExchangeType::INFORMATIONAL, message_id).write_plain(&chain);
        self.transmit(port, message);
    }

    //= rfc2408 4.1 "All ISAKMP implementations MUST implement the Informational Exchange and SHOULD implement the other four exchanges."
    //= test: the_messages_of_quick_mode_are_readable_and_their_hashes_are_ours, replayed_messages_change_nothing
    //= rfc2408 5.14 "If the Encryption Bit is set, i.e. the Informational Exchange is encrypted, then the message MUST be decrypted using the (in-progress or completed) ISAKMP SA."
    //= test: an_encrypted_refusal_in_the_middle_of_main_mode_is_read, only_what_is_authenticated_is_a_sign_of_life
    //= out: rfc2408 5.14 "If the Authentication Only Bit is set, then the message MUST be authenticated using the (in-progress or completed) ISAKMP SA." RFC 2409 section 5.7 encrypts all Informational exchanges and defines none that is only authenticated; such a message is one without protection
    //= rfc2408 5.15 "Because the Informational Exchange is protected by some security service (e.g. authentication for an Auth-Only SA, encryption for other exchanges), the message MUST have these security services applied using the ISAKMP SA."
    //= test: an_informational_message_is_written_as_charon_writes_it, a_delete_with_the_spi_of_another_protocol_or_domain_or_with_a_wrong_hash_deletes_nothing
    pub(super) fn handle_informational(&mut self, now: Instant, port: Port, header: &Header, body: &[u8]) {
        if !header.is_encrypted() {
            return self.handle_unprotected(now, header, body);
        }
        let Some(index) = self.isakmp.iter().position(|sa| sa.cookies == header.cookies) else {
            return self.handle_early(now, header, body);
        };
        let Some(sa) = self.isakmp.get_mut(index) else { return };
        if sa.is_stale(port) || sa.refuses(header.message_id) {
            return;
        }
        let plain = match sa.keys.open_informational(&sa.last_block, header, body) {
            Ok(plain) => plain,
            Err(error) => return self.notice(format!("an Informational message is ignored: {error}")),
        };
        sa.remember(header.message_id);
        sa.touch(now);
        let isakmp = sa.id;
        let Ok(payloads) = Payloads::read(header.next_payload, &plain) else { return };
        let mut alive = true;
        for payload in payloads.iter() {
            match payload.kind {
                PayloadType::N => match Notification::read(payload.body) {
                    Ok(asked) if matches!(asked.kind, NotifyType::R_U_THERE | NotifyType::R_U_THERE_ACK) => {
                        alive &= self.handle_detection(isakmp, port, &asked);
                    }
                    Ok(notification) => self.handle_notification(now, isakmp, &notification),
                    Err(error) => self.notice(format!("a notification is ignored: {error}")),
                },
                PayloadType::D => match Delete::read(payload.body) {
                    Ok(delete) => self.handle_delete(now, &delete),
                    Err(error) => self.notice(format!("a Delete is ignored: {error}")),
                },
                _ => {}
            }
        }
        if alive {
            self.heard(now);
        }
    }

    //= rfc3706 5.2 "Furthermore, an entity MUST reject unencrypted R-U-THERE and R-U-THERE-ACK messages."
    //= test: only_what_is_authenticated_is_a_sign_of_life, unprotected_messages_change_nothing
    /// A message that anyone could have written: only a hint for the case that nothing better comes.
    fn handle_unprotected(&mut self, now: Instant, header: &Header, body: &[u8]) {
        let Ok(payloads) = Payloads::read_plain(header.next_payload, body) else { return };
        let Some(Ok(notification)) = payloads.first(PayloadType::N).map(Notification::read) else { return };
        let Some(negotiation) =
            self.negotiations.iter_mut().find(|negotiation| negotiation.cookies.initiator == header.cookies.initiator)
        else {
            return self.notice(format!("an unprotected {} is ignored", rfc_name(notification.kind)));
        };
        if notification.kind.is_error() {
            let after_keys = negotiation.has_keys();
            let error = Error::from_notification(ExchangeType::IDENTITY_PROTECTION, notification.kind, after_keys);
            // Message 1 of Aggressive Mode says who we are and proves nothing.
            let unproved = negotiation.exchange == ExchangeType::AGGRESSIVE && !after_keys;
            let error = if unproved { error.with_right_key() } else { error };
            let id = negotiation.id;
            self.suspect(now, id, error);
        }
    }

    /// An encrypted message in the middle of Main Mode: most likely the complaint of a peer with other keys.
    fn handle_early(&mut self, now: Instant, header: &Header, body: &[u8]) {
        let found = self.negotiations.iter().find(|negotiation| negotiation.cookies == header.cookies);
        let Some(negotiation) = found.filter(|negotiation| negotiation.has_keys()) else { return };
        let error = match negotiation.open_informational(header, body) {
            Some(kind) if kind.is_error() => {
                Error::from_notification(ExchangeType::IDENTITY_PROTECTION, kind, true).with_right_key()
            }
            Some(_) => return,
            None => Error::AuthenticationFailed { notification: None },
        };
        let id = negotiation.id;
        self.suspect(now, id, error);
    }

    /// Notes why a Main Mode will fail unless it gets on soon.
    pub(super) fn suspect(&mut self, now: Instant, negotiation: u32, error: Error) {
        if let Some(negotiation) = self.negotiations.iter_mut().find(|other| other.id == negotiation)
            && negotiation.hint.is_none()
            && negotiation.retransmission.is_some()
        {
            negotiation.hint = Some(negotiation.blame(error));
            self.timers.set(Timer::Hint(negotiation.id), now + HINT_PATIENCE);
        }
    }

    fn handle_notification(&mut self, now: Instant, isakmp: u32, notification: &Notification<'_>) {
        match notification.kind {
            NotifyType::RESPONDER_LIFETIME => self.handle_responder_lifetime(now, isakmp, notification),
            NotifyType::INITIAL_CONTACT => self.events.push_back(Event::InitialContact),
            NotifyType::CONNECTED | NotifyType::REPLAY_STATUS => {}
            kind if kind.is_error() => self.handle_error(now, isakmp, notification),
            kind => self.notice(format!("the peer reports {}", rfc_name(kind))),
        }
    }

    /// An error is the refusal of the Quick Mode in flight, unless it is about an SA that exists: then it changes nothing.
    fn handle_error(&mut self, now: Instant, isakmp: u32, notification: &Notification<'_>) {
        let kind = notification.kind;
        let awaits = |sa: &&IsakmpSa| sa.id == isakmp && sa.xauth.is_awaited();
        if kind == NotifyType::AUTHENTICATION_FAILED && self.isakmp.iter().any(|sa| awaits(&sa)) {
            return self.xauth_deleted(now, isakmp);
        }
        let spi = <[u8; 4]>::try_from(notification.spi).ok().map(u32::from_be_bytes);
        let known = self.pairs.iter().any(|pair| spi == Some(pair.inbound) || spi == Some(pair.outbound));
        let mut open = self.quick_modes.iter().filter(|quick_mode| quick_mode.isakmp == isakmp && quick_mode.is_open());
        match (open.next().map(|quick_mode| quick_mode.id), open.next()) {
            // With one in flight the refusal is for it, whatever unknown SPI the peer puts beside it.
            (Some(only), None) if !known && kind != NotifyType::INVALID_SPI => {
                let error = Error::from_notification(ExchangeType::QUICK_MODE, kind, true);
                self.fail_quick_mode(now, only, error);
            }
            _ => self.notice(format!("the peer reports {} for SPI {spi:x?}", rfc_name(kind))),
        }
    }

    fn handle_responder_lifetime(&mut self, now: Instant, isakmp: u32, notification: &Notification<'_>) {
        let protocol = if notification.protocol == ProtocolId::ESP { ProtocolId::ESP } else { ProtocolId::ISAKMP };
        let Ok(life) = StatedLife::read(notification.data, protocol) else { return };
        if protocol == ProtocolId::ISAKMP {
            if let Some(seconds) = life.seconds {
                self.shorten_isakmp(now, isakmp, seconds);
            }
        } else if let Ok(spi) = <[u8; 4]>::try_from(notification.spi).map(u32::from_be_bytes) {
            self.shorten_pair(now, spi, life);
        }
    }

    //= rfc2408 3.15 "It is possible to send multiple SPIs in a Delete payload, however, each SPI MUST be for the same protocol."
    //= test: notifications_and_deletes_survive_the_round_trip_and_refuse_truncation, deletes_of_what_is_unknown_or_already_replaced_touch_nothing_else
    fn handle_delete(&mut self, now: Instant, delete: &Delete<'_>) {
        for spi in &delete.spis {
            if delete.protocol == ProtocolId::ESP {
                let Ok(spi) = <[u8; 4]>::try_from(*spi).map(u32::from_be_bytes) else { continue };
                // The peer names the SA that it receives on (RFC 2408 section 3.15).
                match self.pairs.iter().find(|pair| pair.outbound == spi).map(|pair| pair.inbound) {
                    Some(inbound) => self.pair_deleted(now, inbound),
                    None => self.notice(format!("the peer deletes the unknown ESP SA {spi:08x}")),
                }
            } else if delete.protocol == ProtocolId::ISAKMP {
                match self.isakmp.iter().find(|sa| sa.cookies.spi() == *spi).map(|sa| sa.id) {
                    Some(id) => self.isakmp_deleted(now, id),
                    None => self.notice("the peer deletes an unknown ISAKMP SA".to_owned()),
                }
            }
        }
    }
}
