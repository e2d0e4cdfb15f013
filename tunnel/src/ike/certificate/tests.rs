use rand::SeedableRng;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256 as P256, PKCS_ECDSA_P384_SHA384 as P384, PKCS_RSA_SHA256 as RSA, SanType, SerialNumber,
    date_time_ymd,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::pki::{Authority, Issued, NOW, params};
use super::*;
use crate::ike::registry::{CertificateEncoding, IdType};

const HASH: [u8; 32] = [0x5a; 32];

fn fqdn(name: &str) -> Identity {
    Identity::Fqdn(name.to_owned())
}

/// Our side, with a certificate of its own.
fn judge(authority: &Authority, revocations: Option<&str>, names: &[Identity]) -> Certificate {
    let own = authority.issue(&P256, &params("judge", &["judge.example.com"]));
    own.trusting(&authority.pem(), revocations, names)
}

fn ders(chain: &str) -> Vec<Vec<u8>> {
    CertificateDer::pem_slice_iter(chain.as_bytes()).map(|der| der.unwrap().to_vec()).collect()
}

/// CERT payloads and SIG of a peer, as the body of a message.
fn message(certificates: &[Vec<u8>], signature: &[u8]) -> (PayloadType, Vec<u8>) {
    let mut chain = Chain::new();
    certificates.iter().for_each(|body| chain.push(PayloadType::CERT, body));
    chain.push(PayloadType::SIG, signature);
    (chain.first(), chain.octets().to_vec())
}

fn verdict(
    judge: &Certificate,
    (first, octets): &(PayloadType, Vec<u8>),
    id: &Identity,
    expected: Option<&Identity>,
) -> Result<Peer, Error> {
    let payloads = Payloads::read(*first, octets).unwrap();
    judge.judge(judge.clock.instant, &payloads, &id.body(0, 0), &HASH, expected)
}

/// What `judge` says of a peer with this certificate, which signs and calls itself `id`.
fn verdict_on(judge: &Certificate, peer: &Issued, id: &Identity) -> Result<Peer, Error> {
    let key = SigningKey::read(&PrivateKeyDer::from_pem_slice(peer.key.as_bytes()).unwrap()).unwrap();
    let signature = key.sign(&mut StdRng::seed_from_u64(1), &HASH).unwrap();
    let certificates: Vec<Vec<u8>> = ders(&peer.chain).iter().map(|der| exchange::certificate(der)).collect();
    verdict(judge, &message(&certificates, &signature), id, None)
}

fn problem(verdict: Result<Peer, Error>) -> Option<Problem> {
    match verdict {
        Err(Error::InvalidCertificate { problem, .. }) => Some(problem),
        _ => None,
    }
}

/// The problem with a peer's certificate of `authority` that was changed.
fn problem_with(authority: &Authority, change: impl FnOnce(&mut CertificateParams)) -> Option<Problem> {
    let mut changed = params("peer", &["peer.example.com"]);
    change(&mut changed);
    let peer = authority.issue(&P256, &changed);
    let root = Authority::new("root of the judge");
    let own = root.issue(&P256, &params("judge", &[]));
    problem(verdict_on(&own.trusting(&authority.pem(), None, &[]), &peer, &fqdn("peer.example.com")))
}

#[test]
fn a_certificate_of_a_trusted_authority_is_believed_with_each_algorithm() {
    let root = Authority::new("root");
    for algorithm in [&RSA, &P256, &P384] {
        let judge = root.issue(algorithm, &params("judge", &[])).trusting(&root.pem(), None, &[]);
        let peer = root.issue(algorithm, &params("peer", &["peer.example.com"]));
        let peer = verdict_on(&judge, &peer, &fqdn("PEER.example.com")).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((peer.subject.as_str(), peer.id), ("CN=peer", fqdn("PEER.example.com")));
    }
}

