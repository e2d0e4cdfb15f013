//! The sockets of [`crate::radius`]: one task that speaks with RADIUS servers, follows their names and secrets, and hears their
//! requests.
//!
//! Nobody waits for it: what it is to do is handed over, and what comes of it arrives as an [`Event`] among the owner's messages.

mod servers;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::aaa;
use crate::config::server::Radius as Config;
use crate::radius::packet::MAX_PACKET;
use crate::radius::{
    self, Account, Client, Datagram, Dropped, SessionInfo, Settings, Standing, Statistics, TerminateCause, Traffic,
};
use crate::report::{Layer, LayerReport, Reason, State};
use servers::{Resolved, Watcher};

/// The most commands that wait for the task: two for each of the most sessions.
const COMMANDS: usize = 131_072;
/// How long records are waited for at the end.
const DRAIN: Duration = Duration::from_secs(3);
/// How long a socket that cannot be opened is let be.
const REOPEN: Duration = Duration::from_secs(30);

/// What comes of all that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// What the client has to say.
    Client(radius::Event),
    /// Whether servers answer, for the report; said once the names are resolved and whenever it changes.
    Layer(LayerReport),
}

/// The task cannot take any more for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too much waits for RADIUS servers")]
pub struct Busy;

/// What the task is to do.
enum Command {
    Authenticate { key: u64, request: aaa::Request, session: SessionInfo },
    Forget { key: u64 },
    Start { key: u64, account: Account },
    Update { key: u64, traffic: Traffic },
    Stop { key: u64, traffic: Traffic, cause: TerminateCause },
    Disconnected { token: u64, found: bool },
    Configure(Box<Config>),
    End,
}

/// The task; it ends when this is dropped. `key` is everywhere that of a session, and of no other while the process lives.
pub struct Radius {
    commands: mpsc::Sender<Command>,
    statistics: Arc<Mutex<Statistics>>,
    task: JoinHandle<()>,
}

impl Radius {
    /// Begins to speak with the servers of a configuration; its events go to the owner's messages.
    ///
    /// # Errors
    /// The system's, when it has no sockets.
    pub fn start<T>(config: Config, rng: StdRng, events: mpsc::Sender<T>) -> io::Result<Self>
    where
        T: From<Event> + Send + 'static,
    {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let statistics = Arc::new(Mutex::new(Statistics::default()));
        let socket = Socket::open()?;
        let task = Task {
            commands: receiver,
            events,
            statistics: Arc::clone(&statistics),
            socket,
            requests: Requests::default(),
            layer: None,
        };
        Ok(Self { commands, statistics, task: tokio::spawn(task.run(config, rng)) })
    }

    /// Asks the servers; the answer is [`radius::Event::Answered`].
    ///
    /// # Errors
    /// When too much waits: the session is to be refused.
    pub fn authenticate(&self, key: u64, request: aaa::Request, session: SessionInfo) -> Result<(), Busy> {
        self.command(Command::Authenticate { key, request, session })
    }

    /// A session that asked is no more.
    ///
    /// # Errors
    /// When too much waits: the answer comes all the same.
    pub fn forget(&self, key: u64) -> Result<(), Busy> {
        self.command(Command::Forget { key })
    }

    /// A session begins: it is accounted.
    ///
    /// # Errors
    /// When too much waits: the session is not accounted.
    pub fn account(&self, key: u64, account: Account) -> Result<(), Busy> {
        self.command(Command::Start { key, account })
    }

    /// The answer to [`radius::Event::InterimDue`].
    ///
    /// # Errors
    /// When too much waits: this update is left out.
    pub fn update(&self, key: u64, traffic: Traffic) -> Result<(), Busy> {
        self.command(Command::Update { key, traffic })
    }

    /// A session that is accounted is over.
    ///
    /// # Errors
    /// When too much waits: no server will know.
    pub fn stop(&self, key: u64, traffic: Traffic, cause: TerminateCause) -> Result<(), Busy> {
        self.command(Command::Stop { key, traffic, cause })
    }

    /// The answer to [`radius::Event::Disconnect`]: whether a session was there, and is over.
    ///
    /// # Errors
    /// When too much waits: the server gets no answer.
    pub fn disconnected(&self, token: u64, found: bool) -> Result<(), Busy> {
        self.command(Command::Disconnected { token, found })
    }

    /// Takes another configuration.
    ///
    /// # Errors
    /// When too much waits: the one before stays.
    pub fn reconfigure(&self, config: Config) -> Result<(), Busy> {
        self.command(Command::Configure(Box::new(config)))
    }

