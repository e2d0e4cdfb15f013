//! Sequence numbers of the data channel (RFC 2661 section 5.4). Lost messages are not repaired; what arrives late or twice is
//! dropped.

/// The sequence state of one session.
#[derive(Debug, Clone, Default)]
pub(super) struct Sequence {
    /// Whether the session was set up with Sequencing Required.
    required: bool,
    /// Whether this end is the LAC, which follows the LNS.
    follows: bool,
    /// Whether the LNS sends sequence numbers.
    enabled: bool,
    next_sent: u16,
    next_received: Option<u16>,
}

impl Sequence {
    /// The state of a LAC; that of an LNS, which controls the numbers and asks for none, is the default.
    pub(super) fn of_lac() -> Self {
        Self { follows: true, ..Self::default() }
    }

    /// Sequence numbers must "be present at all times", whatever the LNS does.
    pub(super) fn require(&mut self) {
        self.required = true;
    }

    /// Whether data messages go out with sequence numbers.
    pub(super) fn is_on(&self) -> bool {
        self.required || self.enabled
    }

    /// The Ns of the next data message to be sent, if it has one.
    pub(super) fn next(&mut self) -> Option<u16> {
        let ns = self.next_sent;
        self.is_on().then(|| {
            self.next_sent = ns.wrapping_add(1);
            ns
        })
    }

    /// Whether a received data message is to be used. The numbers pick up where they left off when the LNS switches them off
    /// and on again.
    pub(super) fn accept(&mut self, ns: Option<u16>) -> bool {
        //= rfc2661 5.4 "it MUST stop sending sequence numbers in future data messages."
        //= test: data_flows_both_ways_and_sequencing_follows_the_lns, sequencing_that_the_lns_requires_stays_on
        //= rfc2661 5.4 "it MUST begin sending sequence numbers in future outgoing data messages."
        //= test: data_flows_both_ways_and_sequencing_follows_the_lns, data_flows_both_ways_and_its_numbers_are_those_of_the_lac_only_where_required
        self.enabled = self.follows && ns.is_some();
        let Some(ns) = ns else { return true };
        // A number within the preceding 32768 is old, as on the control channel (section 5.8).
        let fresh = self.next_received.is_none_or(|next| ns.wrapping_sub(next) < 0x8000);
        if fresh {
            self.next_received = Some(ns.wrapping_add(1));
        }
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_wrap_and_old_ones_are_told_from_new_ones() {
        let mut sequence = Sequence { next_sent: 0xffff, ..Sequence::of_lac() };
        assert!(sequence.accept(Some(0xfffe)));
        assert_eq!([sequence.next(), sequence.next()], [Some(0xffff), Some(0)]);
        assert!(sequence.accept(Some(1)));
        assert!(!sequence.accept(Some(0xffff)));
        assert!(!sequence.accept(Some(1)));
        assert!(sequence.accept(Some(2)));
        assert!(!sequence.accept(Some(0x8003)), "32768 back");
        assert!(sequence.accept(Some(0x8002)), "32767 ahead");
    }
}
