//! `cargo xtask cluster`.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use nix::sys::signal::Signal;

use super::{Cluster, Component, DEFAULT, node};
use crate::{image, interrupt, package, tool};

/// Arguments of `cargo xtask cluster`.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Build the programs and images of clusters (ten minutes the first time, nothing later)
    Build,
    /// Start a cluster, unless it is up
    Up {
        /// Name of the cluster and of its node
        #[arg(default_value = DEFAULT.0)]
        name: String,
        /// Address of the node on the bridge of all clusters
        #[arg(long, default_value_t = DEFAULT.1)]
        address: Ipv4Addr,
    },
    /// End a cluster and remove everything that belongs to it
    Down {
        /// Name of the cluster
        #[arg(default_value = DEFAULT.0)]
        name: String,
        /// Every cluster of this workspace
        #[arg(long, conflicts_with = "name")]
        all: bool,
    },
    /// Show the clusters of this workspace
    Status,
    /// Import images (docker-archive or oci-archive) into a cluster
    Load {
        /// Name of the cluster
        name: String,
        /// The archives
        #[arg(required = true)]
        archives: Vec<PathBuf>,
    },
    /// Run a command on a cluster's network, with kubectl, helm and the kubeconfig at hand: `exec dev -- kubectl get pods`
    Exec {
        /// Name of the cluster
        name: String,
        /// The command; without one, a shell
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Send a signal to a component: STOP and CONT suspend it, after KILL it starts again in a second
    Signal {
        /// Name of the cluster
        name: String,
        /// The component
        component: Component,
        /// The signal, as STOP
        #[arg(value_parser = signal)]
        signal: Signal,
    },
    /// First process of a node (not for people)
    #[command(hide = true)]
    Node {
        /// The cluster's folder
        state: PathBuf,
    },
}

impl Arguments {
    /// Does what was asked.
    pub fn run(self) -> Result<()> {
        match self.action {
            Action::Build => {
                interrupt::handle(|| Ok(()))?;
                package::install(super::PACKAGES)?;
                tool::build()?;
                image::system()?;
                image::app()?;
                println!("programs and images are in {}", tool::folder().display());
                Ok(())
            }
            Action::Up { name, address } => {
                // What is half made is removed by the next start.
                interrupt::handle(|| Ok(()))?;
                let cluster = Cluster::up(&name, address)?;
                cluster.load_image(&image::app()?)?;
                println!("image {} is loaded", image::APP);
                println!("try: cargo xtask cluster exec {name} -- kubectl get pods --all-namespaces");
                Ok(())
            }
            Action::Down { all: true, .. } => Cluster::all()?.into_iter().try_for_each(down),
            Action::Down { name, all: false } => match Cluster::open(&name)? {
                Some(cluster) => down(cluster),
                None => {
                    println!("there is no cluster {name}");
                    Ok(())
                }
            },
            Action::Status => status(),
            Action::Load { name, archives } => {
                let cluster = existing(&name)?;
                archives.iter().try_for_each(|archive| cluster.load_image(archive))
            }
            Action::Exec { name, command } => {
                let shell = [std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned())];
                let words = if command.is_empty() { shell.as_slice() } else { command.as_slice() };
                let [program, arguments @ ..] = words else { bail!("no command") };
                let status = pass_through(existing(&name)?.exec(program)?.args(arguments))?;
                // The caller sees the command's own verdict.
                std::process::exit(status.code().unwrap_or(1))
            }
            Action::Signal { name, component, signal } => existing(&name)?.signal(component, signal),
            Action::Node { state } => node::run(&state),
        }
    }
}

fn signal(name: &str) -> Result<Signal> {
    format!("SIG{}", name.to_uppercase().trim_start_matches("SIG")).parse().with_context(|| format!("no signal {name}"))
}

fn existing(name: &str) -> Result<Cluster> {
    Cluster::open(name)?
        .with_context(|| format!("there is no cluster {name}: start it with cargo xtask cluster up {name}"))
}

fn down(cluster: Cluster) -> Result<()> {
    let name = cluster.name().to_owned();
    cluster.down()?;
    println!("cluster {name} is down");
    Ok(())
}

fn status() -> Result<()> {
    let clusters = Cluster::all()?;
    if clusters.is_empty() {
        println!("no cluster is up");
    }
    for cluster in clusters {
        let state = if cluster.is_healthy() { "healthy" } else { "not healthy" };
        println!("{}  {state}  {}  KUBECONFIG={}", cluster.name(), cluster.address(), cluster.kubeconfig().display());
    }
    Ok(())
}

fn pass_through(command: &mut Command) -> Result<ExitStatus> {
    command.status().with_context(|| format!("cannot start {}", command.get_program().display()))
}
