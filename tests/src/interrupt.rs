//! What `cargo xtask` does when it is interrupted (SIGINT, SIGTERM): its children get the signal, what they left behind is
//! removed, and it ends.
//!
//! Only [`spawn`] and [`spawn_group`] start children, so that none is missed.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, exit};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// How long children may take to end before they are killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Status of a command that a signal ended, as a shell gives it: 128 and the number of the signal.
const SIGNALLED: i32 = 128;

/// What runs, by a number of its own: a pid, or negative that of a process group, as kill(2) takes them.
struct Running {
    /// The thread that cleans up after an interruption; no other may start anything any more.
    interrupted: Option<ThreadId>,
    next: u64,
    targets: BTreeMap<u64, i32>,
}

static RUNNING: Mutex<Running> = Mutex::new(Running { interrupted: None, next: 0, targets: BTreeMap::new() });

fn running() -> MutexGuard<'static, Running> {
    // Nothing panics with the lock held, and what it holds is valid at any time.
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps a child among those that an interruption ends.
#[derive(Debug)]
pub(crate) struct Registration(u64);

impl Drop for Registration {
    fn drop(&mut self) {
        running().targets.remove(&self.0);
    }
}

/// Starts a child in the caller's process group.
pub(crate) fn spawn(command: &mut Command) -> io::Result<(Child, Registration)> {
    register(command, 1)
}

/// Starts a child in a process group of its own, all of which an interruption ends.
pub(crate) fn spawn_group(command: &mut Command) -> io::Result<(Child, Registration)> {
    register(command.process_group(0), -1)
}

/// Starts under the lock: a child is either not started or known.
fn register(command: &mut Command, sign: i32) -> io::Result<(Child, Registration)> {
    let mut running = running();
    if running.interrupted.is_some_and(|thread| thread != thread::current().id()) {
        return Err(io::Error::from(io::ErrorKind::Interrupted));
    }
    let child = command.spawn()?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    let number = running.next;
    running.next += 1;
    running.targets.insert(number, sign * pid);
    Ok((child, Registration(number)))
}

/// From here on an interruption ends the children, calls `clean_up` and ends the program. (Signals are handled and not
/// blocked: children inherit what is blocked.)
pub fn handle(clean_up: fn() -> Result<()>) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build().context("cannot wait for signals")?;
    let (mut interrupt, mut terminate) = {
        let _context = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    thread::spawn(move || {
        let signal = runtime.block_on(poll_fn(|context| {
            if interrupt.poll_recv(context).is_ready() {
                return Poll::Ready(Signal::SIGINT);
            }
            terminate.poll_recv(context).map(|_| Signal::SIGTERM)
        }));
        eprintln!("{signal}: ending what runs, removing what it made");
        end_children();
        if let Err(error) = clean_up() {
            eprintln!("{error:#}");
        }
        exit(SIGNALLED + signal as i32)
    });
    Ok(())
}

/// Never returns once there was an interruption, which ends the program from another thread: what failed because its
/// children were ended is no result.
pub fn wait_if_interrupted() {
    while running().interrupted.is_some() {
        thread::park();
    }
}

fn end_children() {
    let targets: Vec<i32> = {
        let mut running = running();
        running.interrupted = Some(thread::current().id());
        running.targets.values().copied().collect()
    };
    let signal = |signal: Option<Signal>| {
        // A failure means that the target is gone.
        targets.iter().filter(|&&target| kill(Pid::from_raw(target), signal).is_ok()).count()
    };
    signal(Some(Signal::SIGTERM));
    let end = Instant::now() + PATIENCE;
    // A process that nobody has waited for yet counts, as does one that is in no hurry.
    while signal(None) > 0 && Instant::now() < end {
        thread::sleep(Duration::from_millis(50));
    }
    signal(Some(Signal::SIGKILL));
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs;

    use super::*;
    use crate::process::{Identity, Process};

    /// Set in the program that is interrupted, which is this test's own once more.
    const INTERRUPTED: &str = "TOWLINE_TEST_INTERRUPTED";

    #[test]
    fn an_interruption_ends_the_children_and_cleans_up() {
        let log = |name: &str| env::temp_dir().join(format!("towline-interrupt-{}-{name}", std::process::id()));
        if env::var_os(INTERRUPTED).is_some() {
            handle(|| {
                println!("cleaned up");
                Ok(())
            })
            .unwrap();
            let mut sleep = Command::new("sleep");
            sleep.arg("60");
            let mut sleep = Process::spawn(sleep, log("sleep")).unwrap();
            fs::remove_file(sleep.log()).unwrap();
            println!("child: {}", sleep.pid());
            sleep.wait(Duration::from_secs(60)).unwrap();
            wait_if_interrupted();
        }
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "interrupt::tests::an_interruption_ends_the_children_and_cleans_up", "--nocapture"]);
        command.env(INTERRUPTED, "1");
        let mut program = Process::spawn(command, log("program")).unwrap();
        let line = program.wait_for_line("child: ", Duration::from_secs(20)).unwrap();
        let child = Identity::of(line.rsplit(' ').next().unwrap().parse().unwrap()).unwrap();
        program.identity().signal(Signal::SIGTERM).unwrap();
        let status = program.wait(Duration::from_secs(20)).unwrap();
        let said = program.output().unwrap();
        assert_eq!(status.code(), Some(SIGNALLED + Signal::SIGTERM as i32), "{said}");
        assert!(said.contains("cleaned up") && !child.is_alive(), "{said}");
        fs::remove_file(program.log()).unwrap();
    }

    #[test]
    fn children_are_known_while_they_run() {
        let (mut child, registration) = spawn_group(Command::new("sleep").arg("60")).unwrap();
        let group = -i32::try_from(child.id()).unwrap();
        assert!(running().targets.values().any(|&target| target == group));
        kill(Pid::from_raw(group), Signal::SIGKILL).unwrap();
        child.wait().unwrap();
        drop(registration);
        assert!(!running().targets.values().any(|&target| target == group));
    }
}
