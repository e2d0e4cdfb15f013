//! How one server scales: CPU of an IKE set-up beside that of strongSwan's charon, memory of an idle tunnel, and CPU that keeps
//! idle tunnels alive.
//!
//! The server is the state machine of the product, in this process and in virtual time; its clients are those of the product, in
//! a child process, so that the resident memory of this one is the server's. Sockets and the TUN device are not part of it.
//! CPU is that of the thread while it is inside the server. Nothing is judged: the figures are for people.

mod charon;
mod clients;
mod host;
mod setup;
mod tunnels;

use anyhow::Result;
use clap::Parser;

/// Measures how a server scales
#[derive(Parser)]
struct Arguments {
    /// Idle tunnels
    #[arg(long, default_value_t = 10_000)]
    tunnels: u32,
    /// Users that they share
    #[arg(long, default_value_t = 1_000)]
    users: u32,
    /// Minutes of virtual time in which nothing but keepalives passes
    #[arg(long, default_value_t = 10)]
    minutes: u32,
    /// IKE set-ups of each proposal
    #[arg(long, default_value_t = 300)]
    setups: u32,
    /// Be the process of the clients, of so many users
    #[arg(long, hide = true)]
    clients: Option<u32>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(users) = arguments.clients {
        return clients::run(users);
    }
    setup::measure(arguments.setups)?;
    tunnels::measure(arguments.tunnels, arguments.users, arguments.minutes)
}
