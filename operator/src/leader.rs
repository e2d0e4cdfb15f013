//! What only the leading replica writes about itself: its address, so that reports reach it and no other replica, and the
//! authority of its certificate, so that the API server trusts the webhook.
//!
//! Both are looked at again and again, because others may change them: a Helm upgrade writes the webhook's configuration.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ObjectMeta, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::api::label;
use crate::tls::Certificate;

/// The port that takes reports.
pub const REPORTS_PORT: u16 = 9444;
/// The port of the webhook, on every replica.
pub const WEBHOOK_PORT: u16 = 9443;
/// The name of the webhook in its configuration.
const WEBHOOK: &str = "sidecar.towline.dev";
/// How often both objects are looked at.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// How soon a failure is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(3);

/// Name of the Service that reports go to; it has no selector.
pub fn reports_service(name: &str) -> String {
    format!("{name}-reports")
}

/// Name of the Service that the API server calls the webhook through; every replica answers there.
pub fn webhook_service(name: &str) -> String {
    format!("{name}-webhook")
}

/// The DNS names of both Services, for the certificate.
pub fn dns_names(name: &str, namespace: &str) -> Vec<String> {
    [reports_service(name), webhook_service(name)]
        .iter()
        .flat_map(|service| [format!("{service}.{namespace}.svc"), format!("{service}.{namespace}.svc.cluster.local")])
        .collect()
}

/// What the operator makes for itself goes with the Service for reports, and so with the chart.
///
/// # Errors
/// When the Service cannot be read.
pub async fn owner(client: &Client, name: &str, namespace: &str) -> Result<OwnerReference, kube::Error> {
    let name = reports_service(name);
    let service = Api::<Service>::namespaced(client.clone(), namespace).get(&name).await?;
    Ok(OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Service".to_owned(),
        name,
        uid: service.metadata.uid.unwrap_or_default(),
        ..OwnerReference::default()
    })
}

/// Why something could not be announced.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// The EndpointSlice or its Service.
    #[error("the address for reports: {0}")]
    Address(#[source] kube::Error),
    /// The webhook's configuration.
    #[error("MutatingWebhookConfiguration {name}: {source}")]
    Webhook {
        /// Its name.
        name: String,
        /// What the API server said.
        source: kube::Error,
    },
    /// The configuration does not hold our webhook.
    #[error("MutatingWebhookConfiguration {0} has no webhook {WEBHOOK}; install the chart again")]
    NoWebhook(String),
}

/// The leading replica as others see it.
pub struct Leader {
    client: Client,
    name: String,
    namespace: String,
    address: IpAddr,
    webhook: bool,
}

impl Leader {
    /// The replica at `address`, of the installation `name` in `namespace`.
    pub fn new(client: Client, name: &str, namespace: &str, address: IpAddr, webhook: bool) -> Self {
        Self { client, name: name.to_owned(), namespace: namespace.to_owned(), address, webhook }
    }

