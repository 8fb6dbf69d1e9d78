//! What a write costs the processor: puts to a database in memory, where no disk is waited for.

use std::path::Path;

use forebay_engine::env::mem::MemEnv;
use forebay_engine::env::{BlockingEnv, Env, Nanos};
use forebay_engine::{Db, Options, WriteOptions};
use forebay_sim::cpu::CpuCosts;

use super::{CalibrateError, Result, SAMPLES_MIN, Spread};

/// Puts whose mean is a sample.
const BATCH: u64 = 256;

/// Most samples: their entries fit in one memtable, so that no flush is among them.
const SAMPLES_MAX: usize = 400;

const VALUE: [u8; 100] = [b'v'; 100];

/// Nanoseconds of a put of one thread.
pub(super) fn puts(until: Nanos, goes_on: &dyn Fn() -> bool) -> Result<Spread> {
    let env = MemEnv::default();
    let samples = env.block_on(async {
        let db = Db::open(env.clone(), Path::new("/db"), Options::default()).await?;
        let tenants = db.create_tenants(&["calibrate"]).await?;
        let mut samples = Vec::new();
        let mut number = 0_u64;
        for tenant in &tenants {
            while samples.len() < SAMPLES_MIN || (env.now() < until && samples.len() < SAMPLES_MAX)
            {
                if !goes_on() {
                    return Err(CalibrateError::Stopped);
                }
                let begin = env.now();
                for _ in 0..BATCH {
                    number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
                    tenant.put(&number.to_be_bytes(), &VALUE, WriteOptions::default()).await?;
                }
                samples.push(env.now().saturating_sub(begin).div_euclid(BATCH));
            }
        }
        db.close().await?;
        Ok(samples)
    })?;
    Ok(Spread::of(&samples))
}

/// The model's costs times this are what a put of so long takes; never free.
pub(super) fn multiplier(put_ns: u64) -> u64 {
    let unit = CpuCosts::default().write_entry_ns.max(1);
    put_ns.saturating_add(unit >> 1).div_euclid(unit).max(1)
}

pub(super) fn how(put: &Spread) -> String {
    let unit = CpuCosts::default().write_entry_ns;
    format!("a put in memory takes {} ns, in the model {unit}", put.middle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_whole_multiples_of_the_models_and_never_nothing() {
        assert_eq!([0, 100, 900, 1_349, 1_350, 9_000].map(multiplier), [1, 1, 1, 1, 2, 10]);
    }

    #[test]
    fn puts_in_memory_take_time_and_stop_when_asked() {
        assert!(puts(0, &|| true).unwrap().middle > 0);
        assert!(matches!(puts(0, &|| false), Err(CalibrateError::Stopped)));
    }
}
