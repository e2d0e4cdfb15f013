//! The option negotiation automaton (RFC 1661 section 4): states, events, actions, and the table that binds them.

/// The states (section 4.2), with the numbers of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// 0: the lower layer is down, and nobody has asked for this one.
    Initial,
    /// 1: asked for, and the lower layer is down.
    Starting,
    /// 2: the lower layer is up, and nobody has asked for this one.
    Closed,
    /// 3: ended while it was asked for.
    Stopped,
    /// 4: a Terminate-Request is out; the layer is not wanted any more.
    Closing,
    /// 5: a Terminate-Request is out; the layer is still wanted.
    Stopping,
    /// 6: a Configure-Request is out.
    RequestSent,
    /// 7: ours is acknowledged; theirs is not.
    AckReceived,
    /// 8: theirs is acknowledged; ours is not.
    AckSent,
    /// 9: both are.
    Opened,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 10] = [
        Self::Initial,
        Self::Starting,
        Self::Closed,
        Self::Stopped,
        Self::Closing,
        Self::Stopping,
        Self::RequestSent,
        Self::AckReceived,
        Self::AckSent,
        Self::Opened,
    ];

    /// Whether the Restart timer runs: the states with TO events.
    pub fn has_timer(self) -> bool {
        match self {
            Self::Closing | Self::Stopping | Self::RequestSent | Self::AckReceived | Self::AckSent => true,
            Self::Initial | Self::Starting | Self::Closed | Self::Stopped | Self::Opened => false,
        }
    }
}

/// The events (section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// The lower layer is ready.
    Up,
    /// The lower layer is gone.
    Down,
    /// The layer is wanted.
    Open,
    /// The layer is not wanted.
    Close,
    /// TO+: the Restart timer expired, and the restart counter is greater than zero.
    Timeout,
    /// TO-: it expired for the last time.
    LastTimeout,
    /// RCR+: a Configure-Request that is acceptable.
    GoodRequest,
    /// RCR-: one that is not.
    BadRequest,
    /// RCA: a valid Configure-Ack.
    Ack,
    /// RCN: a valid Configure-Nak or Configure-Reject.
    NakOrReject,
    /// RTR: a Terminate-Request.
    TerminateRequest,
    /// RTA: a Terminate-Ack.
    TerminateAck,
    /// RUC: a code that is not known.
    UnknownCode,
    /// RXJ+: a Code-Reject or Protocol-Reject of something that can be done without.
    HarmlessReject,
    /// RXJ-: one of something that cannot.
    CatastrophicReject,
    /// RXR: an Echo-Request, Echo-Reply or Discard-Request.
    Echo,
}

impl Event {
    /// Every event, in the order of the table.
    pub const ALL: [Self; 16] = [
        Self::Up,
        Self::Down,
        Self::Open,
        Self::Close,
        Self::Timeout,
        Self::LastTimeout,
        Self::GoodRequest,
        Self::BadRequest,
        Self::Ack,
        Self::NakOrReject,
        Self::TerminateRequest,
        Self::TerminateAck,
        Self::UnknownCode,
        Self::HarmlessReject,
        Self::CatastrophicReject,
        Self::Echo,
    ];
}

/// The actions (section 4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// tlu
    ThisLayerUp,
    /// tld
    ThisLayerDown,
    /// tls
    ThisLayerStarted,
    /// tlf
    ThisLayerFinished,
    /// irc
    InitializeRestartCount,
    /// zrc
    ZeroRestartCount,
    /// scr
    SendConfigureRequest,
    /// sca
    SendConfigureAck,
    /// scn
    SendConfigureNak,
    /// str
    SendTerminateRequest,
    /// sta
    SendTerminateAck,
    /// scj
    SendCodeReject,
    /// ser
    SendEchoReply,
}

