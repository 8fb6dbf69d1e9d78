//! A crash and what follows: what the disk keeps, recovery with crashes and faults of its own, and the
//! whole state against the model.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use forebay_engine::events::Listener;
use forebay_engine::types::{Nanos, SeqNo, to_u64};
use forebay_engine::{Db, Error};

use super::{DIR, Opened, Part, READ_KEY_NS, Run};
use crate::bugs::Bug;
use crate::check::forks::c5_lineage;
use crate::check::liveness::{DEADLINE_NS, c11_open, c11_same, c11_work, l1_progress};
use crate::check::model::{Known, Model, seconds};
use crate::check::reads::{c6_excused, is_damage};
use crate::check::recovery::{Explained, State, TenantState, c3_invention, c4_tenants, judge};
use crate::check::value::tenant_name;
use crate::check::{Checked, Rule, RuleCounts, Violation, broken};
use crate::client::{Board, Everything, Handle, read_everything};
use crate::diary::What;
use crate::disk::SimDisk;
use crate::fault::FaultPlan;
use crate::fault::atlas::FileKind;
use crate::scenario::{CrashKind, NthPart, Phase};
use crate::sometimes;
use crate::timeline::Told;
use crate::view::FileView;

/// What may be missing after the crashes since the database was last open.
#[derive(Clone, Copy)]
pub(super) struct Loss {
    pub(super) power: bool,
}

impl From<CrashKind> for Loss {
    fn from(kind: CrashKind) -> Self {
        Self { power: kind == CrashKind::PowerLoss }
    }
}

impl Run {
    /// The process dies; each of some outcomes is judged, and the run goes on with the last.
    pub(super) fn crash(&mut self, phase: &Phase, kind: CrashKind) -> Checked {
        self.dies();
        self.leave();
        self.sim.restart_clock(phase.faults.clock_step);
        let before = self.sim.disk().clone();
        let judged = self.crash_copies(phase, kind, &before)?;
        self.settle(kind);
        self.crash_states += u64::from(!judged.contains(&self.sim.disk().fingerprint()));
        self.crashes += 1;
        self.recover(phase, kind.into(), true)
    }

    /// Lets go of everything of the dying process.
    pub(super) fn leave(&mut self) {
        self.heal();
        self.watch_process_end();
        self.sim.kill_all();
        // The next process may give their numbers to others.
        self.own_tables();
        self.db = None;
        let mut board = self.board.lock();
        let handles = core::mem::take(&mut board.handles);
        board.forget_process();
        drop(board);
        drop(handles);
    }

    /// Counts what the dying process was in the middle of.
    fn dies(&self) {
        let files = self.sim.disk().files();
        let is_manifest = |path: &str| FileKind::of(path) == FileKind::Manifest;
        // One manifest and its pointer are what there is otherwise.
        let manifests = files.iter().filter(|(path, _)| is_manifest(path)).count();
        let mut board = self.board.lock();
        let is_there = !board.model.incs.is_empty();
        sometimes!(board, "crash-in-manifest-switch", is_there && manifests > 2);
        board.crashes();
    }

    pub(super) fn restore(&self, disk: &SimDisk) {
        let old = core::mem::replace(&mut *self.sim.disk_mut(), disk.clone());
        drop(old);
    }

    pub(super) fn settle(&mut self, kind: CrashKind) {
        let before = self.watch.diary.as_ref().map(|_| self.sim.disk().files());
        let report = match kind {
            CrashKind::PowerLoss => self.sim.power_loss(),
            CrashKind::Kill => self.sim.kill(),
        };
        let name = match kind {
            CrashKind::PowerLoss => "power_loss",
            CrashKind::Kill => "kill",
        };
        let kept = format!(
            "pages kept {} lost {} torn {}, names kept {} lost {}, writes cut {}",
            report.pages_kept,
            report.pages_lost,
            report.pages_torn,
            report.names_kept,
            report.names_lost,
            report.writes_cut
        );
        self.note("crash", serde_json::json!({ "kind": name, "disk": kept }));
        let now = seconds(self.sim.now());
        self.tell(format!("crash   vt {now}  {name}  {kept}"));
        if let Some(before) = before {
            let (before, after) = (FileView::all(before), FileView::all(self.sim.disk().files()));
            self.sim.write_down(|| What::Crash { kind, kept, before, after });
        }
    }

