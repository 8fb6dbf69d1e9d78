//! Operations in a file: what a run asked for, or what some other system was asked for.
//!
//! Text, a line each, words divided by one space, so that a few lines of awk make one of any log:
//!
//! ```text
//! forebay-ops 1
//! arrival open 50000            or: arrival closed (times are 0)
//! order 1234                    or: order - (the first keys of each tenant are loaded)
//! values fixed                  or: values pareto K SIGMA MIN MAX
//! tenant NAME KEY_BYTES VALUE_BYTES KEY_COUNT LOADED_COUNT [WEIGHT WRITES]   for each tenant
//! ops
//! GAP TENANT p KEY [BYTES]      put; GAP: nanoseconds since the last arrival; TENANT: from 0
//! GAP TENANT g KEY              get
//! GAP TENANT d KEY              delete
//! GAP TENANT s KEY LIMIT        scan; r KEY LIMIT: to smaller keys
//! GAP TENANT i KEY [BYTES]      insert
//! GAP TENANT m KEY [BYTES]      read-modify-write
//! end COUNT
//! ```
//!
//! Keys are indexes below the tenant's `KEY_COUNT`; `BYTES` is the size of a value where it is not
//! what `values` says. `WEIGHT` and `WRITES` are what the recorded workload meant a tenant's share of
//! the operations and of writes among its own to be; without them they are counted. `order` is the seed of the order in which loaded keys lie. The last line
//! tells a whole file from one that was cut.

use core::fmt;
use std::io::{self, BufRead, Read, Write};
use std::sync::Arc;

use crate::arrival::Arrival;
use crate::error::SpecError;
use crate::keys::key_len;
use crate::op::{Op, OpKind};
use crate::pareto::Pareto;
use crate::rng::{to_f64, to_u64, to_usize};
use crate::script::ValueSizes;
use crate::spec::{TENANT_COUNT_MAX, Workload};
use crate::tenants::{Class, TenantProfile, classify};

/// Most operations of a trace.
pub const TRACE_OPS_MAX: usize = 1 << 24;

/// Most keys of all tenants of a trace together.
const KEYS_MAX: u64 = 1 << 28;

/// Longest line of a trace in bytes.
const LINE_MAX: u64 = 512;

const FIRST_LINE: &str = "forebay-ops 1";

/// A recorded trace, whole in memory.
#[derive(Clone, PartialEq)]
pub struct Trace {
    /// The mean rate of its arrivals; 0 where they have no times.
    pub ops_per_s: u64,
    pub(crate) order_seed: Option<u64>,
    pub(crate) value_sizes: ValueSizes,
    pub(crate) tenants: Vec<TenantProfile>,
    ops: Vec<Traced>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Traced {
    op: Op,
    /// 0 where the trace's rule says it.
    value_bytes: u32,
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = (self.tenants.len(), self.ops.len());
        f.debug_struct("Trace")
            .field("tenants", &counts.0)
            .field("ops", &counts.1)
            .finish_non_exhaustive()
    }
}

impl Trace {
    /// Reads a trace. Memory is bounded by [`TRACE_OPS_MAX`] and by the bounds of workloads.
    ///
    /// # Errors
    ///
    /// [`SpecError::Trace`] with the line, for a file that cannot be read, is no trace or is cut.
    pub fn read(reader: impl BufRead) -> Result<Self, SpecError> {
        let mut lines = Lines { reader, line: 0, text: String::new() };
        let mut trace = head(&mut lines)?;
        let mut at_ns = 0_u64;
        loop {
            lines.next()?;
            let text = lines.text.as_str();
            if let Some(count) = text.strip_prefix("end ") {
                let said = count.parse::<u64>().ok();
                if said != Some(to_u64(trace.ops.len())) {
                    let held = trace.ops.len();
                    return Err(lines.wrong(&format!("end {count}, but {held} operations")));
                }
                break;
            }
            let traced = operation(text, at_ns, &trace.tenants);
            let traced = traced.map_err(|what| lines.wrong(&what))?;
            if trace.ops.len() >= TRACE_OPS_MAX {
                return Err(lines.wrong(&format!("more than {TRACE_OPS_MAX} operations")));
            }
            at_ns = traced.op.at_ns;
            trace.ops.push(traced);
        }
        lines.end()?;
        trace.count();
        Ok(trace)
    }

