//! Authorities and certificates for tests.

use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, SignatureAlgorithm, date_time_ymd,
};

use super::{Certificate, Clock, Pem};
use crate::ike::payload::Identity;

/// The year in which tests take place.
const YEAR: i32 = 2030;

/// The first of January of that year, since the Unix epoch.
pub(in crate::ike) const NOW: Duration = Duration::from_secs(1_893_456_000);

/// An authority.
pub(in crate::ike) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Itself and those above it up to the one that is trusted.
    above: String,
}

/// A certificate that was issued.
#[derive(Clone)]
pub(in crate::ike) struct Issued {
    /// With those of the intermediate authorities.
    pub(in crate::ike) chain: String,
    pub(in crate::ike) key: String,
}

pub(in crate::ike) fn params(name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.not_before = date_time_ymd(YEAR - 1, 1, 1);
    params.not_after = date_time_ymd(YEAR + 1, 1, 1);
    params
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = params(name, &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl Authority {
    /// One of its own.
    pub(in crate::ike) fn new(name: &str) -> Self {
        Self::with(name, |_| ())
    }

    pub(in crate::ike) fn with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = authority_params(name);
        change(&mut params);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer, above: String::new() }
    }

    /// One below this one.
    pub(in crate::ike) fn below(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = authority_params(name);
        change(&mut params);
        let issuer = CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &self.issuer).unwrap();
        let above = issuer.pem() + &self.above;
        Self { issuer, above }
    }

    /// `ca.crt`.
    pub(in crate::ike) fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub(in crate::ike) fn issue(&self, algorithm: &'static SignatureAlgorithm, params: &CertificateParams) -> Issued {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Issued { chain: certificate.pem() + &self.above, key: key.serialize_pem() }
    }

    /// A revocation list that has to be replaced in `next_year`.
    pub(in crate::ike) fn revoke(&self, serials: &[u64], next_year: i32) -> String {
        let revoked = |&serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(YEAR - 1, 6, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(YEAR - 1, 6, 1),
            next_update: date_time_ymd(next_year, 12, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

impl Issued {
    /// What an end with this certificate knows.
    pub(in crate::ike) fn trusting(
        &self,
        authorities: &str,
        revocations: Option<&str>,
        names: &[Identity],
    ) -> Certificate {
        let pem = Pem {
            chain: self.chain.as_bytes(),
            key: self.key.as_bytes(),
            authorities: authorities.as_bytes(),
            revocations: revocations.map(str::as_bytes),
        };
        Certificate::read(pem, names.to_vec(), Clock { instant: Instant::now(), unix: NOW }).unwrap()
    }
}