#[test]
fn a_chain_over_intermediate_authorities_is_found_in_any_order() {
    let root = Authority::new("root");
    let peer = root.below("first", |_| ()).below("second", |_| ()).issue(&P256, &params("peer", &["peer.example.com"]));
    let judge = judge(&root, None, &[]);
    let peer = peer.trusting(&root.pem(), None, &[]);
    assert_eq!(peer.chain.len(), 3);
    let signature = peer.sign(&mut StdRng::seed_from_u64(1), &HASH).unwrap();
    let mut certificates: Vec<Vec<u8>> = peer.chain.iter().map(|der| exchange::certificate(der)).collect();
    certificates.reverse();
    certificates.push(certificates[0].clone());
    let id = fqdn("peer.example.com");
    assert!(verdict(&judge, &message(&certificates, &signature), &id, None).is_ok());
    certificates.retain(|body| *body != exchange::certificate(&peer.chain[1]));
    let broken = verdict(&judge, &message(&certificates, &signature), &id, None);
    assert_eq!(problem(broken), Some(Problem::Untrusted));
}

#[test]
fn a_certificate_of_another_authority_is_refused() {
    let (root, other) = (Authority::new("root"), Authority::new("other"));
    let peer = other.issue(&P256, &params("peer", &["peer.example.com"]));
    let id = fqdn("peer.example.com");
    assert_eq!(problem(verdict_on(&judge(&root, None, &[]), &peer, &id)), Some(Problem::Untrusted));
    // One that only has the same name.
    let peer = Authority::new("root").issue(&P256, &params("peer", &["peer.example.com"]));
    assert_eq!(problem(verdict_on(&judge(&root, None, &[]), &peer, &id)), Some(Problem::WrongSignature));
}

#[test]
fn certificates_and_authorities_out_of_their_time_are_refused() {
    let root = Authority::new("root");
    let old = |params: &mut CertificateParams| params.not_after = date_time_ymd(2029, 12, 1);
    let new = |params: &mut CertificateParams| params.not_before = date_time_ymd(2030, 2, 1);
    assert_eq!(problem_with(&root, old), Some(Problem::Expired));
    assert_eq!(problem_with(&root, new), Some(Problem::NotYetValid));
    assert_eq!(problem_with(&Authority::with("root", old), |_| ()), Some(Problem::Untrusted));
    let judge = judge(&root, None, &[]);
    let id = fqdn("peer.example.com");
    let peer = root.below("old", old).issue(&P256, &params("peer", &["peer.example.com"]));
    assert_eq!(problem(verdict_on(&judge, &peer, &id)), Some(Problem::Expired));
}

#[test]
fn what_was_revoked_is_refused_even_if_the_list_is_late() {
    let root = Authority::new("root");
    let numbered = |serial: u64| move |params: &mut CertificateParams| params.serial_number = Some(serial.into());
    let middle = root.below("middle", numbered(7));
    let issue = |authority: &Authority, serial: u64| {
        let mut params = params("peer", &["peer.example.com"]);
        params.serial_number = Some(SerialNumber::from(serial));
        authority.issue(&P256, &params)
    };
    let id = fqdn("peer.example.com");
    for (list, late) in [(root.revoke(&[3, 7], 2030), false), (root.revoke(&[3, 7], 2029), true)] {
        let judge = judge(&root, Some(&list), &[]);
        assert_eq!(problem(verdict_on(&judge, &issue(&root, 3), &id)), Some(Problem::Revoked));
        assert_eq!(problem(verdict_on(&judge, &issue(&middle, 3), &id)), Some(Problem::Revoked));
        assert!(verdict_on(&judge, &issue(&root, 4), &id).is_ok());
        let warnings = judge.warnings(judge.clock.instant);
        assert_eq!(warnings.iter().map(|(file, _)| *file).collect::<Vec<_>>(), vec![File::Revocations; late.into()]);
    }
    let judge = judge(&root, Some(&middle.revoke(&[3], 2030)), &[]);
    assert!(verdict_on(&judge, &issue(&root, 3), &id).is_ok(), "the list of another authority");
    assert_eq!(problem(verdict_on(&judge, &issue(&middle, 3), &id)), Some(Problem::Revoked));
}

