//! The tables of RFC 2661 sections 7.2.1, 7.4.1 and 7.4.2 as this implementation fills them in, with the cells that the RFC
//! leaves empty: one snapshot each, to be read beside the RFC.

use std::fmt::Debug;

use super::control;
use super::session::{lac, lns};

/// A row for each state, a column for each event, and "action / next state" in each cell.
fn table<S, E, A>(states: &[S], events: &[E], on: impl Fn(S, E) -> (A, S)) -> String
where
    S: Copy + Debug,
    E: Copy + Debug,
    A: Debug,
{
    let head = std::iter::once(String::new()).chain(events.iter().map(|event| format!("{event:?}")));
    let row = |&state: &S| {
        let cell = |&event: &E| {
            let (action, next) = on(state, event);
            format!("{action:?} / {next:?}")
        };
        std::iter::once(format!("{state:?}")).chain(events.iter().map(cell)).collect::<Vec<_>>()
    };
    let rows: Vec<_> = std::iter::once(head.collect()).chain(states.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let line = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(column, cell)| format!("{cell:<0$}", width(column)));
        cells.collect::<Vec<_>>().join(" | ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_table_of_the_control_connection_is_the_reviewed_one() {
    use control::{Event, State};
    let states = [State::Idle, State::WaitCtlReply, State::WaitCtlConn, State::Established];
    let events = [
        Event::Open,
        Event::SccrqAcceptable,
        Event::SccrqNotAcceptable,
        Event::SccrqLoseTie,
        Event::SccrqEqualTie,
        Event::SccrpAcceptable,
        Event::SccrpNotAcceptable,
        Event::ScccnAcceptable,
        Event::ScccnNotAcceptable,
        Event::StopCcn,
        Event::Close,
    ];
    insta::assert_snapshot!("control-connection", table(&states, &events, State::on));
}

#[test]
fn the_table_of_an_incoming_call_at_the_lac_is_the_reviewed_one() {
    use lac::{Event, State};
    let states = [State::Idle, State::WaitTunnel, State::WaitReply, State::Established];
    let events = [
        Event::Ready,
        Event::TunnelOpen,
        Event::IcrpAcceptable,
        Event::IcrpNotAcceptable,
        Event::Icrq,
        Event::Iccn,
        Event::Cdn,
        Event::Close,
    ];
    insta::assert_snapshot!("incoming-call-lac", table(&states, &events, State::on));
}

#[test]
fn the_table_of_an_incoming_call_at_the_lns_is_the_reviewed_one() {
    use lns::{Event, State};
    let states = [State::Idle, State::WaitConnect, State::Established];
    let events = [
        Event::IcrqAcceptable,
        Event::IcrqNotAcceptable,
        Event::Icrp,
        Event::IccnAcceptable,
        Event::IccnNotAcceptable,
        Event::Cdn,
        Event::Close,
    ];
    insta::assert_snapshot!("incoming-call-lns", table(&states, &events, State::on));
}
