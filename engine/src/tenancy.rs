//! Tenants come and go: what is done when the edit that says so is durable.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::env::Env;
use crate::error::{Error, Result};
use crate::policy::view::ChangeKind;
use crate::shared::{Request, Shared};
use crate::version::edit::Edit;
use crate::version::manifest::Install;
use crate::version::set::VersionSet;
use crate::version::tree::Branch;
use crate::write::{queue, stalls};

/// Names that are being created, lest two calls write one name into the manifest. It lives exactly
/// as long as its edit may still be written, whether the caller waits for that or not.
#[derive(Debug)]
pub(crate) struct Claim<E: Env> {
    shared: Arc<Shared<E>>,
    names: Vec<String>,
}

impl<E: Env> Claim<E> {
    /// Claims names.
    ///
    /// # Errors
    ///
    /// `TenantExists` where another call is creating one of them; nothing is claimed.
    pub(crate) fn new(shared: &Arc<Shared<E>>, names: &[&str]) -> Result<Self> {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut creating = shared.creating.lock();
        if let Some(name) = names.iter().find(|n| creating.contains(*n)) {
            return Err(Error::TenantExists(name.clone()));
        }
        creating.extend(names.iter().cloned());
        drop(creating);
        Ok(Self { shared: Arc::clone(shared), names })
    }
}

impl<E: Env> Drop for Claim<E> {
    fn drop(&mut self) {
        let mut creating = self.shared.creating.lock();
        for name in &self.names {
            creating.remove(name);
        }
    }
}

/// Makes a branch's tree known to the policies, with the cap that its tenants now give it.
pub(crate) fn register<E: Env>(shared: &Shared<E>, branch: &Branch) {
    for (tree, _) in &branch.places {
        let cap = shared.options.memtable_cap_bytes(Shared::<E>::tenants_of(tree));
        if tree.slot.load(Ordering::Relaxed) == usize::MAX {
            shared.pressure.add_tree(tree, cap, shared.env.now());
        } else {
            shared.pressure.set_memtable_cap(tree, cap);
        }
    }
}

/// Tenants exist from here on, and policies know their trees before anybody can write to them.
pub(crate) fn install_create<E: Env>(
    shared: &Arc<Shared<E>>,
    edits: &[Edit],
    claim: Claim<E>,
) -> Install {
    let (shared, edits) = (Arc::clone(shared), edits.to_vec());
    Box::new(move |set| {
        // The claim and the look behind it leave no name that could be there already.
        for applied in edits.iter().filter_map(|edit| set.apply(edit).ok()) {
            for branch in &applied.created_branches {
                register(&shared, branch);
            }
        }
        drop(claim);
    })
}

/// Lets the queue's next leader give back what trees held that are gone. Where the queue refuses,
/// the database is closed, or read-only.
pub(crate) async fn settle_dropped<E: Env>(shared: &Shared<E>) {
    let seal = Request::Seal { trees: Vec::new(), overridden: false, pack: false };
    drop(queue::submit(shared, seal).await);
}

/// Makes a tenant writable again whose drop failed, or was not waited for.
#[derive(Debug)]
pub(crate) struct UndoDrop<E: Env> {
    shared: Arc<Shared<E>>,
    branch: Arc<Branch>,
}

impl<E: Env> UndoDrop<E> {
    pub(crate) fn new(shared: &Arc<Shared<E>>, branch: &Arc<Branch>) -> Self {
        Self { shared: Arc::clone(shared), branch: Arc::clone(branch) }
    }
}

impl<E: Env> Drop for UndoDrop<E> {
    fn drop(&mut self) {
        let is_there = || self.shared.set.branch(self.branch.id).is_some();
        if is_there() {
            self.branch.set_dropped(false);
            // An install that came in between has said that it is dropped, and that holds.
            if !is_there() {
                self.branch.set_dropped(true);
            }
        }
    }
}

/// Branches are gone from here on; the commit queue's next leader gives their memory back.
pub(crate) fn install_drop<E: Env>(shared: &Arc<Shared<E>>, branches: &[Arc<Branch>]) -> Install {
    let (shared, branches) = (Arc::clone(shared), branches.to_vec());
    Box::new(move |set| {
        for branch in &branches {
            install_drop_of(&shared, set, branch);
        }
    })
}

fn install_drop_of<E: Env>(shared: &Shared<E>, set: &VersionSet, branch: &Branch) {
    {
        let Ok(applied) = set.apply(&Edit::DropTenant { branch: branch.id }) else { return };
        for (tree, _) in branch.places.iter().filter(|(tree, _)| !tree.is_dropped()) {
            let cap = shared.options.memtable_cap_bytes(Shared::<E>::tenants_of(tree));
            shared.pressure.set_memtable_cap(tree, cap);
        }
        shared.counters.stalls.drop_branch(branch.id);
        for tree in &applied.dropped_trees {
            stalls::observe(shared, tree, ChangeKind::Dropped);
        }
        shared.dropped.lock().extend(applied.dropped_trees);
        shared.garbage.lock().extend(applied.removed_tables);
    }
}
