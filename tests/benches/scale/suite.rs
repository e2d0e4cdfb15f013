//! What phase 1 and phase 2 agree on, as both servers write it.

use std::fmt;

use anyhow::{Result, anyhow};
use towline_tunnel::suite::{EspProposal, IkeProposal};

/// One proposal of each phase.
#[derive(Clone, Copy)]
pub(crate) struct Suite {
    pub(crate) phase1: IkeProposal,
    pub(crate) phase2: EspProposal,
}

impl Suite {
    pub(crate) fn new(phase1: &str, phase2: &str) -> Result<Self> {
        let phase1 = phase1.parse().map_err(|error| anyhow!("{phase1}: {error}"))?;
        let phase2 = phase2.parse().map_err(|error| anyhow!("{phase2}: {error}"))?;
        Ok(Self { phase1, phase2 })
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} / {}", self.phase1, self.phase2)
    }
}
