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
mod tests;
