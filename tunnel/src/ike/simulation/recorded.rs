//! What a foreign client sends, recorded from strongSwan 5.9.8 (charon on Linux 6.1) as it dialled through a NAT: 198.51.100.20, seen
//! as 192.0.2.2, to 192.0.2.10.

use hex_literal::hex;

use super::*;
use crate::ike::message::Payloads;
use crate::ike::nat::{self, Endpoint, Flavour};
use crate::suite::{Hash, Security};

/// Its offer of aes256-sha256-modp2048 with five Vendor IDs.
const MESSAGE_1: [u8; 180] = hex!(
    "BE0C4F8FEC3732E600000000000000000110020000000000000000B40D00003800000001000000010000002C010100010000"
    "00240101000080010007800E0100800200048004000E80030001800B0001800C2A300D00000C09002689DFD6B7120D000014"
    "AFCAD71368A1F1C96B8696FC775701000D0000184048B7D56EBCE88525E7DE7F00D6C2D3800000000D0000144A131C810703"
    "58455C5728F20E95452F0000001490CB80913EBB696E086381B5EC427B1F"
);

/// Its public value, nonce and NAT-D payloads.
const MESSAGE_3: [u8; 396] = hex!(
    "BE0C4F8FEC3732E6C5EF2BEAA7DFAEA304100200000000000000018C0A000104444C1ED178625581222887B411512AAEC47B"
    "3F6264224E1AEFFD6FE868E0A31329545782325287E478DC76E5D93A9AD07593C75893D5786D191ACBF5826C72C21D8D0905"
    "6FE40730737135F5E7807E8A4285528E303286E5111FC766E201C0BE6321B9AFBB1872F1424D8F686DF17690B82B334A57FD"
    "7312932D342812BC597C1613A355E0CC75FA20C2794A489247F2A046F0F345ED258F64B9EE144646E9294A8D2392EEDDD6F5"
    "89963EC71E84DD7AC947B4C573020B0E4DEE8993EB1C8A72A3FD1584838247D791789363F62D8F7321946DF3B91847689E3B"
    "0483FC2C359F847BB86C02A7E4FE9891875EC8347F8A3EDD6E2B4541A534218C810BF8D1DF34140000245ECA8D4AE177FC01"
    "30F0418635D28B3D76DF26F7146D3FE0CE42B8AB2209791B14000024344A44F562C48E6BF0AEFDBB2E38AD5F7A6B1859F607"
    "44CC98CDC9034A8FD324000000247B0DEC86EDE8DE64D2B950E8E3549F74F7746E088ED6A645E5AEA8D2855E64E6"
);

/// The first message of another connection, which offers 3des-sha1-modp1024.
const MESSAGE_1_3DES: [u8; 176] = hex!(
    "31D249F2F14839E500000000000000000110020000000000000000B00D000034000000010000000100000028010100010000"
    "00200101000080010005800200028004000280030001800B0001800C2A300D00000C09002689DFD6B7120D000014AFCAD713"
    "68A1F1C96B8696FC775701000D0000184048B7D56EBCE88525E7DE7F00D6C2D3800000000D0000144A131C81070358455C57"
    "28F20E95452F0000001490CB80913EBB696E086381B5EC427B1F"
);

/// The SA payload of its Quick Mode: aes256-sha256 in UDP, for an hour.
const QUICK_SA: [u8; 48] =
    hex!("00000001000000010000002801030401C5A9E7940000001C010C00008006010080050005800400048001000180020E10");

/// IDci and IDcr of its Quick Mode: UDP, port 1701.
const QUICK_IDS: [[u8; 8]; 2] = [hex!("011106A5C6336414"), hex!("011106A5C000020A")];

const SERVER_END: &str = "192.0.2.10:500";
const SEEN: &str = "192.0.2.2:500";

fn responder() -> Responder {
    let mut config = mirrored(&fast());
    config.proposals = Security::Legacy.accepted_ike_proposals();
    config.esp_proposals = Security::Legacy.accepted_esp_proposals();
    Responder::new(ResponderConfig::new(config), StdRng::seed_from_u64(1))
}

fn answered(responder: &mut Responder, now: Instant, message: &[u8]) -> Answer {
    responder.handle_message(now, Port::Ike, SERVER_END.parse().unwrap(), SEEN.parse().unwrap(), message)
}

