//! The operator's own certificate: an authority and a serving certificate in one Secret of the operator's namespace, made by
//! whichever replica comes first, renewed well before they expire, and picked up by all replicas without a restart.
//!
//! Writes are preconditioned: a Secret is created or replaced at the version that was read, so of two replicas one wins and
//! the other reads again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::api::label;
use crate::metrics::Metrics;

/// How long an authority is valid.
const AUTHORITY_LIFE: SignedDuration = SignedDuration::from_hours(24 * 365 * 10);
/// The next authority is made when the old one has less than this left.
const AUTHORITY_MARGIN: SignedDuration = SignedDuration::from_hours(24 * 365);
/// How long the next authority is published before it signs: pods and API servers must trust it by then, also those that could
/// not read it for a while.
const AUTHORITY_OVERLAP: SignedDuration = SignedDuration::from_hours(24 * 7);
/// How long a serving certificate is valid.
const SERVING_LIFE: SignedDuration = SignedDuration::from_hours(24 * 90);
/// A serving certificate is renewed when it has less than this left.
const SERVING_MARGIN: SignedDuration = SignedDuration::from_hours(24 * 30);
/// Clocks of pods and API servers may be behind ours.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_hours(1);
/// How often the Secret is looked at: by short steps, so that a suspended clock cannot carry us past the expiry.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// How often a lost race for the Secret is tried again before the next check.
const ATTEMPTS: u32 = 5;

const AUTHORITY_CERTIFICATE: &str = "ca.crt";
const AUTHORITY_KEY: &str = "ca.key";
const NEXT_CERTIFICATE: &str = "next-ca.crt";
const NEXT_KEY: &str = "next-ca.key";
const SERVING_CERTIFICATE: &str = "tls.crt";
const SERVING_KEY: &str = "tls.key";
const AUTHORITY_EXPIRES: &str = "towline.dev/authority-expires";
const NEXT_SINCE: &str = "towline.dev/next-authority-since";
const NEXT_EXPIRES: &str = "towline.dev/next-authority-expires";
const SERVING_EXPIRES: &str = "towline.dev/certificate-expires";
const SERVING_NAMES: &str = "towline.dev/certificate-names";

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The Secret could not be read or written.
    #[error("Secret {name} of the operator's namespace: {source}")]
    Secret {
        /// Its name.
        name: String,
        /// What the API server said.
        source: kube::Error,
    },
    /// The Secret's text is no certificate or no key.
    #[error("certificate: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// A certificate could not be made.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// rustls does not accept it.
    #[error("certificate: {0}")]
    Rustls(#[from] rustls::Error),
    /// Several replicas write the Secret again and again.
    #[error("Secret {0} is written by others again and again")]
    Contended(String),
}

/// What a server needs, and what its clients must trust.
#[derive(Clone)]
pub struct Certificate {
    /// For `TlsAcceptor`.
    pub server: Arc<ServerConfig>,
    /// The authorities in PEM, the one that signs first.
    pub ca_bundle: String,
    /// Until when it is valid.
    pub expires: Timestamp,
}

/// The Secret with the certificate.
pub struct Certificates {
    api: Api<Secret>,
    secret: String,
    names: Vec<String>,
    owner: Option<OwnerReference>,
}

impl Certificates {
    /// The certificate in Secret `secret` of `namespace`, for the DNS names `names`. A Secret that is made goes with `owner`.
    pub fn new(
        client: Client,
        namespace: &str,
        secret: &str,
        names: Vec<String>,
        owner: Option<OwnerReference>,
    ) -> Self {
        Self { api: Api::namespaced(client, namespace), secret: secret.to_owned(), names, owner }
    }

