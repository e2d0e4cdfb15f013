//! A whole negotiation of foreign software, read with the imitations' own codec: two strongSwan 5.9.8 with
//! aes256-sha256-modp2048 and aes256-sha256, the initiator behind a NAT, and the secret that charon logs.

use std::net::Ipv4Addr;

use hex_literal::hex;
use towline_tunnel::crypto::hash::digest;
use towline_tunnel::suite::{Cipher, Group, Hash};

use crate::device::{Device, DhGroup, Encoding, Encryption, Integrity, Phase1, Phase2};
use crate::esp::{Sa, key_octets, read_udp};
use crate::ike::identification;
use crate::isakmp::{HASH, IDENTIFICATION, KEY_EXCHANGE, Message, NONCE, Proposal, SA, VENDOR_ID, chain, every, first};
use crate::isakmp::{payloads, proposals, sa};
use crate::keys::{Exchange, Keys};
use crate::l2tp::avps;
use crate::table::{chrome_os, vendor_id};

const PRE_SHARED_KEY: &[u8] = b"test-preshared-key";
const OWN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 20);
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const NAT_D: u8 = 20;
const NAT_OA: u8 = 21;

const MESSAGE_1: [u8; 180] = hex!(
    "be0c4f8fec3732e600000000000000000110020000000000000000b40d00003800000001000000010000002c0101000100000024010100"
    "0080010007800e0100800200048004000e80030001800b0001800c2a300d00000c09002689dfd6b7120d000014afcad71368a1f1c96b86"
    "96fc775701000d0000184048b7d56ebce88525e7de7f00d6c2d3800000000d0000144a131c81070358455c5728f20e95452f0000001490"
    "cb80913ebb696e086381b5ec427b1f"
);
const MESSAGE_2: [u8; 160] = hex!(
    "be0c4f8fec3732e6c5ef2beaa7dfaea30110020000000000000000a00d00003800000001000000010000002c0101000100000024010100"
    "0080010007800e0100800200048004000e80030001800b0001800c2a300d00000c09002689dfd6b7120d000014afcad71368a1f1c96b86"
    "96fc775701000d0000184048b7d56ebce88525e7de7f00d6c2d380000000000000144a131c81070358455c5728f20e95452f"
);
const MESSAGE_3: [u8; 396] = hex!(
    "be0c4f8fec3732e6c5ef2beaa7dfaea304100200000000000000018c0a000104444c1ed178625581222887b411512aaec47b3f6264224e"
    "1aeffd6fe868e0a31329545782325287e478dc76e5d93a9ad07593c75893d5786d191acbf5826c72c21d8d09056fe40730737135f5e780"
    "7e8a4285528e303286e5111fc766e201c0be6321b9afbb1872f1424d8f686df17690b82b334a57fd7312932d342812bc597c1613a355e0"
    "cc75fa20c2794a489247f2a046f0f345ed258f64b9ee144646e9294a8d2392eeddd6f589963ec71e84dd7ac947b4c573020b0e4dee8993"
    "eb1c8a72a3fd1584838247d791789363f62d8f7321946df3b91847689e3b0483fc2c359f847bb86c02a7e4fe9891875ec8347f8a3edd6e"
    "2b4541a534218c810bf8d1df34140000245eca8d4ae177fc0130f0418635d28b3d76df26f7146d3fe0ce42b8ab2209791b14000024344a"
    "44f562c48e6bf0aefdbb2e38ad5f7a6b1859f60744cc98cdc9034a8fd324000000247b0dec86ede8de64d2b950e8e3549f74f7746e088e"
    "d6a645e5aea8d2855e64e6"
);
const MESSAGE_4: [u8; 396] = hex!(
    "be0c4f8fec3732e6c5ef2beaa7dfaea304100200000000000000018c0a000104aa59ad7662976fba4949fb1fb2778d4368c7482512f7c8"
    "579f5a629fe03cc14835b8c04a263e94e1cb47c7d2b1dc4f410fc4e62a5a1fcce5831566d5707419868ddb5a3bbccb5b497514574b7d25"
    "b43a8ac03997f3a8f5f721fcac6b313352ed385b60c179b7b00af187fbf814b7f7afec74003fe63494fde5675e7f5ba7e739c719233acc"
    "e110d9ba9219ada324db30a82eb7434e7b957764b4a039449c83ee91dc9456bb6b1abfe67f9b68a043b20c68a6a27d3748413063a153d8"
    "dce5c940619bbcd9b7ab4b8520571a6eaa84811e86d79e80583a8e6f4d8dcd6c58adcf4a2624634251a41d68a3cd8f4fc969b337ce0f4e"
    "a0fd4e99e8fa8f00dae72041a2140000241ba86ba32176b40fb6cec837c3ef1592ef67bc9c6849a8f772d697d6b980b29b140000247c2e"
    "07359376598b58f44ee160ef8c1142149efab9862d873fc8e2977876fede00000024344a44f562c48e6bf0aefdbb2e38ad5f7a6b1859f6"
    "0744cc98cdc9034a8fd324"
);
const MESSAGE_5: [u8; 92] = hex!(
    "be0c4f8fec3732e6c5ef2beaa7dfaea305100201000000000000005c37c9091fb4078522dd7ee34335892a24426aa642855d58b9587780"
    "238564bef90b5342e5d4cacce918dbce11f10cc83c32a1b851238411cbc95644b9e99f5a65"
);
const MESSAGE_6: [u8; 92] = hex!(
    "be0c4f8fec3732e6c5ef2beaa7dfaea305100201000000000000005cf82ef9b3399804467cbdfc5202eadd2a9198e663deada1ec7a7312"
    "2842bc8a4dd3daaaa671a84d3085a3661a7e31a83da609a01e138be780745e43045b0ca3c2"
);
const QUICK_1: [u8; 204] = hex!(
    "be0c4f8fec3732e6c5ef2beaa7dfaea3081020013188c40f000000ccfb277ae3941a2443b5a28eed5a90ff060adf1058dabf8a92fedf82"
    "741c4fc821e4a32eb4ec1d30427481661ff7f0bfe543692039529610ba30998ef485a4b17e79fb37e12089b03cea684660d7a19afe00ab"
    "15d23e74420076c9b7ed4ba3e5e99641023b04f6af7d2809f0602d8a1133f5785f6ed6afbf316ff72249f1a7cb68a2efbc507429193e2f"
    "cd53abb5407569dbdddd58f5001e6367e26f2715142f521c726bd241c495007ced75b28e7f696d"
);
const QUICK_2: [u8; 204] = hex!(
    "be0c4f8fec3732e6c5ef2beaa7dfaea3081020013188c40f000000cc4adba93d19e668a3a4f893fad7cdfe02d22cfa5690d4479aa391af"
    "181bca3dc2de7d1217cc1065baff950a805424889f7df954aafd4f18c2c51e6ae60825479b6f83213a68c73dcafcc42f24bb861180a14a"
    "cfd4ed12ae84c527266b6b7213f06c4c350b35b56e269509280313fa60f505b21da537d3f5f8b517a62a6100073bda6f91d18df223dc31"
    "fd633370ff475efec28f4c260c9637e511a74f8d8267c4f17dc2db2a3949752fbb6e3498023253"
);
const QUICK_3: [u8; 76] = hex!(
    "be0c4f8fec3732e6c5ef2beaa7dfaea3081020013188c40f0000004cc74789e40c50abdb2e63703589357171cc63c3293eefa501106ca0"
    "d2f530f4738290c82add28fa4f46f3bc01613ac230"
);
/// g^xy, which charon logs.
const SHARED: [u8; 256] = hex!(
    "e37f354f28c00bd72d159c48ccba5fd266796c50934f3c8c3f2538d2ae6974c225ca1955707a93dbae7be0d1e07e5960c3b0f962ca4839"
    "807619fe0d6d100775337dff7cb82970b6f4665bacf5f10924562b26160b81a2b58d5eafba79c987761b43906a62b7b48869cca63b3a51"
    "5eeb495a4e48a315df38fa8456b1c19dabae07e52e88861d3b70cf46ee27d5a6c105843ee442040a7c8399a5eaaac42dbad9a9ab400130"
    "ece7254816a7461e32a1c1cdd6ff188631c8061dd11ff36ed95bc9acbb961139858821ec265845a7f4cca57c1334cfc30f71c03bb8f1b1"
    "1fc05e7e6ea9d0da5a93b664b3e8d13488dc9963f7ad5f154e2578b75d08ae8ab981a985"
);
/// The first ESP packet: an SCCRQ.
const ESP: [u8; 152] = hex!(
    "cdca8cfc00000001c26ddc9fbaee063a074152da3a1b8b23735743c40286cb98c3e88489d9124f4003c198a02254f4931f1003ff75faae"
    "efbd9a95e1e420f09413a437fc2afd7bed19dff9e9ee3e5983be1a2c286f57a2dd0173e3ef8929d65706a5f4b059d96c03722c8918e035"
    "cc6642214ec2c9ba16b8e67cdfa4ee381f48d8d3badf4046f73aba844d8154004eaab38e8f4d36d485bb"
);

