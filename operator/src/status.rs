//! What a `VpnTunnel`'s status says, from what is known about its pods. Pure.
//!
//! Nothing is True because a pod runs: a layer is what the pod's own report says, and `Ready` is the probe through the tunnel.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;
use towline_tunnel::report::{Layer, LayerReport, Reason, Report, State};

use crate::api::condition::{ConditionType, Truth, Verdict, find};
use crate::api::tunnel::{
    Attachment, MAX_STATUS_PODS, Negotiated, PodStatus, ServiceStatus, VpnTunnel, VpnTunnelStatus,
};
use crate::build::service_name;
use crate::reports::SILENCE;

/// A pod of the tunnel, as the API server and the pod itself describe it.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Whether the tunnel's container runs.
    pub running: bool,
    /// Why it does not, in the kubelet's or the scheduler's words.
    pub waiting: String,
    /// Whether Services lead to it: the condition `Ready` of the pod.
    pub in_service: bool,
    /// The last report and its age.
    pub report: Option<(Report, Duration)>,
}

/// What became of the objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// They are written, with the configuration of this revision.
    Applied(String),
    /// The specification cannot be carried out.
    Invalid(String),
    /// The API server refused an object.
    Failed(String),
}

/// All that a status is made of.
pub struct Input<'a> {
    /// The tunnel with its old status.
    pub tunnel: &'a VpnTunnel,
    /// What became of its objects.
    pub outcome: &'a Outcome,
    /// Its pods, those that end left out.
    pub pods: &'a [Pod],
    /// The operator has just begun to lead: a pod that it has not heard of is no news.
    pub just_began: bool,
    /// The wall clock.
    pub now: Timestamp,
}

/// How a pod stands, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    NotRunning,
    Silent,
    Down(Layer),
    Up,
}

impl Pod {
    /// The report, unless it is too old.
    fn fresh(&self) -> Option<&Report> {
        self.report.as_ref().filter(|(_, age)| *age <= SILENCE).map(|(report, _)| report)
    }

    fn standing(&self) -> Standing {
        match self.fresh() {
            _ if !self.running => Standing::NotRunning,
            None => Standing::Silent,
            Some(report) if report.is_ready() => Standing::Up,
            Some(report) => Standing::Down(report.cause().map_or(Layer::Probe, |cause| cause.layer)),
        }
    }
}

/// The status of a tunnel.
pub fn status(input: &Input<'_>) -> VpnTunnelStatus {
    let tunnel = input.tunnel;
    let generation = tunnel.metadata.generation;
    let old = tunnel.status.as_ref();
    let old_conditions = old.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let worst = input.pods.iter().min_by_key(|pod| pod.standing());
    let conditions = ConditionType::ALL
        .iter()
        .filter_map(|kind| {
            let verdict = verdict(input, *kind, worst);
            match verdict {
                Some(verdict) => Some(verdict.condition(*kind, old_conditions, generation, input.now)),
                // Nothing new is known.
                None => find(old_conditions, *kind).cloned(),
            }
        })
        .collect();
    let told = worst.and_then(Pod::fresh);
    let keep = told.is_none() && input.just_began && !input.pods.is_empty();
    let kept = old.filter(|_| keep);
    let alone = input.pods.len() == 1;
    VpnTunnelStatus {
        observed_generation: generation,
        conditions,
        active_peer: told
            .map_or_else(|| kept.and_then(|old| old.active_peer.clone()), |report| report.active_peer.clone())
            .or_else(|| tunnel.spec.client.peers.first().map(|peer| peer.address.clone())),
        assigned_address: told.filter(|_| alone).map_or_else(
            || kept.and_then(|old| old.assigned_address.clone()),
            |report| report.assigned_address.map(|address| address.to_string()),
        ),
        peer_address: told.map_or_else(
            || kept.and_then(|old| old.peer_address.clone()),
            |report| report.peer_address.map(|address| address.to_string()),
        ),
        established_at: told.map_or_else(
            || kept.and_then(|old| old.established_at.clone()),
            |report| report.established_at.and_then(time),
        ),
        negotiated: told.map_or_else(|| kept.and_then(|old| old.negotiated.clone()), negotiated),
        pods: input.pods.iter().take(MAX_STATUS_PODS).map(|pod| pod_status(pod, old)).collect(),
        services: services(tunnel),
    }
}

fn time(seconds: u64) -> Option<Time> {
    Timestamp::from_second(i64::try_from(seconds).ok()?).ok().map(Time)
}

fn negotiated(report: &Report) -> Option<Negotiated> {
    report.negotiated.as_ref().map(|negotiated| Negotiated {
        ike: negotiated.ike.to_string(),
        esp: negotiated.esp.map(|esp| esp.to_string()),
        ppp_auth: negotiated.ppp_auth.map(|auth| auth.to_string()),
        nat: format!("{:?}", negotiated.nat),
        mtu: negotiated.mtu,
        weakness: negotiated.weakness.clone(),
    })
}