    /// Reads the certificate; makes or renews it when needed.
    ///
    /// # Errors
    /// When the Secret cannot be read, written or understood.
    pub async fn ensure(&self) -> Result<Certificate, TlsError> {
        for _ in 0..ATTEMPTS {
            let now = Timestamp::now();
            let old = self.api.get_opt(&self.secret).await.map_err(|source| self.failed(source))?;
            let material = old.as_ref().and_then(Material::read);
            // What cannot be served is made anew like what is missing, so that nobody has to repair it by hand.
            if let Some(material) = &material
                && material.is_fresh(now, &self.names)
                && let Ok(certificate) = material.serve()
            {
                return Ok(certificate);
            }
            let new = Material::renewed(material, now, &self.names)?;
            let written = match old {
                None => {
                    self.api.create(&PostParams::default(), &new.secret(&self.secret, None, self.owner.as_ref())).await
                }
                Some(old) => {
                    let secret = new.secret(&self.secret, old.metadata.resource_version, self.owner.as_ref());
                    self.api.replace(&self.secret, &PostParams::default(), &secret).await
                }
            };
            match written {
                Ok(_) => {
                    info!(secret = self.secret, expires = %new.serving_expires, "certificate written");
                    return new.serve();
                }
                // Another replica was faster: read what it wrote.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(source) => return Err(self.failed(source)),
            }
        }
        Err(TlsError::Contended(self.secret.clone()))
    }

    /// Keeps `certificate` fresh for as long as somebody looks at it.
    pub async fn maintain(self, certificate: watch::Sender<Certificate>, metrics: Metrics) {
        loop {
            tokio::select! {
                () = certificate.closed() => return,
                () = tokio::time::sleep(CHECK_INTERVAL) => {}
            }
            match self.ensure().await {
                Ok(new) => {
                    metrics.certificate(new.expires);
                    certificate.send_if_modified(|old| {
                        let changed = old.ca_bundle != new.ca_bundle;
                        *old = new;
                        changed
                    });
                }
                Err(error) => warn!(%error, "the certificate could not be checked; the old one stays in use"),
            }
        }
    }

    fn failed(&self, source: kube::Error) -> TlsError {
        TlsError::Secret { name: self.secret.clone(), source }
    }
}

/// What the Secret holds.
struct Material {
    /// All that are trusted, the one that signs first.
    authorities: String,
    authority_key: String,
    authority_expires: Timestamp,
    /// The authority that signs after this one; it is among `authorities`.
    next: Option<Next>,
    serving: String,
    serving_key: String,
    serving_expires: Timestamp,
    names: String,
}

/// An authority that is published and does not sign yet.
struct Next {
    certificate: String,
    key: String,
    expires: Timestamp,
    since: Timestamp,
}

/// An authority that signs.
struct Signer {
    authorities: String,
    key: KeyPair,
    expires: Timestamp,
    next: Option<Next>,
}

impl Material {
    fn read(secret: &Secret) -> Option<Self> {
        let data = secret.data.as_ref()?;
        let text = |key: &str| String::from_utf8(data.get(key)?.0.clone()).ok();
        let annotations = secret.metadata.annotations.as_ref()?;
        let time = |key: &str| annotations.get(key)?.parse::<Timestamp>().ok();
        let next = || {
            Some(Next {
                certificate: text(NEXT_CERTIFICATE)?,
                key: text(NEXT_KEY)?,
                expires: time(NEXT_EXPIRES)?,
                since: time(NEXT_SINCE)?,
            })
        };
        Some(Self {
            authorities: text(AUTHORITY_CERTIFICATE)?,
            authority_key: text(AUTHORITY_KEY)?,
            authority_expires: time(AUTHORITY_EXPIRES)?,
            next: next(),
            serving: text(SERVING_CERTIFICATE)?,
            serving_key: text(SERVING_KEY)?,
            serving_expires: time(SERVING_EXPIRES)?,
            names: annotations.get(SERVING_NAMES)?.clone(),
        })
    }

    fn is_fresh(&self, now: Timestamp, names: &[String]) -> bool {
        let left = |expires: Timestamp| expires.duration_since(now);
        let is_authority_fresh = match &self.next {
            None => left(self.authority_expires) > AUTHORITY_MARGIN,
            Some(next) => now.duration_since(next.since) < AUTHORITY_OVERLAP,
        };
        is_authority_fresh && left(self.serving_expires) > SERVING_MARGIN && self.names == names.join(",")
    }