    /// How many tenants.
    pub fn tenant_count(&self) -> usize {
        self.tenants.len()
    }

    /// How many operations.
    pub fn op_count(&self) -> u64 {
        to_u64(self.ops.len())
    }

    pub(crate) fn value_bytes(&self, place: u64) -> u32 {
        self.ops.get(to_usize(place)).map_or(0, |traced| traced.value_bytes)
    }

    /// What follows from the operations: how often each tenant asks and writes.
    fn count(&mut self) {
        let mut counts = vec![(0_u64, 0_u64); self.tenants.len()];
        for traced in &self.ops {
            if let Some((ops, writes)) = counts.get_mut(to_usize(u64::from(traced.op.tenant))) {
                *ops += 1;
                *writes += u64::from(traced.op.is_write());
            }
        }
        let counted = self.tenants.iter_mut().zip(counts);
        for (tenant, (ops, writes)) in counted.filter(|(tenant, _)| tenant.write_fraction < 0.0) {
            tenant.weight = ops;
            tenant.write_fraction = to_f64(writes) / to_f64(ops.max(1));
        }
        classify(&mut self.tenants, |_, tenant| tenant.write_bytes());
    }
}

struct Lines<R> {
    reader: R,
    line: usize,
    text: String,
}

impl<R: BufRead> Lines<R> {
    fn wrong(&self, what: &str) -> SpecError {
        SpecError::Trace { line: self.line, detail: what.to_owned() }
    }

    fn next(&mut self) -> Result<&str, SpecError> {
        self.line += 1;
        let mut bytes = Vec::new();
        let read = (&mut self.reader).take(LINE_MAX).read_until(b'\n', &mut bytes);
        read.map_err(|error| self.wrong(&format!("cannot be read: {error}")))?;
        if bytes.pop() != Some(b'\n') {
            let what = if to_u64(bytes.len()) + 1 >= LINE_MAX {
                "a line is too long"
            } else {
                "the file ends before its line \"end COUNT\""
            };
            return Err(self.wrong(what));
        }
        self.text = String::from_utf8(bytes).map_err(|_error| self.wrong("is not text"))?;
        Ok(&self.text)
    }

    fn end(&mut self) -> Result<(), SpecError> {
        let mut more = [0_u8; 1];
        self.line += 1;
        match self.reader.read(&mut more) {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.wrong("the file goes on after its end")),
            Err(error) => Err(self.wrong(&format!("cannot be read: {error}"))),
        }
    }
}

fn head<R: BufRead>(lines: &mut Lines<R>) -> Result<Trace, SpecError> {
    if lines.next()? != FIRST_LINE {
        return Err(lines.wrong(&format!("is no trace: its first line is not {FIRST_LINE:?}")));
    }
    let ops_per_s = match words(lines.next()?).as_slice() {
        ["arrival", "closed"] => Some(0),
        ["arrival", "open", rate] => rate.parse().ok().filter(|n| (1..=1_000_000_000).contains(n)),
        _ => None,
    };
    let ops_per_s = ops_per_s.ok_or_else(|| {
        lines.wrong("allowed: arrival closed, or arrival open with 1 to 1000000000 each second")
    })?;
    let order_seed = match words(lines.next()?).as_slice() {
        ["order", "-"] => Some(None),
        ["order", seed] => seed.parse().ok().map(Some),
        _ => None,
    };
    let order_seed = order_seed.ok_or_else(|| lines.wrong("allowed: order SEED or order -"))?;
    let value_sizes = values(lines.next()?)
        .ok_or_else(|| lines.wrong("allowed: values fixed, or values pareto K SIGMA MIN MAX"))?;
    let mut tenants = Vec::new();
    let mut keys = 0_u64;
    loop {
        let text = lines.next()?;
        if text == "ops" {
            break;
        }
        let tenant = tenant(text).ok_or_else(|| {
            lines.wrong("allowed: tenant NAME KEY_BYTES VALUE_BYTES KEY_COUNT LOADED_COUNT [WEIGHT WRITES], or ops")
        })?;
        keys = keys.saturating_add(tenant.key_count);
        if to_u64(tenants.len()) >= u64::from(TENANT_COUNT_MAX) || keys > KEYS_MAX {
            return Err(lines.wrong("too many tenants, or too many keys of all together"));
        }
        tenants.push(tenant);
    }
    if tenants.is_empty() {
        return Err(lines.wrong("there is no tenant"));
    }
    Ok(Trace { ops_per_s, order_seed, value_sizes, tenants, ops: Vec::new() })
}

