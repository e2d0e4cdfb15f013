//! The states of an incoming call at the LNS (RFC 2661 section 7.4.2).

/// Where the session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No session.
    Idle,
    /// ICRP was sent.
    WaitConnect,
    /// Data is exchanged.
    Established,
}

/// What happens to the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Receive ICRQ, acceptable.
    IcrqAcceptable,
    /// Receive ICRQ, not acceptable.
    IcrqNotAcceptable,
    /// Receive ICRP.
    Icrp,
    /// Receive ICCN, acceptable.
    IccnAcceptable,
    /// Receive ICCN, not acceptable.
    IccnNotAcceptable,
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
    /// Send ICRP.
    SendIcrp,
    /// Prepare for data.
    PrepareForData,
    /// Send CDN, clean up.
    SendCdn,
    /// Clean up.
    CleanUp,
}

impl State {
    /// The row of the table for `event`. The row that the RFC leaves out is marked.
    pub fn on(self, event: Event) -> (Action, Self) {
        match (self, event) {
            (Self::Idle, Event::IcrqAcceptable) => (Action::SendIcrp, Self::WaitConnect),
            (Self::Idle, Event::IcrqNotAcceptable | Event::Icrp) => (Action::SendCdn, Self::Idle),
            (Self::Idle, Event::IccnAcceptable | Event::IccnNotAcceptable) => (Action::CleanUp, Self::Idle),
            (Self::WaitConnect, Event::IccnAcceptable) => (Action::PrepareForData, Self::Established),
            (Self::WaitConnect, Event::IccnNotAcceptable) => (Action::SendCdn, Self::Idle),
            (Self::WaitConnect, Event::IcrqAcceptable | Event::IcrqNotAcceptable | Event::Icrp) => {
                (Action::SendCdn, Self::Idle)
            }
            (Self::Idle | Self::WaitConnect | Self::Established, Event::Cdn) => (Action::CleanUp, Self::Idle),
            (Self::WaitConnect | Self::Established, Event::Close) => (Action::SendCdn, Self::Idle),
            (
                Self::Established,
                Event::IcrqAcceptable
                | Event::IcrqNotAcceptable
                | Event::Icrp
                | Event::IccnAcceptable
                | Event::IccnNotAcceptable,
            ) => (Action::SendCdn, Self::Idle),
            // Not in the table: there is no session to close.
            (Self::Idle, Event::Close) => (Action::Nothing, Self::Idle),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 2661 section 7.4.2 as it stands there.
    const ROWS: [(&str, &str, &str, &str); 10] = [
        ("idle", "Receive ICRQ, acceptable", "Send ICRP", "wait-connect"),
        ("idle", "Receive ICRQ, not acceptable", "Send CDN, Clean up", "idle"),
        ("idle", "Receive ICRP", "Send CDN Clean up", "idle"),
        ("idle", "Receive ICCN", "Clean up", "idle"),
        ("wait-connect", "Receive ICCN acceptable", "Prepare for data", "established"),
        ("wait-connect", "Receive ICCN not acceptable", "Send CDN, Clean up", "idle"),
        ("wait-connect", "Receive ICRQ, ICRP", "Send CDN Clean up", "idle"),
        ("idle, wait-connect, established", "Receive CDN", "Clean up", "idle"),
        ("wait-connect established", "Local Close request", "Send CDN, Clean up", "idle"),
        ("established", "Receive ICRQ, ICRP, ICCN", "Send CDN Clean up", "idle"),
    ];

    /// What the RFC leaves out.
    const LEFT_OUT: (State, Event) = (State::Idle, Event::Close);

    fn states(text: &str) -> Vec<State> {
        let state = |name| match name {
            "idle" => State::Idle,
            "wait-connect" => State::WaitConnect,
            "established" => State::Established,
            _ => panic!("{name}"),
        };
        text.split([',', ' ']).filter(|name| !name.is_empty()).map(state).collect()
    }

    fn events(text: &str) -> &'static [Event] {
        match text {
            "Receive ICRQ, acceptable" => &[Event::IcrqAcceptable],
            "Receive ICRQ, not acceptable" => &[Event::IcrqNotAcceptable],
            "Receive ICRP" => &[Event::Icrp],
            "Receive ICCN" => &[Event::IccnAcceptable, Event::IccnNotAcceptable],
            "Receive ICCN acceptable" => &[Event::IccnAcceptable],
            "Receive ICCN not acceptable" => &[Event::IccnNotAcceptable],
            "Receive ICRQ, ICRP" => &[Event::IcrqAcceptable, Event::IcrqNotAcceptable, Event::Icrp],
            "Receive CDN" => &[Event::Cdn],
            "Local Close request" => &[Event::Close],
            "Receive ICRQ, ICRP, ICCN" => &[
                Event::IcrqAcceptable,
                Event::IcrqNotAcceptable,
                Event::Icrp,
                Event::IccnAcceptable,
                Event::IccnNotAcceptable,
            ],
            _ => panic!("{text}"),
        }
    }

    fn action(text: &str) -> Action {
        match text {
            "Send ICRP" => Action::SendIcrp,
            "Prepare for data" => Action::PrepareForData,
            "Send CDN, Clean up" | "Send CDN Clean up" => Action::SendCdn,
            "Clean up" => Action::CleanUp,
            _ => panic!("{text}"),
        }
    }

    #[test]
    fn every_row_of_section_7_4_2_holds_and_nothing_else_is_defined() {
        let mut rows = vec![(LEFT_OUT.0, LEFT_OUT.1, Action::Nothing, LEFT_OUT.0)];
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