    /// What was counted.
    pub fn statistics(&self) -> Statistics {
        self.statistics.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends, once servers have every record, or after three seconds.
    pub async fn end(mut self) {
        if self.command(Command::End).is_ok() && timeout(DRAIN, &mut self.task).await.is_err() {
            tracing::warn!("RADIUS servers have not taken every record of accounting");
        }
    }

    fn command(&self, command: Command) -> Result<(), Busy> {
        self.commands.try_send(command).map_err(|_| Busy)
    }
}

impl Drop for Radius {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Task<T> {
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<T>,
    statistics: Arc<Mutex<Statistics>>,
    socket: Socket,
    requests: Requests,
    /// What was reported last.
    layer: Option<LayerReport>,
}

impl<T: From<Event>> Task<T> {
    async fn run(mut self, mut config: Config, rng: StdRng) {
        // Commands wait until the first names are resolved: a server without an address would be silent.
        let mut watcher = Watcher::start(config.clone());
        let Some(mut resolved) = watcher.next().await else { return };
        let mut client = Client::new(settings(&config, &resolved), unix(), rng);
        client.accounting_on(Instant::now(), unix());
        self.requests.open(config.disconnect);
        let mut answer = Box::new([0; MAX_PACKET]);
        let mut request = Box::new([0; MAX_PACKET]);
        let mut ends = false;
        loop {
            self.flush(&mut client, &resolved).await;
            if ends && client.is_accounted() {
                return;
            }
            let deadline = [client.poll_timeout(), self.requests.reopen_at()].into_iter().flatten().min();
            tokio::select! {
                command = self.commands.recv(), if !ends => match command {
                    None => return,
                    Some(Command::End) => {
                        client.accounting_off(Instant::now(), unix());
                        ends = true;
                    }
                    Some(Command::Configure(new)) => {
                        config = *new;
                        watcher = Watcher::start(config.clone());
                        self.requests.open(config.disconnect);
                    }
                    Some(command) => carry_out(&mut client, command),
                },
                Some(new) = watcher.next() => {
                    resolved = new;
                    client.configure(Instant::now(), settings(&config, &resolved));
                }
                received = self.socket.receive(&mut answer[..]) => {
                    if let Some((datagram, from)) = received {
                        client.handle_datagram(Instant::now(), from, datagram);
                    }
                }
                received = self.requests.receive(&mut request[..]) => {
                    if let Some((datagram, from)) = received {
                        client.handle_request(unix(), from, datagram);
                    }
                }
                () = sleep_until(deadline) => {
                    client.handle_timeout(Instant::now());
                    self.requests.reopen();
                }
            }
        }
    }

    /// Sends and says everything that there is.
    async fn flush(&mut self, client: &mut Client, resolved: &Resolved) {
        while let Some(datagram) = client.poll_transmit() {
            self.socket.send(datagram).await;
        }
        while let Some(datagram) = client.poll_answer() {
            self.requests.send(datagram).await;
        }
        while let Some(event) = client.poll_event() {
            self.say(Event::Client(event)).await;
        }
        let layer = layer(client, resolved, self.requests.problem());
        if self.layer.as_ref() != Some(&layer) {
            self.layer = Some(layer.clone());
            self.say(Event::Layer(layer)).await;
        }
        *self.statistics.lock().unwrap_or_else(PoisonError::into_inner) = client.statistics();
    }

