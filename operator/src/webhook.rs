//! The mutating webhook of `attachment: Sidecar`: puts the tunnel as a native sidecar in front of every other container of a
//! pod that carries the label `towline.dev/tunnel`. No other pod is sent here (`objectSelector` of the configuration).

use std::collections::BTreeSet;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tracing::{info, warn};

use crate::api::label;
use crate::api::tunnel::{Attachment, VpnTunnel};
use crate::build::pod::{CONTAINER, Settings, Usage, sidecar_template, tunnel_container, tunnel_volumes};

/// The pod has labels, or it would not be here.
const ROLE_PATH: &str = "/metadata/labels/towline.dev~1role";
const TEMPLATE_PATH: &str = "/metadata/annotations/towline.dev~1template";

/// What the webhook needs to know to build the container.
pub struct Webhook {
    /// Image and the like.
    pub settings: Settings,
}

/// Goes with the answer to a pod that was refused, for whoever counts.
#[derive(Debug, Clone, Copy)]
pub struct Denied;

/// Answers one AdmissionReview.
pub async fn review(webhook: &Webhook, client: &Client, body: &[u8]) -> Response {
    let request: AdmissionRequest<Pod> =
        match serde_json::from_slice::<AdmissionReview<Pod>>(body).map(TryInto::try_into) {
            Ok(Ok(request)) => request,
            Ok(Err(_)) => return (StatusCode::BAD_REQUEST, "the AdmissionReview has no request").into_response(),
            Err(error) => return (StatusCode::BAD_REQUEST, format!("no AdmissionReview: {error}")).into_response(),
        };
    let response = AdmissionResponse::from(&request);
    let namespace = request.namespace.clone().unwrap_or_default();
    let Some(pod) = &request.object else { return Json(response.into_review()).into_response() };
    let Some(name) = pod.metadata.labels.as_ref().and_then(|labels| labels.get(label::TUNNEL)) else {
        return Json(response.into_review()).into_response();
    };
    let tunnels = Api::<VpnTunnel>::namespaced(client.clone(), &namespace);
    // The API server has nothing without a name, and its refusal would look like trouble.
    let tunnel = if name.is_empty() { Ok(None) } else { tunnels.get_opt(name).await };
    let tunnel = match tunnel {
        Ok(tunnel) => tunnel,
        Err(error) => {
            warn!(%error, namespace, tunnel = name, "a tunnel could not be read");
            // An error makes the API server follow the configuration's failurePolicy.
            return (StatusCode::INTERNAL_SERVER_ERROR, "the VpnTunnel could not be read").into_response();
        }
    };
    let response = match inject(webhook, &namespace, name, tunnel.as_ref(), pod) {
        Ok(patch) if patch.is_empty() => response,
        Ok(patch) => {
            info!(namespace, tunnel = name, "sidecar injected");
            let patched = serde_json::from_value(Value::Array(patch)).ok().map(|patch| response.with_patch(patch));
            match patched {
                Some(Ok(response)) => response,
                _ => return (StatusCode::INTERNAL_SERVER_ERROR, "the patch could not be written").into_response(),
            }
        }
        Err(message) => {
            info!(namespace, tunnel = name, message, "pod refused");
            return (Extension(Denied), Json(response.deny(message).into_review())).into_response();
        }
    };
    Json(response.into_review()).into_response()
}

