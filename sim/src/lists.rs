//! Recorded decisions as a failure file holds them: for each site its outcomes, in one short string.
//!
//! A run of equal outcomes is written once with its length, and the zeros at the end are left out: a
//! replay takes 0 where a list ends. Sites are independent queues, so that the order between two sites
//! need not be kept.
//!
//! Invariant: a text that is no list is refused, and none can ask for more than [`CHOICES_MAX`].

use core::fmt::Write;
use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

/// Most outcomes that all lists of a file hold together.
pub const CHOICES_MAX: u64 = 8_000_000;

/// Outcomes by site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct Lists(BTreeMap<String, Vec<u64>>);

impl Lists {
    /// These outcomes, without zeros at the ends.
    pub fn new(lists: impl IntoIterator<Item = (String, Vec<u64>)>) -> Self {
        let trimmed = lists.into_iter().map(|(site, mut values)| {
            let end = values.iter().rposition(|value| *value != 0).map_or(0, |at| at + 1);
            values.truncate(end);
            (site, values)
        });
        Self(trimmed.filter(|(_, values)| !values.is_empty()).collect())
    }

    /// Sites at which something else than the simplest outcome is recorded.
    pub fn sites(&self) -> impl Iterator<Item = &str> + '_ {
        self.0.keys().map(String::as_str)
    }

    /// The outcomes of a site.
    pub fn get(&self, site: &str) -> &[u64] {
        self.0.get(site).map_or(&[], Vec::as_slice)
    }

    /// Replaces the outcomes of a site; none takes the simplest.
    #[must_use]
    pub fn with(mut self, site: &str, values: Vec<u64>) -> Self {
        self.0.remove(site);
        let one = Self::new([(site.to_owned(), values)]);
        self.0.extend(one.0);
        self
    }

    /// Only the outcomes of sites for which this holds.
    #[must_use]
    pub fn only(mut self, keep: impl Fn(&str) -> bool) -> Self {
        self.0.retain(|site, _| keep(site));
        self
    }

    pub(crate) fn into_queues(self) -> BTreeMap<String, VecDeque<u64>> {
        self.0.into_iter().map(|(site, values)| (site, values.into())).collect()
    }
}

impl From<Lists> for BTreeMap<String, String> {
    fn from(lists: Lists) -> Self {
        lists.0.iter().map(|(site, values)| (site.clone(), short(values))).collect()
    }
}

fn short(values: &[u64]) -> String {
    let mut text = String::new();
    for run in values.chunk_by(|a, b| a == b) {
        let value = run.first().copied().unwrap_or(0);
        let space = if text.is_empty() { "" } else { " " };
        // A string takes all.
        if run.len() > 1 {
            write!(text, "{space}{value}x{}", run.len()).unwrap_or_default();
        } else {
            write!(text, "{space}{value}").unwrap_or_default();
        }
    }
    text
}

impl TryFrom<BTreeMap<String, String>> for Lists {
    type Error = String;

    fn try_from(texts: BTreeMap<String, String>) -> Result<Self, String> {
        let mut left = CHOICES_MAX;
        let mut lists = BTreeMap::new();
        for (site, text) in texts {
            let mut values = Vec::new();
            for part in text.split_ascii_whitespace() {
                let (value, count) = part.split_once('x').unwrap_or((part, "1"));
                let wrong = || format!("choices of {site:?}: {part:?} is no outcome");
                let value: u64 = value.parse().ok().ok_or_else(wrong)?;
                let count: u64 = count.parse().ok().ok_or_else(wrong)?;
                let more = || format!("choices of {site:?}: more than {CHOICES_MAX} in the file");
                left = left.checked_sub(count).ok_or_else(more)?;
                values.extend((0..count).map(|_| value));
            }
            lists.insert(site, values);
        }
        Ok(Self::new(lists))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_survive_json_in_short() {
        let lists = Lists::new([
            ("sched".to_owned(), vec![0, 0, 0, 7, 1, 1, 0, 0]),
            ("call.yield".to_owned(), vec![0; 1000]),
        ]);
        let text = serde_json::to_string(&lists).unwrap();
        assert_eq!(text, r#"{"sched":"0x3 7 1x2"}"#);
        assert_eq!(serde_json::from_str::<Lists>(&text).unwrap(), lists);
    }

    #[test]
    fn what_is_no_list_is_refused_by_name() {
        for (text, why) in [
            (r#"{"sched":"1 two"}"#, "\"two\" is no outcome"),
            (r#"{"sched":"1x-1"}"#, "\"1x-1\" is no outcome"),
            (r#"{"sched":"0x99999999999"}"#, "more than"),
            (r#"{"a":"0x8000000","b":"1"}"#, "choices of \"b\": more than"),
        ] {
            let error = serde_json::from_str::<Lists>(text).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
