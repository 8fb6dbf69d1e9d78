//! Operations from a file, as `crate::trace` reads it: those of a recorded run, or of another
//! system.

use super::params::Params;
use super::{Asks, Picker, Setup, WorkloadInfo};
use crate::error::SpecError;
use crate::script::{KeyRule, Length, Script};
use crate::spec::WorkloadSpec;

pub(super) const INFO: WorkloadInfo = WorkloadInfo {
    name: "trace",
    source: "-",
    about: "operations recorded by `run --record-ops`, from the file that workload_file names",
    params: &[],
};

pub(super) fn build(spec: &WorkloadSpec, _: &Params) -> Result<Setup, SpecError> {
    let trace = spec.trace.as_ref().ok_or_else(SpecError::no_trace)?;
    let script = Script {
        verbs: Vec::new(),
        keys: KeyRule::Uniform,
        length: Length::Fixed(1),
        reverse_ratio: 0.0,
        loaded_ratio: 1.0,
    };
    // Nobody draws: the stream is the file's.
    let setup = Setup::of(trace.tenants.clone(), Picker::One(0), Asks::Script(script));
    let (order_seed, value_sizes) = (trace.order_seed, trace.value_sizes);
    Ok(Setup { value_sizes, order_seed, ..setup })
}
