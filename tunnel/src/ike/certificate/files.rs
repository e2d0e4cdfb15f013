//! Certificates from PEM (RFC 7468), as cert-manager and `kubectl create secret tls` write it: `tls.crt`, `tls.key`, `ca.crt`.

use std::time::{Duration, Instant};

use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use webpki::{CertRevocationList, OwnedCertRevocationList, anchor_from_trusted_cert};
use x509_cert::certificate::Rfc5280;
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode as _;
use zeroize::Zeroize as _;

use super::entity::{Entity, title};
use super::trust::Trust;
use super::{Certificate, Clock, MAX_CHAIN};
use crate::crypto::signature::SigningKey;
use crate::ike::message::MAX_MESSAGE;
use crate::ike::payload::Identity;

/// The most authorities that are read.
const MAX_AUTHORITIES: usize = 64;

/// The most octets of our certificates: what else a message has with them fits behind.
const MAX_CHAIN_OCTETS: usize = MAX_MESSAGE / 4 * 3;

/// The most revocation lists that are read.
const MAX_REVOCATIONS: usize = 64;

/// The contents of the files.
#[derive(Clone, Copy)]
pub struct Pem<'a> {
    /// `tls.crt`: our certificate, and those of intermediate authorities behind it.
    pub chain: &'a [u8],
    /// `tls.key`: the private key as PKCS#8, PKCS#1 or SEC1.
    pub key: &'a [u8],
    /// `ca.crt`: the authorities that peers' certificates come from.
    pub authorities: &'a [u8],
    /// Revocation lists of those authorities.
    pub revocations: Option<&'a [u8]>,
}

/// Which of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum File {
    /// `tls.crt`
    Chain,
    /// `tls.key`
    Key,
    /// `ca.crt`
    Authorities,
    /// The revocation lists.
    Revocations,
}

/// What is wrong with a file; nothing of its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// Which file.
    pub file: File,
    /// What is wrong with it, and the remedy: the end of a sentence that begins with its name.
    pub problem: String,
}

fn unusable(file: File, problem: impl Into<String>) -> Unusable {
    Unusable { file, problem: problem.into() }
}

impl Certificate {
    /// Reads the files. A peer's certificate must have one of `remote_names`, or any if none is given.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn read(pem: Pem<'_>, remote_names: Vec<Identity>, clock: Clock) -> Result<Self, Unusable> {
        let authorities = authorities(pem.authorities)?;
        let mut chain = certificates(File::Chain, pem.chain)?;
        let own = Entity::read(chain.first().ok_or_else(|| unusable(File::Chain, NO_CERTIFICATE))?)
            .ok_or_else(|| unusable(File::Chain, "begins with a certificate that cannot be read."))?;
        // RFC 4945 section 3.3: authorities that are trusted "SHOULD NOT" be sent.
        chain.retain(|der| authorities.iter().all(|authority| authority.der() != der));
        if chain.len() > MAX_CHAIN {
            return Err(unusable(
                File::Chain,
                format!("holds more than {MAX_CHAIN} certificates: leave the others out."),
            ));
        }
        if chain.iter().map(Vec::len).sum::<usize>() > MAX_CHAIN_OCTETS {
            return Err(unusable(
                File::Chain,
                format!(
                    "has more than {MAX_CHAIN_OCTETS} octets of certificates, which no message takes: use smaller ones."
                ),
            ));
        }
        let key = key(pem.key)?;
        if key.public_key().ok().as_deref() != Some(own.key_octets()) {
            return Err(unusable(File::Key, "is not the key of the certificate: put both from the same source there."));
        }
        if !own.may_sign() {
            return Err(unusable(File::Chain, "is not for signatures by its key usage: let it have digitalSignature."));
        }
        let (revocations, next_updates) = pem.revocations.map(revocations).transpose()?.unwrap_or_default();
        let trust = Trust::new(authorities, revocations);
        Ok(Self { key, own, chain, trust, next_updates, remote_names, clock })
    }

    /// What will fail or is neglected: our certificate is not valid, or a revocation list is late. Each is the end of a sentence
    /// that begins with the name of the file.
    pub fn warnings(&self, now: Instant) -> Vec<(File, String)> {
        let unix = self.clock.at(now);
        let mut warnings = Vec::new();
        if unix > self.own.expires() {
            warnings.push((File::Chain, "has expired: renew it.".to_owned()));
        } else if !self.own.is_valid(unix) {
            warnings.push((File::Chain, "is not valid yet: check the clock of this host.".to_owned()));
        }
        for NextUpdate { issuer, .. } in self.next_updates.iter().filter(|next| next.due < unix) {
            let problem = "should have been replaced: what was revoked since is not known.";
            warnings.push((File::Revocations, format!("holds a list of {issuer} that {problem}")));
        }
        warnings
    }
}

