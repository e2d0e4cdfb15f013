//! Posts the report to the operator on each change and as a heartbeat. The tunnel goes on whether or not anybody listens.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::dial::{read_bounded, resolve};
use super::routing;
use super::standby::Existence;
use crate::config::ReportTo;
use crate::report::{Acknowledgement, Report};

/// The shortest time between two posts: a layer that comes up changes the report several times at once.
const GAP: Duration = Duration::from_millis(200);
/// The heartbeat until the operator asks for another.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// The bounds of what the operator may ask for, in seconds.
const HEARTBEAT_BOUNDS: (u32, u32) = (1, 300);
/// The first pause after a failure; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest time for one post, from the name to the answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest token; those of Kubernetes have some 1 200 octets.
const MAX_TOKEN: usize = 16 << 10;
/// The longest answer.
const MAX_ANSWER: usize = 64 << 10;

/// Posts until the sender of the reports is gone, and then once more if the last one differs from what was posted. Tells `hears`
/// when the operator does not know the tunnel any more, and when it does again.
pub async fn run<T: From<Existence>>(
    mut target: watch::Receiver<Option<ReportTo>>,
    mut reports: watch::Receiver<Report>,
    hears: mpsc::Sender<T>,
) {
    let mut existence = Existence::Exists;
    let mut heartbeat = HEARTBEAT;
    let mut pause = None;
    let mut last_error = String::new();
    let mut open = true;
    while open {
        let to = target.borrow_and_update().clone();
        let Some(to) = to else {
            tokio::select! {
                changed = target.changed() => open = changed.is_ok(),
                changed = reports.wait_for(|_| false) => open = changed.is_ok(),
            }
            continue;
        };
        let report = reports.borrow_and_update().clone();
        let answer = tokio::time::timeout(TIMEOUT, post(&to, &report)).await;
        let heard = match &answer {
            Ok(Ok(Answer::Gone)) => Existence::Gone,
            Ok(Ok(Answer::Taken(_))) => Existence::Exists,
            _ => existence,
        };
        if std::mem::replace(&mut existence, heard) != heard {
            // The loop may have ended meanwhile.
            drop(hears.send(heard.into()).await);
        }
        match answer {
            Ok(Ok(Answer::Gone)) => pause = Some(HEARTBEAT),
            Ok(Ok(Answer::Taken(acknowledgement))) => {
                let (least, most) = HEARTBEAT_BOUNDS;
                heartbeat = Duration::from_secs(acknowledgement.heartbeat_seconds.clamp(least, most).into());
                pause = None;
                if !std::mem::take(&mut last_error).is_empty() {
                    tracing::info!(url = to.url, "the operator takes reports again");
                }
            }
            failed => {
                let error = match failed {
                    Ok(Err(error)) => error,
                    _ => format!("no answer within {} s", TIMEOUT.as_secs()),
                };
                if error != last_error {
                    tracing::warn!(url = to.url, error, "report cannot be posted; the tunnel goes on without");
                    last_error = error;
                }
                pause = Some(pause.map_or(FIRST_PAUSE, |pause: Duration| LONGEST_PAUSE.min(pause * 2)));
            }
        }
        let now = Instant::now();
        tokio::select! {
            // After a failure the next report waits too: each attempt costs the operator a TLS handshake.
            () = tokio::time::sleep_until(now + pause.unwrap_or(heartbeat)) => {}
            changed = changed_after(&mut reports, now + pause.unwrap_or(GAP)) => open = changed,
            changed = target.changed() => open = changed.is_ok(),
        }
    }
    let to = target.borrow().clone();
    if let Some(to) = to
        && reports.has_changed().unwrap_or(true)
    {
        let report = reports.borrow_and_update().clone();
        if let Ok(Err(error)) = tokio::time::timeout(TIMEOUT, post(&to, &report)).await {
            tracing::debug!(error, "last report cannot be posted");
        }
    }
}

/// Waits for a change, and then until `earliest`; false when there will be no more.
async fn changed_after(reports: &mut watch::Receiver<Report>, earliest: Instant) -> bool {
    if reports.changed().await.is_err() {
        return false;
    }
    // The process may end during the pause; the last report is posted then without it.
    tokio::select! {
        () = tokio::time::sleep_until(earliest) => true,
        ended = reports.wait_for(|_| false) => ended.is_ok(),
    }
}

