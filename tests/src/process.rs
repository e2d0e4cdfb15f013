//! Child processes that cannot be lost: each runs in a process group of its own, writes to a log file, is known by pid
//! and start time, and ends with its [`Process`], or with the harness when that is interrupted ([`crate::interrupt`]).

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::interrupt::{self, Registration};

/// Pause between two looks at a condition. Short enough not to be felt in a test, long enough to leave the CPU alone.
const POLL: Duration = Duration::from_millis(20);

/// Time between two lines that say that a long command still runs.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// A command that takes longer than this hangs; the longest one, a build of Kubernetes, takes five minutes on two cores.
const LONGEST: Duration = Duration::from_secs(3600);

/// Lines of a log that an error message quotes: enough for a cause and its context on one screen.
const QUOTED_LINES: usize = 20;

/// A process of this machine, told apart from a later one with the same pid by its start time.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// Process id in the PID namespace of the harness.
    pub pid: i32,
    /// Start time in clock ticks since the machine started (`/proc/PID/stat`, field 22).
    pub started: u64,
}

impl Identity {
    /// The process that has this pid now, unless it is gone or only waits to be reaped.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in field 2 may hold spaces and parentheses; what follows its last parenthesis does not.
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        if matches!(fields.next()?, "Z" | "X") {
            return None;
        }
        // Field 3 was the state; field 22 is the nineteenth of the rest.
        let started = fields.nth(18)?.parse().ok()?;
        Some(Self { pid, started })
    }

    /// Whether the very same process still runs.
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends a signal to the process; one that is gone is no error.
    pub fn signal(self, signal: Signal) -> Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot send {signal} to process {}", self.pid)),
        }
    }
}

/// A running child and everything that it starts without leaving its process group. Dropping it kills them.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    identity: Identity,
    log: PathBuf,
    _registration: Registration,
}

impl Process {
    /// Starts the command in a process group of its own, with no input and with both outputs in `log`, which holds nothing
    /// of an earlier process.
    pub fn spawn(mut command: Command, log: impl Into<PathBuf>) -> Result<Self> {
        let log = log.into();
        let name = words(&command);
        if let Some(folder) = log.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        // Emptied and then opened to append: children that share the log never write over each other.
        let file = File::create(&log).and_then(|_| File::options().append(true).open(&log));
        let file = file.with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        let (child, registration) =
            interrupt::spawn_group(&mut command).with_context(|| format!("cannot start {name}"))?;
        let pid = i32::try_from(child.id())?;
        // A child that has already ended is a zombie until it is waited for: its start time does not matter any more.
        let identity = Identity::of(pid).unwrap_or(Identity { pid, started: 0 });
        Ok(Self { name, child, identity, log, _registration: registration })
    }

    /// Process id, which is also the id of the process group.
    pub fn pid(&self) -> i32 {
        self.identity.pid
    }

    /// Pid and start time.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The file that both outputs go to.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// All that the process has written so far.
    pub fn output(&self) -> Result<String> {
        let bytes = fs::read(&self.log).with_context(|| format!("cannot read {}", self.log.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// How the process ended, or `None` while it runs.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for a complete line that contains `text` and returns it. Fails when the process ends first.
    pub fn wait_for_line(&mut self, text: &str, timeout: Duration) -> Result<String> {
        let end = Instant::now() + timeout;
        loop {
            // Asked before the log is read: what a process wrote before it ended is in the log.
            let ended = self.ended()?;
            let output = self.output()?;
            let complete = output.rsplit_once('\n').map_or("", |(lines, _)| lines);
            if let Some(line) = complete.lines().find(|line| line.contains(text)) {
                return Ok(line.to_owned());
            }
            if let Some(status) = ended {
                bail!("{} ended ({status}) before it wrote {text:?}:\n{}", self.name, tail(&output));
            }
            if Instant::now() >= end {
                bail!("{} did not write {text:?} within {timeout:?}:\n{}", self.name, tail(&output));
            }
            thread::sleep(POLL);
        }
    }

    /// Waits for the end of the process.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + timeout;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() >= end {
                bail!("{} did not end within {timeout:?}:\n{}", self.name, tail(&self.output()?));
            }
            thread::sleep(POLL);
        }
    }

    /// Waits for the end of a process that must end well; returns all that it has written.
    pub fn finish(mut self, timeout: Duration) -> Result<String> {
        let status = self.wait(timeout)?;
        let output = self.output()?;
        if !status.success() {
            bail!("{}: {status}\n{}", self.name, tail(&output));
        }
        Ok(output)
    }

    /// Sends a signal to the whole process group.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match killpg(Pid::from_raw(self.identity.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot send {signal} to {}", self.name)),
        }
    }

    /// Asks the process to end (TERM) and waits; dropping it afterwards kills what is left of its group.
    pub fn stop(mut self, timeout: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(timeout)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The group outlives its leader, and its id is not given to another while a member lives or the leader is not
        // reaped, which happens below.
        if let Err(error) = self.signal(Signal::SIGKILL) {
            eprintln!("{error:#}");
        }
        if let Err(error) = self.child.wait() {
            eprintln!("cannot reap {}: {error}", self.name);
        }
    }
}