const NO_CERTIFICATE: &str = "holds no certificate in PEM: it begins with -----BEGIN CERTIFICATE-----.";

fn certificates(file: File, pem: &[u8]) -> Result<Vec<Vec<u8>>, Unusable> {
    let all: Result<Vec<Vec<u8>>, pem::Error> =
        CertificateDer::pem_slice_iter(pem).take(MAX_AUTHORITIES).map(|der| der.map(|der| der.to_vec())).collect();
    let all = all.map_err(|_| unusable(file, "is not PEM throughout: a certificate in it is damaged."))?;
    if all.is_empty() { Err(unusable(file, NO_CERTIFICATE)) } else { Ok(all) }
}

fn authorities(pem: &[u8]) -> Result<Vec<Entity>, Unusable> {
    let read = |der: &Vec<u8>| {
        let entity =
            Entity::read(der).filter(|_| anchor_from_trusted_cert(&CertificateDer::from(der.as_slice())).is_ok());
        let entity = entity.ok_or_else(|| unusable(File::Authorities, "holds a certificate that cannot be read."))?;
        if entity.may_issue() {
            Ok(entity)
        } else {
            let problem = format!("holds the certificate of {}, which is no authority: leave it out.", entity.title());
            Err(unusable(File::Authorities, problem))
        }
    };
    certificates(File::Authorities, pem)?.iter().map(read).collect()
}

fn key(pem: &[u8]) -> Result<SigningKey, Unusable> {
    let mut der = PrivateKeyDer::from_pem_slice(pem).map_err(|_| {
        unusable(File::Key, "holds no private key in PEM (PKCS#8, PKCS#1 or SEC1, without a pass phrase).")
    })?;
    let problem = "holds a private key that cannot be used: RSA from 2048 to 8192 bits, P-256 and P-384 can.";
    let key = SigningKey::read(&der).map_err(|_| unusable(File::Key, problem));
    der.zeroize();
    key
}

/// When a revocation list has to be replaced.
pub(super) struct NextUpdate {
    issuer: String,
    /// Since the Unix epoch.
    due: Duration,
}

fn revocations(pem: &[u8]) -> Result<(Vec<CertRevocationList<'static>>, Vec<NextUpdate>), Unusable> {
    let unreadable = || unusable(File::Revocations, "holds a revocation list that cannot be read.");
    let (mut lists, mut next_updates) = (Vec::new(), Vec::new());
    for der in CertificateRevocationListDer::pem_slice_iter(pem).take(MAX_REVOCATIONS) {
        let der = der.map_err(|_| unreadable())?;
        let list = OwnedCertRevocationList::from_der(&der).map_err(|_| unreadable())?;
        let dates = CertificateList::<Rfc5280>::from_der(&der).map_err(|_| unreadable())?.tbs_cert_list;
        let due = dates.next_update.map(|time| time.to_unix_duration());
        next_updates.extend(due.map(|due| NextUpdate { issuer: title(&dates.issuer), due }));
        lists.push((dates.this_update.to_unix_duration(), CertRevocationList::from(list)));
    }
    // Of two lists of one issuer the newer one counts.
    lists.sort_by_key(|(updated, _)| std::cmp::Reverse(*updated));
    Ok((lists.into_iter().map(|(_, list)| list).collect(), next_updates))
}
