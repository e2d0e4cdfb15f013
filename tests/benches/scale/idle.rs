//! Peers that are up and say nothing but that they live: their memory, and the CPU of their timers.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use towline_tunnel::config;

use crate::client::{Client, Dialler, Initiator};
use crate::load::Load;
use crate::meter::{Reading, Span};
use crate::network::{Network, SERVER};
use crate::subject::{Kind, key, user};
use crate::suite::Suite;
use crate::table;

/// Peers before those that count for memory: code and tables are there then.
const FIRST: u32 = 100;
/// Peers that are on their way up at a time.
const WINDOW: u32 = 16;
/// After the last is up, before keepalives are counted: each has had its first.
const REST: Duration = Duration::from_secs(25);

/// What a server takes for its peers.
pub(crate) struct Idle {
    kind: Kind,
    peers: u32,
    /// While they came up, without the first of them.
    raised: Span,
    /// While they were idle.
    kept: Span,
    /// Datagrams of the clients that their kernel did not take.
    refused: u64,
}

/// Peers of `kind`: whole tunnels of Towline, and IKE SAs with their pairs of ESP SAs of charon.
pub(crate) fn measure(network: &Network, kind: Kind, suite: &Suite, peers: u32, time: Duration) -> Result<Idle> {
    ensure!(peers > FIRST, "more than {FIRST} peers");
    let mut subject = kind.start(network, suite, peers)?;
    let mut load = Load::new(network, clients(kind, suite)?)?;
    load.raise(FIRST, WINDOW)?;
    let first = Reading::take(subject.pid())?;
    load.raise(peers, WINDOW).with_context(|| format!("idle peers of {}", kind.name()))?;
    let raised = first.until(&Reading::take(subject.pid())?);
    subject.confirm(peers, kind == Kind::Towline)?;
    load.keep(REST)?;
    let before = Reading::take(subject.pid())?;
    load.keep(time)?;
    let kept = before.until(&Reading::take(subject.pid())?);
    subject.confirm(peers, kind == Kind::Towline)?;
    subject.end()?;
    Ok(Idle { kind, peers, raised, kept, refused: load.datagrams().refused })
}

type Make = Box<dyn Fn(u32) -> Box<dyn Client>>;

fn clients(kind: Kind, suite: &Suite) -> Result<Make> {
    let (suite, key) = (*suite, key());
    if kind == Kind::Charon {
        return Ok(Box::new(move |number| Box::new(Initiator::new(number, &suite, &key))));
    }
    let text = json!({
        "peers": [{"address": SERVER}],
        "credentials": {"preSharedKey": {"path": "psk"}, "username": {"path": "user"}, "password": {"path": "password"}},
        "ike": {"proposals": [suite.phase1]},
        "esp": {"proposals": [suite.phase2]},
    });
    let config = config::parse(&text.to_string())?;
    Ok(Box::new(move |number| Box::new(Dialler::new(number, &config, &key, user(number)))))
}

/// Both, one below the other.
pub(crate) fn report(all: &[Idle]) {
    println!("The way up:\n");
    let [cpu, rate] = ["CPU of one, ms", "per second"];
    table::head(1, ["server", "peers", "memory of one, KiB", cpu, rate, "datagrams lost", "others' CPUs"]);
    for Idle { kind, peers, raised, refused, .. } in all {
        let (each, server) = (f64::from(peers - FIRST), raised.server.as_secs_f64());
        table::row([
            kind.name().to_owned(),
            peers.to_string(),
            format!("{:.1}", raised.memory as f64 / each),
            format!("{:.2}", server * 1_000.0 / each),
            format!("{:.0}", each / raised.real.as_secs_f64()),
            (raised.lost + refused).to_string(),
            format!("{:.2}", raised.others),
        ]);
    }
    println!("\nIdle, with datagrams of one peer in a minute:\n");
    let [cpu, each] = ["CPU", "CPU of one datagram in, µs"];
    table::head(1, ["server", cpu, each, "datagrams in", "datagrams out", "datagrams lost", "others' CPUs"]);
    for Idle { kind, peers, kept, .. } in all {
        let (real, server) = (kept.real.as_secs_f64(), kept.server.as_secs_f64());
        let per_minute = |count: u64| format!("{:.1}", count as f64 / f64::from(*peers) / real * 60.0);
        table::row([
            kind.name().to_owned(),
            format!("{:.2} %", server / real * 100.0),
            format!("{:.1}", server * 1e6 / kept.received as f64),
            per_minute(kept.received),
            per_minute(kept.sent),
            kept.lost.to_string(),
            format!("{:.2}", kept.others),
        ]);
    }
    if let [ours, control] = all {
        let cpu = ours.cpu() / control.cpu();
        println!(
            "\nTowline ÷ charon, by peer: memory {:.2}, CPU while idle {cpu:.2}",
            ours.memory() / control.memory()
        );
    }
}

impl Idle {
    /// KiB of one peer.
    fn memory(&self) -> f64 {
        self.raised.memory as f64 / f64::from(self.peers - FIRST)
    }

    /// Processors that one idle peer takes.
    fn cpu(&self) -> f64 {
        self.kept.server.as_secs_f64() / self.kept.real.as_secs_f64() / f64::from(self.peers)
    }
}
