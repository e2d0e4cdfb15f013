//! What is wrong with a configuration that the types alone take: bounds, and fields that contradict each other.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use super::{
    Admin, Config, Credentials, Esp, Exchange, Identity, IdentityKind, Ike, InvalidConfig, InvalidField, L2tp,
    MAX_EXPORTS, MAX_PEERS, MAX_PROPOSALS, MAX_REMOTE_CIDRS, Ppp, PppAuth, ProbeKind, ReportTo,
};

mod server;

use super::server::{Import, MAX_IMPORTS};

/// The longest path of a Unix socket: `sun_path` of unix(7) without its zero.
const MAX_SOCKET_PATH: usize = 107;

impl Config {
    /// Checks what the types alone do not.
    ///
    /// # Errors
    /// Every field that is wrong, by its path.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        let mut check = Check(Vec::new());
        check.count("peers", "entries", self.peers.len(), 1, MAX_PEERS);
        for (index, peer) in self.peers.iter().enumerate() {
            if !is_host(&peer.address) {
                check.wrong(
                    format!("peers[{index}].address"),
                    format!(
                        "{:?} is neither a DNS name nor an IP address; name the gateway by one of them",
                        peer.address
                    ),
                );
            }
        }
        self.check_credentials(&mut check);
        self.check_protocols(&mut check);
        self.check_network(&mut check);
        self.check_exports(&mut check);
        check.imports(&self.imports);
        self.check_health(&mut check);
        check.process(&self.admin, self.report.as_ref());
        if check.0.is_empty() { Ok(()) } else { Err(InvalidConfig(check.0)) }
    }

    fn check_credentials(&self, check: &mut Check) {
        let Credentials { pre_shared_key, certificate, .. } = &self.credentials;
        match (pre_shared_key, certificate) {
            (None, None) => {
                let problem = "neither preSharedKey nor certificate is given; no gateway would believe us, so give one";
                check.wrong("credentials", problem.to_owned());
            }
            (Some(_), Some(_)) => {
                let problem =
                    "preSharedKey and certificate are given; a gateway is asked with one of them, so remove the other";
                check.wrong("credentials", problem.to_owned());
            }
            (None, Some(certificate)) => {
                check.identity("credentials.certificate.remoteId", certificate.remote_id.as_ref());
                if self.ike.exchange == Exchange::Aggressive {
                    let problem = "Aggressive needs credentials.preSharedKey; with a certificate use Main";
                    check.wrong("ike.exchange", problem.to_owned());
                }
                let local_id = self.ike.local_id.as_ref();
                if local_id.is_some_and(|id| id.kind == IdentityKind::KeyId) {
                    let problem =
                        "KeyId is no name that a certificate has; use Fqdn, UserFqdn or Address, or remove it";
                    check.wrong("ike.localId.type", problem.to_owned());
                }
            }
            (Some(_), None) => {}
        }
    }

    fn check_protocols(&self, check: &mut Check) {
        check.phase_1(&self.ike);
        check.esp(&self.esp);
        check.links(&self.l2tp, &self.ppp);
    }

    fn check_network(&self, check: &mut Check) {
        check.count("network.remoteCIDRs", "entries", self.network.remote_cidrs.len(), 0, MAX_REMOTE_CIDRS);
        for (index, cidr) in self.network.remote_cidrs.iter().enumerate() {
            let field = format!("network.remoteCIDRs[{index}]");
            if cidr.addr().is_ipv6() && !self.network.ipv6 {
                check.wrong(field, format!("{cidr} is IPv6; set network.ipv6 to true, or remove it"));
            } else if cidr.prefix_len() == 0 {
                check.wrong(field, format!("{cidr} would take every packet; name the networks behind the peer"));
            }
        }
        check.device(self.network.mtu, &self.network.device);
    }

    fn check_exports(&self, check: &mut Check) {
        check.count("exports", "entries", self.exports.len(), 0, MAX_EXPORTS);
        let mut listeners = BTreeSet::new();
        for (index, export) in self.exports.iter().enumerate() {
            if !listeners.insert((export.protocol, export.listen)) {
                check.wrong(
                    format!("exports[{index}].listen"),
                    format!("{} {} is used twice; give each export a port of its own", export.protocol, export.listen),
                );
            }
            check.port(format!("exports[{index}].listen"), export.listen.port());
            check.port(format!("exports[{index}].port"), export.port);
            if !self.is_remote(export.host) {
                check.wrong(format!("exports[{index}].host"), outside(export.host));
            }
        }
    }

    fn check_health(&self, check: &mut Check) {
        let health = &self.health_check;
        check.range("healthCheck.intervalSeconds", health.interval_seconds.into(), 1, 300);
        check.range("healthCheck.failureThreshold", health.failure_threshold.into(), 1, 10);
        let kind = health.kind;
        if (kind == ProbeKind::Lcp) == health.host.is_some() {
            check.presence("healthCheck.host", kind, kind != ProbeKind::Lcp);
        }
        if (kind == ProbeKind::Tcp) != health.port.is_some() {
            check.presence("healthCheck.port", kind, kind == ProbeKind::Tcp);
        }
        if let Some(port) = health.port {
            check.port("healthCheck.port", port);
        }
        if let Some(host) = health.host.filter(|host| !self.is_remote(*host)) {
            check.wrong("healthCheck.host", outside(host));
        }
    }

    fn is_remote(&self, host: IpAddr) -> bool {
        host.is_ipv4() && self.network.remote_cidrs.iter().any(|cidr| cidr.contains(&host))
    }
}

