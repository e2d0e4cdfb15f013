//! The clients, in a process of their own: it takes the time and datagrams from its input and answers with datagrams and with
//! when it is due.

use std::collections::BTreeSet;
use std::io::{BufReader, BufWriter, Read, Write, stdin, stdout};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;
use towline_tunnel::buffer::Port;
use towline_tunnel::config::{self, Config};
use towline_tunnel::ike;
use towline_tunnel::stack::{Credentials, Event, Path, Tunnel};
use zeroize::Zeroizing;

use crate::host::{Datagram, PSK, SERVER, password, ports, user};

/// The address that every client has by itself.
const INNER: [u8; 4] = [192, 168, 0, 2];

/// One exchange: what the server's process says, or the answer of the clients'.
pub(crate) struct Turn {
    /// Nanoseconds since the beginning: it is, or the clients are due; none is the end of time.
    pub(crate) time: u64,
    /// How many clients dial, or are up.
    pub(crate) clients: u32,
    pub(crate) datagrams: Vec<Datagram>,
}

impl Turn {
    pub(crate) fn write(&self, out: &mut impl Write) -> Result<()> {
        out.write_all(&self.time.to_be_bytes())?;
        out.write_all(&self.clients.to_be_bytes())?;
        out.write_all(&u32::try_from(self.datagrams.len())?.to_be_bytes())?;
        for Datagram { client, port, octets } in &self.datagrams {
            out.write_all(&client.to_be_bytes())?;
            out.write_all(&ports(*port).to_be_bytes())?;
            out.write_all(&u16::try_from(octets.len())?.to_be_bytes())?;
            out.write_all(octets)?;
        }
        Ok(out.flush()?)
    }

    /// Reads one; none at the end of the input.
    pub(crate) fn read(input: &mut impl Read) -> Result<Option<Self>> {
        let mut time = [0; 8];
        match input.read_exact(&mut time) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let clients = u32::from_be_bytes(array(input)?);
        let count = u32::from_be_bytes(array(input)?);
        let datagrams = (0..count).map(|_| datagram(input)).collect::<Result<_>>()?;
        Ok(Some(Self { time: u64::from_be_bytes(time), clients, datagrams }))
    }
}

fn array<const N: usize>(input: &mut impl Read) -> Result<[u8; N]> {
    let mut octets = [0; N];
    input.read_exact(&mut octets)?;
    Ok(octets)
}

fn datagram(input: &mut impl Read) -> Result<Datagram> {
    let client = u32::from_be_bytes(array(input)?);
    let port = if u16::from_be_bytes(array(input)?) == ports(Port::Ike) { Port::Ike } else { Port::NatT };
    let mut octets = vec![0; usize::from(u16::from_be_bytes(array(input)?))];
    input.read_exact(&mut octets)?;
    Ok(Datagram { client, port, octets })
}

struct Client {
    tunnel: Tunnel,
    user: String,
    up: bool,
    due: Option<Instant>,
}

struct Clients {
    config: Config,
    credentials: std::sync::Arc<ike::Credentials>,
    users: u32,
    list: Vec<Client>,
    due: BTreeSet<(Instant, u32)>,
    up: u32,
    sent: Vec<Datagram>,
}

/// Runs until the input ends.
pub(crate) fn run(users: u32) -> Result<()> {
    let text = json!({
        "peers": [{"address": SERVER}],
        "credentials": {"preSharedKey": {"path": "psk"}, "username": {"path": "user"}, "password": {"path": "password"}},
    });
    let mut clients = Clients {
        config: config::parse(&text.to_string())?,
        credentials: ike::Credentials::pre_shared_key(Zeroizing::new(PSK.to_vec())),
        users,
        list: Vec::new(),
        due: BTreeSet::new(),
        up: 0,
        sent: Vec::new(),
    };
    let (mut input, mut output) = (BufReader::new(stdin().lock()), BufWriter::new(stdout().lock()));
    let began = Instant::now();
    while let Some(turn) = Turn::read(&mut input)? {
        let now = began + Duration::from_nanos(turn.time);
        clients.take(now, turn)?;
        let due = clients.due.first().map(|(due, _)| due.saturating_duration_since(began).as_nanos());
        let time = due.map_or(Ok(u64::MAX), u64::try_from)?;
        let datagrams = std::mem::take(&mut clients.sent);
        Turn { time, clients: clients.up, datagrams }.write(&mut output)?;
    }
    Ok(())
}

impl Clients {
    fn take(&mut self, now: Instant, turn: Turn) -> Result<()> {
        for number in u32::try_from(self.list.len())?..turn.clients {
            let mut seed = Zeroizing::new([7; 32]);
            seed[..4].copy_from_slice(&number.to_be_bytes());
            let mut tunnel = Tunnel::new(&self.config, seed);
            tunnel.start();
            self.list.push(Client { tunnel, user: user(number % self.users), up: false, due: None });
            self.drain(now, number)?;
        }
        for Datagram { client, port, mut octets } in turn.datagrams {
            let remote = (SERVER, ports(port)).into();
            let known = self.list.get_mut(client as usize).context("a datagram for nobody")?;
            known.tunnel.handle_datagram(now, port, remote, &mut octets);
            self.drain(now, client)?;
        }
        while let Some(&(due, client)) = self.due.first().filter(|(due, _)| *due <= now) {
            self.due.remove(&(due, client));
            let known = self.list.get_mut(client as usize).context("nobody is due")?;
            known.due = None;
            known.tunnel.handle_timeout(now);
            self.drain(now, client)?;
        }
        Ok(())
    }

    fn drain(&mut self, now: Instant, number: u32) -> Result<()> {
        let client = self.list.get_mut(number as usize).context("no client")?;
        while let Some(event) = client.tunnel.poll_event() {
            match event {
                Event::Dial { .. } => {
                    let path = Path {
                        credentials: Credentials {
                            ike: self.credentials.clone(),
                            username: Zeroizing::new(client.user.clone()),
                            password: Zeroizing::new(password(&client.user)),
                            tunnel_secret: None,
                            warnings: Vec::new(),
                        },
                        local: INNER.into(),
                        local_ike_port: 500,
                        local_nat_t_port: 4500,
                        remote: SERVER,
                        mtu: 1_500,
                    };
                    client.tunnel.handle_path(now, Ok(path));
                }
                Event::Up(_) if !client.up => (client.up, self.up) = (true, self.up + 1),
                Event::Down if client.up => (client.up, self.up) = (false, self.up - 1),
                _ => {}
            }
        }
        client.tunnel.packets().clear();
        while !client.tunnel.transmits().is_empty() {
            for run in client.tunnel.transmits().runs() {
                let Some(port) = run.socket.port() else { continue };
                let datagrams = run.octets.chunks(run.segment);
                let datagram = |octets: &[u8]| Datagram { client: number, port, octets: octets.to_vec() };
                self.sent.extend(datagrams.map(datagram));
            }
            client.tunnel.transmits().clear();
        }
        let due = client.tunnel.poll_timeout();
        if client.due != due {
            if let Some(old) = client.due {
                self.due.remove(&(old, number));
            }
            self.due.extend(due.map(|due| (due, number)));
            client.due = due;
        }
        Ok(())
    }
}