    /// Opens the database after crashes, judges all that is there, and goes on from it where `go_on`.
    pub(super) fn recover(&mut self, phase: &Phase, mut loss: Loss, go_on: bool) -> Checked {
        let nth = phase.nth_fault.as_ref();
        let nth_crash = nth.and_then(|nth| nth.crash(NthPart::Recovery));
        let (mut nested, mut was_killed) = (0, !loss.power);
        for crash in phase.recovery_crashes.iter().chain(&nth_crash) {
            self.crash_later(crash.point);
            self.count_calls(phase, NthPart::Recovery);
            let opened = self.open(DEADLINE_NS);
            self.end_calls();
            if let opened @ Part::Done(_) = opened? {
                self.opened("while it recovers", opened)?;
                break;
            }
            let mut board = self.board.lock();
            let creation = board.model.incs.is_empty();
            board.mark(if creation { "crash-in-creation" } else { "crash-in-recovery" });
            nested += 1;
            sometimes!(board, "crash-in-second-recovery", nested > 1 && !creation);
            let lost_later = was_killed && crash.kind == CrashKind::PowerLoss;
            sometimes!(board, "power-loss-after-kill", lost_later);
            was_killed = crash.kind == CrashKind::Kill;
            drop(board);
            self.dies();
            self.leave();
            self.settle(crash.kind);
            loss.power |= crash.kind == CrashKind::PowerLoss;
        }
        let mut faulty = false;
        let nth = nth.and_then(|nth| nth.fault(NthPart::Recovery));
        let then = nth.and_then(|(_, _, then)| then).unwrap_or(CrashKind::Kill);
        let planned = phase.recovery_faults != FaultPlan::default();
        if self.db.is_none() && (planned || nth.is_some()) {
            faulty = self.open_with_faults(phase, then)?;
            loss.power |= !faulty && then == CrashKind::PowerLoss;
        }
        if self.db.is_none() {
            self.fired_at_open = self.fired();
            let opened = self.open(DEADLINE_NS)?;
            self.opened("after a crash", opened)?;
        }
        let (state, explained) = self.judge_all(loss)?;
        if phase.open_twice && !faulty {
            self.leave();
            self.settle(CrashKind::Kill);
            let opened = self.open(DEADLINE_NS)?;
            self.opened("a second time", opened)?;
            let (again, _) = self.judge_all(loss)?;
            c11_same(&mut self.board.lock().counts, &state.tenants, &again.tenants)?;
        }
        self.note("recover", serde_json::json!({ "upto_seq": explained.upto }));
        self.sim.write_down(|| What::Recovered { upto: explained.upto });
        let line = format!("recover vt {}  up to seq {}", seconds(self.sim.now()), explained.upto);
        self.tell(line);
        if go_on {
            self.adopt(&state, &explained, faulty);
        }
        Ok(())
    }

    /// Opens with faults; says whether that worked.
    fn open_with_faults(&mut self, phase: &Phase, then: CrashKind) -> Checked<bool> {
        self.fired_at_open = self.fired();
        self.sim.set_faults(phase.recovery_faults);
        self.count_calls(phase, NthPart::Recovery);
        let opened = self.open(DEADLINE_NS)?;
        self.end_calls();
        self.heal();
        if let Part::Done(Some(Ok(db))) = opened {
            self.watch_writers(&db);
            self.db = Some(db);
            self.board.lock().mark("opened-with-faults");
            return Ok(true);
        }
        if let Part::Done(Some(Err(error))) = opened {
            let fired = self.fired().saturating_sub(self.fired_at_open);
            self.c2_open(&error)?;
            self.judge_error("open", None, &error, fired)?;
        }
        self.board.lock().mark("open-failed-with-faults");
        self.leave();
        self.settle(then);
        Ok(false)
    }

