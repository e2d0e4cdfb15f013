//! What the configuration, the path and the secrets are to IKE, L2TP and PPP.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use zeroize::Zeroizing;

use super::Path;
use super::rung::Rung;
use crate::config::server::Server;
use crate::config::{Config, Encapsulation, Exchange};
use crate::{dhcp, esp, ike, l2tp, ppp};

/// NAT keepalives keep mappings of 30 seconds and more open (RFC 3948 section 4).
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// The most L2TP control connections of one peer of a server: a client that begins anew leaves its old one behind.
const MAX_TUNNELS: usize = 4;
/// The most calls of one peer of a server; clients have one.
const MAX_CALLS: usize = 16;

/// How long a peer may be silent about what it is offered first where something older can be offered: the message was sent three
/// times, as some gateways do not answer an offer that they have nothing of.
const HOPE: Duration = Duration::from_secs(6);

/// Phase 1 and 2. The stack judges by itself whether the peer lives: IKE's own dead peer detection is off.
///
/// `hopes` says that a peer which does not answer may like the next rung better.
pub(super) fn ike(config: &Config, (rung, hopes): (&Rung, bool), path: &Path, export_keys: bool) -> ike::Config {
    let mut esp_proposals = rung.esp_proposals(config);
    if rung.pfs.is_some() {
        esp_proposals.iter_mut().for_each(|proposal| proposal.group = rung.pfs);
    }
    let base = ike::Config::new(path.local, path.remote, Arc::clone(&path.credentials.ike));
    ike::Config {
        patience: if hopes { HOPE } else { base.patience },
        proposals: rung.ike_proposals(config),
        lifetime: Duration::from_secs(config.ike.lifetime_seconds.into()),
        esp_proposals,
        esp_lifetime: ike::Lifetime {
            seconds: Duration::from_secs(config.esp.lifetime_seconds.into()),
            kilobytes: config.esp.lifetime_bytes.and_then(|octets| u32::try_from(octets / 1024).ok()),
        },
        local_id: rung.identity.as_ref().map(ike::Identity::from),
        remote_id: config.ike.remote_id.as_ref().map(ike::Identity::from),
        dpd: ike::Dpd { interval: Duration::ZERO, timeout: Duration::ZERO },
        local_port_ike: path.local_ike_port,
        local_port_nat_t: path.local_nat_t_port,
        nat_traversal: match config.esp.encapsulation {
            _ if rung.unencapsulated => ike::NatTraversal::Off,
            Encapsulation::Udp | Encapsulation::None => ike::NatTraversal::Required,
            Encapsulation::Auto => ike::NatTraversal::Offered,
        },
        nat_payloads: rung.nat_payloads,
        keepalive: KEEPALIVE_INTERVAL,
        initial_contact: config.ike.initial_contact,
        aggressive: config.ike.exchange == Exchange::Aggressive,
        export_keys,
        ..base
    }
}

/// What one ESP SA may carry at most, before IKE has agreed on less.
pub(super) fn esp_lifetime(config: &Config) -> esp::Lifetime {
    esp::Lifetime { packets: config.esp.lifetime_packets, octets: config.esp.lifetime_bytes }
}

/// The control connection and its one call.
pub(super) fn l2tp(config: &Config, path: &Path, call_serial_number: u32) -> l2tp::Config {
    l2tp::Config {
        secret: path.credentials.tunnel_secret.clone(),
        hello: Duration::from_secs(config.l2tp.hello_seconds.into()),
        call_serial_number,
        ..l2tp::Config::new(config.l2tp.host_name.clone())
    }
}

/// The link and who we are on it.
pub(super) fn ppp(config: &Config, path: &Path) -> ppp::Config {
    ppp::Config {
        role: ppp::Role::Client(ppp::Client {
            username: path.credentials.username.to_string(),
            password: Zeroizing::new(path.credentials.password.to_string()),
            auth: config.ppp.auth.clone(),
            ipv6: config.network.ipv6,
            ..ppp::Client::default()
        }),
        echo_interval: Duration::from_secs(config.ppp.echo_seconds.into()),
        echo_failures: config.ppp.echo_failures,
        ..ppp::Config::default()
    }
}

