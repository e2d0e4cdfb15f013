//! One control protocol: the automaton of RFC 1661 with its counters, its timer and its packets. What the options mean is
//! the business of [`super::lcp`] and [`super::ipcp`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::automaton::{Action, Event, State, transition};
use super::packet::{CONTROL_HEADER, Code, ConfigOption, DEFAULT_MRU, HEADER, Packet, Protocol, options, text};

/// The first values of the Restart timer, as divisors of it: gateways start a process for each call, and lose what comes before
/// it listens.
const FIRST_RESTARTS: [u32; 2] = [4, 2];
/// Configure-Naks and Configure-Rejects of the peer before it is given up: more than any gateway needs that converges.
const MAX_ROUNDS: u32 = 20;
/// Packets that wait to be sent; the owner sends them after each call, and none causes more than three.
const MAX_QUEUE: usize = 8;

/// Counters and timers (RFC 1661 section 4.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    //= rfc1661 4.6 "The Restart timer MUST be configurable"
    //= test: counters_and_timers_are_those_of_the_configuration, a_silent_peer_gets_ten_requests_and_no_more
    /// The Restart timer: how long a request waits for its answer.
    pub restart: Duration,
    //= rfc1661 4.6 "Max-Configure MUST be configurable"
    //= test: counters_and_timers_are_those_of_the_configuration, a_silent_peer_gets_ten_requests_and_no_more
    /// Max-Configure: Configure-Requests without a valid answer.
    pub max_configure: u32,
    //= rfc1661 4.6 "Max-Terminate MUST be configurable"
    //= test: counters_and_timers_are_those_of_the_configuration, a_close_without_an_answer_ends_after_max_terminate_requests
    /// Max-Terminate: Terminate-Requests without an answer.
    pub max_terminate: u32,
    //= rfc1661 4.6 "Max-Failure MUST be configurable"
    //= test: counters_and_timers_are_those_of_the_configuration, an_authentication_that_may_not_be_used_is_named_at_the_end
    /// Max-Failure: Configure-Naks in a row before the rest is rejected.
    pub max_failure: u32,
}

impl Default for Counters {
    fn default() -> Self {
        Self { restart: Duration::from_secs(3), max_configure: 10, max_terminate: 2, max_failure: 5 }
    }
}

/// What to answer to a Configure-Request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Every option is fine.
    Ack,
    /// These should have these values.
    Nak(Vec<u8>),
    /// These are not wanted at all.
    Reject(Vec<u8>),
}

/// The options of one protocol.
pub(super) trait Negotiate {
    /// The protocol.
    const PROTOCOL: Protocol;

    /// The options of our next Configure-Request.
    fn request(&self) -> Vec<u8>;

    /// Judges the peer's request and remembers what it says. With `last` nothing may be answered by a Nak any more.
    fn judge(&mut self, request: &[u8], last: bool) -> Judgement;

    /// The peer wants our options to have other values.
    fn handle_nak(&mut self, kind: u8, value: &[u8]);

    /// The peer does not want one of our options.
    fn handle_reject(&mut self, kind: u8);

    /// Whether what the peer refused cannot be done without.
    fn is_hopeless(&self) -> bool {
        false
    }

    /// The name of a type of option.
    fn name(kind: u8) -> String;
}

/// What the owner must know, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Signal {
    /// tlu
    Up,
    /// tld
    Down,
    /// Nothing answers any more.
    Unanswered,
    /// The peer never agrees.
    NotConverging,
    /// The peer rejected what cannot be done without.
    Rejected,
    /// The peer ended it, with this text.
    Terminated(String),
}

/// A control protocol.
pub(super) struct ControlProtocol<N> {
    pub(super) options: N,
    counters: Counters,
    state: State,
    /// The Identifier of the packet that was sent last, whatever it was.
    id: u8,
    /// Identifier and options of the Configure-Request that is out.
    request: (u8, Vec<u8>),
    /// The types of the options that the peer was last told not to ask for so.
    refused: Vec<u8>,
    /// The longest information field that the peer takes: its MRU.
    peer_mru: u16,
    /// The codes below 16 that the peer has rejected, a bit for each.
    rejected: u16,
    restarts: u32,
    deadline: Option<Instant>,
    naks_sent: u32,
    rounds: u32,
    out: VecDeque<Vec<u8>>,
    signals: VecDeque<Signal>,
}