fn pod_status(pod: &Pod, old: Option<&VpnTunnelStatus>) -> PodStatus {
    let (ready, reason, address) = match pod.fresh() {
        _ if !pod.running => (false, Reason::PodsPending, None),
        None => {
            let known = old.and_then(|old| old.pods.iter().find(|known| known.name == pod.name));
            let address = known.and_then(|known| known.address.clone());
            (false, Reason::PodSilent, address)
        }
        Some(report) => {
            let probe = report.layer(Layer::Probe).map_or(Reason::Pending, |probe| probe.reason);
            let reason = if report.is_ready() { probe } else { report.cause().map_or(probe, |cause| cause.reason) };
            (report.is_ready(), reason, report.assigned_address.map(|address| address.to_string()))
        }
    };
    PodStatus { name: pod.name.clone(), ready, reason: reason.name().to_owned(), address }
}

fn services(tunnel: &VpnTunnel) -> Vec<ServiceStatus> {
    let status = |export: &crate::api::tunnel::Export| ServiceStatus {
        name: export.name.clone(),
        service_name: service_name(&tunnel.name_any(), &export.name),
        port: export.port,
    };
    tunnel.spec.exports.iter().map(status).collect()
}

/// What a condition says now; none to leave it as it is.
fn verdict(input: &Input<'_>, kind: ConditionType, worst: Option<&Pod>) -> Option<Verdict> {
    match (kind, input.outcome) {
        (ConditionType::Accepted, Outcome::Invalid(problem)) => Some(Verdict::no(Reason::InvalidSpec, problem)),
        (ConditionType::Accepted, _) => {
            Some(Verdict::yes(Reason::Valid, "The specification is complete and consistent."))
        }
        (_, Outcome::Invalid(problem)) if worst.is_none() => Some(Verdict::no(Reason::InvalidSpec, problem)),
        (ConditionType::Provisioned, outcome) => Some(provisioned(input, outcome, worst)),
        (_, _) if input.tunnel.spec.suspend => {
            Some(Verdict::no(Reason::Suspended, "The tunnel is switched off; set spec.suspend to false."))
        }
        (_, _) => layer(input, kind, worst),
    }
}

fn provisioned(input: &Input<'_>, outcome: &Outcome, worst: Option<&Pod>) -> Verdict {
    let revision = match outcome {
        Outcome::Applied(revision) => revision,
        Outcome::Invalid(problem) => return Verdict::no(Reason::InvalidSpec, problem),
        Outcome::Failed(problem) => return Verdict::no(Reason::ApplyFailed, problem),
    };
    if input.tunnel.spec.suspend {
        return Verdict::yes(Reason::Suspended, "The tunnel is switched off and has no pod.");
    }
    let Some(worst) = worst else { return without_pods(input.tunnel) };
    if !worst.running {
        return Verdict::no(Reason::PodsPending, format!("Pod {} does not run yet: {}", worst.name, worst.waiting));
    }
    let behind = input.pods.iter().find_map(|pod| {
        let report = pod.fresh()?;
        (report.revision != *revision).then_some((pod, report))
    });
    match behind {
        Some((pod, report)) => match &report.rejected_revision {
            Some(rejected) if rejected.revision == *revision => Verdict::no(
                Reason::InvalidSpec,
                format!("Pod {} goes on with the specification before this one: {}", pod.name, rejected.message),
            ),
            _ => Verdict::no(
                Reason::RollingOut,
                format!("Pod {} does not run the change yet; the kubelet hands it on within two minutes.", pod.name),
            ),
        },
        None => Verdict::yes(Reason::PodsReady, "Every pod runs the specification as it stands."),
    }
}

fn without_pods(tunnel: &VpnTunnel) -> Verdict {
    match tunnel.spec.attachment {
        Attachment::Gateway => Verdict::no(Reason::PodsPending, "The tunnel's pod is not there yet."),
        Attachment::Sidecar => Verdict::unknown(
            Reason::NoPods,
            format!(
                "No pod carries the label towline.dev/tunnel: {}; label the pods that need the tunnel.",
                tunnel.name_any()
            ),
        ),
    }
}

