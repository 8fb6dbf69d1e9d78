//! A range of seeds, as `A..B` names it.

use core::fmt;
use core::str::FromStr;

use super::ExperimentError;

/// Seeds from `start` up to but without `end`; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seeds {
    /// The first.
    pub start: u64,
    /// The one behind the last.
    pub end: u64,
}

impl Seeds {
    /// The seeds in order.
    pub fn iter(self) -> core::ops::Range<u64> {
        self.start..self.end
    }

    /// Whether it holds this seed.
    pub fn contains(self, seed: u64) -> bool {
        (self.start..self.end).contains(&seed)
    }
}

impl fmt::Display for Seeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

impl FromStr for Seeds {
    type Err = ExperimentError;

    fn from_str(text: &str) -> Result<Self, ExperimentError> {
        let refused = |detail: &str| {
            ExperimentError(format!("seeds {text:?} {detail}; allowed: A..B with A below B"))
        };
        let (start, end) = text.split_once("..").ok_or_else(|| refused("are no range"))?;
        let number = |text: &str| text.parse::<u64>().ok().ok_or_else(|| refused("are no range"));
        let (start, end) = (number(start)?, number(end)?);
        if start >= end {
            return Err(refused("are an empty range"));
        }
        Ok(Self { start, end })
    }
}
