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
