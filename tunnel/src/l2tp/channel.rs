//! Reliable delivery of control messages (RFC 2661 section 5.8) with slow start and congestion avoidance (appendix A). It is
//! the same at both ends of a tunnel.
//!
//! Messages go in by [`Channel::send`] and come out by [`Channel::poll_message`], in order and once. A caller that has given the
//! channel all it has to say calls [`Channel::flush`]: what the window allows is sent, and what is still to be acknowledged
//! then is acknowledged by a ZLB.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::message::{Body, ControlHeader, MessageType, SessionId, TunnelId};

/// The most messages that wait to be sent or acknowledged: more than a tunnel with one session can have of its own.
const MAX_QUEUED: usize = 32;

/// The largest receive window: the most messages that are kept while one before them is missing.
pub const MAX_RECEIVE_WINDOW: u16 = 16;

/// The longest message that is kept out of order; longer ones are left to retransmission. SCCRP, the longest that is usual,
/// has some hundred octets.
const MAX_KEPT: usize = 2048;

/// The window of a peer that sends no Receive Window Size AVP (section 4.4.3).
pub const DEFAULT_WINDOW: u16 = 4;

/// The most datagrams that wait for [`Channel::poll_transmit`]; what is dropped beyond it is retransmitted.
const MAX_DATAGRAMS: usize = 64;

/// The times of retransmission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retransmission {
    /// The wait before the first one; each following wait is twice as long.
    pub first: Duration,
    /// The longest wait; the RFC asks for at least 8 seconds.
    pub cap: Duration,
    /// How often a message is retransmitted before the tunnel is given up.
    pub tries: u32,
}

impl Retransmission {
    /// How long it takes to give a message up, and so how long an ended tunnel still answers: 31 seconds by default.
    pub fn cycle(&self) -> Duration {
        (0..=self.tries)
            .fold((Duration::ZERO, self.first), |(sum, wait), _| {
                (sum.saturating_add(wait), wait.saturating_mul(2).min(self.cap))
            })
            .0
    }
}

impl Default for Retransmission {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), cap: Duration::from_secs(8), tries: 5 }
    }
}

/// The first wait for the acknowledgment of a goodbye. Whoever says it does not stay for long, and a gateway that hears none
/// keeps the session for minutes; each following wait is twice as long all the same.
const GOODBYE_WAIT: Duration = Duration::from_millis(200);

/// The channel has as many messages as it holds; the peer has not acknowledged any for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the control channel is full")]
pub struct Full;

/// The message was sent as often as it may be, and nothing more will be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted(pub MessageType);

#[derive(Debug)]
struct Outgoing {
    message_type: MessageType,
    session_id: SessionId,
    body: Vec<u8>,
}

/// One end of the control channel of one tunnel.
#[derive(Debug)]
pub struct Channel {
    retransmission: Retransmission,
    receive_window: u16,
    /// The peer's name of the tunnel.
    tunnel_id: TunnelId,
    peer_window: u16,
    /// What the peer has not acknowledged, then what was not sent yet.
    queue: VecDeque<Outgoing>,
    /// The Ns of the front of the queue.
    front_ns: u16,
    /// How many messages of the queue are in flight.
    in_flight: usize,
    /// How many were ever sent: after a retransmission more than are in flight.
    ever_sent: usize,
    congestion_window: u16,
    slow_start_threshold: u16,
    /// Acknowledgments since the congestion window last grew, in congestion avoidance.
    acknowledgments: u16,
    deadline: Option<Instant>,
    wait: Duration,
    retries: u32,
    next_received: u16,
    kept: BTreeMap<u16, (SessionId, Vec<u8>)>,
    delivered: VecDeque<(SessionId, Vec<u8>)>,
    acknowledge: bool,
    datagrams: VecDeque<Vec<u8>>,
}

