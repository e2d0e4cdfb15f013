//! The states of an incoming call at the LAC (RFC 2661 section 7.4.1).

/// Where the session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No session.
    Idle,
    /// Waits for the control connection.
    WaitTunnel,
    /// ICRQ was sent.
    WaitReply,
    /// Data is exchanged.
    Established,
}

/// What happens to the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Ready to indicate an incoming connection.
    Ready,
    /// The control connection is open.
    TunnelOpen,
    /// Receive ICRP, acceptable.
    IcrpAcceptable,
    /// Receive ICRP, not acceptable.
    IcrpNotAcceptable,
    /// Receive ICRQ.
    Icrq,
    /// Receive ICCN.
    Iccn,
    /// Receive CDN.
    Cdn,
    /// Local close request.
    Close,
}

/// What is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Nothing,
    /// Open the control connection.
    OpenTunnel,
    /// Send ICRQ.
    SendIcrq,
    /// Send ICCN.
    SendIccn,
    /// Send CDN, clean up.
    SendCdn,
    /// Clean up.
    CleanUp,
}

impl State {
    /// The row of the table for `event`. The rows that the RFC leaves out are marked.
    pub fn on(self, event: Event) -> (Action, Self) {
        match (self, event) {
            (Self::Idle, Event::Ready) => (Action::OpenTunnel, Self::WaitTunnel),
            (Self::Idle, Event::Iccn | Event::IcrpAcceptable | Event::IcrpNotAcceptable | Event::Cdn) => {
                (Action::CleanUp, Self::Idle)
            }
            (Self::WaitTunnel, Event::Close) => (Action::CleanUp, Self::Idle),
            (Self::WaitTunnel, Event::TunnelOpen) => (Action::SendIcrq, Self::WaitReply),
            (Self::WaitReply, Event::IcrpAcceptable) => (Action::SendIccn, Self::Established),
            (Self::WaitReply, Event::IcrpNotAcceptable) => (Action::SendCdn, Self::Idle),
            (Self::WaitReply, Event::Icrq) => (Action::SendCdn, Self::Idle),
            (Self::WaitReply, Event::Cdn | Event::Iccn) => (Action::CleanUp, Self::Idle),
            (Self::WaitReply, Event::Close) => (Action::SendCdn, Self::Idle),
            (Self::Established, Event::Cdn) => (Action::CleanUp, Self::Idle),
            (Self::Established, Event::Icrq | Event::IcrpAcceptable | Event::IcrpNotAcceptable | Event::Iccn) => {
                (Action::SendCdn, Self::Idle)
            }
            (Self::Established, Event::Close) => (Action::SendCdn, Self::Idle),
            // Not in the table: there is no session to close, and the peer cannot yet name the one that waits.
            (Self::Idle, Event::Icrq | Event::TunnelOpen | Event::Close) => (Action::Nothing, Self::Idle),
            (
                Self::WaitTunnel,
                Event::Ready
                | Event::IcrpAcceptable
                | Event::IcrpNotAcceptable
                | Event::Icrq
                | Event::Iccn
                | Event::Cdn,
            ) => (Action::Nothing, Self::WaitTunnel),
            (Self::WaitReply, Event::Ready | Event::TunnelOpen) => (Action::Nothing, Self::WaitReply),
            (Self::Established, Event::Ready | Event::TunnelOpen) => (Action::Nothing, Self::Established),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_that_of_section_7_4_1() {
        let mut table = String::new();
        for state in [State::Idle, State::WaitTunnel, State::WaitReply, State::Established] {
            for event in [
                Event::Ready,
                Event::TunnelOpen,
                Event::IcrpAcceptable,
                Event::IcrpNotAcceptable,
                Event::Icrq,
                Event::Iccn,
                Event::Cdn,
                Event::Close,
            ] {
                let (action, next) = state.on(event);
                table += &format!("{state:?} {event:?}: {action:?}, {next:?}\n");
            }
        }
        assert_eq!(
            table,
            "\
Idle Ready: OpenTunnel, WaitTunnel
Idle TunnelOpen: Nothing, Idle
Idle IcrpAcceptable: CleanUp, Idle
Idle IcrpNotAcceptable: CleanUp, Idle
Idle Icrq: Nothing, Idle
Idle Iccn: CleanUp, Idle
Idle Cdn: CleanUp, Idle
Idle Close: Nothing, Idle
WaitTunnel Ready: Nothing, WaitTunnel
WaitTunnel TunnelOpen: SendIcrq, WaitReply
WaitTunnel IcrpAcceptable: Nothing, WaitTunnel
WaitTunnel IcrpNotAcceptable: Nothing, WaitTunnel
WaitTunnel Icrq: Nothing, WaitTunnel
WaitTunnel Iccn: Nothing, WaitTunnel
WaitTunnel Cdn: Nothing, WaitTunnel
WaitTunnel Close: CleanUp, Idle
WaitReply Ready: Nothing, WaitReply
WaitReply TunnelOpen: Nothing, WaitReply
WaitReply IcrpAcceptable: SendIccn, Established
WaitReply IcrpNotAcceptable: SendCdn, Idle
WaitReply Icrq: SendCdn, Idle
WaitReply Iccn: CleanUp, Idle
WaitReply Cdn: CleanUp, Idle
WaitReply Close: SendCdn, Idle
Established Ready: Nothing, Established
Established TunnelOpen: Nothing, Established
Established IcrpAcceptable: SendCdn, Idle
Established IcrpNotAcceptable: SendCdn, Idle
Established Icrq: SendCdn, Idle
Established Iccn: SendCdn, Idle
Established Cdn: CleanUp, Idle
Established Close: SendCdn, Idle
"
        );
    }
}
