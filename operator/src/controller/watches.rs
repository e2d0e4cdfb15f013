//! What makes the controller run: watched objects that changed in what it reads.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::future::ready;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};
use serde::Serialize;
use tracing::warn;

use super::Context;
use crate::admin::Health;
use crate::api::label;
use crate::api::{VpnTunnel, VpnUser};
use crate::cache::{Made, Tunnel, User, slim};

/// Tells a change that is read from one that is not, such as a status that we wrote.
struct News<K: Resource<DynamicType = ()>> {
    seen: HashMap<ObjectRef<K>, u64>,
    digest: fn(&K) -> u64,
}

impl<K: Resource<DynamicType = ()>> News<K> {
    fn new(digest: fn(&K) -> u64) -> Self {
        Self { seen: HashMap::new(), digest }
    }

    /// The object, if something must run for it.
    fn take(&mut self, event: Event<K>) -> Option<K> {
        match event {
            Event::Apply(object) | Event::InitApply(object) => {
                let digest = (self.digest)(&object);
                let known = self.seen.insert(ObjectRef::from_obj(&object), digest);
                (known != Some(digest)).then_some(object)
            }
            Event::Delete(object) => {
                self.seen.remove(&ObjectRef::from_obj(&object));
                Some(object)
            }
            Event::Init => {
                // All come again, and what vanished meanwhile must not be kept.
                self.seen.clear();
                None
            }
            Event::InitDone => None,
        }
    }
}

fn digest(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// The specification and nothing else: labels and annotations of a tunnel are not read.
fn of_tunnel(tunnel: &Tunnel) -> u64 {
    digest((&tunnel.meta().uid, tunnel.meta().generation))
}

/// The specification and nothing else, and whether it is about to go.
fn of_user(user: &User) -> u64 {
    digest((&user.meta().uid, user.meta().generation, user.meta().deletion_timestamp.is_some()))
}

fn of_pod(pod: &Pod) -> u64 {
    digest(text(pod))
}

fn text(object: &impl Serialize) -> String {
    // Objects of the API are always JSON.
    serde_json::to_string(object).unwrap_or_default()
}

/// Events without errors. One that does not pass by itself stands in the readiness until the next event.
fn events<K: Resource<DynamicType = ()> + Send + 'static>(
    watched: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    health: Health,
) -> impl Stream<Item = Event<K>> + Send + 'static {
    let plural = K::plural(&()).into_owned();
    watched.default_backoff().filter_map(move |event| {
        let event = event.inspect(|_| health.clear(&plural)).inspect_err(|error| {
            warn!(%error, kind = plural, "the API server cannot be watched; tried again");
            if let Some(problem) = problem(&plural, error) {
                health.set(&plural, problem);
            }
        });
        ready(event.ok())
    })
}

/// What a person must repair.
fn problem(plural: &str, error: &watcher::Error) -> Option<String> {
    let (watcher::Error::InitialListFailed(kube::Error::Api(refusal))
    | watcher::Error::WatchStartFailed(kube::Error::Api(refusal))) = error
    else {
        return None;
    };
    match refusal.code {
        404 if [VpnTunnel::plural(&()), VpnUser::plural(&())].contains(&plural.into()) => Some(format!(
            "the API server does not serve {plural}: install the chart with crds.install, or apply its definitions"
        )),
        403 | 404 => Some(format!("{plural} cannot be watched: {}", refusal.message)),
        _ => None,
    }
}

/// Tunnels whose specification changed, and tunnels that are gone.
pub(super) fn tunnels(
    client: Client,
    writer: Writer<Tunnel>,
    context: Arc<Context>,
) -> impl Stream<Item = watcher::Result<Tunnel>> + Send + 'static {
    let watched = watcher::watcher(Api::<Tunnel>::all(client), watcher::Config::default())
        .modify(|tunnel| tunnel.meta_mut().managed_fields = None);
    let mut news = News::new(of_tunnel);
    events(watched, context.health.clone()).map(Ok).reflect(writer).filter_map(move |event| {
        if let Ok(Event::InitDone) = event {
            // Whatever vanished while nobody watched has no event of its own.
            context.keep_only_known();
        }
        ready(event.ok().and_then(|event| news.take(event)).map(Ok))
    })
}

