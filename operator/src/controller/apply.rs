//! Apply: carries the objects of a tunnel to the API server, each only when it or what is there has changed.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, PartialObjectMeta, Patch, PatchParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use tracing::info;

use super::Context;
use crate::api::VpnTunnel;
use crate::api::label;
use crate::build::Objects;
use crate::cache::Made;
use crate::status::{Part, Problem};

/// What was written last, by kind and name.
pub(super) type Applied = BTreeMap<(String, String), Written>;

/// An object as it was written.
pub(super) struct Written {
    /// Of the text that was sent.
    digest: u64,
    /// The resourceVersion that it got.
    version: Option<String>,
}

/// Writes all objects and removes the Services of exports that are gone. One that fails does not keep the others back.
pub(super) async fn all(
    tunnel: &VpnTunnel,
    context: &Context,
    namespace: &str,
    objects: &Objects,
    applied: &mut Applied,
) -> Vec<Problem> {
    let mut writer = Writer { context, namespace, tunnel, applied, problems: Vec::new() };
    if let Some(gateway) = &objects.gateway {
        writer.apply(&gateway.service_account).await;
    }
    writer.apply(&objects.config_map).await;
    if let Some(gateway) = &objects.gateway {
        writer.apply(&gateway.deployment).await;
        writer.apply(&gateway.disruption_budget).await;
    }
    for service in &objects.services {
        writer.apply(service).await;
    }
    writer.remove_services(objects).await;
    writer.problems
}

struct Writer<'a> {
    context: &'a Context,
    namespace: &'a str,
    tunnel: &'a VpnTunnel,
    applied: &'a mut Applied,
    problems: Vec<Problem>,
}

impl Writer<'_> {
    async fn apply<K: Made>(&mut self, object: &K) {
        let name = object.name_any();
        let key = (K::kind(&()).into_owned(), name.clone());
        let digest = digest(object);
        let present = K::store(&self.context.cache).get(&ObjectRef::new(&name).within(self.namespace));
        if let Some((last, present)) = self.applied.get(&key).zip(present)
            && last.digest == digest
            && last.version == present.resource_version()
        {
            return;
        }
        match self.write(object, &name).await {
            Ok(version) => {
                self.applied.insert(key, Written { digest, version });
            }
            Err(text) => {
                self.applied.remove(&key);
                self.problems.push(Problem { part: part(object.labels()), text });
            }
        }
    }

    /// Writes one object; returns its resourceVersion, or a sentence with the remedy.
    async fn write<K: Made>(&self, object: &K, name: &str) -> Result<Option<String>, String> {
        let failed = |error| format!("{} {name} cannot be written: {}", K::kind(&()), words(error));
        let objects: Api<K> = Api::namespaced(self.context.client.clone(), self.namespace);
        // Something else of that name, such as the user's own Service, is not taken over.
        if let Some(present) = objects.get_metadata_opt(name).await.map_err(failed)?
            && !self.owns(&present)
        {
            return Err(self.taken(object, &present));
        }
        let params = PatchParams::apply(label::OPERATOR).force();
        let written = objects.patch_metadata(name, &params, &Patch::Apply(object)).await.map_err(failed)?;
        Ok(written.resource_version())
    }

    fn owns(&self, present: &impl ResourceExt) -> bool {
        present.owner_references().iter().any(|owner| Some(&owner.uid) == self.tunnel.meta().uid.as_ref())
    }

    fn taken<K: Made>(&self, object: &K, present: &PartialObjectMeta<K>) -> String {
        let (kind, name, tunnel) = (K::kind(&()), object.name_any(), self.tunnel.name_any());
        let of_namesake =
            present.owner_references().iter().any(|owner| owner.kind == VpnTunnel::kind(&()) && owner.name == tunnel);
        if of_namesake {
            return format!("{kind} {name} of an earlier VpnTunnel {tunnel} is still being deleted; it is tried again");
        }
        let rename = object.labels().get(label::EXPORT).map_or_else(
            || "create the VpnTunnel under another name".to_owned(),
            |export| format!("rename export {export}"),
        );
        format!("{kind} {name} exists and belongs to somebody else: {rename}, or delete the {kind}")
    }

    /// Removes the Services of exports that are gone.
    async fn remove_services(&mut self, objects: &Objects) {
        let tunnel = self.tunnel.name_any();
        let gone = Service::store(&self.context.cache).state_filter(|service| {
            service.metadata.namespace.as_deref() == Some(self.namespace)
                && service.labels().get(label::TUNNEL) == Some(&tunnel)
                && service.labels().contains_key(label::EXPORT)
                && service.metadata.deletion_timestamp.is_none()
                && self.owns(service)
                && !objects.services.iter().any(|wanted| wanted.metadata.name == service.metadata.name)
        });
        let services: Api<Service> = Api::namespaced(self.context.client.clone(), self.namespace);
        for service in gone {
            let name = service.name_any();
            match services.delete(&name, &DeleteParams::default()).await {
                Ok(_) => {
                    info!(namespace = self.namespace, service = name, "the Service of a removed export is deleted")
                }
                Err(kube::Error::Api(refusal)) if refusal.code == 404 => {}
                Err(error) => {
                    let text = format!("Service {name} of a removed export cannot be deleted: {}", words(error));
                    self.problems.push(Problem { part: Part::Tunnel, text });
                }
            }
            self.applied.remove(&(Service::kind(&()).into_owned(), name));
        }
    }
}

fn part(labels: &BTreeMap<String, String>) -> Part {
    match labels.get(label::EXPORT) {
        Some(export) => Part::Export(export.clone()),
        None if labels.contains_key(label::DIAL_IN) => Part::DialIn,
        None => Part::Tunnel,
    }
}

/// What the API server said, without the request.
fn words(error: kube::Error) -> String {
    match error {
        kube::Error::Api(refusal) => refusal.message.clone(),
        other => other.to_string(),
    }
}

fn digest<K: Made>(object: &K) -> u64 {
    let mut hasher = DefaultHasher::new();
    // Objects of the API are always JSON.
    serde_json::to_string(object).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}