impl<N: Negotiate> ControlProtocol<N> {
    pub(super) fn new(options: N, counters: Counters) -> Self {
        Self {
            options,
            counters,
            state: State::Initial,
            id: 0,
            request: (0, Vec::new()),
            refused: Vec::new(),
            peer_mru: DEFAULT_MRU,
            rejected: 0,
            restarts: 0,
            deadline: None,
            naks_sent: 0,
            rounds: 0,
            out: VecDeque::new(),
            signals: VecDeque::new(),
        }
    }

    pub(super) fn is_opened(&self) -> bool {
        self.state == State::Opened
    }

    /// The layer is wanted and the one below it is ready.
    pub(super) fn open(&mut self, now: Instant) {
        self.step(now, Event::Open, None);
        self.step(now, Event::Up, None);
    }

    /// Whether a Terminate-Request waits for its answer.
    pub(super) fn is_terminating(&self) -> bool {
        matches!(self.state, State::Closing | State::Stopping)
    }

    /// The layer is not wanted any more.
    pub(super) fn close(&mut self, now: Instant) {
        self.step(now, Event::Close, None);
    }

    /// Takes the MRU that the peer has established; [`DEFAULT_MRU`] where there is none.
    pub(super) fn set_peer_mru(&mut self, mru: u16) {
        self.peer_mru = mru;
    }

