//! The mutating webhook of `attachment: Sidecar`: puts the tunnel as a native sidecar in front of every other container of a
//! pod that carries the label `towline.dev/tunnel`. No other pod is sent here (`objectSelector` of the configuration).

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use k8s_openapi::api::core::v1::Pod;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, PatchType};
use kube::{Api, Client};
use serde_json::{Value, json};
use tracing::{info, warn};

use crate::api::label;
use crate::api::tunnel::{Attachment, VpnTunnel};
use crate::build::pod::{CONTAINER, Settings, Usage, tunnel_container, tunnel_volumes};

/// What the webhook needs to know to build the container.
pub struct Webhook {
    /// Image and the like.
    pub settings: Settings,
}

/// Answers one AdmissionReview.
pub async fn review(webhook: &Webhook, client: &Client, body: &[u8]) -> Response {
    let request: AdmissionRequest<Pod> = match serde_json::from_slice::<AdmissionReview<Pod>>(body).map(TryInto::try_into) {
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
    let tunnel = match Api::<VpnTunnel>::namespaced(client.clone(), &namespace).get_opt(name).await {
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
            let mut response = response;
            response.patch = Some(Value::Array(patch).to_string().into_bytes());
            response.patch_type = Some(PatchType::JsonPatch);
            response
        }
        Err(message) => {
            info!(namespace, tunnel = name, message, "pod refused");
            response.deny(message)
        }
    };
    Json(response.into_review()).into_response()
}

/// The JSON patch for `pod`, or why the pod cannot have the sidecar. Empty when it has it already.
fn inject(webhook: &Webhook, namespace: &str, name: &str, tunnel: Option<&VpnTunnel>, pod: &Pod) -> Result<Vec<Value>, String> {
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
    let spec = pod.spec.clone().unwrap_or_default();
    if spec.host_network == Some(true) {
        return Err("a pod with hostNetwork cannot have a tunnel sidecar: its routes would be the node's; set hostNetwork to false".to_owned());
    }
    let init_containers = spec.init_containers.unwrap_or_default();
    if init_containers.iter().any(|container| container.name == CONTAINER) {
        return Ok(Vec::new());
    }
    if spec.containers.iter().any(|container| container.name == CONTAINER) {
        return Err(format!("the container name {CONTAINER} is the sidecar's; give the pod's container another name"));
    }
    let container = tunnel_container(tunnel, &webhook.settings, Usage::Sidecar);
    let volumes = tunnel_volumes(tunnel, Usage::Sidecar);
    let mut patch = Vec::new();
    if init_containers.is_empty() {
        patch.push(json!({"op": "add", "path": "/spec/initContainers", "value": [container]}));
    } else {
        // In front of all: the others would talk before the routes are there.
        patch.push(json!({"op": "add", "path": "/spec/initContainers/0", "value": container}));
    }
    if spec.volumes.is_none_or(|volumes| volumes.is_empty()) {
        patch.push(json!({"op": "add", "path": "/spec/volumes", "value": volumes}));
    } else {
        patch.extend(volumes.into_iter().map(|volume| json!({"op": "add", "path": "/spec/volumes/-", "value": volume})));
    }
    Ok(patch)
}
