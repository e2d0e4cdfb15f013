use towline_tunnel::report::ExportReport;

use super::*;
use crate::build::tests::{server, tunnel};

fn up(revision: &str) -> Report {
    let mut report = Report::new(revision.to_owned());
    for layer in Layer::CLIENT {
        report.set(layer, State::Up, Reason::ProbeSucceeded, "It works.");
    }
    report.assigned_address = Some([10, 20, 5, 10].into());
    report.active_peer = Some("vpn.oslo.example.com".to_owned());
    report
}

fn down(layer: Layer, reason: Reason) -> Report {
    let mut report = up("r1");
    report.set(layer, State::Down, reason, "Do this.");
    for other in Layer::CLIENT.into_iter().filter(|other| *other > layer) {
        report.set(other, State::Pending, Reason::WaitingForLowerLayer, "Waits.");
    }
    report
}

fn pod(name: &str, report: Option<(Report, u64)>) -> Pod {
    let heard = |(report, age): (Report, u64)| Heard {
        report,
        age: Duration::from_secs(age),
        time: Timestamp::from_second(45_296).unwrap(),
    };
    Pod {
        name: name.to_owned(),
        running: true,
        waiting: String::new(),
        in_service: true,
        template: Some("t1".to_owned()),
        report: report.map(heard),
    }
}

fn judge(tunnel: &VpnTunnel, outcome: &Outcome, pods: &[Pod], just_began: bool) -> VpnTunnelStatus {
    let (old, now) = (tunnel.status.as_ref(), Timestamp::from_second(1_000).unwrap());
    status(&Input { tunnel, old, outcome, refusal: None, addresses: Vec::new(), pods, just_began, now })
}

fn outcome(revision: &str, problems: Vec<Problem>) -> Outcome {
    Outcome::Applied { revision: revision.to_owned(), template: "t1".to_owned(), problems }
}

fn applied() -> Outcome {
    outcome("r1", Vec::new())
}

fn message(status: &VpnTunnelStatus, kind: ConditionType) -> &str {
    &find(&status.conditions, kind).unwrap().message
}

/// Status and reason of a condition.
fn says(status: &VpnTunnelStatus, kind: ConditionType) -> (String, String) {
    let condition = find(&status.conditions, kind).unwrap();
    (condition.status.clone(), condition.reason.clone())
}

