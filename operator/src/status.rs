//! What a `VpnTunnel`'s status says, from what is known about its pods. Pure.
//!
//! Nothing is True because a pod runs: a layer is what the pod's own report says, and `Ready` is the probe through the tunnel.

pub mod address;
mod crypto;
pub mod user;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;
use towline_tunnel::report::{Layer, LayerReport, Reason, Report, State};

use crate::api::condition::{ConditionType, Truth, Verdict, find};
use crate::api::tunnel::{
    Attachment, MAX_ADDRESSES, MAX_STATUS_PODS, Mode, Negotiated, PodStatus, ServiceStatus, VpnTunnel, VpnTunnelStatus,
};
use crate::build::service_name;
use crate::reports::SILENCE;

/// A report as it was heard.
#[derive(Debug, Clone)]
pub struct Heard {
    /// What the pod said.
    pub report: Report,
    /// How long ago.
    pub age: Duration,
    /// When, for people.
    pub time: Timestamp,
}

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
    /// The digest of the template that it was made from.
    pub template: Option<String>,
    /// The last report.
    pub report: Option<Heard>,
}

/// What is missing without an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The export of this name.
    Export(String),
    /// The Service at which people and sites dial in.
    DialIn,
    /// Something of the tunnel itself.
    Tunnel,
}

/// An object that could not be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is missing without it.
    pub part: Part,
    /// What happened and what to do, without a full stop.
    pub text: String,
}

/// What became of the objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The specification can be carried out.
    Applied {
        /// Of the configuration.
        revision: String,
        /// Of what pods are made from.
        template: String,
        /// What could not be written.
        problems: Vec<Problem>,
    },
    /// The specification cannot be carried out.
    Invalid(String),
}

impl Outcome {
    fn problems(&self) -> &[Problem] {
        match self {
            Self::Applied { problems, .. } => problems,
            Self::Invalid(_) => &[],
        }
    }
}

/// All that a status is made of.
pub struct Input<'a> {
    /// The tunnel.
    pub tunnel: &'a VpnTunnel,
    /// Its status before this one.
    pub old: Option<&'a VpnTunnelStatus>,
    /// What became of its objects.
    pub outcome: &'a Outcome,
    /// Why its Deployment gets no pod.
    pub refusal: Option<String>,
    /// Of a server: the addresses that people and sites dial.
    pub addresses: Vec<String>,
    /// Its pods, those that end left out.
    pub pods: &'a [Pod],
    /// The operator has just begun to lead: a pod that it has not heard of is no news.
    pub just_began: bool,
    /// The wall clock.
    pub now: Timestamp,
}

impl Input<'_> {
    /// Whether the layers tell of the specification as it stands: every pod runs it, or there is none that runs another.
    fn is_current(&self) -> bool {
        let Outcome::Applied { revision, .. } = self.outcome else { return self.pods.is_empty() };
        let runs = |pod: &Pod| pod.fresh().is_some_and(|report| report.revision == *revision);
        self.tunnel.spec.suspend || self.pods.iter().all(|pod| !pod.running || runs(pod))
    }
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
        self.report.as_ref().filter(|heard| heard.age <= SILENCE).map(|heard| &heard.report)
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
    let old = input.old;
    let old_conditions = old.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let worst = input.pods.iter().min_by_key(|pod| pod.standing());
    let is_current = input.is_current();
    let conditions = ConditionType::ALL
        .iter()
        .filter(|kind| kind.is_of(&tunnel.spec))
        .filter_map(|kind| {
            let old = find(old_conditions, *kind);
            let is_ours = matches!(kind, ConditionType::Accepted | ConditionType::Provisioned);
            // A layer that is up with the specification before this one says nothing about this one.
            let observed = if is_ours || is_current { generation } else { old.and_then(|old| old.observed_generation) };
            match verdict(input, *kind, worst) {
                Some(verdict) => Some(verdict.condition(*kind, old_conditions, observed, input.now)),
                // Nothing new is known.
                None => old.cloned(),
            }
        })
        .collect();
    let told = worst.and_then(Pod::fresh);
    let keep = told.is_none() && input.just_began && !input.pods.is_empty();
    let kept = old.filter(|_| keep);
    let alone = input.pods.len() == 1;
    let peers = tunnel.spec.client.iter().flat_map(|client| &client.peers);
    let assigned_address = told.filter(|_| alone).map_or_else(
        || kept.and_then(|old| old.assigned_address.clone()),
        |report| report.assigned_address.map(|address| address.to_string()),
    );
    let dialled = (!input.addresses.is_empty()).then(|| input.addresses.join(","));
    VpnTunnelStatus {
        observed_generation: generation,
        conditions,
        active_peer: told
            .map_or_else(|| kept.and_then(|old| old.active_peer.clone()), |report| report.active_peer.clone())
            .or_else(|| peers.map(|peer| peer.address.clone()).next()),
        address: dialled.or_else(|| assigned_address.clone()),
        addresses: input.addresses.iter().take(MAX_ADDRESSES).cloned().collect(),
        sessions: told.map_or_else(|| kept.and_then(|old| old.sessions), |report| report.sessions),
        assigned_address,
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
        services: services(input),
    }
}