/// What the operator answers.
#[derive(Debug)]
enum Answer {
    Taken(Acknowledgement),
    /// It knows no such tunnel.
    Gone,
}

/// Posts over a connection of its own: the next report comes in seconds, and the operator has many pods.
async fn post(to: &ReportTo, report: &Report) -> Result<Answer, String> {
    let url: Uri = to.url.parse().map_err(|error| format!("{}: {error}", to.url))?;
    let host = url.host().ok_or_else(|| format!("{}: no host", to.url))?.to_owned();
    let path = to.token_file.clone();
    let token = tokio::task::spawn_blocking(move || read_bounded(&path, MAX_TOKEN)).await;
    let token = token.map_err(|error| error.to_string())?;
    let token = token.map_err(|error| format!("token {}: {error}", to.token_file.display()))?;
    let body = serde_json::to_vec(report).map_err(|error| error.to_string())?;

    let mut bearer = b"Bearer ".to_vec();
    bearer.extend_from_slice(token.trim_ascii());
    let authorization = header::HeaderValue::from_bytes(&bearer);
    zeroize::Zeroize::zeroize(&mut bearer);
    let mut authorization = authorization.map_err(|_| "the token is no token".to_owned())?;
    authorization.set_sensitive(true);
    let request = Request::post(url.path_and_query().map_or("/", |path| path.as_str()))
        .header(header::HOST, url.authority().map_or(host.as_str(), |authority| authority.as_str()))
        .header(header::AUTHORIZATION, authorization)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "close")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| error.to_string())?;

    let port = url.port_u16().unwrap_or(443);
    let mut connection = connect(&host, port, &to.ca_bundle).await?;
    let response = connection.send_request(request).await.map_err(|error| error.to_string())?;
    let status = response.status();
    let answer = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let answer = answer.map_err(|error| error.to_string())?.to_bytes();
    if status == StatusCode::GONE {
        return Ok(Answer::Gone);
    }
    if !status.is_success() {
        let text: String = String::from_utf8_lossy(&answer).chars().take(200).collect();
        return Err(format!("{status}: {}", text.trim()));
    }
    serde_json::from_slice(&answer).map(Answer::Taken).map_err(|error| format!("answer is not understood: {error}"))
}

async fn connect(host: &str, port: u16, ca_bundle: &str) -> Result<SendRequest<Full<Bytes>>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_bundle.as_bytes()) {
        let certificate = certificate.map_err(|error| format!("report.caBundle: {error}"))?;
        roots.add(certificate).map_err(|error| format!("report.caBundle: {error}"))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();

    // An IPv6 address stands in brackets in a URL.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).map_err(|error| format!("{host}: {error}"))?;
    let stream = dial(&resolve(host).await?, port).await.map_err(|error| format!("{host}:{port}: {error}"))?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    let stream = stream.map_err(|error| format!("{host}:{port}: {error}"))?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to the operator ended");
        }
    });
    Ok(sender)
}

