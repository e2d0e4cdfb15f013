//! Bad weather: loss, duplication and reordering of up to 30 %, each by itself, for a thousand seeds.

use std::time::Duration;

use towline_tunnel::report::{Layer, Reason, State};

use crate::network::Weather;
use crate::world::{Setting, World};

const SEEDS: u64 = 1_000;
/// The worst of each evil, in percent.
const WORST: u32 = 30;
/// Long enough that every layer comes up at the worst: an attempt in which one of some ten messages is lost six times in a row
/// (at 30 % each way in 1.8 % of the cases) is followed by another.
const PATIENCE: Duration = Duration::from_secs(900);
/// Up to this loss no verdict of death and no expiry is legitimate: all of some 15 questions of one silence lost (2e-7 at
/// 20 %), all of 14 LCP echoes (6e-7), or the six copies of a renewal (2e-3) and what follows them on a new ISAKMP SA.
const STEADY: f64 = 0.20;

/// What became of one seed.
#[derive(Debug)]
struct Outcome {
    seed: u64,
    weather: Weather,
    /// Why the tunnel had to be dialled again.
    redialled: Vec<(Layer, Reason)>,
    heard_goodbye: bool,
    /// Whether the gateway had nothing of the client left two seconds after it closed.
    left_nothing: bool,
}

fn live(seed: u64) -> Outcome {
    let weather = Weather::of(seed, WORST);
    let mut world = World::new(&Setting { weather, seed, lives: (480, 300), ..Setting::default() });
    assert!(world.run(PATIENCE, |world| world.up), "seed {seed}: {:#?}", world.client.report());
    assert!(world.exchange(), "seed {seed}: no packet before the rekeys");
    let (dials, falls) = (world.client.counters().dials, fell(&world).len());
    let first = world.gateway().seen.ping_spi;

    let done = world.run(PATIENCE, |world| world.up && world.client.counters().phase2_rekeys >= 1);
    assert!(done, "seed {seed}: no rekey of phase 2: {:#?}", world.client.report());
    // The time after which packets move to the new SA in any case.
    world.run(Duration::from_secs(2), |_| false);
    assert!(world.exchange(), "seed {seed}: no packet after the rekey of phase 2");
    assert_ne!(world.gateway().seen.ping_spi, first, "seed {seed}: the packet took the old SA");

    let done = world.run(PATIENCE, |world| world.up && world.client.counters().phase1_rekeys >= 1);
    assert!(done, "seed {seed}: no rekey of phase 1: {:#?}", world.client.report());
    assert!(world.exchange(), "seed {seed}: no packet after the rekey of phase 1");
    let redialled = fell(&world).split_off(falls);
    assert!(!redialled.is_empty() || world.client.counters().dials == dials, "seed {seed}: dialled for nothing");

    world.client.close(world.now);
    world.drain();
    assert!(world.run(Duration::from_secs(2), |world| world.closed), "seed {seed}: not closed");
    world.run(Duration::from_secs(2), |_| false);
    let seen = &world.gateway().seen;
    let (heard_goodbye, left_nothing) = (seen.cdn && seen.stop_ccn, world.gateway().is_idle());
    // What was lost of the goodbye is made up for by dead peer detection, or by the end of the SAs' lives.
    assert!(world.run(PATIENCE, |world| world.gateway().is_idle()), "seed {seed}: something is left at the gateway");
    Outcome { seed, weather, redialled, heard_goodbye, left_nothing }
}

/// Each time that a layer failed; a probe that is lost three times is no failure of the tunnel.
fn fell(world: &World) -> Vec<(Layer, Reason)> {
    let down = world.history.iter().filter(|(layer, state, _)| *state == State::Down && *layer != Layer::Probe);
    down.map(|&(layer, _, reason)| (layer, reason)).collect()
}

/// All seeds on all processors.
fn live_all() -> Vec<Outcome> {
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|first| scope.spawn(move || (first..SEEDS).step_by(threads as usize).map(live).collect::<Vec<_>>()))
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no seed fails")).collect()
    })
}

#[test]
fn a_tunnel_comes_up_rekeys_and_goes_down_in_any_weather() {
    let outcomes = live_all();
    let share = |of: &dyn Fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| of(outcome)).count();
    let worst = f64::from(WORST) / 100.0;
    let at_worst = |weather: &Weather| [weather.loss, weather.duplication, weather.reordering].contains(&worst);
    assert!(share(&|outcome| at_worst(&outcome.weather)) >= 200);

    let redialled: Vec<_> = outcomes.iter().filter(|outcome| !outcome.redialled.is_empty()).collect();
    assert!(redialled.iter().all(|outcome| outcome.weather.loss > STEADY), "{redialled:#?}");
    let heard_goodbye = share(&|outcome| outcome.heard_goodbye);
    let left_nothing = share(&|outcome| outcome.left_nothing);
    println!("redialled {redialled:?}, goodbye {heard_goodbye}, left nothing {left_nothing} of {SEEDS}");
    let lossless = |outcome: &Outcome| outcome.weather.loss == 0.0;
    assert!(share(&lossless) >= 10);
    assert_eq!(share(&|outcome| lossless(outcome) && !outcome.heard_goodbye), 0);
    assert!(redialled.len() <= 10 && heard_goodbye >= 600 && left_nothing >= 600);
}
