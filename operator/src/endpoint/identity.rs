//! Who sends a report: the pod that the API server issued the token to, by TokenReview.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::PostParams;
use kube::{Api, Client};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{API_LIMIT, AUDIENCE, Refusal};
use crate::metrics::Refused;

/// How long the answer to a TokenReview is remembered: for as long a token of a deleted pod is believed, save that its pod is
/// looked up for each report.
const TOKEN_MEMORY: Duration = Duration::from_secs(60);
/// How many tokens are remembered; beyond them each report costs a TokenReview.
const MAX_TOKENS: usize = 4_096;
/// TokenReviews at once: anybody in the cluster can cause one.
const MAX_REVIEWS: usize = 16;

pub(super) const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
pub(super) const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Who sent a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sender {
    /// Of the ServiceAccount, and so of the pod.
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) uid: String,
}

/// Finds senders by their tokens.
pub(super) struct Identities {
    client: Client,
    /// By the SHA-256 of the token, so that no token stays in memory.
    known: Mutex<BTreeMap<[u8; 32], (Sender, Instant)>>,
    reviews: Semaphore,
}

impl Identities {
    pub(super) fn new(client: Client) -> Self {
        Self { client, known: Mutex::default(), reviews: Semaphore::new(MAX_REVIEWS) }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<[u8; 32], (Sender, Instant)>> {
        // Each change of it is one call.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn identify(&self, token: &str) -> Result<Sender, Refusal> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let known = self.known().get(&digest).filter(|(_, until)| *until > Instant::now()).cloned();
        if let Some((sender, _)) = known {
            return Ok(sender);
        }
        // Waiting counts: a report that is not answered in time is sent again.
        let sender = sender(timeout(API_LIMIT, self.review(token)).await.map_err(|_| Refusal::late())??)?;
        let now = Instant::now();
        let mut known = self.known();
        known.retain(|_, (_, until)| *until > now);
        if known.len() < MAX_TOKENS {
            known.insert(digest, (sender.clone(), now + TOKEN_MEMORY));
        }
        Ok(sender)
    }

    async fn review(&self, token: &str) -> Result<TokenReviewStatus, Refusal> {
        // The semaphore is never closed.
        let Ok(_review) = self.reviews.acquire().await else { return Err(Refusal::late()) };
        let review = TokenReview {
            spec: TokenReviewSpec { token: token.to_owned(), audiences: Some(vec![AUDIENCE.to_owned()]) },
            ..TokenReview::default()
        };
        let reviews = Api::<TokenReview>::all(self.client.clone());
        let reviewed = reviews.create(&PostParams::default(), &review).await.map_err(Refusal::api)?;
        Ok(reviewed.status.unwrap_or_default())
    }
}

fn sender(status: TokenReviewStatus) -> Result<Sender, Refusal> {
    let audiences = status.audiences.unwrap_or_default();
    if status.authenticated != Some(true) || !audiences.iter().any(|audience| audience == AUDIENCE) {
        let text = "the token is not valid for this endpoint";
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, Refused::Unauthenticated, text));
    }
    let user = status.user.unwrap_or_default();
    let extra = user.extra.unwrap_or_default();
    let one = |key: &str| extra.get(key).and_then(|values| values.first()).cloned();
    let account = user.username.as_deref().and_then(|name| name.strip_prefix("system:serviceaccount:"));
    let (Some((namespace, _)), Some(pod), Some(uid)) =
        (account.and_then(|account| account.split_once(':')), one(POD_NAME), one(POD_UID))
    else {
        return Err(Refusal::new(StatusCode::FORBIDDEN, Refused::Forbidden, "the token is not bound to a pod"));
    };
    Ok(Sender { namespace: namespace.to_owned(), pod, uid })
}
