//! The tunnel process in the role of the server, run in a namespace.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use towline_tunnel::report::Report;

use crate::netns::Namespace;
use crate::peer::Lns;
use crate::peer::pki::Certificate;
use crate::tunnel::{Tunnel, certificate, new_folder, secret};

/// Somebody who may dial in.
#[derive(Debug, Clone)]
pub struct User {
    /// The name.
    pub name: String,
    /// The password.
    pub password: String,
    /// Further fields of the user in the configuration, such as `{"suspended": true}`.
    pub more: Value,
}

impl User {
    /// Anybody.
    pub fn new(name: &str, password: &str) -> Self {
        Self::with(name, password, json!({}))
    }

    /// Somebody with more in the configuration.
    pub fn with(name: &str, password: &str, more: Value) -> Self {
        Self { name: name.to_owned(), password: password.to_owned(), more }
    }

    /// The user of the clients that are set like `lns`.
    pub fn of(lns: &Lns) -> Self {
        Self::new(&lns.user, &lns.password)
    }
}

/// What a server proves itself with, and demands.
#[derive(Debug, Clone)]
pub enum Key {
    /// A pre-shared key.
    PreShared(String),
    /// Its certificate; peers need one of the same authority.
    Certificate(Certificate),
}

/// A running `towline-tunnel run` that accepts clients. What any process of the tunnel does, it does too.
#[derive(Debug)]
pub struct Server(Tunnel);

/// The configuration of a server: links have the address 10.20.5.1 at this end, and addresses of 10.20.5.0/24 at the other;
/// clients reach 10.20.4.0/24.
pub fn config() -> Value {
    json!({
        "mode": "Server",
        "revision": "1",
        "addresses": {"local": "10.20.5.1", "pools": ["10.20.5.0/24"], "dns": ["10.20.4.11", "10.20.4.12"]},
        "forwarding": {"networks": ["10.20.4.0/24"]},
        "log": {"level": "Debug"},
    })
}

impl Server {
    /// Starts a server.
    pub fn start(host: &Namespace, mut config: Value, key: &Key, users: &[User]) -> Result<Self> {
        let folder = new_folder(host)?;
        config["credentials"] = credentials(&folder, key)?;
        config["users"] = users.iter().map(|user| entry(&folder, user)).collect::<Result<_>>()?;
        Ok(Self(Tunnel::spawn(host, folder, config, &[], None)?))
    }

    /// Waits until the server accepts clients.
    pub fn wait_ready(&mut self) -> Result<Report> {
        self.0.wait_for("ready server", Duration::from_secs(20), Report::is_ready)
    }

    /// Waits until exactly so many sessions are up.
    pub fn wait_sessions(&mut self, number: u32, timeout: Duration) -> Result<Report> {
        self.0.wait_for(&format!("{number} sessions"), timeout, |report| report.sessions == Some(number))
    }

    /// Replaces the users.
    pub fn change_users(&mut self, users: &[User]) -> Result<()> {
        let folder = self.0.folder().to_owned();
        let users: Value = users.iter().map(|user| entry(&folder, user)).collect::<Result<_>>()?;
        self.0.change(|config| config["users"] = users)
    }

    /// Ends the process without a goodbye.
    pub fn kill(self) {
        drop(self);
    }

    /// Ends it with SIGTERM; returns its status, how long it took and its log.
    pub fn stop(self) -> Result<(ExitStatus, Duration, String)> {
        self.0.stop()
    }
}

impl Deref for Server {
    type Target = Tunnel;

    fn deref(&self) -> &Tunnel {
        &self.0
    }
}

impl DerefMut for Server {
    fn deref_mut(&mut self) -> &mut Tunnel {
        &mut self.0
    }
}

/// The files of the key, and what the configuration says of them.
fn credentials(folder: &Path, key: &Key) -> Result<Value> {
    Ok(match key {
        Key::PreShared(key) => json!({"preSharedKeys": [{"file": secret(folder, "preSharedKey", key)?}]}),
        Key::Certificate(own) => json!({"certificate": certificate(folder, own)?}),
    })
}

/// A user as the configuration has it; the password goes to a file.
fn entry(folder: &Path, user: &User) -> Result<Value> {
    let mut entry = user.more.clone();
    entry["name"] = json!(user.name);
    entry["password"] = secret(folder, &format!("password-{}", user.name), &user.password)?;
    Ok(entry)
}
