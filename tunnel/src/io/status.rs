//! `towline-tunnel status`: asks the running process over its control socket.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;

use crate::report::{Report, SessionReport};

/// How long the process may take to answer.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The longest answer: some 500 octets for each session that a server can have.
const MAX_ANSWER: u64 = 64 << 20;

/// The report of the process that listens at `socket`.
///
/// # Errors
/// When nothing listens there, or it answers something else.
pub fn ask(socket: &Path) -> io::Result<Report> {
    request(socket, "status")
}

/// The sessions of the server that listens at `socket`; none of a client.
///
/// # Errors
/// When nothing listens there, or it answers something else.
pub fn ask_sessions(socket: &Path) -> io::Result<Vec<SessionReport>> {
    request(socket, "sessions")
}

fn request<T: DeserializeOwned>(socket: &Path, request: &str) -> io::Result<T> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(format!("{request}\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
    serde_json::from_str(&answer).map_err(|_| io::Error::other(answer.trim().to_owned()))
}

/// The report for a person.
pub fn summary(report: &Report) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            // A string takes all that is written into it.
            writeln!(out, "{name:<12}{value}").unwrap_or_default();
        }
    };
    let list =
        |addresses: &[std::net::IpAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    line("Ready", if report.is_ready() { "yes".to_owned() } else { "no".to_owned() });
    if !report.is_ready()
        && let Some(cause) = report.cause()
    {
        line("Cause", format!("{:?} {}: {}", cause.layer, cause.reason, cause.message));
    }
    line("Sessions", report.sessions.map(|sessions| sessions.to_string()).unwrap_or_default());
    line("Revision", report.revision.clone());
    if let Some(rejected) = &report.rejected_revision {
        line("Rejected", format!("{} {}", rejected.revision, rejected.message));
    }
    let endpoint = report.peer_endpoint.map(|endpoint| format!(" ({endpoint})")).unwrap_or_default();
    line("Peer", report.active_peer.as_ref().map(|peer| format!("{peer}{endpoint}")).unwrap_or_default());
    line("Address", report.assigned_address.map(|address| address.to_string()).unwrap_or_default());
    line("DNS", list(&report.dns_servers));
    if let Some(negotiated) = &report.negotiated {
        line("IKE", negotiated.ike.to_string());
        let way = negotiated.encapsulation.map(|way| format!(" (encapsulation {way:?})")).unwrap_or_default();
        line("ESP", negotiated.esp.map(|esp| format!("{esp}{way}")).unwrap_or_default());
        line("PPP", negotiated.ppp_auth.map(|auth| auth.to_string()).unwrap_or_default());
        line("NAT", format!("{:?}", negotiated.nat));
        line("MTU", negotiated.mtu.map(|mtu| mtu.to_string()).unwrap_or_default());
        line("Rung", negotiated.rung.clone().unwrap_or_default());
        line("Weakness", negotiated.weakness.clone().unwrap_or_default());
    }
    if report.failed_attempts > 0 {
        line("Failed", format!("{} attempts since the tunnel was last up", report.failed_attempts));
    }
    for export in &report.exports {
        line("Export", format!("{} {}", export.name, export.problem.as_deref().unwrap_or("listens")));
    }
    for import in &report.imports {
        line("Import", format!("{} {}", import.name, import.problem.as_deref().unwrap_or("listens")));
    }
    out.push('\n');
    for layer in &report.layers {
        let (name, state, reason) = (format!("{:?}", layer.layer), format!("{:?}", layer.state), layer.reason.name());
        writeln!(out, "{name:<12}{state:<9}{reason:<24} {}", layer.message).unwrap_or_default();
    }
    out
}

/// The sessions for a person, one a line.
pub fn table(sessions: &[SessionReport]) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut out = format!(
        "{:<8}{:<20}{:<16}{:<10}{:<24}{:<24}{:<18}{:<11}{:>12}{:>12}  {}\n",
        "SESSION", "USER", "ADDRESS", "SINCE", "PEER", "IKE", "ESP", "PPP", "RECEIVED", "SENT", "WEAKNESS"
    );
    for session in sessions {
        let since = now.saturating_sub(session.since);
        let text = |value: Option<String>| value.unwrap_or_default();
        writeln!(
            out,
            "{:<8}{:<20}{:<16}{:<10}{:<24}{:<24}{:<18}{:<11}{:>12}{:>12}  {}",
            session.id,
            session.user.escape_default().to_string(),
            session.address,
            format!("{since}s"),
            session.peer,
            session.ike.to_string(),
            text(session.esp.map(|esp| esp.to_string())),
            text(session.auth.map(|auth| auth.to_string())),
            session.rx_octets,
            session.tx_octets,
            session.weakness.as_deref().unwrap_or_default()
        )
        .unwrap_or_default();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Layer, Nat, Negotiated, Reason, State};

    #[test]
    fn the_cause_stands_at_the_top() {
        let mut report = Report::new("7".to_owned());
        report.active_peer = Some("vpn.example.com".to_owned());
        report.peer_endpoint = Some([192, 0, 2, 7].into());
        report.set(Layer::Ike, State::Down, Reason::AuthenticationFailed, "Check the pre-shared key.");
        let text = summary(&report);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], ["Ready       no", "Cause       Ike AuthenticationFailed: Check the pre-shared key."]);
        assert!(lines.contains(&"Peer        vpn.example.com (192.0.2.7)"));
        assert_eq!(lines.len(), 5 + Layer::CLIENT.len());
    }

    #[test]
    fn the_rung_that_worked_is_told_in_words() {
        let mut report = Report::new("7".to_owned());
        report.negotiated = Some(Negotiated {
            ike: "aes256-sha256-modp2048".parse().unwrap(),
            esp: None,
            encapsulation: None,
            ppp_auth: None,
            nat: Nat::None,
            mtu: None,
            weakness: None,
            rung: Some("Strong proposals, identity as Fqdn".to_owned()),
        });
        let text = summary(&report);
        assert!(text.lines().any(|line| line == "Rung        Strong proposals, identity as Fqdn"), "{text}");
    }
}
