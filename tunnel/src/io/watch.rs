//! Looks at the configuration and the secrets for changes.
//!
//! Files are read again and compared: kubelet replaces a symbolic link above them, which notifications about the files
//! themselves do not tell, and they are small.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::dial::{MAX_PEM, read_bounded};
use crate::config::server::Server;
use crate::config::{self, Config, InvalidConfig};
use crate::report::RejectedRevision;

/// How often the files are read.
const INTERVAL: Duration = Duration::from_secs(2);
/// The longest configuration; one with every list full is far below.
const MAX_CONFIG: usize = 1 << 20;

/// A configuration that is read from a file and names files with secrets.
pub trait Watched: Sized + Send + 'static {
    /// Reads and checks its text.
    ///
    /// # Errors
    /// Every field that is wrong.
    fn parse(text: &str) -> Result<Self, InvalidConfig>;

    /// The files with secrets.
    fn files(&self) -> Vec<PathBuf>;
}

impl Watched for Config {
    fn parse(text: &str) -> Result<Self, InvalidConfig> {
        config::parse(text)
    }

    fn files(&self) -> Vec<PathBuf> {
        let revocations = self.credentials.certificate.iter().filter_map(|own| own.revocations.as_ref());
        self.credentials.files().chain(revocations).map(|file| file.path.clone()).collect()
    }
}

impl Watched for Server {
    fn parse(text: &str) -> Result<Self, InvalidConfig> {
        config::parse_server(text)
    }

    fn files(&self) -> Vec<PathBuf> {
        let users = self.users.iter().filter_map(|user| user.password.as_ref());
        let radius = self.radius.iter().flat_map(|radius| radius.servers.iter().map(|server| &server.secret));
        let revocations = self.credentials.certificate.iter().filter_map(|own| own.revocations.as_ref());
        let all = self.credentials.files().chain(revocations).chain(users).chain(radius);
        all.map(|file| file.path.clone()).collect()
    }
}

/// What is different.
#[derive(Debug, PartialEq, Eq)]
pub enum Change<C> {
    /// The configuration.
    Config(Box<C>),
    /// The configuration, and it cannot be used.
    Rejected(RejectedRevision),
    /// A secret.
    Credentials,
}

/// The files as they were last seen.
pub struct Watcher {
    path: PathBuf,
    text: String,
    secrets: Vec<(PathBuf, Option<Zeroizing<Vec<u8>>>)>,
    readable: bool,
}

/// Reads the configuration's text.
///
/// # Errors
/// The system's, when it is not text, and when it is longer than a mebibyte.
pub fn read_config(path: &Path) -> std::io::Result<String> {
    let octets = read_bounded(path, MAX_CONFIG)?;
    String::from_utf8(octets.to_vec()).map_err(std::io::Error::other)
}

impl Watcher {
    /// Watches from a configuration on that was read as `text`.
    pub fn new(path: PathBuf, text: String, config: &impl Watched) -> Self {
        Self { path, text, secrets: secrets(config), readable: true }
    }

    /// Compares once.
    pub fn poll<C: Watched>(&mut self) -> Vec<Change<C>> {
        let mut changes = Vec::new();
        match read_config(&self.path) {
            Ok(text) if text != self.text => {
                changes.push(match C::parse(&text).map_err(|error| error.to_string()).and_then(within_reach) {
                    Ok(config) => {
                        self.follow(&config);
                        Change::Config(Box::new(config))
                    }
                    Err(message) => Change::Rejected(RejectedRevision { revision: revision(&text), message }),
                });
                self.text = text;
                self.readable = true;
            }
            Ok(_) => self.readable = true,
            Err(error) => {
                if self.readable {
                    tracing::warn!(%error, path = %self.path.display(), "configuration cannot be read; the last one stays");
                }
                self.readable = false;
            }
        }
        let mut changed = false;
        for (path, secret) in &mut self.secrets {
            let new = read_bounded(path, MAX_PEM).ok();
            if new != *secret {
                *secret = new;
                changed = true;
            }
        }
        if changed {
            changes.push(Change::Credentials);
        }
        changes
    }

    /// Watches the secrets of `config`; what is known of those that stay is kept.
    fn follow(&mut self, config: &impl Watched) {
        let known = std::mem::take(&mut self.secrets);
        let same = known.iter().map(|(path, _)| path).eq(config.files().iter());
        self.secrets = if same { known } else { secrets(config) };
    }