/// Looks at a condition until it holds. `what` completes the sentence "timed out waiting for …".
pub fn wait_until(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    let end = Instant::now() + timeout;
    while !condition() {
        if Instant::now() >= end {
            bail!("timed out waiting for {what} ({timeout:?})");
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// Runs a command that may take minutes, with its output in `log`, and says every half minute that it still runs.
pub fn attend(what: &str, command: Command, log: impl Into<PathBuf>) -> Result<()> {
    let began = Instant::now();
    let mut heartbeat = HEARTBEAT;
    let mut process = Process::spawn(command, log)?;
    loop {
        if process.ended()?.is_some() {
            return process.finish(Duration::ZERO).map(drop);
        }
        if began.elapsed() >= heartbeat {
            println!("  {what}: {} s", began.elapsed().as_secs());
            heartbeat += HEARTBEAT;
        }
        if began.elapsed() >= LONGEST {
            bail!("{what} hangs; see {}", process.log().display());
        }
        thread::sleep(POLL);
    }
}

/// Runs a command to its end and returns its standard output. A failure quotes the command and what it said.
pub fn run(command: &mut Command) -> Result<String> {
    let name = words(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = match interrupt::spawn(command) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("{} is not installed", command.get_program().display())
        }
        started => {
            let (child, _registration) = started.with_context(|| format!("cannot start {name}"))?;
            child.wait_with_output().with_context(|| format!("cannot wait for {name}"))?
        }
    };
    if !output.status.success() {
        let said = [output.stderr, output.stdout].concat();
        bail!("{name}: {}\n{}", output.status, tail(&String::from_utf8_lossy(&said)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Resident memory in KiB, from the text of `/proc/PID/status`.
pub fn resident_memory(status: &str) -> Option<u64> {
    kibibytes(status, "VmRSS:")
}

/// Resident memory in KiB, of which what is shared counts by its share, from the text of `/proc/PID/smaps_rollup`.
pub fn proportional_memory(smaps_rollup: &str) -> Option<u64> {
    kibibytes(smaps_rollup, "Pss:")
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// The command as one line, for messages.
fn words(command: &Command) -> String {
    let program = command.get_program();
    let all = std::iter::once(program).chain(command.get_args());
    all.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// The last lines of a text.
fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines.get(lines.len().saturating_sub(QUOTED_LINES)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("towline-process-{}-{name}.log", std::process::id()))
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_dropped_process_takes_its_children_with_it() {
        let mut process = Process::spawn(shell("sleep 60 & echo child $!; wait"), log("drop")).unwrap();
        let line = process.wait_for_line("child", Duration::from_secs(5)).unwrap();
        let child = Identity::of(line.trim_start_matches("child ").parse().unwrap()).unwrap();
        let parent = process.identity();
        assert!(parent.is_alive());
        fs::remove_file(process.log()).unwrap();
        drop(process);
        assert!(!parent.is_alive());
        wait_until("the child's end", Duration::from_secs(5), || !child.is_alive()).unwrap();
    }

    #[test]
    fn waiting_for_a_line_fails_at_once_when_the_process_ends_and_quotes_its_output() {
        let mut process = Process::spawn(shell("echo the cause; exit 3"), log("end")).unwrap();
        let error = process.wait_for_line("never", Duration::from_secs(60)).unwrap_err().to_string();
        assert!(error.contains("the cause") && error.contains("exit status: 3"), "{error}");
        fs::remove_file(process.log()).unwrap();
    }

    #[test]
    fn a_log_holds_nothing_of_an_earlier_process_and_a_failure_is_not_a_good_end() {
        let path = log("twice");
        let mut first = Process::spawn(shell("echo first; exit 3"), &path).unwrap();
        first.wait(Duration::from_secs(5)).unwrap();
        let error = first.finish(Duration::from_secs(5)).unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("first"), "{error}");
        let second = Process::spawn(shell("echo second"), &path).unwrap();
        assert_eq!(second.finish(Duration::from_secs(5)).unwrap(), "second\n");
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn another_process_with_the_same_pid_is_not_the_recorded_one() {
        let own = Identity::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.is_alive());
        assert!(!Identity { started: own.started + 1, ..own }.is_alive());
    }

    #[test]
    fn the_memory_of_a_process_is_read_in_kibibytes() {
        let own = |name: &str| fs::read_to_string(Path::new("/proc/self").join(name)).unwrap();
        assert!(resident_memory(&own("status")).unwrap() > 100);
        assert_eq!(proportional_memory("00400000-7fff r-xp [rollup]\nRss:    300 kB\nPss:     200 kB\n"), Some(200));
        assert!(proportional_memory(&own("smaps_rollup")).unwrap() > 100);
        assert_eq!(proportional_memory("Pss_Dirty: 1 kB\n"), None);
    }

    #[test]
    fn a_failed_command_says_what_it_wrote() {
        let error = run(&mut shell("echo reason >&2; false")).unwrap_err().to_string();
        assert!(error.contains("reason"), "{error}");
        let error = run(&mut Command::new("towline-no-such-program")).unwrap_err().to_string();
        assert_eq!(error, "towline-no-such-program is not installed");
    }
}
