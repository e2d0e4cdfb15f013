//! The operator's HTTPS server: reports of tunnel pods and, on every replica, the admission webhook.
//!
//! A report is believed when the API server says, by TokenReview, that its token was issued for this endpoint to a pod, and
//! that pod belongs to the tunnel that the report is about.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, Client};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::time::timeout;
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
/// A report is a few kilobytes: at most nine layers with a message each.
const MAX_REPORT: usize = 64 << 10;
/// An AdmissionReview holds one pod, and the API server takes objects of up to 3 MiB.
const MAX_REVIEW: usize = 4 << 20;
/// AdmissionReviews that are read and answered at once. Anybody in the cluster can send one, so they bound our memory.
const MAX_REVIEWS: usize = 8;
/// Connections at once; more wait in the listener's queue. A report's connection is closed after the answer.
const MAX_CONNECTIONS: usize = 1_024;
/// Within this, a TLS handshake is done.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// An idle connection is closed after this. It is longer than the 90 seconds after which API servers close theirs, so that
/// no AdmissionReview is sent into a connection that we are closing.
const IDLE_LIMIT: Duration = Duration::from_secs(100);
/// Within this, a request's body has arrived.
const BODY_LIMIT: Duration = Duration::from_secs(5);
/// How long connections have for their last answer when the process ends.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// How long the answer to a TokenReview is remembered.
const TOKEN_MEMORY: Duration = Duration::from_secs(60);
/// How many tokens are remembered; beyond them each report costs a TokenReview.
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
    /// By the SHA-256 of the token, so that no token stays in memory.
    tokens: Mutex<BTreeMap<[u8; 32], (Sender, Instant)>>,
    reviews: Semaphore,
}

impl Endpoint {
    /// An endpoint that keeps what it is told in `reports`.
    pub fn new(
        client: Client,
        reports: Reports,
        leading: watch::Receiver<bool>,
        webhook: Option<Webhook>,
    ) -> Arc<Self> {
        let (tokens, reviews) = (Mutex::new(BTreeMap::new()), Semaphore::new(MAX_REVIEWS));
        Arc::new(Self { client, reports, leading, webhook, tokens, reviews })
    }

    fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route(
                "/v1/namespaces/{namespace}/tunnels/{name}/report",
                post(take_report).layer(DefaultBodyLimit::max(MAX_REPORT)),
            )
            .route("/v1/pods/mutate", post(mutate).layer(DefaultBodyLimit::max(MAX_REVIEW)))
            .with_state(self)
    }

    async fn identify(&self, token: &str) -> Result<Sender, Refusal> {
        let now = Instant::now();
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some((sender, until)) = self.tokens.lock().await.get(&digest)
            && *until > now
        {
            return Ok(sender.clone());
        }
        let review = TokenReview {
            spec: TokenReviewSpec { token: token.to_owned(), audiences: Some(vec![AUDIENCE.to_owned()]) },
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
        let sender = Sender { namespace: namespace.to_owned(), service_account: service_account.to_owned(), pod, uid };
        let mut tokens = self.tokens.lock().await;
        tokens.retain(|_, (_, until)| *until > now);
        if tokens.len() < MAX_TOKENS {
            tokens.insert(digest, (sender.clone(), now + TOKEN_MEMORY));
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
        let pod = pods
            .get_opt(&sender.pod)
            .await
            .map_err(Refusal::api)?
            .ok_or_else(|| forbidden("the pod does not exist"))?;
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

    async fn report(&self, namespace: String, tunnel: String, request: Request) -> Result<Acknowledgement, Refusal> {
        if !*self.leading.borrow() {
            return Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, "this replica does not lead; try again".to_owned()));
        }
        let token = request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
            .filter(|token| !token.is_empty() && token.len() <= MAX_TOKEN)
            .ok_or_else(|| Refusal(StatusCode::UNAUTHORIZED, "a bearer token is missing".to_owned()))?;
        let sender = self.identify(token).await?;
        self.authorize(&sender, &namespace, &tunnel).await?;
        // Read last, so that strangers cost no memory.
        let report: Report = serde_json::from_slice(&body(request).await?)
            .map_err(|error| Refusal(StatusCode::BAD_REQUEST, format!("the report cannot be read: {error}")))?;
        debug!(namespace, tunnel, pod = sender.pod, ready = report.is_ready(), "report");
        self.reports.record(PodKey { namespace, tunnel, pod: sender.pod }, sender.uid, report);
        Ok(Acknowledgement { heartbeat_seconds: HEARTBEAT_SECONDS })
    }
}

