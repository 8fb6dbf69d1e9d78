//! Tenants like the clusters of a published trace: sizes, rate, write fraction and skew of each.
//!
//! The figures and every rule that changes one are in `specs/twitter-53.toml`, built into the
//! crate.
//!
//! # Source
//!
//! Juncheng Yang, Yao Yue, K. V. Rashmi, "A large scale analysis of hundreds of in-memory cache
//! clusters at Twitter", OSDI 2020; statistics published in twitter/cache-trace under CC-BY 4.0.

use serde::Deserialize;

use crate::error::{SpecError, check_bounds};
use crate::rng::{floor_u64, to_f64};

const TWITTER_53: &str = include_str!("../specs/twitter-53.toml");

/// Archetypes with the rules for using them, as a spec file holds them.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchetypeSpec {
    /// Whose figures these are.
    pub source: String,
    /// Under which licence they were published.
    pub license: String,
    /// Where a figure is changed or filled in.
    pub rules: Rules,
    /// One archetype each; tenants take them in turn.
    pub cluster: Vec<Cluster>,
}

/// Where a figure is changed or filled in.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// The write fraction of a cluster listed with 0, 0 to 1.
    pub write_fraction_where_zero: f64,
    /// The Zipf exponent of a cluster without one, 0 to 3.
    pub alpha_where_missing: f64,
    /// Larger values are cut to this.
    pub value_bytes_max: u32,
    /// Smaller values are filled up to this.
    pub value_bytes_min: u32,
    /// Data of a tenant over its even share of the budget.
    pub data_share_ratio: f64,
    /// Keys that a tenant has at least.
    pub key_count_min: u64,
}

/// The figures of one cluster, as published.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Its name in the source.
    pub name: String,
    /// Mean bytes of a key.
    pub key_bytes: u32,
    /// Mean bytes of a value.
    pub value_bytes: u32,
    /// Thousands of requests per second.
    pub kqps: f64,
    /// Share of writes among its listed operations; 0 where below about 1 %.
    pub write_fraction: f64,
    /// Zipf exponent of popularity, where the source has one.
    pub zipf_alpha: Option<f64>,
}

impl ArchetypeSpec {
    /// The 53 usable clusters of Twitter.
    ///
    /// # Errors
    ///
    /// [`SpecError`] where the file built into the crate is damaged.
    pub fn twitter_53() -> Result<Self, SpecError> {
        Self::from_toml(TWITTER_53)
    }

    /// Reads archetypes from text.
    ///
    /// # Errors
    ///
    /// [`SpecError::Parse`] where the text is no such file, [`SpecError::OutOfBounds`] where a
    /// figure makes no tenant.
    pub fn from_toml(text: &str) -> Result<Self, SpecError> {
        let spec: Self = toml::from_str(text).map_err(|e| SpecError::parse(text, &e))?;
        spec.check()?;
        Ok(spec)
    }

    fn check(&self) -> Result<(), SpecError> {
        let rules = &self.rules;
        check_bounds("write_fraction_where_zero", rules.write_fraction_where_zero, 0.0, 1.0)?;
        check_bounds("alpha_where_missing", rules.alpha_where_missing, 0.0, 3.0)?;
        check_bounds("value_bytes_min", f64::from(rules.value_bytes_min), 1.0, 16_777_216.0)?;
        let least = f64::from(rules.value_bytes_min);
        check_bounds("value_bytes_max", f64::from(rules.value_bytes_max), least, 16_777_216.0)?;
        check_bounds("data_share_ratio", rules.data_share_ratio, 0.0, 1_000.0)?;
        check_bounds("key_count_min", to_f64(rules.key_count_min), 1.0, 1e9)?;
        if self.cluster.is_empty() {
            let detail = "no [[cluster]]; allowed: at least one".to_owned();
            return Err(SpecError::Parse { line: 0, detail });
        }
        for cluster in &self.cluster {
            let of = |key: &str| format!("{}.{key}", cluster.name);
            check_bounds(&of("key_bytes"), f64::from(cluster.key_bytes), 1.0, 65_536.0)?;
            check_bounds(&of("kqps"), cluster.kqps, 0.001, 1e6)?;
            check_bounds(&of("write_fraction"), cluster.write_fraction, 0.0, 1.0)?;
            check_bounds(&of("zipf_alpha"), cluster.zipf_alpha.unwrap_or(0.0), 0.0, 3.0)?;
        }
        Ok(())
    }
}

impl Rules {
    /// The share of writes that a cluster counts with.
    pub fn write_fraction(&self, cluster: &Cluster) -> f64 {
        if cluster.write_fraction > 0.0 {
            cluster.write_fraction
        } else {
            self.write_fraction_where_zero
        }
    }

    /// The Zipf exponent that a cluster counts with.
    pub fn alpha(&self, cluster: &Cluster) -> f64 {
        cluster.zipf_alpha.unwrap_or(self.alpha_where_missing)
    }

    /// The bytes of a value that a cluster counts with.
    pub fn value_bytes(&self, cluster: &Cluster) -> u32 {
        cluster.value_bytes.max(self.value_bytes_min).min(self.value_bytes_max)
    }
}

impl Cluster {
    /// Its weight among tenants: requests per second.
    pub fn weight(&self) -> u64 {
        floor_u64(self.kqps * 1_000.0 + 0.5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find<'a>(spec: &'a ArchetypeSpec, name: &str) -> &'a Cluster {
        spec.cluster.iter().find(|c| c.name == name).unwrap()
    }

    #[test]
    fn fifty_three_clusters_without_the_one_that_has_no_figures() {
        let spec = ArchetypeSpec::twitter_53().unwrap();
        assert_eq!(spec.cluster.len(), 53);
        assert!(spec.cluster.iter().all(|c| c.name != "cluster5"));
        assert_eq!(find(&spec, "cluster1").weight(), 11_400);
    }

    #[test]
    fn the_rules_fill_in_and_cut() {
        let spec = ArchetypeSpec::twitter_53().unwrap();
        let rules = spec.rules;
        let same = |a: f64, b: f64| (a - b).abs() < 1e-12;
        assert!(same(rules.write_fraction(find(&spec, "cluster1")), 0.005));
        assert!(same(rules.write_fraction(find(&spec, "cluster15")), 1.0));
        assert!(same(rules.alpha(find(&spec, "cluster43")), 1.21));
        assert!(same(rules.alpha(find(&spec, "cluster31")), 0.0));
        assert_eq!(rules.value_bytes(find(&spec, "cluster50")), 4_096);
        assert_eq!(rules.value_bytes(find(&spec, "cluster21")), 1);
    }

    #[test]
    fn an_unknown_field_and_a_figure_out_of_bounds_are_refused() {
        let unknown = TWITTER_53.replace("kqps = 11.40", "kqps = 11.40\nqps = 1");
        let error = ArchetypeSpec::from_toml(&unknown).unwrap_err().to_string();
        assert!(error.contains("qps") && !error.contains('\n'), "{error}");
        let steep = TWITTER_53.replace("zipf_alpha = 2.6774", "zipf_alpha = 3.5");
        let error = ArchetypeSpec::from_toml(&steep).unwrap_err().to_string();
        assert_eq!(error, "cluster1.zipf_alpha = 3.5 is out of bounds; allowed: 0 to 3");
    }
}