    /// A new serving certificate, and what is due of the authority.
    fn renewed(old: Option<Self>, now: Timestamp, names: &[String]) -> Result<Self, TlsError> {
        let signer = match old {
            Some(old) => Signer::after(old, now)?,
            None => Signer::new(now)?,
        };
        let authority_key = signer.key.serialize_pem();
        let issuer = Issuer::new(authority(now, signer.expires)?, signer.key);
        let key = KeyPair::generate()?;
        let serving_expires = signer.expires.min(now + SERVING_LIFE);
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name.push(DnType::CommonName, label::OPERATOR);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now, serving_expires);
        let serving = params.signed_by(&key, &issuer)?.pem();
        Ok(Self {
            authorities: signer.authorities,
            authority_key,
            authority_expires: signer.expires,
            next: signer.next,
            serving,
            serving_key: key.serialize_pem(),
            serving_expires,
            names: names.join(","),
        })
    }

    fn secret(&self, name: &str, resource_version: Option<String>, owner: Option<&OwnerReference>) -> Secret {
        let value = |text: &String| ByteString(text.clone().into_bytes());
        let mut annotations = vec![
            (AUTHORITY_EXPIRES, self.authority_expires.to_string()),
            (SERVING_EXPIRES, self.serving_expires.to_string()),
            (SERVING_NAMES, self.names.clone()),
        ];
        let mut data = vec![
            (AUTHORITY_CERTIFICATE, &self.authorities),
            (AUTHORITY_KEY, &self.authority_key),
            (SERVING_CERTIFICATE, &self.serving),
            (SERVING_KEY, &self.serving_key),
        ];
        if let Some(next) = &self.next {
            annotations.push((NEXT_SINCE, next.since.to_string()));
            annotations.push((NEXT_EXPIRES, next.expires.to_string()));
            data.push((NEXT_CERTIFICATE, &next.certificate));
            data.push((NEXT_KEY, &next.key));
        }
        Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                resource_version,
                owner_references: owner.map(|owner| vec![owner.clone()]),
                labels: Some(BTreeMap::from([(label::MANAGED_BY.to_owned(), label::OPERATOR.to_owned())])),
                annotations: Some(annotations.into_iter().map(|(name, text)| (name.to_owned(), text)).collect()),
                ..ObjectMeta::default()
            },
            type_: Some("kubernetes.io/tls".to_owned()),
            data: Some(data.into_iter().map(|(name, text)| (name.to_owned(), value(text))).collect()),
            ..Secret::default()
        }
    }

    fn serve(&self) -> Result<Certificate, TlsError> {
        let chain = CertificateDer::pem_slice_iter(self.serving.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(self.serving_key.as_bytes())?;
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        let (ca_bundle, expires) = (self.authorities.clone(), self.serving_expires);
        Ok(Certificate { server: Arc::new(server), ca_bundle, expires })
    }
}

impl Signer {
    /// An authority that nobody knows yet.
    fn new(now: Timestamp) -> Result<Self, TlsError> {
        let (key, expires) = (KeyPair::generate()?, now + AUTHORITY_LIFE);
        let authorities = authority(now, expires)?.self_signed(&key)?.pem();
        Ok(Self { authorities, key, expires, next: None })
    }

