//! Runs of the controller against a scripted API server and caches that the test fills.

use std::sync::Mutex as StdMutex;

use axum::http::StatusCode;
use kube::api::PartialObjectMeta;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use towline_tunnel::report::{Layer, Reason, Report, State};

use super::*;
use crate::build::tests::{built, server, tunnel};
use crate::build::users::Roll;
use crate::build::users::tests::user;
use crate::reports::PodKey;
use crate::{mock, tls};

const STATUS: &str = "PATCH /apis/towline.dev/v1alpha1/namespaces/erp/vpntunnels/oslo/status";
const EVENT: &str = "POST /apis/events.k8s.io/v1/namespaces/erp/events";

/// A leader, the API server's objects, and what the leader asked.
struct World {
    context: Arc<Context>,
    writers: Writers,
    asked: mock::Asked,
    /// Bodies of the writes, with what was asked.
    written: Arc<StdMutex<Vec<(String, Value)>>>,
}

/// An answer that is not the usual one.
type Answer = fn(&str, &Value) -> Option<(StatusCode, Value)>;

impl World {
    /// A world in which every object that is written gets resourceVersion 1, save what `answer` says.
    fn new(answer: Answer) -> Self {
        let written = Arc::new(StdMutex::new(Vec::new()));
        let record = written.clone();
        let (client, asked) = mock::api(move |question, body| {
            if !body.is_null() {
                record.lock().unwrap().push((question.to_owned(), body.clone()));
            }
            if let Some(answer) = answer(question, &body) {
                return answer;
            }
            if question.starts_with("GET") {
                return mock::refusal(StatusCode::NOT_FOUND);
            }
            let mut made = body;
            made["metadata"]["resourceVersion"] = json!("1");
            if question == STATUS {
                made["spec"] = serde_json::to_value(tunnel("Gateway").spec).unwrap();
            }
            (StatusCode::OK, made)
        });
        let (cache, mut writers) = Cache::new();
        for event in [Event::Init, Event::InitDone] {
            writers.tunnels.apply_watcher_event(&event);
        }
        for event in [Event::Init, Event::InitDone] {
            writers.users.apply_watcher_event(&event);
        }
        macro_rules! listed {
            ($($field:ident)*) => { $(
                writers.$field.apply_watcher_event(&Event::Init);
                writers.$field.apply_watcher_event(&Event::InitDone);
            )* };
        }
        listed!(pods config_maps deployments disruption_budgets service_accounts services);
        let certificate = watch::channel(tls::tests::certificate("towline-reports.towline-system.svc")).1;
        let parts = Parts {
            client,
            settings: build::pod::tests::settings(),
            reports: Reports::default(),
            cache,
            certificate,
            metrics: Metrics::default(),
            health: Health::default(),
        };
        Self { context: Arc::new(Context::new(parts, "operator-1")), writers, asked, written }
    }

    async fn run(&self, tunnel: &VpnTunnel) -> Result<Action, Error> {
        reconcile(Arc::new(DeserializeGuard(Ok(tunnel.clone()))), self.context.clone()).await
    }

    /// What was asked since the last call.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    /// The body of the last write of `question`.
    fn written(&self, question: &str) -> Value {
        let written = self.written.lock().unwrap();
        written.iter().rev().find(|(asked, _)| asked == question).unwrap().1.clone()
    }

    /// The watches bring what the leader wrote.
    fn watch_objects(&mut self, tunnel: &VpnTunnel, version: &str) {
        let objects = built(tunnel);
        let gateway = objects.gateway.unwrap();
        macro_rules! seen {
            ($($field:ident: $object:expr),*) => { $(
                let meta = PartialObjectMeta { metadata: $object.metadata.clone(), ..PartialObjectMeta::default() };
                let mut meta = meta;
                meta.metadata.resource_version = Some(version.to_owned());
                self.writers.$field.apply_watcher_event(&Event::Apply(meta));
            )* };
        }
        seen!(config_maps: objects.config_map, service_accounts: gateway.service_account,
            deployments: gateway.deployment, disruption_budgets: gateway.disruption_budget);
        for mut service in objects.services {
            service.metadata.resource_version = Some(version.to_owned());
            self.writers.services.apply_watcher_event(&Event::Apply(service));
        }
    }