    async fn say(&self, event: Event) {
        if self.events.send(event.into()).await.is_err() {
            tracing::debug!("nobody hears what RADIUS servers say");
        }
    }
}

fn carry_out(client: &mut Client, command: Command) {
    let (now, unix) = (Instant::now(), unix());
    match command {
        Command::Authenticate { key, request, session } => client.request(now, key, request, session),
        Command::Forget { key } => client.forget(now, key),
        Command::Start { key, account } => client.start(now, unix, key, account),
        Command::Update { key, traffic } => client.update(now, unix, key, traffic),
        Command::Stop { key, traffic, cause } => client.stop(now, unix, key, traffic, cause),
        Command::Disconnected { token, found } => client.disconnected(token, found),
        // They are the task's own.
        Command::Configure(_) | Command::End => {}
    }
}

fn settings(config: &Config, resolved: &Resolved) -> Settings {
    Settings {
        servers: resolved.servers(),
        timeout: Duration::from_secs(config.timeout_seconds.into()),
        tries: config.tries,
        interim: config.interim_seconds.map(|seconds| Duration::from_secs(seconds.into())),
        nas_identifier: config.nas_identifier.clone(),
    }
}

/// What is reported of the servers.
fn layer(client: &Client, resolved: &Resolved, problem: Option<&str>) -> LayerReport {
    let mut sentences: Vec<String> = Vec::new();
    let mut works = false;
    for (server, standing) in resolved.0.iter().zip(client.standings()) {
        match (&server.found, standing) {
            (Err(problem), _) => sentences.push(problem.clone()),
            (Ok(_), Standing::Unasked | Standing::Answers) => works = true,
            (Ok(_), Standing::Silent) => sentences.push(format!(
                "RADIUS server {} does not answer: look at its address, and whether it knows this client and its secret.",
                server.name
            )),
            (Ok(_), Standing::Unusable(Dropped::NoMessageAuthenticator)) => sentences.push(format!(
                "The answers of RADIUS server {} could be forged (CVE-2024-3596): have it send Message-Authenticator.",
                server.name
            )),
            (Ok(_), Standing::Unusable(_)) => sentences.push(format!(
                "The answers of RADIUS server {} do not fit the shared secret: look at it at both ends.",
                server.name
            )),
        }
    }
    let (state, reason, first) = if works {
        (State::Up, Reason::RadiusAnswers, "RADIUS servers are ready.")
    } else {
        (State::Down, Reason::RadiusSilent, "No RADIUS server answers.")
    };
    let sentences: Vec<&str> = [first].into_iter().chain(sentences.iter().map(String::as_str)).chain(problem).collect();
    LayerReport { layer: Layer::Radius, state, reason, message: sentences.join(" ") }
}

/// Seconds since the Unix epoch.
fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// A socket for both families where the host has IPv6.
struct Socket {
    socket: UdpSocket,
    is_ipv6: bool,
}

impl Socket {
    fn open() -> io::Result<Self> {
        let bind = |address: &str| -> io::Result<UdpSocket> {
            let socket = std::net::UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            UdpSocket::from_std(socket)
        };
        match bind("[::]:0") {
            Ok(socket) => Ok(Self { socket, is_ipv6: true }),
            Err(_) => Ok(Self { socket: bind("0.0.0.0:0")?, is_ipv6: false }),
        }
    }

    async fn send(&self, Datagram { to, octets }: Datagram) {
        let to = match to {
            SocketAddr::V4(to) if self.is_ipv6 => SocketAddr::new(to.ip().to_ipv6_mapped().into(), to.port()),
            to => to,
        };
        send(&self.socket, to, &octets).await;
    }

    async fn receive<'b>(&self, buffer: &'b mut [u8]) -> Option<(&'b [u8], SocketAddr)> {
        receive(&self.socket, buffer).await
    }
}

async fn send(socket: &UdpSocket, to: SocketAddr, octets: &[u8]) {
    // It is repeated like one that gets lost on its way.
    if let Err(error) = socket.send_to(octets, to).await {
        tracing::debug!(%error, %to, "RADIUS packet not sent");
    }
}

async fn receive<'b>(socket: &UdpSocket, buffer: &'b mut [u8]) -> Option<(&'b [u8], SocketAddr)> {
    match socket.recv_from(buffer).await {
        Ok((length, from)) => Some((buffer.get(..length).unwrap_or_default(), from)),
        Err(error) => {
            tracing::debug!(%error, "nothing received from RADIUS servers");
            None
        }
    }
}

/// Where requests of servers come in (RFC 5176).
#[derive(Default)]
struct Requests {
    address: Option<SocketAddr>,
    socket: Option<UdpSocket>,
    problem: Option<String>,
    reopen_at: Option<Instant>,
}

impl Requests {
    /// Listens at an address, or nowhere.
    fn open(&mut self, address: Option<SocketAddr>) {
        if self.address == address && self.socket.is_some() {
            return;
        }
        self.address = address;
        // An address is free only when its socket is closed.
        self.socket = None;
        self.problem = None;
        self.reopen_at = None;
        let Some(address) = address else { return };
        let opened = std::net::UdpSocket::bind(address).and_then(|socket| {
            socket.set_nonblocking(true)?;
            UdpSocket::from_std(socket)
        });
        match opened {
            Ok(socket) => self.socket = Some(socket),
            Err(error) => {
                self.problem =
                    Some(format!("Disconnect-Requests are not heard, because {address} cannot be used: {error}."));
                self.reopen_at = Some(Instant::now() + REOPEN);
            }
        }
    }

    fn reopen(&mut self) {
        if self.reopen_at.is_some_and(|at| at <= Instant::now()) {
            self.open(self.address);
        }
    }

    fn reopen_at(&self) -> Option<Instant> {
        self.reopen_at
    }

    fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    async fn send(&self, Datagram { to, octets }: Datagram) {
        if let Some(socket) = &self.socket {
            send(socket, to, &octets).await;
        }
    }

    async fn receive<'b>(&self, buffer: &'b mut [u8]) -> Option<(&'b [u8], SocketAddr)> {
        match &self.socket {
            Some(socket) => receive(socket, buffer).await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests;