impl Channel {
    /// A channel to a peer of which nothing is known.
    pub fn new(retransmission: Retransmission, receive_window: u16) -> Self {
        Self {
            retransmission,
            receive_window: receive_window.clamp(1, MAX_RECEIVE_WINDOW),
            //= rfc2661 4.4.3 "messages MUST be sent to that peer with a Tunnel ID value of 0 in the header of all control messages."
            //= test: a_session_is_established_in_the_order_of_the_rfc, an_sccrq_that_names_no_tunnel_is_refused_at_tunnel_0
            //= rfc2661 4.4.3 "The L2TP peer MUST place this value in the Tunnel ID header field of all control and data messages that it subsequently transmits over the associated tunnel."
            //= test: a_session_is_established_in_the_order_of_the_rfc, two_tunnels_with_sessions_of_the_same_name_are_kept_apart
            //= rfc2661 5.3 "Similarly, for cases where the Tunnel ID has not yet been assigned from the peer, the Tunnel ID MUST be sent as 0 and Assigned Tunnel ID AVP used to identify the tunnel."
            //= test: a_session_is_established_in_the_order_of_the_rfc, close_while_the_sccrp_is_awaited_stops_the_tunnel_by_its_name
            tunnel_id: TunnelId::default(),
            peer_window: DEFAULT_WINDOW,
            queue: VecDeque::new(),
            front_ns: 0,
            in_flight: 0,
            ever_sent: 0,
            congestion_window: 1,
            slow_start_threshold: DEFAULT_WINDOW,
            acknowledgments: 0,
            deadline: None,
            wait: retransmission.first,
            retries: 0,
            next_received: 0,
            kept: BTreeMap::new(),
            delivered: VecDeque::new(),
            acknowledge: false,
            datagrams: VecDeque::new(),
        }
    }

    /// The receive window to announce.
    pub fn receive_window(&self) -> u16 {
        self.receive_window
    }

    /// The peer's name of the tunnel; zero before [`Channel::set_tunnel_id`].
    pub fn tunnel_id(&self) -> TunnelId {
        self.tunnel_id
    }

    /// Takes the Assigned Tunnel ID of the peer.
    pub fn set_tunnel_id(&mut self, tunnel_id: TunnelId) {
        self.tunnel_id = tunnel_id;
    }

    /// Takes the Receive Window Size of the peer, to which slow start is bounded.
    pub fn set_peer_window(&mut self, window: u16) {
        self.peer_window = window.max(1);
        self.slow_start_threshold = self.peer_window;
        self.congestion_window = self.congestion_window.min(self.peer_window);
    }

    /// Queues a message for the session that the peer calls `session_id`.
    pub fn send(&mut self, session_id: SessionId, body: Body) -> Result<(), Full> {
        if self.queue.len() >= MAX_QUEUED {
            return Err(Full);
        }
        self.queue.push_back(Outgoing { message_type: body.message_type(), session_id, body: body.into_octets() });
        Ok(())
    }