    /// A pod of the tunnel runs, and reports.
    fn watch_pod(&mut self) {
        let template = built(&tunnel("Gateway")).template;
        self.writers.pods.apply_watcher_event(&Event::Apply(
            serde_json::from_value(json!({
                "metadata": {
                    "annotations": {"towline.dev/template": template},
                    "name": "oslo-1", "namespace": "erp", "uid": "p-1",
                    "labels": {"towline.dev/tunnel": "oslo", "towline.dev/role": "gateway"},
                    "ownerReferences": [{
                        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "towline-oslo-7d9", "uid": "r", "controller": true,
                    }],
                },
                "spec": {"serviceAccountName": "towline-oslo", "containers": [{"name": "towline"}]},
                "status": {
                    "phase": "Running",
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "containerStatuses": [{
                        "name": "towline", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}},
                    }],
                },
            }))
            .unwrap(),
        ));
    }

    fn report(&self, tunnel: &VpnTunnel) {
        let bundle = self.context.certificate.borrow().ca_bundle.clone();
        let revision = build::objects(tunnel, &Roll::default(), &self.context.settings, &bundle).unwrap().revision;
        let mut report = Report::new(revision);
        for layer in Layer::CLIENT {
            report.set(layer, State::Up, Reason::ProbeSucceeded, "It works.");
        }
        let key = PodKey { namespace: "erp".to_owned(), tunnel: "oslo".to_owned(), pod: "oslo-1".to_owned() };
        self.context.reports.record(key, "p-1".to_owned(), report);
    }
}

/// The condition of a written status, as `status reason message`.
fn condition(body: &Value, kind: &str) -> String {
    let conditions = body["status"]["conditions"].as_array().unwrap();
    let condition = conditions.iter().find(|condition| condition["type"] == kind).unwrap();
    let word = |key: &str| condition[key].as_str().unwrap().to_owned();
    [word("status"), word("reason"), word("message")].join(" ")
}

fn writes(asked: &[String]) -> Vec<&str> {
    asked.iter().filter(|asked| !asked.starts_with("GET")).map(String::as_str).collect()
}

#[tokio::test]
async fn a_new_tunnel_gets_its_objects_and_its_status() {
    let world = World::new(|_, _| None);
    world.run(&tunnel("Gateway")).await.unwrap();
    let asked = world.asked();
    let (core, apps) = ("PATCH /api/v1/namespaces/erp", "PATCH /apis/apps/v1/namespaces/erp");
    assert_eq!(
        writes(&asked),
        [
            &format!("{core}/serviceaccounts/towline-oslo"),
            &format!("{core}/configmaps/towline-oslo"),
            &format!("{apps}/deployments/towline-oslo"),
            "PATCH /apis/policy/v1/namespaces/erp/poddisruptionbudgets/towline-oslo",
            &format!("{core}/services/oslo-web"),
            &format!("{core}/services/oslo-db"),
            STATUS,
        ]
    );
    let status = world.written(STATUS);
    assert!(condition(&status, "Accepted").starts_with("True Valid "));
    assert!(condition(&status, "Provisioned").starts_with("False PodsPending "));
}

#[tokio::test]
async fn a_second_run_with_nothing_changed_writes_nothing_and_reads_nothing() {
    let mut world = World::new(|_, _| None);
    let mut oslo = tunnel("Gateway");
    oslo.metadata.resource_version = Some("70".to_owned());
    world.watch_pod();
    world.report(&oslo);
    world.run(&oslo).await.unwrap();
    assert!(condition(&world.written(STATUS), "Ready").starts_with("True "));
    assert!(condition(&world.written(STATUS), "Provisioned").starts_with("True "));
    world.watch_objects(&oslo, "1");
    world.asked();
    // The watch has not brought the status yet, and then it has.
    world.run(&oslo).await.unwrap();
    assert_eq!(world.asked(), [""; 0]);
    oslo.status = Some(serde_json::from_value(world.written(STATUS)["status"].clone()).unwrap());
    oslo.metadata.resource_version = Some("71".to_owned());
    world.run(&oslo).await.unwrap();
    assert_eq!(world.asked(), [""; 0]);
}

