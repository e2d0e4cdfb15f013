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

    use rand::SeedableRng as _;

    use super::*;

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
}
