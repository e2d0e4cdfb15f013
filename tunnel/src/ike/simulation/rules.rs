//! What a message must hold in each exchange, as RFC 2408 and RFC 2409 say it, and messages that break the rules.

use super::*;
use crate::ike::message::Payloads;

#[test]
fn what_names_an_sa_is_there_where_it_must_be_and_no_flag_but_that_of_encryption() {
    let link = Link::connected(&fast(), 400);
    for (index, (_, _, message)) in link.sent.iter().enumerate() {
        let (header, _) = Header::read(message).unwrap();
        // Six messages of Main Mode, of which the last two are encrypted, and three of Quick Mode.
        let main_mode = index < 6;
        let exchange = if main_mode { ExchangeType::IDENTITY_PROTECTION } else { ExchangeType::QUICK_MODE };
        assert_eq!((header.exchange, header.flags), (exchange, u8::from(index >= 4)), "{index}");
        assert_ne!(header.cookies.initiator, [0; 8], "{index}");
        assert_eq!((header.cookies.responder == [0; 8], header.message_id == 0), (index == 0, main_mode), "{index}");
    }
    let sa = &link.peers[CLIENT].ike.isakmp[0];
    let [request, response] = [6, 7].map(|index| &link.sent[index].2);
    let contents = [opened(sa, request, None), opened(sa, response, Some(last_block(request)))];
    // HASH, and SA right behind it.
    assert!(contents.iter().all(|content| content[0].0 == PayloadType::HASH && content[1].0 == PayloadType::SA));
    let spis = contents.map(|content| bodies(&content, PayloadType::SA)[0][16..20].to_vec());
    let pair = &link.peers[CLIENT].ike.pairs[0];
    assert_eq!(spis, [pair.inbound, pair.outbound].map(|spi| spi.to_be_bytes().to_vec()));
    assert!(pair.inbound > 255 && pair.outbound > 255 && pair.inbound != pair.outbound);
}

#[test]
fn a_header_that_does_not_fit_its_exchange_is_not_looked_at() {
    let mut link = Link::pair(&fast(), 401);
    link.connect();
    link.run(Duration::from_millis(30));
    let message_2 = link.sent[1].2.clone();
    link.under_way.clear();
    // Cookies, next payload, version, exchange, flags, Message ID.
    let changes = [(0..8, 0), (8..16, 0), (16..17, 2), (16..17, 10), (17..18, 0x20), (17..18, 0x11), (18..19, 99)];
    for (at, value) in changes.into_iter().chain([(19..20, 0x80), (19..20, 1), (23..24, 1)]) {
        let mut changed = message_2.clone();
        changed[at].fill(value);
        link.peers[CLIENT].ike.handle_message(link.now, Port::Ike, &changed);
        link.drain();
        assert_eq!(link.sent.len(), 2, "{value}");
    }
    link.peers[CLIENT].ike.handle_message(link.now, Port::Ike, &message_2);
    link.drain();
    assert_eq!(link.sent.len(), 3);
}

#[test]
fn an_answer_in_another_exchange_is_none() {
    let mut link = Link::pair(&fast(), 402);
    link.filter = Box::new(|from, _, message| {
        if from == SERVER {
            message[18] = ExchangeType::AGGRESSIVE.0;
        }
        true
    });
    link.connect();
    link.run(seconds(60));
    let expected = Error::NoResponse { exchange: ExchangeType::IDENTITY_PROTECTION, message: 1 };
    assert_eq!(link.peers[CLIENT].failure().unwrap().1, &expected);
}

/// A message under another exchange.
fn under(message: &[u8], exchange: ExchangeType, message_id: u32) -> Vec<u8> {
    let (header, body) = Header::read(message).unwrap();
    Header { exchange, message_id, ..header }.write(body)
}

#[test]
fn quick_mode_is_not_answered_before_phase_1_is_complete() {
    let mut link = Link::pair(&fast(), 403);
    link.connect();
    // Message 5 is under way.
    link.run(Duration::from_millis(90));
    let message_5 = link.sent[4].2.clone();
    link.under_way.clear();
    link.peers[SERVER].ike.handle_message(link.now, Port::NatT, &under(&message_5, ExchangeType::QUICK_MODE, 7));
    link.drain();
    assert!(link.sent.len() == 5 && !link.peers[SERVER].ike.is_established());
    link.peers[SERVER].ike.handle_message(link.now, Port::NatT, &message_5);
    assert!(link.peers[SERVER].ike.is_established());
}

#[test]
fn only_quick_mode_is_answered_once_phase_1_is_complete() {
    let mut link = Link::connected(&fast(), 404);
    let sa = &link.peers[CLIENT].ike.isakmp[0];
    let mut content = opened(sa, &link.sent[6].2, None);
    content.retain(|(kind, _)| *kind != PayloadType::HASH);
    let mut request = |exchange, message_id: u32| {
        // Another SPI, which stands behind DOI, situation and the header of the proposal.
        content[0].1[16..20].copy_from_slice(&message_id.to_be_bytes());
        written(sa, exchange, message_id, None, &[], &content)
    };
    let main_mode = [ExchangeType::IDENTITY_PROTECTION, ExchangeType::AGGRESSIVE, ExchangeType::BASE];
    let mut others: Vec<_> = (0x1000..).zip(main_mode).map(|(id, exchange)| request(exchange, id)).collect();
    others.push(request(ExchangeType::NEW_GROUP_MODE, 0x2000));
    let right = request(ExchangeType::QUICK_MODE, 0x3000);
    let sent = link.sent.len();
    for message in others {
        link.peers[SERVER].ike.handle_message(link.now, Port::NatT, &message);
    }
    link.drain();
    assert_eq!((link.sent.len(), link.peers[SERVER].count(is_isakmp)), (sent, 1));
    link.assert_established();
    link.peers[SERVER].ike.handle_message(link.now, Port::NatT, &right);
    link.drain();
    assert_eq!(link.sent.len(), sent + 1);
}