fn words(text: &str) -> Vec<&str> {
    text.split(' ').collect()
}

fn values(text: &str) -> Option<ValueSizes> {
    match words(text).as_slice() {
        ["values", "fixed"] => Some(ValueSizes::Fixed),
        ["values", "pareto", k, sigma, min, max] => {
            let real = |text: &str, most: f64| {
                text.parse::<f64>().ok().filter(|x| (0.0..=most).contains(x))
            };
            let (k, sigma) = (real(k, 10.0)?, real(sigma, 1e6)?);
            let (min, max) = (min.parse().ok()?, max.parse().ok()?);
            let fits = (1..=max).contains(&min) && max <= 16_777_216;
            fits.then_some(ValueSizes::Pareto(Pareto { k, sigma, min, max }))
        }
        _ => None,
    }
}

fn tenant(text: &str) -> Option<TenantProfile> {
    let words = words(text);
    let (["tenant", name, key_bytes, value_bytes, key_count, loaded], meant) =
        words.split_first_chunk::<6>()?
    else {
        return None;
    };
    let (weight, write_fraction) = match meant {
        // Below 0: still to be counted.
        [] => (0, -1.0),
        [weight, writes] => (weight.parse().ok()?, writes.parse::<f64>().ok()?),
        _ => return None,
    };
    let (key_count, loaded_count): (u64, u64) = (key_count.parse().ok()?, loaded.parse().ok()?);
    let (key_bytes, value_bytes) = (key_bytes.parse().ok()?, value_bytes.parse().ok()?);
    let fits = !name.is_empty()
        && name.len() <= 255
        && (1..=65_536).contains(&key_bytes)
        && (1..=16_777_216).contains(&value_bytes)
        && (1..=KEYS_MAX).contains(&key_count)
        && loaded_count <= key_count
        && (meant.is_empty() || (0.0..=1.0).contains(&write_fraction))
        && key_len(key_bytes, key_count) == key_bytes;
    fits.then(|| TenantProfile {
        name: (*name).to_owned(),
        class: Class::Warm,
        key_bytes,
        value_bytes,
        key_count,
        loaded_count,
        write_fraction,
        alpha: 0.0,
        weight,
    })
}

fn operation(text: &str, before_ns: u64, tenants: &[TenantProfile]) -> Result<Traced, String> {
    let shape = || format!("{text:?} is no operation; allowed: GAP TENANT p|g|d|s|r|i|m KEY [N]");
    let words = words(text);
    let [gap, tenant, letter, key, rest @ ..] = words.as_slice() else { return Err(shape()) };
    let number = |text: &str| text.parse::<u64>().map_err(|_error| shape());
    let (gap, key) = (number(gap)?, number(key)?);
    let tenant = tenant.parse::<u32>().map_err(|_error| shape())?;
    let count = match rest {
        [] => None,
        [count] => Some(count.parse::<u32>().map_err(|_error| shape())?),
        _ => return Err(shape()),
    };
    let (kind, value_bytes) = match (*letter, count) {
        ("p", bytes) => (OpKind::Put { key }, bytes),
        ("i", bytes) => (OpKind::Insert { key }, bytes),
        ("m", bytes) => (OpKind::ReadModifyWrite { key }, bytes),
        ("g", None) => (OpKind::Get { key }, None),
        ("d", None) => (OpKind::Delete { key }, None),
        ("s", Some(limit)) => (OpKind::Scan { key, limit, reverse: false }, None),
        ("r", Some(limit)) => (OpKind::Scan { key, limit, reverse: true }, None),
        _ => return Err(shape()),
    };
    let known = tenants.get(to_usize(u64::from(tenant)));
    let profile = known.ok_or_else(|| format!("there is no tenant {tenant}"))?;
    if key >= profile.key_count {
        return Err(format!("tenant {tenant} has no key {key}: it has {}", profile.key_count));
    }
    let value_bytes = value_bytes.unwrap_or(0);
    if value_bytes > 16_777_216 {
        return Err(format!("a value of {value_bytes} bytes; allowed: up to 16777216"));
    }
    let at_ns = before_ns.checked_add(gap).ok_or("its time does not fit")?;
    Ok(Traced { op: Op { at_ns, tenant, kind }, value_bytes })
}

