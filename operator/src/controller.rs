//! The controller: dereference, validate, build, apply, status. Each run ends with the status written as it is known then.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream;
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod as KubePod, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::api::label;
use crate::api::tunnel::{VpnTunnel, VpnTunnelStatus};
use crate::build::pod::{CONTAINER, Settings};
use crate::build::{self, Objects};
use crate::metrics::Metrics;
use crate::reports::{PodKey, Reports, SILENCE};
use crate::status::{self, Input, Outcome, Pod};
use crate::tls::Certificate;

/// Tunnels that are reconciled at once.
const CONCURRENCY: u16 = 8;
/// A tunnel is looked at again after this time even if nothing happens.
const RECHECK: Duration = Duration::from_secs(300);
/// The first pause after a failure; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Pods of one tunnel that are looked at.
const MAX_PODS: u32 = 1_000;

/// What every run needs.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// Images and addresses.
    pub settings: Settings,
    /// What pods said.
    pub reports: Reports,
    /// The authority that pods must trust.
    pub certificate: watch::Receiver<Certificate>,
    /// When this replica began to lead.
    pub began: Instant,
    /// What is counted.
    pub metrics: Metrics,
    /// Failures in a row, by namespace and name.
    failures: Mutex<BTreeMap<(String, String), u32>>,
    recorder: Recorder,
}

impl Context {
    /// The context of a replica named `pod` that begins to lead now.
    pub fn new(
        client: Client,
        settings: Settings,
        reports: Reports,
        certificate: watch::Receiver<Certificate>,
        metrics: Metrics,
        pod: &str,
    ) -> Self {
        let reporter = Reporter { controller: label::OPERATOR.to_owned(), instance: Some(pod.to_owned()) };
        let recorder = Recorder::new(client.clone(), reporter);
        let failures = Mutex::new(BTreeMap::new());
        Self { client, settings, reports, certificate, began: Instant::now(), metrics, failures, recorder }
    }
}

/// Why a run ended early. The status says it too, unless the API server does not take that either.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused a request.
    #[error("{what}: {source}")]
    Api {
        /// What was asked.
        what: String,
        /// What it said.
        source: kube::Error,
    },
}

