//! Queries: ranges and prefixes in both directions, as of now or at a snapshot, by one way or by all.

use core::ops::Bound;
use std::collections::BTreeMap;

use bytes::Bytes;
use forebay_engine::env::Env;
use forebay_engine::read::Scan;
use forebay_engine::tenant::ScanOptions;
use forebay_engine::types::to_usize;
use forebay_engine::{Error, Tenant};

use super::{Board, Client, Handle, drain};
use crate::bugs::Bug;
use crate::check::model::Model;
use crate::check::reads::{Window, c8_paths, c8_scan};
use crate::check::recovery::c3_invention;
use crate::check::value::{self, key_bytes};
use crate::check::{Checked, Rule, RuleCounts, Violation, broken};
use crate::env::SimEnv;
use crate::scenario::{KeyEnd, Keys};

type Entries = Vec<(Bytes, Bytes)>;

/// Whether a scan should give a key, were it there.
type Covers<'a> = &'a dyn Fn(&[u8]) -> bool;

/// Opens a scan of some keys.
fn open(
    tenant: &Tenant<SimEnv>,
    keys: Keys,
    options: ScanOptions<'_, SimEnv>,
) -> Result<Scan<SimEnv>, Error> {
    let (from, to, prefix) = keys.bounds();
    match prefix {
        Some(prefix) => tenant.prefix_with(&prefix, options),
        None => tenant.scan_with((slice(&from), slice(&to)), options),
    }
}

fn slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

/// Some entries of a scan, and all of it behind a seek.
async fn both_parts(
    mut scan: Scan<SimEnv>,
    (entries, to): (u32, &[u8]),
) -> Result<(Entries, Entries), Error> {
    let mut first = Vec::new();
    while first.len() < to_usize(u64::from(entries)) {
        let Some(entry) = scan.next().await? else { break };
        first.push(entry);
    }
    scan.seek(to);
    Ok((first, drain(scan).await?))
}

impl Client {
    /// Planted bugs: entries that get lost on the way.
    fn lossy(&self, keys: Keys, reverse: bool, mut all: Entries) -> Entries {
        let is_prefix = matches!(keys, Keys::Prefix(..));
        let hit = (self.bug == Some(Bug::ShortReverse) && reverse)
            || (self.bug == Some(Bug::PrefixGap) && is_prefix);
        if hit && self.env.choose("bug.lossy-scan", 8) == 7 {
            all.pop();
        }
        all
    }

    /// Reads some keys as of now.
    pub(super) async fn query(
        &self,
        (tenant, keys): (usize, Keys),
        reverse: bool,
        seek: Option<(u32, u32)>,
    ) {
        let Some(handle) = self.handle(tenant) else { return };
        let low = self.board.lock().model.visible;
        let routed = self.routed(&handle, keys);
        let options = ScanOptions::default();
        let scan = open(&routed, keys, if reverse { options.reversed() } else { options });
        let high = self.board.lock().model.last;
        let window = Window { low, high };
        let scan = match scan {
            Ok(scan) => scan,
            Err(error) => return self.error("scan", error, &[handle.inc]),
        };
        let Some((entries, to)) = seek else {
            let all = drain(scan).await.map(|all| self.lossy(keys, reverse, all));
            return self.judge_scan((handle.inc, &|key| keys.holds(key)), (all, reverse), window);
        };
        let to = key_bytes(to);
        let (first, rest) = match both_parts(scan, (entries, &to)).await {
            Ok(parts) => parts,
            Err(error) => return self.error("scan", error, &[handle.inc]),
        };
        self.board.lock().mark("scan-seek");
        let rest = self.lossy(keys, reverse, rest);
        // The first part covers what lies up to its last entry, or all where it reached the end.
        let whole = first.len() < to_usize(u64::from(entries));
        let end = first.last().map(|(key, _)| key.clone());
        let before = |key: &[u8], end: &[u8]| if reverse { key >= end } else { key <= end };
        let read = |key: &[u8]| {
            let upto = end.as_ref().is_some_and(|end| before(key, end));
            keys.holds(key) && (whole || upto)
        };
        let sought = |key: &[u8]| keys.holds(key) && before(&to, key);
        self.judge_scan((handle.inc, &read), (Ok(first), reverse), window);
        self.judge_scan((handle.inc, &sought), (Ok(rest), reverse), window);
    }