fn time(seconds: u64) -> Option<Time> {
    Timestamp::from_second(i64::try_from(seconds).ok()?).ok().map(Time)
}

fn negotiated(report: &Report) -> Option<Negotiated> {
    report.negotiated.as_ref().map(|negotiated| Negotiated {
        ike: negotiated.ike.to_string(),
        esp: negotiated.esp.map(|esp| esp.to_string()),
        encapsulation: negotiated.encapsulation.map(|encapsulation| format!("{encapsulation:?}")),
        ppp_auth: negotiated.ppp_auth.map(|auth| auth.to_string()),
        nat: format!("{:?}", negotiated.nat),
        mtu: negotiated.mtu,
        weakness: negotiated.weakness.clone(),
        rung: negotiated.rung.clone(),
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
            let up = report.layer(Layer::Probe).map_or(Reason::Serving, |probe| probe.reason);
            let cause = || report.cause().map_or(Reason::Pending, |cause| cause.reason);
            let reason = if report.is_ready() { up } else { cause() };
            (report.is_ready(), reason, report.assigned_address.map(|address| address.to_string()))
        }
    };
    PodStatus { name: pod.name.clone(), ready, reason: reason.name().to_owned(), address }
}

/// The Services that are there.
fn services(input: &Input<'_>) -> Vec<ServiceStatus> {
    let tunnel = input.tunnel;
    let status = |export: &crate::api::tunnel::Export| ServiceStatus {
        name: export.name.clone(),
        service_name: service_name(&tunnel.name_any(), &export.name),
        port: export.port,
    };
    let is_missing =
        |name: &str| input.outcome.problems().iter().any(|problem| problem.part == Part::Export(name.to_owned()));
    tunnel.spec.exports.iter().filter(|export| !is_missing(&export.name)).map(status).collect()
}

/// What a condition says now; none to leave it as it is.
fn verdict(input: &Input<'_>, kind: ConditionType, worst: Option<&Pod>) -> Option<Verdict> {
    match (kind, input.outcome) {
        (ConditionType::Accepted, Outcome::Invalid(problem)) => Some(Verdict::no(Reason::InvalidSpec, problem)),
        (ConditionType::Accepted, _) => {
            Some(Verdict::yes(Reason::Valid, "The specification is complete and consistent."))
        }
        (ConditionType::WeakCrypto, _) if !input.tunnel.spec.suspend => crypto::weak(input),
        (_, Outcome::Invalid(problem)) if worst.is_none() => Some(Verdict::no(Reason::InvalidSpec, problem)),
        (ConditionType::Provisioned, outcome) => provisioned(input, outcome, worst),
        (_, _) if input.tunnel.spec.suspend => {
            Some(Verdict::no(Reason::Suspended, "The tunnel is switched off; set spec.suspend to false."))
        }
        (_, _) => layer(input, kind, worst),
    }
}