/// Connects to the first of `addresses` that accepts, outside the tunnel.
async fn dial(addresses: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    let mut failure = io::ErrorKind::AddrNotAvailable.into();
    for &address in addresses {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        routing::mark(&socket)?;
        match socket.connect((address, port).into()).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::scratch::Scratch;
    use crate::report::{Layer, Reason, State};
    use hyper::Response;
    use hyper::service::service_fn;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use tokio::net::TcpListener;

    struct Operator {
        to: ReportTo,
        posts: mpsc::Receiver<(String, Report)>,
    }

    /// An operator that answers `status`, then acknowledgements.
    async fn operator(scratch: &Scratch, first: StatusCode) -> Operator {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, posts) = mpsc::channel(16);
        tokio::spawn(async move {
            let failed = Arc::new(std::sync::atomic::AtomicBool::new(first.is_success()));
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                let (sender, failed) = (sender.clone(), Arc::clone(&failed));
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let (sender, failed) = (sender.clone(), Arc::clone(&failed));
                    async move {
                        let token = request.headers()[header::AUTHORIZATION].to_str().unwrap().to_owned();
                        let line = format!("{} {} {token}", request.method(), request.uri());
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        sender.send((line, serde_json::from_slice(&body).unwrap())).await.unwrap();
                        let status =
                            if failed.swap(true, std::sync::atomic::Ordering::SeqCst) { StatusCode::OK } else { first };
                        let answer =
                            Response::builder().status(status).body(Full::new(Bytes::from("{\"heartbeatSeconds\":1}")));
                        answer.map_err(io::Error::other)
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        let to = ReportTo {
            url: format!("https://localhost:{port}/v1/report"),
            ca_bundle: authority.pem(),
            token_file: scratch.write("token", b"very.secret\n"),
        };
        Operator { to, posts }
    }

    #[tokio::test]
    async fn changes_and_heartbeats_are_posted_and_the_last_report_too() {
        let scratch = Scratch::new();
        let mut operator = operator(&scratch, StatusCode::OK).await;
        let (_target, to) = watch::channel(Some(operator.to.clone()));
        let (sender, reports) = watch::channel(Report::new("1".to_owned()));
        let task = tokio::spawn(run(to, reports, nobody()));
        let (line, report) = operator.posts.recv().await.unwrap();
        assert_eq!(line, "POST /v1/report Bearer very.secret");
        assert_eq!(report.revision, "1");

        let began = Instant::now();
        assert_eq!(operator.posts.recv().await.unwrap().1.revision, "1");
        assert!(began.elapsed() > Duration::from_millis(700) && began.elapsed() < Duration::from_secs(5));

        // Several changes at once are one post.
        for revision in ["2", "3", "4"] {
            sender.send_modify(|report| report.revision = revision.to_owned());
            tokio::task::yield_now().await;
        }
        assert_eq!(operator.posts.recv().await.unwrap().1.revision, "4");
        sender.send_modify(|report| {
            report.set(Layer::Ike, State::Down, Reason::Stopping, "the process ends");
        });
        drop(sender);
        let last = operator.posts.recv().await.unwrap().1;
        assert_eq!(last.layer(Layer::Ike).unwrap().reason, Reason::Stopping);
        task.await.unwrap();
    }

    /// Whom nothing is told.
    fn nobody() -> mpsc::Sender<Existence> {
        mpsc::channel(1).0
    }

    #[tokio::test]
    async fn a_tunnel_that_the_operator_does_not_know_is_told_and_its_return_too() {
        let scratch = Scratch::new();
        let mut operator = operator(&scratch, StatusCode::GONE).await;
        let (target, to) = watch::channel(Some(operator.to.clone()));
        let (_sender, reports) = watch::channel(Report::new("1".to_owned()));
        let (hears, mut heard) = mpsc::channel(4);
        tokio::spawn(run(to, reports, hears));
        operator.posts.recv().await.unwrap();
        assert_eq!(heard.recv().await, Some(Existence::Gone));
        // A change of the target is posted without the pause.
        target.send_replace(Some(operator.to.clone()));
        operator.posts.recv().await.unwrap();
        assert_eq!(heard.recv().await, Some(Existence::Exists));
    }

    #[tokio::test]
    async fn a_refused_report_is_posted_again() {
        let scratch = Scratch::new();
        let mut operator = operator(&scratch, StatusCode::SERVICE_UNAVAILABLE).await;
        let (_target, to) = watch::channel(Some(operator.to.clone()));
        let (_sender, reports) = watch::channel(Report::new("1".to_owned()));
        tokio::spawn(run(to, reports, nobody()));
        for _ in 0..2 {
            assert_eq!(operator.posts.recv().await.unwrap().1.revision, "1");
        }
    }

    #[tokio::test]
    async fn an_operator_that_cannot_prove_itself_gets_no_token() {
        let scratch = Scratch::new();
        let other = operator(&scratch, StatusCode::OK).await;
        let mut operator = operator(&scratch, StatusCode::OK).await;
        let to = ReportTo { ca_bundle: other.to.ca_bundle, ..operator.to.clone() };
        let error = post(&to, &Report::new(String::new())).await.unwrap_err();
        assert!(error.contains("certificate") && !error.contains("secret"), "{error}");
        assert!(operator.posts.try_recv().is_err());
    }
}
