//! The controller: dereference, validate, build, apply, status. Each run ends with the status written as it is known then.

mod apply;
pub(crate) mod pods;
mod publish;
mod watches;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod as KubePod, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::ObjectRef;
use kube::{Client, Resource, ResourceExt};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::admin::Health;
use crate::api::label;
use crate::api::tunnel::VpnTunnel;
use crate::api::user::{VpnUser, VpnUserStatus};
use crate::build::{self, pod::Settings};
use crate::cache::{Cache, Tunnel, User, Writers};
use crate::metrics::Metrics;
use crate::reports::{Reports, SILENCE};
use crate::status::user::Attempts;
use crate::status::{self, Input, Outcome, Part, Pod, Problem};
use crate::tls::Certificate;

/// Tunnels that are reconciled at once.
const CONCURRENCY: u16 = 8;
/// A tunnel is looked at again after this time even if nothing happens.
const RECHECK: Duration = Duration::from_secs(300);
/// The first pause after a failure; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The longest run: an API server that does not answer must not hold one of the few places for ever.
const RUN_LIMIT: Duration = Duration::from_secs(60);
/// How often the controller shows that it looks for work.
const TURN: Duration = Duration::from_secs(5);

/// Namespace and name of a tunnel.
type Key = (String, String);

/// What a replica brings along when it begins to lead.
pub struct Parts {
    /// The API server.
    pub client: Client,
    /// Images and addresses.
    pub settings: Settings,
    /// What pods said.
    pub reports: Reports,
    /// What the watches said.
    pub cache: Cache,
    /// The authority that pods must trust.
    pub certificate: watch::Receiver<Certificate>,
    /// What is counted.
    pub metrics: Metrics,
    /// Where problems with the watches are told.
    pub health: Health,
}

/// What every run needs.
pub struct Context {
    parts: Parts,
    /// When this replica began to lead.
    began: Instant,
    memory: Mutex<BTreeMap<Key, Memory>>,
    recorder: Recorder,
}

impl std::ops::Deref for Context {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

/// What is remembered of a tunnel from one run to the next.
#[derive(Default)]
struct Memory {
    /// Failures in a row.
    failures: u32,
    applied: apply::Applied,
    told: publish::Told,
    users: publish::ToldUsers,
}

impl Context {
    /// The context of a replica, in pod `pod`, that begins to lead now.
    pub fn new(parts: Parts, pod: &str) -> Self {
        let reporter = Reporter { controller: label::OPERATOR.to_owned(), instance: Some(pod.to_owned()) };
        let recorder = Recorder::new(parts.client.clone(), reporter);
        Self { parts, began: Instant::now(), memory: Mutex::default(), recorder }
    }

    fn memory(&self) -> MutexGuard<'_, BTreeMap<Key, Memory>> {
        // Each change of it is one call.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A tunnel is gone.
    fn forget(&self, namespace: &str, name: &str) {
        self.memory().remove(&(namespace.to_owned(), name.to_owned()));
        self.reports.forget(namespace, name);
    }

    /// Forgets tunnels that are not in the cache.
    fn keep_only_known(&self) {
        let known: Vec<Key> = self.memory().keys().cloned().collect();
        for (namespace, name) in known {
            if self.cache.tunnel(&namespace, &name).is_none() {
                self.forget(&namespace, &name);
            }
        }
    }
}

/// Why a run ended early. The status says it too, unless the API server does not take that either.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused a request.
    #[error("{what}: {source}")]
    Api {
        /// What was asked.
        what: &'static str,
        /// What it said.
        source: kube::Error,
    },
    /// Objects could not be written.
    #[error("{0}")]
    Apply(String),
    /// The watches ended.
    #[error("the controller ends")]
    Ended,
    /// The run took too long.
    #[error("the API server did not answer within {} s", RUN_LIMIT.as_secs())]
    Late,
}

fn api(what: &'static str) -> impl FnOnce(kube::Error) -> Error {
    move |source| Error::Api { what, source }
}

fn reference(namespace: &str, name: &str) -> ObjectRef<Tunnel> {
    ObjectRef::new(name).within(namespace)
}

