//! The endpoint on a port of this machine, asked over TLS.

use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use towline_tunnel::report::Report;

use super::identity::{POD_NAME, POD_UID};
use super::server::{DRAIN_LIMIT, FIRST_REQUEST_LIMIT, Server};
use super::*;
use crate::cache::Writers;
use crate::{mock, tls, verify};

const HOST: &str = "towline-reports.towline-system.svc";
const PATH: &str = "/v1/namespaces/erp/tunnels/oslo/report";
const REVIEW: &str = "POST /apis/authentication.k8s.io/v1/tokenreviews";
const POD: &str = "GET /api/v1/namespaces/erp/pods/oslo-1";

const TUNNEL: &str = "GET /apis/towline.dev/v1alpha1/namespaces/erp/vpntunnels/oslo";

/// What the API server says, and whether the replica leads.
struct World {
    review: Value,
    tunnel: Option<Value>,
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
            tunnel: Some(tunnel("Gateway")),
            pod: Some(pod("u-1", "oslo", "gateway")),
            leading: true,
        }
    }
}

fn tunnel(attachment: &str) -> Value {
    serde_json::to_value(crate::build::tests::tunnel(attachment)).unwrap()
}

/// A pod as the Deployment makes it, or the webhook.
fn pod(uid: &str, tunnel: &str, role: &str) -> Value {
    let mut pod = json!({
        "metadata": {
            "name": "oslo-1", "namespace": "erp", "uid": uid,
            "labels": {"towline.dev/tunnel": tunnel, "towline.dev/role": role},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "towline-oslo-7d9", "uid": "r", "controller": true,
            }],
        },
        "spec": {"serviceAccountName": "towline-oslo", "containers": [{"name": "towline"}]},
    });
    if role == "sidecar" {
        pod["spec"]["initContainers"] = json!([{"name": "towline"}]);
    }
    pod
}

/// A server on a port of this machine.
struct Running {
    address: String,
    bundle: String,
    asked: mock::Asked,
    reports: Reports,
    metrics: Metrics,
    writers: Writers,
    shutdown: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn new(world: World) -> Self {
        let World { review, tunnel, pod, leading } = world;
        let found = |object: &Option<Value>| {
            object.clone().map_or_else(|| mock::refusal(StatusCode::NOT_FOUND), |object| (StatusCode::OK, object))
        };
        let (client, asked) = mock::api(move |question, body| match question {
            REVIEW => {
                assert_eq!(body["spec"]["audiences"], json!([AUDIENCE]));
                let mut answer = body;
                answer["status"] = review.clone();
                (StatusCode::CREATED, answer)
            }
            TUNNEL => found(&tunnel),
            POD => found(&pod),
            other => panic!("{other} is not expected"),
        });
        let certificate = tls::tests::certificate(HOST);
        let bundle = certificate.ca_bundle.clone();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (cache, writers) = Cache::new();
        let (reports, metrics) = (Reports::default(), Metrics::default());
        let is_leading = watch::channel(leading).1;
        let endpoint = Endpoint::new(client, reports.clone(), cache, is_leading, None, metrics.clone());
        let shutdown = CancellationToken::new();
        let certificate = watch::channel(certificate).1;
        let server = Server {
            listener,
            certificate,
            router: endpoint.report_router(),
            max_connections: 8,
            first_request: FIRST_REQUEST_LIMIT,
        };
        let serving = tokio::spawn(server.serve(shutdown.clone()));
        Self { address, bundle, asked, reports, metrics, writers, shutdown, serving }
    }

    async fn post(&self, token: Option<&str>, body: String) -> (StatusCode, String) {
        self.try_post(token, body).await.unwrap()
    }

