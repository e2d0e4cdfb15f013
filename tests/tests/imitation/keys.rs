//! Keys of IKEv1 with a pre-shared key (RFC 2409 section 5 and appendix B), derived apart from the product's own code.

use towline_tunnel::crypto::cbc::{CbcKey, key_size};
use towline_tunnel::crypto::hash::{digest, hmac};
use towline_tunnel::suite::{Cipher, Hash};

/// What both ends know once nonces and public values are exchanged.
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) cipher: Cipher,
    pub(crate) hash: Hash,
    skeyid: Vec<u8>,
    skeyid_d: Vec<u8>,
    skeyid_a: Vec<u8>,
    key: Vec<u8>,
    /// The vector of the next message of phase 1.
    pub(crate) iv: Vec<u8>,
}

/// What the exchange of public values left.
pub(crate) struct Exchange<'a> {
    pub(crate) cookies: [u8; 16],
    pub(crate) nonces: [&'a [u8]; 2],
    pub(crate) public_values: [&'a [u8]; 2],
    pub(crate) shared: &'a [u8],
}

impl Keys {
    pub(crate) fn new(cipher: Cipher, hash: Hash, psk: &[u8], exchange: &Exchange<'_>) -> Self {
        let prf = |key: &[u8], parts: &[&[u8]]| hmac(hash, key, parts).to_vec();
        let (shared, cookies) = (exchange.shared, exchange.cookies.as_slice());
        let skeyid = prf(psk, &exchange.nonces);
        let skeyid_d = prf(&skeyid, &[shared, cookies, &[0]]);
        let skeyid_a = prf(&skeyid, &[&skeyid_d, shared, cookies, &[1]]);
        let skeyid_e = prf(&skeyid, &[&skeyid_a, shared, cookies, &[2]]);
        let mut key = skeyid_e.clone();
        if key.len() < key_size(cipher) {
            // Appendix B: K1 = prf(SKEYID_e, 0), K2 = prf(SKEYID_e, K1), ...
            let mut block = prf(&skeyid_e, &[&[0]]);
            key.clone_from(&block);
            while key.len() < key_size(cipher) {
                block = prf(&skeyid_e, &[&block]);
                key.extend(&block);
            }
        }
        key.truncate(key_size(cipher));
        let mut iv = digest(hash, &exchange.public_values);
        iv.truncate(block_size(cipher));
        Self { cipher, hash, skeyid, skeyid_d, skeyid_a, key, iv }
    }

    /// HASH_I or HASH_R: the public values and cookies in the order of the end that sends it.
    pub(crate) fn identity_hash(&self, parts: &[&[u8]]) -> Vec<u8> {
        hmac(self.hash, &self.skeyid, parts).to_vec()
    }

    /// HASH(n) of Quick Mode and of Informational exchanges.
    pub(crate) fn hash(&self, parts: &[&[u8]]) -> Vec<u8> {
        hmac(self.hash, &self.skeyid_a, parts).to_vec()
    }

    /// The first vector of an exchange that follows phase 1.
    pub(crate) fn iv_of(&self, message_id: u32) -> Vec<u8> {
        let mut iv = digest(self.hash, &[&self.iv, &message_id.to_be_bytes()]);
        iv.truncate(block_size(self.cipher));
        iv
    }

    /// Pads with zeros and encrypts; `iv` becomes that of the next message.
    pub(crate) fn encrypt(&self, iv: &mut Vec<u8>, plain: &[u8]) -> Vec<u8> {
        let mut data = plain.to_vec();
        data.resize(plain.len().next_multiple_of(block_size(self.cipher)), 0);
        CbcKey::new(self.cipher, &self.key).unwrap().encrypt(iv, &mut data).unwrap();
        *iv = data[data.len() - block_size(self.cipher)..].to_vec();
        data
    }

    /// Decrypts; `iv` becomes that of the next message.
    pub(crate) fn decrypt(&self, iv: &mut Vec<u8>, data: &[u8]) -> Option<Vec<u8>> {
        let mut plain = data.to_vec();
        CbcKey::new(self.cipher, &self.key).unwrap().decrypt(iv, &mut plain).ok()?;
        *iv = data.get(data.len().checked_sub(block_size(self.cipher))?..)?.to_vec();
        Some(plain)
    }

    /// KEYMAT of an ESP SA: `length` octets.
    pub(crate) fn keymat(&self, shared: Option<&[u8]>, spi: u32, nonces: [&[u8]; 2], length: usize) -> Vec<u8> {
        let (shared, spi) = (shared.unwrap_or_default(), spi.to_be_bytes());
        let (mut block, mut all) = (Vec::new(), Vec::new());
        while all.len() < length {
            let parts = [block.as_slice(), shared, &[3], &spi, nonces[0], nonces[1]];
            block = hmac(self.hash, &self.skeyid_d, &parts).to_vec();
            all.extend(&block);
        }
        all.truncate(length);
        all
    }
}

/// The block of a cipher in CBC mode, in octets.
pub(crate) fn block_size(cipher: Cipher) -> usize {
    if cipher == Cipher::TripleDes { 8 } else { 16 }
}
