//! A certificate and what belongs to it, from the files of a Secret.

use std::io::ErrorKind;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::dial::{MAX_PEM, Unusable, invalid, missing, read_bounded};
use crate::config::SecretFile;
use crate::config::server::Certificate as Files;
use crate::ike::{Certificate, CertificateFile, Clock, Identity, Pem};
use crate::ppp::{Credentials as TlsCredentials, TlsServer};

/// Reads the files. The peer's certificate must have one of `names`, or any if none is given.
pub(super) fn read(files: &Files, names: Vec<Identity>) -> Result<Certificate, Unusable> {
    let (chain, key, authorities) = (read_pem(&files.chain)?, read_pem(&files.key)?, read_pem(&files.authorities)?);
    let revocations = match files.revocations.as_ref().map(|file| read_bounded(&file.path, MAX_PEM)) {
        Some(Err(error)) if error.kind() != ErrorKind::NotFound => {
            return Err(invalid(of(files, CertificateFile::Revocations), &format!("cannot be read: {error}.")));
        }
        read => read.and_then(Result::ok),
    };
    let revocations = revocations.as_ref().map(|pem| pem.as_slice());
    let pem = Pem { chain: &chain, key: &key, authorities: &authorities, revocations };
    let clock =
        Clock { instant: Instant::now(), unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() };
    Certificate::read(pem, names, clock).map_err(|unusable| invalid(of(files, unusable.file), &unusable.problem))
}

/// Reads the same files for EAP-TLS.
pub(super) fn read_eap_tls(files: &Files) -> Result<TlsServer, Unusable> {
    let unusable = |file: &SecretFile, error: pem::Error| invalid(file, &format!("is not PEM throughout: {error}."));
    let certificates = |file: &SecretFile| {
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read_pem(file)?).collect();
        read.map_err(|error| unusable(file, error))
    };
    let key = PrivateKeyDer::from_pem_slice(&read_pem(&files.key)?).map_err(|error| unusable(&files.key, error))?;
    let revocations = files.revocations.as_ref().and_then(|file| Some((file, read_bounded(&file.path, MAX_PEM).ok()?)));
    let revocations = revocations.map(|(file, pem)| {
        let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&pem).collect();
        lists.map_err(|error| unusable(file, error))
    });
    let credentials = TlsCredentials {
        chain: certificates(&files.chain)?,
        key,
        authorities: certificates(&files.authorities)?,
        revocations: revocations.transpose()?.unwrap_or_default(),
    };
    TlsServer::new(credentials).map_err(|error| invalid(&files.chain, &format!("cannot be used: {error}.")))
}

/// What will fail or is neglected, as sentences.
pub(super) fn warnings(files: &Files, certificate: &Certificate) -> Vec<String> {
    let warnings = certificate.warnings(Instant::now()).into_iter();
    warnings.map(|(file, problem)| invalid(of(files, file), &problem).message).collect()
}

fn of(files: &Files, file: CertificateFile) -> &SecretFile {
    match file {
        CertificateFile::Chain => &files.chain,
        CertificateFile::Key => &files.key,
        CertificateFile::Authorities => &files.authorities,
        CertificateFile::Revocations => files.revocations.as_ref().unwrap_or(&files.authorities),
    }
}

fn read_pem(file: &SecretFile) -> Result<Zeroizing<Vec<u8>>, Unusable> {
    read_bounded(&file.path, MAX_PEM).map_err(|error| match error.kind() {
        ErrorKind::NotFound => missing(file),
        _ => invalid(file, &format!("cannot be read: {error}.")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::scratch::Scratch;
    use crate::report::Reason;

    fn files(folder: &Scratch, contents: [&str; 3]) -> Files {
        let [chain, key, authorities] = contents;
        let file = |name: &str, content: &str| SecretFile {
            path: folder.write(name, content.as_bytes()),
            source: Some(format!("key {name} of Secret oslo-tls")),
        };
        Files {
            chain: file("tls.crt", chain),
            key: file("tls.key", key),
            authorities: file("ca.crt", authorities),
            revocations: None,
            remote_id: None,
        }
    }

    /// `tls.crt`, `tls.key`, `ca.crt`.
    fn issued(change: impl FnOnce(&mut rcgen::CertificateParams)) -> [String; 3] {
        let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        authority.distinguished_name.push(rcgen::DnType::CommonName, "Test CA");
        let authority = rcgen::CertifiedIssuer::self_signed(authority, rcgen::KeyPair::generate().unwrap()).unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["client.example.com".to_owned()]).unwrap();
        change(&mut params);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        [certificate.pem(), key.serialize_pem(), authority.pem()]
    }

    #[test]
    fn the_files_of_a_tls_secret_are_read_and_a_missing_list_revokes_nothing() {
        let folder = Scratch::new();
        let [chain, key, authorities] = issued(|_| ());
        let mut files = files(&folder, [&chain, &key, &authorities]);
        files.revocations = Some(SecretFile { path: folder.path().join("ca.crl"), source: None });
        let certificate = read(&files, Vec::new()).unwrap_or_else(|unusable| panic!("{}", unusable.message));
        assert!(certificate.has_name(&Identity::Fqdn("client.example.com".to_owned())));
        assert!(warnings(&files, &certificate).is_empty());
        folder.write("ca.crl", b"-----BEGIN X509 CRL-----\nMA==\n-----END X509 CRL-----\n");
        assert!(read(&files, Vec::new()).is_err());
    }

    #[test]
    fn what_cannot_be_used_is_called_what_its_owner_calls_it() {
        let folder = Scratch::new();
        let [chain, key, authorities] = issued(|_| ());
        let [_, other, _] = issued(|_| ());
        let unusable = read(&files(&folder, [&chain, &other, &authorities]), Vec::new()).err().unwrap();
        assert_eq!(unusable.reason, Reason::CredentialsInvalid);
        assert!(
            unusable.message.starts_with("The key tls.key of Secret oslo-tls is not the key"),
            "{}",
            unusable.message
        );
        let mut gone = files(&folder, [&chain, &key, &authorities]);
        gone.authorities.path = folder.path().join("none");
        let unusable = read(&gone, Vec::new()).err().unwrap();
        assert_eq!(unusable.reason, Reason::CredentialsMissing);
        assert_eq!(unusable.message, "The key ca.crt of Secret oslo-tls does not exist: create it.");
    }

    #[test]
    fn a_certificate_that_has_expired_is_warned_about() {
        let folder = Scratch::new();
        let [chain, key, authorities] = issued(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
        let files = files(&folder, [&chain, &key, &authorities]);
        let certificate = read(&files, Vec::new()).unwrap_or_else(|unusable| panic!("{}", unusable.message));
        assert_eq!(warnings(&files, &certificate), ["The key tls.crt of Secret oslo-tls has expired: renew it."]);
    }
}
