//! `towline-operator verify`: what `helm test` runs. It looks at an installation from the outside, through its Services,
//! and says what is wrong.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Method, Request, StatusCode, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ListParams;
use kube::{Api, Client};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::api::{VpnTunnel, VpnUser};
use crate::leader::{reports_service, webhook_service};
use crate::tls;

/// How long one request may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// How often is looked again while something is wrong.
const INTERVAL: Duration = Duration::from_secs(2);
/// The largest answer that is read.
const MAX_ANSWER: usize = 64 << 10;

/// Which installation is looked at.
#[derive(Debug, Clone, clap::Args)]
pub struct Verify {
    /// Name of the installation: that of its Deployment
    #[arg(long, env = "TOWLINE_NAME")]
    name: String,
    /// Namespace of the installation
    #[arg(long, env = "TOWLINE_NAMESPACE")]
    namespace: String,
    /// Whether the installation has the webhook
    #[arg(long, env = "TOWLINE_WEBHOOK", default_value_t = true, action = clap::ArgAction::Set)]
    webhook: bool,
    /// Seconds to wait for an installation that has just begun
    #[arg(long, default_value_t = 60)]
    wait_seconds: u32,
}

impl Verify {
    /// What is wrong after the time to wait; nothing when all is well.
    pub async fn run(&self, client: &Client) -> Vec<String> {
        let deadline = Instant::now() + Duration::from_secs(self.wait_seconds.into());
        loop {
            let problems = self.problems(client).await;
            if problems.is_empty() || Instant::now() >= deadline {
                return problems;
            }
            sleep(INTERVAL).await;
        }
    }

    async fn problems(&self, client: &Client) -> Vec<String> {
        let mut problems = Vec::new();
        let unserved =
            |kind, error| format!("the API server does not serve {kind}; install the chart with crds.install: {error}");
        let one = ListParams::default().limit(1);
        if let Err(error) = Api::<VpnTunnel>::all(client.clone()).list(&one).await {
            problems.push(unserved("VpnTunnels", error));
        }
        if let Err(error) = Api::<VpnUser>::all(client.clone()).list(&one).await {
            problems.push(unserved("VpnUsers", error));
        }
        let secret = tls::secret_name(&self.name);
        let bundle = match Api::<Secret>::namespaced(client.clone(), &self.namespace).get(&secret).await {
            Ok(found) => tls::ca_bundle(&found),
            Err(error) => {
                problems.push(format!("Secret {secret} cannot be read; see the operator's log: {error}"));
                return problems;
            }
        };
        let Some(bundle) = bundle else {
            problems.push(format!("Secret {secret} holds no authority; delete it, and the operator makes a new one"));
            return problems;
        };
        problems.extend(self.reports(&bundle).await.err());
        if self.webhook {
            problems.extend(self.answering_webhook(&bundle).await.err());
            problems.extend(self.known_authority(client, &bundle).await.err());
        }
        problems
    }

    /// The leader, and nobody else, asks for a token; a replica that does not lead says that it is not available.
    async fn reports(&self, bundle: &str) -> Result<(), String> {
        let host = format!("{}.{}.svc", reports_service(&self.name), self.namespace);
        let path = format!("/v1/namespaces/{}/tunnels/verify/report", self.namespace);
        match post(&format!("{host}:443"), &host, bundle, &path, &[], Bytes::new()).await {
            Ok((StatusCode::UNAUTHORIZED, _)) => Ok(()),
            Ok((status, text)) => Err(format!("https://{host} answers {status}: {text}")),
            Err(error) => Err(format!("https://{host} cannot be reached: {error}")),
        }
    }

    /// A pod without a label is let through.
    async fn answering_webhook(&self, bundle: &str) -> Result<(), String> {
        let host = format!("{}.{}.svc", webhook_service(&self.name), self.namespace);
        let review = json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "verify",
                "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "resource": {"group": "", "version": "v1", "resource": "pods"},
                "namespace": self.namespace,
                "operation": "CREATE",
                "userInfo": {},
                "object": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "verify"}, "spec": {"containers": []}},
            },
        });
        let headers = [(header::CONTENT_TYPE, "application/json")];
        let (status, text) =
            post(&format!("{host}:443"), &host, bundle, "/v1/pods/mutate", &headers, review.to_string().into())
                .await
                .map_err(|error| format!("https://{host} cannot be reached: {error}"))?;
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        if status == StatusCode::OK && answer.pointer("/response/allowed") == Some(&Value::Bool(true)) {
            return Ok(());
        }
        Err(format!("https://{host} answers {status}: {text}"))
    }

    /// The API server trusts the certificate that the webhook shows.
    async fn known_authority(&self, client: &Client, bundle: &str) -> Result<(), String> {
        let configuration = Api::<MutatingWebhookConfiguration>::all(client.clone())
            .get(&self.name)
            .await
            .map_err(|error| format!("MutatingWebhookConfiguration {} cannot be read: {error}", self.name))?;
        let mut webhooks = configuration.webhooks.unwrap_or_default().into_iter();
        if webhooks.any(|webhook| webhook.client_config.ca_bundle.is_some_and(|known| known.0 == bundle.as_bytes())) {
            return Ok(());
        }
        Err(format!("MutatingWebhookConfiguration {} does not hold the operator's authority; see its log", self.name))
    }
}

/// One request over TLS to `address`, which must prove that it is `host`.
pub(crate) async fn post(
    address: &str,
    host: &str,
    bundle: &str,
    path: &str,
    headers: &[(header::HeaderName, &str)],
    body: Bytes,
) -> anyhow::Result<(StatusCode, String)> {
    let mut request = Request::builder().method(Method::POST).uri(path).header(header::HOST, host);
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    let request = request.body(Body::from(body))?;
    let connector = TlsConnector::from(Arc::new(tls::trusting(bundle)?));
    let name = ServerName::try_from(host.to_owned())?;
    let exchange = async {
        let stream = connector.connect(name, TcpStream::connect(address).await?).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let answer = async {
            let (parts, body) = sender.send_request(request).await?.into_parts();
            let text = axum::body::to_bytes(Body::new(body), MAX_ANSWER).await?;
            anyhow::Ok((parts.status, String::from_utf8_lossy(&text).into_owned()))
        };
        tokio::pin!(answer, connection);
        tokio::select! {
            answer = &mut answer => answer,
            // The answer may have come with the end of the connection.
            ended = &mut connection => match ended {
                Ok(()) => answer.await,
                Err(error) => Err(error.into()),
            },
        }
    };
    timeout(REQUEST_LIMIT, exchange).await.map_err(|_| anyhow::anyhow!("no answer in {} s", REQUEST_LIMIT.as_secs()))?
}
