//! Keys of phase 1 and what is made of them (RFC 2409 sections 5, 5.5 and appendix B).

use zeroize::Zeroizing;

use super::error::Error;
use super::message::{Chain, Cookies, FLAG_ENCRYPTION, Header, Payloads};
use super::registry::{PayloadType, ProtocolId};
use crate::crypto::cbc::{self, CbcKey};
use crate::crypto::hash;
use crate::suite::{Cipher, Hash, IkeProposal};

/// The key material of one ISAKMP SA.
pub(super) struct Keys {
    hash: Hash,
    skeyid: Zeroizing<Vec<u8>>,
    skeyid_d: Zeroizing<Vec<u8>>,
    skeyid_a: Zeroizing<Vec<u8>>,
    encryption_key: Zeroizing<Vec<u8>>,
    cipher: CbcKey,
}

impl Keys {
    /// SKEYID and its children for authentication with a pre-shared key.
    pub(super) fn derive(
        proposal: &IkeProposal,
        pre_shared_key: &[u8],
        [nonce_i, nonce_r]: [&[u8]; 2],
        shared_secret: &[u8],
        cookies: &Cookies,
    ) -> Result<Self, Error> {
        let skeyid = hash::hmac(proposal.hash, pre_shared_key, &[nonce_i, nonce_r]);
        let spi = cookies.spi();
        let child =
            |before: &[u8], number| hash::hmac(proposal.hash, &skeyid, &[before, shared_secret, &spi, &[number]]);
        let skeyid_d = child(&[], 0);
        let skeyid_a = child(&skeyid_d, 1);
        let skeyid_e = child(&skeyid_a, 2);
        let encryption_key = encryption_key(proposal.hash, &skeyid_e, cbc::key_size(proposal.cipher));
        let cipher = CbcKey::new(proposal.cipher, &encryption_key)
            .map_err(|_| Error::InvalidKeyInformation("shared secret (it gives a key of the wrong size)"))?;
        Ok(Self { hash: proposal.hash, skeyid, skeyid_d, skeyid_a, encryption_key, cipher })
    }

    /// HASH_I or HASH_R: each side puts its own values first.
    pub(super) fn main_mode_hash(
        &self,
        [own_public, other_public]: [&[u8]; 2],
        [own_cookie, other_cookie]: [&[u8]; 2],
        sa: &[u8],
        id: &[u8],
    ) -> Zeroizing<Vec<u8>> {
        hash::hmac(self.hash, &self.skeyid, &[own_public, other_public, own_cookie, other_cookie, sa, id])
    }

    /// The IV of the first encrypted message of phase 1.
    pub(super) fn first_iv(&self, public_i: &[u8], public_r: &[u8]) -> Vec<u8> {
        self.iv(&[public_i, public_r])
    }

    /// The IV of the first message of an exchange of phase 2.
    pub(super) fn exchange_iv(&self, last_block: &[u8], message_id: u32) -> Vec<u8> {
        self.iv(&[last_block, &message_id.to_be_bytes()])
    }

    fn iv(&self, parts: &[&[u8]]) -> Vec<u8> {
        let mut iv = hash::digest(self.hash, parts);
        iv.truncate(self.cipher.block_size());
        iv
    }

    /// prf(SKEYID_a, …): HASH(1), HASH(2), HASH(3).
    pub(super) fn hash(&self, parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
        hash::hmac(self.hash, &self.skeyid_a, parts)
    }

    /// KEYMAT of `length` octets for the SA with the given SPI.
    pub(super) fn keymat(
        &self,
        shared_secret: Option<&[u8]>,
        spi: u32,
        [nonce_i, nonce_r]: [&[u8]; 2],
        length: usize,
    ) -> Zeroizing<Vec<u8>> {
        let mut keymat = Zeroizing::new(Vec::with_capacity(length + hash::output_size(self.hash)));
        let mut block = Zeroizing::new(Vec::new());
        while keymat.len() < length {
            let protocol = [ProtocolId::ESP.0];
            let secret = shared_secret.unwrap_or_default();
            block = hash::hmac(
                self.hash,
                &self.skeyid_d,
                &[&block, secret, &protocol, &spi.to_be_bytes(), nonce_i, nonce_r],
            );
            keymat.extend_from_slice(&block);
        }
        keymat.truncate(length);
        keymat
    }

    /// Encrypts a message; `iv` moves on to its last block.
    pub(super) fn seal(&self, mut header: Header, chain: &Chain, iv: &mut Vec<u8>) -> Vec<u8> {
        let block = self.cipher.block_size();
        let mut body = chain.octets().to_vec();
        // RFC 2409 appendix B: "Each message should be padded up to the nearest block size using bytes containing 0x00."
        body.resize(body.len().next_multiple_of(block), 0);
        self.cipher.encrypt(iv, &mut body).expect("the IV has one block and the body whole blocks");
        header.next_payload = chain.first();
        header.flags |= FLAG_ENCRYPTION;
        let last = body.len().saturating_sub(block);
        *iv = body.get(last..).unwrap_or_default().to_vec();
        header.write(&body)
    }

    /// Decrypts the body of a message; returns it with the IV of the next message of the exchange.
    pub(super) fn open(&self, iv: &[u8], body: &[u8]) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), Error> {
        let last = body.len().checked_sub(self.cipher.block_size()).and_then(|last| body.get(last..));
        let next = last.ok_or(Error::Undecryptable)?.to_vec();
        let mut plain = Zeroizing::new(body.to_vec());
        self.cipher.decrypt(iv, &mut plain).map_err(|_| Error::Undecryptable)?;
        Ok((plain, next))
    }

    /// Reads the payloads of a decrypted message; nonsense is most likely the work of another key.
    pub(super) fn payloads<'a>(first: PayloadType, plain: &'a [u8]) -> Result<Payloads<'a>, Error> {
        Payloads::read(first, plain).map_err(|_| Error::Undecryptable)
    }

    /// The key of phase 1, for the decryption of captures.
    pub(super) fn encryption_key(&self) -> Zeroizing<Vec<u8>> {
        self.encryption_key.clone()
    }
}

/// The first octets of SKEYID_e, or of its expansion when it is too short (appendix B).
fn encryption_key(hash: Hash, skeyid_e: &[u8], length: usize) -> Zeroizing<Vec<u8>> {
    let mut key = Zeroizing::new(skeyid_e.to_vec());
    if key.len() < length {
        key.clear();
        let mut block = Zeroizing::new(vec![0]);
        while key.len() < length {
            block = hash::hmac(hash, skeyid_e, &[&block]);
            key.extend_from_slice(&block);
        }
    }
    key.truncate(length);
    key
}

/// The octets of KEYMAT that a cipher and an integrity algorithm of ESP take: cipher key, salt of AES-GCM, integrity key.
pub(super) fn esp_key_sizes(cipher: Cipher, integrity: Option<Hash>) -> (usize, usize) {
    // RFC 4106 section 8.1: KEYMAT has 4 octets of salt behind the key.
    let encryption = match cipher {
        Cipher::Aes256Gcm16 => 32 + 4,
        Cipher::Aes128Gcm16 => 16 + 4,
        Cipher::Aes256 => 32,
        Cipher::Aes192 => 24,
        Cipher::Aes128 => 16,
        Cipher::TripleDes => 24,
    };
    // RFC 2403, 2404 and 4868: the key is as long as the hash.
    (encryption, integrity.map_or(0, hash::output_size))
}