    fn open(&mut self, within: Nanos) -> Checked<Opened> {
        let (env, options, board) = (self.sim.env(), self.options.clone(), self.board.clone());
        board.lock().under_way.open();
        let files = self.sim.disk().files().into_iter();
        let logs = files.filter(|(path, _)| FileKind::of(path) == FileKind::Wal);
        self.log_at_open = logs.map(|(_, bytes)| bytes).sum();
        let deadline = self.sim.now().saturating_add(within);
        let (timeline, diary) = (self.watch.timeline.clone(), self.watch.diary.clone());
        let listener: Arc<dyn Listener> = match (&timeline, &diary) {
            (None, None) => Arc::new(board),
            (Some(_), _) | (_, Some(_)) => Arc::new(Told { first: board, timeline, diary }),
        };
        self.drive(deadline, async move {
            Db::open_with_listener(env, Path::new(DIR), options, Some(listener)).await
        })
    }

    fn opened(&mut self, when: &str, opened: Opened) -> Checked {
        if let Part::Done(Some(Err(error))) = &opened
            && self.is_refusal(error)
        {
            self.over = true;
            self.board.lock().mark("open-refused-damage");
            return broken(Violation::new(Rule::C11, when, error.to_string()));
        }
        if let Part::Done(Some(Err(error))) = &opened {
            self.c2_open(error)?;
        }
        if let Part::Done(Some(Ok(db))) = &opened {
            self.watch_writers(db);
        }
        let mut board = self.board.lock();
        match opened {
            Part::Done(Some(Ok(db))) => {
                self.db = Some(db);
                c11_open(&mut board.counts, when, None)?;
                let read_bytes = self.sim.ledger().log_read_bytes();
                c11_work(&mut board.counts, read_bytes, self.log_at_open)
            }
            Part::Done(Some(Err(error))) => {
                c11_open(&mut board.counts, when, Some(&error.to_string()))
            }
            Part::Done(None) | Part::Crashed => {
                l1_progress(&mut board.counts, false, "open", "recovery")
            }
        }
    }

    /// C2: an open that finds damage which no fault did has lost what was promised.
    fn c2_open(&self, error: &Error) -> Checked {
        self.board.lock().counts.count(Rule::C2);
        if !is_damage(error) || self.sim.env().excuses(error, None) {
            return Ok(());
        }
        let promised = "what was promised is there: no medium was damaged there";
        broken(Violation::new(Rule::C2, promised, error.to_string()))
    }

    /// Whether a failed open is right: it names damage in a file that all tenants share.
    fn is_refusal(&self, error: &Error) -> bool {
        let path = error.location().0.and_then(Path::to_str).unwrap_or_default();
        let right = FileKind::of(path).is_shared()
            && self.sim.atlas().voids(Rule::C11)
            && self.sim.env().excuses(error, None);
        c6_excused(&mut self.board.lock().counts, right)
    }

    /// Reads everything and explains it.
    fn judge_all(&mut self, loss: Loss) -> Checked<(State, Explained)> {
        let Some(db) = self.db.clone() else { return Ok((State::default(), no_state())) };
        self.own_tables();
        let keys: BTreeMap<usize, BTreeSet<u32>> = {
            let board = self.board.lock();
            let model = &board.model;
            model.names().map(|name| (name, model.keys_of(name))).collect()
        };
        // Each key is read by itself, on a slow device from a dozen tables without a cache.
        let key_count = to_u64(keys.values().map(BTreeSet::len).sum());
        let within = DEADLINE_NS.saturating_add(key_count.saturating_mul(READ_KEY_NS));
        let env = self.sim.env();
        let read = async move { read_everything(env, &db, keys).await };
        let all = self.must_within("reading everything", within, read)??;
        let mut board = self.board.lock();
        let Board { model, counts, .. } = &mut *board;
        model.shared_hit = self.sim.atlas().is_shared_hit();
        learn_forks(model, counts, &all)?;
        let mut state = decode(model, counts, &all)?;
        if let Some(bug) = self.bug {
            misread(model, bug, &mut state);
        }
        let forgot = self.sim.forgotten() > self.forgot_at_open;
        let bound = if loss.power {
            (model.synced, "it survives a power loss")
        } else if forgot {
            (model.synced, "it survives a page cache that forgets")
        } else {
            (model.acked, "it survives the death of the process")
        };
        // The rotten tail of a log looks like a torn one: nothing behind it is promised.
        let bound = if model.shared_hit { (0, "nothing") } else { bound };
        let explained = judge(model, counts, &state, bound)?;
        Ok((state, explained))
    }

