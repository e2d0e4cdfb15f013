//! Keys of phase 1 and what is made of them (RFC 2409 sections 5, 5.5 and appendix B).

use zeroize::Zeroizing;

use super::error::Error;
use super::message::{Chain, Cookies, FLAG_ENCRYPTION, Header, Payloads};
use super::registry::{ExchangeType, PayloadType, ProtocolId};
use crate::crypto::cbc::{self, CbcKey};
use crate::crypto::hash;
use crate::suite::{Hash, IkeProposal};

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
    /// The children of SKEYID.
    pub(super) fn derive(
        proposal: &IkeProposal,
        skeyid: Zeroizing<Vec<u8>>,
        shared_secret: &[u8],
        cookies: &Cookies,
    ) -> Result<Self, Error> {
        let [skeyid_d, skeyid_a, skeyid_e] = children(proposal.hash, &skeyid, shared_secret, &cookies.spi());
        let encryption_key = encryption_key(proposal.hash, &skeyid_e, cbc::key_size(proposal.cipher));
        let cipher = CbcKey::new(proposal.cipher, &encryption_key)
            .map_err(|_| Error::InvalidKeyInformation("shared secret (it gives a key of the wrong size)"))?;
        Ok(Self { hash: proposal.hash, skeyid, skeyid_d, skeyid_a, encryption_key, cipher })
    }

    /// HASH_I or HASH_R by the HMAC of `hash`: each side puts its own values first.
    pub(super) fn main_mode_hash(
        &self,
        hash: Hash,
        [own_public, other_public]: [&[u8]; 2],
        [own_cookie, other_cookie]: [&[u8]; 2],
        sa: &[u8],
        id: &[u8],
    ) -> Zeroizing<Vec<u8>> {
        hash::hmac(hash, &self.skeyid, &[own_public, other_public, own_cookie, other_cookie, sa, id])
    }

    /// The IV of the first encrypted message of phase 1.
    pub(super) fn first_iv(&self, public_i: &[u8], public_r: &[u8]) -> Vec<u8> {
        self.iv(&[public_i, public_r])
    }

    //= rfc2408 4.8 "All exchanges are similar in that with the beginning of any exchange, cryptographic synchronization MUST occur."
    //= test: the_messages_of_quick_mode_are_readable_and_their_hashes_are_ours, an_informational_message_is_written_as_charon_writes_it, renewals_that_collide_end_with_one_pair_and_lose_nothing
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

    //= rfc2409 5.5 "This keying material (whether with PFS or without, and whether derived directly or through concatenation) MUST be used with the negotiated SA."
    //= test: every_device_comes_up_behind_a_nat, the_keys_of_esp_with_a_fresh_exchange_are_those_of_charon, every_proposal_of_esp_establishes_with_keys_of_the_right_size
    //= out: rfc2409 3.3 "For PFS to exist the key used to protect transmission of data MUST NOT be used to derive any additional keys, and if the key used to protect transmission of data was derived from some other keying material, that material MUST NOT be used to derive any more keys." defines a term; with a group in Quick Mode the fresh secret gives the keys of its two SAs and is dropped, without one there is no PFS and none is said to be
    //= out: rfc2409 Appendix.B "When a service (such as an IPSEC transform) utilizes ISAKMP to generate keying material, all encryption algorithm specific details (such as key and IV generation, padding, etc...) MUST be defined by that service." a demand on the documents of ESP, whose details are in RFC 2451, 3602 and 4106
    /// KEYMAT of `length` octets for the SA with the given SPI.
    pub(super) fn keymat(
        &self,
        shared_secret: Option<&[u8]>,
        spi: u32,
        [nonce_i, nonce_r]: [&[u8]; 2],
        length: usize,
    ) -> Zeroizing<Vec<u8>> {
        let secret = shared_secret.unwrap_or_default();
        let seed = [secret, &[ProtocolId::ESP.0], &spi.to_be_bytes(), nonce_i, nonce_r];
        expand(self.hash, &self.skeyid_d, &seed, length)
    }

    /// An Informational message with one payload; `last_block` is that of phase 1.
    pub(super) fn informational(
        &self,
        cookies: Cookies,
        last_block: &[u8],
        message_id: u32,
        kind: PayloadType,
        body: &[u8],
    ) -> Vec<u8> {
        let mut chain = Chain::new();
        chain.push(kind, body);
        let hash = self.hash(&[&message_id.to_be_bytes(), chain.octets()]);
        let mut iv = self.exchange_iv(last_block, message_id);
        let header = Header::new(cookies, ExchangeType::INFORMATIONAL, message_id);
        self.seal(header, &chain.behind_hash(&hash), &mut iv)
    }

    /// Decrypts an Informational message and checks its hash.
    pub(super) fn open_informational(
        &self,
        last_block: &[u8],
        header: &Header,
        body: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let (plain, _) = self.open(&self.exchange_iv(last_block, header.message_id), body)?;
        let payloads = Self::payloads(header.next_payload, &plain)?;
        let (hash, covered) = payloads.hashed().ok_or(Error::Undecryptable)?;
        if hash::eq(hash, &self.hash(&[&header.message_id.to_be_bytes(), covered])) {
            Ok(plain)
        } else {
            Err(Error::InvalidHash(ExchangeType::INFORMATIONAL))
        }
    }

    //= rfc2408 4.1.1 "This encryption MUST begin immediately after the ISAKMP header and all payloads following the ISAKMP header MUST be encrypted."
    //= test: an_informational_message_is_written_as_charon_writes_it, unprotected_messages_change_nothing
    //= rfc2409 3.2 "When communication is protected, all payloads following the ISAKMP header MUST be encrypted."
    //= test: an_informational_message_is_written_as_charon_writes_it, unprotected_messages_change_nothing
    //= out: rfc2409 Appendix.B "The number of rounds MUST be 16 and the block size MUST be 64." RC5 is not offered
    /// Encrypts a message; `iv` moves on to its last block.
    pub(super) fn seal(&self, mut header: Header, chain: &Chain, iv: &mut Vec<u8>) -> Vec<u8> {
        let block = self.cipher.block_size();
        let mut body = chain.octets().to_vec();
        // RFC 2409 appendix B: "Each message should be padded up to the nearest block size using bytes containing 0x00."
        body.resize(body.len().next_multiple_of(block), 0);
        self.cipher.encrypt(iv, &mut body).expect("the IV has one block and the body whole blocks");
        header.next_payload = chain.first();
        //= rfc2409 3.2 "Message encryption (when noted by a '*' after the ISAKMP header) MUST begin immediately after the ISAKMP header."
        //= test: messages_5_and_6_are_readable_and_their_hashes_are_ours, spoiled_messages_never_stop_a_handshake_for_good
        //= rfc2409 Appendix.B "The message length in the header MUST include the length of the pad since this reflects the size of the ciphertext."
        //= test: an_informational_message_is_written_as_charon_writes_it, a_hash_covers_everything_behind_it_but_the_padding
        //= rfc2409 Appendix.B "Subsequent messages MUST use the last CBC encryption block from the previous message as their initialization vector."
        //= test: the_messages_of_quick_mode_are_readable_and_their_hashes_are_ours, replayed_messages_change_nothing
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

/// SKEYID for authentication with a pre-shared key: prf(pre-shared-key, Ni_b | Nr_b) (section 5).
pub(super) fn pre_shared_skeyid(hash: Hash, key: &[u8], [nonce_i, nonce_r]: [&[u8]; 2]) -> Zeroizing<Vec<u8>> {
    hash::hmac(hash, key, &[nonce_i, nonce_r])
}

/// SKEYID for authentication with signatures: prf(Ni_b | Nr_b, g^xy) (section 5).
pub(super) fn signature_skeyid(hash: Hash, nonces: [&[u8]; 2], shared_secret: &[u8]) -> Zeroizing<Vec<u8>> {
    hash::hmac(hash, &nonces.concat(), &[shared_secret])
}

/// SKEYID_d, SKEYID_a and SKEYID_e (section 5); `spi` is CKY-I | CKY-R.
fn children(hash: Hash, skeyid: &[u8], shared_secret: &[u8], spi: &[u8]) -> [Zeroizing<Vec<u8>>; 3] {
    let child = |before: &[u8], number| hash::hmac(hash, skeyid, &[before, shared_secret, spi, &[number]]);
    let skeyid_d = child(&[], 0);
    let skeyid_a = child(&skeyid_d, 1);
    let skeyid_e = child(&skeyid_a, 2);
    [skeyid_d, skeyid_a, skeyid_e]
}

/// K1 | K2 | …, where K1 is prf(key, seed) and each next one prf(key, the last | seed) (section 5.5).
fn expand(hash: Hash, key: &[u8], seed: &[&[u8]], length: usize) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(length + hash::output_size(hash)));
    let mut block = Zeroizing::new(Vec::new());
    while out.len() < length {
        let parts: Vec<&[u8]> = std::iter::once(block.as_slice()).chain(seed.iter().copied()).collect();
        let next = hash::hmac(hash, key, &parts);
        block = next;
        out.extend_from_slice(&block);
    }
    out.truncate(length);
    out
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