/// What is answered to a request that is not accepted.
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
    request: Request,
) -> Response {
    let answer = endpoint.report(namespace, name, request).await;
    // The next report comes in seconds: a connection of each pod would be held open for nothing.
    let close = [(header::CONNECTION, "close")];
    match answer {
        Ok(acknowledgement) => (close, Json(acknowledgement)).into_response(),
        Err(refusal) => (close, refusal).into_response(),
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
    match body(request).await {
        Ok(body) => webhook::review(webhook, &endpoint.client, &body).await,
        Err(refusal) => refusal.into_response(),
    }
}

async fn body(request: Request) -> Result<Bytes, Refusal> {
    match timeout(BODY_LIMIT, Bytes::from_request(request, &())).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(rejection)) => Err(Refusal(rejection.status(), rejection.body_text())),
        Err(_) => Err(Refusal(StatusCode::REQUEST_TIMEOUT, "the request did not arrive in time".to_owned())),
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
            let accepted = tokio::select! {
                accepted = timeout(HANDSHAKE_LIMIT, acceptor.accept(stream)) => accepted,
                () = shutdown.cancelled() => return,
            };
            let Ok(Ok(stream)) = accepted else { return };
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(IDLE_LIMIT);
            let mut serving = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
            let ended = tokio::select! {
                ended = &mut serving => ended,
                () = shutdown.cancelled() => {
                    serving.as_mut().graceful_shutdown();
                    timeout(DRAIN_LIMIT, serving).await.unwrap_or(Ok(()))
                }
            };
            if let Err(error) = ended {
                debug!(%error, "a connection ended");
            }
            drop(slot);
        });
    }
    // Every slot back means that all connections are done.
    let all = u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX);
    if timeout(DRAIN_LIMIT, slots.acquire_many(all)).await.is_err() {
        debug!("some connections were still open at the end");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{mock, tls, verify};

    const HOST: &str = "towline-reports.towline-system.svc";
    const PATH: &str = "/v1/namespaces/erp/tunnels/oslo/report";
    const REVIEW: &str = "POST /apis/authentication.k8s.io/v1/tokenreviews";
    const POD: &str = "GET /api/v1/namespaces/erp/pods/oslo-1";

    /// What the API server says, and whether the replica leads.
    struct World {
        review: Value,
        pod: Option<Value>,
        leading: bool,
    }

    impl Default for World {
        fn default() -> Self {
            Self {
                review: json!({
                    "authenticated": true,
                    "audiences": [AUDIENCE],
                    "user": {
                        "username": format!("system:serviceaccount:erp:{}", crate::build::object_name("oslo")),
                        "extra": {POD_NAME: ["oslo-1"], POD_UID: ["u-1"]},
                    },
                }),
                pod: Some(pod("u-1", "oslo", "gateway")),
                leading: true,
            }
        }
    }

    fn pod(uid: &str, tunnel: &str, role: &str) -> Value {
        json!({"metadata": {"name": "oslo-1", "uid": uid, "labels": {"towline.dev/tunnel": tunnel, "towline.dev/role": role}}})
    }

    /// A server on a port of this machine.
    struct Server {
        address: String,
        bundle: String,
        asked: mock::Asked,
        reports: Reports,
        shutdown: CancellationToken,
        serving: tokio::task::JoinHandle<()>,
    }

    impl Server {
        async fn new(world: World) -> Self {
            let World { review, pod, leading } = world;
            let (client, asked) = mock::api(move |question, body| match question {
                REVIEW => {
                    assert_eq!(body["spec"]["audiences"], json!([AUDIENCE]));
                    let mut answer = body;
                    answer["status"] = review.clone();
                    (StatusCode::CREATED, answer)
                }
                POD => pod.clone().map_or_else(|| mock::refusal(StatusCode::NOT_FOUND), |pod| (StatusCode::OK, pod)),
                other => panic!("{other} is not expected"),
            });
            let certificate = tls::tests::certificate(HOST);
            let bundle = certificate.ca_bundle.clone();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let reports = Reports::default();
            let endpoint = Endpoint::new(client, reports.clone(), watch::channel(leading).1, None);
            let shutdown = CancellationToken::new();
            let serving = tokio::spawn(serve(listener, watch::channel(certificate).1, endpoint, shutdown.clone()));
            Self { address, bundle, asked, reports, shutdown, serving }
        }

        async fn post(&self, token: Option<&str>, body: String) -> (StatusCode, String) {
            let bearer = token.map(|token| format!("Bearer {token}"));
            let headers: Vec<_> = bearer.iter().map(|bearer| (header::AUTHORIZATION, bearer.as_str())).collect();
            verify::post(&self.address, HOST, &self.bundle, PATH, &headers, body.into()).await.unwrap()
        }

        fn asked(&self) -> Vec<String> {
            self.asked.lock().unwrap().clone()
        }
    }

    fn report() -> String {
        serde_json::to_string(&Report::new("7".to_owned())).unwrap()
    }

    #[tokio::test]
    async fn a_report_of_the_tunnels_pod_is_taken() {
        let server = Server::new(World::default()).await;
        let (status, text) = server.post(Some("t"), report()).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        let answer: Acknowledgement = serde_json::from_str(&text).unwrap();
        assert_eq!(answer.heartbeat_seconds, HEARTBEAT_SECONDS);
        assert_eq!(server.asked(), [REVIEW, POD]);
        assert_eq!(server.reports.len(), 1);
    }

    #[tokio::test]
    async fn a_second_report_costs_no_second_token_review_and_its_pod_is_still_looked_at() {
        let server = Server::new(World::default()).await;
        for _ in 0..2 {
            assert_eq!(server.post(Some("t"), report()).await.0, StatusCode::OK);
        }
        assert_eq!(server.post(Some("other"), report()).await.0, StatusCode::OK);
        assert_eq!(server.asked(), [REVIEW, POD, POD, REVIEW, POD]);
    }

    #[tokio::test]
    async fn tokens_that_are_not_for_us_are_refused_and_not_remembered() {
        let mut other_audience = World::default();
        other_audience.review["audiences"] = json!(["https://kubernetes.default.svc"]);
        let review = json!({"authenticated": false, "error": "expired"});
        let invalid = World { review, ..World::default() };
        let mut without_audience = World::default();
        without_audience.review.as_object_mut().unwrap().remove("audiences");
        for world in [other_audience, invalid, without_audience] {
            let server = Server::new(world).await;
            for _ in 0..2 {
                let (status, text) = server.post(Some("t"), report()).await;
                assert_eq!(
                    (status, text.as_str()),
                    (StatusCode::UNAUTHORIZED, "the token is not valid for this endpoint")
                );
            }
            assert_eq!(server.asked(), [REVIEW, REVIEW]);
        }
    }

    #[tokio::test]
    async fn a_token_of_no_pod_or_of_no_service_account_is_refused() {
        let mut unbound = World::default();
        unbound.review["user"].as_object_mut().unwrap().remove("extra");
        let mut person = World::default();
        person.review["user"]["username"] = json!("jane");
        for world in [unbound, person] {
            let (status, text) = Server::new(world).await.post(Some("t"), report()).await;
            assert_eq!((status, text.as_str()), (StatusCode::FORBIDDEN, "the token is not bound to a pod"));
        }
    }

    #[tokio::test]
    async fn pods_that_are_not_the_tunnels_are_refused() {
        let with_pod = |pod: Option<Value>| World { pod, ..World::default() };
        let account = |account: &str, role: &str| {
            let mut world = with_pod(Some(pod("u-1", "oslo", role)));
            world.review["user"]["username"] = json!(format!("system:serviceaccount:{account}"));
            world
        };
        let cases = [
            (account("crm:towline-oslo", "gateway"), "the pod is in another namespace than the tunnel"),
            (with_pod(None), "the pod does not exist"),
            (with_pod(Some(pod("u-2", "oslo", "gateway"))), "the pod was replaced"),
            (with_pod(Some(pod("u-1", "bergen", "gateway"))), "the pod does not carry the label of the tunnel"),
            (account("erp:default", "gateway"), "the pod does not run as the tunnel's ServiceAccount"),
        ];
        for (world, expected) in cases {
            let server = Server::new(world).await;
            let (status, text) = server.post(Some("t"), report()).await;
            assert_eq!((status, text.as_str()), (StatusCode::FORBIDDEN, expected));
            assert_eq!(server.reports.len(), 0);
        }
        let sidecar = Server::new(account("erp:default", "sidecar")).await;
        assert_eq!(sidecar.post(Some("t"), report()).await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn a_replica_that_does_not_lead_sends_the_pod_away_unasked() {
        let server = Server::new(World { leading: false, ..World::default() }).await;
        assert_eq!(server.post(Some("t"), report()).await.0, StatusCode::SERVICE_UNAVAILABLE);
        assert!(server.asked().is_empty());
    }

    #[tokio::test]
    async fn no_token_no_question() {
        let server = Server::new(World::default()).await;
        assert_eq!(server.post(None, report()).await.0, StatusCode::UNAUTHORIZED);
        assert_eq!(server.post(Some(""), report()).await.0, StatusCode::UNAUTHORIZED);
        assert!(server.asked().is_empty());
    }

    #[tokio::test]
    async fn bodies_that_are_too_large_or_no_report_are_refused() {
        let server = Server::new(World::default()).await;
        assert_eq!(server.post(Some("t"), " ".repeat(MAX_REPORT + 1)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
        let (status, text) = server.post(Some("t"), "{}".to_owned()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(text.starts_with("the report cannot be read: "), "{text}");
        assert_eq!(server.reports.len(), 0);
    }

    #[tokio::test]
    async fn the_server_ends_when_it_is_told_to_though_a_client_says_nothing() {
        let server = Server::new(World::default()).await;
        let idle = tokio::net::TcpStream::connect(&server.address).await.unwrap();
        server.shutdown.cancel();
        timeout(DRAIN_LIMIT * 2, server.serving).await.expect("the server goes on").unwrap();
        drop(idle);
    }
}