/// The JSON patch for `pod`, or why the pod cannot have the sidecar. Empty when it has it already, in front.
fn inject(
    webhook: &Webhook,
    namespace: &str,
    name: &str,
    tunnel: Option<&VpnTunnel>,
    pod: &Pod,
) -> Result<Vec<Value>, String> {
    let tunnel = usable(namespace, name, tunnel)?;
    let Some(spec) = &pod.spec else { return Err("the pod has no spec".to_owned()) };
    fits(spec)?;
    let container = tunnel_container(tunnel, &webhook.settings, Usage::Sidecar);
    let template = sidecar_template(tunnel, &webhook.settings);
    let init_containers = spec.init_containers.as_deref().unwrap_or_default();
    if let Some(at) = init_containers.iter().position(|container| container.name == CONTAINER) {
        let present = pod.annotations().get(label::TEMPLATE).map(String::as_str);
        let is_ours = present == Some(template.as_str())
            && pod.labels().get(label::ROLE).map(String::as_str) == Some(label::ROLE_SIDECAR)
            && init_containers.get(at).is_some_and(|present| is_made_from(present, &container));
        if !is_ours {
            return Err(format!(
                "the pod brings an init container {CONTAINER} that is not the sidecar of VpnTunnel {name} as it stands; remove it with its volumes towline-*, and the webhook adds the sidecar"
            ));
        }
        // Another webhook may have put its own containers before it.
        let front =
            json!({"op": "move", "from": format!("/spec/initContainers/{at}"), "path": "/spec/initContainers/0"});
        return Ok(if at == 0 { Vec::new() } else { vec![front] });
    }
    let volumes = tunnel_volumes(tunnel, Usage::Sidecar);
    let theirs = spec.volumes.as_deref().unwrap_or_default();
    if let Some(volume) = volumes.iter().find(|volume| theirs.iter().any(|other| other.name == volume.name)) {
        return Err(format!("the volume name {} is the sidecar's; give the pod's volume another name", volume.name));
    }
    let mut patch = vec![json!({"op": "add", "path": ROLE_PATH, "value": label::ROLE_SIDECAR})];
    patch.push(match &pod.metadata.annotations {
        None => json!({"op": "add", "path": "/metadata/annotations", "value": {label::TEMPLATE: template}}),
        Some(_) => json!({"op": "add", "path": TEMPLATE_PATH, "value": template}),
    });
    // In front of all: the others would talk before the routes are there.
    patch.push(match &spec.init_containers {
        None => json!({"op": "add", "path": "/spec/initContainers", "value": [container]}),
        Some(_) => json!({"op": "add", "path": "/spec/initContainers/0", "value": container}),
    });
    match &spec.volumes {
        None => patch.push(json!({"op": "add", "path": "/spec/volumes", "value": volumes})),
        Some(_) => {
            let add = |volume| json!({"op": "add", "path": "/spec/volumes/-", "value": volume});
            patch.extend(volumes.into_iter().map(add));
        }
    }
    Ok(patch)
}

/// The tunnel, when pods can have it as a sidecar.
fn usable<'a>(namespace: &str, name: &str, tunnel: Option<&'a VpnTunnel>) -> Result<&'a VpnTunnel, String> {
    let Some(tunnel) = tunnel else {
        return Err(format!(
            "the label {}: {name} names a VpnTunnel that namespace {namespace} does not have; create it first, or remove the label",
            label::TUNNEL
        ));
    };
    if tunnel.spec.attachment != Attachment::Sidecar {
        return Err(format!(
            "VpnTunnel {name} has attachment Gateway and is reached by its Services; remove the label {}, or name a VpnTunnel with attachment Sidecar",
            label::TUNNEL
        ));
    }
    if tunnel.spec.suspend {
        return Err(format!("VpnTunnel {name} is suspended, so the pod could not start; set suspend to false"));
    }
    Ok(tunnel)
}

/// Whether a pod can have a sidecar at all.
fn fits(spec: &PodSpec) -> Result<(), String> {
    if spec.host_network == Some(true) {
        return Err("a pod with hostNetwork cannot have a tunnel sidecar: its routes would be the node's; set hostNetwork to false".to_owned());
    }
    if spec.os.as_ref().is_some_and(|os| os.name != "linux") {
        return Err("a tunnel sidecar runs on Linux only; remove the label, or spec.os".to_owned());
    }
    if spec.containers.iter().any(|container| container.name == CONTAINER) {
        return Err(format!("the container name {CONTAINER} is the sidecar's; give the pod's container another name"));
    }
    Ok(())
}

