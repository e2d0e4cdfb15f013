//! What is wrong with the configuration of a server.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

use super::{Check, is_host};
use crate::config::server::{
    MAX_NAME, MAX_NETWORKS, MAX_POOLS, MAX_PRE_SHARED_KEYS, MAX_RADIUS_SERVERS, MAX_SESSIONS, MAX_USERS, Server,
};
use crate::config::{Encapsulation, Exchange, InvalidConfig, MAX_EXPORTS};

/// Name servers that IPCP can tell (RFC 1877).
const MAX_DNS: usize = 2;

impl Server {
    /// Checks what the types alone do not.
    ///
    /// # Errors
    /// Every field that is wrong, by its path.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        let mut check = Check(Vec::new());
        check.port("listen.ike", self.listen.ike.port());
        check.port("listen.natT", self.listen.nat_t.port());
        check.phase_1(&self.ike);
        if self.ike.exchange == Exchange::Aggressive {
            let problem =
                "Aggressive is for clients; it would hand a hash of the pre-shared key to whoever asks, so remove it";
            check.wrong("ike.exchange", problem.to_owned());
        }
        check.esp(&self.esp);
        if self.esp.encapsulation != Encapsulation::Udp {
            let encapsulation = self.esp.encapsulation;
            let problem =
                format!("{encapsulation:?} is for clients; a Service carries nothing but UDP and TCP, so remove it");
            check.wrong("esp.encapsulation", problem);
        }
        check.links(&self.l2tp, &self.ppp);
        check.device(self.network.mtu, &self.network.device);
        check.process(&self.admin, self.report.as_ref());
        self.check_credentials(&mut check);
        self.check_users(&mut check);
        self.check_radius(&mut check);
        self.check_addresses(&mut check);
        self.check_ports(&mut check);
        let limits = &self.limits;
        check.range("limits.sessions", limits.sessions.into(), 1, MAX_SESSIONS.into());
        check.range("limits.peersPerSource", limits.peers_per_source.into(), 1, MAX_SESSIONS.into());
        check.count("forwarding.networks", "entries", self.forwarding.networks.len(), 0, MAX_NETWORKS);
        if check.0.is_empty() { Ok(()) } else { Err(InvalidConfig(check.0)) }
    }

    fn check_credentials(&self, check: &mut Check) {
        let keys = &self.credentials.pre_shared_keys;
        check.count("credentials.preSharedKeys", "entries", keys.len(), 0, MAX_PRE_SHARED_KEYS);
        if keys.is_empty() && self.credentials.certificate.is_none() {
            let problem = "neither preSharedKeys nor certificate is given; no peer could prove itself, so give one";
            check.wrong("credentials", problem.to_owned());
        }
        for (index, key) in keys.iter().enumerate() {
            let field = format!("credentials.preSharedKeys[{index}]");
            check.count(&format!("{field}.addresses"), "entries", key.addresses.len(), 0, MAX_NETWORKS);
            check.identity(&format!("{field}.remoteId"), key.remote_id.as_ref());
        }
        let certificate = self.credentials.certificate.as_ref();
        check.identity("credentials.certificate.remoteId", certificate.and_then(|own| own.remote_id.as_ref()));
    }

    fn check_users(&self, check: &mut Check) {
        check.count("users", "entries", self.users.len(), 0, MAX_USERS);
        let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for (index, user) in self.users.iter().enumerate() {
            let field = |name: &str| format!("users[{index}].{name}");
            check.count(&field("name"), "octets", user.name.len(), 1, MAX_NAME);
            if !names.insert(&user.name) {
                check.wrong(field("name"), format!("{:?} is there twice; give each user a name of its own", user.name));
            }
            check.count(&field("networks"), "entries", user.networks.len(), 0, MAX_NETWORKS);
            let destinations = user.destinations.as_ref().map_or(0, Vec::len);
            check.count(&field("destinations"), "entries", destinations, 0, MAX_NETWORKS);
            let Some(address) = user.address else { continue };
            if !addresses.insert(address) {
                check.wrong(field("address"), format!("{address} is there twice; give each user one of its own"));
            }
            if address == self.addresses.local {
                check.wrong(field("address"), format!("{address} is addresses.local; give the user another one"));
            }
        }
    }

    fn check_radius(&self, check: &mut Check) {
        let Some(radius) = &self.radius else { return };
        check.count("radius.servers", "entries", radius.servers.len(), 1, MAX_RADIUS_SERVERS);
        check.range("radius.timeoutSeconds", radius.timeout_seconds.into(), 1, 30);
        check.range("radius.tries", radius.tries.into(), 1, 10);
        if let Some(seconds) = radius.interim_seconds {
            check.range("radius.interimSeconds", seconds.into(), 60, 86_400);
        }
        check.count("radius.nasIdentifier", "octets", radius.nas_identifier.len(), 1, MAX_NAME);
        for (index, server) in radius.servers.iter().enumerate() {
            check.port(format!("radius.servers[{index}].port"), server.port);
            if !is_host(&server.address) {
                let problem = format!("{:?} is neither a DNS name nor an IP address; name the server", server.address);
                check.wrong(format!("radius.servers[{index}].address"), problem);
            }
        }
        if let Some(disconnect) = radius.disconnect {
            check.port("radius.disconnect", disconnect.port());
        }
    }

    fn check_addresses(&self, check: &mut Check) {
        let addresses = &self.addresses;
        check.count("addresses.pools", "entries", addresses.pools.len(), 1, MAX_POOLS);
        check.count("addresses.dns", "entries", addresses.dns.len(), 0, MAX_DNS);
        check.count("addresses.routes", "entries", addresses.routes.len(), 0, MAX_NETWORKS);
        if addresses.local.is_unspecified() || addresses.local.is_multicast() || addresses.local.is_loopback() {
            check.wrong("addresses.local", format!("{} cannot be the address of a link", addresses.local));
        }
        for (index, pool) in addresses.pools.iter().enumerate() {
            let field = format!("addresses.pools[{index}]");
            if pool.prefix_len() > 30 {
                check.wrong(field, format!("{pool} has no address to give; a prefix of 30 bits or less has"));
            } else if addresses.pools.iter().take(index).any(|other| overlap(*other, *pool)) {
                check.wrong(field, format!("{pool} overlaps with a pool before it; remove one of them"));
            }
        }
        if let Some(pool) = addresses.ipv6_pool.filter(|pool| pool.prefix_len() > 64) {
            check.wrong("addresses.ipv6Pool", format!("{pool} is too small; each client gets a prefix of 64 bits"));
        }
    }

    fn check_ports(&self, check: &mut Check) {
        check.imports(&self.imports);
        check.count("exports", "entries", self.exports.len(), 0, MAX_EXPORTS);
        let mut listeners = BTreeSet::new();
        for (index, export) in self.exports.iter().enumerate() {
            check.port(format!("exports[{index}].listen"), export.listen.port());
            check.port(format!("exports[{index}].port"), export.port);
            if !listeners.insert((export.protocol, export.listen)) {
                let problem =
                    format!("{} {} is used twice; give each export a port of its own", export.protocol, export.listen);
                check.wrong(format!("exports[{index}].listen"), problem);
            }
            if !self.is_behind_a_user(export.host) && !self.is_in_a_pool(export.host) {
                let problem =
                    format!("{} is behind no user; add its network to the networks of the site's user", export.host);
                check.wrong(format!("exports[{index}].host"), problem);
            }
        }
    }

    fn is_behind_a_user(&self, host: IpAddr) -> bool {
        let IpAddr::V4(host) = host else { return false };
        let behind = |networks: &[Ipv4Net]| networks.iter().any(|network| network.contains(&host));
        // A RADIUS server may route networks that are not known here.
        self.radius.is_some() || self.users.iter().any(|user| user.address == Some(host) || behind(&user.networks))
    }

    fn is_in_a_pool(&self, host: IpAddr) -> bool {
        let in_pool = |host: Ipv4Addr| self.addresses.pools.iter().any(|pool| pool.contains(&host));
        matches!(host, IpAddr::V4(host) if in_pool(host))
    }
}

