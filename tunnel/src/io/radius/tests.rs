use std::net::Ipv4Addr;

use rand::SeedableRng;
use zeroize::Zeroizing;

use super::*;
use crate::aaa::{Cause, Proof, Verdict};
use crate::config::SecretFile;
use crate::config::server::RadiusServer;
use crate::io::scratch::Scratch;
use crate::radius::attribute::{Attribute, Code, StatusType};
use crate::radius::packet::{AUTHENTICATOR, Builder, Packet};

/// Longer than anything takes that the tests wait for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server on the loopback interface, and a task that speaks with it.
struct World {
    server: std::net::UdpSocket,
    accounting: std::net::UdpSocket,
    folder: Scratch,
    events: mpsc::Receiver<Event>,
    radius: Radius,
    config: Config,
}

fn socket() -> std::net::UdpSocket {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

fn port(socket: &std::net::UdpSocket) -> u16 {
    socket.local_addr().unwrap().port()
}

/// A port of the loopback interface that nobody has.
fn free_port() -> u16 {
    port(&socket())
}

impl World {
    fn new(address: &str, secret: Option<&[u8]>, disconnect: Option<SocketAddr>) -> Self {
        let (server, accounting, folder) = (socket(), socket(), Scratch::new());
        let path = folder.path().join("secret");
        if let Some(secret) = secret {
            folder.write("secret", secret);
        }
        let config = Config {
            servers: vec![RadiusServer {
                address: address.to_owned(),
                port: port(&server),
                accounting_port: port(&accounting),
                secret: SecretFile { path, source: Some("key secret of Secret radius".to_owned()) },
            }],
            timeout_seconds: 1,
            tries: 2,
            interim_seconds: None,
            disconnect,
            nas_identifier: "towline".to_owned(),
        };
        let (sender, events) = mpsc::channel(64);
        let radius = Radius::start(config.clone(), StdRng::from_seed([1; 32]), sender).unwrap();
        Self { server, accounting, folder, events, radius, config }
    }

    fn of_secret(secret: &[u8]) -> Self {
        Self::new("127.0.0.1", Some(secret), None)
    }

    fn authenticate(&self, key: u64) {
        let proof = Proof::Pap { password: Zeroizing::new(b"wonderland".to_vec()) };
        let request = aaa::Request { name: "alice".to_owned(), proof };
        self.radius.authenticate(key, request, info()).unwrap();
    }

    /// Answers everybody from here on.
    fn serve(&self, build: fn(u8) -> Builder, secret: &'static [u8]) -> JoinHandle<()> {
        let server = self.server.try_clone().unwrap();
        tokio::spawn(async move {
            loop {
                answer(&server, build, secret).await;
            }
        })
    }

    async fn event(&mut self) -> Event {
        timeout(PATIENCE, self.events.recv()).await.unwrap().unwrap()
    }

    async fn layer(&mut self) -> LayerReport {
        match self.event().await {
            Event::Layer(layer) => layer,
            other @ Event::Client(_) => panic!("{other:?}"),
        }
    }

    /// The next thing the client says.
    async fn said(&mut self) -> radius::Event {
        loop {
            if let Event::Client(event) = self.event().await {
                return event;
            }
        }
    }
}

fn info() -> SessionInfo {
    SessionInfo { port: 1, peer: "203.0.113.9".parse().unwrap(), local: "192.0.2.1".parse().unwrap(), mtu: 1_400 }
}

fn account() -> Account {
    Account {
        name: "alice".to_owned(),
        address: Ipv4Addr::new(10, 20, 5, 77),
        info: info(),
        class: Vec::new(),
        authentic: radius::Authentic::RADIUS,
        interim: None,
    }
}

fn accept(id: u8) -> Builder {
    Builder::signed(Code::ACCESS_ACCEPT, id)
}

fn accept_unsigned(id: u8) -> Builder {
    Builder::new(Code::ACCESS_ACCEPT, id)
}

fn recorded(id: u8) -> Builder {
    Builder::new(Code::ACCOUNTING_RESPONSE, id)
}

/// Answers the next datagram, and returns it.
async fn answer(socket: &std::net::UdpSocket, build: fn(u8) -> Builder, secret: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::from_std(socket.try_clone().unwrap()).unwrap();
    let mut buffer = [0; MAX_PACKET];
    let (length, from) = timeout(PATIENCE, socket.recv_from(&mut buffer)).await.unwrap().unwrap();
    let packet = Packet::parse(&buffer[..length]).unwrap();
    let octets = build(packet.id).finish(packet.authenticator, secret).unwrap();
    socket.send_to(&octets, from).await.unwrap();
    buffer[..length].to_vec()
}

fn status(octets: &[u8]) -> StatusType {
    StatusType(Packet::parse(octets).unwrap().number(Attribute::ACCT_STATUS_TYPE).unwrap().unwrap())
}

#[tokio::test]
async fn a_server_is_asked_and_its_answer_comes_back() {
    let mut world = World::of_secret(b"first secret\n");
    world.authenticate(7);
    answer(&world.server, accept, b"first secret").await;
    let said = world.said().await;
    assert!(matches!(said, radius::Event::Answered { key: 7, verdict: Verdict::Accept(_) }), "{said:?}");
    assert_eq!(world.radius.statistics().accepted, 1);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_reported() {
    let mut world = World::new("radius.invalid", Some(b"secret"), None);
    world.authenticate(7);
    let layer = world.layer().await;
    assert_eq!((layer.state, layer.reason), (State::Down, Reason::RadiusSilent));
    assert!(layer.message.contains("radius.invalid has no address"), "{}", layer.message);
    let said = world.said().await;
    let radius::Event::Answered { verdict: Verdict::Reject(refusal), .. } = said else { panic!("{said:?}") };
    assert_eq!(refusal.cause, Cause::RadiusSilent);
}

#[tokio::test]
async fn a_secret_is_followed_as_it_changes() {
    let mut world = World::new("127.0.0.1", None, None);
    let layer = world.layer().await;
    assert_eq!(layer.reason, Reason::RadiusSilent);
    assert!(layer.message.contains("key secret of Secret radius does not exist"), "{}", layer.message);
    for secret in [&b"first secret"[..], b"second secret"] {
        world.folder.write("secret", secret);
        let serving = world.serve(accept, secret);
        // It is silent for everybody who has another secret.
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < PATIENCE, "{:?}", world.radius.statistics());
            world.authenticate(7);
            if matches!(world.said().await, radius::Event::Answered { verdict: Verdict::Accept(_), .. }) {
                break;
            }
        }
        serving.abort();
        assert!(serving.await.is_err());
    }
}

