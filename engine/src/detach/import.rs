//! Takes a detached directory's branches into an open database.
//!
//! Everything gets fresh names: ids, file numbers. Entries keep their sequence numbers, so that the
//! tables can stay as they are; the log is made to reach the highest of them first, and what is in
//! no table there becomes one table for each tree here. Then one group of edits brings it all in:
//! before it there are orphan files at most, which the next open removes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::tables::{Placed, Placer, renamed};
use super::{Imported, LOCK, TablesOf};
use crate::budget::Budget;
use crate::env::{Env, IoClass};
use crate::error::{Error, Result};
use crate::flush::{self, TableWriter};
use crate::iter::{self, MergeIter, SortedIter};
use crate::layout;
use crate::log_space::LogSpace;
use crate::memtable::iter::MemtableIter;
use crate::open;
use crate::options::Layout;
use crate::policy::view::ChangeKind;
use crate::pressure::Pressure;
use crate::recovery;
use crate::replay::{self, ReplayTo};
use crate::shared::{Request, Shared};
use crate::space;
use crate::table::{ReadContext, TableMeta};
use crate::tenancy::{self, Claim};
use crate::types::{BranchId, Entry, FileNumber, SEQ_MAX, SeqNo, TreeId, to_u64};
use crate::version::Version;
use crate::version::edit::Edit;
use crate::version::manifest::{Commit, Install};
use crate::version::set::VersionSet;
use crate::version::tree::{Branch, Tree};
use crate::write::{queue, stalls};

/// A directory's numbers are taken up to here: one that claims higher ones would leave too few.
const SEQ_IMPORT_MAX: SeqNo = SEQ_MAX >> 1;

/// What a directory holds.
struct Source {
    set: VersionSet,
    seq: SeqNo,
}

/// A branch on its way in.
struct Incoming {
    from: Arc<Branch>,
    home: Arc<Tree>,
    full_name: String,
    id: BranchId,
}

/// What is decided before anything is written.
struct Plan {
    branches: Vec<Incoming>,
    /// Ids here by ids there, of branches and trees.
    ids: BTreeMap<u64, u64>,
    seq: SeqNo,
}

/// Takes in every branch of the database in `dir`; under another tenant's name if one is given.
///
/// # Errors
///
/// `InvalidArgument` for a directory that holds no database, or one of another layout, for a layout
/// in which tenants share trees, and for a name where the directory holds several tenants;
/// `TenantExists`; `Locked` where somebody has the directory open; `Corruption`; `DiskFull`,
/// `Closed`, `ReadOnly`: nothing changed. The world's, after which the tenants may be there at the
/// next open. The directory is as it was in any case.
pub(crate) async fn import<E: Env>(
    shared: &Arc<Shared<E>>,
    dir: &Path,
    tenant: Option<&str>,
) -> Result<Imported> {
    shared.check_writable()?;
    shared.disk.check()?;
    if shared.options.layout != Layout::PerTenant {
        let layout = shared.options.layout;
        let what = format!("layout = {layout}: only a database of layout per-tenant can import");
        return Err(Error::InvalidArgument(what));
    }
    if !shared.env.list(dir).await?.iter().any(|name| name == "CURRENT") {
        let what = format!("{} holds no database, or a copy that did not end", dir.display());
        return Err(Error::InvalidArgument(what));
    }
    let _lock = shared.env.lock(&dir.join(LOCK)).await?;
    let source = read(shared, dir).await?;
    let plan = plan(shared, &source, tenant)?;
    let names: BTreeSet<&str> =
        plan.branches.iter().map(|b| layout::split_name(&b.full_name).0).collect();
    let full_names = plan.branches.iter().map(|b| b.full_name.as_str());
    let claimed: Vec<&str> =
        names.iter().copied().chain(full_names).collect::<BTreeSet<_>>().into_iter().collect();
    // First the claim, then the look: whoever claimed before has installed, or failed.
    let claim = Claim::new(shared, &claimed)?;
    if let Some(name) = names.iter().find(|name| !shared.set.branches_of(name).is_empty()) {
        return Err(Error::TenantExists((*name).to_owned()));
    }
    let mut begun = Vec::new();
    let outcome = bring(shared, dir, &plan, &mut begun).await;
    let (edits, packs, mut out) = match outcome {
        Ok(brought) => brought,
        Err(error) => {
            flush::remove_begun(shared, &begun).await;
            return Err(error);
        }
    };
    if let Err(error) = queue::submit(shared, Request::Raise(plan.seq)).await {
        flush::remove_begun(shared, &begun).await;
        return Err(error);
    }
    commit(shared, edits, (&packs, claim)).await?;
    out.branches = plan.branches.into_iter().map(|branch| branch.full_name).collect();
    out.seq = plan.seq;
    space::ask(shared).await;
    Ok(out)
}