/// A certificate that OpenSSL made.
fn fixture(pem: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

#[test]
fn weak_signatures_and_keys_are_refused() {
    let authority = Entity::read(&fixture(include_str!("fixtures/authority.pem"))).unwrap();
    let trust = Trust::new(vec![authority], Vec::new());
    let verify = |pem| trust.verify(&Entity::read(&fixture(pem)).unwrap(), &[], NOW);
    assert_eq!(verify(include_str!("fixtures/good.pem")), Ok(()));
    assert_eq!(verify(include_str!("fixtures/sha1.pem")), Err(Problem::Weak));
    let short = Entity::read(&fixture(include_str!("fixtures/short.pem"))).unwrap();
    assert!(short.key().is_err());
}

#[test]
fn a_signature_by_another_key_or_over_another_hash_is_refused() {
    let root = Authority::new("root");
    let judge = judge(&root, None, &[]);
    for algorithm in [&P256] {
        let [peer, other] = ["peer", "other"]
            .map(|name| root.issue(algorithm, &params(name, &["peer.example.com"])).trusting(&root.pem(), None, &[]));
        let certificates = [exchange::certificate(&peer.chain[0])];
        let id = fqdn("peer.example.com");
        let mut rng = StdRng::seed_from_u64(1);
        let right = peer.sign(&mut rng, &HASH).unwrap();
        let mut tampered = right.clone();
        tampered[9] ^= 1;
        let wrong = [tampered, peer.sign(&mut rng, &[0; 32]).unwrap(), other.sign(&mut rng, &HASH).unwrap(), vec![]];
        assert!(verdict(&judge, &message(&certificates, &right), &id, None).is_ok());
        for signature in wrong {
            let verdict = verdict(&judge, &message(&certificates, &signature), &id, None);
            assert_eq!(verdict.err(), Some(Error::InvalidSignature));
        }
    }
}

#[test]
fn a_certificate_of_another_kind_than_agreed_is_refused() {
    let root = Authority::new("root");
    let peer = root.issue(&P384, &params("peer", &["peer.example.com"]));
    let verdict = verdict_on(&judge(&root, None, &[]), &peer, &fqdn("peer.example.com"));
    assert_eq!(problem(verdict), Some(Problem::Weak));
}

#[test]
fn the_identity_must_be_in_the_certificate() {
    let root = Authority::new("root");
    let judge = judge(&root, None, &[]);
    let mut names = params("peer", &["peer.example.com", "192.0.2.7", "2001:db8::7"]);
    names.subject_alt_names.push(SanType::Rfc822Name("peer@example.com".try_into().unwrap()));
    let peer = root.issue(&P256, &names);
    let subject = Entity::read(&fixture(&peer.chain)).unwrap().subject().unwrap().to_vec();
    let other = Entity::read(&fixture(&root.pem())).unwrap().subject().unwrap().to_vec();
    for right in [
        fqdn("peer.example.com"),
        Identity::Address([192, 0, 2, 7].into()),
        Identity::Address("2001:db8::7".parse().unwrap()),
        Identity::UserFqdn("peer@example.com".to_owned()),
        Identity::DistinguishedName(subject.clone()),
    ] {
        assert!(verdict_on(&judge, &peer, &right).is_ok(), "{right}");
    }
    for wrong in [
        fqdn("other.example.com"),
        fqdn("peer"),
        Identity::Address([192, 0, 2, 8].into()),
        Identity::UserFqdn("peer.example.com".to_owned()),
        Identity::DistinguishedName(other),
        Identity::KeyId(subject),
        Identity::Other { kind: IdType::DER_ASN1_GN, data: b"peer.example.com".to_vec() },
    ] {
        let error = verdict_on(&judge, &peer, &wrong).err();
        assert_eq!(error, Some(Error::NotInCertificate { subject: "CN=peer".to_owned(), name: wrong }));
    }
}

#[test]
fn an_empty_subject_is_no_identity() {
    let root = Authority::new("root");
    let mut nameless = params("", &["peer.example.com"]);
    nameless.distinguished_name = rcgen::DistinguishedName::new();
    let peer = root.issue(&P256, &nameless);
    let judge = judge(&root, None, &[]);
    assert!(verdict_on(&judge, &peer, &Identity::DistinguishedName(vec![0x30, 0])).is_err());
    assert_eq!(
        verdict_on(&judge, &peer, &fqdn("peer.example.com")).unwrap_or_else(|e| panic!("{e}")).subject,
        "peer.example.com"
    );
    assert_eq!(peer.trusting(&root.pem(), None, &[]).identity(None), Ok(fqdn("peer.example.com")));
}

#[test]
fn the_names_that_are_asked_for_must_be_in_the_certificate() {
    let root = Authority::new("root");
    let id = fqdn("a.example.com");
    let peer = root.issue(&P256, &params("peer", &["a.example.com", "b.example.com"]));
    for (names, right) in [
        (&[][..], true),
        (&["b.example.com"], true),
        (&["c.example.com", "b.example.com"], true),
        (&["c.example.com"], false),
    ] {
        let names: Vec<Identity> = names.iter().map(|name| fqdn(name)).collect();
        let verdict = verdict_on(&judge(&root, None, &names), &peer, &id);
        assert_eq!(verdict.is_ok(), right, "{names:?}");
    }
    let judge = judge(&root, None, &[]);
    let peer = peer.trusting(&root.pem(), None, &[]);
    let signature = peer.sign(&mut StdRng::seed_from_u64(1), &HASH).unwrap();
    let message = message(&[exchange::certificate(&peer.chain[0])], &signature);
    assert!(verdict(&judge, &message, &id, Some(&fqdn("b.example.com"))).is_ok());
    assert!(verdict(&judge, &message, &id, Some(&fqdn("c.example.com"))).is_err());
}

#[test]
fn usages_that_leave_ike_out_are_refused() {
    let root = Authority::new("root");
    let usage = |usage| move |params: &mut CertificateParams| params.key_usages = vec![usage];
    let purpose = |purpose| move |params: &mut CertificateParams| params.extended_key_usages = vec![purpose];
    assert_eq!(problem_with(&root, usage(KeyUsagePurpose::KeyEncipherment)), Some(Problem::Usage));
    assert_eq!(problem_with(&root, usage(KeyUsagePurpose::ContentCommitment)), None);
    assert_eq!(problem_with(&root, |params| params.key_usages.clear()), None);
    assert_eq!(problem_with(&root, purpose(ExtendedKeyUsagePurpose::CodeSigning)), Some(Problem::Usage));
    assert_eq!(problem_with(&root, purpose(ExtendedKeyUsagePurpose::ServerAuth)), None);
    let ipsec_ike = ExtendedKeyUsagePurpose::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 17]);
    assert_eq!(problem_with(&root, purpose(ipsec_ike)), None);
}