fn outside(host: IpAddr) -> String {
    format!(
        "{host} is no IPv4 address in one of network.remoteCIDRs; add its network there, or it would not go through the tunnel"
    )
}

/// Whether `text` is an IP address or a DNS name (RFC 1123 section 2.1).
fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    text.parse::<IpAddr>().is_ok()
        || (name.len() <= 253 && name.split('.').all(label) && !name.rsplit('.').next().is_some_and(is_number))
}

/// Whether `url` begins with `https`, a host and nothing or a port.
fn is_https(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("https://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse::<u16>().is_ok_and(|port| port > 0)),
        _ => (authority, true),
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    port && address.map_or_else(|| is_host(host), |address| address.parse::<Ipv6Addr>().is_ok())
}

fn is_number(label: &str) -> bool {
    label.bytes().all(|octet| octet.is_ascii_digit())
}

struct Check(Vec<InvalidField>);

impl Check {
    fn wrong(&mut self, field: impl Into<String>, problem: String) {
        self.0.push(InvalidField { field: field.into(), problem });
    }

    fn range(&mut self, field: &str, value: u64, least: u64, most: u64) {
        if !(least..=most).contains(&value) {
            self.wrong(field, format!("{value} must be between {least} and {most}"));
        }
    }

    fn count(&mut self, field: &str, unit: &str, count: usize, least: usize, most: usize) {
        if !(least..=most).contains(&count) {
            self.wrong(field, format!("has {count} {unit}, must have {least} to {most}"));
        }
    }

    fn port(&mut self, field: impl Into<String>, port: u16) {
        if port == 0 {
            self.wrong(field, "port 0 is none; name one from 1 to 65535".to_owned());
        }
    }

    fn imports(&mut self, imports: &[Import]) {
        self.count("imports", "entries", imports.len(), 0, MAX_IMPORTS);
        let mut listeners = BTreeSet::new();
        for (index, import) in imports.iter().enumerate() {
            self.port(format!("imports[{index}].listen"), import.listen);
            self.port(format!("imports[{index}].port"), import.port);
            if !listeners.insert((import.protocol, import.listen)) {
                let problem =
                    format!("{} {} is used twice; give each import a port of its own", import.protocol, import.listen);
                self.wrong(format!("imports[{index}].listen"), problem);
            }
            if !is_host(&import.host) {
                let problem = format!("{:?} is neither a DNS name nor an IP address; name the host", import.host);
                self.wrong(format!("imports[{index}].host"), problem);
            }
        }
    }

    fn identity(&mut self, field: &str, id: Option<&Identity>) {
        let Some(id) = id else { return };
        self.count(&format!("{field}.value"), "octets", id.value.len(), 1, 253);
        if id.kind == IdentityKind::Address && id.value.parse::<IpAddr>().is_err() {
            self.wrong(format!("{field}.value"), format!("{:?} is not an IP address; use another type", id.value));
        }
    }

    fn phase_1(&mut self, ike: &Ike) {
        self.range("ike.lifetimeSeconds", ike.lifetime_seconds.into(), 60, 86_400);
        self.count("ike.proposals", "entries", ike.proposals.len(), 0, MAX_PROPOSALS);
        let groups: BTreeSet<_> = ike.proposals.iter().map(|proposal| proposal.group).collect();
        if ike.exchange == Exchange::Aggressive && groups.len() > 1 {
            let problem =
                "all must name the same group with ike.exchange Aggressive; its first message carries one key exchange";
            self.wrong("ike.proposals", problem.to_owned());
        }
        let dpd = ike.dpd;
        self.range("ike.dpd.intervalSeconds", dpd.interval_seconds.into(), 2, 3_600);
        if u64::from(dpd.timeout_seconds) < 2 * u64::from(dpd.interval_seconds) {
            self.wrong(
                "ike.dpd.timeoutSeconds",
                format!("{} must be at least twice ike.dpd.intervalSeconds", dpd.timeout_seconds),
            );
        }
        self.identity("ike.localId", ike.local_id.as_ref());
        self.identity("ike.remoteId", ike.remote_id.as_ref());
    }

    fn esp(&mut self, esp: &Esp) {
        self.count("esp.proposals", "entries", esp.proposals.len(), 0, MAX_PROPOSALS);
        if esp.proposals.iter().map(|proposal| proposal.group).collect::<BTreeSet<_>>().len() > 1 {
            self.wrong(
                "esp.proposals",
                "all must name the same group, or none; a Quick Mode carries one key exchange".to_owned(),
            );
        }
        self.range("esp.lifetimeSeconds", esp.lifetime_seconds.into(), 20, 86_400);
        if let Some(bytes) = esp.lifetime_bytes {
            self.range("esp.lifetimeBytes", bytes, 1 << 20, u64::from(u32::MAX) << 10);
        }
        if let Some(packets) = esp.lifetime_packets {
            self.range("esp.lifetimePackets", packets, 1_000, u32::MAX.into());
        }
    }

    fn links(&mut self, l2tp: &L2tp, ppp: &Ppp) {
        self.count("l2tp.hostName", "octets", l2tp.host_name.len(), 1, 64);
        self.range("l2tp.helloSeconds", l2tp.hello_seconds.into(), 5, 3_600);
        self.count("ppp.auth", "entries", ppp.auth.len(), 1, PppAuth::ALL.len());
        if ppp.auth.iter().collect::<BTreeSet<_>>().len() < ppp.auth.len() {
            self.wrong("ppp.auth", format!("{:?} names one twice; remove it", ppp.auth));
        }
        self.range("ppp.echoSeconds", ppp.echo_seconds.into(), 1, 3_600);
        self.range("ppp.echoFailures", ppp.echo_failures.into(), 1, 20);
    }

    fn device(&mut self, mtu: Option<u16>, device: &str) {
        if let Some(mtu) = mtu {
            self.range("network.mtu", mtu.into(), 576, 1_500);
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if device.is_empty() || device.len() > 15 || !device.chars().all(allowed) {
            self.wrong("network.device", format!("{device:?} must be 1 to 15 letters, digits, '-', '_' or '.'"));
        }
    }

    fn process(&mut self, admin: &Admin, report: Option<&ReportTo>) {
        self.port("admin.listen", admin.listen.port());
        self.count("admin.socket", "octets", admin.socket.as_os_str().len(), 1, MAX_SOCKET_PATH);
        let Some(report) = report else { return };
        if !is_https(&report.url) {
            self.wrong(
                "report.url",
                format!("{:?} is not an https URL with a host; reports carry a token, so give one", report.url),
            );
        }
        if report.ca_bundle.trim().is_empty() {
            let problem = "is empty; give the certificates, in PEM, that the endpoint's certificate may come from";
            self.wrong("report.caBundle", problem.to_owned());
        }
        if report.token_file.as_os_str().is_empty() {
            self.wrong("report.tokenFile", "is empty; name the file with the token".to_owned());
        }
    }

    fn presence(&mut self, field: &str, kind: ProbeKind, needed: bool) {
        self.wrong(
            field,
            if needed {
                format!("is missing; type {kind:?} needs it")
            } else {
                format!("type {kind:?} has none; remove it")
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::server::Certificate;
    use crate::config::tests::SMALLEST;
    use crate::config::{Export, Protocol, SecretFile, parse};
    use std::path::PathBuf;

    fn changed(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = parse(SMALLEST).unwrap();
        change(&mut config);
        config.check().map_or_else(|error| error.0.into_iter().map(|field| field.field).collect(), |()| Vec::new())
    }

    #[test]
    fn each_bound_is_kept_and_named() {
        assert_eq!(changed(|c| c.peers.clear()), ["peers"]);
        assert_eq!(changed(|c| c.peers[0].address = "not a name".to_owned()), ["peers[0].address"]);
        assert_eq!(changed(|c| c.peers[0].address = "10.1.1".to_owned()), ["peers[0].address"]);
        assert_eq!(changed(|c| c.ike.lifetime_seconds = 59), ["ike.lifetimeSeconds"]);
        assert_eq!(changed(|c| c.ike.dpd.timeout_seconds = 19), ["ike.dpd.timeoutSeconds"]);
        assert_eq!(
            changed(|c| c.ike.local_id = Some(Identity { kind: IdentityKind::Address, value: "x".to_owned() })),
            ["ike.localId.value"]
        );
        assert_eq!(
            changed(|c| c.esp.proposals = vec!["aes256-sha1".parse().unwrap(), "aes256-sha1-modp2048".parse().unwrap()]),
            ["esp.proposals"]
        );
        assert_eq!(
            changed(|c| c.network.remote_cidrs = vec!["0.0.0.0/0".parse().unwrap()]),
            ["network.remoteCIDRs[0]"]
        );
        let [network, host] = ["fd20:4::/64", "fd20:4::11"];
        let with_ipv6 = |ipv6: bool, networks: &[&str]| {
            changed(|c| {
                c.network.ipv6 = ipv6;
                c.network.remote_cidrs = networks.iter().map(|network| network.parse().unwrap()).collect();
            })
        };
        assert!(with_ipv6(true, &[network, "10.20.0.0/16"]).is_empty());
        assert_eq!(with_ipv6(false, &[network]), ["network.remoteCIDRs[0]"]);
        assert_eq!(with_ipv6(true, &["::/0"]), ["network.remoteCIDRs[0]"]);
        let probe = changed(|c| {
            (c.network.ipv6, c.network.remote_cidrs) = (true, vec![network.parse().unwrap()]);
            c.health_check.kind = ProbeKind::Icmp;
            c.health_check.host = Some(host.parse().unwrap());
        });
        assert_eq!(probe, ["healthCheck.host"]);
        assert_eq!(changed(|c| c.network.device = "a b".to_owned()), ["network.device"]);
        assert_eq!(changed(|c| c.health_check.kind = ProbeKind::Tcp), ["healthCheck.host", "healthCheck.port"]);
        assert_eq!(changed(|c| c.health_check.port = Some(80)), ["healthCheck.port"]);
        assert_eq!(changed(|c| c.ppp.auth = vec![PppAuth::Pap, PppAuth::Pap]), ["ppp.auth"]);
        assert_eq!(changed(|c| c.admin.socket = PathBuf::new()), ["admin.socket"]);
        assert_eq!(changed(|c| c.admin.socket = "x".repeat(108).into()), ["admin.socket"]);
        assert_eq!(changed(|c| c.admin.listen.set_port(0)), ["admin.listen"]);
    }

    #[test]
    fn there_is_one_proof_of_who_we_are() {
        let file = |path: &str| SecretFile { path: path.into(), source: None };
        let certificate = Certificate {
            chain: file("/s/tls.crt"),
            key: file("/s/tls.key"),
            authorities: file("/s/ca.crt"),
            revocations: None,
            remote_id: None,
        };
        let changed = |key: bool, certificate: Option<Certificate>, local_id: Option<IdentityKind>| {
            changed(|c| {
                c.credentials.pre_shared_key = key.then(|| file("/s/psk"));
                c.credentials.certificate = certificate;
                c.ike.local_id = local_id.map(|kind| Identity { kind, value: "x".to_owned() });
            })
        };
        assert!(changed(true, None, Some(IdentityKind::KeyId)).is_empty());
        assert!(changed(false, Some(certificate.clone()), Some(IdentityKind::Fqdn)).is_empty());
        assert_eq!(changed(false, None, None), ["credentials"]);
        assert_eq!(changed(true, Some(certificate.clone()), None), ["credentials"]);
        assert_eq!(changed(false, Some(certificate.clone()), Some(IdentityKind::KeyId)), ["ike.localId.type"]);
        let aggressive = |certificate: Option<Certificate>| {
            let mut config = parse(SMALLEST).unwrap();
            config.ike.exchange = Exchange::Aggressive;
            config.credentials.pre_shared_key = certificate.is_none().then(|| file("/s/psk"));
            config.credentials.certificate = certificate;
            config.check().is_ok()
        };
        assert_eq!((aggressive(None), aggressive(Some(certificate.clone()))), (true, false));
        let unnamed = Identity { kind: IdentityKind::Fqdn, value: String::new() };
        let unnamed = Certificate { remote_id: Some(unnamed), ..certificate };
        assert_eq!(changed(false, Some(unnamed), None), ["credentials.certificate.remoteId.value"]);
    }

    #[test]
    fn aggressive_mode_offers_one_group() {
        let offers = |proposals: [&str; 2]| {
            changed(|c| {
                c.ike.exchange = Exchange::Aggressive;
                c.ike.proposals = proposals.map(|proposal| proposal.parse().unwrap()).to_vec();
            })
        };
        assert!(offers(["aes256-sha256-modp2048", "aes128-sha1-modp2048"]).is_empty());
        assert_eq!(offers(["aes256-sha256-modp2048", "aes256-sha256-ecp256"]), ["ike.proposals"]);
    }

    #[test]
    fn the_endpoint_of_reports_is_whole() {
        let report = |url: &str, ca_bundle: &str, token: &str| {
            let report = ReportTo { url: url.to_owned(), ca_bundle: ca_bundle.to_owned(), token_file: token.into() };
            changed(|c| c.report = Some(report))
        };
        let pem = "-----BEGIN CERTIFICATE-----";
        for url in ["https://operator.towline:8443/v1", "https://192.0.2.1", "https://[2001:db8::1]:1", "https://[::1]"]
        {
            assert!(report(url, pem, "/t").is_empty(), "{url}");
        }
        for url in ["http://a", "https://", "https://:8443/", "https://a:0", "https://a:b", "https://a b/"] {
            assert_eq!(report(url, pem, "/t"), ["report.url"], "{url}");
        }
        assert_eq!(report("https://a.b", "", ""), ["report.caBundle", "report.tokenFile"]);
    }

    #[test]
    fn what_is_probed_or_exported_must_lie_behind_the_peer() {
        let export = Export {
            name: "db".to_owned(),
            listen: ([0, 0, 0, 0], 5432).into(),
            host: [10, 20, 4, 11].into(),
            port: 5432,
            protocol: Protocol::Tcp,
        };
        assert_eq!(changed(|c| c.exports = vec![export.clone()]), ["exports[0].host"]);
        let no_port = Export { port: 0, listen: ([0, 0, 0, 0], 0).into(), ..export.clone() };
        assert_eq!(
            changed(|c| {
                c.network.remote_cidrs = vec!["10.20.0.0/16".parse().unwrap()];
                c.exports = vec![no_port];
            }),
            ["exports[0].listen", "exports[0].port"]
        );
        assert_eq!(
            changed(|c| {
                c.network.remote_cidrs = vec!["10.20.0.0/16".parse().unwrap()];
                c.exports = vec![export.clone(), export.clone()];
            }),
            ["exports[1].listen"]
        );
    }
}
