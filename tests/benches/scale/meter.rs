//! What a process takes, as the kernel counts it.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use towline_tests::process::proportional_memory;

/// Of `/proc/stat` on Linux: every architecture shows 100 in a second.
const TICK: Duration = Duration::from_millis(10);

/// The counters at one moment.
pub(crate) struct Reading {
    at: Instant,
    /// CPU of the server: all its threads, in the kernel as well.
    server: Duration,
    /// CPU of this thread, which is that of all clients.
    clients: Duration,
    /// CPU of the machine.
    machine: Duration,
    /// Proportional set size of the server in KiB.
    memory: u64,
    /// UDP datagrams that the server took, sent, and lost because its sockets were full.
    datagrams: [u64; 3],
}

/// What was taken between two moments.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub(crate) real: Duration,
    pub(crate) server: Duration,
    pub(crate) clients: Duration,
    /// Processors that others kept busy.
    pub(crate) others: f64,
    /// KiB by which the server grew.
    pub(crate) memory: u64,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) lost: u64,
}

impl Reading {
    pub(crate) fn take(pid: i32) -> Result<Self> {
        let proc = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
        };
        let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid)).context("the server has no clock")?;
        Ok(Self {
            memory: proportional_memory(&proc("smaps_rollup")?).context("no Pss")?,
            datagrams: udp(&proc("net/snmp")?).context("no counters of UDP")?,
            machine: busy(&fs::read_to_string("/proc/stat")?).context("no CPU in /proc/stat")?,
            server: clock_gettime(clock)?.into(),
            clients: clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into(),
            at: Instant::now(),
        })
    }

    /// What was taken since.
    pub(crate) fn until(&self, later: &Self) -> Span {
        let real = later.at.saturating_duration_since(self.at);
        let [server, clients, machine] = [
            later.server.saturating_sub(self.server),
            later.clients.saturating_sub(self.clients),
            later.machine.saturating_sub(self.machine),
        ];
        let counted = |index: usize| later.datagrams[index].saturating_sub(self.datagrams[index]);
        Span {
            real,
            server,
            clients,
            others: machine.saturating_sub(server + clients).as_secs_f64() / real.as_secs_f64(),
            memory: later.memory.saturating_sub(self.memory),
            received: counted(0),
            sent: counted(1),
            lost: counted(2),
        }
    }
}

/// Time that the processors were not idle.
fn busy(stat: &str) -> Option<Duration> {
    let mut fields = stat.lines().next()?.split_whitespace().skip(1).map(str::parse::<u32>);
    // user, nice, system, idle, iowait, irq, softirq, steal.
    let ticks: Vec<u32> = fields.by_ref().take(8).collect::<Result<_, _>>().ok()?;
    let all: u32 = ticks.iter().sum();
    Some(TICK * (all - ticks.get(3)? - ticks.get(4)?))
}

/// Of the text of `/proc/PID/net/snmp`: datagrams taken, sent, and lost for want of room.
fn udp(snmp: &str) -> Option<[u64; 3]> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let value = |wanted: &str| {
        let (_, value) = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == wanted)?;
        value.parse().ok()
    };
    Some([value("InDatagrams")?, value("OutDatagrams")?, value("RcvbufErrors")?])
}

/// A machine in one line.
pub(crate) fn machine() -> Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let models: Vec<&str> = cpus.lines().filter(|line| line.starts_with("model name")).collect();
    let model = models.first().and_then(|line| line.split_once(": ")).map_or("processor", |(_, model)| model);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!("{} x {model}, Linux {}", std::thread::available_parallelism()?, kernel.trim()))
}