    /// As much of `data` as the peer takes behind `header` octets (sections 5.6 and 5.7).
    pub(super) fn truncated<'a>(&self, header: usize, data: &'a [u8]) -> &'a [u8] {
        data.get(..usize::from(self.peer_mru).saturating_sub(header)).unwrap_or(data)
    }

    /// Whether the peer does not know `code`, which it has said by a Code-Reject.
    pub(super) fn is_rejected(&self, code: Code) -> bool {
        self.rejected & bit(code.0) != 0
    }

    /// Queues a packet with one of the codes beyond the seven, unless the peer has rejected the code.
    pub(super) fn send_extended(&mut self, packet: &Packet<'_>) {
        if !self.is_rejected(Code(packet.code)) {
            self.send(packet.frame(N::PROTOCOL));
        }
    }

    /// What the peer asks for although it was told not to.
    pub(super) fn insists_on(&self) -> Option<String> {
        let names: Vec<_> = self.refused.iter().map(|kind| N::name(*kind)).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }

    /// The layer below is gone.
    pub(super) fn lower_down(&mut self, now: Instant) {
        self.step(now, Event::Down, None);
    }

    pub(super) fn next_id(&mut self) -> u8 {
        self.id = self.id.wrapping_add(1);
        self.id
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_some_and(|at| at <= now) {
            let event = if self.restarts > 0 { Event::Timeout } else { Event::LastTimeout };
            self.step(now, event, None);
            if event == Event::LastTimeout {
                self.signals.push_back(Signal::Unanswered);
            }
        }
    }

    pub(super) fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.out.pop_front()
    }

    pub(super) fn poll_signal(&mut self) -> Option<Signal> {
        self.signals.pop_front()
    }

    /// Takes a packet with one of the codes 1 to 7, or one that the protocol does not have.
    pub(super) fn handle(&mut self, now: Instant, packet: &Packet<'_>) {
        match Code(packet.code) {
            Code::CONFIGURE_REQUEST => self.handle_request(now, packet),
            //= rfc1661 5.2 "On reception of a Configure-Ack, the Identifier field MUST match that of the last transmitted Configure-Request."
            //= test: an_answer_counts_only_with_the_identifier_of_the_last_request, an_answer_counts_only_with_the_identifier_of_the_last_request
            //= rfc1661 5.2 "the Configuration Options in a Configure-Ack MUST exactly match those of the last transmitted Configure-Request."
            //= test: an_ack_counts_only_with_the_options_of_the_last_request, an_ack_counts_only_with_the_options_of_the_last_request
            Code::CONFIGURE_ACK if (packet.id, packet.data) == (self.request.0, &self.request.1) => {
                self.step(now, Event::Ack, Some(packet));
            }
            //= rfc1661 5.3 "On reception of a Configure-Nak, the Identifier field MUST match that of the last transmitted Configure-Request."
            //= test: our_request_follows_naks_and_rejects, an_answer_counts_only_with_the_identifier_of_the_last_request
            //= rfc1661 5.4 "On reception of a Configure-Reject, the Identifier field MUST match that of the last transmitted Configure-Request."
            //= test: our_request_follows_naks_and_rejects, an_answer_counts_only_with_the_identifier_of_the_last_request
            Code::CONFIGURE_NAK | Code::CONFIGURE_REJECT if packet.id == self.request.0 => {
                self.handle_refusal(now, packet)
            }
            // Not the answer to our last request: silently discarded (sections 5.2 to 5.4).
            Code::CONFIGURE_ACK | Code::CONFIGURE_NAK | Code::CONFIGURE_REJECT => {}
            Code::TERMINATE_REQUEST => {
                // In front of the Down that follows from it: the cause comes first.
                if self.changes_by(Event::TerminateRequest) {
                    self.signals.push_back(Signal::Terminated(text(packet.data)));
                }
                self.step(now, Event::TerminateRequest, Some(packet));
            }
            Code::TERMINATE_ACK => self.step(now, Event::TerminateAck, None),
            Code::CODE_REJECT => {
                // Without the seven codes there is no negotiation.
                let is_harmless = packet.data.first().is_none_or(|code| *code > Code::CODE_REJECT.0);
                //= rfc1661 4.3 "The implementation MUST stop sending the offending packet type."
                //= test: a_code_that_was_rejected_is_not_sent_again, a_rejected_ipv6cp_is_asked_for_no_more
                self.rejected |= packet.data.first().map_or(0, |code| bit(*code));
                self.handle_reject(now, is_harmless);
            }
            //= rfc1661 5.6 "This MUST be reported back to the sender of the unknown Code by transmitting a"
            //= test: unknown_codes_are_rejected_with_the_packet, discard_requests_get_no_answer
            _ => self.step(now, Event::UnknownCode, Some(packet)),
        }
    }

    /// A Code-Reject, or a Protocol-Reject of this protocol.
    pub(super) fn handle_reject(&mut self, now: Instant, is_harmless: bool) {
        let event = if is_harmless { Event::HarmlessReject } else { Event::CatastrophicReject };
        if !is_harmless && self.changes_by(event) {
            self.signals.push_back(Signal::Rejected);
        }
        self.step(now, event, None);
    }

    /// Whether `event` has any effect in the state as it is.
    fn changes_by(&self, event: Event) -> bool {
        let (next, actions) = transition(self.state, event);
        next != self.state || !actions.is_empty()
    }

    //= rfc1661 5.1 "Upon reception of a Configure-Request, an appropriate reply MUST be transmitted."
    //= test: the_options_of_a_request_are_acknowledged_as_they_are, what_is_not_wanted_is_rejected_in_order_and_before_anything_is_naked
    fn handle_request(&mut self, now: Instant, packet: &Packet<'_>) {
        if matches!(self.state, State::Initial | State::Starting) {
            return;
        }
        let judgement = self.options.judge(packet.data, self.naks_sent >= self.counters.max_failure);
        let event = match &judgement {
            Judgement::Ack => Event::GoodRequest,
            Judgement::Nak(_) | Judgement::Reject(_) => Event::BadRequest,
        };
        let (code, data) = match &judgement {
            Judgement::Ack => {
                //= rfc1661 5.2 "then the implementation MUST transmit a Configure-Ack."
                //= test: the_options_of_a_request_are_acknowledged_as_they_are, what_is_not_wanted_is_rejected_in_order_and_before_anything_is_naked
                //= rfc1661 5.2 "The acknowledged Configuration Options MUST NOT be reordered or modified in any way."
                //= test: the_options_of_a_request_are_acknowledged_as_they_are, windows
                self.naks_sent = 0;
                (Code::CONFIGURE_ACK, packet.data)
            }
            Judgement::Nak(options) => {
                //= rfc1661 5.3 "then the implementation MUST transmit a Configure-Nak."
                //= test: a_magic_number_of_zero_or_our_own_is_naked, a_peer_may_ask_for_everything_that_pppd_asks_for
                //= rfc1661 5.3 "All acceptable Configuration Options are filtered out of the Configure-Nak, but otherwise the Configuration Options from the Configure-Request MUST NOT be reordered."
                //= test: a_nak_keeps_the_order_and_says_what_is_acceptable, a_server_naks_another_address_and_name_server_with_the_assigned_ones
                //= rfc1661 5.3 "Each Configuration Option which is allowed only a single instance MUST be modified to a value acceptable to the Configure-Nak sender."
                //= test: a_nak_keeps_the_order_and_says_what_is_acceptable, a_magic_number_of_zero_or_our_own_is_naked
                //= out: rfc1661 5.3 "When a particular type of Configuration Option can be listed more than once with different values, the Configure-Nak MUST include a list of all values for that option which are acceptable to the Configure-Nak sender." no option that is negotiated here can be listed more than once
                self.naks_sent = self.naks_sent.saturating_add(1);
                (Code::CONFIGURE_NAK, options.as_slice())
            }
            //= rfc1661 5.4 "the implementation MUST transmit a Configure-Reject."
            //= test: what_is_not_wanted_is_rejected_in_order_and_before_anything_is_naked, a_peer_may_ask_for_everything_that_pppd_asks_for
            //= rfc1661 5.4 "the Configuration Options MUST NOT be reordered or modified in any way."
            //= test: windows, what_is_not_wanted_is_rejected_in_order_and_before_anything_is_naked
            Judgement::Reject(options) => (Code::CONFIGURE_REJECT, options.as_slice()),
        };
        let refused = if event == Event::BadRequest { data } else { &[] };
        self.refused = options(refused).into_iter().flatten().map(|option| option.kind).collect();
        self.step(now, event, Some(&Packet { code: code.0, id: packet.id, data }));
    }

    fn handle_refusal(&mut self, now: Instant, packet: &Packet<'_>) {
        let Ok(options) = options(packet.data) else { return };
        //= rfc1661 5.4 "Additionally, the Configuration Options in a Configure-Reject MUST be a proper subset of those in the last transmitted Configure-Request."
        //= test: our_request_follows_naks_and_rejects, a_reject_counts_only_with_options_of_the_last_request
        if packet.code == Code::CONFIGURE_REJECT.0 && !self.are_of_request(&options) {
            return;
        }
        for option in options {
            if packet.code == Code::CONFIGURE_NAK.0 {
                self.options.handle_nak(option.kind, option.data);
            } else {
                self.options.handle_reject(option.kind);
            }
        }
        self.rounds = self.rounds.saturating_add(1);
        if self.rounds > MAX_ROUNDS || self.options.is_hopeless() {
            self.deadline = None;
            self.signals.push_back(Signal::NotConverging);
            return;
        }
        self.step(now, Event::NakOrReject, Some(packet));
    }

    /// Whether our last request has each of these options as it is.
    fn are_of_request(&self, rejected: &[ConfigOption<'_>]) -> bool {
        let sent = options(&self.request.1).unwrap_or_default();
        rejected.iter().all(|option| sent.iter().any(|sent| sent.whole == option.whole))
    }

    /// Drives the automaton. `packet` is the reply to a Configure-Request, or else the packet that is the event.
    fn step(&mut self, now: Instant, event: Event, packet: Option<&Packet<'_>>) {
        let (next, actions) = transition(self.state, event);
        self.state = next;
        for action in actions {
            self.act(now, *action, packet);
        }
        if !next.has_timer() {
            self.deadline = None;
        } else if self.deadline.is_none() {
            // Into a state with the timer without an action that starts it: Ack-Received keeps what is left of it.
            self.deadline = Some(now + self.counters.restart);
        }
    }

    fn act(&mut self, now: Instant, action: Action, packet: Option<&Packet<'_>>) {
        match action {
            Action::ThisLayerUp => {
                (self.naks_sent, self.rounds) = (0, 0);
                self.signals.push_back(Signal::Up);
            }
            Action::ThisLayerDown => self.signals.push_back(Signal::Down),
            // The owner opened the lower layer before, and ends by the signals of what happened.
            Action::ThisLayerStarted | Action::ThisLayerFinished => {}
            Action::InitializeRestartCount => {
                //= rfc1661 4.4 "In addition to setting the Restart counter, the implementation MUST set the timeout period to the initial value when Restart timer backoff is used."
                //= test: the_restart_timer_is_short_again_whenever_the_counter_begins_anew, a_silent_peer_gets_ten_requests_and_no_more
                let Counters { max_terminate, max_configure, .. } = self.counters;
                self.restarts = if self.is_terminating() { max_terminate } else { max_configure };
            }
            Action::ZeroRestartCount => {
                //= rfc1661 4.4 "In addition to zeroing the Restart counter, the implementation MUST set the timeout period to an appropriate value."
                //= test: whoever_is_told_to_terminate_pauses_for_a_restart_time_and_then_ends, a_terminate_request_is_acknowledged_whenever_it_comes
                self.restarts = 0;
                self.deadline = Some(now + self.counters.restart);
            }
            Action::SendConfigureRequest => {
                //= rfc1661 5.1 "An implementation wishing to open a connection MUST transmit a Configure-Request."
                //= test: a_silent_peer_gets_ten_requests_and_no_more, a_close_after_a_failure_says_goodbye_and_before_the_beginning_nothing
                //= rfc1661 5.1 "The Identifier field MUST be changed whenever the contents of the Options field changes"
                //= test: the_identifier_changes_with_the_options_and_after_each_answer, a_reject_of_ours_leaves_the_identifier_of_our_request_alone
                let (id, data) = (self.next_id(), self.options.request());
                self.send(Packet { code: Code::CONFIGURE_REQUEST.0, id, data: &data }.frame(N::PROTOCOL));
                self.request = (id, data);
                self.restart(now);
            }
            //= rfc1661 5.5 "On transmission, the Identifier field MUST be changed whenever the content of the Data field changes, and whenever a valid reply has been received for a previous request."
            //= test: each_terminate_request_and_each_echo_has_an_identifier_of_its_own, a_close_asks_the_peer_to_terminate_and_waits_for_its_answer
            Action::SendTerminateRequest => {
                let id = self.next_id();
                self.send(Packet { code: Code::TERMINATE_REQUEST.0, id, data: &[] }.frame(N::PROTOCOL));
                self.restart(now);
            }
            Action::SendConfigureAck | Action::SendConfigureNak => {
                //= rfc1661 5 "The Length MUST NOT exceed the MRU of the link."
                //= test: an_answer_that_the_peer_could_not_read_is_not_sent, rejects_are_cut_to_the_mru_of_the_peer
                // A peer that asks for more than it could read itself gets no answer.
                let fits =
                    |packet: &&Packet<'_>| self.truncated(CONTROL_HEADER, packet.data).len() == packet.data.len();
                if let Some(packet) = packet.filter(fits) {
                    self.send(packet.frame(N::PROTOCOL));
                }
            }
            //= rfc1661 5.5 "Upon reception of a Terminate-Request, a Terminate-Ack MUST be transmitted."
            //= test: a_terminate_request_is_acknowledged_whenever_it_comes, every_frame_in_every_phase_of_the_client_does_what_is_written_down
            Action::SendTerminateAck => {
                let id = packet.map_or(0, |packet| packet.id);
                self.send(Packet { code: Code::TERMINATE_ACK.0, id, data: &[] }.frame(N::PROTOCOL));
            }
            Action::SendCodeReject => {
                if let Some(packet) = packet {
                    let whole = packet.frame(N::PROTOCOL).split_off(HEADER);
                    //= rfc1661 5.6 "The Identifier field MUST be changed for each Code-Reject sent."
                    //= test: each_reject_has_an_identifier_of_its_own, each_reject_has_an_identifier_of_its_own
                    //= rfc1661 5.6 "The Rejected-Packet MUST be truncated to comply with the peer's"
                    //= test: unknown_codes_are_rejected_with_the_packet, rejects_are_cut_to_the_mru_of_the_peer
                    let (id, data) = (self.next_id(), self.truncated(CONTROL_HEADER, &whole));
                    self.send(Packet { code: Code::CODE_REJECT.0, id, data }.frame(N::PROTOCOL));
                }
            }
            // LCP alone has echoes, and its owner answers them.
            Action::SendEchoReply => {}
        }
    }

    fn restart(&mut self, now: Instant) {
        self.restarts = self.restarts.saturating_sub(1);
        let sent = self.counters.max_configure.saturating_sub(self.restarts).saturating_sub(1);
        let divisor = usize::try_from(sent).ok().and_then(|sent| FIRST_RESTARTS.get(sent)).unwrap_or(&1);
        self.deadline = Some(now + self.counters.restart / *divisor);
    }

    /// Queues a frame. A full queue loses it: the peer asks again.
    pub(super) fn send(&mut self, frame: Vec<u8>) {
        if self.out.len() < MAX_QUEUE {
            self.out.push_back(frame);
        }
    }
}

/// The bit of a code in the set of those that are rejected; none for codes that are never sent.
fn bit(code: u8) -> u16 {
    1_u16.checked_shl(code.into()).unwrap_or_default()
}