fn overlap(one: Ipv4Net, two: Ipv4Net) -> bool {
    one.contains(&two.network()) || two.contains(&one.network())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::server::Import;
    use crate::config::{Protocol, parse_server};

    const SMALLEST: &str = r#"{
        "mode": "Server",
        "credentials": {"preSharedKeys": [{"file": {"path": "/s/psk"}}]},
        "users": [{"name": "alice", "password": {"path": "/s/alice"}}],
        "addresses": {"local": "10.99.0.1", "pools": ["10.99.0.0/24"]}
    }"#;

    fn changed(change: impl FnOnce(&mut Server)) -> Vec<String> {
        let mut server = parse_server(SMALLEST).unwrap();
        change(&mut server);
        server.check().map_or_else(|error| error.0.into_iter().map(|field| field.field).collect(), |()| Vec::new())
    }

    #[test]
    fn the_smallest_configuration_survives_json() {
        let server = parse_server(SMALLEST).unwrap();
        assert_eq!(parse_server(&serde_json::to_string(&server).unwrap()).unwrap(), server);
    }

    #[test]
    fn each_bound_is_kept_and_named() {
        assert_eq!(changed(|s| s.credentials.pre_shared_keys.clear()), ["credentials"]);
        assert_eq!(changed(|s| s.ike.exchange = Exchange::Aggressive), ["ike.exchange"]);
        assert_eq!(changed(|s| s.esp.encapsulation = Encapsulation::Auto), ["esp.encapsulation"]);
        assert_eq!(changed(|s| s.esp.encapsulation = Encapsulation::None), ["esp.encapsulation"]);
        assert_eq!(changed(|s| s.listen.ike.set_port(0)), ["listen.ike"]);
        assert_eq!(changed(|s| s.ike.lifetime_seconds = 1), ["ike.lifetimeSeconds"]);
        assert_eq!(changed(|s| s.users.push(s.users[0].clone())), ["users[1].name"]);
        assert_eq!(changed(|s| s.users[0].address = Some(s.addresses.local)), ["users[0].address"]);
        assert_eq!(changed(|s| s.addresses.pools.clear()), ["addresses.pools"]);
        assert_eq!(changed(|s| s.addresses.pools = vec!["10.1.0.0/31".parse().unwrap()]), ["addresses.pools[0]"]);
        assert_eq!(
            changed(|s| s.addresses.pools = vec!["10.0.0.0/8".parse().unwrap(), "10.1.0.0/16".parse().unwrap()]),
            ["addresses.pools[1]"]
        );
        assert_eq!(changed(|s| s.addresses.dns = vec![[10, 0, 0, 1].into(); 3]), ["addresses.dns"]);
        assert_eq!(changed(|s| s.limits.sessions = 0), ["limits.sessions"]);
        let import = Import {
            name: "api".to_owned(),
            listen: 80,
            host: "orders.erp.svc".to_owned(),
            port: 0,
            protocol: Protocol::Tcp,
        };
        assert_eq!(changed(|s| s.imports = vec![import.clone()]), ["imports[0].port"]);
        let import = Import { port: 80, ..import };
        assert_eq!(changed(|s| s.imports = vec![import.clone(), import]), ["imports[1].listen"]);
    }
}
