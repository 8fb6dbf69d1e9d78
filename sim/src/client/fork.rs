//! Branches come and go: forks, and drops of one branch or of all of a tenant.

use forebay_engine::env::Env as _;
use forebay_engine::options::ForkMemtable;
use forebay_engine::{Error, Tenant};

use super::{Board, Client, Handle};
use crate::check::forks::c5_forked;
use crate::check::model::Known;
use crate::check::reads::Window;
use crate::check::value::{branch_name, fork_number, tenant_name, tenant_of};
use crate::check::{Rule, Violation, broken};
use crate::env::SimEnv;
use crate::scenario::{KeyEnd, Keys};
use crate::sometimes;

impl Client {
    /// Forks a branch, where it is there and the new name is free.
    pub(super) async fn fork(&self, from: usize, fork: usize, memtable: Option<&str>) {
        let number = fork_number(from, fork);
        let (parent, inc, low, drops) = {
            let mut board = self.board.lock();
            let Some(parent) = board.handles.get(&from).cloned() else { return };
            if board.handles.contains_key(&number) || !board.busy.insert(number) {
                return;
            }
            let inc = board.model.begin_fork(number, parent.inc);
            (parent, inc, board.model.visible, board.drops_of(number))
        };
        let memtable = memtable.and_then(|name| name.parse::<ForkMemtable>().ok());
        let name = branch_name(number);
        let result = match memtable {
            Some(memtable) => {
                let forked = parent.tenant.fork_with(&name, memtable).await;
                forked.map(|forked| (forked.tenant, forked.seq))
            }
            None => parent.tenant.fork(&name).await.map(|tenant| {
                let seq = tenant.fork_point().map_or(0, |point| point.seq);
                (tenant, seq)
            }),
        };
        self.board.lock().busy.remove(&number);
        match result {
            Ok((tenant, seq)) => {
                self.overtaken((number, inc), &tenant, drops);
                self.forked(&parent, (number, inc), (tenant, seq), low).await;
            }
            Err(error) => self.fork_failed(&parent, inc, error),
        }
    }

    /// A drop of all branches drops those too that come to be while it works, told of or not.
    fn overtaken(&self, (number, inc): (usize, usize), fork: &Tenant<SimEnv>, drops: u64) {
        let mut board = self.board.lock();
        let there = self.db.branch(&tenant_name(number));
        let is_there = there.is_some_and(|there| there.branch_id() == fork.branch_id());
        if !is_there && board.drops_of(number) != drops {
            board.model.set_drop(inc, Known::Acked);
        } else if board.dropping_all.contains(&tenant_of(number)) {
            board.model.set_drop(inc, Known::UnderWay);
        }
    }

    async fn forked(
        &self,
        parent: &Handle,
        (number, inc): (usize, usize),
        (tenant, seq): (Tenant<SimEnv>, u64),
        low: u64,
    ) {
        let (branch, of) = (tenant.branch_id().0, parent.tenant.branch_id().0);
        self.env.share_tables(branch, of);
        {
            let mut board = self.board.lock();
            let Board { model, counts, .. } = &mut *board;
            let window = Window { low, high: model.last.max(model.opened_at) };
            let checked = c5_forked(model, counts, (inc, seq), window);
            model.forked(inc, branch, seq);
            let is_gone = model.incs.get(inc).is_none_or(|inc| inc.drop == Known::Acked);
            board.keep(checked, self.env.now());
            board.mark("fork");
            let is_shared = !board.own_extractors;
            sometimes!(board, "fork-of-shared", is_shared);
            if parent.tenant.fork_point().is_some() {
                board.mark("fork-of-a-fork");
            }
            if is_gone {
                board.mark("fork-dropped-at-once");
                return;
            }
            board.handles.insert(number, Handle { inc, tenant });
        }
        if seq.is_multiple_of(4) {
            let whole = Keys::Between(KeyEnd::Unbounded, KeyEnd::Unbounded);
            self.query((number, whole), false, None).await;
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "any other error leaves it open")]
    fn fork_failed(&self, parent: &Handle, inc: usize, error: Error) {
        {
            let mut board = self.board.lock();
            board.mark("fork-failed");
            match &error {
                // These say that nothing changed.
                Error::Dropped
                | Error::DiskFull { .. }
                | Error::TenantExists(_)
                | Error::InvalidArgument(_)
                | Error::TreeFailed { .. }
                | Error::Closed => board.model.refuse_create(inc),
                _ => board.model.end_create(inc, None),
            }
        }
        self.error("fork", error, &[parent.inc]);
    }

    /// Drops a branch, or all of its tenant's.
    pub(super) async fn drop_branches(&self, number: usize, all: bool) {
        let tenant = tenant_of(number);
        let found = {
            let mut board = self.board.lock();
            let Some(handle) = board.handles.get(&number).cloned() else { return };
            if !board.dropping.insert(tenant) {
                return;
            }
            let numbers: Vec<usize> = if all {
                let there = self.db.branches(&tenant_name(tenant));
                there.iter().filter_map(name_of).collect()
            } else {
                vec![number]
            };
            // A fork may be there whose client was not told yet.
            let incs: Vec<(usize, usize)> =
                numbers.iter().filter_map(|n| Some((*n, board.model.last_life(*n)?))).collect();
            for (_, inc) in &incs {
                board.model.set_drop(*inc, Known::UnderWay);
            }
            if all {
                board.dropping_all.insert(tenant);
            }
            (handle, incs)
        };
        let (handle, mut incs) = found;
        let result = if all {
            self.db.drop_tenant(&tenant_name(tenant)).await
        } else {
            self.db.drop_branch(&tenant_name(number)).await
        };
        {
            let mut board = self.board.lock();
            board.dropping.remove(&tenant);
            if board.dropping_all.remove(&tenant) {
                *board.dropped_all.entry(tenant).or_default() += 1;
                incs = board.model.being_dropped(tenant);
            }
            let known = if result.is_ok() { Known::Acked } else { Known::Failed };
            for (number, inc) in &incs {
                board.model.set_drop(*inc, known);
                if result.is_ok() && board.handles.get(number).is_some_and(|h| h.inc == *inc) {
                    board.handles.remove(number);
                }
            }
            if result.is_ok() {
                board.mark(if all { "tenant-dropped" } else { "branch-dropped" });
                board.under_way.dropped();
                let (flushes, compacts) = (board.under_way.flushes(), board.under_way.compacts());
                sometimes!(board, "drop-in-flush", flushes);
                sometimes!(board, "drop-in-compaction", compacts);
            }
        }
        if let Err(error) = result {
            return self.error("drop", error, &[]);
        }
        if let Ok(found) = handle.tenant.get(b"k0000").await {
            let found = format!("a handle of it answers a get with {found:?}");
            let wrong = Violation::new(Rule::C4, "the branch was dropped", found);
            let now = self.env.now();
            self.board.lock().keep(broken(wrong.of(number, None)), now);
        }
    }
}

impl Board {
    /// How often all branches of a branch's tenant were dropped.
    fn drops_of(&self, number: usize) -> u64 {
        self.dropped_all.get(&tenant_of(number)).copied().unwrap_or(0)
    }
}

fn name_of(branch: &Tenant<SimEnv>) -> Option<usize> {
    crate::check::value::name_number(&branch.full_name())
}
