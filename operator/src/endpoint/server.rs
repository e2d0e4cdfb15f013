//! An HTTPS server with a bound on its connections, which takes the certificate of the hour for each.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::tls::Certificate;

/// Within this, a TLS handshake is done.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Within this, the first request's headers have arrived: who connects has something to ask.
pub const FIRST_REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// An idle connection is closed after this. It is longer than the 90 seconds after which API servers close theirs, so that
/// no AdmissionReview is sent into a connection that we are closing.
const IDLE_LIMIT: Duration = Duration::from_secs(100);
/// How long connections have for their last answer when the process ends.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A server before it begins.
pub struct Server {
    /// Where it listens.
    pub listener: TcpListener,
    /// What it shows.
    pub certificate: watch::Receiver<Certificate>,
    /// What it answers.
    pub router: Router,
    /// Connections at once; more wait in the listener's queue.
    pub max_connections: usize,
    /// Within this, the first request of a connection has come: [`FIRST_REQUEST_LIMIT`].
    pub first_request: Duration,
}

impl Server {
    /// Serves until `shutdown`; then lets requests under way end.
    pub async fn serve(self, shutdown: CancellationToken) {
        let places = Arc::new(Semaphore::new(self.max_connections));
        loop {
            let accepted = async {
                // The semaphore is never closed.
                let place = places.clone().acquire_owned().await.ok()?;
                Some((place, self.listener.accept().await))
            };
            let (place, stream) = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = accepted => match accepted {
                    Some((place, Ok((stream, _)))) => (place, stream),
                    Some((_, Err(error))) => {
                        // Out of descriptors, for instance: the next one may be accepted.
                        warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                    None => break,
                },
            };
            let acceptor = TlsAcceptor::from(self.certificate.borrow().server.clone());
            let (router, first_request, shutdown) = (self.router.clone(), self.first_request, shutdown.clone());
            tokio::spawn(async move {
                if let Some(stream) = shake_hands(stream, acceptor, &shutdown).await {
                    converse(stream, router, first_request, shutdown).await;
                }
                drop(place);
            });
        }
        // Every place back means that all connections are done.
        let all = u32::try_from(self.max_connections).unwrap_or(u32::MAX);
        if timeout(DRAIN_LIMIT, places.acquire_many(all)).await.is_err() {
            debug!("some connections were still open at the end");
        }
    }
}

async fn shake_hands(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    shutdown: &CancellationToken,
) -> Option<TlsStream<TcpStream>> {
    tokio::select! {
        accepted = timeout(HANDSHAKE_LIMIT, acceptor.accept(stream)) => accepted.ok()?.ok(),
        () = shutdown.cancelled() => None,
    }
}

/// One connection from its first request to its end.
async fn converse(stream: TlsStream<TcpStream>, router: Router, first_request: Duration, shutdown: CancellationToken) {
    let asked = Arc::new(Notify::new());
    let first = asked.clone();
    let routed = TowerToHyperService::new(router);
    let service = service_fn(move |request| {
        asked.notify_one();
        routed.call(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(IDLE_LIMIT);
    let mut serving = pin!(http.serve_connection(TokioIo::new(stream), service));
    let silent = async {
        if timeout(first_request, first.notified()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = silent => return debug!("a connection asked nothing"),
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            timeout(DRAIN_LIMIT, serving).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection ended");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::routing::post;
    use rustls::pki_types::ServerName;
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::{tls, verify};

    const HOST: &str = "towline-reports.towline-system.svc";

    /// A server for `max_connections` that waits `first_request`; its address and its authority.
    async fn server(max_connections: usize, first_request: Duration) -> (String, String) {
        let certificate = tls::tests::certificate(HOST);
        let bundle = certificate.ca_bundle.clone();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let certificate = watch::channel(certificate).1;
        let router = Router::new().route("/", post(async || "answered"));
        let server = Server { listener, certificate, router, max_connections, first_request };
        tokio::spawn(server.serve(CancellationToken::new()));
        (address, bundle)
    }

    #[tokio::test]
    async fn a_connection_that_asks_nothing_is_closed_and_gives_its_place_to_the_next() {
        let (address, bundle) = server(1, Duration::from_millis(20)).await;
        let connector = TlsConnector::from(Arc::new(tls::trusting(&bundle).unwrap()));
        let stream = TcpStream::connect(&address).await.unwrap();
        let idle = connector.connect(ServerName::try_from(HOST).unwrap(), stream).await.unwrap();
        let answer = verify::post(&address, HOST, &bundle, "/", &[], axum::body::Bytes::new()).await.unwrap();
        assert_eq!(answer.1, "answered");
        drop(idle);
    }
}
