//! What the leading replica knows from its watches: the tunnels, the objects made for them, and the pods that carry them.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, PodSpec, PodStatus, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::PartialObjectMeta;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::store::{Writer, WriterDropped};
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;

use crate::api::label;
use crate::api::tunnel::VpnTunnel;
use crate::api::user::VpnUser;
use crate::build::pod::CONTAINER;

/// A tunnel, or why it cannot be read: one that this version does not understand must not stall the others.
pub type Tunnel = DeserializeGuard<VpnTunnel>;

/// A user, or why it cannot be read.
pub type User = DeserializeGuard<VpnUser>;

/// A kind of object that is made for tunnels.
pub trait Made:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Serialize
    + Send
    + Sync
    + 'static
{
    /// What is kept of each: the metadata, and of those that say more than that all.
    type Kept: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static;

    /// Where its objects are.
    fn store(cache: &Cache) -> &Store<Self::Kept>;
}

macro_rules! caches {
    ($($field:ident: $kind:ty as $kept:ty),* $(,)?) => {
        /// The watched objects, for whoever reads them. All are empty on a replica that does not lead.
        #[derive(Clone)]
        pub struct Cache {
            /// Every tunnel.
            pub tunnels: Store<Tunnel>,
            /// Every user.
            pub users: Store<User>,
            /// Every pod with the label of a tunnel, without what nobody here asks for.
            pub pods: Store<Pod>,
            $(pub(crate) $field: Store<$kept>,)*
            listed: Arc<OnceCell<()>>,
        }

        /// The other end, for the controller.
        pub struct Writers {
            /// Every tunnel.
            pub tunnels: Writer<Tunnel>,
            /// Every user.
            pub users: Writer<User>,
            /// Every pod with the label of a tunnel.
            pub pods: Writer<Pod>,
            $(
                /// What is kept of the objects of this kind.
                pub $field: Writer<$kept>
            ),*
        }

        $(impl Made for $kind {
            type Kept = $kept;

            fn store(cache: &Cache) -> &Store<$kept> {
                &cache.$field
            }
        })*

        impl Cache {
            /// An empty cache.
            pub fn new() -> (Self, Writers) {
                let (tunnels, tunnels_writer) = store();
                let (users, users_writer) = store();
                let (pods, pods_writer) = store();
                $(let $field = store();)*
                let cache = Self { tunnels, users, pods, $($field: $field.0,)* listed: Arc::default() };
                (cache, Writers { tunnels: tunnels_writer, users: users_writer, pods: pods_writer, $($field: $field.1),* })
            }

            /// Waits until every kind was listed once. Any number may wait.
            ///
            /// # Errors
            /// When the controller has ended.
            pub async fn ready(&self) -> Result<(), WriterDropped> {
                // A store wakes only the last of those that wait for it: one waits for all.
                let listed = async {
                    self.tunnels.wait_until_ready().await?;
                    self.users.wait_until_ready().await?;
                    self.pods.wait_until_ready().await?;
                    $(self.$field.wait_until_ready().await?;)*
                    Ok(())
                };
                self.listed.get_or_try_init(|| listed).await.copied()
            }
        }
    };
}

caches! {
    config_maps: ConfigMap as PartialObjectMeta<ConfigMap>,
    deployments: Deployment as PartialObjectMeta<Deployment>,
    disruption_budgets: PodDisruptionBudget as PartialObjectMeta<PodDisruptionBudget>,
    service_accounts: ServiceAccount as PartialObjectMeta<ServiceAccount>,
    services: Service as Service,
}

impl Cache {
    /// A tunnel, if it is known.
    pub fn tunnel(&self, namespace: &str, name: &str) -> Option<Arc<Tunnel>> {
        self.tunnels.get(&ObjectRef::new(name).within(namespace))
    }

    /// The users that name a tunnel, those that cannot be read or are about to go left out.
    pub fn users_of(&self, namespace: &str, tunnel: &str) -> Vec<Arc<User>> {
        self.users.state_filter(|user| {
            user.meta().namespace.as_deref() == Some(namespace)
                && user.meta().deletion_timestamp.is_none()
                && user.0.as_ref().is_ok_and(|user| user.spec.tunnel_name == tunnel)
        })
    }