#[tokio::test]
async fn an_object_that_somebody_changed_is_written_again_and_no_other() {
    let mut world = World::new(|_, _| None);
    let mut oslo = tunnel("Gateway");
    oslo.metadata.resource_version = Some("70".to_owned());
    world.run(&oslo).await.unwrap();
    world.watch_objects(&oslo, "1");
    let mut service = built(&oslo).services.swap_remove(0);
    service.metadata.resource_version = Some("2".to_owned());
    world.writers.services.apply_watcher_event(&Event::Apply(service));
    world.asked();
    world.run(&oslo).await.unwrap();
    assert_eq!(writes(&world.asked()), ["PATCH /api/v1/namespaces/erp/services/oslo-web"]);
}

#[tokio::test]
async fn an_object_of_somebody_else_is_left_alone_and_the_others_are_written_all_the_same() {
    let world = World::new(|question, _| {
        (question == "GET /api/v1/namespaces/erp/services/oslo-web")
            .then(|| (StatusCode::OK, json!({"metadata": {"name": "oslo-web", "namespace": "erp"}})))
    });
    let error = world.run(&tunnel("Gateway")).await.unwrap_err().to_string();
    let remedy = "Service oslo-web exists and belongs to somebody else: rename export web, or delete the Service";
    assert_eq!(error, remedy);
    let asked = world.asked();
    assert!(!asked.contains(&"PATCH /api/v1/namespaces/erp/services/oslo-web".to_owned()));
    assert!(asked.contains(&"PATCH /api/v1/namespaces/erp/services/oslo-db".to_owned()));
    let status = world.written(STATUS);
    assert_eq!(condition(&status, "Provisioned"), format!("False ApplyFailed {remedy}."));
    assert_eq!(status["status"]["services"][0]["name"], "db");
    // The condition is there before people are told of it.
    let status_at = asked.iter().position(|asked| asked == STATUS).unwrap();
    assert!(asked.iter().position(|asked| asked == EVENT).unwrap() > status_at);
    assert_eq!(world.written(EVENT)["reason"], "ApplyFailed");
}

#[tokio::test]
async fn an_object_of_the_tunnel_before_this_one_is_waited_for() {
    let world = World::new(|question, _| {
        let owner = json!({"apiVersion": "towline.dev/v1alpha1", "kind": "VpnTunnel", "name": "oslo", "uid": "u-0"});
        (question == "GET /api/v1/namespaces/erp/configmaps/towline-oslo")
            .then(|| (StatusCode::OK, json!({"metadata": {"name": "towline-oslo", "ownerReferences": [owner]}})))
    });
    let error = world.run(&tunnel("Gateway")).await.unwrap_err().to_string();
    assert_eq!(error, "ConfigMap towline-oslo of an earlier VpnTunnel oslo is still being deleted; it is tried again");
}

#[tokio::test]
async fn the_service_of_a_removed_export_goes_also_when_another_object_fails() {
    let mut world = World::new(|question, _| {
        (question == "PATCH /api/v1/namespaces/erp/services/oslo-db").then(|| mock::refusal(StatusCode::FORBIDDEN))
    });
    let oslo = tunnel("Gateway");
    world.watch_objects(&oslo, "1");
    let mut fewer = oslo.clone();
    fewer.spec.exports.remove(0);
    let error = world.run(&fewer).await.unwrap_err().to_string();
    assert_eq!(error, "Service oslo-db cannot be written: scripted");
    assert!(world.asked().contains(&"DELETE /api/v1/namespaces/erp/services/oslo-web".to_owned()));
}

