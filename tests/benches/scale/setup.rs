//! IKE set-ups: Main Mode and Quick Mode with a pre-shared key, and nothing else.

use anyhow::Result;

use crate::client::Initiator;
use crate::load::Load;
use crate::meter::{Reading, Span};
use crate::network::Network;
use crate::subject::{Kind, key};
use crate::suite::Suite;
use crate::table;

/// Set-ups before those that count: code is read and tables are there then.
const FIRST: u32 = 100;
/// Set-ups that are under way at a time.
pub(crate) const WINDOW: u32 = 16;

/// What `count` set-ups take.
pub(crate) fn measure(network: &Network, kind: Kind, suite: &Suite, count: u32) -> Result<Span> {
    let mut subject = kind.start(network, suite, FIRST + count)?;
    let (suite, key) = (*suite, key());
    let mut load = Load::new(network, move |number| Box::new(Initiator::new(number, &suite, &key)))?;
    load.raise(FIRST, WINDOW)?;
    let before = Reading::take(subject.pid())?;
    load.raise(FIRST + count, WINDOW)?;
    let span = before.until(&Reading::take(subject.pid())?);
    subject.confirm(FIRST + count, false)?;
    subject.end()?;
    Ok(span)
}

/// The rounds of both servers, one after the other.
pub(crate) fn report(network: &Network, suite: &Suite, count: u32, rounds: u32) -> Result<()> {
    println!("\n{suite}: {count} set-ups in each round, {WINDOW} at a time\n");
    let [cpu, rate, clients] = ["CPU of one, ms", "set-ups per second", "clients' CPU of one, ms"];
    table::head(2, ["round", "server", cpu, rate, "server busy", clients, "memory of one, KiB", "others' CPUs"]);
    let mut ratios = Vec::new();
    for round in 1..=rounds {
        let measure = |kind: Kind| -> Result<Span> {
            let span = measure(network, kind, suite, count)?;
            row(round, kind, &span, count);
            Ok(span)
        };
        let (ours, control) = (measure(Kind::Towline)?, measure(Kind::Charon)?);
        ratios.push([
            ours.server.as_secs_f64() / control.server.as_secs_f64(),
            control.real.as_secs_f64() / ours.real.as_secs_f64(),
            ours.memory as f64 / control.memory as f64,
        ]);
    }
    let [cpu, rate, memory] = [0, 1, 2].map(|index| median(ratios.iter().map(|ratio| ratio[index])));
    println!("\nTowline ÷ charon, median of the rounds: CPU {cpu:.2}, rate {rate:.2}, memory {memory:.2}");
    Ok(())
}

fn row(round: u32, kind: Kind, span: &Span, count: u32) {
    let (each, real, server) = (f64::from(count), span.real.as_secs_f64(), span.server.as_secs_f64());
    table::row([
        round.to_string(),
        kind.name().to_owned(),
        format!("{:.2}", server * 1_000.0 / each),
        format!("{:.0}", each / real),
        format!("{:.0} %", server / real * 100.0),
        format!("{:.2}", span.clients.as_secs_f64() * 1_000.0 / each),
        format!("{:.1}", span.memory as f64 / each),
        format!("{:.2}", span.others),
    ]);
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
