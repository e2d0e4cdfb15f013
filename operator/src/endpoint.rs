//! What the operator serves over HTTPS: reports of tunnel pods and, on every replica, the admission webhook. Each has a server
//! of its own, so that a flood of the one does not silence the other.
//!
//! A report is believed when the API server says, by TokenReview, that its token was issued for this endpoint to a pod, and
//! that pod carries the tunnel that the report is about.

mod identity;
pub mod server;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, Resource};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use towline_tunnel::report::Acknowledgement;
use tracing::{debug, warn};

use crate::api::label;
use crate::api::tunnel::Mode;
use crate::cache::{Cache, Tunnel};
use crate::controller::pods::belongs;
use crate::metrics::{Metrics, Refused, Reviewed};
use crate::reports::{self, PodKey, Reports};
use crate::webhook::{self, Webhook};
use identity::{Identities, Sender};

/// The audience of the tokens that pods report with.
pub const AUDIENCE: &str = "towline.dev/report";
/// Seconds between two reports of a pod when nothing changes.
pub const HEARTBEAT_SECONDS: u32 = 10;
/// Connections with reports at once. Each is closed after its answer: the next report comes in seconds, and a connection of each
/// pod would be held open for nothing.
pub const MAX_REPORT_CONNECTIONS: usize = 1_024;
/// Connections of API servers at once, which keep theirs open.
pub const MAX_WEBHOOK_CONNECTIONS: usize = 256;
/// The report of a client is a few kilobytes: seven layers with a message each.
const MAX_REPORT: usize = 16 << 10;
/// The report of a server names each of its users, [`MAX_USERS`] at most.
///
/// [`MAX_USERS`]: towline_tunnel::config::server::MAX_USERS
const MAX_SERVER_REPORT: usize = 2 << 20;
/// An AdmissionReview holds one pod, and the API server takes objects of up to 3 MiB.
const MAX_REVIEW: usize = 4 << 20;
/// AdmissionReviews that are read and answered at once. Anybody in the cluster can send one, so they bound our memory.
const MAX_REVIEWS: usize = 8;
/// Within this, a request's body has arrived.
const BODY_LIMIT: Duration = Duration::from_secs(5);
/// Within this, the API server has answered a question about a report.
const API_LIMIT: Duration = Duration::from_secs(8);
/// Longer ones are no tokens.
const MAX_TOKEN: usize = 16 << 10;

/// What the handlers share.
pub struct Endpoint {
    client: Client,
    reports: Reports,
    cache: Cache,
    /// Only the leader takes reports: the others would keep what nobody reads.
    leading: watch::Receiver<bool>,
    webhook: Option<Webhook>,
    metrics: Metrics,
    identities: Identities,
    reviews: Semaphore,
}

impl Endpoint {
    /// An endpoint that keeps what it is told in `reports`.
    pub fn new(
        client: Client,
        reports: Reports,
        cache: Cache,
        leading: watch::Receiver<bool>,
        webhook: Option<Webhook>,
        metrics: Metrics,
    ) -> Arc<Self> {
        let (identities, reviews) = (Identities::new(client.clone()), Semaphore::new(MAX_REVIEWS));
        Arc::new(Self { client, reports, cache, leading, webhook, metrics, identities, reviews })
    }

    /// What is answered to pods.
    pub fn report_router(self: Arc<Self>) -> Router {
        let path = "/v1/namespaces/{namespace}/tunnels/{name}/report";
        Router::new().route(path, post(take_report)).with_state(self)
    }

    /// What is answered to API servers.
    pub fn webhook_router(self: Arc<Self>) -> Router {
        Router::new().route("/v1/pods/mutate", post(mutate).layer(DefaultBodyLimit::max(MAX_REVIEW))).with_state(self)
    }

    /// The tunnel, unless it is gone or goes. That is said only when the API server says it: the cache may be behind.
    async fn tunnel(&self, namespace: &str, name: &str) -> Result<Arc<Tunnel>, Refusal> {
        let tunnel = match self.cache.tunnel(namespace, name) {
            Some(tunnel) => Some(tunnel),
            None => {
                let tunnels = Api::<Tunnel>::namespaced(self.client.clone(), namespace);
                let found = timeout(API_LIMIT, tunnels.get_opt(name)).await.map_err(|_| Refusal::late())?;
                found.map_err(Refusal::api)?.map(Arc::new)
            }
        };
        tunnel.filter(|tunnel| tunnel.meta().deletion_timestamp.is_none()).ok_or_else(|| {
            let text = format!("VpnTunnel {namespace}/{name} does not exist");
            Refusal::new(StatusCode::GONE, Refused::NoTunnel, text)
        })
    }

