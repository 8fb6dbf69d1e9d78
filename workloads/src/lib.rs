//! Operations that tenants ask for, from one seed: the same bytes on every machine.
//!
//! A [`WorkloadSpec`] names a scenario of the [`library`], a number of tenants, a budget and a
//! seed. [`Workload::new`] makes the tenants, [`Workload::load_ops`] yields every key once,
//! [`Workload::stream`] yields operations for ever, or those of a recorded [`Trace`]; [`Workload::flat_out`] and [`Workload::churn`]
//! say what goes on beside it. Samplers use integers, the basic operations of
//! `f64` and `libm`; maps have an order; nothing reads a clock.
//!
//! ```
//! use forebay_workloads::{Workload, WorkloadSpec};
//!
//! let workload = Workload::new(WorkloadSpec::named("twitter-53"))?;
//! let mut stream = workload.stream();
//! let op = stream.next_op().expect("only a trace ends");
//! let mut key = Vec::new();
//! workload.fill_key(op.tenant, op.key(), &mut key);
//! assert!(!key.is_empty());
//! # Ok::<(), forebay_workloads::SpecError>(())
//! ```

pub mod archetype;
pub mod arrival;
pub mod churn;
pub mod error;
pub mod keys;
pub mod library;
pub mod op;
pub mod pareto;
pub mod permutation;
pub mod ranges;
pub mod rng;
pub mod script;
pub mod spec;
pub mod stream;
pub mod tenants;
pub mod trace;
pub mod values;
pub mod zipf;

pub use arrival::{Arrival, OnOff, Pacing};
pub use churn::Churn;
pub use error::SpecError;
pub use keys::KeyChoice;
pub use library::{ParamInfo, Unit, WorkloadInfo, list};
pub use op::{OP_NAMES, Op, OpKind};
pub use spec::{FlatOut, LoadOps, Workload, WorkloadSpec};
pub use stream::Stream;
pub use tenants::{Class, TenantProfile};
pub use trace::{Trace, write_trace};
pub use values::{ValueOrigin, fill_value};
