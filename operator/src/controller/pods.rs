//! Dereference: the pods that carry a tunnel, as the API server and their reports describe them.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, Pod as KubePod};
use kube::{Api, ResourceExt};

use super::{Context, Error, api};
use crate::api::label;
use crate::api::tunnel::{Attachment, VpnTunnel};
use crate::build::object_name;
use crate::build::pod::CONTAINER;
use crate::reports::PodKey;
use crate::status::{Heard, Pod};

/// A container that has not started for this long has a problem on its node.
pub(super) const SLOW: Duration = Duration::from_secs(30);

/// The pods that run the tunnel, those that end left out.
pub(super) fn of(tunnel: &VpnTunnel, context: &Context, namespace: &str, now: Timestamp) -> Vec<Pod> {
    let name = tunnel.name_any();
    let mut found = context.cache.pods_of(namespace, &name);
    found.retain(|pod| pod.metadata.deletion_timestamp.is_none() && belongs(pod, tunnel) && !is_over(pod));
    found.sort_by_key(|pod| (pod.metadata.creation_timestamp.as_ref().map(|time| time.0), pod.name_any()));
    if tunnel.spec.attachment == Attachment::Gateway {
        // Only the newest: another one is a leftover that the Deployment is about to remove.
        found.drain(..found.len().saturating_sub(1));
    }
    let names: Vec<&str> = found.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect();
    context.reports.keep_only(namespace, &name, &names);
    let pod = |pod: &KubePod| {
        let key = PodKey { namespace: namespace.to_owned(), tunnel: name.clone(), pod: pod.name_any() };
        let received = context.reports.last(&key, &pod.uid().unwrap_or_default());
        let waiting = waiting(pod, now);
        Pod {
            name: pod.name_any(),
            running: waiting.is_none(),
            waiting: waiting.unwrap_or_default(),
            in_service: is_ready(pod),
            template: pod.annotations().get(label::TEMPLATE).cloned(),
            report: received.map(|last| Heard { age: last.at.elapsed(), time: last.time, report: last.report }),
        }
    };
    found.iter().map(|found| pod(found)).collect()
}

/// Whether the pod is one that carries the tunnel as it is attached; a label alone is quickly written.
pub(crate) fn belongs(pod: &KubePod, tunnel: &VpnTunnel) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let role = pod.labels().get(label::ROLE).map(String::as_str);
    let has = |containers: &[Container]| containers.iter().any(|container| container.name == CONTAINER);
    match tunnel.spec.attachment {
        Attachment::Gateway => {
            let name = object_name(&tunnel.name_any());
            let of_deployment = |owner: &str| owner.strip_prefix(&name).is_some_and(|suffix| suffix.starts_with('-'));
            role == Some(label::ROLE_GATEWAY)
                && spec.service_account_name.as_deref() == Some(&name)
                && has(&spec.containers)
                && pod.owner_references().iter().any(|owner| {
                    owner.kind == "ReplicaSet" && owner.controller == Some(true) && of_deployment(&owner.name)
                })
        }
        // One of before the webhook has no sidecar.
        Attachment::Sidecar => {
            role == Some(label::ROLE_SIDECAR) && has(spec.init_containers.as_deref().unwrap_or_default())
        }
    }
}

/// Why the tunnel's Deployment gets no pod, in the API server's words with the remedy.
pub(super) async fn refusal(
    tunnel: &VpnTunnel,
    context: &Context,
    namespace: &str,
    pods: &[Pod],
) -> Result<Option<String>, Error> {
    if tunnel.spec.attachment != Attachment::Gateway || tunnel.spec.suspend || !pods.is_empty() {
        return Ok(None);
    }
    let deployments: Api<Deployment> = Api::namespaced(context.client.clone(), namespace);
    let name = object_name(&tunnel.name_any());
    let deployment = deployments.get_opt(&name).await.map_err(api("read the tunnel's Deployment"))?;
    let conditions = deployment.and_then(|deployment| deployment.status?.conditions).unwrap_or_default();
    let failed = conditions.into_iter().find(|condition| {
        condition.type_.as_deref() == Some("ReplicaFailure") && condition.status.as_deref() == Some("True")
    });
    Ok(failed.map(|failed| with_remedy(&failed.message.unwrap_or_default(), namespace)))
}

fn with_remedy(words: &str, namespace: &str) -> String {
    let remedy = if words.contains("PodSecurity") {
        format!(
            "The pod needs NET_ADMIN and /dev/net/tun: run `kubectl label namespace {namespace} --overwrite pod-security.kubernetes.io/enforce=privileged`."
        )
    } else if words.contains("exceeded quota") || words.contains("failed quota") {
        "Raise the ResourceQuota, or lower spec.pod.resources.".to_owned()
    } else {
        "Change what refuses it; it is tried again.".to_owned()
    };
    format!("Kubernetes refuses the tunnel's pod: {}. {remedy}", words.trim_end_matches('.'))
}