    /// The model goes on from what was found.
    fn adopt(&mut self, state: &State, explained: &Explained, faulty: bool) {
        let Some(db) = &self.db else { return };
        let mut board = self.board.lock();
        if !explained.came_back.is_empty() {
            board.mark("failed-write-came-back");
        }
        self.forgot_at_open = self.sim.forgotten();
        board.model.recovered(explained);
        // Without a branch nothing tells it.
        board.model.opened_at = state.last.unwrap_or(SeqNo::MAX);
        board.model.faulty = faulty || !self.sim.atlas().is_empty();
        for (name, inc) in &explained.live {
            if let Some(found) = state.tenants.get(name) {
                board.model.learn_branch(*inc, found.branch);
            }
            if let Some(tenant) = db.branch(&tenant_name(*name)) {
                board.handles.insert(*name, Handle { inc: *inc, tenant });
            }
        }
    }
}

fn no_state() -> Explained {
    Explained { upto: 0, came_back: BTreeSet::new(), live: BTreeMap::new() }
}

/// Where forks begin that nobody was told of, and whether the others begin where they began.
fn learn_forks(model: &mut Model, counts: &mut RuleCounts, all: &Everything) -> Checked {
    let branches = all.tenants.iter().map(|(name, found)| (*name, found.branch)).collect();
    for (name, inc) in c4_tenants(model, counts, &branches)? {
        let Some(found) = all.tenants.get(&name) else { continue };
        c5_lineage(model, counts, inc, found.fork)?;
        let is_unsure = model.incs.get(inc).is_some_and(|inc| inc.create != Known::Acked);
        if let Some((_, seq)) = found.fork.filter(|_| is_unsure) {
            model.inherit(inc, seq);
        }
    }
    Ok(())
}

/// Planted bugs: what was read is changed before it is judged.
fn misread(model: &Model, bug: Bug, state: &mut State) {
    let found = |inc: usize, key: u32, op: u64| {
        model.history(inc, key).iter().find(|placed| placed.op == op).map(|placed| placed.seq)
    };
    for (name, tenant) in &mut state.tenants {
        let Some(inc) = model.last_life(*name) else { continue };
        let reached = tenant.values.iter().filter_map(|(key, op)| found(inc, *key, *op)).max();
        let reached = reached.unwrap_or(0);
        for key in model.keys_of(*name) {
            let history = model.history(inc, key);
            let Some(newest) = history.iter().rfind(|placed| placed.seq < reached) else {
                continue;
            };
            let is_there = tenant.values.contains_key(&key);
            let put = history.iter().find(|placed| placed.put && placed.seq < newest.seq);
            if bug == Bug::GapInPrefix && is_there && newest.put && newest.seq > model.synced {
                tenant.values.remove(&key);
                return;
            }
            if let Some(put) = put.filter(|_| bug == Bug::Undelete && !newest.put && !is_there) {
                tenant.values.insert(key, put.op);
                return;
            }
        }
    }
}

fn decode(model: &Model, counts: &mut RuleCounts, all: &Everything) -> Checked<State> {
    let branches = all.tenants.iter().map(|(name, found)| (*name, found.branch)).collect();
    let live = c4_tenants(model, counts, &branches)?;
    let mut state = State { last: all.last, ..State::default() };
    for (name, read) in &all.tenants {
        let (branch, unread) = (read.branch, read.unread.clone());
        let fork = read.fork;
        let mut found = TenantState { branch, values: BTreeMap::new(), unread, fork };
        let Some(inc) = live.get(name) else { continue };
        for (key, bytes) in &read.values {
            found.values.insert(*key, c3_invention(model, counts, (*inc, *key), bytes)?);
        }
        state.tenants.insert(*name, found);
    }
    Ok(state)
}
