//! At which port of the pod each export is relayed.
//!
//! A Service changes at once, and a pod follows its ConfigMap within two minutes. In between a Service must not lead to a port
//! at which the pod still relays to another host. So a port is a function of the export itself, and never of its place in
//! the list; where two exports want one port, neither of them has it. Then, when exports are removed, added or put in another
//! order, the pod of before and the Services of after agree on each port, or the pod does not listen there and the connection
//! is refused. Only an export that takes the place of another one in one change can meet the port of the other, by a chance
//! of one in [`PORTS`].

use sha2::{Digest, Sha256};

use super::config::InvalidSpec;
use crate::api::tunnel::Export;

/// The first port: above what a pod's other servers use, [`super::pod::ADMIN_PORT`] among them.
const FIRST: u16 = 10_000;
/// How many: they end below the ports of outgoing connections, which begin at 32768.
const PORTS: u16 = 22_000;
/// Ports that an export may have, in order of preference: one for each four octets of a SHA-256.
const CANDIDATES: usize = 8;

/// The port of each of `exports`, in their order.
///
/// # Errors
/// When all that an export may have are wanted by others too, which not one in a billion lists comes to.
pub(super) fn ports(exports: &[Export]) -> Result<Vec<u16>, InvalidSpec> {
    let wanted: Vec<[u16; CANDIDATES]> = exports.iter().map(candidates).collect();
    let is_free = |index: usize, port: u16| {
        wanted.iter().enumerate().all(|(other, ports)| other == index || !ports.contains(&port))
    };
    let port = |(index, ports): (usize, &[u16; CANDIDATES])| ports.iter().copied().find(|port| is_free(index, *port));
    let clash = |export: &Export| {
        InvalidSpec(format!("spec.exports: {}: no port is left to relay it at; give it another name", export.name))
    };
    exports
        .iter()
        .zip(wanted.iter().enumerate().map(port))
        .map(|(export, port)| port.ok_or_else(|| clash(export)))
        .collect()
}

fn candidates(export: &Export) -> [u16; CANDIDATES] {
    let digest = Sha256::digest(format!("{}/{}/{}/{}", export.name, export.host, export.port, export.protocol));
    let (octets, _) = digest.as_chunks::<4>();
    let mut octets = octets.iter().copied();
    std::array::from_fn(|_| {
        let number = octets.next().map_or(0, u32::from_be_bytes) % u32::from(PORTS);
        FIRST.saturating_add(u16::try_from(number).unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use towline_tunnel::config::{MAX_EXPORTS, Protocol};

    use super::*;

    fn export(name: &str, host: u8, port: u16) -> Export {
        Export { name: name.to_owned(), host: format!("10.20.4.{host}"), port, protocol: Protocol::Tcp }
    }

    fn many(count: usize) -> Vec<Export> {
        (0..count).map(|index| export(&format!("e{index}"), u8::try_from(index % 250).unwrap(), 80)).collect()
    }

    /// Port to export, as a pod with these exports relays.
    fn relayed(exports: &[Export]) -> BTreeMap<u16, Export> {
        ports(exports).unwrap().into_iter().zip(exports.iter().cloned()).collect()
    }

    /// A pod that still has `before` sends no connection of a Service of `after` to another export.
    fn assert_never_wrong(before: &[Export], after: &[Export]) {
        let pod = relayed(before);
        for (port, export) in relayed(after) {
            assert!(pod.get(&port).is_none_or(|target| *target == export), "{export:?} leads to {:?}", pod[&port]);
        }
    }

    /// Two exports whose first candidates are the same.
    fn rivals() -> (Export, Export) {
        let mut seen = BTreeMap::new();
        for number in 0..u16::MAX {
            let export = export(&format!("r{number}"), 1, 80);
            if let Some(other) = seen.insert(candidates(&export)[0], export.clone()) {
                return (other, export);
            }
        }
        panic!("no two exports want one port");
    }

    #[test]
    fn each_export_has_a_port_of_its_own_that_needs_no_capability_and_no_other_listener_has() {
        let exports = many(MAX_EXPORTS);
        let ports: BTreeSet<u16> = ports(&exports).unwrap().into_iter().collect();
        assert_eq!(ports.len(), MAX_EXPORTS);
        assert!(ports.iter().all(|port| (10_000..32_000).contains(port) && *port != super::super::pod::ADMIN_PORT));
    }

    #[test]
    fn removing_or_adding_an_export_never_leads_to_the_host_of_another() {
        let (one, other) = rivals();
        let mut exports = many(12);
        exports.extend([one, other]);
        for index in 0..exports.len() {
            let mut fewer = exports.clone();
            fewer.remove(index);
            assert_never_wrong(&exports, &fewer);
            assert_never_wrong(&fewer, &exports);
        }
    }

    #[test]
    fn the_order_of_exports_changes_no_port() {
        let (one, other) = rivals();
        let mut exports = many(12);
        exports.extend([one, other]);
        let before = relayed(&exports);
        exports.reverse();
        assert_eq!(relayed(&exports), before);
    }

    #[test]
    fn rivals_for_a_port_both_leave_it() {
        let (one, other) = rivals();
        let rival = candidates(&one)[0];
        let ports = ports(&[one.clone(), other.clone()]).unwrap();
        assert!(!ports.contains(&rival), "{ports:?}");
        assert_eq!(super::ports(&[one]).unwrap(), [rival]);
        assert_eq!(super::ports(&[other]).unwrap(), [rival]);
    }

    #[test]
    fn an_export_with_another_host_port_or_protocol_has_another_port() {
        let web = export("web", 11, 80);
        let mut udp = web.clone();
        udp.protocol = Protocol::Udp;
        for changed in [export("web", 12, 80), export("web", 11, 8080), export("mail", 11, 80), udp] {
            assert_never_wrong(std::slice::from_ref(&web), std::slice::from_ref(&changed));
            assert_ne!(candidates(&web), candidates(&changed));
        }
    }

    #[test]
    fn ports_are_those_of_every_version() {
        // Another function of the export would move every port of a running tunnel with the operator's release.
        assert_eq!(ports(&[export("web", 11, 80), export("db", 12, 5432)]).unwrap(), [19_869, 23_271]);
    }
}
