//! What a process of either role does around its loop: limits, the lock of its network namespace, the sockets of health, metrics
//! and control, and the last report.

use std::collections::BTreeMap;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use anyhow::Context;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rand::TryRng;
use rand::rngs::SysRng;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use super::admin::{self, Ask, Asker};
use super::routing;
use crate::config::Admin;

/// Messages to the loop that wait: more than all of its tasks can have under way.
pub(super) const MAX_MESSAGES: usize = 256;
/// How long the goodbyes may take after SIGTERM.
pub(super) const CLOSE_LIMIT: Duration = Duration::from_millis(1_800);
/// How long the last report may take after that.
const LAST_REPORT_LIMIT: Duration = Duration::from_millis(500);
/// Held by the process that routes in a network namespace: a name of an abstract Unix socket, which goes with its owner.
const ROUTING_LOCK: &[u8] = b"towline-tunnel routing";

/// A seed from the system's random numbers.
///
/// # Errors
/// The system's, when it gives none.
pub(super) fn seed() -> io::Result<Zeroizing<[u8; 32]>> {
    let mut seed = Zeroizing::new([0; 32]);
    SysRng.try_fill_bytes(seed.as_mut_slice()).map_err(io::Error::other)?;
    Ok(seed)
}

/// Allows as many open files as the system does: each relayed connection needs two.
pub(super) fn raise_file_limit() {
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// What the process that routes in this network namespace holds.
///
/// # Errors
/// When another one holds it.
pub(super) fn hold_routing_lock() -> anyhow::Result<UnixDatagram> {
    SocketAddr::from_abstract_name(ROUTING_LOCK).and_then(|name| UnixDatagram::bind_addr(&name)).context(
        "another towline-tunnel runs in this network namespace; give each one of its own (ip netns add, or a pod)",
    )
}

/// Opens the sockets of health, metrics and control, and serves them.
pub(super) async fn serve_admin<T: From<Ask> + Send + 'static>(
    config: &Admin,
    sender: &mpsc::Sender<T>,
) -> anyhow::Result<()> {
    let Admin { listen, socket } = config;
    let http = TcpListener::bind(listen).await.and_then(|http| routing::mark(&http).map(|()| http));
    let http = http.with_context(|| format!("admin.listen: cannot listen at {listen}"))?;
    let control = admin::open_control(socket);
    let control = control.with_context(|| format!("admin.socket: cannot listen at {}", socket.display()))?;
    let asker = Asker::new(sender.clone());
    tokio::spawn(admin::serve_http(http, asker.clone()));
    tokio::spawn(admin::serve_control(control, asker));
    Ok(())
}

/// Waits until the last report is posted; its sender is gone by now. The operator may be gone as well: what it does not hear
/// the silence tells it.
pub(super) async fn last_report(reporter: JoinHandle<()>) {
    if tokio::time::timeout(LAST_REPORT_LIMIT, reporter).await.is_err() {
        tracing::debug!("the last report could not be posted in time");
    }
}

/// Counts packets that the process itself drops.
pub(super) fn count(drops: &mut BTreeMap<&'static str, u64>, reason: &'static str, packets: u64) {
    let dropped = drops.entry(reason).or_default();
    *dropped = dropped.saturating_add(packets);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_files_may_be_open_as_the_system_allows() {
        raise_file_limit();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(soft, hard);
    }
}
