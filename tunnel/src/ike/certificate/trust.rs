//! Whether a chain leads from a certificate to an authority that is trusted (RFC 5280 section 6), by webpki: signatures, validity,
//! basicConstraints, name constraints, critical extensions, revocation lists.

use std::time::Duration;

use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, ExtendedKeyUsageValidator, KeyPurposeIdIter,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy, VerifiedPath, anchor_from_trusted_cert,
};

use super::entity::Entity;
use super::{MAX_CHAIN, Problem, exchange};
use crate::crypto::signature::OF_CERTIFICATES;

/// The most authorities that are named to a peer; where more are trusted, any certificate is asked for.
const MAX_REQUESTS: usize = 8;

/// The key purposes that a certificate with extendedKeyUsage may be for. RFC 4945 section 5.1.3.12 knows the first two; the
/// others are what authorities put into certificates for gateways and machines of the operating systems.
const PURPOSES: [&[usize]; 8] = [
    // ipsecIKE, anyExtendedKeyUsage
    &[1, 3, 6, 1, 5, 5, 7, 3, 17],
    &[2, 5, 29, 37, 0],
    // serverAuth, clientAuth, iKEIntermediate
    &[1, 3, 6, 1, 5, 5, 7, 3, 1],
    &[1, 3, 6, 1, 5, 5, 7, 3, 2],
    &[1, 3, 6, 1, 5, 5, 8, 2, 2],
    // ipsecEndSystem, ipsecTunnel, ipsecUser
    &[1, 3, 6, 1, 5, 5, 7, 3, 5],
    &[1, 3, 6, 1, 5, 5, 7, 3, 6],
    &[1, 3, 6, 1, 5, 5, 7, 3, 7],
];

/// What a peer's certificate is judged by.
pub(super) struct Trust {
    authorities: Vec<Entity>,
    revocations: Vec<CertRevocationList<'static>>,
}

impl Trust {
    pub(super) fn new(authorities: Vec<Entity>, revocations: Vec<CertRevocationList<'static>>) -> Self {
        Self { authorities, revocations }
    }

    /// The bodies of CERTREQ payloads.
    pub(super) fn requests(&self) -> Vec<Vec<u8>> {
        let named: Option<Vec<&[u8]>> = self.authorities.iter().map(Entity::subject).collect();
        match named.filter(|named| named.len() <= MAX_REQUESTS) {
            Some(named) => named.into_iter().map(exchange::request).collect(),
            None => vec![exchange::request(&[])],
        }
    }

    /// Looks for a chain over the intermediate authorities in `others`, in DER.
    pub(super) fn verify(&self, end: &Entity, others: &[Vec<u8>], unix: Duration) -> Result<(), Problem> {
        if !end.may_sign() {
            return Err(Problem::Usage);
        }
        let roots: Vec<CertificateDer<'_>> = self
            .authorities
            .iter()
            // webpki takes an authority for trusted whatever time it is.
            .filter(|authority| authority.is_valid(unix))
            .map(|authority| CertificateDer::from(authority.der()))
            .collect();
        let anchors: Vec<_> = roots.iter().filter_map(|der| anchor_from_trusted_cert(der).ok()).collect();
        let intermediates: Vec<CertificateDer<'_>> =
            others.iter().take(MAX_CHAIN).map(|der| CertificateDer::from(der.as_slice())).collect();
        let der = CertificateDer::from(end.der());
        let certificate = EndEntityCert::try_from(&der).map_err(|error| problem(&error))?;
        let lists: Vec<&CertRevocationList<'_>> = self.revocations.iter().collect();
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            // A list that is late still says who was revoked before; that it is late is told where it is read.
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Allow)
                .with_expiration_policy(ExpirationPolicy::Ignore)
                .build()
        });
        let time = UnixTime::since_unix_epoch(unix);
        certificate
            .verify_for_usage(
                OF_CERTIFICATES,
                &anchors,
                &intermediates,
                time,
                ForIke,
                revocation,
                Some(&issuers_may_issue),
            )
            .map(|_| ())
            .map_err(|error| problem(&error))
    }
}

/// webpki leaves keyUsage of issuers alone; RFC 5280 section 6.1.4 (n) does not.
fn issuers_may_issue(path: &VerifiedPath<'_>) -> Result<(), webpki::Error> {
    let may = path
        .intermediate_certificates()
        .all(|issuer| Entity::read(&issuer.der()).is_some_and(|issuer| issuer.may_issue()));
    if may { Ok(()) } else { Err(webpki::Error::EndEntityUsedAsCa) }
}

/// extendedKeyUsage, where there is one, has a purpose that IKE is.
struct ForIke;

impl ExtendedKeyUsageValidator for ForIke {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let mut none = true;
        for purpose in purposes {
            none = false;
            if PURPOSES.contains(&purpose?.to_decoded_oid().as_slice()) {
                return Ok(());
            }
        }
        if none { Ok(()) } else { Err(webpki::Error::EmptyEkuExtension) }
    }
}

#[expect(deprecated, reason = "webpki may still return them")]
fn problem(error: &webpki::Error) -> Problem {
    use webpki::Error;
    match error {
        Error::CertExpired { .. } => Problem::Expired,
        Error::CertNotValidYet { .. } => Problem::NotYetValid,
        Error::CertRevoked => Problem::Revoked,
        Error::InvalidSignatureForPublicKey | Error::InvalidCrlSignatureForPublicKey => Problem::WrongSignature,
        Error::UnsupportedSignatureAlgorithm
        | Error::UnsupportedSignatureAlgorithmContext(_)
        | Error::UnsupportedSignatureAlgorithmForPublicKey
        | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
        | Error::UnsupportedCrlSignatureAlgorithm
        | Error::UnsupportedCrlSignatureAlgorithmContext(_)
        | Error::UnsupportedCrlSignatureAlgorithmForPublicKey
        | Error::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_) => Problem::Weak,
        Error::EmptyEkuExtension | Error::RequiredEkuNotFound | Error::RequiredEkuNotFoundContext(_) => Problem::Usage,
        Error::CaUsedAsEndEntity
        | Error::EndEntityUsedAsCa
        | Error::PathLenConstraintViolated
        | Error::NameConstraintViolation
        | Error::IssuerNotCrlSigner => Problem::NotAnAuthority,
        Error::UnknownIssuer
        | Error::MaximumPathDepthExceeded
        | Error::MaximumPathBuildCallsExceeded
        | Error::MaximumSignatureChecksExceeded
        | Error::MaximumNameConstraintComparisonsExceeded => Problem::Untrusted,
        _ => Problem::Unreadable,
    }
}