#[tokio::test]
async fn a_deployment_without_a_pod_says_why_kubernetes_refuses_it() {
    let world = World::new(|question, _| {
        (question == "GET /apis/apps/v1/namespaces/erp/deployments/towline-oslo").then(|| {
            let message = "pods \"x\" is forbidden: violates PodSecurity \"restricted:latest\"";
            let condition = json!({"type": "ReplicaFailure", "status": "True", "message": message});
            let owner = json!({"apiVersion": "towline.dev/v1alpha1", "kind": "VpnTunnel", "name": "oslo", "uid": "u-1"});
            let metadata = json!({"name": "towline-oslo", "ownerReferences": [owner]});
            (StatusCode::OK, json!({"metadata": metadata, "spec": {"selector": {}, "template": {}}, "status": {"conditions": [condition]}}))
        })
    });
    world.run(&tunnel("Gateway")).await.unwrap();
    let provisioned = condition(&world.written(STATUS), "Provisioned");
    assert!(provisioned.starts_with("False PodsPending Kubernetes refuses the tunnel's pod: "), "{provisioned}");
    assert!(provisioned.contains("kubectl label namespace erp"), "{provisioned}");
}

#[tokio::test]
async fn a_tunnel_that_cannot_be_read_says_so_once_and_stalls_nobody() {
    let world = World::new(|_, _| None);
    let mut later = serde_json::to_value(tunnel("Gateway")).unwrap();
    later["spec"]["mode"] = json!("Relay");
    let guard: Tunnel = serde_json::from_value(later).unwrap();
    assert!(guard.0.is_err());
    for _ in 0..2 {
        reconcile(Arc::new(guard.clone()), world.context.clone()).await.unwrap();
    }
    assert_eq!(world.asked(), [STATUS]);
    let accepted = condition(&world.written(STATUS), "Accepted");
    assert!(accepted.starts_with("False InvalidSpec This version of the operator cannot read"), "{accepted}");
}

#[tokio::test]
async fn nothing_is_kept_of_a_tunnel_that_is_gone() {
    let mut world = World::new(|_, _| None);
    let mut oslo = tunnel("Gateway");
    world.watch_pod();
    world.report(&oslo);
    world.run(&oslo).await.unwrap();
    assert_eq!((world.context.memory().len(), world.context.reports.len()), (1, 1));
    world.context.keep_only_known();
    assert_eq!((world.context.memory().len(), world.context.reports.len(), world.context.reports.waiting()), (0, 0, 0));
    // It was about to be deleted when the watch brought it last.
    world.report(&oslo);
    oslo.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::now()));
    world.asked();
    world.run(&oslo).await.unwrap();
    assert_eq!((world.asked().len(), world.context.reports.len()), (0, 0));
}

#[tokio::test]
async fn pauses_after_failures_grow_up_to_a_bound_and_end_with_a_success() {
    let world = World::new(|question, _| {
        question.starts_with("PATCH /api/v1").then(|| mock::refusal(StatusCode::INTERNAL_SERVER_ERROR))
    });
    let oslo = tunnel("Gateway");
    let mut pauses = Vec::new();
    for _ in 0..9 {
        let error = world.run(&oslo).await.unwrap_err();
        pauses.push(on_error(Arc::new(DeserializeGuard(Ok(oslo.clone()))), &error, world.context.clone()));
    }
    assert_eq!(pauses[..2], [Action::requeue(FIRST_PAUSE), Action::requeue(FIRST_PAUSE * 2)]);
    assert_eq!(pauses[8], Action::requeue(LONGEST_PAUSE));
}

