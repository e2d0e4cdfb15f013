//! The operator's HTTPS server: reports of tunnel pods and, on every replica, the admission webhook.
//!
//! A report is believed when the API server says, by TokenReview, that its token was issued for this endpoint to a pod, and
//! that pod belongs to the tunnel that the report is about.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use towline_tunnel::report::{Acknowledgement, Report};
use tracing::{debug, warn};

use crate::api::label;
use crate::reports::{PodKey, Reports};
use crate::tls::Certificate;
use crate::webhook::{self, Webhook};

/// The audience of the tokens that pods report with.
pub const AUDIENCE: &str = "towline.dev/report";
/// Seconds between two reports of a pod when nothing changes.
pub const HEARTBEAT_SECONDS: u32 = 10;
/// The largest body: an AdmissionReview holds a pod twice, and a pod is at most 1.5 MiB in etcd.
const MAX_BODY: usize = 4 << 20;
/// Connections at once; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 512;
/// A request that takes longer to arrive is dropped.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that is idle or open for longer is closed.
const CONNECTION_LIMIT: Duration = Duration::from_secs(120);
/// How long the answer to a TokenReview is remembered.
const TOKEN_MEMORY: Duration = Duration::from_secs(60);
/// How many tokens are remembered; the oldest go first.
const MAX_TOKENS: usize = 4_096;
/// Longer ones are no tokens.
const MAX_TOKEN: usize = 16 << 10;

const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Who sent a report.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sender {
    namespace: String,
    service_account: String,
    pod: String,
    uid: String,
}

/// What the handlers share.
pub struct Endpoint {
    client: Client,
    reports: Reports,
    /// Only the leader takes reports: the others would keep what nobody reads.
    leading: watch::Receiver<bool>,
    webhook: Option<Webhook>,
    tokens: Mutex<BTreeMap<String, (Sender, Instant)>>,
}

impl Endpoint {
    /// An endpoint that keeps what it is told in `reports`.
    pub fn new(client: Client, reports: Reports, leading: watch::Receiver<bool>, webhook: Option<Webhook>) -> Arc<Self> {
        Arc::new(Self { client, reports, leading, webhook, tokens: Mutex::new(BTreeMap::new()) })
    }

    fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/v1/namespaces/{namespace}/tunnels/{name}/report", post(take_report))
            .route("/v1/pods/mutate", post(mutate))
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .with_state(self)
    }

    async fn identify(&self, token: &str) -> Result<Sender, Refusal> {
        let now = Instant::now();
        if let Some((sender, until)) = self.tokens.lock().await.get(token)
            && *until > now
        {
            return Ok(sender.clone());
        }
        let review = TokenReview {
            spec: TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![AUDIENCE.to_owned()]) },
            ..TokenReview::default()
        };
        let status = Api::<TokenReview>::all(self.client.clone())
            .create(&PostParams::default(), &review)
            .await
            .map_err(Refusal::api)?
            .status
            .unwrap_or_default();
        let audiences = status.audiences.unwrap_or_default();
        if status.authenticated != Some(true) || !audiences.iter().any(|audience| audience == AUDIENCE) {
            return Err(Refusal(StatusCode::UNAUTHORIZED, "the token is not valid for this endpoint".to_owned()));
        }
        let user = status.user.unwrap_or_default();
        let extra = user.extra.unwrap_or_default();
        let one = |key: &str| extra.get(key).and_then(|values| values.first()).cloned();
        let account = user.username.as_deref().and_then(|name| name.strip_prefix("system:serviceaccount:"));
        let (Some((namespace, service_account)), Some(pod), Some(uid)) =
            (account.and_then(|account| account.split_once(':')), one(POD_NAME), one(POD_UID))
        else {
            return Err(Refusal(StatusCode::FORBIDDEN, "the token is not bound to a pod".to_owned()));
        };
        let sender =
            Sender { namespace: namespace.to_owned(), service_account: service_account.to_owned(), pod, uid };
        let mut tokens = self.tokens.lock().await;
        tokens.retain(|_, (_, until)| *until > now);
        if tokens.len() < MAX_TOKENS {
            tokens.insert(token.to_owned(), (sender.clone(), now + TOKEN_MEMORY));
        }
        Ok(sender)
    }

    /// The pod must be the one that the token was issued to, and belong to the tunnel.
    async fn authorize(&self, sender: &Sender, namespace: &str, tunnel: &str) -> Result<(), Refusal> {
        let forbidden = |why: &str| Refusal(StatusCode::FORBIDDEN, why.to_owned());
        if sender.namespace != namespace {
            return Err(forbidden("the pod is in another namespace than the tunnel"));
        }
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let pod = pods.get_opt(&sender.pod).await.map_err(Refusal::api)?.ok_or_else(|| forbidden("the pod does not exist"))?;
        if pod.metadata.uid.as_deref() != Some(&sender.uid) {
            return Err(forbidden("the pod was replaced"));
        }
        let labels = pod.metadata.labels.unwrap_or_default();
        if labels.get(label::TUNNEL).map(String::as_str) != Some(tunnel) {
            return Err(forbidden("the pod does not carry the label of the tunnel"));
        }
        let is_gateway = labels.get(label::ROLE).map(String::as_str) == Some(label::ROLE_GATEWAY);
        if is_gateway && sender.service_account != crate::build::object_name(tunnel) {
            return Err(forbidden("the pod does not run as the tunnel's ServiceAccount"));
        }
        Ok(())
    }
}