/// Users whose specification changed, and users that are gone.
pub(super) fn users(
    client: Client,
    writer: Writer<User>,
    health: Health,
) -> impl Stream<Item = watcher::Result<User>> + Send + 'static {
    let watched = watcher::watcher(Api::<User>::all(client), watcher::Config::default())
        .modify(|user| user.meta_mut().managed_fields = None);
    let mut news = News::new(of_user);
    events(watched, health)
        .map(Ok)
        .reflect(writer)
        .filter_map(move |event: watcher::Result<_>| ready(event.ok().and_then(|event| news.take(event)).map(Ok)))
}

/// Pods that changed in what is kept of them.
pub(super) fn pods(
    client: Client,
    writer: Writer<Pod>,
    health: Health,
) -> impl Stream<Item = watcher::Result<Pod>> + Send + 'static {
    let config = watcher::Config::default().labels(label::TUNNEL);
    let watched = watcher::watcher(Api::<Pod>::all(client), config).modify(slim);
    let mut news = News::new(of_pod);
    events(watched, health)
        .map(Ok)
        .reflect(writer)
        .filter_map(move |event: watcher::Result<_>| ready(event.ok().and_then(|event| news.take(event)).map(Ok)))
}

/// Objects of a kind that is made for tunnels, as often as anything of them changes.
pub(super) fn made<K: Made>(
    client: Client,
    writer: Writer<K::Kept>,
    health: Health,
) -> impl Stream<Item = watcher::Result<K::Kept>> + Send + 'static {
    let config = watcher::Config::default().labels(&format!("{}={}", label::MANAGED_BY, label::OPERATOR));
    let watched =
        watcher::watcher(Api::<K::Kept>::all(client), config).modify(|object| object.meta_mut().managed_fields = None);
    events(watched, health).map(Ok).reflect(writer).touched_objects()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::build::tests::tunnel;

    #[test]
    fn a_status_that_we_wrote_asks_for_no_run_and_a_specification_a_deletion_and_a_relist_do() {
        let mut news = News::new(of_tunnel);
        let guarded = |tunnel: VpnTunnel| -> Tunnel { kube::core::DeserializeGuard(Ok(tunnel)) };
        let mut oslo = tunnel("Gateway");
        assert!(news.take(Event::InitApply(guarded(oslo.clone()))).is_some());
        oslo.status = Some(crate::api::tunnel::VpnTunnelStatus::default());
        oslo.metadata.resource_version = Some("8".to_owned());
        assert!(news.take(Event::Apply(guarded(oslo.clone()))).is_none());
        oslo.metadata.generation = Some(4);
        assert!(news.take(Event::Apply(guarded(oslo.clone()))).is_some());
        assert!(news.take(Event::Delete(guarded(oslo.clone()))).is_some());
        assert!(news.take(Event::Apply(guarded(oslo.clone()))).is_some());
        assert!(news.take(Event::Init).is_none());
        assert!(news.take(Event::InitApply(guarded(oslo))).is_some());
    }

    #[test]
    fn a_pod_of_which_only_the_application_changes_asks_for_no_run() {
        let pod = |ready: bool, version: &str| {
            let status = |name: &str, ready: bool| json!({"name": name, "image": "", "imageID": "", "ready": ready, "restartCount": 0});
            let mut pod: Pod = serde_json::from_value(json!({
                "metadata": {"name": "a", "resourceVersion": version},
                "status": {"containerStatuses": [status("app", ready)], "initContainerStatuses": [status("towline", true)]},
            }))
            .unwrap();
            slim(&mut pod);
            pod
        };
        let mut news = News::new(of_pod);
        assert!(news.take(Event::Apply(pod(false, "1"))).is_some());
        assert!(news.take(Event::Apply(pod(true, "2"))).is_none());
        let mut moved = pod(true, "3");
        moved.status.as_mut().unwrap().phase = Some("Failed".to_owned());
        assert!(news.take(Event::Apply(moved)).is_some());
    }

    #[test]
    fn only_what_a_person_must_repair_is_a_problem_of_the_replica() {
        let refused = |code| {
            let status = kube::core::Status { code, message: "scripted".to_owned(), ..kube::core::Status::default() };
            watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)))
        };
        assert!(problem("vpntunnels", &refused(404)).unwrap().contains("crds.install"));
        assert!(problem("services", &refused(403)).unwrap().starts_with("services cannot be watched: "));
        assert_eq!(problem("services", &refused(500)), None);
    }
}
