//! What the process serves to its own pod: `/livez`, `/readyz`, `/startupz` and `/metrics` over HTTP, and the control socket of
//! `towline-tunnel status`.
//!
//! Each answer comes from the event loop itself; a loop that no longer turns fails the liveness probe. Whoever reaches the
//! ports cannot keep others from an answer: requests must come at once, and the newest connection drives out the oldest.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::{Snapshot, metrics};

/// The most connections at once, of each of the two sockets: kubelet, Prometheus and a person.
const MAX_CONNECTIONS: usize = 16;
/// How long the loop may take to answer; kubelet's own timeout is shorter.
const LOOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request may take to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// The longest time for one connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest request on the control socket.
const MAX_REQUEST: u64 = 256;
/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A question to the loop.
#[derive(Debug)]
pub struct Ask {
    answer: oneshot::Sender<Snapshot>,
    /// Whether the sessions of a server are wanted one by one: there may be thousands, and most questions come every few seconds.
    pub sessions: bool,
}

impl Ask {
    /// Answers.
    pub fn answer(self, snapshot: Snapshot) {
        // Whoever asked may have gone.
        drop(self.answer.send(snapshot));
    }
}

/// Asks the loop.
#[derive(Debug)]
pub struct Asker<T>(mpsc::Sender<T>);

impl<T> Clone for Asker<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: From<Ask> + Send + 'static> Asker<T> {
    /// Asks over the loop's own channel.
    pub fn new(sender: mpsc::Sender<T>) -> Self {
        Self(sender)
    }

    /// The state as the loop sees it; none when it does not answer.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        self.ask(false).await
    }

    /// The same with every session.
    async fn sessions(&self) -> Option<Snapshot> {
        self.ask(true).await
    }

    async fn ask(&self, sessions: bool) -> Option<Snapshot> {
        let (sender, answer) = oneshot::channel();
        let question = Ask { answer: sender, sessions };
        let ask = async {
            self.0.send(question.into()).await.ok()?;
            answer.await.ok()
        };
        tokio::time::timeout(LOOP_TIMEOUT, ask).await.ok().flatten()
    }
}

/// Serves HTTP for ever, one request a connection.
pub async fn serve_http<T: From<Ask> + Send + 'static>(listener: TcpListener, asker: Asker<T>) {
    let handle = |stream: TcpStream| {
        let asker = asker.clone();
        async move {
            let service = service_fn(|request| answer(request, &asker));
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(REQUEST_TIMEOUT).keep_alive(false);
            http.serve_connection(TokioIo::new(stream), service).await.map_err(io::Error::other)
        }
    };
    serve(&listener, handle).await;
}

/// A socket that listens.
trait Listen {
    /// A connection.
    type Stream;

    /// What it is called in the log.
    const NAME: &str;