/// Reconciles until `shutdown`, and lets runs that are under way end.
pub async fn run(context: Arc<Context>, writers: Writers, shutdown: CancellationToken) {
    let client = || context.client.clone();
    let health = || context.health.clone();
    let reported = stream::unfold((context.reports.clone(), health()), async |(reports, health)| {
        loop {
            health.turn(Instant::now());
            if let Ok((namespace, name)) = timeout(TURN, reports.changed()).await {
                return Some((reference(&namespace, &name), (reports, health)));
            }
        }
    });
    // A new authority goes into every ConfigMap.
    let authorities = stream::unfold(context.certificate.clone(), |mut certificate| async move {
        certificate.changed().await.ok().map(|()| ((), certificate))
    });
    let of_pod = |pod: KubePod| {
        let tunnel = pod.labels().get(label::TUNNEL).cloned();
        tunnel.zip(pod.namespace()).map(|(name, namespace)| reference(&namespace, &name))
    };
    let of_user = |user: User| {
        let tunnel = user.0.as_ref().ok().map(|user| user.spec.tunnel_name.clone());
        tunnel.zip(user.meta().namespace.clone()).map(|(name, namespace)| reference(&namespace, &name))
    };
    let tunnels = watches::tunnels(client(), writers.tunnels, context.clone());
    Controller::for_stream(tunnels, context.cache.tunnels.clone())
        .owns_stream(watches::made::<Deployment>(client(), writers.deployments, health()))
        .owns_stream(watches::made::<ConfigMap>(client(), writers.config_maps, health()))
        .owns_stream(watches::made::<Service>(client(), writers.services, health()))
        .owns_stream(watches::made::<ServiceAccount>(client(), writers.service_accounts, health()))
        .owns_stream(watches::made::<PodDisruptionBudget>(client(), writers.disruption_budgets, health()))
        .watches_stream(watches::users(client(), writers.users, health()), of_user)
        .watches_stream(watches::pods(client(), writers.pods, health()), of_pod)
        .reconcile_on(reported.boxed())
        .reconcile_all_on(authorities.boxed())
        .with_config(Config::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(reconcile, on_error, context.clone())
        .for_each_concurrent(usize::from(CONCURRENCY), async |result| match result {
            Ok((tunnel, _)) => debug!(%tunnel, "reconciled"),
            Err(kube::runtime::controller::Error::ObjectNotFound(tunnel)) => {
                debug!(%tunnel, "gone");
                let (namespace, name) = (tunnel.namespace.as_deref().unwrap_or_default(), &tunnel.name);
                context.forget(namespace, name);
                match timeout(RUN_LIMIT, tell_orphans(&context, namespace, name)).await.unwrap_or(Err(Error::Late)) {
                    Ok(()) => {}
                    Err(error) => warn!(namespace, tunnel = name, %error, "its users are not told that it is gone"),
                }
            }
            // Told where it happened.
            Err(kube::runtime::controller::Error::ReconcilerFailed(..)) => {}
            Err(error) => warn!(%error, "the controller cannot go on as it should"),
        })
        .await;
}

/// Says to the users that name a tunnel which does not exist that it does not.
async fn tell_orphans(context: &Context, namespace: &str, tunnel: &str) -> Result<(), Error> {
    context.cache.ready().await.map_err(|_| Error::Ended)?;
    let (orphans, now) = (context.cache.users_of(namespace, tunnel), Timestamp::now());
    let status = |user: &VpnUser, old: Option<&VpnUserStatus>| {
        status::user::status(user, &build::users::without_tunnel(user), Some(&Attempts::new()), old, now)
    };
    publish::users(&orphans, context, status, &mut publish::ToldUsers::new()).await
}

async fn reconcile(tunnel: Arc<Tunnel>, context: Arc<Context>) -> Result<Action, Error> {
    let began = Instant::now();
    context.metrics.reconciling();
    let key = (tunnel.namespace().unwrap_or_default(), tunnel.name_any());
    // The runs of one tunnel never overlap: nobody misses what is taken out meanwhile.
    let mut memory = context.memory().remove(&key).unwrap_or_default();
    let run = async {
        context.cache.ready().await.map_err(|_| Error::Ended)?;
        match &tunnel.0 {
            Ok(tunnel) => run_once(tunnel, &context, &mut memory).await,
            Err(unreadable) => publish::unreadable(unreadable, &context, &mut memory.told).await,
        }
    };
    let result = timeout(RUN_LIMIT, run).await.unwrap_or(Err(Error::Late));
    memory.failures = if result.is_ok() { 0 } else { memory.failures.saturating_add(1) };
    context.memory().insert(key, memory);
    context.metrics.reconciled(result.is_ok(), began.elapsed());
    result
}

fn on_error(tunnel: Arc<Tunnel>, error: &Error, context: Arc<Context>) -> Action {
    let key = (tunnel.namespace().unwrap_or_default(), tunnel.name_any());
    let failures = context.memory().get(&key).map_or(1, |memory| memory.failures);
    let pause = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(6)).min(LONGEST_PAUSE);
    warn!(namespace = key.0, tunnel = key.1, %error, retry_seconds = pause.as_secs(), "a tunnel could not be reconciled");
    Action::requeue(pause)
}