    /// Compares for ever, and tells what is different.
    pub async fn run<C: Watched, T: From<Change<C>>>(mut self, changes: mpsc::Sender<T>) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let polled = tokio::task::spawn_blocking(move || {
                let changes = self.poll::<C>();
                (self, changes)
            });
            let Ok((watcher, found)) = polled.await else { return };
            self = watcher;
            for change in found {
                if changes.send(change.into()).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn secrets(config: &impl Watched) -> Vec<(PathBuf, Option<Zeroizing<Vec<u8>>>)> {
    let read = |path: PathBuf| {
        let secret = read_bounded(&path, MAX_PEM).ok();
        (path, secret)
    };
    config.files().into_iter().map(read).collect()
}

/// A pod keeps the volumes that it was made with: a configuration whose secrets lie in others cannot be taken on, and the
/// tunnel that runs is better than none. A folder that is there and has no such file is another matter: the file may come.
fn within_reach<C: Watched>(config: C) -> Result<C, String> {
    let missing = config.files().into_iter().find(|path| path.parent().is_some_and(|folder| !folder.is_dir()));
    match missing {
        None => Ok(config),
        Some(path) => Err(format!(
            "credentials: there is no folder for {}; a pod has the Secrets that it was made with, make it anew",
            path.display()
        )),
    }
}

/// The revision of a configuration that cannot be used, as far as it can be read.
fn revision(text: &str) -> String {
    let value: Option<serde_json::Value> = serde_json::from_str(text).ok();
    let revision = value.as_ref().and_then(|value| value.get("revision")?.as_str());
    revision.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::scratch::Scratch;
    use std::os::unix::fs::symlink;

    fn text(folder: &Path, revision: &str, hello: u32) -> String {
        let file = |name: &str| format!("{{\"path\":\"{}/{name}\"}}", folder.join("current").display());
        format!(
            "{{\"revision\":\"{revision}\",\"peers\":[{{\"address\":\"192.0.2.1\"}}],\"l2tp\":{{\"helloSeconds\":{hello}}},\
             \"credentials\":{{\"preSharedKey\":{},\"username\":{},\"password\":{}}}}}",
            file("psk"),
            file("username"),
            file("password")
        )
    }

    /// Writes a generation of files and turns the link to it, as kubelet does.
    fn publish(scratch: &Scratch, generation: &str, config: &str, psk: &str) {
        let folder = scratch.path().join(generation);
        std::fs::create_dir(&folder).unwrap();
        for (name, content) in [("config.json", config), ("psk", psk), ("username", "u"), ("password", "p")] {
            std::fs::write(folder.join(name), content).unwrap();
        }
        symlink(generation, scratch.path().join("next")).unwrap();
        std::fs::rename(scratch.path().join("next"), scratch.path().join("current")).unwrap();
    }

    #[test]
    fn a_configuration_that_is_too_long_is_not_cut() {
        let scratch = Scratch::new();
        let path = scratch.write("config.json", &vec![b' '; MAX_CONFIG + 1]);
        assert_eq!(read_config(&path).unwrap_err().to_string(), "it is longer than 1048576 octets");
    }

    #[test]
    fn a_certificate_and_its_revocation_list_are_watched_whatever_their_length() {
        let folder = Scratch::new();
        let mut config = config::parse(&text(folder.path(), "1", 60)).unwrap();
        let file = |name: &str, length: usize| {
            let path = folder.write(name, &vec![b'x'; length]);
            config::SecretFile { path, source: None }
        };
        config.credentials.pre_shared_key = None;
        config.credentials.certificate = Some(config::server::Certificate {
            chain: file("tls.crt", 9_000),
            key: file("tls.key", 2_000),
            authorities: file("ca.crt", 5_000),
            revocations: Some(file("ca.crl", 100_000)),
            remote_id: None,
        });
        let mut watcher = Watcher::new(folder.write("config", b""), String::new(), &config);
        assert_eq!(watcher.poll::<Config>(), []);
        for name in ["tls.crt", "tls.key", "ca.crt", "ca.crl"] {
            folder.write(name, &[b'y'; 9_000]);
            assert_eq!(watcher.poll::<Config>(), [Change::Credentials], "{name}");
        }
    }

    #[test]
    fn a_turned_link_tells_what_is_different() {
        let scratch = Scratch::new();
        let path = scratch.path().join("current").join("config.json");
        let first = text(scratch.path(), "1", 60);
        publish(&scratch, "a", &first, "secret");
        let mut watcher = Watcher::new(path, first.clone(), &config::parse(&first).unwrap());
        assert_eq!(watcher.poll::<Config>(), []);

        publish(&scratch, "b", &first, "other");
        assert_eq!(watcher.poll::<Config>(), [Change::Credentials]);
        assert_eq!(watcher.poll::<Config>(), []);

        let second = text(scratch.path(), "2", 90);
        publish(&scratch, "c", &second, "other");
        assert_eq!(watcher.poll::<Config>(), [Change::Config(Box::new(config::parse(&second).unwrap()))]);

        publish(&scratch, "d", &text(scratch.path(), "3", 1), "third");
        let changes = watcher.poll::<Config>();
        let [Change::Rejected(rejected), Change::Credentials] = changes.as_slice() else { panic!("{changes:?}") };
        assert_eq!(rejected.revision, "3");
        assert!(rejected.message.contains("l2tp.helloSeconds"), "{}", rejected.message);
        assert_eq!(watcher.poll::<Config>(), []);

        std::fs::remove_file(scratch.path().join("current")).unwrap();
        assert_eq!(watcher.poll::<Config>(), [Change::Credentials]);
        publish(&scratch, "e", &second, "third");
        assert_eq!(watcher.poll::<Config>().len(), 2);
    }

    #[test]
    fn a_configuration_whose_secrets_are_not_mounted_is_rejected_and_those_of_before_are_watched_on() {
        let scratch = Scratch::new();
        let first = text(scratch.path(), "1", 60);
        publish(&scratch, "a", &first, "secret");
        let path = scratch.path().join("current").join("config.json");
        let mut watcher = Watcher::new(path, first.clone(), &config::parse(&first).unwrap());

        publish(&scratch, "b", &text(&scratch.path().join("other"), "2", 60), "secret");
        let changes = watcher.poll::<Config>();
        let [Change::Rejected(rejected)] = changes.as_slice() else { panic!("{changes:?}") };
        assert_eq!(rejected.revision, "2");
        assert!(rejected.message.contains("other/current/psk"), "{}", rejected.message);

        publish(&scratch, "c", &text(&scratch.path().join("other"), "2", 60), "changed");
        assert_eq!(watcher.poll::<Config>(), [Change::Credentials]);
    }
}
