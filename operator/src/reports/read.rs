//! Reading a report. The pod that sent it may be newer than this operator, and may have been taken over by somebody.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use towline_tunnel::config::server::{MAX_IMPORTS, MAX_USERS};
use towline_tunnel::report::{ExportReport, LayerReport, MAX_MESSAGE, Negotiated, Reason, Report, UserReport};

/// Name servers of a report that are kept.
const MAX_DNS_SERVERS: usize = 8;
/// Exports of a report that are kept: as many as a tunnel may have.
const MAX_EXPORTS: usize = 64;

/// The report in `body`, with what this version does not know left out and every text short and on one line.
///
/// # Errors
/// When it is no report.
pub fn read(body: &[u8]) -> Result<Report, serde_json::Error> {
    let mut value: Value = serde_json::from_slice(body)?;
    if let Some(layers) = value.get_mut("layers").and_then(Value::as_array_mut) {
        layers.retain_mut(is_known_layer);
    }
    for ports in ["exports", "imports"] {
        if let Some(ports) = value.get_mut(ports).and_then(Value::as_array_mut) {
            ports.retain(is::<ExportReport>);
        }
    }
    if let Some(users) = value.get_mut("users").and_then(Value::as_array_mut) {
        users.retain(is::<UserReport>);
    }
    if let Some(object) = value.as_object_mut()
        && object.get("negotiated").is_some_and(|negotiated| !is::<Negotiated>(negotiated))
    {
        object.remove("negotiated");
    }
    let mut report: Report = serde_json::from_value(value)?;
    bound(&mut report);
    Ok(report)
}

fn is<T: DeserializeOwned>(value: &Value) -> bool {
    T::deserialize(value).is_ok()
}

fn is_known_layer(layer: &mut Value) -> bool {
    if let Some(reason) = layer.get_mut("reason")
        && !is::<Reason>(reason)
    {
        // The state and the message hold without it.
        *reason = json!(Reason::Pending.name());
    }
    is::<LayerReport>(layer)
}

fn bound(report: &mut Report) {
    let mut seen = Vec::new();
    report.layers.retain(|layer| {
        let is_first = !seen.contains(&layer.layer);
        seen.push(layer.layer);
        is_first
    });
    report.layers.iter_mut().for_each(|layer| tidy(&mut layer.message));
    tidy(&mut report.revision);
    if let Some(rejected) = &mut report.rejected_revision {
        tidy(&mut rejected.revision);
        tidy(&mut rejected.message);
    }
    report.active_peer.as_mut().map(tidy);
    let agreed = report.negotiated.iter_mut();
    let agreed = agreed.flat_map(|negotiated| negotiated.weakness.iter_mut().chain(&mut negotiated.rung));
    agreed.chain(report.weak_sessions.iter_mut().map(|weak| &mut weak.weakness)).for_each(tidy);
    report.dns_servers.truncate(MAX_DNS_SERVERS);
    report.exports.truncate(MAX_EXPORTS);
    report.imports.truncate(MAX_IMPORTS);
    for port in report.exports.iter_mut().chain(&mut report.imports) {
        tidy(&mut port.name);
        port.problem.as_mut().map(tidy);
    }
    report.users.truncate(MAX_USERS);
    for user in &mut report.users {
        tidy(&mut user.name);
        tidy(&mut user.result);
    }
}

/// Control characters would move the cursor of whoever reads the status.
fn tidy(text: &mut String) {
    *text = text.chars().take(MAX_MESSAGE).map(|char| if char.is_control() { ' ' } else { char }).collect();
}

#[cfg(test)]
mod tests {
    use towline_tunnel::report::{Layer, State};

    use super::*;

    fn read_value(value: &Value) -> Result<Report, serde_json::Error> {
        read(value.to_string().as_bytes())
    }

    fn layer(layer: &str, reason: &str, message: &str) -> Value {
        json!({"layer": layer, "state": "Down", "reason": reason, "message": message})
    }

    #[test]
    fn words_about_what_was_agreed_on_stay_on_one_line() {
        let report = read_value(&json!({
            "revision": "7", "layers": [],
            "negotiated": {"ike": "aes256-sha1-modp1024", "nat": "None", "weakness": "a\nb", "rung": "c\nd"},
            "weakSessions": {"count": 1, "weakness": "e\nf"},
        }))
        .unwrap();
        let negotiated = report.negotiated.unwrap();
        let words = [negotiated.weakness.unwrap(), negotiated.rung.unwrap(), report.weak_sessions.unwrap().weakness];
        assert_eq!(words, ["a b", "c d", "e f"]);
    }

    #[test]
    fn what_a_later_version_says_is_understood_as_far_as_it_goes() {
        let report = read_value(&json!({
            "revision": "7", "colour": "blue",
            "layers": [layer("Ike", "AuthenticationFailed", "Check."), layer("Mppe", "Pending", ""), layer("Ppp", "Brandnew", "Do it.")],
            "negotiated": {"ike": "kyber-1", "nat": "None"},
            "exports": [{"name": "web", "problem": "in use"}, {"shade": "dark"}],
            "imports": [{"shade": "dark"}, {"name": "orders\n", "problem": "in use\n"}],
            "users": [
                {"name": "alice", "sessions": 1, "lastAttempt": 7, "accepted": true, "result": "accepted\n"}, {"shade": "dark"},
            ],
        }))
        .unwrap();
        assert_eq!(report.layers.len(), 2);
        assert_eq!(report.layer(Layer::Ike).unwrap().reason, Reason::AuthenticationFailed);
        let ppp = report.layer(Layer::Ppp).unwrap();
        assert_eq!((ppp.state, ppp.reason, ppp.message.as_str()), (State::Down, Reason::Pending, "Do it."));
        assert_eq!(report.negotiated, None);
        assert_eq!(report.exports.len(), 1);
        let import = ExportReport { name: "orders ".to_owned(), problem: Some("in use ".to_owned()) };
        assert_eq!(report.imports, [import]);
        assert_eq!((report.users.len(), report.users[0].result.as_str()), (1, "accepted "));
    }

    #[test]
    fn each_layer_counts_once_and_texts_are_short_and_on_one_line() {
        let report = read_value(&json!({
            "revision": "7\n", "activePeer": "a\u{1b}[2Jb",
            "layers": [layer("Ike", "PeerClosed", &"ä\n".repeat(MAX_MESSAGE)), layer("Ike", "DeadPeer", "")],
            "dnsServers": vec!["10.0.0.1"; 100],
        }))
        .unwrap();
        assert_eq!(report.layers.len(), 1);
        let ike = report.layer(Layer::Ike).unwrap();
        assert_eq!(ike.reason, Reason::PeerClosed);
        assert_eq!(ike.message.chars().count(), MAX_MESSAGE);
        assert!(!ike.message.contains('\n'));
        assert_eq!(report.active_peer.as_deref(), Some("a [2Jb"));
        assert_eq!((report.revision.as_str(), report.dns_servers.len()), ("7 ", MAX_DNS_SERVERS));
    }

    #[test]
    fn what_is_no_report_is_refused() {
        assert!(read(b"{}").is_err());
        assert!(read(b"[").is_err());
    }
}
