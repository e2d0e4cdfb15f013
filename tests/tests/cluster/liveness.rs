//! `Ready` tells the truth about a gateway that dies and comes back.

use std::time::{Duration, Instant};

use towline_tests::release::{fetch, wait_for_condition};

use super::evidence::now;
use super::gateway::wait_for_page;
use super::world::{APP, Tunnel, alta, bodo, json, kubectl, settle};

const LIMIT: Duration = Duration::from_secs(30);

/// The tunnel's events of type `kind` since `since`: their reasons.
fn reasons(tunnel: &Tunnel, kind: &str, since: &str) -> Vec<String> {
    let events = json(&tunnel.cluster, "get events.events.k8s.io -o json");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    events["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["regarding"]["kind"] == "VpnTunnel" && event["regarding"]["name"] == tunnel.name)
        .filter(|event| event["type"] == kind)
        .filter(|event| {
            let (first, last) = (text(&event["eventTime"]), text(&event["series"]["lastObservedTime"]));
            first.max(last).as_str() >= since
        })
        .map(|event| text(&event["reason"]))
        .collect()
}

#[test]
fn a_dead_gateway_is_told_within_30_seconds_by_tcp_and_lcp_probes_and_ready_comes_back_with_it() {
    let (mut alta, mut bodo) = (alta(), bodo());
    let since = now();
    alta.kill_gateway();
    bodo.kill_gateway();
    let killed = Instant::now();
    for tunnel in [&alta, &bodo] {
        let patience = LIMIT.saturating_sub(killed.elapsed());
        let (_, reason, message) =
            wait_for_condition(&tunnel.cluster, tunnel.name, "Ready", patience, |(status, ..)| status == "False")
                .unwrap();
        println!("{} is not Ready after {:.1} s: {reason}: {message}", tunnel.name, killed.elapsed().as_secs_f32());
        assert_eq!(reason, "ProbeFailed", "{}: {message}", tunnel.name);
        let row = kubectl(&tunnel.cluster, &format!("get vt {} --no-headers", tunnel.name));
        for word in ["False", "ProbeFailed", tunnel.address] {
            assert!(row.contains(word), "{word} is not in {row}");
        }
    }
    // In the end it is the gateway that is dead, and not the host behind it.
    for tunnel in [&alta, &bodo] {
        let (_, reason, message) = wait_for_condition(
            &tunnel.cluster,
            tunnel.name,
            "PeerReachable",
            Duration::from_secs(60),
            |(status, ..)| status == "False",
        )
        .unwrap();
        assert!(["DeadPeer", "PeerSilent"].contains(&reason.as_str()), "{}: {reason}: {message}", tunnel.name);
    }
    assert!(fetch(&alta.cluster, APP, "http://alta-web/").is_err());

    alta.boot_gateway();
    bodo.boot_gateway();
    for tunnel in [&alta, &bodo] {
        settle(&tunnel.cluster, tunnel.name);
        let (down, up) = (reasons(tunnel, "Warning", &since), reasons(tunnel, "Normal", &since));
        assert!(down.iter().any(|reason| reason == "ProbeFailed"), "{}: {down:?}", tunnel.name);
        assert!(up.iter().any(|reason| reason == "ProbeSucceeded"), "{}: {up:?}", tunnel.name);
    }
    wait_for_page(&alta.cluster, "http://alta-web/");
}