/// What the initiator offers, as a device.
fn initiator() -> Device {
    Device {
        encoding: Encoding::Charon,
        phase1: vec![Phase1(Encryption::Of(Cipher::Aes256), Hash::Sha256, DhGroup::Of(Group::Modp2048))],
        phase1_life: 10_800,
        phase2: vec![vec![Phase2(Encryption::Of(Cipher::Aes256), Integrity::Of(Hash::Sha256))]],
        phase2_life: 3_600,
        ..chrome_os()
    }
}

fn read(message: &[u8]) -> (Message, Vec<(u8, Vec<u8>)>) {
    let message = Message::read(message).unwrap();
    let all = payloads(message.first, &message.body).unwrap();
    (message, all)
}

/// The keys after message 4.
fn keys() -> Keys {
    let ((_, third), (fourth, fourth_payloads)) = (read(&MESSAGE_3), read(&MESSAGE_4));
    let both = |kind| [first(&third, kind).unwrap(), first(&fourth_payloads, kind).unwrap()];
    Keys::new(
        Cipher::Aes256,
        Hash::Sha256,
        PRE_SHARED_KEY,
        &Exchange { cookies: fourth.cookies, nonces: both(NONCE), public_values: both(KEY_EXCHANGE), shared: &SHARED },
    )
}