    /// C3 and C8 for a scan that covers some keys.
    pub(super) fn judge_scan(
        &self,
        (inc, covers): (usize, Covers<'_>),
        (all, reverse): (Result<Entries, Error>, bool),
        window: Window,
    ) {
        let all = match all {
            Ok(all) => all,
            Err(error) => return self.error("scan", error, &[inc]),
        };
        let now = self.env.now();
        let mut board = self.board.lock();
        let Board { model, counts, .. } = &mut *board;
        let checked = read_entries(model, counts, (inc, covers), (&all, reverse));
        let checked = checked.and_then(|found| {
            let keys = model.incs.get(inc).into_iter().flat_map(|inc| inc.keys.keys().copied());
            let keys: Vec<u32> = keys.filter(|key| covers(&key_bytes(*key))).collect();
            c8_scan(model, counts, (inc, &keys), &found, window)
        });
        board.keep(checked, now);
    }

    /// Reads some keys at one snapshot in every way, and holds the ways against each other.
    pub(super) async fn compare(&self, (tenant, keys): (usize, Keys), old: bool) {
        let held = self.snapshots.front().filter(|_| old);
        let own;
        let (handle, snapshot) = if let Some(held) = held {
            (held.handle.clone(), &held.snapshot)
        } else {
            let Some(handle) = self.handle(tenant) else { return };
            own = handle.tenant.snapshot();
            (handle, &own)
        };
        let at = || ScanOptions::default().at(snapshot);
        let window = Window { low: snapshot.seq(), high: snapshot.seq() };
        let whole = Keys::Between(KeyEnd::Unbounded, KeyEnd::Unbounded);
        let ways = [
            ("scan", keys, false),
            ("reverse scan", keys, true),
            ("scan of all keys", whole, false),
            ("reverse scan of all keys", whole, true),
        ];
        let mut paths: Vec<(&str, BTreeMap<u32, u64>)> = Vec::new();
        for (name, of, reverse) in ways {
            let scan = open(&handle.tenant, of, if reverse { at().reversed() } else { at() });
            let all = match scan {
                Ok(scan) => drain(scan).await,
                Err(error) => Err(error),
            };
            let all = match all {
                Ok(all) => self.lossy(of, reverse, all),
                Err(error) => return self.error("scan_with", error, &[handle.inc]),
            };
            let mut board = self.board.lock();
            let Board { model, counts, .. } = &mut *board;
            let covers = |key: &[u8]| of.holds(key);
            let found = read_entries(model, counts, (handle.inc, &covers), (&all, reverse));
            match found {
                Ok(mut found) => {
                    found.retain(|key, _| keys.holds(&key_bytes(*key)));
                    paths.push((name, found));
                }
                broken @ Err(_) => return board.keep(broken.map(drop), self.env.now()),
            }
        }
        let Some(gets) = self.gets((&handle, keys), snapshot).await else { return };
        paths.push(("get", gets));
        self.judge_paths((handle.inc, keys), &paths, window);
    }

    async fn gets(
        &self,
        (handle, keys): (&Handle, Keys),
        snapshot: &forebay_engine::Snapshot<SimEnv>,
    ) -> Option<BTreeMap<u32, u64>> {
        let asked: Vec<u32> = {
            let board = self.board.lock();
            let known = board.model.incs.get(handle.inc).into_iter();
            let known = known.flat_map(|inc| inc.keys.keys().copied());
            known.filter(|key| keys.holds(&key_bytes(*key))).collect()
        };
        let mut found = BTreeMap::new();
        for key in asked {
            match handle.tenant.get_at(snapshot, &key_bytes(key)).await {
                Ok(Some(bytes)) => {
                    let mut board = self.board.lock();
                    let Board { model, counts, .. } = &mut *board;
                    match c3_invention(model, counts, (handle.inc, key), &bytes) {
                        Ok(op) => drop(found.insert(key, op)),
                        broken @ Err(_) => {
                            board.keep(broken.map(drop), self.env.now());
                            return None;
                        }
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    self.error("get_at", error, &[handle.inc]);
                    return None;
                }
            }
        }
        Some(found)
    }

    fn judge_paths(
        &self,
        (inc, keys): (usize, Keys),
        paths: &[(&str, BTreeMap<u32, u64>)],
        window: Window,
    ) {
        let now = self.env.now();
        let mut board = self.board.lock();
        board.mark("paths-compared");
        let Board { model, counts, .. } = &mut *board;
        let tenant = model.incs.get(inc).map_or(0, |inc| inc.tenant);
        let mut checked = Ok(());
        if let Some(((name, one), others)) = paths.split_first() {
            for (other_name, other) in others {
                let other = (*other_name, other);
                checked = checked.and_then(|()| c8_paths(counts, tenant, (*name, one), other));
            }
            let known = model.incs.get(inc).into_iter().flat_map(|inc| inc.keys.keys().copied());
            let known: Vec<u32> = known.filter(|key| keys.holds(&key_bytes(*key))).collect();
            checked = checked.and_then(|()| c8_scan(model, counts, (inc, &known), one, window));
        }
        board.keep(checked, now);
    }

    pub(super) async fn compact(&self, tenant: usize, keys: Keys) {
        let Some(handle) = self.handle(tenant) else { return };
        let (from, to, _) = keys.bounds();
        match handle.tenant.compact_range((slice(&from), slice(&to))).await {
            Ok(()) => self.board.lock().mark("compact-range"),
            Err(error) => self.error("compact", error, &[handle.inc]),
        }
    }

    pub(super) async fn extractor(&self, tenant: usize, name: Option<&str>) {
        let Some(handle) = self.handle(tenant) else { return };
        if !self.board.lock().own_extractors {
            return;
        }
        let extractor = name.and_then(|name| name.parse().ok());
        match handle.tenant.set_prefix_extractor(extractor).await {
            Ok(()) => self.board.lock().mark("extractor-changed"),
            Err(error) => self.error("extractor", error, &[handle.inc]),
        }
    }
}

/// C3 for every entry of a scan, and C8 for its order.
fn read_entries(
    model: &Model,
    counts: &mut RuleCounts,
    (inc, covers): (usize, Covers<'_>),
    (all, reverse): (&[(Bytes, Bytes)], bool),
) -> Checked<BTreeMap<u32, u64>> {
    let mut found = BTreeMap::new();
    let mut before: Option<&Bytes> = None;
    for (text, bytes) in all {
        let tenant = model.incs.get(inc).map_or(0, |inc| inc.tenant);
        let late = |before: &Bytes| if reverse { before <= text } else { before >= text };
        if before.is_some_and(late) {
            let wrong = Violation::new(Rule::C8, "a scan in key order", format!("{text:?} late"));
            return broken(wrong.of(tenant, None));
        }
        before = Some(text);
        let Some(key) = value::key_number(text).filter(|_| covers(text)) else {
            let found = format!("the key {text:?}, which nobody wrote or asked for");
            return broken(Violation::new(Rule::C3, "keys in the range", found).of(tenant, None));
        };
        found.insert(key, c3_invention(model, counts, (inc, key), bytes)?);
    }
    Ok(found)
}