fn provisioned(input: &Input<'_>, outcome: &Outcome, worst: Option<&Pod>) -> Option<Verdict> {
    let (revision, template) = match outcome {
        Outcome::Invalid(problem) => return Some(Verdict::no(Reason::InvalidSpec, problem)),
        Outcome::Applied { problems, .. } if !problems.is_empty() => {
            let texts: Vec<&str> = problems.iter().map(|problem| problem.text.as_str()).collect();
            return Some(Verdict::no(Reason::ApplyFailed, format!("{}.", texts.join("; "))));
        }
        Outcome::Applied { revision, template, .. } => (revision, template),
    };
    if input.tunnel.spec.suspend {
        return Some(Verdict::yes(Reason::Suspended, "The tunnel is switched off and has no pod."));
    }
    let Some(worst) = worst else { return Some(without_pods(input)) };
    if !worst.running {
        let message = format!("Pod {} does not run yet: {}.", worst.name, worst.waiting.trim_end_matches('.'));
        return Some(Verdict::no(Reason::PodsPending, message));
    }
    let behind = input.pods.iter().filter_map(|pod| Some((pod, pod.fresh()?)));
    let behind = behind.filter(|(_, report)| report.revision != *revision).min_by_key(|(pod, _)| pod.standing());
    if let Some((pod, report)) = behind {
        return Some(rolling_out(pod, report, revision));
    }
    let made_before = |pod: &&Pod| pod.template.as_ref() != Some(template);
    if let Some(pod) = input.pods.iter().find(made_before) {
        let remedy = match input.tunnel.spec.attachment {
            Attachment::Gateway => "its Deployment replaces it",
            Attachment::Sidecar => "restart it",
        };
        let message = format!("Pod {} was made before this change; {remedy}.", pod.name);
        return Some(Verdict::no(Reason::RollingOut, message));
    }
    match input.pods.iter().find(|pod| pod.fresh().is_none()) {
        Some(pod) => silent(input, pod),
        None => Some(Verdict::yes(Reason::PodsReady, "Every pod runs the specification as it stands.")),
    }
}

fn rolling_out(pod: &Pod, report: &Report, revision: &str) -> Verdict {
    match &report.rejected_revision {
        Some(rejected) if rejected.revision == revision => Verdict::no(
            Reason::InvalidSpec,
            format!("Pod {} goes on with the specification before this one: {}", pod.name, rejected.message),
        ),
        _ => Verdict::no(
            Reason::RollingOut,
            format!("Pod {} does not run the change yet; the kubelet hands it on within two minutes.", pod.name),
        ),
    }
}

/// A pod that runs and does not report; none as long as that is no news.
fn silent(input: &Input<'_>, pod: &Pod) -> Option<Verdict> {
    let silence = match &pod.report {
        None if input.just_began => return None,
        None => "has not reported yet".to_owned(),
        Some(heard) => format!("has not reported since {} UTC", heard.time.strftime("%H:%M:%S")),
    };
    let message = format!(
        "Pod {} {silence}; the tunnel may carry traffic all the same. Look into the pod's log: it says why it cannot reach the operator.",
        pod.name
    );
    Some(Verdict::unknown(Reason::PodSilent, message))
}

