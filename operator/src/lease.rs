//! Leader election by a Lease: one replica reconciles and takes reports, the others answer the webhook and wait.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

/// The times of a lease. The others wait for longer than the leader goes on without a renewal, so that there is never a second.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// How long a lease holds without renewal, for the others.
    duration: Duration,
    /// How long for the leader itself, from the moment at which it sent its last successful renewal.
    deadline: Duration,
    /// How often it is renewed, and how often the others look.
    interval: Duration,
    /// How long one request may take.
    request: Duration,
}

const TIMES: Times = Times {
    duration: Duration::from_secs(15),
    deadline: Duration::from_secs(10),
    interval: Duration::from_secs(2),
    request: Duration::from_secs(4),
};

/// The claim of one replica.
pub struct Claim {
    leases: Api<Lease>,
    name: String,
    holder: String,
    owner: Option<OwnerReference>,
    times: Times,
    /// What was read last, and when it was first read so. Clocks of other machines are not asked.
    observed: Mutex<Option<(LeaseSpec, Instant)>>,
}

impl Claim {
    /// The claim of `holder` on Lease `name`. A Lease that is made goes with `owner`.
    pub fn new(client: Client, namespace: &str, name: &str, holder: &str, owner: Option<OwnerReference>) -> Self {
        let leases = Api::namespaced(client, namespace);
        let (name, holder) = (name.to_owned(), holder.to_owned());
        Self { leases, name, holder, owner, times: TIMES, observed: Mutex::new(None) }
    }

    /// Waits until this replica leads. Returns when the request was sent that made it so.
    pub async fn acquire(&self) -> Instant {
        loop {
            let sent = Instant::now();
            match timeout(self.times.request, self.attempt(sent)).await {
                Ok(Ok(true)) => return sent,
                Ok(Ok(false)) => debug!("another replica leads"),
                Ok(Err(error)) => warn!(%error, lease = self.name, "the Lease cannot be claimed; tried again"),
                Err(_) => warn!(lease = self.name, "the Lease cannot be claimed: the API server does not answer"),
            }
            sleep(self.times.interval).await;
        }
    }

    /// Renews until the lease is lost: another holds it, or it could not be renewed in time. It was last renewed by a request
    /// sent at `renewed`.
    pub async fn keep(&self, mut renewed: Instant) {
        loop {
            let pause = self.times.interval.min(self.left(renewed, Instant::now()));
            sleep(pause).await;
            let sent = Instant::now();
            let limit = self.times.request.min(self.left(renewed, sent));
            match timeout(limit, self.attempt(sent)).await {
                Ok(Ok(true)) => renewed = sent,
                Ok(Ok(false)) => return warn!("another replica took the Lease"),
                Ok(Err(error)) => warn!(%error, "the Lease could not be renewed"),
                Err(_) => warn!("the Lease could not be renewed: the API server does not answer"),
            }
            if self.left(renewed, Instant::now()).is_zero() {
                return;
            }
        }
    }

    /// How long the leader may go on.
    fn left(&self, renewed: Instant, now: Instant) -> Duration {
        self.times.deadline.saturating_sub(now.saturating_duration_since(renewed))
    }