    /// The pod must be the one that the token was issued to, and carry the tunnel.
    async fn authorize(&self, sender: &Sender, name: &str, tunnel: &Tunnel) -> Result<(), Refusal> {
        let forbidden = |why: &str| Refusal::new(StatusCode::FORBIDDEN, Refused::Forbidden, why);
        let is_it = |pod: &Pod| pod.metadata.uid.as_deref() == Some(&sender.uid);
        let pod = match self.cache.pod(&sender.namespace, &sender.pod).filter(|pod| is_it(pod)) {
            Some(pod) => pod,
            None => {
                let pods: Api<Pod> = Api::namespaced(self.client.clone(), &sender.namespace);
                let found = timeout(API_LIMIT, pods.get_opt(&sender.pod)).await.map_err(|_| Refusal::late())?;
                let found = found.map_err(Refusal::api)?;
                Arc::new(found.ok_or_else(|| forbidden("the pod does not exist"))?)
            }
        };
        if !is_it(&pod) {
            return Err(forbidden("the pod was replaced"));
        }
        if pod.metadata.labels.as_ref().and_then(|labels| labels.get(label::TUNNEL)).map(String::as_str) != Some(name) {
            return Err(forbidden("the pod does not carry the label of the tunnel"));
        }
        let tunnel = tunnel.0.as_ref().map_err(|error| {
            let text = format!("the VpnTunnel cannot be read: {error}");
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, Refused::Unavailable, text)
        })?;
        if !belongs(&pod, tunnel) {
            return Err(forbidden("the pod is none that carries the tunnel as it is attached"));
        }
        Ok(())
    }

    async fn report(
        &self,
        namespace: String,
        tunnel: String,
        mut request: Request,
    ) -> Result<Acknowledgement, Refusal> {
        if !*self.leading.borrow() {
            let text = "this replica does not lead; try again";
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, Refused::Unavailable, text));
        }
        let token = request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
            .filter(|token| !token.is_empty() && token.len() <= MAX_TOKEN)
            .ok_or_else(|| {
                Refusal::new(StatusCode::UNAUTHORIZED, Refused::Unauthenticated, "a bearer token is missing")
            })?;
        let sender = self.identities.identify(token).await?;
        if sender.namespace != namespace {
            let text = "the pod is in another namespace than the tunnel";
            return Err(Refusal::new(StatusCode::FORBIDDEN, Refused::Forbidden, text));
        }
        let known = self.tunnel(&namespace, &tunnel).await?;
        self.authorize(&sender, &tunnel, &known).await?;
        let is_server = known.0.as_ref().is_ok_and(|tunnel| tunnel.spec.mode == Mode::Server);
        DefaultBodyLimit::max(if is_server { MAX_SERVER_REPORT } else { MAX_REPORT }).apply(&mut request);
        // Read last, so that strangers cost no memory.
        let report = reports::read(&body(request).await?).map_err(|error| {
            let text = format!("the report cannot be read: {error}");
            Refusal::new(StatusCode::BAD_REQUEST, Refused::Malformed, text)
        })?;
        debug!(namespace, tunnel, pod = sender.pod, ready = report.is_ready(), "report");
        self.reports.record(PodKey { namespace, tunnel, pod: sender.pod }, sender.uid, report);
        Ok(Acknowledgement { heartbeat_seconds: HEARTBEAT_SECONDS })
    }
}

/// What is answered to a request that is not accepted.
struct Refusal {
    status: StatusCode,
    reason: Refused,
    text: String,
}

impl Refusal {
    fn new(status: StatusCode, reason: Refused, text: impl Into<String>) -> Self {
        Self { status, reason, text: text.into() }
    }

    fn api(error: kube::Error) -> Self {
        warn!(%error, "a report could not be checked");
        Self::late()
    }

    /// The API server does not answer, or not in time.
    fn late() -> Self {
        let text = "the API server does not answer; try again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Refused::Unavailable, text)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, self.text).into_response()
    }
}

async fn take_report(
    State(endpoint): State<Arc<Endpoint>>,
    Path((namespace, name)): Path<(String, String)>,
    request: Request,
) -> Response {
    let answer = endpoint.report(namespace, name, request).await;
    let close = [(header::CONNECTION, "close")];
    match answer {
        Ok(acknowledgement) => (close, Json(acknowledgement)).into_response(),
        Err(refusal) => {
            endpoint.metrics.refused(refusal.reason);
            (close, refusal).into_response()
        }
    }
}

async fn mutate(State(endpoint): State<Arc<Endpoint>>, request: Request) -> Response {
    let Some(webhook) = &endpoint.webhook else {
        return (StatusCode::NOT_FOUND, "the webhook is switched off").into_response();
    };
    // The semaphore is never closed.
    let Ok(_review) = endpoint.reviews.acquire().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let response = match body(request).await {
        Ok(body) => webhook::review(webhook, &endpoint.client, &body).await,
        Err(refusal) => refusal.into_response(),
    };
    endpoint.metrics.reviewed(if !response.status().is_success() {
        Reviewed::Failed
    } else if response.extensions().get::<webhook::Denied>().is_some() {
        Reviewed::Denied
    } else {
        Reviewed::Allowed
    });
    response
}

async fn body(request: Request) -> Result<Bytes, Refusal> {
    match timeout(BODY_LIMIT, Bytes::from_request(request, &())).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(rejection)) => Err(Refusal::new(rejection.status(), Refused::Malformed, rejection.body_text())),
        Err(_) => {
            let text = "the request did not arrive in time";
            Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, Refused::Malformed, text))
        }
    }
}

#[cfg(test)]
mod tests;
