//! The states of a control connection (RFC 2661 section 7.2.1), as its originator and as its recipient goes through them.

/// Where the control connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No control connection.
    Idle,
    /// The originator has sent SCCRQ.
    WaitCtlReply,
    /// The recipient has sent SCCRP.
    WaitCtlConn,
    /// SCCRP or SCCCN was accepted.
    Established,
}

/// What happens to the control connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Local open request.
    Open,
    /// Receive SCCRQ, acceptable.
    SccrqAcceptable,
    /// Receive SCCRQ, not acceptable.
    SccrqNotAcceptable,
    /// Receive SCCRQ, lose tie-breaker.
    SccrqLoseTie,
    /// Receive SCCRQ, with a tie breaker that is equal to ours.
    SccrqEqualTie,
    /// Receive SCCRP, acceptable.
    SccrpAcceptable,
    /// Receive SCCRP, not acceptable.
    SccrpNotAcceptable,
    /// Receive SCCCN, acceptable.
    ScccnAcceptable,
    /// Receive SCCCN, not acceptable.
    ScccnNotAcceptable,
    /// Receive StopCCN.
    StopCcn,
    /// Administrative close of the tunnel.
    Close,
}

/// What is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Nothing,
    /// Send SCCRQ.
    SendSccrq,
    /// Send SCCRP.
    SendSccrp,
    /// Send SCCCN, and tell waiting sessions that the tunnel is open.
    SendScccn,
    /// Tell waiting sessions that the tunnel is open.
    TunnelOpen,
    /// Clean up, and take the SCCRQ as one that comes in the idle state.
    RequeueSccrq,
    /// Send StopCCN, clean up.
    SendStopCcn,
    /// Clean up.
    CleanUp,
}