/// Decrypts messages of one exchange.
fn decrypted(keys: &Keys, iv: &mut Vec<u8>, message: &[u8]) -> (Message, Vec<(u8, Vec<u8>)>) {
    let message = Message::read(message).unwrap();
    let plain = keys.decrypt(iv, &message.body).unwrap();
    let all = payloads(message.first, &plain).unwrap();
    (message, all)
}

#[test]
fn messages_are_written_as_they_were_read() {
    for octets in [MESSAGE_1.as_slice(), &MESSAGE_2, &MESSAGE_3, &MESSAGE_4] {
        let (message, all) = read(octets);
        assert_eq!(chain(&all), message.body);
        assert_eq!(message.write(), octets);
    }
    let (_, all) = read(&MESSAGE_1);
    let body = first(&all, SA).unwrap();
    assert_eq!(sa(&proposals(body).unwrap()), body);
}

#[test]
fn an_imitation_of_charon_offers_what_charon_offers() {
    let (_, all) = read(&MESSAGE_1);
    let transforms = initiator().phase1_transforms();
    let offered = Proposal { number: 0, protocol: 1, spi: Vec::new(), transforms };
    let found = proposals(first(&all, SA).unwrap()).unwrap();
    assert_eq!(found, [Proposal { number: found[0].number, ..offered }]);
    let ids = every(&all, VENDOR_ID);
    assert_eq!(ids, chrome_os().vendor_ids.iter().map(Vec::as_slice).collect::<Vec<_>>());
    assert_eq!(ids[3], vendor_id("RFC 3947"));
}

#[test]
fn the_nat_is_found_where_it_was() {
    let ((third, all), (_, answer)) = (read(&MESSAGE_3), read(&MESSAGE_4));
    let of =
        |address: Ipv4Addr, port: u16| digest(Hash::Sha256, &[&third.cookies, &address.octets(), &port.to_be_bytes()]);
    assert_eq!(every(&all, NAT_D), [of(SERVER, 500), of(OWN, 500)]);
    // The responder sees another address, and has that which was dialled.
    let [seen, own] = every(&answer, NAT_D)[..] else { panic!("two of them") };
    assert!(seen != of(OWN, 500) && own == of(SERVER, 500));
    assert_eq!(seen, of(Ipv4Addr::new(192, 0, 2, 2), 500));
}