#[test]
fn cookies_and_nonces_are_never_the_same_twice() {
    let (mut cookies, mut nonces) = (BTreeSet::new(), BTreeSet::new());
    let mut count = 0;
    for seed in 405..408 {
        let mut link = Link::connected(&fast(), seed);
        link.peers[CLIENT].ike.begin_main_mode(link.now);
        link.drain();
        link.run(seconds(2));
        for (index, at) in [(0, 0..8), (1, 8..16), (9, 0..8), (10, 8..16)] {
            cookies.insert(link.sent[index].2[at].to_vec());
        }
        for index in [2, 3, 11, 12] {
            let (header, body) = Header::read(&link.sent[index].2).unwrap();
            let payloads = Payloads::read_plain(header.next_payload, body).unwrap();
            nonces.insert(payloads.nonce().unwrap().to_vec());
        }
        let sa = &link.peers[CLIENT].ike.isakmp[0];
        nonces.insert(bodies(&opened(sa, &link.sent[6].2, None), PayloadType::NONCE)[0].to_vec());
        count += 1;
    }
    assert_eq!((cookies.len(), nonces.len()), (4 * count, 5 * count));
}

#[test]
fn an_encrypted_refusal_in_the_middle_of_main_mode_is_read() {
    let mut link = Link::pair(&fast(), 409);
    // Message 6 is lost.
    link.filter = Box::new(|from, header, _| from == CLIENT || !header.is_encrypted());
    link.connect();
    link.run(Duration::from_millis(200));
    let sa = &link.peers[SERVER].ike.isakmp[0];
    let notification = NotifyType::INVALID_ID_INFORMATION;
    let body = payload::Notification { protocol: ProtocolId::ISAKMP, spi: &[], kind: notification, data: &[] }.body();
    let before = last_block(&link.sent[4].2);
    let refusal = sa.keys.informational(sa.cookies, before, 77, PayloadType::N, &body);
    link.peers[CLIENT].ike.handle_message(link.now, Port::NatT, &refusal);
    link.run(seconds(3));
    assert_eq!(link.peers[CLIENT].failure().unwrap().1, &Error::IdentityRefused { notification });
}

#[test]
fn what_goes_is_named_by_its_protocol_with_an_spi_of_its_size() {
    let mut link = Link::connected(&fast(), 410);
    let sent = link.sent.len();
    link.peers[CLIENT].ike.close(link.now);
    link.drain();
    let sa = &link.peers[SERVER].ike.isakmp[0];
    let spi = link.peers[SERVER].ike.pairs[0].outbound.to_be_bytes();
    // IPsec DOI, protocol, size and number of the SPIs. Each is said twice.
    let esp = [&[0, 0, 0, 1, 3, 4, 0, 1][..], &spi].concat();
    let isakmp = [&[0, 0, 0, 1, 1, 16, 0, 1][..], &sa.cookies.spi()].concat();
    let said: Vec<Content> = link.sent[sent..].iter().map(|(.., message)| opened(sa, message, None)).collect();
    let said: Vec<_> = said.iter().flat_map(|content| bodies(content, PayloadType::D)).collect();
    assert_eq!(said, [&esp, &esp, &isakmp, &isakmp]);
}

#[test]
fn a_delete_with_the_spi_of_another_protocol_or_domain_or_with_a_wrong_hash_deletes_nothing() {
    let mut link = Link::connected(&fast(), 411);
    let sa = &link.peers[CLIENT].ike.isakmp[0];
    let (cookies, spi) = (sa.cookies.spi(), link.peers[CLIENT].ike.pairs[0].inbound.to_be_bytes());
    let delete = payload::Delete::body;
    let mut foreign = delete(ProtocolId::ESP, &spi);
    foreign[3] = 2;
    let wrong =
        [delete(ProtocolId::ISAKMP, &spi), delete(ProtocolId::ESP, &cookies), delete(ProtocolId::AH, &spi), foreign];
    let message = |message_id, salt: &[u8], body: &[u8]| {
        let content = vec![(PayloadType::D, body.to_vec())];
        written(sa, ExchangeType::INFORMATIONAL, message_id, None, salt, &content)
    };
    let mut messages: Vec<_> = (0x100..).zip(&wrong).map(|(id, body)| message(id, &[], body)).collect();
    messages.push(message(0x200, &[1], &delete(ProtocolId::ESP, &spi)));
    let right = message(0x300, &[], &delete(ProtocolId::ESP, &spi));
    for message in messages {
        link.peers[SERVER].ike.handle_message(link.now, Port::NatT, &message);
    }
    link.drain();
    link.assert_established();
    link.peers[SERVER].ike.handle_message(link.now, Port::NatT, &right);
    link.drain();
    assert!(link.peers[SERVER].inbound.is_empty());
}
