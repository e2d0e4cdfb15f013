//! The LAC against a scripted LNS.

mod collision;
mod data;
mod ending;
mod establishment;
mod liveness;
mod reception;

use std::time::{Duration, Instant};

use hex_literal::hex;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use zeroize::Zeroizing;

use super::{Lac, control};
use crate::l2tp::avp::Attribute;
use crate::l2tp::config::{Config, Event, NotEstablished, Peer};
use crate::l2tp::ending::CloseReason;
use crate::l2tp::error::{Authentication, Error};
use crate::l2tp::message::{Body, ControlHeader, DataHeader, Message, MessageType, Packet, SessionId, TunnelId};
use crate::l2tp::outcome::{CdnResult, ErrorCode, Outcome, StopCcnResult};
use crate::l2tp::scripted::{Pair, SESSION, Script, TUNNEL};

const SECOND: Duration = Duration::from_secs(1);

fn config() -> Config {
    Config::new("lac")
}

fn with_secret(secret: &[u8]) -> Config {
    Config { secret: Some(Zeroizing::new(secret.to_vec())), ..config() }
}

fn failure(config: Config, script: Script) -> Error {
    let mut pair = Pair::new(config, script);
    pair.connect();
    pair.run(120 * SECOND);
    match pair.events.pop() {
        Some(Event::Failed(error)) => {
            assert_eq!(pair.lac.poll_timeout(), None, "nothing is left after the last cycle");
            error
        }
        other => panic!("no failure but {other:?}"),
    }
}