#[test]
fn issuers_must_be_allowed_to_issue() {
    let root = Authority::new("root");
    let judge = judge(&root, None, &[]);
    let id = fqdn("peer.example.com");
    let below = |issuer: &Authority| {
        let peer = issuer.issue(&P256, &params("peer", &["peer.example.com"]));
        problem(verdict_on(&judge, &peer, &id))
    };
    assert_eq!(below(&root.below("fine", |_| ())), None);
    assert_eq!(below(&root.below("end", |params| params.is_ca = IsCa::ExplicitNoCa)), Some(Problem::NotAnAuthority));
    let signer = |params: &mut CertificateParams| params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    assert_eq!(below(&root.below("signer", signer)), Some(Problem::NotAnAuthority));
    let last = |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    assert_eq!(below(&root.below("last", last).below("one more", |_| ())), Some(Problem::NotAnAuthority));
    let authority = |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    assert_eq!(problem_with(&root, authority), Some(Problem::Unreadable));
}

#[test]
fn an_unknown_critical_extension_is_refused_and_another_one_is_not() {
    let root = Authority::new("root");
    let extended = |critical| {
        move |params: &mut CertificateParams| {
            let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
            extension.set_criticality(critical);
            params.custom_extensions.push(extension);
        }
    };
    assert_eq!(problem_with(&root, extended(true)), Some(Problem::Unreadable));
    assert_eq!(problem_with(&root, extended(false)), None);
}