#[cfg(test)]
mod recorded;

#[cfg(test)]
mod tests {
    use super::*;
    use hex_literal::hex;

    // The values are those of NIST's samples for IKEv1 and, from appendix B on, those that NSS tests itself by.

    fn skeyid(hash: &str, pre_shared_key: u8, nonces: [&[u8]; 2]) -> Vec<u8> {
        let proposal: IkeProposal = format!("aes128-{hash}-modp2048").parse().unwrap();
        pre_shared_skeyid(proposal.hash, &[pre_shared_key], nonces).to_vec()
    }

    #[test]
    fn skeyid_with_a_pre_shared_key_is_that_of_the_samples() {
        let nonces: [&[u8]; 2] = [&hex!("03a6f25a83c8c2a3"), &hex!("9d958a6618f77e7f")];
        assert_eq!(skeyid("sha1", 0xc0, nonces), hex!("ab3be41bc62f2ef0c41a3076d58768be77fadd2e"));
        let nonces: [&[u8]; 2] = [&hex!("ead9ced494868f41"), &hex!("f1aff4f425a94f18")];
        let expected = hex!("558a99b299773d267cf7c8ef073bf3b7af362c206c75a538403c5ef884d4cace");
        assert_eq!(skeyid("sha256", 0xa0, nonces), expected);
        let nonces: [&[u8]; 2] = [&hex!("d6596b7e5b398534"), &hex!("136fbdfa8d0ceb8e")];
        let expected =
            hex!("b54fa27cb4251051e44a659d73591845691d11f1874bf4e4088e5df6462d28e57a3a2af3ab4f9b746a8f5766f8785f2b");
        assert_eq!(skeyid("sha384", 0x9e, nonces), expected);
        let nonces: [&[u8]; 2] = [&hex!("482a05eca86fba51"), &hex!("84ee19d02272de2e")];
        let expected = hex!(
            "5bcb5499ae4c1437ce6c195392bf26bf7980a59bcb787a0b58671771a3d4b06d"
            "c1eb7809241b7e5931740b05bf8a9873bb493c5f067e28e4f58ab65c3dbe44cd"
        );
        assert_eq!(skeyid("sha512", 0x4c, nonces), expected);
    }

