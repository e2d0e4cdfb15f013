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

    #[test]
    fn the_table_is_that_of_section_7_2_1() {
        let mut table = String::new();
        for state in [State::Idle, State::WaitCtlReply, State::Established] {
            for event in [
                Event::Open,
                Event::Sccrq,
                Event::SccrpAcceptable,
                Event::SccrpNotAcceptable,
                Event::Scccn,
                Event::StopCcn,
                Event::Close,
            ] {
                let (action, next) = state.on(event);
                table += &format!("{state:?} {event:?}: {action:?}, {next:?}\n");
            }
        }
        assert_eq!(
            table,
            "\
Idle Open: SendSccrq, WaitCtlReply
Idle Sccrq: SendStopCcn, Idle
Idle SccrpAcceptable: SendStopCcn, Idle
Idle SccrpNotAcceptable: SendStopCcn, Idle
Idle Scccn: CleanUp, Idle
Idle StopCcn: CleanUp, Idle
Idle Close: CleanUp, Idle
WaitCtlReply Open: Nothing, WaitCtlReply
WaitCtlReply Sccrq: SendStopCcn, Idle
WaitCtlReply SccrpAcceptable: SendScccn, Established
WaitCtlReply SccrpNotAcceptable: SendStopCcn, Idle
WaitCtlReply Scccn: SendStopCcn, Idle
WaitCtlReply StopCcn: CleanUp, Idle
WaitCtlReply Close: SendStopCcn, Idle
Established Open: TunnelOpen, Established
Established Sccrq: SendStopCcn, Idle
Established SccrpAcceptable: SendStopCcn, Idle
Established SccrpNotAcceptable: SendStopCcn, Idle
Established Scccn: SendStopCcn, Idle
Established StopCcn: CleanUp, Idle
Established Close: SendStopCcn, Idle
"
        );
    }
}
