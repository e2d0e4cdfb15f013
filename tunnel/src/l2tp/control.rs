//! The states of a control connection (RFC 2661 section 7.2.1), as far as its originator goes through them: this LAC never
//! accepts an SCCRQ, so `wait-ctl-conn` does not exist.

/// Where the control connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No control connection.
    Idle,
    /// SCCRQ was sent.
    WaitCtlReply,
    /// SCCRP was accepted.
    Established,
}

/// What happens to the control connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Local open request.
    Open,
    /// Receive SCCRQ; never acceptable here.
    Sccrq,
    /// Receive SCCRP, acceptable.
    SccrpAcceptable,
    /// Receive SCCRP, not acceptable.
    SccrpNotAcceptable,
    /// Receive SCCCN.
    Scccn,
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
    /// Send SCCCN, and tell waiting sessions that the tunnel is open.
    SendScccn,
    /// Tell waiting sessions that the tunnel is open.
    TunnelOpen,
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
            (Self::Idle, Event::Sccrq) => (Action::SendStopCcn, Self::Idle),
            (Self::Idle, Event::SccrpAcceptable | Event::SccrpNotAcceptable) => (Action::SendStopCcn, Self::Idle),
            (Self::Idle, Event::Scccn) => (Action::CleanUp, Self::Idle),
            (Self::WaitCtlReply, Event::SccrpAcceptable) => (Action::SendScccn, Self::Established),
            (Self::WaitCtlReply, Event::SccrpNotAcceptable) => (Action::SendStopCcn, Self::Idle),
            // Not in the table: without a tie breaker there is no tie, and an SCCRQ inside this tunnel is out of sequence.
            (Self::WaitCtlReply, Event::Sccrq) => (Action::SendStopCcn, Self::Idle),
            (Self::WaitCtlReply, Event::Scccn) => (Action::SendStopCcn, Self::Idle),
            (Self::Established, Event::Open) => (Action::TunnelOpen, Self::Established),
            (Self::Established, Event::Close) => (Action::SendStopCcn, Self::Idle),
            (Self::Established, Event::Sccrq | Event::SccrpAcceptable | Event::SccrpNotAcceptable | Event::Scccn) => {
                (Action::SendStopCcn, Self::Idle)
            }
            (Self::Idle | Self::WaitCtlReply | Self::Established, Event::StopCcn) => (Action::CleanUp, Self::Idle),
            // Not in the table: the StopCCN names the tunnel by the ID that the SCCRQ assigned.
            (Self::WaitCtlReply, Event::Close) => (Action::SendStopCcn, Self::Idle),
            // Not in the table: nothing to close, and an open request that is under way already.
            (Self::Idle, Event::Close) => (Action::CleanUp, Self::Idle),
            (Self::WaitCtlReply, Event::Open) => (Action::Nothing, Self::WaitCtlReply),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 2661 section 7.2.1 as it stands there, without the rows of the recipient (an SCCRQ that is acceptable, wait-ctl-conn)
    /// and of the tie breaker.
    const ROWS: [(&str, &str, &str, &str); 12] = [
        ("idle", "Local Open request", "Send SCCRQ", "wait-ctl-reply"),
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
        ("wait-ctl-reply", "Receive SCCCN", "Send StopCCN Clean up", "idle"),
        ("established", "Local Open request (new call)", "Send tunnel-open event to waiting sessions", "established"),
        ("established", "Admin Tunnel Close", "Send StopCCN Clean up", "idle"),
        ("established", "Receive SCCRQ, SCCRP, SCCCN", "Send StopCCN Clean up", "idle"),
        ("idle wait-ctl-reply, established", "Receive StopCCN", "Clean up", "idle"),
        // Ours: without a tie breaker there is no tie, and an SCCRQ inside this tunnel is out of sequence.
        ("wait-ctl-reply", "Receive SCCRQ, not acceptable", "Send StopCCN, Clean up", "idle"),
    ];

    /// What the RFC leaves out.
    const OURS: [(State, Event, Action, State); 3] = [
        (State::WaitCtlReply, Event::Close, Action::SendStopCcn, State::Idle),
        (State::Idle, Event::Close, Action::CleanUp, State::Idle),
        (State::WaitCtlReply, Event::Open, Action::Nothing, State::WaitCtlReply),
    ];

    fn states(text: &str) -> Vec<State> {
        let state = |name| match name {
            "idle" => State::Idle,
            "wait-ctl-reply" => State::WaitCtlReply,
            "established" => State::Established,
            _ => panic!("{name}"),
        };
        text.split([',', ' ']).filter(|name| !name.is_empty()).map(state).collect()
    }

    fn events(text: &str) -> &'static [Event] {
        match text {
            "Local Open request" | "Local Open request (new call)" => &[Event::Open],
            "Receive SCCRQ, not acceptable" => &[Event::Sccrq],
            "Receive SCCRP" => &[Event::SccrpAcceptable, Event::SccrpNotAcceptable],
            "Receive SCCRP, acceptable" => &[Event::SccrpAcceptable],
            "Receive SCCRP, not acceptable" => &[Event::SccrpNotAcceptable],
            "Receive SCCCN" => &[Event::Scccn],
            "Receive SCCRQ, SCCRP, SCCCN" => {
                &[Event::Sccrq, Event::SccrpAcceptable, Event::SccrpNotAcceptable, Event::Scccn]
            }
            "Receive StopCCN" => &[Event::StopCcn],
            "Admin Tunnel Close" => &[Event::Close],
            _ => panic!("{text}"),
        }
    }

    fn action(text: &str) -> Action {
        match text {
            "Send SCCRQ" => Action::SendSccrq,
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
        assert_eq!((cells.len(), rows.len()), (21, 21), "3 states and 7 events");
    }
}