fn without_pods(input: &Input<'_>) -> Verdict {
    let tunnel = input.tunnel;
    match (tunnel.spec.attachment, &input.refusal) {
        (Attachment::Gateway, Some(refusal)) => Verdict::no(Reason::PodsPending, refusal),
        (Attachment::Gateway, None) => Verdict::no(Reason::PodsPending, "The tunnel's pod is not there yet."),
        (Attachment::Sidecar, _) => Verdict::unknown(
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
    let is_ready = kind == ConditionType::Ready;
    let Some(pod) = worst else {
        let verdict = without_pods(input);
        let truth = if is_ready { verdict.truth } else { Truth::Unknown };
        return Some(Verdict { truth, ..verdict });
    };
    if !pod.running {
        let message = format!("Pod {} does not run: {}.", pod.name, pod.waiting.trim_end_matches('.'));
        let truth = if is_ready { Truth::False } else { Truth::Unknown };
        return Some(Verdict { truth, reason: Reason::PodsPending, message });
    }
    let Some(report) = pod.fresh() else { return silent(input, pod) };
    if is_ready
        && report.is_ready()
        && let Some(verdict) = out_of_service(input, pod, report)
    {
        return Some(verdict);
    }
    let found = if is_ready && !report.is_ready() {
        // Ready tells the cause, whichever layer it is in.
        report.cause()
    } else if is_ready && input.tunnel.spec.mode == Mode::Server {
        // It has no layer of its own: it is up when all are.
        return Some(Verdict::yes(Reason::Serving, "People and sites can dial in."));
    } else {
        report.layers.iter().find(|layer| ConditionType::from(layer.layer) == kind)
    };
    let mut verdict = of_layer(found?);
    if is_ready && !report.is_ready() {
        verdict.truth = Truth::False;
    }
    if input.pods.len() > 1 {
        let up = input.pods.iter().filter(|pod| pod.standing() == Standing::Up).count();
        verdict.message = format!("{up} of {} pods are up. Pod {}: {}", input.pods.len(), pod.name, verdict.message);
    }
    Some(verdict)
}

/// Why a tunnel that is up is of no use to those who ask its Services.
fn out_of_service(input: &Input<'_>, pod: &Pod, report: &Report) -> Option<Verdict> {
    let spec = &input.tunnel.spec;
    let is_server = spec.mode == Mode::Server;
    if spec.exports.is_empty() && spec.imports.is_empty() && !is_server {
        return None;
    }
    let up = if is_server { "The server listens" } else { "The tunnel is up" };
    let mut problems = input.outcome.problems().iter();
    if let Some(problem) = problems.find(|problem| problem.part != Part::Tunnel) {
        let missing = match problem.part {
            Part::DialIn => "nobody can dial in",
            _ => "an export has no Service",
        };
        let message = format!("{up}, but {missing}: {}.", problem.text);
        return Some(Verdict::no(Reason::ApplyFailed, message));
    }
    let exports = report.exports.iter().map(|export| ("export", export));
    let mut ports = exports.chain(report.imports.iter().map(|import| ("import", import)));
    let unserved = ports.find_map(|(kind, port)| Some((kind, &port.name, port.problem.as_ref()?)));
    if let Some((kind, name, problem)) = unserved {
        let message = format!("{up}, but pod {} does not serve {kind} {name}: {problem}", pod.name);
        return Some(Verdict::no(Reason::DeviceFailed, message));
    }
    if !pod.in_service {
        let message = format!("{up}; its Services lead to pod {} as soon as the kubelet finds it ready.", pod.name);
        return Some(Verdict::no(Reason::PodsPending, message));
    }
    let message = format!(
        "{up}, but Service {} has no address yet: the cluster needs a load balancer, or set spec.server.service.type to NodePort, or externalIPs.",
        input.tunnel.name_any()
    );
    (is_server && input.addresses.is_empty()).then(|| Verdict::no(Reason::AddressPending, message))
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
        let export = |name: &str, problem: Option<&str>| ExportReport {
            name: name.to_owned(),
            problem: problem.map(str::to_owned),
        };
        report.exports = vec![export("db", None), export("web", Some("Port 80 is in use."))];
        let status = judge(&tunnel("Gateway"), &applied(), &[pod("a", Some((report, 1)))], false);
        assert_eq!(says(&status, ConditionType::Ready), pair("False", "DeviceFailed"));
        let text = "The tunnel is up, but pod a does not serve export web: Port 80 is in use.";
        assert_eq!(message(&status, ConditionType::Ready), text);
    }

    #[test]
    fn an_import_that_the_pod_does_not_serve_keeps_a_server_from_being_ready() {
        let mut report = serving(false);
        report.imports =
            vec![ExportReport { name: "orders".to_owned(), problem: Some("Port 80 is in use.".to_owned()) }];
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
        let judged =
            |report: &Report| judge_server(&server(), &applied(), &[pod("a", Some((report.clone(), 1)))], &["a"]);
        assert_eq!(says(&judged(&report), ConditionType::WeakCrypto), pair("False", "NoWeakness"));
        let weakness = "modp1024 SHOULD NOT be used in phase 1 (RFC 8247)".to_owned();
        report.weak_sessions = Some(towline_tunnel::report::WeakSessions { count: 2, weakness });
        let status = judged(&report);
        assert_eq!(says(&status, ConditionType::WeakCrypto), pair("True", "WeakCrypto"));
        assert!(message(&status, ConditionType::WeakCrypto).starts_with("2 of 3 sessions are weak: modp1024 "));
        assert_eq!(says(&status, ConditionType::Ready).0, "True");
    }
}