#[test]
fn a_chain_of_more_than_eight_is_not_looked_for() {
    let root = Authority::new("root");
    let judge = judge(&root, None, &[]);
    let chain = |length| {
        let last = (0..length).fold(Authority::new("any"), |issuer, number| {
            if number == 0 { root.below("0", |_| ()) } else { issuer.below(&number.to_string(), |_| ()) }
        });
        let peer = last.issue(&P256, &params("peer", &["peer.example.com"]));
        let ders = ders(&peer.chain);
        judge.trust.verify(&Entity::read(&ders[0]).unwrap(), &ders[1..], NOW)
    };
    assert_eq!((chain(6), chain(7)), (Ok(()), Err(Problem::Untrusted)));
}

#[test]
fn pkcs_7_is_unwrapped_and_what_is_no_certificate_left_out() {
    let good = fixture(include_str!("fixtures/good.pem"));
    let authority = fixture(include_str!("fixtures/authority.pem"));
    let wrapped = include_str!("fixtures/good.p7b.pem").replace("PKCS7", "CERTIFICATE");
    let wrapped = fixture(&wrapped);
    let body = |encoding: CertificateEncoding, data: &[u8]| [&[encoding.0], data].concat();
    let received = |bodies: &[Vec<u8>]| {
        let (first, octets) = message(bodies, &[]);
        exchange::received(&Payloads::read(first, &octets).unwrap())
    };
    let both = [&good, &authority].map(Vec::clone);
    let mut found = received(&[body(CertificateEncoding::PKCS7, &wrapped)]);
    found.sort_by_key(|der| *der != good);
    assert_eq!(found, both);
    let mixed = [
        body(CertificateEncoding::CRL, &[1, 2, 3]),
        vec![],
        body(CertificateEncoding::X509_SIGNATURE, &good),
        body(CertificateEncoding::PKCS7, &wrapped),
        body(CertificateEncoding(99), &good),
    ];
    assert_eq!(received(&mixed).len(), 2);
    for length in 0..wrapped.len() {
        let cut = received(&[body(CertificateEncoding::PKCS7, &wrapped[..length])]);
        assert!(cut.is_empty(), "{length}");
    }
    let many: Vec<Vec<u8>> = (0..30).map(|octet| body(CertificateEncoding::X509_SIGNATURE, &[octet])).collect();
    assert_eq!(received(&many).len(), MAX_CHAIN);
}

#[test]
fn a_peer_without_a_certificate_is_told_apart_from_one_whose_certificate_cannot_be_read() {
    let judge = judge(&Authority::new("root"), None, &[]);
    let id = fqdn("peer.example.com");
    assert_eq!(verdict(&judge, &message(&[], &[1]), &id, None).err(), Some(Error::NoCertificate));
    let garbage = [exchange::certificate(&[0x30, 0x82, 1, 2])];
    assert_eq!(problem(verdict(&judge, &message(&garbage, &[1]), &id, None)), Some(Problem::Unreadable));
}

#[test]
fn requests_name_the_authorities_or_ask_for_any() {
    let roots: Vec<Authority> = (0..9).map(|number| Authority::new(&number.to_string())).collect();
    let requests = |count: usize| {
        let pem: String = roots.iter().take(count).map(Authority::pem).collect();
        let own = roots[0].issue(&P256, &params("own", &[])).trusting(&pem, None, &[]);
        own.trust.requests()
    };
    let subject = Entity::read(&fixture(&roots[0].pem())).unwrap().subject().unwrap().to_vec();
    assert_eq!(requests(1), [[&[4], &subject[..]].concat()]);
    assert_eq!(requests(8).len(), 8);
    assert_eq!(requests(9), [[4]]);
    let asked = |body: &[u8]| {
        let mut chain = Chain::new();
        chain.push(PayloadType::CR, body);
        asks(&Payloads::read(chain.first(), chain.octets()).unwrap())
    };
    assert!(asked(&[4]) && asked(&[1]) && asked(&[4, 0x30, 0]));
    assert!(!asked(&[]) && !asked(&[7]));
}