    /// Gives the lease up, so that the next replica need not wait for its end.
    pub async fn release(&self) {
        let released = async {
            let Some(mut lease) = self.leases.get_opt(&self.name).await? else { return Ok(()) };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() != Some(&self.holder) {
                return Ok(());
            }
            spec.holder_identity = None;
            self.leases.replace(&self.name, &PostParams::default(), &lease).await.map(drop)
        };
        match timeout(self.times.request, released).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "the Lease could not be given up; it ends by itself"),
            Err(_) => warn!("the Lease could not be given up in time; it ends by itself"),
        }
    }

    /// Takes or renews the lease if it is free or ours; whether it is ours now.
    async fn attempt(&self, now: Instant) -> Result<bool, kube::Error> {
        let lease = self.leases.get_opt(&self.name).await?;
        let written = match lease {
            None => {
                let metadata = ObjectMeta {
                    name: Some(self.name.clone()),
                    owner_references: self.owner.clone().map(|owner| vec![owner]),
                    ..ObjectMeta::default()
                };
                let lease = Lease { metadata, spec: Some(self.spec(None)) };
                self.leases.create(&PostParams::default(), &lease).await
            }
            Some(mut lease) => {
                let old = lease.spec.take().unwrap_or_default();
                if !self.may_take(&old, now) {
                    return Ok(false);
                }
                lease.spec = Some(self.spec(Some(&old)));
                // With the resourceVersion that was read: of two replicas that try, one fails.
                self.leases.replace(&self.name, &PostParams::default(), &lease).await
            }
        };
        match written {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the lease is free, ours, or has not been renewed while we watched for as long as it holds.
    fn may_take(&self, old: &LeaseSpec, now: Instant) -> bool {
        let mut observed = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
        let since = match &*observed {
            Some((seen, since)) if seen == old => *since,
            _ => {
                *observed = Some((old.clone(), now));
                now
            }
        };
        let Some(holder) = old.holder_identity.as_deref().filter(|holder| !holder.is_empty()) else { return true };
        let seconds = old.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let holds = seconds.map_or(self.times.duration, Duration::from_secs);
        holder == self.holder || now.saturating_duration_since(since) >= holds
    }

    fn spec(&self, old: Option<&LeaseSpec>) -> LeaseSpec {
        let now = Timestamp::now();
        let ours = old.filter(|old| old.holder_identity.as_deref() == Some(&self.holder));
        let transitions = old.and_then(|old| old.lease_transitions).unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.holder.clone()),
            lease_duration_seconds: i32::try_from(self.times.duration.as_secs()).ok(),
            acquire_time: ours.and_then(|ours| ours.acquire_time.clone()).or(Some(MicroTime(now))),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(if ours.is_some() { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::http::StatusCode;
    use serde_json::{Value, json};

    use super::*;
    use crate::mock;

    /// Two replicas and the Lease that they share.
    fn replicas() -> (Claim, Claim, Arc<Mutex<Value>>) {
        let stored = Arc::new(Mutex::new(Value::Null));
        let store = stored.clone();
        let (client, _) = mock::api(move |question, body| {
            let mut stored = store.lock().unwrap();
            if !body.is_null() {
                *stored = body;
            }
            if stored.is_null() && question.starts_with("GET") {
                return mock::refusal(StatusCode::NOT_FOUND);
            }
            (StatusCode::OK, stored.clone())
        });
        (claim(client.clone(), "a"), claim(client, "b"), stored)
    }

    fn claim(client: Client, holder: &str) -> Claim {
        Claim::new(client, "towline-system", "towline", holder, None)
    }

    #[tokio::test]
    async fn one_leads_until_it_stops_renewing() {
        let (a, b, stored) = replicas();
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        assert!(a.attempt(now).await.unwrap());
        assert!(!b.attempt(later(1)).await.unwrap());
        assert!(a.attempt(later(10)).await.unwrap());
        assert!(!b.attempt(later(11)).await.unwrap());
        assert!(!b.attempt(later(25)).await.unwrap());
        assert!(b.attempt(later(26)).await.unwrap());
        assert!(!a.attempt(later(27)).await.unwrap());
        assert_eq!(stored.lock().unwrap()["spec"]["leaseTransitions"], json!(2));
    }

    #[tokio::test]
    async fn a_wall_clock_that_is_wrong_takes_no_lease() {
        let (a, b, stored) = replicas();
        let now = Instant::now();
        assert!(a.attempt(now).await.unwrap());
        stored.lock().unwrap()["spec"]["renewTime"] = json!("2001-01-01T00:00:00.000000Z");
        assert!(!b.attempt(now).await.unwrap());
        assert!(!b.attempt(now + TIMES.duration - Duration::from_millis(1)).await.unwrap());
        assert!(b.attempt(now + TIMES.duration).await.unwrap());
    }

    #[tokio::test]
    async fn a_lease_that_is_given_up_is_free_at_once() {
        let (a, b, _) = replicas();
        let now = Instant::now();
        assert!(a.attempt(now).await.unwrap());
        b.release().await;
        assert!(!b.attempt(now).await.unwrap());
        a.release().await;
        assert!(b.attempt(now).await.unwrap());
    }

    #[tokio::test]
    async fn a_conflict_is_somebody_elses_lease() {
        let (client, _) = mock::api(|question, _| match question.starts_with("GET") {
            true => mock::refusal(StatusCode::NOT_FOUND),
            false => mock::refusal(StatusCode::CONFLICT),
        });
        assert!(!claim(client, "a").attempt(Instant::now()).await.unwrap());
    }

    #[tokio::test]
    async fn a_lease_is_renewed_until_another_replica_takes_it() {
        let (mut a, _, stored) = replicas();
        a.times.interval = Duration::from_millis(1);
        let began = a.acquire().await;
        let first = stored.lock().unwrap()["spec"]["renewTime"].clone();
        let rival = async {
            while stored.lock().unwrap()["spec"]["renewTime"] == first {
                tokio::task::yield_now().await;
            }
            stored.lock().unwrap()["spec"]["holderIdentity"] = json!("b");
        };
        tokio::join!(a.keep(began), rival);
        assert_eq!(stored.lock().unwrap()["spec"]["holderIdentity"], json!("b"));
    }

    #[tokio::test]
    async fn a_lease_that_cannot_be_renewed_is_lost_before_the_others_may_take_it() {
        const { assert!(TIMES.deadline.as_secs() < TIMES.duration.as_secs()) };
        let (client, asked) = mock::api(|_, _| mock::refusal(StatusCode::INTERNAL_SERVER_ERROR));
        let mut a = claim(client, "a");
        a.times = Times { deadline: Duration::from_millis(50), interval: Duration::from_millis(1), ..TIMES };
        a.keep(Instant::now()).await;
        assert!(!asked.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_api_server_that_does_not_answer_holds_the_leader_no_longer_than_its_deadline() {
        let (service, _silent) = tower_test::mock::pair::<
            axum::http::Request<kube::client::Body>,
            axum::http::Response<kube::client::Body>,
        >();
        let mut a = claim(Client::new(service, "default"), "a");
        a.times = Times { deadline: Duration::from_millis(50), interval: Duration::from_millis(1), ..TIMES };
        // The limit of one request would be four seconds.
        timeout(TIMES.request, a.keep(Instant::now())).await.expect("the leader waits for the API server");
    }

    #[tokio::test]
    async fn the_time_that_is_left_counts_from_the_sending_of_the_renewal() {
        let (claim, ..) = replicas();
        let sent = Instant::now();
        assert_eq!(claim.left(sent, sent), TIMES.deadline);
        assert_eq!(claim.left(sent, sent + Duration::from_secs(4)), Duration::from_secs(6));
        assert_eq!(claim.left(sent, sent + TIMES.deadline), Duration::ZERO);
    }
}