    /// Waits for a connection.
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listen for TcpListener {
    type Stream = TcpStream;

    const NAME: &str = "admin.listen";

    async fn next(&self) -> io::Result<TcpStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

impl Listen for UnixListener {
    type Stream = UnixStream;

    const NAME: &str = "admin.socket";

    async fn next(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

/// Serves connections for ever.
async fn serve<L: Listen, F>(listener: &L, handle: impl Fn(L::Stream) -> F)
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let mut running: VecDeque<AbortHandle> = VecDeque::with_capacity(MAX_CONNECTIONS);
    loop {
        let stream = match listener.next().await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, name = L::NAME, "connection cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        running.retain(|connection| !connection.is_finished());
        if running.len() >= MAX_CONNECTIONS
            && let Some(oldest) = running.pop_front()
        {
            oldest.abort();
        }
        let connection = tokio::time::timeout(CONNECTION_TIMEOUT, handle(stream));
        let task = tokio::spawn(async move {
            if let Ok(Err(error)) = connection.await {
                tracing::debug!(%error, "connection broke");
            }
        });
        running.push_back(task.abort_handle());
    }
}

async fn answer<T: From<Ask> + Send + 'static>(
    request: Request<Incoming>,
    asker: &Asker<T>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return Ok(text(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD"));
    }
    let path = request.uri().path();
    if !["/livez", "/readyz", "/startupz", "/metrics"].contains(&path) {
        return Ok(text(StatusCode::NOT_FOUND, "/livez, /readyz, /startupz or /metrics"));
    }
    let Some(snapshot) = asker.snapshot().await else {
        return Ok(text(StatusCode::SERVICE_UNAVAILABLE, "the event loop does not answer"));
    };
    let judge = |good: bool| if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok(match path {
        "/readyz" => text(judge(snapshot.report.is_ready()), cause(&snapshot)),
        "/startupz" => text(judge(snapshot.started), cause(&snapshot)),
        "/metrics" => match metrics::render(&snapshot) {
            Ok(metrics) => {
                let mut response = text(StatusCode::OK, metrics);
                let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        },
        _ => text(StatusCode::OK, "the event loop turns"),
    })
}

/// The layer that a person should look at.
fn cause(snapshot: &Snapshot) -> String {
    match snapshot.report.cause() {
        Some(layer) if !snapshot.report.is_ready() => format!("{:?} {}: {}", layer.layer, layer.reason, layer.message),
        _ => "ready".to_owned(),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}

/// Opens the control socket for its owner alone. One that a dead process left behind is removed.
///
/// # Errors
/// The system's, or that a process listens there.
pub fn open_control(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    if let Ok(data) = std::fs::symlink_metadata(path)
        && data.file_type().is_socket()
    {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process answers there"));
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves the control socket for ever.
pub async fn serve_control<T: From<Ask> + Send + 'static>(listener: UnixListener, asker: Asker<T>) {
    let handle = |stream| control(stream, asker.clone());
    serve(&listener, handle).await;
}

async fn control<T: From<Ask> + Send + 'static>(stream: UnixStream, asker: Asker<T>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut request = String::new();
    tokio::time::timeout(REQUEST_TIMEOUT, (&mut stream).take(MAX_REQUEST).read_line(&mut request)).await??;
    let mut answer = match request.trim_end() {
        "status" => match asker.snapshot().await {
            Some(snapshot) => serde_json::to_vec(&snapshot.report)?,
            None => br#"{"error":"the event loop does not answer"}"#.to_vec(),
        },
        "sessions" => match asker.sessions().await {
            Some(snapshot) => serde_json::to_vec(&snapshot.server.map(|server| server.sessions).unwrap_or_default())?,
            None => br#"{"error":"the event loop does not answer"}"#.to_vec(),
        },
        _ => br#"{"error":"the requests are: status, sessions"}"#.to_vec(),
    };
    answer.push(b'\n');
    stream.write_all(&answer).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::scratch::Scratch;
    use crate::report::{Layer, Reason, Report, State};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A loop that answers with what `snapshot` makes.
    fn asker(snapshot: impl Fn() -> Snapshot + Send + 'static) -> Asker<Ask> {
        let (sender, mut asks) = mpsc::channel::<Ask>(4);
        tokio::spawn(async move {
            while let Some(ask) = asks.recv().await {
                ask.answer(snapshot());
            }
        });
        Asker::new(sender)
    }

    async fn get(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn probes_tell_the_state_and_its_cause() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asker = asker(|| {
            let mut snapshot = Snapshot::of(Report::new("1".to_owned()));
            snapshot.started = true;
            snapshot.report.set(Layer::Ike, State::Down, Reason::AuthenticationFailed, "check the key psk");
            snapshot
        });
        tokio::spawn(serve_http(listener, asker));
        assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/startupz").await.starts_with("HTTP/1.1 200"));
        let ready = get(address, "/readyz").await;
        assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
        assert!(ready.ends_with("Ike AuthenticationFailed: check the key psk"), "{ready}");
        let metrics = get(address, "/metrics").await;
        assert!(metrics.contains("vpn_tunnel_up 0") && metrics.contains("openmetrics-text"), "{metrics}");
        assert!(get(address, "/secrets").await.starts_with("HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn connections_that_say_nothing_keep_nobody_from_an_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve_http(listener, asker(|| Snapshot::of(Report::new("1".to_owned())))));
        let mut idle = Vec::new();
        for _ in 0..2 * MAX_CONNECTIONS {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn the_newest_connection_drives_out_the_oldest() {
        struct Open(usize, mpsc::UnboundedSender<usize>);
        impl Drop for Open {
            fn drop(&mut self) {
                self.1.send(self.0).unwrap_or_default();
            }
        }
        let folder = Scratch::new();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let (ended, mut ends) = mpsc::unbounded_channel();
        let next = AtomicUsize::new(0);
        tokio::spawn(async move {
            serve(&listener, |stream| {
                let open = Open(next.fetch_add(1, Ordering::Relaxed), ended.clone());
                async move {
                    let _held = (stream, open);
                    std::future::pending().await
                }
            })
            .await;
        });
        let began = tokio::time::Instant::now();
        let mut clients = Vec::new();
        for _ in 0..MAX_CONNECTIONS + 2 {
            clients.push(UnixStream::connect(&path).await.unwrap());
        }
        assert_eq!([ends.recv().await, ends.recv().await], [Some(0), Some(1)]);
        assert!(began.elapsed() < CONNECTION_TIMEOUT && ends.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_connection_serves_one_request() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        tokio::spawn(serve_http(listener, asker(|| Snapshot::of(Report::new("1".to_owned())))));
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2).as_slice()).await.unwrap();
        let mut answer = Vec::new();
        // The second request, which nobody has read, makes the end a reset.
        stream.read_to_end(&mut answer).await.unwrap_or_default();
        let answer = String::from_utf8(answer).unwrap();
        assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_does_not_come_ends_the_connection() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let asker = asker(|| Snapshot::of(Report::new("1".to_owned())));
        let began = tokio::time::Instant::now();
        assert_eq!(control(server, asker).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() < 2 * REQUEST_TIMEOUT);
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_stands_still_is_not_alive() {
        let (sender, _asks) = mpsc::channel::<Ask>(4);
        assert!(Asker::new(sender).snapshot().await.is_none());
    }

    #[tokio::test]
    async fn the_control_socket_answers_its_owner_only() {
        let scratch = Scratch::new();
        let path = scratch.path().join("run").join("control.sock");
        drop(open_control(&path).unwrap());
        assert!(path.exists());
        let listener = open_control(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(open_control(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        tokio::spawn(serve_control(listener, asker(|| Snapshot::of(Report::new("7".to_owned())))));
        for (request, expected) in [("status\n", "\"revision\":\"7\""), ("quit\n", "the requests are")] {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.contains(expected), "{answer}");
        }
    }
}
