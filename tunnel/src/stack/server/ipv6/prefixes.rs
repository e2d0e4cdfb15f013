//! The prefixes of 64 bits that sessions get, and whose each is.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::Ipv6Addr;

use ipnet::Ipv6Net;

use super::PREFIX_BITS;

/// Who has which prefix; there are as many as sessions. Nothing is given out twice, and what was given back is given out again as
/// late as possible.
#[derive(Debug, Default)]
pub(in crate::stack::server) struct Prefixes {
    pool: Option<Ipv6Net>,
    /// The session of each prefix, by its bits.
    taken: HashMap<u64, u64>,
    /// Where the search goes on.
    next: u64,
}

impl Prefixes {
    /// Changes what there is to give; what was given stays given.
    pub(in crate::stack::server) fn configure(&mut self, pool: Option<Ipv6Net>) {
        self.pool = pool;
    }

    /// Gives a session a prefix that nobody has.
    pub(super) fn take(&mut self, session: u64) -> Option<Ipv6Net> {
        let pool = self.pool?;
        let last = u64::MAX.checked_shr(pool.prefix_len().into()).unwrap_or(0);
        let tries = u64::try_from(self.taken.len()).unwrap_or(u64::MAX).min(last).saturating_add(1);
        for _ in 0..tries {
            let index = self.next.min(last);
            self.next = if index == last { 0 } else { index.saturating_add(1) };
            let bits = bits(pool.network()) | index;
            if let Entry::Vacant(free) = self.taken.entry(bits) {
                free.insert(session);
                return Ipv6Net::new(Ipv6Addr::from(u128::from(bits) << PREFIX_BITS), PREFIX_BITS).ok();
            }
        }
        None
    }

    /// Takes a prefix back.
    pub(in crate::stack::server) fn give_back(&mut self, prefix: Ipv6Net) {
        self.taken.remove(&bits(prefix.network()));
    }

    /// The session that `address` belongs to.
    pub(super) fn find(&self, address: Ipv6Addr) -> Option<u64> {
        self.taken.get(&bits(address)).copied()
    }
}

/// The bits of the prefix of an address.
fn bits(address: Ipv6Addr) -> u64 {
    u64::try_from(u128::from(address) >> PREFIX_BITS).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pool: &str) -> Prefixes {
        let mut prefixes = Prefixes::default();
        prefixes.configure(Some(pool.parse().unwrap()));
        prefixes
    }

    #[test]
    fn every_prefix_is_given_once_and_found_by_its_addresses() {
        let mut prefixes = of("fd09::/62");
        let given: Vec<String> = (1..=4).map(|session| prefixes.take(session).unwrap().to_string()).collect();
        assert_eq!(given, ["fd09::/64", "fd09:0:0:1::/64", "fd09:0:0:2::/64", "fd09:0:0:3::/64"]);
        assert_eq!(prefixes.take(5), None);
        assert_eq!(prefixes.find("fd09:0:0:2::9".parse().unwrap()), Some(3));
        assert_eq!(prefixes.find("fd09:0:0:4::9".parse().unwrap()), None);
    }

    #[test]
    fn what_was_given_back_comes_last() {
        let mut prefixes = of("fd09::/62");
        let first = prefixes.take(1).unwrap();
        prefixes.give_back(first);
        assert_eq!(prefixes.find(first.network()), None);
        let later: Vec<Ipv6Net> = std::iter::from_fn(|| prefixes.take(2)).collect();
        assert_eq!((later.len(), later.last()), (4, Some(&first)));
    }

    #[test]
    fn the_smallest_and_the_largest_pool_have_what_they_have() {
        let mut smallest = of("fd09:0:0:7::/64");
        assert_eq!([smallest.take(1), smallest.take(2)], ["fd09:0:0:7::/64".parse().ok(), None]);
        assert!(of("::/0").take(1).is_some());
        assert_eq!(Prefixes::default().take(1), None);
    }

    #[test]
    fn a_pool_that_has_become_smaller_gives_what_it_has() {
        let mut prefixes = of("fd09::/48");
        (0..100).for_each(|session| assert!(prefixes.take(session).is_some()));
        prefixes.configure(Some("fd0a::/63".parse().unwrap()));
        let mut given: Vec<Ipv6Net> = std::iter::from_fn(|| prefixes.take(200)).collect();
        given.sort();
        assert_eq!(given, ["fd0a::/64".parse().unwrap(), "fd0a:0:0:1::/64".parse().unwrap()]);
    }
}
