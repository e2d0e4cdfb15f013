//! Runs of the controller against a scripted API server and caches that the test fills.

use std::sync::Mutex as StdMutex;

use axum::http::StatusCode;
use kube::api::PartialObjectMeta;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use towline_tunnel::report::{Layer, Reason, Report, State};

use super::*;
use crate::build::tests::{built, tunnel};
use crate::build::users::Roll;
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
