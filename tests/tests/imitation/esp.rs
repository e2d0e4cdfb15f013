//! ESP in transport mode (RFC 4303) under CBC and HMAC or AES-GCM, and the UDP header inside of it.

use std::net::Ipv4Addr;

use towline_tunnel::crypto::aead::aws_lc::AesGcm;
use towline_tunnel::crypto::cbc::{CbcKey, key_size};
use towline_tunnel::crypto::hash::{hmac, output_size};
use towline_tunnel::suite::{Cipher, Hash};

use crate::device::{Encryption, Integrity, Phase2};
use crate::keys::block_size;

const UDP: u8 = 17;

/// One direction.
pub(crate) struct Sa {
    pub(crate) spi: u32,
    cipher: Cipher,
    integrity: Integrity,
    keys: Vec<u8>,
    sequence: u32,
}

/// Octets of KEYMAT that a suite takes.
pub(crate) fn key_octets(suite: Phase2) -> usize {
    let Phase2(Encryption::Of(cipher), integrity) = suite else { panic!("nobody agrees to DES") };
    match integrity {
        // RFC 4106 section 8.1: the salt is the last 4 octets.
        Integrity::Combined => gcm_key(cipher) + 4,
        Integrity::Of(hash) => key_size(cipher) + output_size(hash),
        Integrity::Sha256Short => key_size(cipher) + output_size(Hash::Sha256),
    }
}

fn gcm_key(cipher: Cipher) -> usize {
    if cipher == Cipher::Aes128Gcm16 { 16 } else { 32 }
}

impl Sa {
    pub(crate) fn new(spi: u32, suite: Phase2, keys: Vec<u8>) -> Self {
        let Phase2(Encryption::Of(cipher), integrity) = suite else { panic!("nobody agrees to DES") };
        Self { spi, cipher, integrity, keys, sequence: 0 }
    }

    /// The HMAC of the integrity algorithm over `data`, at the length of this end.
    fn icv(&self, data: &[u8]) -> Vec<u8> {
        let (hash, length) = match self.integrity {
            Integrity::Of(hash @ (Hash::Md5 | Hash::Sha1)) => (hash, 12),
            Integrity::Of(hash) => (hash, output_size(hash) / 2),
            Integrity::Sha256Short => (Hash::Sha256, 12),
            Integrity::Combined => panic!("AES-GCM has none"),
        };
        hmac(hash, &self.keys[key_size(self.cipher)..], &[data])[..length].to_vec()
    }

    /// Wraps a UDP datagram, header included.
    pub(crate) fn seal(&mut self, datagram: &[u8]) -> Vec<u8> {
        self.sequence += 1;
        let mut packet = [self.spi.to_be_bytes(), self.sequence.to_be_bytes()].concat();
        let combined = self.integrity == Integrity::Combined;
        let block = if combined { 4 } else { block_size(self.cipher) };
        let mut plain = datagram.to_vec();
        let padding = (plain.len() + 2).next_multiple_of(block) - plain.len() - 2;
        plain.extend(1..=padding as u8);
        plain.extend([padding as u8, UDP]);
        if combined {
            let iv = u64::from(self.sequence).to_be_bytes();
            let (key, salt) = self.keys.split_at(gcm_key(self.cipher));
            let nonce: [u8; 12] = [salt, &iv].concat().try_into().unwrap();
            let tag = AesGcm::new(key).unwrap().seal_in_place(&nonce, &packet, &mut plain);
            return [packet, iv.to_vec(), plain, tag.to_vec()].concat();
        }
        let iv: Vec<u8> = (0..block as u32)
            .map(|n| (self.sequence.wrapping_mul(2_654_435_761).wrapping_add(n * 97) >> 8) as u8)
            .collect();
        CbcKey::new(self.cipher, &self.keys[..key_size(self.cipher)]).unwrap().encrypt(&iv, &mut plain).unwrap();
        packet.extend(iv);
        packet.extend(plain);
        packet.extend(self.icv(&packet));
        packet
    }

    /// Unwraps a packet; the UDP datagram with its header.
    pub(crate) fn open(&self, packet: &[u8]) -> Option<Vec<u8>> {
        let mut plain = if self.integrity == Integrity::Combined {
            let (aad, rest) = packet.split_at_checked(8)?;
            let (iv, rest) = rest.split_at_checked(8)?;
            let (data, tag) = rest.split_at_checked(rest.len().checked_sub(16)?)?;
            let (key, salt) = self.keys.split_at(gcm_key(self.cipher));
            let nonce: [u8; 12] = [salt, iv].concat().try_into().ok()?;
            let mut data = data.to_vec();
            AesGcm::new(key).ok()?.open_in_place(&nonce, aad, &mut data, tag.try_into().ok()?).ok()?;
            data
        } else {
            let (data, icv) = packet.split_at_checked(packet.len().checked_sub(self.icv(&[]).len())?)?;
            if self.icv(data) != icv {
                return None;
            }
            let (iv, rest) = data.get(8..)?.split_at_checked(block_size(self.cipher))?;
            let mut plain = rest.to_vec();
            CbcKey::new(self.cipher, &self.keys[..key_size(self.cipher)]).ok()?.decrypt(iv, &mut plain).ok()?;
            plain
        };
        let (next, padding) = (plain.pop()?, usize::from(plain.pop()?));
        let end = plain.len().checked_sub(padding)?;
        // RFC 4303 section 2.4: 1, 2, 3, ...
        let monotonic = plain[end..].iter().zip(1..).all(|(octet, number)| *octet == number);
        plain.truncate(end);
        (next == UDP && monotonic).then_some(plain)
    }
}

/// A UDP datagram as a device sends it: the checksum is over the addresses that it knows, and wrong behind a NAT (RFC 3948
/// section 3.1.2).
pub(crate) fn udp(ends: [Ipv4Addr; 2], ports: [u16; 2], payload: &[u8]) -> Vec<u8> {
    let length = 8 + payload.len() as u16;
    let mut datagram = [ports[0].to_be_bytes(), ports[1].to_be_bytes(), length.to_be_bytes(), [0; 2]].concat();
    datagram.extend(payload);
    let pseudo = [ends[0].octets().as_slice(), &ends[1].octets(), &[0, UDP], &length.to_be_bytes(), &datagram].concat();
    let sum = pseudo
        .chunks(2)
        .fold(0_u32, |sum, pair| sum + u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    datagram[6..8].copy_from_slice(&(if checksum == 0 { 0xffff } else { checksum }).to_be_bytes());
    datagram
}

/// Ports and payload of a UDP datagram, whatever its checksum.
pub(crate) fn read_udp(datagram: &[u8]) -> Option<([u16; 2], &[u8])> {
    let [a, b, c, d, e, f, _, _, ref payload @ ..] = *datagram else { return None };
    let whole = usize::from(u16::from_be_bytes([e, f])) == datagram.len();
    whole.then_some(([u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])], payload))
}