    /// The authority that signs now: the same, or near its end the one that was published for long enough.
    fn after(old: Material, now: Timestamp) -> Result<Self, TlsError> {
        let is_whole = |certificate: &str| CertificateDer::from_pem_slice(certificate.as_bytes()).is_ok();
        let is_due = |next: &Next| now.duration_since(next.since) >= AUTHORITY_OVERLAP || old.authority_expires <= now;
        if let Some(next) =
            old.next.as_ref().filter(|next| is_due(next) && next.expires > now && is_whole(&next.certificate))
            && let Ok(key) = KeyPair::from_pem(&next.key)
        {
            let mut authorities = next.certificate.clone();
            if old.authority_expires > now {
                authorities.push_str(first_certificate(&old.authorities));
            }
            return Ok(Self { authorities, key, expires: next.expires, next: None });
        }
        let Some(key) = KeyPair::from_pem(&old.authority_key)
            .ok()
            .filter(|_| old.authority_expires > now && is_whole(&old.authorities))
        else {
            // What nobody can repair by hand is made anew.
            return Self::new(now);
        };
        let mut kept = Self { authorities: old.authorities, key, expires: old.authority_expires, next: old.next };
        if kept.next.is_none() && kept.expires.duration_since(now) <= AUTHORITY_MARGIN {
            let Self { authorities: certificate, key, expires, .. } = Self::new(now)?;
            kept.authorities = format!("{}\n{certificate}", first_certificate(&kept.authorities));
            kept.next = Some(Next { certificate, key: key.serialize_pem(), expires, since: now });
        }
        Ok(kept)
    }
}

/// Name of the Secret of the installation `name`.
pub fn secret_name(name: &str) -> String {
    format!("{name}-tls")
}

/// The authorities in PEM that the Secret holds.
pub fn ca_bundle(secret: &Secret) -> Option<String> {
    String::from_utf8(secret.data.as_ref()?.get(AUTHORITY_CERTIFICATE)?.0.clone()).ok()
}

/// A client's configuration that trusts the authorities of `bundle` and nobody else.
///
/// # Errors
/// When `bundle` is no list of certificates in PEM.
pub fn trusting(bundle: &str) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(certificate?)?;
    }
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// Named here, so that nothing depends on what the process installed.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn authority(now: Timestamp, expires: Timestamp) -> Result<CertificateParams, TlsError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "Towline authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, now, expires);
    Ok(params)
}

/// From a little before `now` on, until `expires`.
fn set_validity(params: &mut CertificateParams, now: Timestamp, expires: Timestamp) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since_epoch =
        |time: Timestamp| Duration::try_from(time.duration_since(Timestamp::UNIX_EPOCH)).unwrap_or_default();
    params.not_before = epoch + since_epoch(now - CLOCK_SKEW);
    params.not_after = epoch + since_epoch(expires);
}