async fn run_once(tunnel: &VpnTunnel, context: &Context, memory: &mut Memory) -> Result<Action, Error> {
    let namespace = tunnel.namespace().unwrap_or_default();
    if tunnel.meta().deletion_timestamp.is_some() {
        // Its objects go with it, by their owner references; there is nothing that it would have to wait for.
        context.forget(&namespace, &tunnel.name_any());
        return Ok(Action::await_change());
    }
    let now = Timestamp::now();
    let ca_bundle = context.certificate.borrow().ca_bundle.clone();
    let users = context.cache.users_of(&namespace, &tunnel.name_any());
    let roll = build::users::roll(tunnel, users.iter().filter_map(|user| user.0.as_ref().ok()));
    let mut unwritten = Vec::new();
    let outcome = match build::objects(tunnel, &roll, &context.settings, &ca_bundle) {
        Err(invalid) => Outcome::Invalid(invalid.to_string()),
        Ok(objects) => {
            let mut problems = apply::all(tunnel, context, &namespace, &objects, &mut memory.applied).await;
            unwritten.extend(problems.iter().map(|problem| problem.text.clone()));
            let homeless = objects.homeless.into_iter();
            problems.extend(homeless.map(|(export, text)| Problem { part: Part::Export(export), text }));
            Outcome::Applied { revision: objects.revision, template: objects.template, problems }
        }
    };
    let pods = pods::of(tunnel, context, &namespace, now);
    let refusal = pods::refusal(tunnel, context, &namespace, &pods).await?;
    let just_began = context.began.elapsed() < SILENCE;
    let old = memory.told.status(tunnel).cloned();
    let addresses = dialled(tunnel, context, &namespace);
    let input =
        Input { tunnel, old: old.as_ref(), outcome: &outcome, refusal, addresses, pods: &pods, just_began, now };
    let pause = publish::status(tunnel, context, status::status(&input), &mut memory.told).await?;
    let attempts = status::user::attempts(&pods);
    let of_user = |user: &VpnUser, old: Option<&VpnUserStatus>| match roll.verdicts.get(&user.name_any()) {
        Some(verdict) => status::user::status(user, verdict, attempts.as_ref(), old, now),
        None => old.cloned().unwrap_or_default(),
    };
    publish::users(&users, context, of_user, &mut memory.users).await?;
    let next = next_look(&pods).min(pause.unwrap_or(RECHECK));
    if unwritten.is_empty() { Ok(Action::requeue(next)) } else { Err(Error::Apply(unwritten.join("; "))) }
}

/// The addresses at which people and sites dial in to a server.
fn dialled(tunnel: &VpnTunnel, context: &Context, namespace: &str) -> Vec<String> {
    let service = context.cache.services.get(&ObjectRef::new(&tunnel.name_any()).within(namespace));
    let is_ours = |service: &Arc<Service>| {
        service.labels().contains_key(label::DIAL_IN)
            && service.owner_references().iter().any(|owner| Some(&owner.uid) == tunnel.meta().uid.as_ref())
    };
    service.filter(is_ours).map(|service| status::address::of(&service)).unwrap_or_default()
}

/// When to look again at what causes no event.
fn next_look(pods: &[Pod]) -> Duration {
    if pods.iter().any(|pod| !pod.running) {
        pods::SLOW
    } else if pods.iter().any(|pod| pod.report.is_none()) {
        SILENCE
    } else {
        RECHECK
    }
}

#[cfg(test)]
mod tests;