    /// The number of messages that the peer has not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.queue.len()
    }

    /// Forgets what was to be sent: the peer has ended the tunnel.
    pub fn clear(&mut self) {
        // The numbers stay those of messages that were really sent.
        self.front_ns = self.front_ns.wrapping_add(count(self.ever_sent));
        self.queue.clear();
        (self.in_flight, self.ever_sent) = (0, 0);
        self.deadline = None;
    }

    /// What is queued is the last: all of it leaves as soon as the peer's window allows, and is retransmitted early.
    pub fn hasten(&mut self, now: Instant) {
        // Behind an SCCRQ it waits: the answer tells by which name the peer knows the tunnel.
        if self.tunnel_id != TunnelId::default() {
            self.congestion_window = self.peer_window;
        }
        self.retransmission.first = self.retransmission.first.min(GOODBYE_WAIT);
        self.wait = self.wait.min(GOODBYE_WAIT);
        self.deadline = self.deadline.map(|at| at.min(now + GOODBYE_WAIT));
    }

    /// Takes a control message of this tunnel.
    pub fn handle_message(&mut self, now: Instant, header: &ControlHeader, body: &[u8]) {
        self.handle_nr(now, header.nr);
        if body.is_empty() {
            return;
        }
        // Duplicates "MUST be acknowledged", and so is every other message at once, even one that cannot be used yet: it tells
        // the peer what is missing.
        //= rfc2661 5.8 "receipt of duplicate messages MUST be acknowledged by the reliable transport."
        //= test: duplicates_are_acknowledged_and_not_delivered, the_sccrq_of_a_tunnel_once_more_is_acknowledged_and_makes_no_other
        //= rfc2661 5.8 "A peer MUST NOT withhold acknowledgment of messages as a technique for flow controlling control messages."
        //= test: messages_out_of_order_are_kept_within_the_window, calls_beyond_the_bound_are_refused_and_the_others_go_on
        self.acknowledge = true;
        let ahead = header.ns.wrapping_sub(self.next_received);
        if ahead == 0 {
            self.deliver(header.session_id, body.to_vec());
            while let Some((session_id, body)) = self.kept.remove(&self.next_received) {
                self.deliver(session_id, body);
            }
        } else if ahead < self.receive_window && body.len() <= MAX_KEPT {
            self.kept.entry(header.ns).or_insert_with(|| (header.session_id, body.to_vec()));
        }
    }

    /// The next message in order: the session in its header and its body.
    pub fn poll_message(&mut self) -> Option<(SessionId, Vec<u8>)> {
        self.delivered.pop_front()
    }

    /// Sends what the window allows; a ZLB where nothing else carries an acknowledgment that is due.
    pub fn flush(&mut self, now: Instant) {
        //= rfc2661 5.8 "MUST accept a window of up to 4 from its peer"
        //= test: slow_start_doubles_then_grows_by_one_within_the_peers_window, the_window_of_the_peer_is_kept
        let window = usize::from(self.congestion_window.min(self.peer_window));
        while self.in_flight < window.min(self.queue.len()) {
            self.transmit(self.in_flight);
            self.in_flight += 1;
            self.ever_sent = self.ever_sent.max(self.in_flight);
            if self.deadline.is_none() {
                self.restart_timer(now);
            }
        }
        if self.acknowledge {
            self.acknowledge();
        }
    }

    /// Acknowledges by a ZLB what has come, whatever else will be sent.
    pub fn acknowledge(&mut self) {
        self.acknowledge = false;
        // "Ns is not incremented after a ZLB message is sent": it holds the number of the next new message.
        let ns = self.front_ns.wrapping_add(count(self.ever_sent));
        let (tunnel_id, session_id) = (self.tunnel_id, SessionId::default());
        let header = ControlHeader { tunnel_id, session_id, ns, nr: self.next_received };
        self.push_datagram(header.encode(&[]));
    }

    /// Retransmits when it is time to.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Exhausted> {
        self.deadline.filter(|&at| at <= now)?;
        self.deadline = None;
        let message_type = self.queue.front()?.message_type;
        if self.retries >= self.retransmission.tries {
            return Some(Exhausted(message_type));
        }
        self.retries = self.retries.saturating_add(1);
        self.slow_start_threshold = (self.congestion_window / 2).max(1);
        self.congestion_window = 1;
        self.acknowledgments = 0;
        self.in_flight = 1;
        self.transmit(0);
        //= rfc2661 5.8 "Each subsequent retransmission of a message MUST employ an exponential backoff interval."
        //= test: each_wait_is_twice_as_long_up_to_eight_seconds, goodbyes_keep_to_the_window_of_the_peer_and_their_repetition_backs_off
        //= rfc2661 5.8 "This cap MUST be no less than 8 seconds per retransmission."
        //= test: each_wait_is_twice_as_long_up_to_eight_seconds, a_full_cycle_takes_31_seconds
        self.wait = self.wait.saturating_mul(2).min(self.retransmission.cap.max(self.retransmission.first));
        self.deadline = Some(now + self.wait);
        None
    }

    /// Goes on retransmitting an exhausted message, at the longest interval.
    pub fn persist(&mut self, now: Instant) {
        self.retries = 0;
        self.deadline = Some(now + self.wait);
    }

    /// When [`Channel::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// The next UDP payload to be sent.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        let next = self.datagrams.pop_front();
        if next.is_none() {
            // A channel has little to say in its life, and an LNS has many of them.
            self.datagrams.shrink_to_fit();
            self.queue.shrink_to_fit();
            self.delivered.shrink_to_fit();
        }
        next
    }

    fn handle_nr(&mut self, now: Instant, nr: u16) {
        let acknowledged = usize::from(nr.wrapping_sub(self.front_ns));
        // Zero is nothing new; more than was sent is an old number, or a peer that is wrong.
        if acknowledged == 0 || acknowledged > self.ever_sent {
            return;
        }
        self.queue.drain(..acknowledged.min(self.queue.len()));
        self.front_ns = nr;
        self.ever_sent -= acknowledged;
        self.in_flight = self.in_flight.saturating_sub(acknowledged);
        self.retries = 0;
        self.wait = self.retransmission.first;
        if self.congestion_window < self.slow_start_threshold {
            self.congestion_window = self.congestion_window.saturating_add(1).min(self.peer_window);
        } else {
            self.acknowledgments = self.acknowledgments.saturating_add(1);
            if self.acknowledgments >= self.congestion_window {
                self.acknowledgments = 0;
                self.congestion_window = self.congestion_window.saturating_add(1).min(self.peer_window);
            }
        }
        self.deadline = None;
        if self.in_flight > 0 {
            self.restart_timer(now);
        }
    }

    fn restart_timer(&mut self, now: Instant) {
        self.retries = 0;
        self.wait = self.retransmission.first;
        self.deadline = Some(now + self.wait);
    }

    fn deliver(&mut self, session_id: SessionId, body: Vec<u8>) {
        self.next_received = self.next_received.wrapping_add(1);
        self.delivered.push_back((session_id, body));
    }

    fn transmit(&mut self, index: usize) {
        let Some(message) = self.queue.get(index) else { return };
        // "The retransmitted message contains the same Ns value, but the Nr value MUST be updated".
        let header = ControlHeader {
            tunnel_id: self.tunnel_id,
            session_id: message.session_id,
            ns: self.front_ns.wrapping_add(count(index)),
            //= rfc2661 5.8 "the Nr value MUST be updated with the sequence number of the next expected message."
            //= test: a_retransmission_keeps_ns_and_refreshes_nr, messages_out_of_order_are_kept_within_the_window
            nr: self.next_received,
        };
        let datagram = header.encode(&message.body);
        self.acknowledge = false;
        self.push_datagram(datagram);
    }

    fn push_datagram(&mut self, datagram: Vec<u8>) {
        if self.datagrams.len() < MAX_DATAGRAMS {
            self.datagrams.push_back(datagram);
        } else {
            tracing::debug!("control message dropped: nobody takes them");
        }
    }
}

