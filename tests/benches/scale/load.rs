//! All clients: two UDP sockets that speak for every address of the clients' network, and a clock for their timers.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout_at;
use towline_tunnel::buffer::{Port, Run, Way};
use towline_tunnel::config::server::Listen;
use towline_tunnel::io::endpoint::ReceiveBuffer;
use towline_tunnel::io::listener::{Listener, Turn};

use crate::client::Client;
use crate::network::{Network, SERVER, address, client};

/// How long nothing may come up before it is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// What went over the clients' sockets.
#[derive(Clone, Copy, Default)]
pub(crate) struct Datagrams {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Not taken by the kernel.
    pub(crate) refused: u64,
}

struct Known {
    client: Box<dyn Client>,
    up: bool,
    due: Option<Instant>,
}

/// The clients of one server.
pub(crate) struct Load {
    make: Box<dyn Fn(u32) -> Box<dyn Client>>,
    clients: Vec<Known>,
    up: u32,
    /// Clients that were up and are not, each time. There must be none: what is measured would be something else.
    fallen: u64,
    due: BTreeSet<(Instant, u32)>,
    datagrams: Datagrams,
    buffer: ReceiveBuffer,
    listener: Listener,
    runtime: Runtime,
}

impl Load {
    /// None yet; `make` makes the client of a number.
    pub(crate) fn new(network: &Network, make: impl Fn(u32) -> Box<dyn Client> + 'static) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let [ike, nat_t] = [500, 4500].map(|port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
        let handle = runtime.handle();
        let listener = network.clients.inside(|| {
            let _guard = handle.enter();
            Listener::open(&Listen { ike, nat_t })
        })??;
        Ok(Self {
            make: Box::new(make),
            clients: Vec::new(),
            up: 0,
            fallen: 0,
            due: BTreeSet::new(),
            datagrams: Datagrams::default(),
            buffer: ReceiveBuffer::default(),
            listener,
            runtime,
        })
    }

    pub(crate) fn datagrams(&self) -> Datagrams {
        self.datagrams
    }

    /// Has so many clients in all, of which at most `window` are on their way up at a time, and waits until all are up.
    pub(crate) fn raise(&mut self, count: u32, window: u32) -> Result<()> {
        let mut progress = (self.up, Instant::now());
        while self.up < count {
            let known = self.clients.len() as u32;
            let more = window.saturating_sub(known - self.up).min(count - known);
            for number in known..known + more {
                let client = (self.make)(number);
                self.clients.push(Known { client, up: false, due: None });
                self.with(number, |now, client| client.begin(now))?;
            }
            self.turn(Instant::now() + PATIENCE)?;
            if self.up != progress.0 {
                progress = (self.up, Instant::now());
            }
            ensure!(progress.1.elapsed() < PATIENCE, "{} of {count} clients are up, and no more come up", self.up);
            ensure!(self.fallen == 0, "a client fell when {} of {count} were up", self.up);
        }
        Ok(())
    }

    /// Keeps them for some time.
    pub(crate) fn keep(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.turn(end)?;
        }
        ensure!(self.fallen == 0, "{} of {} clients fell", self.fallen, self.clients.len());
        Ok(())
    }

    /// Waits until there is something to do, until `end` at the latest, and does it.
    fn turn(&mut self, end: Instant) -> Result<()> {
        let due = self.due.first().map_or(end, |(due, _)| end.min(*due));
        if self.runtime.block_on(async { timeout_at(due.into(), self.listener.readable()).await }).is_ok() {
            self.receive()?;
        }
        let now = Instant::now();
        while let Some(&(due, number)) = self.due.first().filter(|(due, _)| *due <= now) {
            self.due.remove(&(due, number));
            self.clients.get_mut(number as usize).context("nobody is due")?.due = None;
            self.with(number, |now, client| client.handle_timeout(now))?;
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut turn = Turn::default();
        // Entered, because the sockets are the runtime's.
        let handle = self.runtime.handle().clone();
        let _guard = handle.enter();
        while let Some(received) = self.listener.receive(&mut turn, &mut buffer) {
            let (port, to) = (received.port, received.local.ip());
            let number = client(to).with_context(|| format!("a datagram for {to}"))?;
            for datagram in received.datagrams.batches().flatten() {
                self.datagrams.received += 1;
                self.with(number, |now, client| client.handle_datagram(now, port, datagram))?;
            }
        }
        self.buffer = buffer;
        Ok(())
    }

    /// Does something with a client and all that follows from it.
    fn with(&mut self, number: u32, act: impl FnOnce(Instant, &mut dyn Client)) -> Result<()> {
        let now = Instant::now();
        let known = self.clients.get_mut(number as usize).with_context(|| format!("no client {number}"))?;
        act(now, known.client.as_mut());
        let (datagrams, listener) = (&mut self.datagrams, &self.listener);
        let up = known.client.drain(now, &mut |port, octets| {
            let remote = (SERVER, if port == Port::Ike { 500 } else { 4500 }).into();
            let way = Way { local: Some(address(number)), remote };
            let sent = listener.send_run(&Run { socket: port, way, segment: octets.len(), octets });
            datagrams.sent += 1;
            datagrams.refused += sent.dropped;
        });
        match (known.up, up) {
            (false, true) => self.up += 1,
            (true, false) => (self.up, self.fallen) = (self.up - 1, self.fallen + 1),
            _ => {}
        }
        known.up = up;
        let due = known.client.poll_timeout();
        if known.due != due {
            if let Some(old) = known.due {
                self.due.remove(&(old, number));
            }
            self.due.extend(due.map(|due| (due, number)));
            known.due = due;
        }
        Ok(())
    }
}