    /// A pod, if it is known.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.pods.get(&ObjectRef::new(name).within(namespace))
    }

    /// The pods that carry the label of a tunnel.
    pub fn pods_of(&self, namespace: &str, tunnel: &str) -> Vec<Arc<Pod>> {
        self.pods.state_filter(|pod| {
            pod.metadata.namespace.as_deref() == Some(namespace)
                && pod.labels().get(label::TUNNEL).is_some_and(|name| name == tunnel)
        })
    }
}

/// Takes out of a pod what nobody here asks for: an application's pod is large, and there may be thousands.
pub fn slim(pod: &mut Pod) {
    pod.metadata.managed_fields = None;
    pod.metadata.resource_version = None;
    let annotations = pod.metadata.annotations.take().unwrap_or_default();
    pod.metadata.annotations =
        Some(annotations.into_iter().filter(|(name, _)| name.starts_with(label::PREFIX)).collect());
    let ours = |containers: Vec<Container>| -> Vec<Container> {
        let ours = containers.into_iter().filter(|container| container.name == CONTAINER);
        ours.map(|container| Container { name: container.name, ..Container::default() }).collect()
    };
    pod.spec = pod.spec.take().map(|spec| PodSpec {
        service_account_name: spec.service_account_name,
        containers: ours(spec.containers),
        init_containers: spec.init_containers.map(ours),
        ..PodSpec::default()
    });
    pod.status = pod.status.take().map(|status| {
        let ours = |statuses: Option<Vec<_>>| {
            statuses.map(|mut statuses: Vec<k8s_openapi::api::core::v1::ContainerStatus>| {
                statuses.retain(|status| status.name == CONTAINER);
                statuses
            })
        };
        PodStatus {
            phase: status.phase,
            start_time: status.start_time,
            conditions: status.conditions,
            container_statuses: ours(status.container_statuses),
            init_container_statuses: ours(status.init_container_statuses),
            ..PodStatus::default()
        }
    });
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_kept_pod_has_what_is_asked_for_and_nothing_of_the_application() {
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": {
                "name": "a", "resourceVersion": "7", "labels": {"app": "web"},
                "annotations": {"towline.dev/template": "t", "secret.example.com/x": "y"},
            },
            "spec": {
                "serviceAccountName": "web",
                "containers": [{"name": "app", "env": [{"name": "A", "value": "b"}]}],
                "initContainers": [{"name": CONTAINER, "image": "i"}],
            },
            "status": {
                "phase": "Running",
                "containerStatuses": [{"name": "app", "image": "", "imageID": "", "ready": true, "restartCount": 0}],
            },
        }))
        .unwrap();
        slim(&mut pod);
        let kept = serde_json::to_value(&pod).unwrap();
        assert_eq!(kept["metadata"]["annotations"], json!({"towline.dev/template": "t"}));
        assert_eq!(
            kept["spec"],
            json!({
                "serviceAccountName": "web", "containers": [], "initContainers": [{"name": CONTAINER}],
            })
        );
        assert_eq!(kept["status"], json!({"phase": "Running", "containerStatuses": []}));
    }

    #[tokio::test(start_paused = true)]
    async fn everybody_who_waits_for_the_lists_is_woken() {
        let (cache, mut writers) = Cache::new();
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let cache = cache.clone();
                tokio::spawn(async move { cache.ready().await.is_ok() })
            })
            .collect();
        macro_rules! list {
            ($($field:ident),*) => {$(
                tokio::task::yield_now().await;
                assert!(!waiting.iter().any(|task| task.is_finished()));
                writers.$field.apply_watcher_event(&Event::Init);
                writers.$field.apply_watcher_event(&Event::InitDone);
            )*};
        }
        list!(users, pods, config_maps, deployments, disruption_budgets, service_accounts, services, tunnels);
        for task in waiting {
            let woken = tokio::time::timeout(Duration::from_secs(1), task).await;
            assert!(woken.expect("it still waits").unwrap());
        }
    }
}
