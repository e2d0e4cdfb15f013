//! What `/metrics` serves, in the text format of Prometheus.

mod server;

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry, Unit};

use super::Snapshot;
use super::relay;
use crate::report::{Layer, State};

/// Bounds of the probe's histogram in seconds: from a site next door to one behind a satellite, and a lost packet or two.
const PROBE_BUCKETS: [f64; 10] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0];

/// What is counted as it happens; the rest is read when it is asked for.
#[derive(Debug, Clone)]
pub struct Instruments {
    /// Round trips of probes, in seconds.
    pub probe_duration: Histogram,
    /// Of the exports.
    pub relay: relay::Instruments,
}

impl Instruments {
    /// All at zero.
    pub fn new(relay: relay::Instruments) -> Self {
        Self { probe_duration: Histogram::new(PROBE_BUCKETS), relay }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLayer {
    layer: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfFacet {
    facet: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfExport {
    export: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Info {
    ike: String,
    esp: String,
    encapsulation: String,
    ppp_auth: String,
    mode: &'static str,
    data_path: &'static str,
}

/// The text of all metrics.
///
/// # Errors
/// None in practice: a string takes all that is written into it.
pub fn render(snapshot: &Snapshot) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("vpn_tunnel");
    let Snapshot { report, counters, drops, instruments, now, .. } = snapshot;
    if let Some(server) = &snapshot.server {
        server::register(&mut registry, server, report.sessions.unwrap_or_default());
    }

    gauge(
        &mut registry,
        "up",
        "Whether the probe answers through the tunnel, or the server serves",
        report.is_ready().into(),
    );
    let layers = Family::<OfLayer, Gauge>::default();
    let failures = Family::<OfLayer, Counter>::default();
    for layer in &report.layers {
        let label = OfLayer { layer: format!("{:?}", layer.layer).to_lowercase() };
        layers.get_or_create(&label).set((layer.state == State::Up).into());
        let failed = counters.failures.get(&layer.layer).copied().unwrap_or_default();
        failures.get_or_create(&label).inc_by(failed);
    }
    registry.register("layer_up", "Whether the layer works", layers);
    registry.register("failures", "Attempts that failed, by the layer that failed", failures);
    let probed = report.layer(Layer::Probe).is_some_and(|probe| probe.state == State::Up);
    gauge(&mut registry, "probe_success", "Whether the last probes answered", probed.into());
    let help = "Round trips of probes that the process sends through the tunnel";
    registry.register_with_unit("probe_duration", help, Unit::Seconds, instruments.probe_duration.clone());

    counter(&mut registry, "receive_packets", "IP packets out of the tunnel", counters.rx_packets);
    counter(&mut registry, "transmit_packets", "IP packets into the tunnel", counters.tx_packets);
    let octets = [
        ("receive", "Octets of IP packets out of the tunnel", counters.rx_octets),
        ("transmit", "Octets of IP packets into the tunnel", counters.tx_octets),
    ];
    for (name, help, value) in octets {
        registry.register_with_unit(name, help, Unit::Bytes, counted(value));
    }
    let dropped = Family::<OfReason, Counter>::default();
    for (&reason, &count) in counters.dropped.iter().chain(drops) {
        dropped.get_or_create(&OfReason { reason }).inc_by(count);
    }
    registry.register("dropped_packets", "Packets that were dropped", dropped);

    counter(&mut registry, "dials", "Attempts", counters.dials);
    let climbs = Family::<OfFacet, Counter>::default();
    for (&facet, &count) in &counters.climbs {
        climbs.get_or_create(&OfFacet { facet }).inc_by(count);
    }
    registry.register("climbs", "Refusals that another way of dialling was tried after, by what differed", climbs);
    let rekeys = Family::<OfLayer, Counter>::default();
    for (layer, count) in [("ike", counters.phase1_rekeys), ("ipsec", counters.phase2_rekeys)] {
        rekeys.get_or_create(&OfLayer { layer: layer.to_owned() }).inc_by(count);
    }
    registry.register("rekeys", "Security associations that were replaced under a running tunnel", rekeys);
    let times = [
        ("last_receive_timestamp", "When the last authenticated packet came", counters.last_receive),
        ("established_timestamp", "Since when the tunnel is up, 0 while it is down", counters.established),
    ];
    for (name, help, at) in times {
        let value = at.map_or(0, |at| i64::try_from(unix_seconds(*now, at)).unwrap_or(i64::MAX));
        registry.register_with_unit(name, help, Unit::Seconds, set(value));
    }

    if let Some(negotiated) = &report.negotiated {
        let info = Family::<Info, Gauge>::default();
        let text = |value: Option<String>| value.unwrap_or_default();
        let labels = Info {
            ike: negotiated.ike.to_string(),
            esp: text(negotiated.esp.map(|esp| esp.to_string())),
            encapsulation: text(negotiated.encapsulation.map(|encapsulation| format!("{encapsulation:?}"))),
            ppp_auth: text(negotiated.ppp_auth.map(|auth| auth.to_string())),
            mode: "client",
            data_path: "tun",
        };
        info.get_or_create(&labels).set(1);
        registry.register("info", "What was negotiated", info);
    }

    let listening = Family::<OfExport, Gauge>::default();
    for export in &report.exports {
        listening.get_or_create(&OfExport { export: export.name.clone() }).set(export.problem.is_none().into());
    }
    registry.register("export_listening", "Whether the export's port is open", listening);
    let help = "TCP connections and UDP flows of exports";
    registry.register("export_connections", help, instruments.relay.connections.clone());
    let help = "Connections to exports that were refused";
    registry.register("export_refused_connections", help, instruments.relay.refused.clone());

    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

fn set(value: i64) -> Gauge {
    let gauge = Gauge::default();
    gauge.set(value);
    gauge
}

fn counted(value: u64) -> Counter {
    let counter = Counter::default();
    counter.inc_by(value);
    counter
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: i64) {
    register(registry, name, help, set(value));
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    register(registry, name, help, counted(value));
}

fn register(registry: &mut Registry, name: &str, help: &str, metric: impl Metric) {
    registry.register(name, help, metric);
}

/// The wall clock's time of `at`, in seconds since the Unix epoch.
pub(super) fn unix_seconds(now: Instant, at: Instant) -> u64 {
    let wall = SystemTime::now().checked_sub(now.saturating_duration_since(at));
    wall.and_then(|wall| wall.duration_since(UNIX_EPOCH).ok()).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Snapshot;
    use crate::report::{ExportReport, Reason, Report};

    #[test]
    fn names_have_the_prefix_and_their_units() {
        let mut snapshot = Snapshot::of(Report::new("1".to_owned()));
        snapshot.report.set(Layer::Ike, State::Up, Reason::MainModeDone, "");
        snapshot.counters.rx_octets = 4096;
        snapshot.counters.dropped.insert("replay", 3);
        snapshot.drops.insert("device", 2);
        snapshot.counters.climbs.insert("identity", 2);
        snapshot.counters.last_receive = Some(snapshot.now);
        snapshot.report.exports.push(ExportReport { name: "db".to_owned(), problem: None });
        snapshot.instruments.probe_duration.observe(0.02);
        let text = render(&snapshot).unwrap();
        for line in [
            "vpn_tunnel_up 0",
            "vpn_tunnel_layer_up{layer=\"ike\"} 1",
            "vpn_tunnel_layer_up{layer=\"ppp\"} 0",
            "vpn_tunnel_receive_bytes_total 4096",
            "vpn_tunnel_receive_packets_total 0",
            "vpn_tunnel_dropped_packets_total{reason=\"replay\"} 3",
            "vpn_tunnel_dropped_packets_total{reason=\"device\"} 2",
            "vpn_tunnel_probe_duration_seconds_count 1",
            "vpn_tunnel_established_timestamp_seconds 0",
            "vpn_tunnel_export_listening{export=\"db\"} 1",
            "vpn_tunnel_climbs_total{facet=\"identity\"} 2",
            "vpn_tunnel_rekeys_total{layer=\"ipsec\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        let last = text.lines().find_map(|line| line.strip_prefix("vpn_tunnel_last_receive_timestamp_seconds "));
        assert!(last.unwrap().parse::<u64>().unwrap() > 1_700_000_000);
        assert!(text.lines().all(|line| line.starts_with('#') || line.starts_with("vpn_tunnel_")));
    }
}