fn first_certificate(bundle: &str) -> &str {
    const END: &str = "-----END CERTIFICATE-----";
    bundle.find(END).and_then(|at| bundle.get(..at + END.len())).unwrap_or(bundle)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Mutex;

    use axum::http::StatusCode;
    use serde_json::Value;

    use super::*;
    use crate::mock;

    const SECRETS: &str = "/api/v1/namespaces/towline-system/secrets";

    fn names() -> Vec<String> {
        vec!["towline-reports.towline-system.svc".to_owned()]
    }

    /// A certificate for `name` that nobody else has.
    pub(crate) fn certificate(name: &str) -> Certificate {
        Material::renewed(None, Timestamp::now(), &[name.to_owned()]).unwrap().serve().unwrap()
    }

    /// Whether a client that trusts `bundle` accepts the server's certificate for its name.
    fn trusts(bundle: &str, material: &Material) -> bool {
        let client = trusting(bundle).unwrap();
        let name = names().remove(0).try_into().unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(client), name).unwrap();
        let mut server = rustls::ServerConnection::new(material.serve().unwrap().server).unwrap();
        for _ in 0..4 {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            if server.process_new_packets().is_err() {
                return false;
            }
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            if client.process_new_packets().is_err() {
                return false;
            }
        }
        !client.is_handshaking()
    }

    #[test]
    fn a_client_with_the_bundle_trusts_the_certificate_and_one_without_does_not() {
        let now = Timestamp::now();
        let material = Material::renewed(None, now, &names()).unwrap();
        let other = Material::renewed(None, now, &names()).unwrap();
        assert!(trusts(&material.authorities, &material));
        assert!(!trusts(&other.authorities, &material));
    }

    #[test]
    fn renewal_keeps_the_authority_so_that_running_pods_go_on_trusting() {
        let past = Timestamp::now() - SignedDuration::from_hours(24 * 61);
        let old = Material::renewed(None, past, &names()).unwrap();
        let bundle = old.authorities.clone();
        assert!(!old.is_fresh(Timestamp::now(), &names()));
        let new = Material::renewed(Some(old), Timestamp::now(), &names()).unwrap();
        assert!(new.is_fresh(Timestamp::now(), &names()));
        assert!(trusts(&bundle, &new));
    }

    /// A Secret in its three states over the renewal of the authority: before, published, signing.
    fn renewal() -> [Material; 3] {
        let again = |material: &Material| Material::read(&material.secret("s", None, None)).unwrap();
        let now = Timestamp::now();
        let published_at = now - AUTHORITY_OVERLAP;
        let made_at = published_at - AUTHORITY_LIFE + AUTHORITY_MARGIN;
        let before = Material::renewed(None, made_at, &names()).unwrap();
        assert!(!before.is_fresh(published_at, &names()));
        let published = Material::renewed(Some(again(&before)), published_at, &names()).unwrap();
        assert!(published.is_fresh(published_at, &names()));
        assert!(!published.is_fresh(now, &names()));
        let signing = Material::renewed(Some(again(&published)), now, &names()).unwrap();
        assert!(signing.is_fresh(now, &names()));
        [before, published, signing]
    }

    #[test]
    fn a_new_authority_is_published_before_it_signs_so_that_nobody_is_refused() {
        let [before, published, signing] = renewal();
        assert!(trusts(&before.authorities, &published), "a pod that has not read the new bundle");
        assert!(trusts(&published.authorities, &published));
        assert!(trusts(&published.authorities, &signing), "a pod that read it before the switch");
        assert!(trusts(&signing.authorities, &signing));
        assert!(trusts(&signing.authorities, &published), "a replica that still shows the old certificate");
    }

    #[test]
    fn an_authority_signs_no_sooner_than_it_was_published_for_the_overlap() {
        let [before, published, signing] = renewal();
        assert!(!trusts(first_certificate(&before.authorities), &signing));
        let since = published.next.as_ref().unwrap().since;
        let early = since + AUTHORITY_OVERLAP - SignedDuration::from_secs(1);
        let bundle = before.authorities.clone();
        assert!(trusts(&bundle, &Material::renewed(Some(published), early, &names()).unwrap()));
    }

    #[test]
    fn a_broken_next_authority_does_not_take_the_one_that_signs_along() {
        let [before, mut published, _] = renewal();
        published.next.as_mut().unwrap().key.truncate(40);
        let kept = Material::renewed(Some(published), Timestamp::now(), &names()).unwrap();
        assert!(trusts(&before.authorities, &kept));
    }

    #[test]
    fn other_names_make_a_certificate_stale_and_the_secret_survives_the_round_trip() {
        let material = Material::renewed(None, Timestamp::now(), &names()).unwrap();
        assert!(!material.is_fresh(Timestamp::now(), &["other".to_owned()]));
        let read = Material::read(&material.secret("s", None, None)).unwrap();
        assert_eq!((read.serving, read.authority_expires), (material.serving, material.authority_expires));
    }

    /// A Secret in a store that keeps the API server's rules about versions; `rival` is written by another replica just
    /// before our first write arrives.
    fn store(
        first: Option<Secret>,
        mut rival: Option<Secret>,
    ) -> (Certificates, mock::Asked, Arc<Mutex<Option<Secret>>>) {
        let stored = Arc::new(Mutex::new(first.map(|secret| versioned(secret, 1))));
        let shared = stored.clone();
        let (client, asked) = mock::api(move |question, body| {
            let mut stored = shared.lock().unwrap();
            if !question.starts_with("GET")
                && let Some(rival) = rival.take()
            {
                *stored = Some(versioned(rival, 7));
            }
            let version = stored.as_ref().and_then(|secret| secret.metadata.resource_version.clone());
            let accepted = match question.split_once(' ').unwrap().0 {
                "GET" => true,
                "POST" => version.is_none(),
                "PUT" => body["metadata"]["resourceVersion"].as_str() == version.as_deref() && version.is_some(),
                other => panic!("{other} is not expected"),
            };
            if !accepted {
                return mock::refusal(StatusCode::CONFLICT);
            }
            if body != Value::Null {
                *stored = Some(versioned(serde_json::from_value(body).unwrap(), 9));
            }
            match &*stored {
                Some(secret) => (StatusCode::OK, serde_json::to_value(secret).unwrap()),
                None => mock::refusal(StatusCode::NOT_FOUND),
            }
        });
        (Certificates::new(client, "towline-system", "towline-tls", names(), None), asked, stored)
    }

    fn versioned(mut secret: Secret, version: u32) -> Secret {
        secret.metadata.resource_version = Some(version.to_string());
        secret
    }

    fn made(ago: SignedDuration) -> (Secret, String) {
        let material = Material::renewed(None, Timestamp::now() - ago, &names()).unwrap();
        (material.secret("towline-tls", None, None), material.authorities)
    }

    #[tokio::test]
    async fn the_first_replica_creates_the_secret_and_the_next_one_only_reads_it() {
        let (certificates, asked, stored) = store(None, None);
        let first = certificates.ensure().await.unwrap();
        let second = certificates.ensure().await.unwrap();
        assert_eq!(first.ca_bundle, second.ca_bundle);
        let (get, post) = (format!("GET {SECRETS}/towline-tls"), format!("POST {SECRETS}"));
        assert_eq!(*asked.lock().unwrap(), [get.clone(), post, get]);
        assert_eq!(stored.lock().unwrap().as_ref().unwrap().type_.as_deref(), Some("kubernetes.io/tls"));
    }

    #[tokio::test]
    async fn a_replica_that_loses_the_race_serves_what_the_other_one_wrote() {
        let (rival, bundle) = made(SignedDuration::ZERO);
        let (certificates, asked, _) = store(None, Some(rival));
        assert_eq!(certificates.ensure().await.unwrap().ca_bundle, bundle);
        assert_eq!(asked.lock().unwrap().iter().filter(|asked| !asked.starts_with("GET")).count(), 1);
    }

    #[tokio::test]
    async fn a_certificate_near_its_end_is_replaced_at_the_version_that_was_read() {
        let (old, bundle) = made(SignedDuration::from_hours(24 * 61));
        let (certificates, asked, _) = store(Some(old), None);
        assert_eq!(certificates.ensure().await.unwrap().ca_bundle, bundle);
        assert_eq!(asked.lock().unwrap().last().unwrap(), &format!("PUT {SECRETS}/towline-tls"));
    }

    #[tokio::test]
    async fn a_secret_that_somebody_broke_is_made_anew() {
        let (mut broken, bundle) = made(SignedDuration::ZERO);
        for value in broken.data.as_mut().unwrap().values_mut() {
            value.0.truncate(40);
        }
        let (certificates, _, stored) = store(Some(broken), None);
        let certificate = certificates.ensure().await.unwrap();
        assert_ne!(certificate.ca_bundle, bundle);
        let material = Material::read(stored.lock().unwrap().as_ref().unwrap()).unwrap();
        assert!(trusts(&certificate.ca_bundle, &material));
    }

    #[tokio::test]
    async fn an_api_server_that_forbids_the_secret_is_named_in_the_error() {
        let (client, _) = mock::api(|_, _| mock::refusal(StatusCode::FORBIDDEN));
        let certificates = Certificates::new(client, "towline-system", "towline-tls", names(), None);
        let Err(error) = certificates.ensure().await else { panic!("no error") };
        assert!(error.to_string().starts_with("Secret towline-tls of the operator's namespace: "), "{error}");
    }
}
