//! The addresses that clients get: those of the pools, and those that belong to a user.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Who has which address. Nothing is given out twice, and what was given back is given out again as late as possible: what the
/// one before left behind may still arrive.
#[derive(Debug, Default)]
pub(super) struct Pool {
    networks: Vec<Ipv4Net>,
    /// Our own address, and those of users.
    reserved: BTreeSet<Ipv4Addr>,
    taken: BTreeSet<Ipv4Addr>,
    /// Where the search goes on, counted over all networks.
    next: u32,
}

impl Pool {
    /// Changes what there is to give; what was given stays given.
    pub(super) fn configure(&mut self, networks: &[Ipv4Net], reserved: BTreeSet<Ipv4Addr>) {
        self.networks = networks.to_vec();
        self.reserved = reserved;
    }

    /// An address that nobody has and that belongs to nobody.
    pub(super) fn take(&mut self) -> Option<Ipv4Addr> {
        let size = self.networks.iter().fold(0_u32, |sum, network| sum.saturating_add(hosts(network)));
        // Each that cannot be given is one of these.
        let tries = self.taken.len().saturating_add(self.reserved.len()).saturating_add(1);
        for _ in 0..tries.min(usize::try_from(size).unwrap_or(usize::MAX)) {
            let address = self.address(self.next)?;
            self.next = self.next.checked_add(1).filter(|next| *next < size).unwrap_or_default();
            if !self.reserved.contains(&address) && self.taken.insert(address) {
                return Some(address);
            }
        }
        None
    }

    /// Gives a certain address, unless somebody has it.
    pub(super) fn take_fixed(&mut self, address: Ipv4Addr) -> bool {
        self.taken.insert(address)
    }

    /// Takes an address back.
    pub(super) fn give_back(&mut self, address: Ipv4Addr) {
        self.taken.remove(&address);
    }

    /// The address of number `index` over all networks.
    fn address(&self, index: u32) -> Option<Ipv4Addr> {
        let mut index = index;
        for network in &self.networks {
            match index.checked_sub(hosts(network)) {
                // The first is the network's own.
                None => return u32::from(network.network()).checked_add(index)?.checked_add(1).map(Ipv4Addr::from),
                Some(rest) => index = rest,
            }
        }
        // The networks have become fewer.
        self.networks.first().map(|network| u32::from(network.network()).saturating_add(1)).map(Ipv4Addr::from)
    }
}

/// Addresses of a network without its own and the one of all its hosts.
fn hosts(network: &Ipv4Net) -> u32 {
    u32::from(network.broadcast()).saturating_sub(u32::from(network.network())).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(networks: &[&str], reserved: &[[u8; 4]]) -> Pool {
        let networks: Vec<Ipv4Net> = networks.iter().map(|network| network.parse().unwrap()).collect();
        let mut pool = Pool::default();
        pool.configure(&networks, reserved.iter().map(|octets| Ipv4Addr::from(*octets)).collect());
        pool
    }

    #[test]
    fn every_address_is_given_once_and_none_that_is_reserved_or_of_the_network_itself() {
        let mut pool = pool(&["10.0.0.0/30", "10.1.0.0/29"], &[[10, 0, 0, 1]]);
        let given: Vec<String> = std::iter::from_fn(|| pool.take()).map(|address| address.to_string()).collect();
        assert_eq!(given, ["10.0.0.2", "10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"]);
    }

    #[test]
    fn what_was_given_back_comes_last() {
        let mut pool = pool(&["10.0.0.0/29"], &[]);
        let first = pool.take().unwrap();
        pool.give_back(first);
        let later: Vec<Ipv4Addr> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!((later.len(), later.last()), (6, Some(&first)));
    }

    #[test]
    fn an_address_of_a_user_is_given_to_one_session_at_a_time() {
        let mut pool = pool(&["10.0.0.0/30"], &[[10, 0, 0, 1]]);
        assert!(pool.take_fixed([10, 0, 0, 1].into()));
        assert!(!pool.take_fixed([10, 0, 0, 1].into()));
        pool.give_back([10, 0, 0, 1].into());
        assert!(pool.take_fixed([10, 0, 0, 1].into()));
    }

    #[test]
    fn a_pool_that_has_become_smaller_gives_what_it_has() {
        let mut pool = pool(&["10.0.0.0/24"], &[]);
        for _ in 0..100 {
            pool.take().unwrap();
        }
        pool.configure(&["10.9.0.0/30".parse().unwrap()], BTreeSet::new());
        let given: Vec<String> = std::iter::from_fn(|| pool.take()).map(|address| address.to_string()).collect();
        assert_eq!(given, ["10.9.0.1", "10.9.0.2"]);
    }
}