impl State {
    /// The row of the table for `event`. The rows that the RFC leaves out are marked.
    pub fn on(self, event: Event) -> (Action, Self) {
        match (self, event) {
            (Self::Idle, Event::Open) => (Action::SendSccrq, Self::WaitCtlReply),
            (Self::Idle, Event::SccrqAcceptable) => (Action::SendSccrp, Self::WaitCtlConn),
            (Self::Idle, Event::SccrqNotAcceptable) => (Action::SendStopCcn, Self::Idle),
            (Self::Idle, Event::SccrpAcceptable | Event::SccrpNotAcceptable) => (Action::SendStopCcn, Self::Idle),
            (Self::Idle, Event::ScccnAcceptable | Event::ScccnNotAcceptable) => (Action::CleanUp, Self::Idle),
            (Self::WaitCtlReply, Event::SccrpAcceptable) => (Action::SendScccn, Self::Established),
            (Self::WaitCtlReply, Event::SccrpNotAcceptable) => (Action::SendStopCcn, Self::Idle),
            (Self::WaitCtlReply, Event::SccrqLoseTie) => (Action::RequeueSccrq, Self::Idle),
            (Self::WaitCtlReply, Event::ScccnAcceptable | Event::ScccnNotAcceptable) => {
                (Action::SendStopCcn, Self::Idle)
            }
            (Self::WaitCtlConn, Event::ScccnAcceptable) => (Action::TunnelOpen, Self::Established),
            (Self::WaitCtlConn, Event::ScccnNotAcceptable) => (Action::SendStopCcn, Self::Idle),
            (
                Self::WaitCtlConn,
                Event::SccrpAcceptable
                | Event::SccrpNotAcceptable
                | Event::SccrqAcceptable
                | Event::SccrqNotAcceptable
                | Event::SccrqLoseTie
                | Event::SccrqEqualTie,
            ) => (Action::SendStopCcn, Self::Idle),
            (Self::Established, Event::Open) => (Action::TunnelOpen, Self::Established),
            (Self::Established, Event::Close) => (Action::SendStopCcn, Self::Idle),
            (
                Self::Established,
                Event::SccrqAcceptable
                | Event::SccrqNotAcceptable
                | Event::SccrqLoseTie
                | Event::SccrqEqualTie
                | Event::SccrpAcceptable
                | Event::SccrpNotAcceptable
                | Event::ScccnAcceptable
                | Event::ScccnNotAcceptable,
            ) => (Action::SendStopCcn, Self::Idle),
            (Self::Idle | Self::WaitCtlReply | Self::WaitCtlConn | Self::Established, Event::StopCcn) => {
                (Action::CleanUp, Self::Idle)
            }
            // Not in the table: an SCCRQ inside of the tunnel that is being opened is out of sequence.
            (Self::WaitCtlReply, Event::SccrqNotAcceptable) => (Action::SendStopCcn, Self::Idle),
            // Not in the table: the peer's SCCRQ has lost the tie, or there is none and it makes another tunnel.
            (Self::WaitCtlReply, Event::SccrqAcceptable) => (Action::Nothing, Self::WaitCtlReply),
            // Not in the table: "where a tie breaker is present on both sides, and the value is equal, both sides MUST discard".
            (Self::WaitCtlReply, Event::SccrqEqualTie) => (Action::CleanUp, Self::Idle),
            // Not in the table: the StopCCN names the tunnel by the ID that the SCCRQ or the SCCRP assigned.
            (Self::WaitCtlReply | Self::WaitCtlConn, Event::Close) => (Action::SendStopCcn, Self::Idle),
            // Not in the table: nothing to close, nothing to tie with, and an open request that is under way already.
            (Self::Idle, Event::Close) => (Action::CleanUp, Self::Idle),
            (Self::Idle, Event::SccrqLoseTie | Event::SccrqEqualTie) => (Action::Nothing, Self::Idle),
            (Self::WaitCtlReply | Self::WaitCtlConn, Event::Open) => (Action::Nothing, self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 2661 section 7.2.1 as it stands there.
    const ROWS: [(&str, &str, &str, &str); 16] = [
        ("idle", "Local Open request", "Send SCCRQ", "wait-ctl-reply"),
        ("idle", "Receive SCCRQ, acceptable", "Send SCCRP", "wait-ctl-conn"),
        ("idle", "Receive SCCRQ, not acceptable", "Send StopCCN, Clean up", "idle"),
        ("idle", "Receive SCCRP", "Send StopCCN Clean up", "idle"),
        ("idle", "Receive SCCCN", "Clean up", "idle"),
        (
            "wait-ctl-reply",
            "Receive SCCRP, acceptable",
            "Send SCCCN, Send tunnel-open event to waiting sessions",
            "established",
        ),
        ("wait-ctl-reply", "Receive SCCRP, not acceptable", "Send StopCCN, Clean up", "idle"),
        ("wait-ctl-reply", "Receive SCCRQ, lose tie-breaker", "Clean up, Re-queue SCCRQ for idle state", "idle"),
        ("wait-ctl-reply", "Receive SCCCN", "Send StopCCN Clean up", "idle"),
        ("wait-ctl-conn", "Receive SCCCN, acceptable", "Send tunnel-open event to waiting sessions", "established"),
        ("wait-ctl-conn", "Receive SCCCN, not acceptable", "Send StopCCN, Clean up", "idle"),
        ("wait-ctl-conn", "Receive SCCRP, SCCRQ", "Send StopCCN, Clean up", "idle"),
        ("established", "Local Open request (new call)", "Send tunnel-open event to waiting sessions", "established"),
        ("established", "Admin Tunnel Close", "Send StopCCN Clean up", "idle"),
        ("established", "Receive SCCRQ, SCCRP, SCCCN", "Send StopCCN Clean up", "idle"),
        ("idle wait-ctl-reply, wait-ctl-conn, established", "Receive StopCCN", "Clean up", "idle"),
    ];

    /// What the RFC leaves out.
    const OURS: [(State, Event, Action, State); 10] = [
        (State::WaitCtlReply, Event::SccrqNotAcceptable, Action::SendStopCcn, State::Idle),
        (State::WaitCtlReply, Event::SccrqAcceptable, Action::Nothing, State::WaitCtlReply),
        (State::WaitCtlReply, Event::Close, Action::SendStopCcn, State::Idle),
        (State::WaitCtlConn, Event::Close, Action::SendStopCcn, State::Idle),
        (State::Idle, Event::Close, Action::CleanUp, State::Idle),
        (State::Idle, Event::SccrqLoseTie, Action::Nothing, State::Idle),
        (State::Idle, Event::SccrqEqualTie, Action::Nothing, State::Idle),
        (State::WaitCtlReply, Event::SccrqEqualTie, Action::CleanUp, State::Idle),
        (State::WaitCtlReply, Event::Open, Action::Nothing, State::WaitCtlReply),
        (State::WaitCtlConn, Event::Open, Action::Nothing, State::WaitCtlConn),
    ];

    fn states(text: &str) -> Vec<State> {
        let state = |name| match name {
            "idle" => State::Idle,
            "wait-ctl-reply" => State::WaitCtlReply,
            "wait-ctl-conn" => State::WaitCtlConn,
            "established" => State::Established,
            _ => panic!("{name}"),
        };
        text.split([',', ' ']).filter(|name| !name.is_empty()).map(state).collect()
    }

    const SCCRQ: &[Event] =
        &[Event::SccrqAcceptable, Event::SccrqNotAcceptable, Event::SccrqLoseTie, Event::SccrqEqualTie];
    const SCCRP: &[Event] = &[Event::SccrpAcceptable, Event::SccrpNotAcceptable];
    const SCCCN: &[Event] = &[Event::ScccnAcceptable, Event::ScccnNotAcceptable];

    fn events(text: &str) -> Vec<Event> {
        match text {
            "Local Open request" | "Local Open request (new call)" => vec![Event::Open],
            "Receive SCCRQ, acceptable" => vec![Event::SccrqAcceptable],
            "Receive SCCRQ, not acceptable" => vec![Event::SccrqNotAcceptable],
            "Receive SCCRQ, lose tie-breaker" => vec![Event::SccrqLoseTie],
            "Receive SCCRP" => SCCRP.to_vec(),
            "Receive SCCRP, acceptable" => vec![Event::SccrpAcceptable],
            "Receive SCCRP, not acceptable" => vec![Event::SccrpNotAcceptable],
            "Receive SCCCN" => SCCCN.to_vec(),
            "Receive SCCCN, acceptable" => vec![Event::ScccnAcceptable],
            "Receive SCCCN, not acceptable" => vec![Event::ScccnNotAcceptable],
            "Receive SCCRP, SCCRQ" => [SCCRP, SCCRQ].concat(),
            "Receive SCCRQ, SCCRP, SCCCN" => [SCCRQ, SCCRP, SCCCN].concat(),
            "Receive StopCCN" => vec![Event::StopCcn],
            "Admin Tunnel Close" => vec![Event::Close],
            _ => panic!("{text}"),
        }
    }

    fn action(text: &str) -> Action {
        match text {
            "Send SCCRQ" => Action::SendSccrq,
            "Send SCCRP" => Action::SendSccrp,
            "Clean up, Re-queue SCCRQ for idle state" => Action::RequeueSccrq,
            "Send StopCCN, Clean up" | "Send StopCCN Clean up" => Action::SendStopCcn,
            "Clean up" => Action::CleanUp,
            "Send SCCCN, Send tunnel-open event to waiting sessions" => Action::SendScccn,
            "Send tunnel-open event to waiting sessions" => Action::TunnelOpen,
            _ => panic!("{text}"),
        }
    }

    #[test]
    fn every_row_of_section_7_2_1_holds_and_nothing_else_is_defined() {
        let mut rows: Vec<_> = OURS.to_vec();
        for (from, event, what, to) in ROWS {
            for state in states(from) {
                rows.extend(events(event).iter().map(|event| (state, *event, action(what), states(to)[0])));
            }
        }
        for (state, event, action, next) in &rows {
            assert_eq!(state.on(*event), (*action, *next), "{state:?} {event:?}");
        }
        let cells: std::collections::BTreeSet<_> =
            rows.iter().map(|(state, event, ..)| format!("{state:?} {event:?}")).collect();
        assert_eq!((cells.len(), rows.len()), (44, 44), "4 states and 11 events");
    }
}
