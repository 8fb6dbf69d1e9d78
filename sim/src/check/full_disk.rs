//! L4: a full disk.

use forebay_engine::Error;
use forebay_engine::types::Nanos;

use super::{Checked, Rule, RuleCounts, Violation, broken};

/// Calls a second that an idle engine may make on a full disk, of each kind: those that find no
/// space, and questions how much there is.
pub const PACE_MAX: u64 = 10;

/// With so much free, drops work although writes are refused.
pub const DROP_BYTES: u64 = 65_536;

/// What a full disk did to a request.
#[derive(Clone, Copy, Debug)]
pub struct Refused<'a> {
    /// The request: `write`, `get`, ...
    pub what: &'a str,
    /// Its error.
    pub error: &'a Error,
    /// Bytes that were free.
    pub free_bytes: u64,
}

/// Whether a request needs no space.
pub fn is_read(what: &str) -> bool {
    ["get", "get_at", "scan", "scan_at", "scan_with", "verify"].contains(&what)
}

/// L4, where a full disk is the only fault: writes get a typed error, reads get none, and drops work
/// while there is a little space.
///
/// # Errors
///
/// L4 where it is otherwise.
pub fn l4_refused(counts: &mut RuleCounts, refused: &Refused<'_>) -> Checked {
    counts.count(Rule::L4);
    let Refused { what, error, free_bytes } = *refused;
    if is_read(what) {
        let promised = "reads go on while the disk is full";
        return broken(Violation::new(Rule::L4, promised, format!("{what}: {error}")));
    }
    if what == "drop" && free_bytes >= DROP_BYTES {
        let promised = format!("drops go on while {DROP_BYTES} bytes are free");
        let found = format!("{error}, with {free_bytes} free");
        return broken(Violation::new(Rule::L4, promised, found));
    }
    if error.is_storage_full() {
        return Ok(());
    }
    let promised = "what needs space is told that the disk is full";
    broken(Violation::new(Rule::L4, promised, format!("{what}: {error}")))
}

/// L4: a read works while the disk is full. Counts it: see [`l4_refused`] for those that do not.
pub fn l4_read(counts: &mut RuleCounts) {
    counts.count(Rule::L4);
}

/// L4: while nobody asks for anything and nothing is being written, an engine on a full disk makes at
/// most [`PACE_MAX`] calls a second of each kind for each task that may try.
///
/// # Errors
///
/// L4 where it makes more.
pub fn l4_pace(
    counts: &mut RuleCounts,
    (refused, asked): (u64, u64),
    tasks: u64,
    elapsed_ns: Nanos,
) -> Checked {
    counts.count(Rule::L4);
    let seconds = elapsed_ns.div_ceil(1_000_000_000);
    let most = PACE_MAX.saturating_mul(seconds).saturating_mul(tasks.max(1));
    if refused <= most && asked <= most {
        return Ok(());
    }
    let promised = format!("at most {most} calls in {seconds} s on a full disk");
    let found = format!("{refused} that found no space, {asked} questions how much there is");
    broken(Violation::new(Rule::L4, promised, found))
}

/// L4: a while after space is back, writes are taken, and nobody had to ask for it.
///
/// # Errors
///
/// L4 where one is refused still.
pub fn l4_resumes(counts: &mut RuleCounts, error: Option<&Error>) -> Checked {
    counts.count(Rule::L4);
    match error {
        Some(error) if error.is_storage_full() => {
            let promised = "writes are taken again by themselves once space is back";
            broken(Violation::new(Rule::L4, promised, error.to_string()))
        }
        Some(_) | None => Ok(()),
    }
}
