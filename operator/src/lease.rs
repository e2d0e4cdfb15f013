//! Leader election by a Lease: one replica reconciles and takes reports, the others answer the webhook and wait.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tracing::{debug, warn};

/// How long a lease holds without renewal.
const DURATION: Duration = Duration::from_secs(15);
/// How often it is renewed, and how often the others look.
const INTERVAL: Duration = Duration::from_secs(4);
/// How long one request may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(4);

/// The claim of one replica.
pub struct Claim {
    leases: Api<Lease>,
    name: String,
    holder: String,
    owner: Option<OwnerReference>,
}

impl Claim {
    /// The claim of `holder` on Lease `name`. A Lease that is made goes with `owner`.
    pub fn new(client: Client, namespace: &str, name: &str, holder: &str, owner: Option<OwnerReference>) -> Self {
        let leases = Api::namespaced(client, namespace);
        Self { leases, name: name.to_owned(), holder: holder.to_owned(), owner }
    }

    /// Waits until this replica leads.
    pub async fn acquire(&self) {
        loop {
            match self.attempt(Timestamp::now()).await {
                Ok(true) => return,
                Ok(false) => debug!("another replica leads"),
                Err(error) => warn!(%error, lease = self.name, "the Lease cannot be claimed; tried again"),
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Renews until the lease is lost: another holds it, or it could not be renewed for as long as it holds.
    pub async fn keep(&self) {
        let mut renewed = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(INTERVAL).await;
            match tokio::time::timeout(REQUEST_LIMIT, self.attempt(Timestamp::now())).await {
                Ok(Ok(true)) => renewed = tokio::time::Instant::now(),
                Ok(Ok(false)) => return warn!("another replica took the Lease"),
                Ok(Err(error)) => warn!(%error, "the Lease could not be renewed"),
                Err(_) => warn!("the Lease could not be renewed: the API server does not answer"),
            }
            // Before it ends for the others, whose clocks run as fast as ours.
            if renewed.elapsed() + INTERVAL >= DURATION {
                return;
            }
        }
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
        match tokio::time::timeout(REQUEST_LIMIT, released).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "the Lease could not be given up; it ends by itself"),
            Err(_) => warn!("the Lease could not be given up in time; it ends by itself"),
        }
    }

    /// Takes or renews the lease if it is free or ours; whether it is ours now.
    async fn attempt(&self, now: Timestamp) -> Result<bool, kube::Error> {
        let lease = self.leases.get_opt(&self.name).await?;
        let written = match lease {
            None => {
                let metadata = ObjectMeta {
                    name: Some(self.name.clone()),
                    owner_references: self.owner.clone().map(|owner| vec![owner]),
                    ..ObjectMeta::default()
                };
                let lease = Lease { metadata, spec: Some(self.spec(None, now)) };
                self.leases.create(&PostParams::default(), &lease).await
            }
            Some(mut lease) => {
                let old = lease.spec.take().unwrap_or_default();
                if !self.may_take(&old, now) {
                    return Ok(false);
                }
                lease.spec = Some(self.spec(Some(&old), now));
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

    fn may_take(&self, old: &LeaseSpec, now: Timestamp) -> bool {
        let Some(holder) = old.holder_identity.as_deref().filter(|holder| !holder.is_empty()) else { return true };
        let seconds = old.lease_duration_seconds.unwrap_or_default();
        let ends = old.renew_time.as_ref().map(|renewed| renewed.0 + SignedDuration::from_secs(seconds.into()));
        holder == self.holder || ends.is_none_or(|ends| ends <= now)
    }

    fn spec(&self, old: Option<&LeaseSpec>, now: Timestamp) -> LeaseSpec {
        let ours = old.filter(|old| old.holder_identity.as_deref() == Some(&self.holder));
        let transitions = old.and_then(|old| old.lease_transitions).unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.holder.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: ours.and_then(|ours| ours.acquire_time.clone()).or(Some(MicroTime(now))),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(if ours.is_some() { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

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
        let claim = |holder| Claim::new(client.clone(), "towline-system", "towline", holder, None);
        (claim("a"), claim("b"), stored)
    }

    #[tokio::test]
    async fn one_leads_until_it_stops_renewing() {
        let (a, b, stored) = replicas();
        let now = Timestamp::from_second(1_000_000).unwrap();
        let later = |seconds| now + SignedDuration::from_secs(seconds);
        assert!(a.attempt(now).await.unwrap());
        assert!(!b.attempt(later(1)).await.unwrap());
        assert!(a.attempt(later(10)).await.unwrap());
        assert!(!b.attempt(later(24)).await.unwrap());
        assert!(b.attempt(later(25)).await.unwrap());
        assert!(!a.attempt(later(26)).await.unwrap());
        assert_eq!(stored.lock().unwrap()["spec"]["leaseTransitions"], json!(2));
    }

    #[tokio::test]
    async fn a_lease_that_is_given_up_is_free_at_once() {
        let (a, b, _) = replicas();
        let now = Timestamp::now();
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
        let claim = Claim::new(client, "towline-system", "towline", "a", None);
        assert!(!claim.attempt(Timestamp::now()).await.unwrap());
    }
}