fn content(message: &[u8]) -> Content {
    let (header, body) = Header::read(message).unwrap();
    let payloads = Payloads::read_plain(header.next_payload, body).unwrap();
    payloads.iter().map(|payload| (payload.kind, payload.body.to_vec())).collect()
}

#[test]
fn the_first_message_is_answered_with_its_own_proposal_and_the_vendor_ids_that_both_know() {
    let now = Instant::now();
    for message in [&MESSAGE_1[..], &MESSAGE_1_3DES] {
        let Answer::Reply(reply) = answered(&mut responder(), now, message) else { panic!("no answer") };
        let (asked, answered) = (content(message), content(&reply));
        assert_eq!(answered[0], asked[0]);
        let vendor_ids = [
            &hex!("4A131C81070358455C5728F20E95452F")[..],
            &hex!("AFCAD71368A1F1C96B8696FC77570100"),
            &hex!("4048B7D56EBCE88525E7DE7F00D6C2D380000000"),
        ];
        assert_eq!(bodies(&answered, PayloadType::VID), vendor_ids);
        assert!(reply.len() <= message.len());
    }
}

#[test]
fn its_message_3_is_admitted_and_answered_with_a_key_exchange_of_the_same_size() {
    let (mut responder, now) = (responder(), Instant::now());
    let Answer::Reply(reply) = answered(&mut responder, now, &MESSAGE_1) else { panic!("no answer") };
    assert!(matches!(answered(&mut responder, now, &MESSAGE_3), Answer::Ignored(Reason::UnknownCookie)));
    let mut message_3 = MESSAGE_3.to_vec();
    message_3[8..16].copy_from_slice(&reply[8..16]);
    let Answer::Admitted(mut ike) = answered(&mut responder, now, &message_3) else { panic!("not admitted") };
    ike.handle_message(now, Port::Ike, &message_3);
    let Some(Transmit::Message { port: Port::Ike, message }) = ike.poll_transmit() else { panic!("no message 4") };
    let content = content(&message);
    let sizes: Vec<_> = content.iter().map(|(kind, body)| (*kind, body.len())).collect();
    let nat_d = (PayloadType::NAT_D, 32);
    assert_eq!(sizes, [(PayloadType::KE, 256), (PayloadType::NONCE, 32), nat_d, nat_d]);
    assert_eq!(ike.own_cookies().next().unwrap(), reply[8..16]);
}

#[test]
fn its_nat_d_payloads_show_that_it_is_behind_a_nat_and_the_server_is_not() {
    let (header, body) = Header::read(&MESSAGE_3).unwrap();
    let payloads = Payloads::read_plain(header.next_payload, body).unwrap();
    let end = |address: [u8; 4]| Endpoint { address: address.into(), port: 500 };
    let verdict = |local, remote| {
        nat::verdict(Flavour::Rfc3947, Hash::Sha256, &header.cookies, end(local), end(remote), &payloads)
    };
    assert_eq!(verdict([192, 0, 2, 10], [192, 0, 2, 2]), Nat { local: false, remote: true });
    assert_eq!(verdict([10, 0, 0, 7], [198, 51, 100, 20]), Nat { local: true, remote: false });
}

#[test]
fn its_quick_mode_is_accepted_and_its_proposal_returned_with_another_spi() {
    let ours = Security::Legacy.accepted_esp_proposals();
    let modes = registry::EncapsulationMode::IN_UDP;
    let (chosen, answer) = proposal::choose_phase2(&ours, &modes, &QUICK_SA, 0x0102_0304).unwrap().unwrap();
    assert_eq!((chosen.proposal.to_string().as_str(), chosen.spi), ("aes256-sha256", 0xc5a9_e794));
    let mut expected = QUICK_SA;
    expected[16..20].copy_from_slice(&[1, 2, 3, 4]);
    assert_eq!(answer, expected);
    let mut chain = message::Chain::new();
    QUICK_IDS.iter().for_each(|id| chain.push(PayloadType::ID, id));
    let payloads = Payloads::read(chain.first(), chain.octets()).unwrap();
    assert_eq!(selector::judge(&payloads, main_mode::Role::Responder), Ok(()));
}