fn api(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Error {
    |source| Error::Api { what: what.into(), source }
}

/// Reconciles until `shutdown`, and lets runs that are under way end.
pub async fn run(context: Arc<Context>, shutdown: CancellationToken) {
    let client = context.client.clone();
    let owned = || watcher::Config::default().labels(&format!("{}={}", label::MANAGED_BY, label::OPERATOR));
    let reported = stream::unfold(context.reports.clone(), |reports| async move {
        let (namespace, name) = reports.changed().await;
        Some((ObjectRef::<VpnTunnel>::new(&name).within(&namespace), reports))
    });
    // A new authority goes into every ConfigMap.
    let authorities = stream::unfold(context.certificate.clone(), |mut certificate| async move {
        certificate.changed().await.ok().map(|()| ((), certificate))
    });
    let of_pod = |pod: KubePod| {
        let tunnel = pod.labels().get(label::TUNNEL).cloned();
        tunnel.zip(pod.namespace()).map(|(name, namespace)| ObjectRef::<VpnTunnel>::new(&name).within(&namespace))
    };
    Controller::new(Api::<VpnTunnel>::all(client.clone()), watcher::Config::default())
        .owns(Api::<Deployment>::all(client.clone()), owned())
        .owns(Api::<ConfigMap>::all(client.clone()), owned())
        .owns(Api::<Service>::all(client.clone()), owned())
        .owns(Api::<ServiceAccount>::all(client.clone()), owned())
        .owns(Api::<PodDisruptionBudget>::all(client.clone()), owned())
        .watches(Api::<KubePod>::all(client), watcher::Config::default().labels(label::TUNNEL), of_pod)
        .reconcile_on(reported)
        .reconcile_all_on(authorities)
        .with_config(Config::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(reconcile, on_error, context)
        .for_each(|result| async move {
            match result {
                Ok((tunnel, _)) => debug!(%tunnel, "reconciled"),
                // Deleted between the event and the run.
                Err(kube::runtime::controller::Error::ObjectNotFound(tunnel)) => debug!(%tunnel, "gone"),
                // Told where it happened.
                Err(kube::runtime::controller::Error::ReconcilerFailed(..)) => {}
                Err(error) => warn!(%error, "the API server cannot be watched; tried again"),
            }
        })
        .await;
}

async fn reconcile(tunnel: Arc<VpnTunnel>, context: Arc<Context>) -> Result<Action, Error> {
    let began = Instant::now();
    let result = run_once(&tunnel, &context).await;
    context.metrics.reconciled(result.is_ok(), began.elapsed());
    let key = (tunnel.namespace().unwrap_or_default(), tunnel.name_any());
    if result.is_ok() {
        context.failures.lock().await.remove(&key);
    }
    result
}

fn on_error(tunnel: Arc<VpnTunnel>, error: &Error, context: Arc<Context>) -> Action {
    let key = (tunnel.namespace().unwrap_or_default(), tunnel.name_any());
    // A run of this tunnel does not hold the lock while this one is under way: they never run side by side.
    let failures = context.failures.try_lock().map_or(1, |mut failures| {
        let count = failures.entry(key.clone()).or_default();
        *count = count.saturating_add(1);
        *count
    });
    let pause = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(6)).min(LONGEST_PAUSE);
    warn!(namespace = key.0, tunnel = key.1, %error, retry_seconds = pause.as_secs(), "a tunnel could not be reconciled");
    Action::requeue(pause)
}

async fn run_once(tunnel: &VpnTunnel, context: &Context) -> Result<Action, Error> {
    let namespace = tunnel.namespace().unwrap_or_default();
    let name = tunnel.name_any();
    if tunnel.metadata.deletion_timestamp.is_some() {
        // Its objects go with it, by their owner references; there is nothing that it would have to wait for.
        context.metrics.forget(&namespace, &name);
        return Ok(Action::await_change());
    }
    let pods = pods(tunnel, context, &namespace, &name).await?;
    let ca_bundle = context.certificate.borrow().ca_bundle.clone();
    let (outcome, failure) = match build::objects(tunnel, &context.settings, &ca_bundle) {
        Err(invalid) => (Outcome::Invalid(invalid.to_string()), None),
        Ok(objects) => match apply_all(tunnel, context, &namespace, &objects).await {
            Ok(()) => (Outcome::Applied(objects.revision), None),
            Err(error) => (Outcome::Failed(format!("{error}. It is tried again.")), Some(error)),
        },
    };
    let just_began = context.began.elapsed() < SILENCE;
    let input = Input { tunnel, outcome: &outcome, pods: &pods, just_began, now: Timestamp::now() };
    let status = status::status(&input);
    context.metrics.tunnel(&namespace, &name, status::readiness(Some(&status)).map_or("Unknown", |(status, _)| status));
    if tunnel.status.as_ref() != Some(&status) {
        publish(tunnel, context, &status).await;
        write_status(tunnel, context, &namespace, &status).await?;
    }
    match failure {
        Some(error) => Err(error),
        // A pod that never reports causes no event by its silence.
        None if pods.iter().any(|pod| pod.running && pod.report.is_none()) => Ok(Action::requeue(SILENCE)),
        None => Ok(Action::requeue(RECHECK)),
    }
}

// Dereference.

/// The pods that run the tunnel, those that end left out.
async fn pods(tunnel: &VpnTunnel, context: &Context, namespace: &str, name: &str) -> Result<Vec<Pod>, Error> {
    let api_pods: Api<KubePod> = Api::namespaced(context.client.clone(), namespace);
    let params = ListParams::default().labels(&format!("{}={name}", label::TUNNEL)).limit(MAX_PODS);
    let listed = api_pods.list(&params).await.map_err(api("list the tunnel's pods"))?;
    let mut found: Vec<&KubePod> = listed
        .items
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none() && has_container(pod) && !is_over(pod))
        .collect();
    if tunnel.spec.attachment == crate::api::tunnel::Attachment::Gateway {
        // Only the newest: another one is a leftover that the Deployment is about to remove.
        found.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
        found.drain(..found.len().saturating_sub(1));
    }
    let names: Vec<&str> = found.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect();
    context.reports.keep_only(namespace, name, &names);
    let pod = |pod: &&KubePod| {
        let key = PodKey { namespace: namespace.to_owned(), tunnel: name.to_owned(), pod: pod.name_any() };
        let received = context.reports.last(&key, &pod.uid().unwrap_or_default());
        let (running, waiting) = container_state(pod);
        let report = received.map(|last| (last.report, last.at.elapsed()));
        Pod { name: pod.name_any(), running, waiting, in_service: is_ready(pod), report }
    };
    Ok(found.iter().map(pod).collect())
}