#[test]
fn both_ends_prove_that_they_know_the_pre_shared_key() {
    let ((_, first_payloads), (_, third), (_, fourth)) = (read(&MESSAGE_1), read(&MESSAGE_3), read(&MESSAGE_4));
    let (keys, offer) = (keys(), first(&first_payloads, SA).unwrap());
    let (own, theirs) = (first(&third, KEY_EXCHANGE).unwrap(), first(&fourth, KEY_EXCHANGE).unwrap());
    let mut iv = keys.iv.clone();
    let (message, fifth) = decrypted(&keys, &mut iv, &MESSAGE_5);
    let id = first(&fifth, IDENTIFICATION).unwrap();
    assert_eq!(id, identification(0, 0, OWN));
    assert_eq!(first(&fifth, HASH).unwrap(), keys.identity_hash(&[own, theirs, &message.cookies, offer, id]));
    let (_, sixth) = decrypted(&keys, &mut iv, &MESSAGE_6);
    let (i, r) = message.cookies.split_at(8);
    let id = first(&sixth, IDENTIFICATION).unwrap();
    assert_eq!(first(&sixth, HASH).unwrap(), keys.identity_hash(&[theirs, own, r, i, offer, id]));
}

#[test]
fn quick_mode_and_the_first_packet_of_esp_are_read_down_to_the_sccrq() {
    let mut keys = keys();
    decrypted(&keys.clone(), &mut keys.iv, &MESSAGE_5);
    decrypted(&keys.clone(), &mut keys.iv, &MESSAGE_6);
    let mut iv = keys.iv_of(Message::read(&QUICK_1).unwrap().id);
    let (message, request) = decrypted(&keys, &mut iv, &QUICK_1);
    let (_, reply) = decrypted(&keys, &mut iv, &QUICK_2);
    let (_, last) = decrypted(&keys, &mut iv, &QUICK_3);
    let id = message.id.to_be_bytes();
    let (ni, nr) = (first(&request, NONCE).unwrap(), first(&reply, NONCE).unwrap());
    assert_eq!(first(&request, HASH).unwrap(), keys.hash(&[&id, &chain(&request[1..])]));
    assert_eq!(first(&reply, HASH).unwrap(), keys.hash(&[&id, ni, &chain(&reply[1..])]));
    assert_eq!(first(&last, HASH).unwrap(), keys.hash(&[&[0], &id, ni, nr]));
    // UDP-Encapsulated-Transport, the identities and the original addresses of an imitation.
    let device = initiator();
    let offered = proposals(first(&request, SA).unwrap()).unwrap();
    assert_eq!(offered[0].transforms, device.phase2_transforms(&device.phase2[0], 4));
    assert_eq!(every(&request, IDENTIFICATION), [identification(17, 1701, OWN), identification(17, 1701, SERVER)]);
    assert_eq!(every(&request, NAT_OA), [identification(0, 0, OWN), identification(0, 0, SERVER)]);
    // This responder answers with the address that it sees.
    let seen = identification(17, 1701, Ipv4Addr::new(192, 0, 2, 2));
    assert_eq!(every(&reply, IDENTIFICATION), [seen, identification(17, 1701, SERVER)]);
    let answer = proposals(first(&reply, SA).unwrap()).unwrap();
    assert_eq!(answer[0].transforms, offered[0].transforms);
    let spi = u32::from_be_bytes(answer[0].spi.as_slice().try_into().unwrap());
    let suite = device.phase2[0][0];
    let sa = Sa::new(spi, suite, keys.keymat(None, spi, [ni, nr], key_octets(suite)));
    let datagram = sa.open(&ESP).unwrap();
    let (ports, message) = read_udp(&datagram).unwrap();
    assert_eq!(ports, [1701, 1701]);
    let read = avps(&message[12..]).unwrap();
    assert_eq!(read[0], (0, vec![0, 1]));
    assert!(sa.open(&ESP[..ESP.len() - 1]).is_none());
    // What an imitation seals, it opens.
    let mut own = Sa::new(spi, suite, keys.keymat(None, spi, [ni, nr], key_octets(suite)));
    assert_eq!(own.seal(&datagram).len(), ESP.len());
    let sealed = own.seal(&datagram);
    assert_eq!(own.open(&sealed).unwrap(), datagram);
}