#[tokio::test]
async fn a_tunnel_that_the_watches_bring_is_reconciled_and_the_controller_ends_when_it_is_told_to() {
    fn list(items: Value) -> Option<(StatusCode, Value)> {
        Some((StatusCode::OK, json!({"metadata": {"resourceVersion": "1"}, "items": items})))
    }
    let World { context, writers, asked, .. } = World::new(|question, _| match question {
        "GET /apis/towline.dev/v1alpha1/vpntunnels" => list(json!([tunnel("Gateway")])),
        "GET /apis/towline.dev/v1alpha1/vpnusers"
        | "GET /api/v1/configmaps"
        | "GET /api/v1/pods"
        | "GET /api/v1/serviceaccounts"
        | "GET /api/v1/services"
        | "GET /apis/apps/v1/deployments"
        | "GET /apis/policy/v1/poddisruptionbudgets" => list(json!([])),
        _ => None,
    });
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(run(context, writers, shutdown.clone()));
    while !asked.lock().unwrap().contains(&STATUS.to_owned()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    shutdown.cancel();
    timeout(RUN_LIMIT, running).await.expect("the controller goes on").unwrap();
}

const SERVER_STATUS: &str = "PATCH /apis/towline.dev/v1alpha1/namespaces/erp/vpntunnels/road/status";
const ALICE_STATUS: &str = "PATCH /apis/towline.dev/v1alpha1/namespaces/erp/vpnusers/alice/status";
const BOB_STATUS: &str = "PATCH /apis/towline.dev/v1alpha1/namespaces/erp/vpnusers/bob/status";

impl World {
    fn watch_user(&mut self, user: &VpnUser) {
        self.writers.users.apply_watcher_event(&Event::Apply(DeserializeGuard(Ok(user.clone()))));
    }

    /// The watch brings the Service of `road` with an address.
    fn watch_dial_in(&mut self, uid: &str) {
        self.writers.services.apply_watcher_event(&Event::Apply(
            serde_json::from_value(json!({
                "metadata": {
                    "name": "road", "namespace": "erp", "resourceVersion": "1", "labels": {"towline.dev/dial-in": "true"},
                    "ownerReferences": [{"apiVersion": "towline.dev/v1alpha1", "kind": "VpnTunnel", "name": "road", "uid": uid}],
                },
                "spec": {"type": "LoadBalancer"},
                "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}},
            }))
            .unwrap(),
        ));
    }

    /// The pod of `road` runs, and tells how users fared.
    fn report_users(&mut self, users: Value) {
        self.report_sessions(0, users);
    }

    fn report_sessions(&mut self, sessions: u32, users: Value) {
        let mut pod: KubePod = serde_json::from_value(json!({
            "metadata": {
                "name": "road-1", "namespace": "erp", "uid": "p-2",
                "labels": {"towline.dev/tunnel": "road", "towline.dev/role": "gateway"},
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "towline-road-7d9", "uid": "r", "controller": true,
                }],
            },
            "spec": {"serviceAccountName": "towline-road", "containers": [{"name": "towline"}]},
        }))
        .unwrap();
        pod.status = serde_json::from_value(json!({
            "phase": "Running",
            "containerStatuses": [{
                "name": "towline", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}},
            }],
        }))
        .unwrap();
        self.writers.pods.apply_watcher_event(&Event::Apply(pod));
        let mut report = Report::of_server("r".to_owned(), true);
        for layer in Layer::SERVER {
            report.set(layer, State::Up, Reason::Listening, "It works.");
        }
        report.sessions = Some(sessions);
        report.users = serde_json::from_value(users).unwrap();
        let key = PodKey { namespace: "erp".to_owned(), tunnel: "road".to_owned(), pod: "road-1".to_owned() };
        self.context.reports.record(key, "p-2".to_owned(), report);
    }

    /// The configuration that was written last.
    fn configuration(&self) -> Value {
        let written = self.written("PATCH /api/v1/namespaces/erp/configmaps/towline-road");
        serde_json::from_str(written["data"]["config.json"].as_str().unwrap()).unwrap()
    }
}