/// Whether the pod has the tunnel's container; a labelled pod of before the webhook has none.
fn has_container(pod: &KubePod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    spec.containers.iter().chain(spec.init_containers.iter().flatten()).any(|container| container.name == CONTAINER)
}

fn is_ready(pod: &KubePod) -> bool {
    let conditions = pod.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn is_over(pod: &KubePod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether the tunnel's container runs, and if not, why.
fn container_state(pod: &KubePod) -> (bool, String) {
    let status = pod.status.clone().unwrap_or_default();
    let statuses = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let Some(container) = statuses.into_iter().find(|container| container.name == CONTAINER) else {
        // Nothing has started: the scheduler knows why.
        let conditions = status.conditions.unwrap_or_default();
        let pending = conditions
            .iter()
            .find(|condition| condition.status == "False")
            .and_then(|condition| condition.message.clone());
        return (false, pending.unwrap_or_else(|| "the node has not started it yet".to_owned()));
    };
    let state = container.state.clone().unwrap_or_default();
    if state.running.is_some() {
        return (true, String::new());
    }
    let ended = state.terminated.or_else(|| container.last_state.clone().and_then(|last| last.terminated));
    let waiting = state.waiting.unwrap_or_default();
    let words = [waiting.reason, waiting.message, ended.and_then(|ended| ended.message)];
    let words: Vec<String> = words.into_iter().flatten().map(|text| text.trim().to_owned()).collect();
    (false, if words.is_empty() { "the container starts".to_owned() } else { words.join(": ") })
}

// Apply.

async fn apply_all(tunnel: &VpnTunnel, context: &Context, namespace: &str, objects: &Objects) -> Result<(), Error> {
    if let Some(gateway) = &objects.gateway {
        apply(context, namespace, &gateway.service_account).await?;
    }
    apply(context, namespace, &objects.config_map).await?;
    if let Some(gateway) = &objects.gateway {
        apply(context, namespace, &gateway.deployment).await?;
        apply(context, namespace, &gateway.disruption_budget).await?;
    }
    for service in &objects.services {
        apply(context, namespace, service).await?;
    }
    remove_services(tunnel, context, namespace, objects).await
}

async fn apply<K>(context: &Context, namespace: &str, object: &K) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Serialize,
{
    let name = object.name_any();
    let what = format!("apply {} {name}", K::kind(&()));
    let objects: Api<K> = Api::namespaced(context.client.clone(), namespace);
    // Something else of that name, such as the user's own Service, is not taken over.
    let present = objects.get_opt(&name).await.map_err(api(what.as_str()))?;
    if let Some(present) = present
        && present
            .owner_references()
            .iter()
            .all(|owner| !object.owner_references().iter().any(|own| own.uid == owner.uid))
    {
        let text = format!("it exists and belongs to somebody else; rename the export or remove the {}", K::kind(&()));
        let source = kube::Error::Service(text.into());
        return Err(Error::Api { what, source });
    }
    let params = PatchParams::apply(label::OPERATOR).force();
    objects.patch(&name, &params, &Patch::Apply(object)).await.map(drop).map_err(api(what))
}

/// Removes the Services of exports that are gone.
async fn remove_services(
    tunnel: &VpnTunnel,
    context: &Context,
    namespace: &str,
    objects: &Objects,
) -> Result<(), Error> {
    let services: Api<Service> = Api::namespaced(context.client.clone(), namespace);
    let params = ListParams::default().labels(&format!("{}={},{}", label::TUNNEL, tunnel.name_any(), label::EXPORT));
    let uid = tunnel.uid().unwrap_or_default();
    for service in services.list(&params).await.map_err(api("list the Services of exports"))? {
        let name = service.name_any();
        let is_ours = service.owner_references().iter().any(|owner| owner.uid == uid);
        if is_ours && !objects.services.iter().any(|wanted| wanted.name_any() == name) {
            info!(namespace, service = name, "the Service of an export that is gone is removed");
            match services.delete(&name, &DeleteParams::default()).await {
                Ok(_) => {}
                Err(kube::Error::Api(refusal)) if refusal.code == 404 => {}
                Err(source) => return Err(Error::Api { what: format!("delete Service {name}"), source }),
            }
        }
    }
    Ok(())
}

// Status.

async fn write_status(
    tunnel: &VpnTunnel,
    context: &Context,
    namespace: &str,
    status: &VpnTunnelStatus,
) -> Result<(), Error> {
    let tunnels: Api<VpnTunnel> = Api::namespaced(context.client.clone(), namespace);
    let name = tunnel.name_any();
    let patch = json!({
        "apiVersion": VpnTunnel::api_version(&()),
        "kind": VpnTunnel::kind(&()),
        "metadata": {"name": name},
        "status": status,
    });
    let params = PatchParams::apply(label::OPERATOR).force();
    match tunnels.patch_status(&name, &params, &Patch::Apply(patch)).await {
        // Deleted meanwhile.
        Err(kube::Error::Api(refusal)) if refusal.code == 404 => Ok(()),
        written => written.map(drop).map_err(api("write the status")),
    }
}

/// Tells people when a tunnel comes up or goes down, or is down for another reason.
async fn publish(tunnel: &VpnTunnel, context: &Context, new: &VpnTunnelStatus) {
    let (old, now) = (status::readiness(tunnel.status.as_ref()), status::readiness(Some(new)));
    let Some((ready, reason)) = now.filter(|now| old != Some(*now)) else { return };
    let was_ready = old.is_some_and(|(status, _)| status == "True");
    let message = new.conditions.iter().find(|condition| condition.type_ == "Ready").map(|ready| ready.message.clone());
    let type_ = if ready == "True" { EventType::Normal } else { EventType::Warning };
    // What passes by itself while a tunnel comes up is no news.
    let passing =
        ["Pending", "PodsPending", "Negotiating", "WaitingForLowerLayer", "ResolvingPeer", "BackingOff", "NoPods"];
    if ready != "True" && !was_ready && passing.contains(&reason) {
        return;
    }
    let event = Event {
        type_,
        reason: reason.to_owned(),
        note: message.map(|message| message.chars().take(1_000).collect()),
        action: if ready == "True" { "Connect" } else { "Disconnect" }.to_owned(),
        secondary: None,
    };
    info!(namespace = tunnel.namespace(), tunnel = tunnel.name_any(), ready, reason, "readiness changed");
    if let Err(error) = context.recorder.publish(&event, &tunnel.object_ref(&())).await {
        debug!(%error, "an event could not be written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(status: serde_json::Value) -> KubePod {
        serde_json::from_value(json!({
            "metadata": {"name": "a"},
            "spec": {"containers": [{"name": CONTAINER}]},
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_container_that_does_not_run_says_why() {
        let waiting = pod(json!({"containerStatuses": [{
            "name": CONTAINER, "image": "", "imageID": "", "ready": false, "restartCount": 2,
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
            "lastState": {"terminated": {"exitCode": 1, "message": "towline-tunnel: no device\n"}},
        }]}));
        assert_eq!(
            container_state(&waiting),
            (false, "CrashLoopBackOff: back-off: towline-tunnel: no device".to_owned())
        );
        let unscheduled =
            pod(json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]}));
        assert_eq!(container_state(&unscheduled), (false, "0/1 nodes".to_owned()));
        let running = pod(json!({"initContainerStatuses": [{
            "name": CONTAINER, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"running": {}},
        }]}));
        assert_eq!(container_state(&running), (true, String::new()));
    }

    #[test]
    fn only_pods_with_the_container_count() {
        assert!(has_container(&pod(json!({}))));
        let mut other = pod(json!({}));
        other.spec.as_mut().unwrap().containers[0].name = "app".to_owned();
        assert!(!has_container(&other));
        assert!(is_over(&pod(json!({"phase": "Succeeded"}))) && !is_over(&pod(json!({"phase": "Running"}))));
    }
}