/// Whether a container is the one that this webhook added, as far as it matters for the routes. Its image is left out: where
/// registries have mirrors another webhook writes it anew, and so are values that the API server fills in.
fn is_made_from(present: &Container, ours: &Container) -> bool {
    let mounts = |container: &Container| -> BTreeSet<(String, String)> {
        let mounts = container.volume_mounts.iter().flatten();
        mounts.map(|mount| (mount.name.clone(), mount.mount_path.clone())).collect()
    };
    present.restart_policy == ours.restart_policy
        && present.command == ours.command
        && present.args == ours.args
        && present.startup_probe.is_some()
        && mounts(present).is_superset(&mounts(ours))
}

#[cfg(test)]
mod tests {
    use kube::core::DynamicObject;

    use super::*;
    use crate::mock;

    fn webhook() -> Webhook {
        Webhook { settings: crate::build::pod::tests::settings() }
    }

    fn tunnel(attachment: &str, suspend: bool) -> Value {
        json!({
            "apiVersion": "towline.dev/v1alpha1",
            "kind": "VpnTunnel",
            "metadata": {"name": "oslo", "namespace": "erp"},
            "spec": {
                "mode": "Client",
                "attachment": attachment,
                "suspend": suspend,
                "client": {
                    "peers": [{"address": "vpn.oslo.example.com"}],
                    "preSharedKey": {"name": "oslo-vpn", "key": "psk"},
                    "user": {"secretName": "oslo-vpn"},
                },
                "network": {"remoteCIDRs": ["10.20.0.0/16"]},
            },
        })
    }