    /// Announces the replica until `shutdown`. It must lead for as long.
    pub async fn maintain(self, mut certificate: watch::Receiver<Certificate>, shutdown: CancellationToken) {
        loop {
            let bundle = certificate.borrow_and_update().ca_bundle.clone();
            let wait = match self.announce(&bundle).await {
                Ok(()) => CHECK_INTERVAL,
                Err(error) => {
                    warn!(%error, "this replica could not be announced; tried again");
                    RETRY_INTERVAL
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = certificate.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Writes both objects where they differ.
    ///
    /// # Errors
    /// When one of them could not be read or written. The other one was tried all the same.
    pub async fn announce(&self, ca_bundle: &str) -> Result<(), AnnounceError> {
        let address = self.announce_address().await.map_err(AnnounceError::Address);
        if self.webhook {
            self.announce_authority(ca_bundle).await?;
        }
        address
    }

    async fn announce_address(&self) -> Result<(), kube::Error> {
        let name = reports_service(&self.name);
        let owner = owner(&self.client, &self.name, &self.namespace).await?;
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &self.namespace);
        let slice = self.endpoint_slice(owner);
        slices.patch(&name, &PatchParams::apply(label::OPERATOR).force(), &Patch::Apply(&slice)).await?;
        Ok(())
    }

    fn endpoint_slice(&self, owner: OwnerReference) -> EndpointSlice {
        let service = reports_service(&self.name);
        EndpointSlice {
            metadata: ObjectMeta {
                name: Some(service.clone()),
                namespace: Some(self.namespace.clone()),
                labels: Some(BTreeMap::from([
                    ("kubernetes.io/service-name".to_owned(), service),
                    ("endpointslice.kubernetes.io/managed-by".to_owned(), "operator.towline.dev".to_owned()),
                ])),
                owner_references: Some(vec![owner]),
                ..ObjectMeta::default()
            },
            address_type: if self.address.is_ipv4() { "IPv4" } else { "IPv6" }.to_owned(),
            endpoints: Some(vec![Endpoint {
                addresses: vec![self.address.to_string()],
                conditions: Some(EndpointConditions { ready: Some(true), ..EndpointConditions::default() }),
                ..Endpoint::default()
            }]),
            ports: Some(vec![EndpointPort {
                // kube-proxy joins ports by name: it must be that of the Service's port.
                name: Some("https".to_owned()),
                port: Some(i32::from(REPORTS_PORT)),
                protocol: Some("TCP".to_owned()),
                ..EndpointPort::default()
            }]),
        }
    }

    async fn announce_authority(&self, ca_bundle: &str) -> Result<(), AnnounceError> {
        let failed = |source| AnnounceError::Webhook { name: self.name.clone(), source };
        let configurations: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        let configuration = configurations.get(&self.name).await.map_err(failed)?;
        let mut webhooks = configuration.webhooks.unwrap_or_default().into_iter();
        let webhook = webhooks.find(|webhook| webhook.name == WEBHOOK);
        let webhook = webhook.ok_or_else(|| AnnounceError::NoWebhook(self.name.clone()))?;
        let bundle = ByteString(ca_bundle.as_bytes().to_vec());
        if webhook.client_config.ca_bundle.as_ref() == Some(&bundle) {
            return Ok(());
        }
        // A strategic merge finds the webhook by its name. Server-side apply would take its other fields from Helm.
        let patch = json!({"webhooks": [{"name": WEBHOOK, "clientConfig": {"caBundle": bundle}}]});
        let params = PatchParams { field_manager: Some(label::OPERATOR.to_owned()), ..PatchParams::default() };
        configurations.patch(&self.name, &params, &Patch::Strategic(patch)).await.map_err(failed)?;
        info!(name = self.name, "the API server was told the webhook's authority");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::http::StatusCode;
    use serde_json::Value;

    use super::*;
    use crate::mock;

    const CONFIGURATION: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/towline";
    const SLICE: &str = "/apis/discovery.k8s.io/v1/namespaces/towline-system/endpointslices/towline-reports";

    /// A leader, what it asks, and the bodies of its writes. The webhook's configuration is `webhooks`.
    fn leader(webhooks: Value) -> (Leader, mock::Asked, Arc<Mutex<Vec<Value>>>) {
        let written = Arc::new(Mutex::new(Vec::new()));
        let record = written.clone();
        let (client, asked) = mock::api(move |question, body| {
            if body != Value::Null {
                record.lock().unwrap().push(body.clone());
            }
            let answer = match question.rsplit_once('/').unwrap().0 {
                "GET /api/v1/namespaces/towline-system/services" => json!({"metadata": {"uid": "u-1"}}),
                "PATCH /apis/discovery.k8s.io/v1/namespaces/towline-system/endpointslices" => body,
                _ => json!({"metadata": {"name": "towline"}, "webhooks": webhooks}),
            };
            (StatusCode::OK, answer)
        });
        (Leader::new(client, "towline", "towline-system", "10.1.2.3".parse().unwrap(), true), asked, written)
    }

    fn webhook(name: &str, ca_bundle: Option<&str>) -> Value {
        let bundle = ca_bundle.map(|bundle| ByteString(bundle.as_bytes().to_vec()));
        json!({"name": name, "admissionReviewVersions": ["v1"], "sideEffects": "None", "clientConfig": {"caBundle": bundle}})
    }

    #[tokio::test]
    async fn the_leader_writes_its_address_and_the_authority() {
        let (leader, asked, written) = leader(json!([webhook(WEBHOOK, None)]));
        leader.announce("PEM").await.unwrap();
        let asked = asked.lock().unwrap();
        assert_eq!(
            asked[1..],
            [format!("PATCH {SLICE}"), format!("GET {CONFIGURATION}"), format!("PATCH {CONFIGURATION}")]
        );
        let written = written.lock().unwrap();
        let slice: EndpointSlice = serde_json::from_value(written[0].clone()).unwrap();
        assert_eq!(slice.metadata.labels.unwrap()["kubernetes.io/service-name"], "towline-reports");
        assert_eq!(slice.metadata.owner_references.unwrap()[0].uid, "u-1");
        assert_eq!(slice.endpoints.unwrap()[0].addresses, ["10.1.2.3"]);
        let port = &slice.ports.unwrap()[0];
        assert_eq!((port.name.as_deref(), port.port), (Some("https"), Some(9444)));
        let patch = json!({"webhooks": [{"name": "sidecar.towline.dev", "clientConfig": {"caBundle": "UEVN"}}]});
        assert_eq!(written[1], patch);
    }

    #[tokio::test]
    async fn an_authority_that_is_known_is_not_written_again() {
        let (leader, asked, _) = leader(json!([webhook("other.example.com", None), webhook(WEBHOOK, Some("PEM"))]));
        leader.announce("PEM").await.unwrap();
        assert_eq!(asked.lock().unwrap().last().unwrap(), &format!("GET {CONFIGURATION}"));
        leader.announce("PEM2").await.unwrap();
        assert_eq!(asked.lock().unwrap().last().unwrap(), &format!("PATCH {CONFIGURATION}"));
    }

    #[tokio::test]
    async fn a_webhook_of_somebody_else_is_left_alone() {
        let (leader, asked, _) = leader(json!([webhook("other.example.com", None)]));
        let error = leader.announce("PEM").await.unwrap_err();
        assert!(matches!(error, AnnounceError::NoWebhook(_)), "{error}");
        assert_eq!(asked.lock().unwrap().last().unwrap(), &format!("GET {CONFIGURATION}"));
    }

    #[tokio::test]
    async fn without_the_webhook_only_the_address_is_written_and_an_ipv6_address_is_called_so() {
        let (mut leader, asked, written) = leader(json!([]));
        leader.webhook = false;
        leader.address = "fd00::7".parse().unwrap();
        leader.announce("PEM").await.unwrap();
        assert_eq!(asked.lock().unwrap().last().unwrap(), &format!("PATCH {SLICE}"));
        assert_eq!(written.lock().unwrap()[0]["addressType"], "IPv6");
    }

    #[test]
    fn the_certificate_covers_both_services_in_both_forms() {
        assert_eq!(
            dns_names("towline", "vpn"),
            [
                "towline-reports.vpn.svc",
                "towline-reports.vpn.svc.cluster.local",
                "towline-webhook.vpn.svc",
                "towline-webhook.vpn.svc.cluster.local"
            ]
        );
    }
}