fn pair(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

#[test]
fn ready_follows_the_probe_and_not_the_pod() {
    let tunnel = tunnel("Gateway");
    let ready = judge(&tunnel, &applied(), &[pod("a", Some((up("r1"), 3)))], false);
    assert_eq!(says(&ready, ConditionType::Ready), pair("True", "ProbeSucceeded"));
    assert_eq!(ready.assigned_address.as_deref(), Some("10.20.5.10"));
    assert_eq!(ready.services[0].service_name, "oslo-web");
    let mut unready = pod("a", Some((up("r1"), 3)));
    unready.in_service = false;
    let unready = judge(&tunnel, &applied(), &[unready], false);
    assert_eq!(says(&unready, ConditionType::Ready), pair("False", "PodsPending"));
    let silent = judge(&tunnel, &applied(), &[pod("a", None)], false);
    assert_eq!(says(&silent, ConditionType::Ready), pair("Unknown", "PodSilent"));
    assert_eq!(silent.active_peer.as_deref(), Some("vpn.oslo.example.com"));
    let old = judge(&tunnel, &applied(), &[pod("a", Some((up("r1"), 36)))], false);
    assert_eq!(says(&old, ConditionType::Ready), pair("Unknown", "PodSilent"));
    let none = judge(&tunnel, &applied(), &[], false);
    assert_eq!(says(&none, ConditionType::Ready), pair("False", "PodsPending"));
    assert_eq!(says(&none, ConditionType::PeerReachable), pair("Unknown", "PodsPending"));
}

#[test]
fn ready_tells_the_lowest_layer_that_failed() {
    let report = down(Layer::Ike, Reason::AuthenticationFailed);
    let status = judge(&tunnel("Gateway"), &applied(), &[pod("a", Some((report, 1)))], false);
    assert_eq!(says(&status, ConditionType::Ready), pair("False", "AuthenticationFailed"));
    assert_eq!(says(&status, ConditionType::IkeEstablished), pair("False", "AuthenticationFailed"));
    assert_eq!(says(&status, ConditionType::PeerReachable).0, "True");
    assert_eq!(says(&status, ConditionType::L2tpEstablished), pair("Unknown", "WaitingForLowerLayer"));
}

#[test]
fn a_change_is_provisioned_when_the_pod_runs_it() {
    let tunnel = tunnel("Gateway");
    let outcome = outcome("r2", Vec::new());
    let status = judge(&tunnel, &outcome, &[pod("a", Some((up("r1"), 1)))], false);
    assert_eq!(says(&status, ConditionType::Provisioned), pair("False", "RollingOut"));
    assert_eq!(says(&status, ConditionType::Ready).0, "True");
    let status = judge(&tunnel, &outcome, &[pod("a", Some((up("r2"), 1)))], false);
    assert_eq!(says(&status, ConditionType::Provisioned), pair("True", "PodsReady"));
    let mut waiting = pod("a", None);
    (waiting.running, waiting.waiting) = (false, "ImagePullBackOff".to_owned());
    let status = judge(&tunnel, &outcome, &[waiting], false);
    assert_eq!(says(&status, ConditionType::Provisioned), pair("False", "PodsPending"));
    assert!(find(&status.conditions, ConditionType::Ready).unwrap().message.contains("ImagePullBackOff"));
}

#[test]
fn the_worst_sidecar_speaks_for_all() {
    let pods = [pod("a", Some((up("r1"), 1))), pod("b", Some((down(Layer::Ppp, Reason::PppAuthenticationFailed), 1)))];
    let status = judge(&tunnel("Sidecar"), &applied(), &pods, false);
    assert_eq!(says(&status, ConditionType::Ready), pair("False", "PppAuthenticationFailed"));
    assert!(find(&status.conditions, ConditionType::Ready).unwrap().message.starts_with("1 of 2 pods are up. Pod b: "));
    assert_eq!((status.pods[0].ready, status.pods[1].ready), (true, false));
    assert_eq!(status.assigned_address, None);
    let none = judge(&tunnel("Sidecar"), &applied(), &[], false);
    assert_eq!(says(&none, ConditionType::Ready), pair("Unknown", "NoPods"));
}

#[test]
fn a_new_leader_leaves_what_it_does_not_know() {
    let mut tunnel = tunnel("Gateway");
    tunnel.status = Some(judge(&tunnel, &applied(), &[pod("a", Some((up("r1"), 1)))], false));
    let kept = judge(&tunnel, &applied(), &[pod("a", None)], true);
    assert_eq!(says(&kept, ConditionType::Ready), pair("True", "ProbeSucceeded"));
    assert_eq!(kept.assigned_address.as_deref(), Some("10.20.5.10"));
    let later = judge(&tunnel, &applied(), &[pod("a", None)], false);
    assert_eq!(says(&later, ConditionType::Ready).0, "Unknown");
    assert_eq!(later.assigned_address, None);
}

#[test]
fn what_cannot_be_carried_out_and_what_is_switched_off_is_said_everywhere() {
    let mut tunnel = tunnel("Gateway");
    let invalid = judge(&tunnel, &Outcome::Invalid("spec.x: fix it".to_owned()), &[], false);
    assert_eq!(says(&invalid, ConditionType::Accepted), pair("False", "InvalidSpec"));
    assert_eq!(says(&invalid, ConditionType::Ready), pair("False", "InvalidSpec"));
    let problem = Problem { part: Part::Tunnel, text: "quota".to_owned() };
    let failed = judge(&tunnel, &outcome("r1", vec![problem]), &[], false);
    assert_eq!(says(&failed, ConditionType::Provisioned), pair("False", "ApplyFailed"));
    tunnel.spec.suspend = true;
    let suspended = judge(&tunnel, &applied(), &[], false);
    assert_eq!(says(&suspended, ConditionType::Ready), pair("False", "Suspended"));
    assert_eq!(says(&suspended, ConditionType::Provisioned), pair("True", "Suspended"));
}

#[test]
fn a_pod_that_has_not_reported_leaves_open_what_it_runs() {
    let tunnel = tunnel("Gateway");
    let silent = judge(&tunnel, &applied(), &[pod("a", None)], false);
    assert_eq!(says(&silent, ConditionType::Provisioned), pair("Unknown", "PodSilent"));
    let since = judge(&tunnel, &applied(), &[pod("a", Some((up("r1"), 36)))], false);
    let later = judge(&tunnel, &applied(), &[pod("a", Some((up("r1"), 99)))], false);
    assert!(message(&since, ConditionType::Ready).starts_with("Pod a has not reported since 12:34:56 UTC; "));
    assert_eq!(since, later);
}

#[test]
fn a_layer_tells_of_the_generation_that_the_pod_runs() {
    let mut tunnel = tunnel("Gateway");
    let observed = |status: &VpnTunnelStatus, kind| find(&status.conditions, kind).unwrap().observed_generation;
    tunnel.status = Some(judge(&tunnel, &applied(), &[pod("a", Some((up("r1"), 1)))], false));
    tunnel.metadata.generation = Some(4);
    let changed = outcome("r2", Vec::new());
    let behind = judge(&tunnel, &changed, &[pod("a", Some((up("r1"), 1)))], false);
    for (kind, generation) in [
        (ConditionType::Ready, 3),
        (ConditionType::IkeEstablished, 3),
        (ConditionType::Provisioned, 4),
        (ConditionType::Accepted, 4),
    ] {
        assert_eq!(observed(&behind, kind), Some(generation), "{kind:?}");
    }
    let silent = judge(&tunnel, &changed, &[pod("a", None)], false);
    assert_eq!(observed(&silent, ConditionType::Ready), Some(3));
    let runs = judge(&tunnel, &changed, &[pod("a", Some((up("r2"), 1)))], false);
    assert_eq!(observed(&runs, ConditionType::Ready), Some(4));
}

#[test]
fn a_refused_pod_stands_in_provisioned_and_ready() {
    let tunnel = tunnel("Gateway");
    let input = Input {
        tunnel: &tunnel,
        old: None,
        outcome: &applied(),
        refusal: Some("violates PodSecurity; label the namespace".to_owned()),
        addresses: Vec::new(),
        pods: &[],
        just_began: false,
        now: Timestamp::UNIX_EPOCH,
    };
    let refused = status(&input);
    for kind in [ConditionType::Provisioned, ConditionType::Ready] {
        assert_eq!(says(&refused, kind), pair("False", "PodsPending"));
        assert_eq!(message(&refused, kind), "violates PodSecurity; label the namespace");
    }
}

#[test]
fn an_export_without_its_service_is_not_listed_and_ready_names_the_remedy() {
    let text = "Service oslo-web exists and belongs to somebody else: rename export web, or delete the Service";
    let problem = Problem { part: Part::Export("web".to_owned()), text: text.to_owned() };
    let status = judge(&tunnel("Gateway"), &outcome("r1", vec![problem]), &[pod("a", Some((up("r1"), 1)))], false);
    assert_eq!(status.services.iter().map(|service| service.name.as_str()).collect::<Vec<_>>(), ["db"]);
    assert_eq!(says(&status, ConditionType::Ready), pair("False", "ApplyFailed"));
    assert!(message(&status, ConditionType::Ready).ends_with(&format!("{text}.")));
    assert_eq!(message(&status, ConditionType::Provisioned), format!("{text}."));
}

#[test]
fn an_export_that_the_pod_does_not_serve_keeps_the_tunnel_from_being_ready() {
    let mut report = up("r1");
    let export =
        |name: &str, problem: Option<&str>| ExportReport { name: name.to_owned(), problem: problem.map(str::to_owned) };
    report.exports = vec![export("db", None), export("web", Some("Port 80 is in use."))];
    let status = judge(&tunnel("Gateway"), &applied(), &[pod("a", Some((report, 1)))], false);
    assert_eq!(says(&status, ConditionType::Ready), pair("False", "DeviceFailed"));
    let text = "The tunnel is up, but pod a does not serve export web: Port 80 is in use.";
    assert_eq!(message(&status, ConditionType::Ready), text);
}

#[test]
fn an_import_that_the_pod_does_not_serve_keeps_a_server_from_being_ready() {
    let mut report = serving(false);
    report.imports = vec![ExportReport { name: "orders".to_owned(), problem: Some("Port 80 is in use.".to_owned()) }];
    let status = judge(&server(), &applied(), &[pod("a", Some((report, 1)))], false);
    assert_eq!(says(&status, ConditionType::Ready), pair("False", "DeviceFailed"));
    let text = "The server listens, but pod a does not serve import orders: Port 80 is in use.";
    assert_eq!(message(&status, ConditionType::Ready), text);
}

#[test]
fn a_pod_of_an_older_template_must_be_restarted() {
    let mut old = pod("a", Some((up("r1"), 1)));
    old.template = None;
    let status = judge(&tunnel("Sidecar"), &applied(), &[old], false);
    assert_eq!(says(&status, ConditionType::Provisioned), pair("False", "RollingOut"));
    assert_eq!(message(&status, ConditionType::Provisioned), "Pod a was made before this change; restart it.");
    assert_eq!(says(&status, ConditionType::Ready).0, "True");
}

/// A server's report in which every layer is up.
fn serving(radius: bool) -> Report {
    let mut report = Report::of_server("r1".to_owned(), radius);
    for layer in Layer::SERVER {
        report.set(layer, State::Up, Reason::Listening, "It works.");
    }
    report.sessions = Some(3);
    report
}

fn judge_server(tunnel: &VpnTunnel, outcome: &Outcome, pods: &[Pod], addresses: &[&str]) -> VpnTunnelStatus {
    let addresses = addresses.iter().map(|&address| address.to_owned()).collect();
    let now = Timestamp::from_second(1_000).unwrap();
    status(&Input { tunnel, old: None, outcome, refusal: None, addresses, pods, just_began: false, now })
}

#[test]
fn a_server_has_its_own_conditions_and_nothing_of_a_client() {
    let conditions = |tunnel: &VpnTunnel, radius: bool| -> Vec<String> {
        let status = judge_server(tunnel, &applied(), &[pod("a", Some((serving(radius), 1)))], &["203.0.113.7"]);
        let kinds = |status: &VpnTunnelStatus| -> Vec<String> {
            status.conditions.iter().map(|condition| condition.type_.clone()).collect()
        };
        assert_eq!(kinds(&status), kinds(&judge_server(tunnel, &applied(), &[], &[])));
        assert_eq!((&status.active_peer, &status.assigned_address, &status.negotiated), (&None, &None, &None));
        kinds(&status)
    };
    let first = ["Accepted", "Provisioned", "CredentialsResolved", "Listening", "Forwarding"];
    assert_eq!(conditions(&server(), true), [&first[..], &["RadiusReachable", "Ready", "WeakCrypto"]].concat());
    let mut without = server();
    without.spec.server.as_mut().unwrap().radius = None;
    assert_eq!(conditions(&without, false), [&first[..], &["Ready", "WeakCrypto"]].concat());
    let client = judge(&tunnel("Gateway"), &applied(), &[pod("a", Some((up("r1"), 3)))], false);
    assert!(find(&client.conditions, ConditionType::Listening).is_none() && client.conditions.len() == 10);
    assert_eq!((client.address.as_deref(), client.sessions), (Some("10.20.5.10"), None));
}

#[test]
fn a_server_that_serves_is_ready_and_counts_its_sessions_and_tells_where_to_dial() {
    let pods = [pod("a", Some((serving(true), 1)))];
    let status = judge_server(&server(), &applied(), &pods, &["203.0.113.7", "lb.example.com"]);
    assert_eq!(says(&status, ConditionType::Ready), pair("True", "Serving"));
    assert_eq!((status.sessions, status.pods[0].reason.as_str()), (Some(3), "Serving"));
    assert_eq!(status.address.as_deref(), Some("203.0.113.7,lb.example.com"));
    assert_eq!(status.addresses, ["203.0.113.7", "lb.example.com"]);
}

#[test]
fn a_server_is_not_ready_while_a_layer_is_down_or_nobody_can_reach_it() {
    let judged = |outcome: &Outcome, report: Report, in_service: bool, addresses: &[&str]| {
        let (mut server, mut pod) = (server(), pod("a", Some((report, 1))));
        server.spec.exports.clear();
        pod.in_service = in_service;
        says(&judge_server(&server, outcome, &[pod], addresses), ConditionType::Ready)
    };
    let mut shut = serving(true);
    shut.set(Layer::Forwarding, State::Down, Reason::ForwardingDisabled, "Switch it on.");
    assert_eq!(judged(&applied(), shut, true, &["a"]), pair("False", "ForwardingDisabled"));
    assert_eq!(judged(&applied(), serving(true), false, &["a"]), pair("False", "PodsPending"));
    assert_eq!(judged(&applied(), serving(true), true, &[]), pair("False", "AddressPending"));
    let taken = outcome("r1", vec![Problem { part: Part::DialIn, text: "Service road is taken".to_owned() }]);
    assert_eq!(judged(&taken, serving(true), true, &["a"]), pair("False", "ApplyFailed"));
}
/// A client's report that agreed on what has this weakness.
fn agreed(weakness: Option<&str>) -> Report {
    let mut report = up("r1");
    report.negotiated = Some(towline_tunnel::report::Negotiated {
        ike: "aes256-sha1-modp1024".parse().unwrap(),
        esp: Some("aes256-sha256".parse().unwrap()),
        encapsulation: None,
        ppp_auth: None,
        nat: towline_tunnel::report::Nat::None,
        mtu: Some(1_400),
        weakness: weakness.map(str::to_owned),
        rung: Some("Legacy proposals".to_owned()),
    });
    report
}

#[test]
fn weak_crypto_says_what_is_weak_and_leaves_ready_alone() {
    let mut tunnel = tunnel("Gateway");
    let told = |tunnel: &VpnTunnel, report: Option<Report>| {
        judge(tunnel, &applied(), &[pod("a", report.map(|report| (report, 1)))], false)
    };
    let kind = ConditionType::WeakCrypto;
    assert_eq!(says(&told(&tunnel, None), kind), pair("Unknown", "Pending"));
    let sound = told(&tunnel, Some(agreed(None)));
    assert_eq!(says(&sound, kind), pair("False", "NoWeakness"));
    assert_eq!(sound.negotiated.as_ref().unwrap().rung.as_deref(), Some("Legacy proposals"));
    let words = "modp1024 SHOULD NOT be used in phase 1 (RFC 8247)";
    let weak = told(&tunnel, Some(agreed(Some(words))));
    assert_eq!(says(&weak, kind), pair("True", "WeakCrypto"));
    assert!(message(&weak, kind).starts_with(&format!("{words}. ")), "{}", message(&weak, kind));
    assert_eq!(says(&weak, ConditionType::Ready), pair("True", "ProbeSucceeded"));
    // What was agreed on last stands while the tunnel is dialled again, and while the pod is silent.
    tunnel.status = Some(weak);
    let mut dialling = down(Layer::Ike, Reason::IkeTimeout);
    dialling.assigned_address = None;
    assert_eq!(says(&told(&tunnel, Some(dialling)), kind), pair("True", "WeakCrypto"));
    assert_eq!(says(&told(&tunnel, None), kind), pair("True", "WeakCrypto"));
    assert_eq!(says(&told(&tunnel, Some(agreed(None))), kind), pair("False", "NoWeakness"));
    tunnel.spec.suspend = true;
    assert_eq!(says(&told(&tunnel, None), kind), pair("False", "Suspended"));
}

#[test]
fn one_weak_sidecar_and_one_weak_session_are_enough_and_counted() {
    let pods = [("a", None), ("b", Some("3des SHOULD NOT be used in ESP (RFC 8221)"))];
    let pods = pods.map(|(name, weakness)| pod(name, Some((agreed(weakness), 1))));
    let status = judge(&tunnel("Sidecar"), &applied(), &pods, false);
    assert_eq!(says(&status, ConditionType::WeakCrypto).0, "True");
    assert!(message(&status, ConditionType::WeakCrypto).starts_with("1 of 2 pods: 3des "));

    let mut report = serving(true);
    let judged = |report: &Report| judge_server(&server(), &applied(), &[pod("a", Some((report.clone(), 1)))], &["a"]);
    assert_eq!(says(&judged(&report), ConditionType::WeakCrypto), pair("False", "NoWeakness"));
    let weakness = "modp1024 SHOULD NOT be used in phase 1 (RFC 8247)".to_owned();
    report.weak_sessions = Some(towline_tunnel::report::WeakSessions { count: 2, weakness });
    let status = judged(&report);
    assert_eq!(says(&status, ConditionType::WeakCrypto), pair("True", "WeakCrypto"));
    assert!(message(&status, ConditionType::WeakCrypto).starts_with("2 of 3 sessions are weak: modp1024 "));
    assert_eq!(says(&status, ConditionType::Ready).0, "True");
}