/// The state transition table (section 4.1). An event that cannot happen in a state (`-` in the table) changes nothing. The
/// restart option of note `r` is not taken: an Open in Stopped, Closing, Stopping or Opened starts nothing anew.
pub fn transition(state: State, event: Event) -> (State, &'static [Action]) {
    use Action::{
        InitializeRestartCount as Irc, SendCodeReject as Scj, SendConfigureAck as Sca, SendConfigureNak as Scn,
        SendConfigureRequest as Scr, SendEchoReply as Ser, SendTerminateAck as Sta, SendTerminateRequest as Str,
        ThisLayerDown as Tld, ThisLayerFinished as Tlf, ThisLayerStarted as Tls, ThisLayerUp as Tlu,
        ZeroRestartCount as Zrc,
    };
    use State::{AckReceived, AckSent, Closed, Closing, Initial, Opened, RequestSent, Starting, Stopped, Stopping};
    match (event, state) {
        (Event::Up, Initial) => (Closed, &[]),
        (Event::Up, Starting) => (RequestSent, &[Irc, Scr]),

        (Event::Down, Closed | Closing) => (Initial, &[]),
        (Event::Down, Stopped) => (Starting, &[Tls]),
        (Event::Down, Stopping | RequestSent | AckReceived | AckSent) => (Starting, &[]),
        (Event::Down, Opened) => (Starting, &[Tld]),

        (Event::Open, Initial) => (Starting, &[Tls]),
        (Event::Open, Closed) => (RequestSent, &[Irc, Scr]),
        (Event::Open, Closing) => (Stopping, &[]),

        (Event::Close, Starting) => (Initial, &[Tlf]),
        (Event::Close, Stopped) => (Closed, &[]),
        (Event::Close, Stopping) => (Closing, &[]),
        (Event::Close, RequestSent | AckReceived | AckSent) => (Closing, &[Irc, Str]),
        (Event::Close, Opened) => (Closing, &[Tld, Irc, Str]),

        (Event::Timeout, Closing | Stopping) => (state, &[Str]),
        (Event::Timeout, RequestSent | AckReceived) => (RequestSent, &[Scr]),
        (Event::Timeout, AckSent) => (AckSent, &[Scr]),

        (Event::LastTimeout, Closing) => (Closed, &[Tlf]),
        (Event::LastTimeout, Stopping | RequestSent | AckReceived | AckSent) => (Stopped, &[Tlf]),

        (Event::GoodRequest | Event::BadRequest | Event::Ack | Event::NakOrReject, Closed) => (Closed, &[Sta]),
        //= rfc1661 4.3 "The implementation MUST be prepared to receive a new Configure-Request without network administrator intervention."
        //= test: every_cell_of_the_table_is_that_of_the_rfc, every_frame_in_every_phase_of_the_client_does_what_is_written_down
        (Event::GoodRequest, Stopped) => (AckSent, &[Irc, Scr, Sca]),
        (Event::GoodRequest, RequestSent | AckSent) => (AckSent, &[Sca]),
        (Event::GoodRequest, AckReceived) => (Opened, &[Sca, Tlu]),
        //= rfc1661 4.3 "The implementation MUST be prepared to immediately renegotiate the Configuration Options."
        //= test: a_link_that_is_negotiated_anew_is_down_until_it_comes_up_again, a_link_that_is_negotiated_anew_for_ever_is_given_up
        (Event::GoodRequest, Opened) => (AckSent, &[Tld, Scr, Sca]),

        (Event::BadRequest, Stopped) => (RequestSent, &[Irc, Scr, Scn]),
        (Event::BadRequest, RequestSent | AckSent) => (RequestSent, &[Scn]),
        (Event::BadRequest, AckReceived) => (AckReceived, &[Scn]),
        (Event::BadRequest, Opened) => (RequestSent, &[Tld, Scr, Scn]),

        (Event::Ack | Event::NakOrReject, Stopped) => (Stopped, &[Sta]),
        (Event::Ack, RequestSent) => (AckReceived, &[Irc]),
        (Event::Ack, AckSent) => (Opened, &[Irc, Tlu]),
        (Event::NakOrReject, RequestSent) => (RequestSent, &[Irc, Scr]),
        (Event::NakOrReject, AckSent) => (AckSent, &[Irc, Scr]),
        (Event::Ack | Event::NakOrReject, AckReceived) => (RequestSent, &[Scr]),
        (Event::Ack | Event::NakOrReject, Opened) => (RequestSent, &[Tld, Scr]),

        (Event::TerminateRequest, Closed | Stopped | Closing | Stopping) => (state, &[Sta]),
        (Event::TerminateRequest, RequestSent | AckReceived | AckSent) => (RequestSent, &[Sta]),
        (Event::TerminateRequest, Opened) => (Stopping, &[Tld, Zrc, Sta]),

        (Event::TerminateAck, Closing) => (Closed, &[Tlf]),
        (Event::TerminateAck, Stopping) => (Stopped, &[Tlf]),
        (Event::TerminateAck, AckReceived) => (RequestSent, &[]),
        (Event::TerminateAck, Opened) => (RequestSent, &[Tld, Scr]),

        (Event::UnknownCode, Closed | Stopped | Closing | Stopping | RequestSent | AckReceived | AckSent | Opened) => {
            (state, &[Scj])
        }

        (Event::HarmlessReject, AckReceived) => (RequestSent, &[]),

        (Event::CatastrophicReject, Closed | Closing) => (Closed, &[Tlf]),
        (Event::CatastrophicReject, Stopped | Stopping | RequestSent | AckReceived | AckSent) => (Stopped, &[Tlf]),
        (Event::CatastrophicReject, Opened) => (Stopping, &[Tld, Irc, Str]),

        (Event::Echo, Opened) => (Opened, &[Ser]),

        (Event::Up, Closed | Stopped | Closing | Stopping | RequestSent | AckReceived | AckSent | Opened)
        | (Event::Down, Initial | Starting)
        | (Event::Open, Starting | Stopped | Stopping | RequestSent | AckReceived | AckSent | Opened)
        | (Event::Close, Initial | Closed | Closing)
        | (Event::Timeout | Event::LastTimeout, Initial | Starting | Closed | Stopped | Opened)
        | (
            Event::GoodRequest | Event::BadRequest | Event::Ack | Event::NakOrReject,
            Initial | Starting | Closing | Stopping,
        )
        | (Event::TerminateRequest | Event::UnknownCode | Event::CatastrophicReject, Initial | Starting)
        | (Event::TerminateAck, Initial | Starting | Closed | Stopped | RequestSent | AckSent)
        | (
            Event::HarmlessReject,
            Initial | Starting | Closed | Stopped | Closing | Stopping | RequestSent | AckSent | Opened,
        )
        | (
            Event::Echo,
            Initial | Starting | Closed | Stopped | Closing | Stopping | RequestSent | AckReceived | AckSent,
        ) => (state, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of RFC 1661 section 4.1 as it stands there: one row an event, the states 0 to 9 in the columns.
    const TABLE: [(&str, [&str; 10]); 16] = [
        ("Up", ["2", "irc,scr/6", "-", "-", "-", "-", "-", "-", "-", "-"]),
        ("Down", ["-", "-", "0", "tls/1", "0", "1", "1", "1", "1", "tld/1"]),
        ("Open", ["tls/1", "1", "irc,scr/6", "3r", "5r", "5r", "6", "7", "8", "9r"]),
        ("Close", ["0", "tlf/0", "2", "2", "4", "4", "irc,str/4", "irc,str/4", "irc,str/4", "tld,irc,str/4"]),
        ("TO+", ["-", "-", "-", "-", "str/4", "str/5", "scr/6", "scr/6", "scr/8", "-"]),
        ("TO-", ["-", "-", "-", "-", "tlf/2", "tlf/3", "tlf/3p", "tlf/3p", "tlf/3p", "-"]),
        ("RCR+", ["-", "-", "sta/2", "irc,scr,sca/8", "4", "5", "sca/8", "sca,tlu/9", "sca/8", "tld,scr,sca/8"]),
        ("RCR-", ["-", "-", "sta/2", "irc,scr,scn/6", "4", "5", "scn/6", "scn/7", "scn/6", "tld,scr,scn/6"]),
        ("RCA", ["-", "-", "sta/2", "sta/3", "4", "5", "irc/7", "scr/6x", "irc,tlu/9", "tld,scr/6x"]),
        ("RCN", ["-", "-", "sta/2", "sta/3", "4", "5", "irc,scr/6", "scr/6x", "irc,scr/8", "tld,scr/6x"]),
        ("RTR", ["-", "-", "sta/2", "sta/3", "sta/4", "sta/5", "sta/6", "sta/6", "sta/6", "tld,zrc,sta/5"]),
        ("RTA", ["-", "-", "2", "3", "tlf/2", "tlf/3", "6", "6", "8", "tld,scr/6"]),
        ("RUC", ["-", "-", "scj/2", "scj/3", "scj/4", "scj/5", "scj/6", "scj/7", "scj/8", "scj/9"]),
        ("RXJ+", ["-", "-", "2", "3", "4", "5", "6", "6", "8", "9"]),
        ("RXJ-", ["-", "-", "tlf/2", "tlf/3", "tlf/2", "tlf/3", "tlf/3", "tlf/3", "tlf/3", "tld,irc,str/5"]),
        ("RXR", ["-", "-", "2", "3", "4", "5", "6", "7", "8", "ser/9"]),
    ];

    fn short(action: Action) -> &'static str {
        match action {
            Action::ThisLayerUp => "tlu",
            Action::ThisLayerDown => "tld",
            Action::ThisLayerStarted => "tls",
            Action::ThisLayerFinished => "tlf",
            Action::InitializeRestartCount => "irc",
            Action::ZeroRestartCount => "zrc",
            Action::SendConfigureRequest => "scr",
            Action::SendConfigureAck => "sca",
            Action::SendConfigureNak => "scn",
            Action::SendTerminateRequest => "str",
            Action::SendTerminateAck => "sta",
            Action::SendCodeReject => "scj",
            Action::SendEchoReply => "ser",
        }
    }

    #[test]
    fn every_cell_of_the_table_is_that_of_the_rfc() {
        for (event, (name, row)) in Event::ALL.into_iter().zip(TABLE) {
            for (number, (state, cell)) in State::ALL.into_iter().zip(row).enumerate() {
                let (next, actions) = transition(state, event);
                let (wanted, number) = match cell.trim_end_matches(['r', 'p', 'x']).rsplit_once('/') {
                    Some((actions, next)) => (actions.to_owned(), next.to_owned()),
                    None if cell == "-" => (String::new(), number.to_string()),
                    None => (String::new(), cell.trim_end_matches('r').to_owned()),
                };
                let done: Vec<_> = actions.iter().copied().map(short).collect();
                assert_eq!(done.join(","), wanted, "{name} in {state:?}");
                assert_eq!(next, State::ALL[number.parse::<usize>().unwrap()], "{name} in {state:?}");
            }
        }
    }

    #[test]
    fn the_table_is_the_one_that_is_written_down() {
        let mut table = String::new();
        for event in Event::ALL {
            table.push_str(&format!("{event:?}\n"));
            for state in State::ALL {
                let (next, actions) = transition(state, event);
                let done: Vec<_> = actions.iter().map(|action| format!("{action:?}")).collect();
                let next = if next == state { String::new() } else { format!(" -> {next:?}") };
                if !done.is_empty() || !next.is_empty() {
                    table.push_str(&format!("  {state:?}{next}: {}\n", done.join(", ")));
                }
            }
        }
        insta::assert_snapshot!("automaton", table);
    }

    #[test]
    fn the_timer_runs_where_it_can_expire() {
        for (number, state) in State::ALL.into_iter().enumerate() {
            assert_eq!(state.has_timer(), TABLE[4].1[number] != "-", "{state:?}");
        }
    }
}