fn is_ready(pod: &KubePod) -> bool {
    let conditions = pod.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn is_over(pod: &KubePod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Why the tunnel's container does not run; none if it does.
fn waiting(pod: &KubePod, now: Timestamp) -> Option<String> {
    let status = pod.status.clone().unwrap_or_default();
    let mut conditions = status.conditions.iter().flatten();
    let scheduled = conditions.find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    if let Some(message) = scheduled.and_then(|condition| condition.message.clone()) {
        return Some(message);
    }
    let slow = || {
        let since = status.start_time.as_ref().map(|started| now.duration_since(started.0));
        since.is_some_and(|since| since.as_secs() >= SLOW.as_secs().cast_signed()).then(|| {
            format!(
                "the node has not started it for more than {} s; `kubectl describe pod {} -n {}` says why. A node without /dev/net/tun needs `modprobe tun`",
                SLOW.as_secs(),
                pod.name_any(),
                pod.namespace().unwrap_or_default(),
            )
        })
    };
    let mut statuses = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let Some(container) = statuses.find(|container| container.name == CONTAINER) else {
        return Some(slow().unwrap_or_else(|| "the node has not started it yet".to_owned()));
    };
    let state = container.state.clone().unwrap_or_default();
    if state.running.is_some() {
        return None;
    }
    let ended = state.terminated.or_else(|| container.last_state.clone().and_then(|last| last.terminated));
    let waiting = state.waiting.unwrap_or_default();
    if let Some("ContainerCreating" | "PodInitializing") = waiting.reason.as_deref()
        && ended.is_none()
    {
        return Some(slow().unwrap_or_else(|| "the container starts".to_owned()));
    }
    let words = [waiting.reason, waiting.message, ended.and_then(|ended| ended.message)];
    let words: Vec<String> = words.into_iter().flatten().map(|text| text.trim().to_owned()).collect();
    Some(if words.is_empty() { "the container starts".to_owned() } else { words.join(": ") })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::build::tests::tunnel;

    fn pod(status: Value) -> KubePod {
        serde_json::from_value(json!({
            "metadata": {"name": "a", "namespace": "erp"},
            "spec": {"containers": [{"name": CONTAINER}]},
            "status": status,
        }))
        .unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn container(state: Value, last: Value) -> Value {
        json!([{
            "name": CONTAINER, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state, "lastState": last,
        }])
    }

    #[test]
    fn a_container_that_does_not_run_says_why() {
        let state = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}});
        let last = json!({"terminated": {"exitCode": 1, "message": "towline-tunnel: no device\n"}});
        let crashed = pod(json!({"containerStatuses": container(state, last)}));
        assert_eq!(waiting(&crashed, at(0)).unwrap(), "CrashLoopBackOff: back-off: towline-tunnel: no device");
        let running = pod(json!({"initContainerStatuses": container(json!({"running": {}}), json!({}))}));
        assert_eq!(waiting(&running, at(0)), None);
    }

    #[test]
    fn an_unscheduled_pod_speaks_with_the_schedulers_words_and_a_scheduled_one_does_not() {
        let condition = |kind: &str, message: &str| json!({"type": kind, "status": "False", "message": message});
        let ready = condition("Ready", "containers with unready status: [towline]");
        let unscheduled = pod(json!({"conditions": [ready, condition("PodScheduled", "0/1 nodes")]}));
        assert_eq!(waiting(&unscheduled, at(0)).unwrap(), "0/1 nodes");
        let scheduled = pod(json!({"conditions": [condition("Ready", "containers with unready status: [towline]")]}));
        assert_eq!(waiting(&scheduled, at(0)).unwrap(), "the node has not started it yet");
    }

    #[test]
    fn a_container_that_does_not_start_for_half_a_minute_names_the_device_and_the_command() {
        for reason in ["ContainerCreating", "PodInitializing"] {
            let state = json!({"waiting": {"reason": reason}});
            let slow = pod(json!({"startTime": at(100), "containerStatuses": container(state, json!({}))}));
            assert_eq!(waiting(&slow, at(129)).unwrap(), "the container starts");
            let text = waiting(&slow, at(130)).unwrap();
            assert!(text.contains("/dev/net/tun") && text.contains("kubectl describe pod a -n erp"), "{text}");
        }
    }

    #[test]
    fn only_pods_of_our_own_deployment_and_of_the_webhook_count() {
        let gateway = json!({
            "metadata": {
                "name": "a", "labels": {"towline.dev/tunnel": "oslo", "towline.dev/role": "gateway"},
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "towline-oslo-7d9", "uid": "r", "controller": true,
                }],
            },
            "spec": {"serviceAccountName": "towline-oslo", "containers": [{"name": CONTAINER}]},
        });
        let read = |pod: &Value| serde_json::from_value::<KubePod>(pod.clone()).unwrap();
        assert!(belongs(&read(&gateway), &tunnel("Gateway")));
        assert!(!belongs(&read(&gateway), &tunnel("Sidecar")));
        for (path, value) in [
            ("/metadata/labels/towline.dev~1role", json!("sidecar")),
            ("/metadata/ownerReferences", json!([])),
            ("/metadata/ownerReferences/0/name", json!("towline-oslofjord-7d9")),
            ("/spec/serviceAccountName", json!("default")),
            ("/spec/containers/0/name", json!("app")),
        ] {
            let mut other = gateway.clone();
            *other.pointer_mut(path).unwrap() = value;
            assert!(!belongs(&read(&other), &tunnel("Gateway")), "{path}");
        }
        let sidecar = json!({
            "metadata": {"name": "a", "labels": {"towline.dev/tunnel": "oslo", "towline.dev/role": "sidecar"}},
            "spec": {"containers": [{"name": "app"}], "initContainers": [{"name": CONTAINER}]},
        });
        assert!(belongs(&read(&sidecar), &tunnel("Sidecar")));
        assert!(!belongs(&read(&sidecar), &tunnel("Gateway")));
        assert!(is_over(&pod(json!({"phase": "Succeeded"}))) && !is_over(&pod(json!({"phase": "Running"}))));
    }

    #[test]
    fn a_refused_pod_names_what_to_change() {
        let text = with_remedy("pods \"x\" is forbidden: violates PodSecurity \"baseline:latest\": hostPath", "erp");
        assert!(text.contains("kubectl label namespace erp"), "{text}");
        let text = with_remedy("pods \"x\" is forbidden: exceeded quota: small", "erp");
        assert!(text.contains("ResourceQuota"), "{text}");
    }
}
