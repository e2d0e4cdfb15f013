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

    /// RFC 2661 section 7.4.1 as it stands there.
    const ROWS: [(&str, &str, &str, &str); 12] = [
        ("idle", "Bearer Ring or Ready to indicate incoming conn.", "Initiate local tunnel open", "wait-tunnel"),
        ("idle", "Receive ICCN, ICRP, CDN", "Clean up", "idle"),
        ("wait-tunnel", "Bearer line drop or local close request", "Clean up", "idle"),
        ("wait-tunnel", "tunnel-open", "Send ICRQ", "wait-reply"),
        ("wait-reply", "Receive ICRP, acceptable", "Send ICCN", "established"),
        ("wait-reply", "Receive ICRP, Not acceptable", "Send CDN, Clean up", "idle"),
        ("wait-reply", "Receive ICRQ", "Send CDN Clean up", "idle"),
        ("wait-reply", "Receive CDN ICCN", "Clean up", "idle"),
        ("wait-reply", "Local close request or Bearer line drop", "Send CDN, Clean up", "idle"),
        ("established", "Receive CDN", "Clean up", "idle"),
        ("established", "Receive ICRQ, ICRP, ICCN", "Send CDN, Clean up", "idle"),
        ("established", "Bearer line drop or local close request", "Send CDN, Clean up", "idle"),
    ];

    /// What the RFC leaves out: nothing happens.
    const LEFT_OUT: [(State, &[Event]); 4] = [
        (State::Idle, &[Event::Icrq, Event::TunnelOpen, Event::Close]),
        (
            State::WaitTunnel,
            &[Event::Ready, Event::IcrpAcceptable, Event::IcrpNotAcceptable, Event::Icrq, Event::Iccn, Event::Cdn],
        ),
        (State::WaitReply, &[Event::Ready, Event::TunnelOpen]),
        (State::Established, &[Event::Ready, Event::TunnelOpen]),
    ];

    fn state(name: &str) -> State {
        match name {
            "idle" => State::Idle,
            "wait-tunnel" => State::WaitTunnel,
            "wait-reply" => State::WaitReply,
            "established" => State::Established,
            _ => panic!("{name}"),
        }
    }

    fn events(text: &str) -> &'static [Event] {
        match text {
            "Bearer Ring or Ready to indicate incoming conn." => &[Event::Ready],
            "Receive ICCN, ICRP, CDN" => &[Event::Iccn, Event::IcrpAcceptable, Event::IcrpNotAcceptable, Event::Cdn],
            "Bearer line drop or local close request" | "Local close request or Bearer line drop" => &[Event::Close],
            "tunnel-open" => &[Event::TunnelOpen],
            "Receive ICRP, acceptable" => &[Event::IcrpAcceptable],
            "Receive ICRP, Not acceptable" => &[Event::IcrpNotAcceptable],
            "Receive ICRQ" => &[Event::Icrq],
            "Receive CDN ICCN" => &[Event::Cdn, Event::Iccn],
            "Receive CDN" => &[Event::Cdn],
            "Receive ICRQ, ICRP, ICCN" => &[Event::Icrq, Event::IcrpAcceptable, Event::IcrpNotAcceptable, Event::Iccn],
            _ => panic!("{text}"),
        }
    }

    fn action(text: &str) -> Action {
        match text {
            "Initiate local tunnel open" => Action::OpenTunnel,
            "Clean up" => Action::CleanUp,
            "Send ICRQ" => Action::SendIcrq,
            "Send ICCN" => Action::SendIccn,
            "Send CDN, Clean up" | "Send CDN Clean up" => Action::SendCdn,
            _ => panic!("{text}"),
        }
    }

    #[test]
    fn every_row_of_section_7_4_1_holds_and_nothing_else_is_defined() {
        let ours = LEFT_OUT.iter().flat_map(|(state, events)| events.iter().map(|event| (*state, *event)));
        let mut rows: Vec<_> = ours.map(|(state, event)| (state, event, Action::Nothing, state)).collect();
        for (from, event, what, to) in ROWS {
            rows.extend(events(event).iter().map(|event| (state(from), *event, action(what), state(to))));
        }
        for (state, event, action, next) in &rows {
            assert_eq!(state.on(*event), (*action, *next), "{state:?} {event:?}");
        }
        let cells: std::collections::BTreeSet<_> =
            rows.iter().map(|(state, event, ..)| format!("{state:?} {event:?}")).collect();
        assert_eq!((cells.len(), rows.len()), (32, 32), "4 states and 8 events");
    }
}