/// Reads manifest and log of a directory, into memory of its own.
async fn read<E: Env>(shared: &Shared<E>, dir: &Path) -> Result<Source> {
    let env = &shared.env;
    let recovered = recovery::read_versions(env, dir, &shared.options).await?;
    let (budget, log) = (Arc::new(Budget::new(u64::MAX)), LogSpace::default());
    let pressure = Pressure::new(&shared.options, 0)?;
    let (set, now) = (recovered.set, env.now());
    open::show_trees::<E>(&set, &pressure, (&shared.options, now));
    // It is not gone on with: what is not durable there is made so here.
    let (budget, log, settle) = (&budget, &log, false);
    let to = ReplayTo { set: &set, budget, log, pressure: &pressure, now, settle };
    let seq = replay::replay(env, dir, &recovered.names, &to).await?.last_seq;
    Ok(Source { set, seq })
}

/// Gives every branch a name and an id here.
fn plan<E: Env>(shared: &Shared<E>, source: &Source, tenant: Option<&str>) -> Result<Plan> {
    let branches = source.set.branches();
    let tenants: BTreeSet<&str> = branches.iter().map(|b| b.tenant.as_str()).collect();
    if tenants.is_empty() || (tenant.is_some() && tenants.len() > 1) {
        let what = format!("the directory holds {} tenants, not one", tenants.len());
        return Err(Error::InvalidArgument(what));
    }
    if source.seq > SEQ_IMPORT_MAX {
        let what = format!("its sequence numbers reach {}, out of range", source.seq);
        return Err(Error::InvalidArgument(what));
    }
    let mut homes = Vec::new();
    let mut known = BTreeSet::new();
    for branch in &branches {
        layout::check_name(tenant.unwrap_or(&branch.tenant))?;
        layout::check_name(&branch.name)?;
        let home = branch.places.first().map(|(tree, _)| tree);
        let home = home.filter(|tree| tree.id.0 == branch.id.0).ok_or_else(|| {
            let what = format!("branch {} does not live in a tree of its own", branch.id);
            Error::InvalidArgument(what)
        })?;
        known.extend([branch.id.0, home.family.0]);
        known.extend(branch.fork.map(|point| point.parent.0));
        homes.push(Arc::clone(home));
    }
    let first = shared.set.take_ids(to_u64(known.len()));
    let ids: BTreeMap<u64, u64> = known.into_iter().zip(first..).collect();
    let incoming = branches.iter().zip(homes).map(|(branch, home)| Incoming {
        full_name: layout::full_name(tenant.unwrap_or(&branch.tenant), &branch.name),
        id: BranchId(ids.get(&branch.id.0).copied().unwrap_or_default()),
        from: Arc::clone(branch),
        home,
    });
    let branches = incoming.collect();
    Ok(Plan { branches, ids, seq: source.seq })
}

/// Files that hold several tables, with their lengths and tables.
type Packs = Vec<(FileNumber, u64, Vec<TableMeta>)>;

/// Brings the tables over and writes those of what is in none; the edits that name them.
async fn bring<E: Env>(
    shared: &Shared<E>,
    dir: &Path,
    plan: &Plan,
    begun: &mut Vec<FileNumber>,
) -> Result<(Vec<Edit>, Packs, Imported)> {
    let mut out = Imported::default();
    let versions: Vec<Arc<Version>> =
        plan.branches.iter().map(|b| Arc::clone(&b.home.view().version)).collect();
    let mut placer = Placer::new(&shared.env, (dir, &shared.dir));
    let brought = placer.place(versions.iter().map(|v| &**v), || shared.new_file_number()).await;
    begun.extend_from_slice(&placer.begun);
    let Placed { tables: by_id, packs } = brought?;
    out.linked_files = placer.linked_files;
    out.linked_bytes = placer.linked_bytes;
    out.copied_bytes = placer.copied_bytes;
    let mut edits = Vec::new();
    let mut groups: Vec<(Vec<(TreeId, SeqNo)>, TablesOf)> = Vec::new();
    let mut at: BTreeMap<*const Version, usize> = BTreeMap::new();
    for (branch, version) in plan.branches.iter().zip(&versions) {
        let state = (TreeId(branch.id.0), plan.seq);
        if let Some((table, entries)) = table_of_memtables(shared, branch, begun).await? {
            out.logged_entries += entries;
            let mut tables = renamed(version, &by_id)?;
            tables.insert(0, (0, table));
            groups.push((vec![state], tables));
            continue;
        }
        let place = *at.entry(Arc::as_ptr(version)).or_insert(groups.len());
        match groups.get_mut(place) {
            Some((trees, _)) => trees.push(state),
            None => groups.push((vec![state], renamed(version, &by_id)?)),
        }
    }
    shared.env.sync_dir(&shared.dir).await?;
    edits.extend(plan.branches.iter().filter_map(|branch| ancestry(branch, &plan.ids)));
    let trees = plan.branches.iter().map(|branch| TreeId(branch.id.0)).collect();
    edits.push(Edit::CreateTrees { trees });
    edits.extend(groups.into_iter().map(|(trees, tables)| Edit::SharedState { trees, tables }));
    edits.extend(packs.iter().map(|(file, bytes)| Edit::Pack { file: *file, bytes: *bytes }));
    // Last, so that whoever finds a branch by its name finds its tables.
    let tenants = plan.branches.iter().map(|b| (b.full_name.clone(), b.id, TreeId(b.id.0)));
    edits.push(Edit::CreateTenants { tenants: tenants.collect() });
    edits.extend(plan.branches.iter().filter_map(|branch| {
        let extractor = branch.home.own_extractor()?;
        Some(Edit::TenantExtractor { branch: branch.id, extractor: Some(extractor) })
    }));
    let packs = packs.into_iter().map(|(file, bytes)| {
        let tables = by_id.values().filter(|table| table.id.file == file).cloned().collect();
        (file, bytes, tables)
    });
    let packs = packs.collect();
    Ok((edits, packs, out))
}