/// A generator of its own for a part, seeded by `rng`.
pub(super) fn split(rng: &mut StdRng) -> StdRng {
    let mut seed = Zeroizing::new([0; 32]);
    rng.fill_bytes(&mut *seed);
    StdRng::from_seed(*seed)
}

/// What peers of a server are answered with, before and after they have proved themselves.
pub(super) fn responder(
    config: &Server,
    credentials: &Arc<ike::Credentials>,
    export_keys: bool,
) -> ike::ResponderConfig {
    let Server { ike, esp, .. } = config;
    let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let proposals =
        if ike.proposals.is_empty() { ike.security.accepted_ike_proposals() } else { ike.proposals.clone() };
    let esp_proposals =
        if esp.proposals.is_empty() { ike.security.accepted_esp_proposals() } else { esp.proposals.clone() };
    ike::ResponderConfig::new(ike::Config {
        proposals,
        lifetime: Duration::from_secs(ike.lifetime_seconds.into()),
        esp_proposals,
        esp_lifetime: ike::Lifetime {
            seconds: Duration::from_secs(esp.lifetime_seconds.into()),
            kilobytes: esp.lifetime_bytes.and_then(|octets| u32::try_from(octets / 1024).ok()),
        },
        local_id: ike.local_id.as_ref().map(ike::Identity::from),
        remote_id: ike.remote_id.as_ref().map(ike::Identity::from),
        dpd: ike::Dpd { interval: Duration::ZERO, timeout: Duration::ZERO },
        keepalive: Duration::ZERO,
        initial_contact: false,
        export_keys,
        ..ike::Config::new(unknown, unknown, Arc::clone(credentials))
    })
}

/// The control connections of a peer of a server.
pub(super) fn lns(config: &Server, secret: Option<Zeroizing<Vec<u8>>>) -> l2tp::LnsConfig {
    l2tp::LnsConfig {
        host_name: config.l2tp.host_name.clone(),
        secret,
        hello: Duration::from_secs(config.l2tp.hello_seconds.into()),
        max_tunnels: MAX_TUNNELS,
        max_calls: MAX_CALLS,
    }
}

/// The link of a client, as the server has it.
pub(super) fn ppp_server(config: &Server, eap_tls: Option<&ppp::TlsServer>) -> ppp::Config {
    ppp::Config {
        role: ppp::Role::Server(ppp::Server {
            name: config.l2tp.host_name.clone(),
            auth: config.ppp.auth.clone(),
            eap: eap(config, eap_tls),
            ipv6: config.addresses.ipv6_pool.is_some(),
        }),
        echo_interval: Duration::from_secs(config.ppp.echo_seconds.into()),
        echo_failures: config.ppp.echo_failures,
        ..ppp::Config::default()
    }
}

/// Who speaks EAP with clients. With users of our own it is this end, and what its methods prove is judged like any other proof;
/// a RADIUS server that knows all of them may have methods that this end has not.
fn eap(config: &Server, tls: Option<&ppp::TlsServer>) -> ppp::Eap {
    if config.radius.is_some() && config.users.is_empty() {
        ppp::Eap::PassThrough
    } else {
        let tls = tls.cloned().map(ppp::Method::Tls);
        ppp::Eap::Local([ppp::Method::MsChapV2].into_iter().chain(tls).collect())
    }
}

/// What clients are told that ask for more than PPP tells them.
pub(super) fn dhcp(config: &Server) -> dhcp::Settings {
    let addresses = &config.addresses;
    dhcp::Settings {
        local: addresses.local,
        dns: addresses.dns.clone(),
        domain: addresses.domain.clone(),
        routes: addresses.routes.clone(),
    }
}