/// A number of messages of the queue, which holds at most [`MAX_QUEUED`].
fn count(messages: usize) -> u16 {
    u16::try_from(messages).expect("MAX_QUEUED is less than 65536")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::l2tp::message::Packet;

    const SECOND: Duration = Duration::from_secs(1);

    fn channel(window: u16) -> (Channel, Instant) {
        let mut channel = Channel::new(Retransmission::default(), window);
        channel.set_tunnel_id(TunnelId(7));
        (channel, Instant::now())
    }

    fn hello(channel: &mut Channel) {
        channel.send(SessionId(0), Body::new(MessageType::HELLO)).unwrap();
    }

    fn receive(channel: &mut Channel, now: Instant, ns: u16, nr: u16, body: &[u8]) -> Vec<u8> {
        let header = ControlHeader { tunnel_id: TunnelId(1), session_id: SessionId(0), ns, nr };
        channel.handle_message(now, &header, body);
        std::iter::from_fn(|| channel.poll_message()).flat_map(|(_, body)| body).collect()
    }

    /// Ns and Nr of what goes out, and whether it has a body.
    fn sent(channel: &mut Channel, now: Instant) -> Vec<(u16, u16, bool)> {
        channel.flush(now);
        std::iter::from_fn(|| channel.poll_transmit())
            .map(|datagram| match Packet::read(&datagram).unwrap() {
                Packet::Control(header, body) => (header.ns, header.nr, !body.is_empty()),
                Packet::Data(..) => panic!("data"),
            })
            .collect()
    }

    #[test]
    fn a_full_cycle_takes_31_seconds() {
        assert_eq!(Retransmission::default().cycle(), 31 * SECOND);
    }

    #[test]
    fn each_wait_is_twice_as_long_up_to_eight_seconds() {
        let (mut channel, start) = channel(4);
        hello(&mut channel);
        sent(&mut channel, start);
        let mut waits = Vec::new();
        let mut now = start;
        loop {
            let next = channel.poll_timeout().unwrap();
            waits.push((next - now).as_secs());
            now = next;
            if channel.handle_timeout(now).is_some() {
                break;
            }
        }
        assert_eq!(waits, [1, 2, 4, 8, 8, 8]);
    }

    #[test]
    fn slow_start_doubles_then_grows_by_one_within_the_peers_window() {
        let (mut channel, now) = channel(4);
        channel.set_peer_window(5);
        let mut flights = Vec::new();
        let mut nr = 0;
        for _ in 0..6 {
            while channel.unacknowledged() < 12 {
                hello(&mut channel);
            }
            let flight = sent(&mut channel, now);
            flights.push(flight.len());
            // Each message of the flight is acknowledged by itself.
            for _ in flight {
                nr += 1;
                receive(&mut channel, now, 0, nr, b"");
            }
        }
        assert_eq!(flights, [1, 2, 4, 5, 5, 5]);
        // Congestion: half of the window is the new threshold, and one message goes out.
        hello(&mut channel);
        let in_flight = sent(&mut channel, now).len();
        assert_eq!(in_flight, 5);
        let later = now + SECOND;
        assert_eq!(channel.handle_timeout(later), None);
        assert_eq!(sent(&mut channel, later), [(nr, 0, true)]);
        receive(&mut channel, later, 0, nr + 1, b"");
        assert_eq!(sent(&mut channel, later), [(nr + 1, 0, true), (nr + 2, 0, true)], "those in flight go out again");
    }

    #[test]
    fn a_retransmission_keeps_ns_and_refreshes_nr() {
        let (mut channel, now) = channel(4);
        hello(&mut channel);
        assert_eq!(sent(&mut channel, now), [(0, 0, true)]);
        assert_eq!(receive(&mut channel, now, 0, 0, b"a"), b"a");
        assert_eq!(sent(&mut channel, now), [(1, 1, false)]);
        channel.handle_timeout(now + SECOND);
        assert_eq!(sent(&mut channel, now + SECOND), [(0, 1, true)]);
    }

    #[test]
    fn duplicates_are_acknowledged_and_not_delivered() {
        let (mut channel, now) = channel(4);
        assert_eq!(receive(&mut channel, now, 0, 0, b"a"), b"a");
        assert_eq!(sent(&mut channel, now), [(0, 1, false)]);
        assert_eq!(receive(&mut channel, now, 0, 0, b"a"), b"");
        assert_eq!(sent(&mut channel, now), [(0, 1, false)]);
        assert_eq!(receive(&mut channel, now, 1, 0, b""), b"", "a ZLB takes no number");
        assert_eq!(sent(&mut channel, now), [], "and is not acknowledged");
        assert_eq!(receive(&mut channel, now, 1, 0, b"b"), b"b");
    }

    #[test]
    fn messages_out_of_order_are_kept_within_the_window() {
        let (mut channel, now) = channel(4);
        assert_eq!(receive(&mut channel, now, 2, 0, b"c"), b"");
        assert_eq!(receive(&mut channel, now, 1, 0, b"b"), b"");
        assert_eq!(receive(&mut channel, now, 4, 0, b"x"), b"", "beyond the window");
        assert_eq!(sent(&mut channel, now), [(0, 0, false)]);
        assert_eq!(receive(&mut channel, now, 0, 0, b"a"), b"abc");
        assert_eq!(receive(&mut channel, now, 3, 0, b"d"), b"d");
        assert_eq!(receive(&mut channel, now, 4, 0, b"e"), b"e");
    }

    #[test]
    fn numbers_wrap_at_65536() {
        let (mut channel, now) = channel(4);
        (channel.front_ns, channel.next_received) = (0xffff, 0xffff);
        hello(&mut channel);
        hello(&mut channel);
        channel.congestion_window = 2;
        assert_eq!(sent(&mut channel, now), [(0xffff, 0xffff, true), (0, 0xffff, true)]);
        assert_eq!(receive(&mut channel, now, 0, 0, b"b"), b"");
        assert_eq!(receive(&mut channel, now, 0xffff, 1, b"a"), b"ab");
        assert_eq!(channel.unacknowledged(), 0);
        assert_eq!(receive(&mut channel, now, 0x8001, 1, b"old"), b"");
    }

    #[test]
    fn an_acknowledgment_of_what_was_not_sent_is_ignored() {
        let (mut channel, now) = channel(4);
        hello(&mut channel);
        hello(&mut channel);
        assert_eq!(sent(&mut channel, now).len(), 1);
        receive(&mut channel, now, 0, 2, b"");
        assert_eq!(channel.unacknowledged(), 2);
        receive(&mut channel, now, 0, 1, b"");
        assert_eq!(channel.unacknowledged(), 1);
    }

    #[test]
    fn what_is_on_its_way_is_hastened_as_well() {
        let (mut channel, now) = channel(4);
        hello(&mut channel);
        assert_eq!(sent(&mut channel, now).len(), 1);
        assert_eq!(channel.poll_timeout(), Some(now + SECOND));
        channel.hasten(now);
        assert_eq!(channel.poll_timeout(), Some(now + GOODBYE_WAIT));
    }

    #[test]
    fn a_channel_at_rest_has_no_memory_of_its_own() {
        let (mut channel, now) = channel(4);
        hello(&mut channel);
        receive(&mut channel, now, 1, 0, b"b");
        sent(&mut channel, now);
        receive(&mut channel, now, 0, 1, b"a");
        sent(&mut channel, now);
        let capacities =
            [channel.queue.capacity(), channel.delivered.capacity(), channel.datagrams.capacity(), channel.kept.len()];
        assert_eq!(capacities, [0; 4]);
    }

    #[test]
    fn the_queue_is_bounded() {
        let (mut channel, _) = channel(4);
        for _ in 0..MAX_QUEUED {
            hello(&mut channel);
        }
        assert_eq!(channel.send(SessionId(0), Body::new(MessageType::HELLO)), Err(Full));
    }
}