#[tokio::test]
async fn a_server_gets_its_objects_lets_its_users_in_and_tells_where_to_dial() {
    let mut world = World::new(|_, _| None);
    world.watch_user(&user("alice", 1, &json!({})));
    world.watch_user(&user("eve", 1, &json!({"tunnelName": "other"})));
    world.watch_dial_in("u-2");
    world.run(&server()).await.unwrap();
    let asked = world.asked();
    let (core, apps) = ("PATCH /api/v1/namespaces/erp", "PATCH /apis/apps/v1/namespaces/erp");
    assert_eq!(
        writes(&asked),
        [
            &format!("{core}/serviceaccounts/towline-road"),
            &format!("{core}/configmaps/towline-road"),
            &format!("{apps}/deployments/towline-road"),
            "PATCH /apis/policy/v1/namespaces/erp/poddisruptionbudgets/towline-road",
            &format!("{core}/services/road"),
            &format!("{core}/services/road-web"),
            SERVER_STATUS,
            ALICE_STATUS,
        ]
    );
    let names: Vec<Value> =
        world.configuration()["users"].as_array().unwrap().iter().map(|user| user["name"].clone()).collect();
    assert_eq!(names, ["alice"]);
    assert_eq!(world.written(SERVER_STATUS)["status"]["addresses"], json!(["203.0.113.7"]));
    assert!(condition(&world.written(ALICE_STATUS), "Accepted").starts_with("True Valid "));
    assert_eq!(world.written(ALICE_STATUS)["kind"], "VpnUser");
}

#[tokio::test]
async fn the_address_of_somebody_elses_service_is_not_where_to_dial() {
    let mut world = World::new(|_, _| None);
    world.watch_dial_in("u-1");
    world.run(&server()).await.unwrap();
    assert_eq!(world.written(SERVER_STATUS)["status"]["addresses"], Value::Null);
}

#[tokio::test]
async fn a_user_whose_name_is_taken_is_told_so_with_an_event_and_only_once() {
    let mut world = World::new(|_, _| None);
    world.watch_user(&user("alice", 1, &json!({})));
    world.watch_user(&user("bob", 2, &json!({"username": "alice"})));
    world.run(&server()).await.unwrap();
    let refused = condition(&world.written(BOB_STATUS), "Accepted");
    assert!(refused.starts_with("False Conflict VpnUser alice has the name"), "{refused}");
    // A repeated event is a change of the one before.
    let events = |asked: Vec<String>| asked.iter().filter(|asked| asked.contains("/events")).count();
    assert_eq!(events(world.asked()), 1);
    let event = world.written(EVENT);
    assert_eq!((&event["reason"], &event["regarding"]["name"]), (&json!("Conflict"), &json!("bob")));
    world.run(&server()).await.unwrap();
    let again = world.asked();
    assert!(!again.contains(&BOB_STATUS.to_owned()) && events(again) == 0);
    // A change that does not help.
    let mut bob = user("bob", 2, &json!({"username": "alice", "suspend": true}));
    bob.metadata.generation = Some(2);
    world.watch_user(&bob);
    world.run(&server()).await.unwrap();
    let again = world.asked();
    assert!(again.contains(&BOB_STATUS.to_owned()) && events(again) == 0);
}

#[tokio::test]
async fn a_server_whose_service_belongs_to_somebody_else_is_not_ready() {
    let mut world = World::new(|question, _| {
        (question == "GET /api/v1/namespaces/erp/services/road")
            .then(|| (StatusCode::OK, json!({"metadata": {"name": "road", "namespace": "erp"}})))
    });
    world.report_users(json!([]));
    world.run(&server()).await.unwrap_err();
    let ready = condition(&world.written(SERVER_STATUS), "Ready");
    assert!(ready.starts_with("False ApplyFailed The server listens, but nobody can dial in: Service road"), "{ready}");
}