    /// An error also when the connection is closed before the body is sent.
    async fn try_post(&self, token: Option<&str>, body: String) -> anyhow::Result<(StatusCode, String)> {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = bearer.iter().map(|bearer| (header::AUTHORIZATION, bearer.as_str())).collect();
        verify::post(&self.address, HOST, &self.bundle, PATH, &headers, body.into()).await
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// The watches know the tunnel and its pod.
    fn watch(&mut self) {
        let tunnel: Tunnel = serde_json::from_value(tunnel("Gateway")).unwrap();
        self.writers.tunnels.apply_watcher_event(&Event::Apply(tunnel));
        let pod: Pod = serde_json::from_value(pod("u-1", "oslo", "gateway")).unwrap();
        self.writers.pods.apply_watcher_event(&Event::Apply(pod));
    }
}

fn report() -> String {
    serde_json::to_string(&Report::new("7".to_owned())).unwrap()
}

#[tokio::test]
async fn a_report_of_the_tunnels_pod_is_taken() {
    let server = Running::new(World::default()).await;
    let (status, text) = server.post(Some("t"), report()).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    let answer: Acknowledgement = serde_json::from_str(&text).unwrap();
    assert_eq!(answer.heartbeat_seconds, HEARTBEAT_SECONDS);
    assert_eq!(server.asked(), [REVIEW, TUNNEL, POD]);
    assert_eq!(server.reports.len(), 1);
}

#[tokio::test]
async fn a_second_report_costs_no_second_token_review_and_its_pod_is_still_looked_at() {
    let server = Running::new(World::default()).await;
    for _ in 0..2 {
        assert_eq!(server.post(Some("t"), report()).await.0, StatusCode::OK);
    }
    assert_eq!(server.post(Some("other"), report()).await.0, StatusCode::OK);
    assert_eq!(server.asked(), [REVIEW, TUNNEL, POD, TUNNEL, POD, REVIEW, TUNNEL, POD]);
}

#[tokio::test]
async fn what_the_watches_know_is_not_asked_for() {
    let mut server = Running::new(World::default()).await;
    server.watch();
    assert_eq!(server.post(Some("t"), report()).await.0, StatusCode::OK);
    assert_eq!(server.asked(), [REVIEW]);
}

#[tokio::test]
async fn a_report_about_a_tunnel_that_is_gone_or_goes_is_answered_so_and_nothing_is_kept() {
    let mut going = tunnel("Gateway");
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    for tunnel in [None, Some(going)] {
        let server = Running::new(World { tunnel, ..World::default() }).await;
        let (status, text) = server.post(Some("t"), report()).await;
        assert_eq!((status, text.as_str()), (StatusCode::GONE, "VpnTunnel erp/oslo does not exist"));
        assert_eq!(server.reports.len(), 0);
        let counted = "towline_operator_reports_refused_total{reason=\"no-tunnel\"} 1\n";
        assert!(server.metrics.render().unwrap().contains(counted));
    }
}

#[tokio::test]
async fn the_report_of_a_server_may_name_many_users_and_that_of_a_client_may_not() {
    let user =
        json!({"name": "n".repeat(200), "sessions": 0, "lastAttempt": 7, "accepted": false, "result": "unknown"});
    let mut long = serde_json::to_value(Report::new("1".to_owned())).unwrap();
    long["users"] = json!(vec![user; 500]);
    let mut server = tunnel("Gateway");
    server["spec"] = serde_json::to_value(crate::build::tests::server().spec).unwrap();
    for (tunnel, is_taken) in [(tunnel("Gateway"), false), (server, true)] {
        let running = Running::new(World { tunnel: Some(tunnel), ..World::default() }).await;
        let answer = running.try_post(Some("t"), long.to_string()).await;
        assert_eq!(answer.is_ok_and(|(status, _)| status == StatusCode::OK), is_taken);
        assert_eq!(running.reports.len(), usize::from(is_taken));
    }
}

#[tokio::test]
async fn a_tunnel_that_only_the_watch_does_not_know_is_not_gone() {
    let server = Running::new(World::default()).await;
    assert_eq!(server.post(Some("t"), report()).await.0, StatusCode::OK);
    assert!(server.asked().contains(&TUNNEL.to_owned()));
}

#[tokio::test]
async fn a_tunnel_that_this_version_cannot_read_is_not_gone_either() {
    let mut later = tunnel("Gateway");
    later["spec"]["mode"] = json!("Relay");
    let server = Running::new(World { tunnel: Some(later), ..World::default() }).await;
    let (status, text) = server.post(Some("t"), report()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(text.starts_with("the VpnTunnel cannot be read: "), "{text}");
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
        let server = Running::new(world).await;
        for _ in 0..2 {
            let (status, text) = server.post(Some("t"), report()).await;
            assert_eq!((status, text.as_str()), (StatusCode::UNAUTHORIZED, "the token is not valid for this endpoint"));
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
        let (status, text) = Running::new(world).await.post(Some("t"), report()).await;
        assert_eq!((status, text.as_str()), (StatusCode::FORBIDDEN, "the token is not bound to a pod"));
    }
}

#[tokio::test]
async fn pods_that_are_not_the_tunnels_are_refused() {
    let with_pod = |pod: Option<Value>| World { pod, ..World::default() };
    let changed = |path: &str, value: Value| {
        let mut pod = pod("u-1", "oslo", "gateway");
        *pod.pointer_mut(path).unwrap() = value;
        with_pod(Some(pod))
    };
    let mut elsewhere = World::default();
    elsewhere.review["user"]["username"] = json!("system:serviceaccount:crm:towline-oslo");
    let not_attached = "the pod is none that carries the tunnel as it is attached";
    let cases = [
        (elsewhere, "the pod is in another namespace than the tunnel"),
        (with_pod(None), "the pod does not exist"),
        (with_pod(Some(pod("u-2", "oslo", "gateway"))), "the pod was replaced"),
        (with_pod(Some(pod("u-1", "bergen", "gateway"))), "the pod does not carry the label of the tunnel"),
        (with_pod(Some(pod("u-1", "oslo", "sidecar"))), not_attached),
        (changed("/spec/serviceAccountName", json!("default")), not_attached),
        (changed("/metadata/ownerReferences", json!([])), not_attached),
    ];
    for (world, expected) in cases {
        let server = Running::new(world).await;
        let (status, text) = server.post(Some("t"), report()).await;
        assert_eq!((status, text.as_str()), (StatusCode::FORBIDDEN, expected));
        assert_eq!(server.reports.len(), 0);
    }
    let mut sidecar = World { tunnel: Some(tunnel("Sidecar")), ..with_pod(Some(pod("u-1", "oslo", "sidecar"))) };
    sidecar.review["user"]["username"] = json!("system:serviceaccount:erp:default");
    assert_eq!(Running::new(sidecar).await.post(Some("t"), report()).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_replica_that_does_not_lead_sends_the_pod_away_unasked() {
    let server = Running::new(World { leading: false, ..World::default() }).await;
    assert_eq!(server.post(Some("t"), report()).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn no_token_no_question() {
    let server = Running::new(World::default()).await;
    assert_eq!(server.post(None, report()).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(server.post(Some(""), report()).await.0, StatusCode::UNAUTHORIZED);
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn bodies_that_are_too_large_or_no_report_are_refused() {
    let server = Running::new(World::default()).await;
    assert_eq!(server.post(Some("t"), " ".repeat(MAX_REPORT + 1)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let (status, text) = server.post(Some("t"), "{}".to_owned()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(text.starts_with("the report cannot be read: "), "{text}");
    assert_eq!(server.reports.len(), 0);
}

#[tokio::test]
async fn the_server_ends_when_it_is_told_to_though_a_client_says_nothing() {
    let server = Running::new(World::default()).await;
    let idle = tokio::net::TcpStream::connect(&server.address).await.unwrap();
    server.shutdown.cancel();
    timeout(DRAIN_LIMIT * 2, server.serving).await.expect("the server goes on").unwrap();
    drop(idle);
}

#[tokio::test]
async fn what_the_webhook_answers_is_counted() {
    let (client, _) = mock::api(|question, _| {
        assert_eq!(question, TUNNEL);
        mock::refusal(StatusCode::NOT_FOUND)
    });
    let metrics = Metrics::default();
    let webhook = Webhook { settings: crate::build::pod::tests::settings() };
    let leading = watch::channel(false).1;
    let endpoint = Endpoint::new(client, Reports::default(), Cache::new().0, leading, Some(webhook), metrics.clone());
    let review = |labels: Value| {
        let pod = json!({"metadata": {"name": "app", "labels": labels}, "spec": {"containers": []}});
        json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "u-1",
                "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "resource": {"group": "", "version": "v1", "resource": "pods"},
                "namespace": "erp",
                "operation": "CREATE",
                "userInfo": {},
                "object": pod,
            },
        })
    };
    for body in [review(json!({})), review(json!({"towline.dev/tunnel": "oslo"})), json!({})] {
        let request = Request::new(axum::body::Body::from(body.to_string()));
        mutate(State(endpoint.clone()), request).await;
    }
    let text = metrics.render().unwrap();
    for result in ["allowed", "denied", "error"] {
        let line = format!("towline_operator_webhook_reviews_total{{result=\"{result}\"}} 1\n");
        assert!(text.contains(&line), "{line} is missing in {text}");
    }
}