/// Writes the first `count` operations that a workload's stream yields.
///
/// # Errors
///
/// The writer's; part of the trace may be written.
pub fn write_trace(workload: &Workload, count: u64, out: &mut impl Write) -> io::Result<()> {
    let spec = workload.spec();
    let rate = match spec.arrival {
        Arrival::Closed => "closed".to_owned(),
        Arrival::Open { ops_per_s, .. } => format!("open {ops_per_s}"),
    };
    let (order_seed, value_sizes) = workload.trace_rules();
    let order = order_seed.map_or_else(|| "-".to_owned(), |seed| seed.to_string());
    writeln!(out, "{FIRST_LINE}\narrival {rate}\norder {order}")?;
    match value_sizes {
        ValueSizes::Fixed => writeln!(out, "values fixed")?,
        ValueSizes::Pareto(Pareto { k, sigma, min, max }) => {
            writeln!(out, "values pareto {k} {sigma} {min} {max}")?;
        }
    }
    for tenant in workload.tenants() {
        let TenantProfile { name, key_bytes, value_bytes, key_count, loaded_count, .. } = tenant;
        write!(out, "tenant {name} {key_bytes} {value_bytes} {key_count} {loaded_count}")?;
        writeln!(out, " {} {}", tenant.weight, tenant.write_fraction)?;
    }
    writeln!(out, "ops")?;
    let (mut before_ns, mut written) = (0, 0_u64);
    for op in workload.stream().take(to_usize(count)) {
        let gap = op.at_ns.saturating_sub(before_ns);
        before_ns = op.at_ns;
        let (letter, number) = match op.kind {
            OpKind::Put { .. } => ("p", None),
            OpKind::Get { .. } => ("g", None),
            OpKind::Delete { .. } => ("d", None),
            OpKind::Scan { limit, reverse: false, .. } => ("s", Some(limit)),
            OpKind::Scan { limit, reverse: true, .. } => ("r", Some(limit)),
            OpKind::Insert { .. } => ("i", None),
            OpKind::ReadModifyWrite { .. } => ("m", None),
        };
        let sized = spec.trace.as_ref().map_or(0, |trace| trace.value_bytes(written));
        write!(out, "{gap} {} {letter} {}", op.tenant, op.key())?;
        match number.or(Some(sized).filter(|bytes| *bytes > 0)) {
            Some(number) => writeln!(out, " {number}")?,
            None => writeln!(out)?,
        }
        written += 1;
    }
    writeln!(out, "end {written}")
}

/// Yields a trace's operations, once.
#[derive(Clone, Debug)]
pub(crate) struct Replay {
    trace: Arc<Trace>,
    next: usize,
    arrival: Arrival,
}

impl Replay {
    /// In a closed loop times are passed over; in an open loop they are stretched to its rate.
    pub(crate) fn new(trace: &Arc<Trace>, arrival: Arrival) -> Self {
        Self { trace: Arc::<Trace>::clone(trace), next: 0, arrival }
    }

    pub(crate) fn next_op(&mut self) -> Option<Op> {
        let op = self.trace.ops.get(self.next)?.op;
        self.next += 1;
        let at_ns = match self.arrival {
            Arrival::Closed => 0,
            Arrival::Open { ops_per_s, .. } => {
                let scaled = u128::from(op.at_ns) * u128::from(self.trace.ops_per_s);
                let scaled = scaled.checked_div(u128::from(ops_per_s)).unwrap_or(0);
                u64::try_from(scaled).unwrap_or(u64::MAX)
            }
        };
        Some(Op { at_ns, ..op })
    }
}