struct Refusal(StatusCode, String);

impl Refusal {
    fn api(error: kube::Error) -> Self {
        warn!(%error, "a report could not be checked");
        Self(StatusCode::SERVICE_UNAVAILABLE, "the API server does not answer; try again".to_owned())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

async fn take_report(
    State(endpoint): State<Arc<Endpoint>>,
    Path((namespace, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> Result<axum::Json<Acknowledgement>, Refusal> {
    if !*endpoint.leading.borrow() {
        return Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, "this replica does not lead; try again".to_owned()));
    }
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
        .filter(|token| !token.is_empty() && token.len() <= MAX_TOKEN)
        .ok_or_else(|| Refusal(StatusCode::UNAUTHORIZED, "a bearer token is missing".to_owned()))?;
    let sender = endpoint.identify(token).await?;
    endpoint.authorize(&sender, &namespace, &name).await?;
    let report: Report = serde_json::from_slice(&body)
        .map_err(|error| Refusal(StatusCode::BAD_REQUEST, format!("the report cannot be read: {error}")))?;
    debug!(namespace, tunnel = name, pod = sender.pod, ready = report.is_ready(), "report");
    endpoint.reports.record(PodKey { namespace, tunnel: name, pod: sender.pod }, sender.uid, report);
    Ok(axum::Json(Acknowledgement { heartbeat_seconds: HEARTBEAT_SECONDS }))
}

async fn mutate(State(endpoint): State<Arc<Endpoint>>, body: axum::body::Bytes) -> Response {
    match &endpoint.webhook {
        Some(webhook) => webhook::review(webhook, &endpoint.client, &body).await,
        None => (StatusCode::NOT_FOUND, "the webhook is switched off").into_response(),
    }
}

/// Serves until `shutdown`; then lets requests under way end.
pub async fn serve(
    listener: TcpListener,
    certificate: watch::Receiver<Certificate>,
    endpoint: Arc<Endpoint>,
    shutdown: CancellationToken,
) {
    let router = endpoint.router();
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let slot = tokio::select! {
            () = shutdown.cancelled() => break,
            slot = slots.clone().acquire_owned() => slot,
        };
        // The semaphore is never closed.
        let Ok(slot) = slot else { break };
        let stream = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, for instance: the next one may be accepted.
                    warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        // Each connection takes the certificate of the hour.
        let acceptor = TlsAcceptor::from(certificate.borrow().server.clone());
        let (router, shutdown) = (router.clone(), shutdown.clone());
        tokio::spawn(async move {
            let connection = async {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let mut http = hyper::server::conn::http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
                let service = TowerToHyperService::new(router);
                let mut serving = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
                let ended = tokio::select! {
                    ended = &mut serving => ended,
                    () = shutdown.cancelled() => {
                        serving.as_mut().graceful_shutdown();
                        serving.await
                    }
                };
                if let Err(error) = ended {
                    debug!(%error, "a connection ended");
                }
            };
            if tokio::time::timeout(CONNECTION_LIMIT, connection).await.is_err() {
                debug!("a connection was closed at its limit");
            }
            drop(slot);
        });
    }
    // Connections under way end by themselves; every slot back means all are done.
    let all = u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX);
    if tokio::time::timeout(Duration::from_secs(5), slots.acquire_many(all)).await.is_err() {
        debug!("some connections were still open at the end");
    }
}