#[tokio::test]
async fn what_the_pod_tells_of_a_user_is_written_when_it_changes_and_at_no_other_time() {
    let mut world = World::new(|_, _| None);
    world.watch_user(&user("alice", 1, &json!({})));
    let attempt = |at: u64, sessions: u32, result: &str| json!([{"name": "alice", "sessions": sessions, "lastAttempt": at, "accepted": sessions > 0, "result": result}]);
    world.report_users(attempt(100, 0, "wrong_password"));
    world.run(&server()).await.unwrap();
    assert_eq!(world.written(ALICE_STATUS)["status"]["lastResult"], "wrong_password");
    for (attempt, is_written) in [
        (attempt(100, 0, "wrong_password"), false),
        (attempt(105, 1, "accepted"), true),
        (attempt(105, 1, "accepted"), false),
    ] {
        world.asked();
        world.report_users(attempt);
        world.run(&server()).await.unwrap();
        assert_eq!(world.asked().contains(&ALICE_STATUS.to_owned()), is_written);
    }
    let status = &world.written(ALICE_STATUS)["status"];
    assert_eq!((&status["sessions"], &status["lastResult"]), (&json!(1), &json!("accepted")));
    assert_eq!(status["lastAttemptTime"], "1970-01-01T00:01:45Z");
}

#[tokio::test]
async fn a_number_of_sessions_that_changed_again_is_written_later() {
    let (mut world, mut road) = (World::new(|_, _| None), server());
    road.metadata.resource_version = Some("70".to_owned());
    for (sessions, is_written) in [(1, true), (2, false)] {
        world.asked();
        world.report_sessions(sessions, json!([]));
        let action = world.run(&road).await.unwrap();
        assert_eq!(world.asked().contains(&SERVER_STATUS.to_owned()), is_written);
        assert_eq!(action == Action::requeue(RECHECK), is_written, "{action:?}");
    }
}

#[tokio::test]
async fn a_user_that_is_about_to_go_is_let_in_no_more() {
    let mut world = World::new(|_, _| None);
    let mut alice = user("alice", 1, &json!({}));
    alice.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::now()));
    world.watch_user(&alice);
    world.run(&server()).await.unwrap();
    assert_eq!(world.configuration()["users"], Value::Null);
}

#[tokio::test]
async fn a_user_of_a_tunnel_that_does_not_exist_says_so() {
    fn list(items: Value) -> Option<(StatusCode, Value)> {
        Some((StatusCode::OK, json!({"metadata": {"resourceVersion": "1"}, "items": items})))
    }
    let World { context, writers, asked, written } = World::new(|question, _| match question {
        "GET /apis/towline.dev/v1alpha1/vpnusers" => list(json!([user("alice", 1, &json!({}))])),
        "GET /apis/towline.dev/v1alpha1/vpntunnels"
        | "GET /api/v1/configmaps"
        | "GET /api/v1/pods"
        | "GET /api/v1/serviceaccounts"
        | "GET /api/v1/services"
        | "GET /apis/apps/v1/deployments"
        | "GET /apis/policy/v1/poddisruptionbudgets" => list(json!([])),
        _ => None,
    });
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(run(context, writers, shutdown.clone()));
    while !asked.lock().unwrap().contains(&EVENT.to_owned()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    shutdown.cancel();
    timeout(RUN_LIMIT, running).await.expect("the controller goes on").unwrap();
    let written = written.lock().unwrap();
    let (_, status) = written.iter().find(|(asked, _)| asked == ALICE_STATUS).unwrap();
    let refused = condition(status, "Accepted");
    assert!(refused.starts_with("False TunnelNotFound Namespace erp has no VpnTunnel road"), "{refused}");
}

#[tokio::test]
async fn an_export_behind_nobody_has_no_service_and_says_what_is_missing() {
    let world = World::new(|_, _| None);
    let mut road = server();
    road.spec.server.as_mut().unwrap().radius = None;
    world.run(&road).await.unwrap();
    assert!(!world.asked().contains(&"PATCH /api/v1/namespaces/erp/services/road-web".to_owned()));
    let provisioned = condition(&world.written(SERVER_STATUS), "Provisioned");
    assert!(provisioned.contains("export web is behind no VpnUser"), "{provisioned}");
    assert_eq!(world.written(SERVER_STATUS)["status"]["services"], Value::Null);
}
