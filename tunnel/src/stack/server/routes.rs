//! Which session an address inside the tunnels belongs to: clients' own addresses, and networks behind sites. The longest
//! prefix wins, as everywhere (RFC 1812 section 5.2.4.3).

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Networks of sessions.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// By the length of the prefix, the longest first.
    tables: BTreeMap<Reverse<u8>, HashMap<u32, u64>>,
}

impl Routes {
    /// Routes `network` to a session; false when another one has exactly that network.
    pub(super) fn insert(&mut self, network: Ipv4Net, session: u64) -> bool {
        let table = self.tables.entry(Reverse(network.prefix_len())).or_default();
        *table.entry(network.network().into()).or_insert(session) == session
    }

    /// Takes the route back, if it is that of the session.
    pub(super) fn remove(&mut self, network: Ipv4Net, session: u64) {
        let length = Reverse(network.prefix_len());
        let Some(table) = self.tables.get_mut(&length) else { return };
        let key = u32::from(network.network());
        if table.get(&key) == Some(&session) {
            table.remove(&key);
        }
        if table.is_empty() {
            self.tables.remove(&length);
        }
    }

    /// The session that `address` belongs to.
    pub(super) fn find(&self, address: Ipv4Addr) -> Option<u64> {
        let octets = u32::from(address);
        self.tables.iter().find_map(|(length, table)| table.get(&(octets & mask(length.0))).copied())
    }
}

fn mask(length: u8) -> u32 {
    u32::MAX.checked_shl(32_u32.saturating_sub(length.into())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_prefix_wins() {
        let mut routes = Routes::default();
        for (text, session) in [("10.0.0.0/8", 1), ("10.1.0.0/16", 2), ("10.1.2.3/32", 3), ("0.0.0.0/0", 4)] {
            assert!(routes.insert(network(text), session));
        }
        let found = |address: [u8; 4]| routes.find(address.into()).unwrap();
        assert_eq!([[10, 1, 2, 3], [10, 1, 2, 4], [10, 2, 0, 0], [11, 0, 0, 1]].map(found), [3, 2, 1, 4]);
    }

    #[test]
    fn a_network_belongs_to_whoever_had_it_first_until_it_goes() {
        let mut routes = Routes::default();
        assert!(routes.insert(network("10.1.0.0/16"), 1));
        assert!(routes.insert(network("10.1.0.0/16"), 1));
        assert!(!routes.insert(network("10.1.0.0/16"), 2));
        routes.remove(network("10.1.0.0/16"), 2);
        assert_eq!(routes.find([10, 1, 0, 1].into()), Some(1));
        routes.remove(network("10.1.0.0/16"), 1);
        assert_eq!(routes.find([10, 1, 0, 1].into()), None);
    }
}