    #[test]
    fn the_children_of_a_long_skeyid_are_those_of_the_samples() {
        let skeyid =
            hex!("6e4514610bf82d0ab7bf0260096f6146a153c712071abb633ced813c572156c783e36874a65a64690ca701d40d56ea18");
        let secret = hex!("1724dbd893523764bfef8c6fa927856fccfb77ae254358cce29c2769a32915c1");
        let [d, a, e] = children(Hash::Sha384, &skeyid, &secret, &hex!("1c8aba986a00af0f b049d9672f73c920"));
        let expected = [
            hex!("b083234e9ed7745911f93eb31faa66fcf88906266830eb17ef166d295cb1f86a3543b8b8efa5df918533df537e9c809c"),
            hex!("938295a374aceb4147a8024c9a007dd313403fd8fd7070dbd0cfbe1ccd308dbfbb7b9e9c64049e4df44ff551016cb7b5"),
            hex!("8595b249dc1fa8599729f87eb6b9dd13bfbfdfd4f9ebd78929bab6ecc402539ad32cb6e7ef4ba6a0f53da14e4df07ed4"),
        ];
        assert_eq!([&d[..], &a[..], &e[..]], [&expected[0][..], &expected[1][..], &expected[2][..]]);
        let skeyid = hex!(
            "f05aa036dfce45a558d40418dea98096e519bc7841e3db3dd93658d118c3e83b"
            "502f398ecb1361ec77d38a8855efff407f6f772e5d65b58eb1134096e8478d2b"
        );
        let secret = hex!("b15a9cfce8c8d7eab879d6243029d40188d3b740875a6ac62f56cac4377e2edd");
        let [d, a, e] = children(Hash::Sha512, &skeyid, &secret, &hex!("1ff4d76565b3151a 1f11b8eb20d57a16"));
        let expected = [
            hex!(
                "3c4be16a631aa49018fa6740745a61ab1f1a2455a96e91f159a134ccfe30303d"
                "68721696195e95bfd530510ef2f9532491878710944db7854f00ad13c68fca01"
            ),
            hex!(
                "15ecf5c80b675585e10c4388f6f9c37e8b63269a0a99851f08ba617e28c561f4"
                "3eaf4112223ff97525bf0b3897f514fce7a3acee10a61ae088c01efc5f643587"
            ),
            hex!(
                "60f6b6c10c2b6bedc085ad6546d993c9ce1f86918d1c935c89d6631170a5dab0"
                "e37298f21ca3b7901a53bde55a15fad39f782039ce26fc8c2ba8cbd9d4287669"
            ),
        ];
        assert_eq!([&d[..], &a[..], &e[..]], [&expected[0][..], &expected[1][..], &expected[2][..]]);
    }

