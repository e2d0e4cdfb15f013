//! What most tests of the server begin with: networks, a server, a host behind it.

use std::time::Duration;

use serde_json::Value;
use towline_tests::netns::Namespace;
use towline_tests::peer::{Guest, INNER, Lac, Lns};
use towline_tests::server::{Key, Server, User, config};
use towline_tests::site::{Inside, Side, Site};
use towline_tunnel::report::UserReport;

/// The server's address.
pub(super) const SERVER: &str = "192.0.2.10";

/// What the page behind the server says.
pub(super) const PAGE: &str = "the page behind the server";

/// How long a session may take to come or to go.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Everything but the clients, in the order in which it goes.
pub(super) struct World {
    pub(super) server: Server,
    pub(super) inside: Inside,
    pub(super) host: Namespace,
    pub(super) site: Site,
}

impl World {
    /// A server for the user of [`Lns::default`] with its pre-shared key.
    pub(super) fn new() -> Self {
        Self::with(&[User::of(&Lns::default())], |_| {})
    }

    /// A server for `users` with another configuration.
    pub(super) fn with(users: &[User], change: impl FnOnce(&mut Value)) -> Self {
        Self::with_key(&Key::PreShared(Lns::default().psk), users, change)
    }

    /// The same with another key.
    pub(super) fn with_key(key: &Key, users: &[User], change: impl FnOnce(&mut Value)) -> Self {
        let site = Site::new().unwrap();
        let host = site.host("server", Side::Wan, SERVER).unwrap();
        host.sysctl("net.ipv4.ip_forward", "1").unwrap();
        let inside = site.inside(&host, PAGE).unwrap();
        let mut config = config();
        change(&mut config);
        let mut server = Server::start(&host, config, key, users).unwrap();
        server.wait_ready().unwrap();
        Self { server, inside, host, site }
    }

    /// A client at the usual address of its side, which has not dialled yet.
    pub(super) fn client(&self, side: Side, like: Lns) -> Guest {
        let address = match side {
            Side::Wan => "192.0.2.20",
            Side::Lan => "198.51.100.20",
        };
        self.client_at(side, address, &Lac::new(SERVER, like))
    }

    /// A client with its address.
    pub(super) fn client_at(&self, side: Side, address: &str, lac: &Lac) -> Guest {
        let name = format!("lac{}", address.rsplit('.').next().unwrap());
        Guest::lac(self.site.bridge(side), &name, address, side.router(), lac).unwrap()
    }

    /// Brings the client's session up and fetches the page through it; returns what PPP agreed on.
    pub(super) fn connect(&self, client: &Guest) -> String {
        let link = client.dial().unwrap_or_else(|error| panic!("{error:#}\n{}", self.logs(client)));
        assert_eq!(client.fetch(INNER).unwrap_or_else(|error| panic!("{error:#}\n{}", self.logs(client))), PAGE);
        link
    }

    /// What the server says about a user's last attempt.
    pub(super) fn user(&self, name: &str) -> UserReport {
        let report = self.server.report().unwrap();
        report.users.iter().find(|user| user.name == name).cloned().unwrap_or_else(|| panic!("no {name}: {report:#?}"))
    }

    /// Both sides of the story.
    pub(super) fn logs(&self, client: &Guest) -> String {
        let server = self.server.log().unwrap_or_else(|error| format!("{error:#}"));
        let client = ["charon", "l2tp", "pppd"].map(|name| client.log(name)).join("\n");
        format!("== server\n{server}\n== client\n{client}")
    }
}

/// The address that the client was given, from what PPP agreed on.
pub(super) fn local(link: &str) -> &str {
    link.split_whitespace().find_map(|word| word.strip_prefix("local=")).unwrap()
}
