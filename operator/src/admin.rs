//! Health and metrics of the operator, over plain HTTP in the pod's network.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::metrics::Metrics;

/// The port of health and metrics.
pub const PORT: u16 = 8_080;

#[derive(Clone)]
struct Admin {
    metrics: Metrics,
    ready: watch::Receiver<bool>,
}

fn router(metrics: Metrics, ready: watch::Receiver<bool>) -> Router {
    Router::new()
        .route("/livez", get(async || "the operator answers"))
        .route("/readyz", get(readiness))
        .route("/metrics", get(exposition))
        .with_state(Admin { metrics, ready })
}

/// Serves until `shutdown`. `ready` is whether the HTTPS server has its certificate.
pub async fn serve(listener: TcpListener, metrics: Metrics, ready: watch::Receiver<bool>, shutdown: CancellationToken) {
    let served = axum::serve(listener, router(metrics, ready)).with_graceful_shutdown(shutdown.cancelled_owned());
    if let Err(error) = served.await {
        warn!(%error, "health and metrics are not served any more");
    }
}

async fn readiness(State(admin): State<Admin>) -> Response {
    if *admin.ready.borrow() {
        "the webhook and reports are served".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "there is no certificate yet; see the log").into_response()
    }
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
    use crate::reports::Reports;

    #[tokio::test]
    async fn a_replica_is_ready_when_it_has_its_certificate() {
        let (sender, ready) = watch::channel(false);
        let admin = Admin { metrics: Metrics::new(Reports::default()), ready };
        assert_eq!(readiness(State(admin.clone())).await.status(), StatusCode::SERVICE_UNAVAILABLE);
        sender.send_replace(true);
        assert_eq!(readiness(State(admin.clone())).await.status(), StatusCode::OK);
        assert_eq!(exposition(State(admin)).await.status(), StatusCode::OK);
    }
}