fn read(chain: &str, key: &str, authorities: &str, revocations: Option<&str>) -> Result<Certificate, Unusable> {
    let revocations = revocations.map(str::as_bytes);
    let pem = Pem { chain: chain.as_bytes(), key: key.as_bytes(), authorities: authorities.as_bytes(), revocations };
    Certificate::read(pem, Vec::new(), Clock { instant: Instant::now(), unix: NOW })
}

#[test]
fn files_that_cannot_be_used_are_named_with_a_remedy_and_without_their_content() {
    let root = Authority::new("root");
    let [own, other] = [0; 2].map(|_| root.issue(&P256, &params("own", &[])));
    let encipherer = |params: &mut CertificateParams| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
    let mut wrong_usage = params("own", &[]);
    encipherer(&mut wrong_usage);
    let encipherer = root.issue(&P256, &wrong_usage);
    let damaged = own.chain.replace("-----END", "????\n-----END");
    let pem = root.pem();
    assert!(read(&own.chain, &own.key, &pem, None).is_ok());
    for (result, file, problem) in [
        (read("", &own.key, &pem, None), File::Chain, "holds no certificate"),
        (read(&damaged, &own.key, &pem, None), File::Chain, "damaged"),
        (read(&encipherer.chain, &encipherer.key, &pem, None), File::Chain, "digitalSignature"),
        (read(&own.chain, &own.chain, &pem, None), File::Key, "holds no private key"),
        (read(&own.chain, &other.key, &pem, None), File::Key, "is not the key of the certificate"),
        (read(&own.chain, &own.key, "", None), File::Authorities, "holds no certificate"),
        (read(&own.chain, &own.key, &own.chain, None), File::Authorities, "which is no authority"),
        (
            read(&own.chain, &own.key, &pem, Some(&pem.replace("CERTIFICATE", "X509 CRL"))),
            File::Revocations,
            "cannot be read",
        ),
    ] {
        let unusable = result.err().unwrap_or_else(|| panic!("{problem}"));
        assert_eq!(unusable.file, file, "{problem}");
        assert!(unusable.problem.contains(problem), "{}", unusable.problem);
        assert!(!unusable.problem.contains("MII"), "{}", unusable.problem);
    }
}

#[test]
fn certificates_that_no_message_takes_are_refused() {
    let root = Authority::new("root");
    let read = |octets| {
        let mut large = params("own", &[]);
        let content = vec![5; octets];
        large.custom_extensions.push(CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], content));
        let own = root.issue(&P256, &large);
        read(&own.chain, &own.key, &root.pem(), None).map(drop)
    };
    read(11_000).unwrap();
    for octets in [12_288, 70_000] {
        let unusable = read(octets).unwrap_err();
        assert!(unusable.file == File::Chain && unusable.problem.contains("12288 octets"), "{}", unusable.problem);
    }
}

#[test]
fn the_authority_is_not_sent_and_its_certificate_in_the_chain_does_no_harm() {
    let root = Authority::new("root");
    let own = root.below("middle", |_| ()).issue(&P256, &params("own", &[]));
    let certificate = read(&(own.chain + &root.pem()), &own.key, &root.pem(), None).unwrap();
    assert_eq!(certificate.chain.len(), 2);
}

#[test]
fn an_own_certificate_out_of_its_time_is_warned_about() {
    let root = Authority::new("root");
    let own = root.issue(&P256, &params("own", &[])).trusting(&root.pem(), None, &[]);
    let warning = |unix| {
        let later = own.clock.instant + unix;
        own.warnings(later).into_iter().map(|(_, problem)| problem).collect::<String>()
    };
    assert_eq!(warning(Duration::ZERO), "");
    assert!(warning(Duration::from_secs(400 * 86_400)).contains("has expired"));
}
