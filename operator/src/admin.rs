//! Health and metrics of the operator, over plain HTTP in the pod's network.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::metrics::Metrics;

/// The port of health and metrics.
pub const PORT: u16 = 8_080;

/// A controller that did not look for work for this long is stuck: it looks every few seconds.
const STUCK: Duration = Duration::from_secs(60);
/// What stands in the readiness while there is no certificate.
const CERTIFICATE: &str = "certificate";

/// What keeps a replica from its work, by part. Shared by all parts.
#[derive(Clone)]
pub struct Health(Arc<Mutex<Known>>);

struct Known {
    problems: BTreeMap<String, String>,
    /// When the controller last looked for work; none on a replica that does not lead.
    turned: Option<Instant>,
}

impl Default for Health {
    fn default() -> Self {
        let problems = [(CERTIFICATE.to_owned(), "there is no certificate yet; see the log".to_owned())].into();
        Self(Arc::new(Mutex::new(Known { problems, turned: None })))
    }
}

impl Health {
    fn state(&self) -> MutexGuard<'_, Known> {
        // Nothing in here panics between two changes that belong together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The HTTPS server has its certificate.
    pub fn certified(&self) {
        self.clear(CERTIFICATE);
    }

    /// A part cannot do its work, with the remedy.
    pub fn set(&self, part: &str, problem: String) {
        self.state().problems.insert(part.to_owned(), problem);
    }

    /// A part does its work.
    pub fn clear(&self, part: &str) {
        self.state().problems.remove(part);
    }

    /// The controller looks for work.
    pub fn turn(&self, now: Instant) {
        self.state().turned = Some(now);
    }

    fn problems(&self) -> Vec<String> {
        self.state().problems.values().cloned().collect()
    }

    fn is_stuck(&self, now: Instant) -> bool {
        self.state().turned.is_some_and(|turned| now.saturating_duration_since(turned) > STUCK)
    }
}

#[derive(Clone)]
struct Admin {
    metrics: Metrics,
    health: Health,
}

fn router(metrics: Metrics, health: Health) -> Router {
    Router::new()
        .route("/livez", get(liveness))
        .route("/readyz", get(readiness))
        .route("/metrics", get(exposition))
        .with_state(Admin { metrics, health })
}

/// Serves until `shutdown`.
pub async fn serve(listener: TcpListener, metrics: Metrics, health: Health, shutdown: CancellationToken) {
    let served = axum::serve(listener, router(metrics, health)).with_graceful_shutdown(shutdown.cancelled_owned());
    if let Err(error) = served.await {
        warn!(%error, "health and metrics are not served any more");
    }
}

async fn liveness(State(admin): State<Admin>) -> Response {
    if admin.health.is_stuck(Instant::now()) {
        return (StatusCode::SERVICE_UNAVAILABLE, "the controller has not looked for work for a minute")
            .into_response();
    }
    "the operator answers".into_response()
}

async fn readiness(State(admin): State<Admin>) -> Response {
    let problems = admin.health.problems();
    if problems.is_empty() {
        return "the webhook and reports are served".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, problems.join("\n")).into_response()
}

async fn exposition(State(admin): State<Admin>) -> Response {
    match admin.metrics.render() {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admin() -> Admin {
        Admin { metrics: Metrics::default(), health: Health::default() }
    }

    #[tokio::test]
    async fn a_replica_is_ready_with_its_certificate_while_nothing_must_be_repaired() {
        let admin = admin();
        assert_eq!(readiness(State(admin.clone())).await.status(), StatusCode::SERVICE_UNAVAILABLE);
        admin.health.certified();
        assert_eq!(readiness(State(admin.clone())).await.status(), StatusCode::OK);
        admin.health.set("vpntunnels", "install the definitions".to_owned());
        let response = readiness(State(admin.clone())).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let text = axum::body::to_bytes(response.into_body(), 1_000).await.unwrap();
        assert_eq!(text, "install the definitions");
        admin.health.clear("vpntunnels");
        assert_eq!(readiness(State(admin)).await.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn a_controller_that_stopped_looking_for_work_is_not_alive() {
        let admin = admin();
        assert_eq!(liveness(State(admin.clone())).await.status(), StatusCode::OK);
        let now = Instant::now();
        admin.health.turn(now);
        assert!(!admin.health.is_stuck(now + STUCK));
        assert!(admin.health.is_stuck(now + STUCK + Duration::from_millis(1)));
        assert_eq!(exposition(State(admin)).await.status(), StatusCode::OK);
    }
}