    fn pod(labels: Value, spec: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "app-", "labels": labels}, "spec": spec})
    }

    fn app() -> Value {
        json!({"containers": [{"name": "app", "image": "app"}]})
    }

    /// What the webhook answers, and what it asked the API server, which has `tunnel`.
    async fn answer(tunnel: Option<Value>, pod: &Value) -> (AdmissionResponse, usize) {
        let (client, asked) = mock::api(move |question, _| {
            assert_eq!(question, "GET /apis/towline.dev/v1alpha1/namespaces/erp/vpntunnels/oslo");
            tunnel.clone().map_or_else(|| mock::refusal(StatusCode::NOT_FOUND), |tunnel| (StatusCode::OK, tunnel))
        });
        let review = json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "u-1",
                "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "resource": {"group": "", "version": "v1", "resource": "pods"},
                "namespace": "erp",
                "operation": "CREATE",
                "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
                "object": pod,
                "oldObject": null,
                "dryRun": false,
            },
        });
        let response = review_text(&webhook(), &client, &review.to_string()).await;
        assert_eq!(response.0, StatusCode::OK, "{}", response.1);
        let review: AdmissionReview<DynamicObject> = serde_json::from_str(&response.1).unwrap();
        let response = review.response.unwrap();
        assert_eq!(response.uid, "u-1");
        let asked = asked.lock().unwrap().len();
        (response, asked)
    }

    async fn review_text(webhook: &Webhook, client: &Client, body: &str) -> (StatusCode, String) {
        let response = review(webhook, client, body.as_bytes()).await;
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// The pod after the patch, as the API server would read it.
    fn patched(pod: &Value, response: &AdmissionResponse) -> Pod {
        assert!(response.allowed);
        let mut pod = pod.clone();
        let patch: json_patch::Patch = serde_json::from_slice(response.patch.as_deref().unwrap()).unwrap();
        json_patch::patch(&mut pod, &patch).unwrap();
        serde_json::from_value(pod).unwrap()
    }

    fn labels() -> Value {
        json!({"towline.dev/tunnel": "oslo", "app": "web"})
    }

    /// What every patched pod must be: the tunnel runs before all others, they wait for it, and its volumes are there.
    fn assert_sidecar(pod: &Pod) -> Vec<Container> {
        let spec = pod.spec.clone().unwrap();
        let mut containers = spec.init_containers.unwrap();
        let sidecar = containers.remove(0);
        assert_eq!(sidecar.name, CONTAINER);
        assert_eq!(sidecar.restart_policy.as_deref(), Some("Always"));
        assert!(sidecar.startup_probe.is_some());
        let volumes: Vec<_> = spec.volumes.unwrap().into_iter().map(|volume| volume.name).collect();
        for mount in sidecar.volume_mounts.unwrap() {
            assert!(volumes.contains(&mount.name), "{} is mounted and not there", mount.name);
        }
        assert_eq!(pod.labels()["towline.dev/role"], "sidecar");
        let tunnel = serde_json::from_value(tunnel("Sidecar", false)).unwrap();
        assert_eq!(pod.annotations()["towline.dev/template"], sidecar_template(&tunnel, &webhook().settings));
        assert_eq!(pod.labels()["app"], "web");
        containers
    }

    #[tokio::test]
    async fn a_plain_pod_gets_the_sidecar_and_its_volumes() {
        let pod = pod(labels(), app());
        let (response, _) = answer(Some(tunnel("Sidecar", false)), &pod).await;
        assert!(assert_sidecar(&patched(&pod, &response)).is_empty());
    }

    #[tokio::test]
    async fn the_sidecar_goes_before_other_init_containers_and_keeps_their_volumes() {
        let mut spec = app();
        spec["initContainers"] = json!([{"name": "migrate", "image": "app"}]);
        spec["volumes"] = json!([{"name": "cache", "emptyDir": {}}]);
        let mut pod = pod(labels(), spec);
        pod["metadata"]["annotations"] = json!({"theirs": "stays"});
        let (response, _) = answer(Some(tunnel("Sidecar", false)), &pod).await;
        let patched = patched(&pod, &response);
        assert_eq!(assert_sidecar(&patched)[0].name, "migrate");
        assert_eq!(patched.annotations()["theirs"], "stays");
        assert_eq!(patched.spec.unwrap().volumes.unwrap()[0].name, "cache");
    }

    /// A pod that has been here.
    async fn injected() -> Value {
        let first = pod(labels(), app());
        let (response, _) = answer(Some(tunnel("Sidecar", false)), &first).await;
        serde_json::to_value(patched(&first, &response)).unwrap()
    }

    #[tokio::test]
    async fn a_pod_that_has_the_sidecar_is_left_alone() {
        let mut again = injected().await;
        // As webhooks for mirrors, resources and tokens leave it.
        let sidecar = &mut again["spec"]["initContainers"][0];
        sidecar["image"] = json!("mirror.example.com/towline-tunnel:1");
        sidecar["resources"]["limits"]["cpu"] = json!("1");
        sidecar["volumeMounts"].as_array_mut().unwrap().push(json!({"name": "more", "mountPath": "/more"}));
        let (response, _) = answer(Some(tunnel("Sidecar", false)), &again).await;
        assert!(response.allowed && response.patch.is_none(), "{}", response.result.message);
    }

    #[tokio::test]
    async fn a_sidecar_that_another_webhook_pushed_back_goes_to_the_front_again() {
        let mut again = injected().await;
        let init_containers = again["spec"]["initContainers"].as_array_mut().unwrap();
        init_containers.insert(0, json!({"name": "other", "image": "other"}));
        let (response, _) = answer(Some(tunnel("Sidecar", false)), &again).await;
        let others = assert_sidecar(&patched(&again, &response));
        assert_eq!(others.iter().map(|other| other.name.as_str()).collect::<Vec<_>>(), ["other"]);
    }

    #[tokio::test]
    async fn an_init_container_of_the_sidecars_name_that_is_not_the_sidecar_is_refused() {
        let changes: [fn(&mut Value); 8] = [
            |pod| pod["spec"]["initContainers"] = json!([{"name": CONTAINER, "image": "app"}]),
            |pod| pod["spec"]["initContainers"][0]["restartPolicy"] = Value::Null,
            |pod| pod["spec"]["initContainers"][0]["command"] = json!(["/bin/true"]),
            |pod| pod["spec"]["initContainers"][0]["args"] = json!(["--version"]),
            |pod| pod["spec"]["initContainers"][0]["startupProbe"] = Value::Null,
            |pod| pod["spec"]["initContainers"][0]["volumeMounts"] = json!([]),
            |pod| pod["metadata"]["annotations"]["towline.dev/template"] = json!("0123456789abcdef"),
            |pod| pod["metadata"]["labels"]["towline.dev/role"] = json!("other"),
        ];
        let mut let_through = Vec::new();
        for (index, change) in changes.into_iter().enumerate() {
            let mut forged = injected().await;
            change(&mut forged);
            let (response, _) = answer(Some(tunnel("Sidecar", false)), &forged).await;
            if response.allowed || !response.result.message.contains("remove it") {
                let_through.push(index);
            }
        }
        assert_eq!(let_through, [0_usize; 0]);
    }

    #[tokio::test]
    async fn a_pod_without_the_label_is_left_alone_and_nothing_is_asked() {
        let (response, asked) = answer(None, &pod(json!({"app": "web"}), app())).await;
        assert!(response.allowed && response.patch.is_none());
        assert_eq!(asked, 0);
    }

    #[tokio::test]
    async fn a_label_without_a_name_is_refused_and_nothing_is_asked() {
        let (response, asked) = answer(None, &pod(json!({"towline.dev/tunnel": ""}), app())).await;
        assert!(
            !response.allowed && response.result.message.contains("remove the label"),
            "{}",
            response.result.message
        );
        assert_eq!(asked, 0);
    }

    #[tokio::test]
    async fn pods_that_cannot_have_the_sidecar_are_refused_with_the_remedy() {
        let spec = |change: fn(&mut Value)| {
            let mut spec = app();
            change(&mut spec);
            spec
        };
        let sidecar = || Some(tunnel("Sidecar", false));
        let cases = [
            (None, app(), "names a VpnTunnel that namespace erp does not have; create it first"),
            (Some(tunnel("Gateway", false)), app(), "name a VpnTunnel with attachment Sidecar"),
            (Some(tunnel("Sidecar", true)), app(), "set suspend to false"),
            (sidecar(), spec(|spec| spec["hostNetwork"] = json!(true)), "set hostNetwork to false"),
            (sidecar(), spec(|spec| spec["os"] = json!({"name": "windows"})), "runs on Linux only"),
            (
                sidecar(),
                spec(|spec| spec["containers"][0]["name"] = json!(CONTAINER)),
                "give the pod's container another name",
            ),
            (
                sidecar(),
                spec(|spec| {
                    let volume =
                        tunnel_volumes(&serde_json::from_value(tunnel("Sidecar", false)).unwrap(), Usage::Sidecar);
                    spec["volumes"] = json!([{"name": volume[0].name, "emptyDir": {}}]);
                }),
                "give the pod's volume another name",
            ),
        ];
        for (tunnel, spec, remedy) in cases {
            let (response, _) = answer(tunnel, &pod(labels(), spec)).await;
            assert!(!response.allowed && response.patch.is_none(), "{remedy}");
            assert!(response.result.message.contains(remedy), "{}", response.result.message);
        }
    }

    #[tokio::test]
    async fn an_api_server_in_trouble_is_an_error_so_that_the_failure_policy_decides() {
        let (client, _) = mock::api(|_, _| mock::refusal(StatusCode::INTERNAL_SERVER_ERROR));
        let review = json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "u-1",
                "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "resource": {"group": "", "version": "v1", "resource": "pods"},
                "namespace": "erp",
                "operation": "CREATE",
                "userInfo": {},
                "object": pod(labels(), app()),
            },
        });
        let (status, _) = review_text(&webhook(), &client, &review.to_string()).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        let (status, _) = review_text(&webhook(), &client, "{}").await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
    }
}