#[tokio::test]
async fn a_silent_server_is_reported_until_it_answers() {
    let mut world = World::of_secret(b"secret");
    assert_eq!(world.layer().await.state, State::Up);
    world.authenticate(7);
    assert!(matches!(world.said().await, radius::Event::Answered { verdict: Verdict::Reject(_), .. }));
    let layer = world.layer().await;
    assert_eq!((layer.state, layer.reason), (State::Down, Reason::RadiusSilent));
    assert!(layer.message.contains("RADIUS server 127.0.0.1 does not answer"), "{}", layer.message);
    world.serve(accept, b"secret");
    world.authenticate(8);
    loop {
        if let Event::Layer(layer) = world.event().await {
            assert_eq!((layer.state, layer.reason), (State::Up, Reason::RadiusAnswers));
            break;
        }
    }
}

#[tokio::test]
async fn answers_that_cannot_be_used_are_reported_with_the_remedy() {
    for (build, secret, words) in [
        (accept as fn(u8) -> Builder, &b"guess"[..], "do not fit the shared secret"),
        (accept_unsigned, b"secret", "have it send Message-Authenticator"),
    ] {
        let mut world = World::of_secret(b"secret");
        assert_eq!(world.layer().await.state, State::Up);
        world.serve(build, secret);
        world.authenticate(7);
        world.said().await;
        let layer = world.layer().await;
        assert_eq!(layer.reason, Reason::RadiusSilent);
        assert!(layer.message.contains(words), "{}", layer.message);
    }
}

#[tokio::test]
async fn the_end_waits_for_the_records_of_sessions() {
    let world = World::of_secret(b"secret");
    world.radius.account(7, account()).unwrap();
    world.radius.stop(7, Traffic::default(), TerminateCause::ADMIN_REBOOT).unwrap();
    let accounting = world.accounting.try_clone().unwrap();
    let end = tokio::spawn(world.radius.end());
    let mut told = Vec::new();
    for _ in 0..4 {
        told.push(status(&answer(&accounting, recorded, b"secret").await));
    }
    timeout(PATIENCE, end).await.unwrap().unwrap();
    told.sort_unstable();
    let all = [StatusType::START, StatusType::STOP, StatusType::ACCOUNTING_ON, StatusType::ACCOUNTING_OFF];
    assert_eq!(told, all);
}

#[tokio::test]
async fn the_end_does_not_wait_for_a_server_that_is_silent() {
    let world = World::of_secret(b"secret");
    timeout(PATIENCE, world.radius.end()).await.unwrap();
}

#[tokio::test]
async fn a_server_can_end_a_session() {
    let at = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), free_port());
    let mut world = World::new("127.0.0.1", Some(b"secret"), Some(at));
    assert_eq!(world.layer().await.state, State::Up);
    let mut builder = Builder::signed(Code::DISCONNECT_REQUEST, 9);
    builder.push(Attribute::USER_NAME, b"alice");
    builder.push_number(Attribute::EVENT_TIMESTAMP, u32::try_from(unix()).unwrap());
    let request = builder.finish([0; AUTHENTICATOR], b"secret").unwrap();
    world.server.send_to(&request, at).unwrap();
    let said = world.said().await;
    let radius::Event::Disconnect(disconnect) = said else { panic!("{said:?}") };
    world.radius.disconnected(disconnect.token, true).unwrap();
    let socket = UdpSocket::from_std(world.server.try_clone().unwrap()).unwrap();
    let mut buffer = [0; MAX_PACKET];
    let (length, _) = timeout(PATIENCE, socket.recv_from(&mut buffer)).await.unwrap().unwrap();
    assert_eq!(Packet::parse(&buffer[..length]).unwrap().code, Code::DISCONNECT_ACK);
}

#[tokio::test]
async fn a_port_for_disconnect_requests_that_is_taken_is_reported() {
    let other = socket();
    let mut world = World::new("127.0.0.1", Some(b"secret"), Some(other.local_addr().unwrap()));
    let layer = world.layer().await;
    assert_eq!(layer.state, State::Up);
    assert!(layer.message.contains("Disconnect-Requests are not heard"), "{}", layer.message);
}

#[tokio::test]
async fn another_configuration_is_followed() {
    let mut world = World::of_secret(b"secret");
    let other = socket();
    world.config.servers[0].port = port(&other);
    world.radius.reconfigure(world.config.clone()).unwrap();
    // The one before is asked at first, until the names of the other are resolved.
    world.authenticate(7);
    answer(&other, accept, b"secret").await;
    assert!(matches!(world.said().await, radius::Event::Answered { verdict: Verdict::Accept(_), .. }));
}