fn ancestry(branch: &Incoming, ids: &BTreeMap<u64, u64>) -> Option<Edit> {
    let point = branch.from.fork?;
    let here = |id: u64| ids.get(&id).copied().unwrap_or_default();
    Some(Edit::Ancestry {
        branch: branch.id,
        parent: BranchId(here(point.parent.0)),
        fork_seq: point.seq,
        family: TreeId(here(branch.home.family.0)),
        // The log here has no entry of theirs.
        ancestors: Vec::new(),
    })
}

/// Writes what a branch's tree has in memtables as one table; the table, and how many entries it
/// holds.
async fn table_of_memtables<E: Env>(
    shared: &Shared<E>,
    branch: &Incoming,
    begun: &mut Vec<FileNumber>,
) -> Result<Option<(TableMeta, u64)>> {
    let view = branch.home.view();
    let sources =
        view.memtable.iter().chain(&view.immutables).map(|memtable| {
            Box::new(MemtableIter::new(Arc::clone(memtable))) as Box<dyn SortedIter>
        });
    let mut merged = MergeIter::new(sources.collect());
    let mut ctx = ReadContext::new(IoClass::Flush);
    let tree = shared.set.new_tree(TreeId(branch.id.0));
    tree.set_own_extractor(branch.home.own_extractor());
    let (mut writer, mut count) = (None::<TableWriter<E>>, 0);
    let mut last: Option<Entry> = None;
    while let Some(entry) = iter::next(&mut merged, &shared.space, &mut ctx).await? {
        // A log may tell of one entry under two of its trees.
        if last.as_ref().is_some_and(|l| l.key == entry.key && l.seq == entry.seq) {
            continue;
        }
        let to = match &mut writer {
            Some(writer) => writer,
            None => writer.insert(TableWriter::create(shared, &tree, IoClass::Flush, begun).await?),
        };
        to.add(&entry).await?;
        count += 1;
        last = Some(entry);
    }
    let Some(writer) = writer else { return Ok(None) };
    Ok(Some((writer.finish().await?, count)))
}

/// Writes the edits and makes the branches known, with their tables, before anybody finds them.
async fn commit<E: Env>(
    shared: &Arc<Shared<E>>,
    edits: Vec<Edit>,
    (packs, claim): (&Packs, Claim<E>),
) -> Result<()> {
    for (file, bytes, tables) in packs {
        // Before a table of it can leave its tree again.
        shared.set.packs().add(*file, *bytes, tables);
    }
    let install = install(shared, &edits, claim);
    let outcome = shared.manifest.submit(Commit::new(edits, Some(install))).await;
    if outcome.is_err() {
        // The edits may come back at the next open: the files stay.
        for (file, ..) in packs {
            shared.set.packs().forget(*file);
        }
    }
    outcome
}

fn install<E: Env>(shared: &Arc<Shared<E>>, edits: &[Edit], claim: Claim<E>) -> Install {
    let (shared, edits) = (Arc::clone(shared), edits.to_vec());
    Box::new(move |set| {
        let mut created = Vec::new();
        for applied in edits.iter().filter_map(|edit| set.apply(edit).ok()) {
            for branch in &applied.created_branches {
                tenancy::register(&shared, branch);
            }
            created.extend(applied.created_branches);
        }
        set.end_interning();
        for (tree, _) in created.iter().flat_map(|branch| &branch.places) {
            shared.schedule_compaction(tree, 0);
            stalls::observe(&shared, tree, ChangeKind::Opened);
        }
        drop(claim);
    })
}
