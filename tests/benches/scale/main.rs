//! How one server scales: IKE set-ups, memory of an idle tunnel, and CPU that keeps idle tunnels alive, each beside charon's.
//!
//! The server is the product's own static binary, in a namespace and with a processor of its own. All clients are state
//! machines of this process, in another namespace and on another processor: each has a source address of its own, and
//! what they say goes over UDP sockets, in real time. charon (strongSwan) gets the same clients with the same offers in
//! turn with Towline. CPU is what the kernel counts for the server's process. Nothing is judged: the figures are for people.
//!
//! Each server has two sockets, however many its peers are, so that no limit of the system has to be raised for them. Of
//! Towline's own limits only that of its sessions is, and that of sessions of one user.

mod client;
mod idle;
mod load;
mod meter;
mod network;
mod setup;
mod subject;
mod suite;
mod table;

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use towline_tests::netns;

use network::Network;
use subject::Kind;
use suite::Suite;

/// Phase 1 and phase 2 of the set-ups; the last is that of the idle peers.
const SUITES: [[&str; 2]; 2] = [["aes256-sha256-modp2048", "aes256-sha256"], ["aes256-sha256-ecp256", "aes256-sha256"]];

/// Measures how a server scales
#[derive(Parser)]
struct Arguments {
    /// Idle tunnels of Towline
    #[arg(long, default_value_t = 10_000)]
    tunnels: u32,
    /// Idle peers of charon, the control; none with 0
    #[arg(long, default_value_t = 1_000)]
    controls: u32,
    /// Seconds in which nothing but keepalives passes
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// IKE set-ups of each server in each round; none with 0
    #[arg(long, default_value_t = 1_000)]
    setups: u32,
    /// Rounds of set-ups
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(arguments.seconds > 0 && arguments.rounds > 0, "a second and a round at least");
    netns::sweep()?;
    let network = Network::new()?;
    println!("{}; {}", meter::machine()?, subject::charon_version()?);
    if !network.is_parallel() {
        println!("One processor: server and clients take it from each other.");
    }
    let [first, last] = SUITES.map(|[phase1, phase2]| Suite::new(phase1, phase2));
    let suites = [first?, last?];
    if arguments.setups > 0 {
        println!("\n## IKE set-ups (Main Mode and Quick Mode with a pre-shared key)");
        for suite in &suites {
            setup::report(&network, suite, arguments.setups, arguments.rounds)?;
        }
    }
    let [_, suite] = &suites;
    let time = Duration::from_secs(arguments.seconds);
    println!("\n## Idle peers ({suite}), {} s\n", arguments.seconds);
    println!(
        "A peer of Towline is a tunnel: an ISAKMP SA, a pair of ESP SAs, L2TP and PPP. One of charon is the SAs alone.\n"
    );
    let mut all = Vec::new();
    for (kind, peers) in [(Kind::Towline, arguments.tunnels), (Kind::Charon, arguments.controls)] {
        if peers > 0 {
            all.push(idle::measure(&network, kind, suite, peers, time)?);
        }
    }
    idle::report(&all);
    Ok(())
}
