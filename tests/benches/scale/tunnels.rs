//! Idle tunnels: set up one after another, then left alone.

use std::fs;
use std::io::{BufReader, BufWriter};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use towline_tests::process::resident_memory;

use crate::clients::Turn;
use crate::host::{Datagram, Host};

/// Tunnels that are set up before memory is compared: code and tables are there then.
const FIRST: u32 = 100;
/// Tunnels that dial at once.
const GROUP: u32 = 100;
/// The step of virtual time.
const STEP: Duration = Duration::from_millis(10);
/// After the last set-up, before keepalives are counted.
const REST: Duration = Duration::from_secs(60);

/// The server and the process of its clients.
struct World {
    began: Instant,
    now: Duration,
    host: Host,
    child: Child,
    input: BufWriter<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// How many clients there are to be, and are up.
    clients: u32,
    up: u32,
    due: Duration,
}

pub(crate) fn measure(count: u32, users: u32, minutes: u32) -> Result<()> {
    ensure!(count > FIRST && minutes > 0, "more than {FIRST} tunnels and one minute at least");
    let mut world = World::new(count, users)?;
    world.dial(FIRST)?;
    let (memory, cpu) = (own_memory()?, world.host.cpu);
    let began = Instant::now();
    while world.clients < count {
        world.dial((world.clients + GROUP).min(count))?;
    }
    let (took, cpu) = (began.elapsed(), world.host.cpu.saturating_sub(cpu));
    let (set_up, grown) = (count - FIRST, own_memory()?.saturating_sub(memory));
    println!("{count} tunnels of {users} users ({}), in one server:", world.host.agreement());
    let each = cpu.as_secs_f64() / f64::from(set_up);
    println!(
        "  set-up of a whole tunnel (IKE, ESP, L2TP, PPP): {:.2} ms of the server's CPU = {:.0} in a second of one core",
        each * 1_000.0,
        1.0 / each
    );
    println!(
        "    with the clients on the same machine: {:.0} in a second of real time",
        f64::from(set_up) / took.as_secs_f64()
    );
    println!(
        "  memory of an idle tunnel: {:.1} KiB resident ({} KiB more with {set_up} more)",
        grown as f64 / f64::from(set_up),
        grown
    );
    world.run(REST)?;
    let (sent, received, cpu) = (world.host.sent, world.host.received, world.host.cpu);
    world.run(Duration::from_secs(60) * minutes)?;
    let cpu = world.host.cpu.saturating_sub(cpu).as_secs_f64() / f64::from(minutes);
    let rate = |now: u64, before: u64| (now - before) as f64 / f64::from(minutes) / f64::from(count);
    println!("  keepalives: {cpu:.3} s of the server's CPU in a minute = {:.2} % of one core", cpu / 60.0 * 100.0);
    println!(
        "    {:.1} datagrams in and {:.1} out in a minute of a tunnel, {:.1} µs for each that comes in",
        rate(world.host.received, received),
        rate(world.host.sent, sent),
        cpu * 1e6 / (rate(world.host.received, received) * f64::from(count)),
    );
    ensure!(
        world.up == count && world.host.sessions == count,
        "{} and {} of {count} are up",
        world.up,
        world.host.sessions
    );
    println!("  resident at the end: {} KiB", own_memory()?);
    world.end()
}

fn own_memory() -> Result<u64> {
    resident_memory(&fs::read_to_string("/proc/self/status")?).context("no VmRSS")
}

impl World {
    fn new(count: u32, users: u32) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--clients", &users.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start the clients")?;
        let input = BufWriter::new(child.stdin.take().context("no input")?);
        let output = BufReader::new(child.stdout.take().context("no output")?);
        let began = Instant::now();
        let host = Host::new(began, count, users, 2, |_| {})?;
        Ok(Self { began, now: Duration::ZERO, host, child, input, output, clients: 0, up: 0, due: Duration::MAX })
    }

    /// Has so many clients in all, and waits until they are up.
    fn dial(&mut self, clients: u32) -> Result<()> {
        self.clients = clients;
        self.settle()?;
        let limit = self.now + Duration::from_secs(60);
        while (self.up, self.host.sessions) != (clients, clients) {
            ensure!(self.now < limit, "only {} of {clients} clients are up", self.up);
            self.run(STEP * 10)?;
        }
        // So that they do not all speak at the same time later.
        self.run(STEP * 20)
    }

    /// Lets time pass.
    fn run(&mut self, time: Duration) -> Result<()> {
        let end = self.now + time;
        while self.now < end {
            let server = self.host.poll_timeout().map(|due| due.saturating_duration_since(self.began));
            let due = server.unwrap_or(Duration::MAX).min(self.due).max(self.now + STEP);
            self.now = due.min(end);
            self.settle()?;
        }
        Ok(())
    }

    /// Carries datagrams until there are none.
    fn settle(&mut self) -> Result<()> {
        let now = self.began + self.now;
        let mut datagrams: Vec<Datagram> = self.host.deliver(now, Vec::new())?;
        loop {
            let time = u64::try_from(self.now.as_nanos())?;
            Turn { time, clients: self.clients, datagrams }.write(&mut self.input)?;
            let turn = Turn::read(&mut self.output)?.context("the clients have ended")?;
            (self.up, self.due) = (turn.clients, Duration::from_nanos(turn.time));
            if turn.datagrams.is_empty() {
                return Ok(());
            }
            datagrams = self.host.deliver(now, turn.datagrams)?;
        }
    }

    fn end(self) -> Result<()> {
        let Self { mut child, input, .. } = self;
        drop(input);
        ensure!(child.wait()?.success(), "the clients failed");
        Ok(())
    }
}