    #[test]
    fn the_children_of_skeyid_are_those_of_the_samples() {
        let skeyid = hex!("707197817fb2d90cf54d1842606bdea59b9f4823");
        let secret = hex!("8ba4cbc73c0187301dc19a975823854dbd641c597f637f8d053a83b9514673eb");
        let [d, a, e] = children(Hash::Sha1, &skeyid, &secret, &hex!("8c3bcd3a69831d7f d2d9a7ff4fbe95a7"));
        assert_eq!(*d, hex!("384be709a8a5e63c3ed160cfe3921c4b37d5b32d"));
        assert_eq!(*a, hex!("48b327575abe3adba0f279849e289022a13e2b47"));
        assert_eq!(*e, hex!("a4a415c8e0c38c0da847c356cc61c24df8025560"));
        let skeyid = hex!("750c5c94b9c2ec20b68033e024dadf0fa87e8b48c6561b21c72478451a06583d");
        let secret = hex!("a1ff3dc6cf9b4c04709943cb4ca1f1789bcf360b03f1d027de3ae8ee039e9155");
        let [d, a, e] = children(Hash::Sha256, &skeyid, &secret, &hex!("6c6beb72631ddc3d b84e24b22cffbd14"));
        assert_eq!(*d, hex!("a4f7ca7de913814813e3312099e7c943bd293483f387532330237f1b20957310"));
        assert_eq!(*a, hex!("1d4b705746c43b0a6fcbb8db33983c0f24ff6f8b6543e3779fed227c6067f004"));
        assert_eq!(*e, hex!("03e6f16cd9ce9f64b5cdc5b34cca7163483ba5389a30afebef3d14640b0a815e"));
    }

    #[test]
    fn the_key_of_phase_1_is_cut_or_expanded_as_appendix_b_says() {
        let skeyid_e = hex!("63e81194946ebd05df7df5ebf5d8750056bf1f1d");
        let long = "933347a07de5782247dd36d1562ffe0eecade1eb4134165257e3af1000af8ae3f165063828cbb60d";
        let of = |hash, skeyid_e: &[u8], length| -> String {
            encryption_key(hash, skeyid_e, length).iter().map(|octet| format!("{octet:02x}")).collect()
        };
        assert_eq!(of(Hash::Sha1, &skeyid_e, 40), long);
        assert_eq!(of(Hash::Sha1, &skeyid_e, 15), "63e81194946ebd05df7df5ebf5d875");
        let skeyid_e = hex!("5f00d1bd2c58ec224b1e6b71fa0f19a1faa7a193952c444411b47c1a9d8ba6fe");
        assert_eq!(of(Hash::Sha256, &skeyid_e, 15), "5f00d1bd2c58ec224b1e6b71fa0f19");
        let longer = "b10fff32cbeaa1e7afe6ab0b191e0bd63cd524849a4b56019146d232a24cf9af6b89494d2a360b06";
        assert_eq!(of(Hash::Sha256, &skeyid_e, 40), longer);
    }

    #[test]
    fn keymat_is_expanded_as_section_5_5_says() {
        let key = hex!("63e81194946ebd05df7df5ebf5d8750056bf1f1d");
        let long = hex!("933347a07de5782247dd36d1562ffe0eecade1ebaeaa476a5f578c34a9b2b7101a621202f61db924");
        assert_eq!(*expand(Hash::Sha1, &key, &[&[0]], 40), long);
        assert_eq!(*expand(Hash::Sha1, &key, &[&[], &[0]], 15), long[..15]);
        let key = hex!("5f00d1bd2c58ec224b1e6b71fa0f19a1faa7a193952c444411b47c1a9d8ba6fe");
        let long = hex!("b10fff32cbeaa1e7afe6ab0b191e0bd63cd524849a4b56019146d232a24cf9af59f18ed9aabbb2db");
        assert_eq!(*expand(Hash::Sha256, &key, &[&[0]], 40), long);
    }
}