/// A condition that the pods' reports decide.
fn layer(input: &Input<'_>, kind: ConditionType, worst: Option<&Pod>) -> Option<Verdict> {
    let Some(pod) = worst else {
        let verdict = without_pods(input.tunnel);
        let truth = if kind == ConditionType::Ready { verdict.truth } else { Truth::Unknown };
        return Some(Verdict { truth, ..verdict });
    };
    if !pod.running {
        let message = format!("Pod {} does not run: {}", pod.name, pod.waiting);
        let truth = if kind == ConditionType::Ready { Truth::False } else { Truth::Unknown };
        return Some(Verdict { truth, reason: Reason::PodsPending, message });
    }
    let Some(report) = pod.fresh() else {
        if input.just_began && pod.report.is_none() {
            return None;
        }
        let silence = pod.report.as_ref().map_or_else(
            || "has not reported yet".to_owned(),
            |(_, age)| format!("has not reported for {} s", age.as_secs()),
        );
        let message = format!(
            "Pod {} {silence}; the tunnel may carry traffic all the same. Look into the pod's log: it says why it cannot reach the operator.",
            pod.name
        );
        return Some(Verdict::unknown(Reason::PodSilent, message));
    };
    let has_services = !input.tunnel.spec.exports.is_empty();
    if kind == ConditionType::Ready && report.is_ready() && has_services && !pod.in_service {
        let message =
            format!("The tunnel is up; its Services lead to pod {} as soon as the kubelet finds it ready.", pod.name);
        return Some(Verdict::no(Reason::PodsPending, message));
    }
    let found = if kind == ConditionType::Ready && !report.is_ready() {
        // Ready tells the cause, whichever layer it is in.
        report.cause()
    } else {
        report.layers.iter().find(|layer| ConditionType::from(layer.layer) == kind)
    };
    let found = found?;
    let mut verdict = of_layer(found);
    if kind == ConditionType::Ready && !report.is_ready() {
        verdict.truth = Truth::False;
    }
    if input.pods.len() > 1 {
        let up = input.pods.iter().filter(|pod| pod.standing() == Standing::Up).count();
        verdict.message = format!("{up} of {} pods are up. Pod {}: {}", input.pods.len(), pod.name, verdict.message);
    }
    Some(verdict)
}

fn of_layer(layer: &LayerReport) -> Verdict {
    let truth = match layer.state {
        State::Up => Truth::True,
        State::Down => Truth::False,
        State::Pending => Truth::Unknown,
    };
    Verdict { truth, reason: layer.reason, message: layer.message.clone() }
}

/// Status and reason of `Ready`: what events and metrics are about.
pub fn readiness(status: Option<&VpnTunnelStatus>) -> Option<(&str, &str)> {
    let ready: &Condition = find(&status?.conditions, ConditionType::Ready)?;
    Some((ready.status.as_str(), ready.reason.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::tests::tunnel;

    fn up(revision: &str) -> Report {
        let mut report = Report::new(revision.to_owned());
        for layer in Layer::ALL {
            report.set(layer, State::Up, Reason::ProbeSucceeded, "It works.");
        }
        report.assigned_address = Some([10, 20, 5, 10].into());
        report.active_peer = Some("vpn.oslo.example.com".to_owned());
        report
    }

    fn down(layer: Layer, reason: Reason) -> Report {
        let mut report = up("r1");
        report.set(layer, State::Down, reason, "Do this.");
        for other in Layer::ALL.into_iter().filter(|other| *other > layer) {
            report.set(other, State::Pending, Reason::WaitingForLowerLayer, "Waits.");
        }
        report
    }

    fn pod(name: &str, report: Option<(Report, u64)>) -> Pod {
        let report = report.map(|(report, age)| (report, Duration::from_secs(age)));
        Pod { name: name.to_owned(), running: true, waiting: String::new(), in_service: true, report }
    }

    fn judge(tunnel: &VpnTunnel, outcome: &Outcome, pods: &[Pod], just_began: bool) -> VpnTunnelStatus {
        status(&Input { tunnel, outcome, pods, just_began, now: Timestamp::from_second(1_000).unwrap() })
    }

    fn applied() -> Outcome {
        Outcome::Applied("r1".to_owned())
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
        let outcome = Outcome::Applied("r2".to_owned());
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
        let pods =
            [pod("a", Some((up("r1"), 1))), pod("b", Some((down(Layer::Ppp, Reason::PppAuthenticationFailed), 1)))];
        let status = judge(&tunnel("Sidecar"), &applied(), &pods, false);
        assert_eq!(says(&status, ConditionType::Ready), pair("False", "PppAuthenticationFailed"));
        assert!(
            find(&status.conditions, ConditionType::Ready).unwrap().message.starts_with("1 of 2 pods are up. Pod b: ")
        );
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
        let failed = judge(&tunnel, &Outcome::Failed("quota".to_owned()), &[], false);
        assert_eq!(says(&failed, ConditionType::Provisioned), pair("False", "ApplyFailed"));
        tunnel.spec.suspend = true;
        let suspended = judge(&tunnel, &applied(), &[], false);
        assert_eq!(says(&suspended, ConditionType::Ready), pair("False", "Suspended"));
        assert_eq!(says(&suspended, ConditionType::Provisioned), pair("True", "Suspended"));
    }
}
