//! Judging what a recovery brought back: C1, C2, C3 and C4.
//!
//! Each key's value names a write, and so the prefixes of the order that would leave that value. The
//! prefixes that every key of every tenant allows are the explanation of the whole state; since all
//! tenants share one log there must be one, batches whole, and it must reach what was promised.

use std::collections::{BTreeMap, BTreeSet};

use forebay_engine::types::{SeqNo, to_usize};

use super::forks::{c5_branches, c5_durable};
use super::model::{Incarnation, Known, Model, Placed};
use super::value::{self, tag_of};
use super::{Checked, Rule, RuleCounts, Violation, broken};

/// What was read of one tenant: its branch id and every key that has a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantState {
    /// The id of its branch.
    pub branch: u64,
    /// The operation that each value names, by key.
    pub values: BTreeMap<u32, u64>,
    /// Keys of which damage hides what they have.
    pub unread: BTreeSet<u32>,
    /// Where it was forked: its parent's id, and the number.
    pub fork: Option<(u64, SeqNo)>,
}

/// What was read of all tenants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// By number of the name.
    pub tenants: BTreeMap<usize, TenantState>,
    /// The last number that the database knows; later writes get higher ones. Unknown without a tenant.
    pub last: Option<SeqNo>,
}

/// A state explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The prefix that it is.
    pub upto: SeqNo,
    /// Unknown batches that turned out to be in.
    pub came_back: BTreeSet<u64>,
    /// Which incarnation lives, by number of the name.
    pub live: BTreeMap<usize, usize>,
}

/// C3 for one value: decodes it and checks that it was written to this branch, this life and this key,
/// or to a relative of the branch: which of their writes it may show is for C5 to say.
///
/// # Errors
///
/// C3 where it was not.
pub fn c3_invention(
    model: &Model,
    counts: &mut RuleCounts,
    (inc, key): (usize, u32),
    bytes: &[u8],
) -> Checked<u64> {
    counts.count(Rule::C3);
    let Some(life) = model.incs.get(inc) else {
        return broken(Violation::new(Rule::C3, "a tenant that was created", "one that was not"));
    };
    let promised = format!(
        "values written by tenant {} (life {}) to key {}",
        value::tenant_name(life.tenant),
        life.number,
        value::key_text(key)
    );
    let wrong = |found: String| {
        broken(Violation::new(Rule::C3, promised.clone(), found).of(life.tenant, Some(key)))
    };
    let Some(origin) = value::decode(bytes) else {
        return wrong(format!("{} bytes that no operation wrote", bytes.len()));
    };
    let writer = (value::tenant_index(origin), origin.incarnation);
    let is_kin = || {
        let writer = model.life(writer.0, writer.1);
        writer.is_some_and(|writer| model.root_of(writer) == model.root_of(inc))
    };
    if origin.key != key || (writer != (life.tenant, life.number) && !is_kin()) {
        return wrong(format!(
            "a value of tenant {} (life {}), key {}",
            value::tenant_name(value::tenant_index(origin)),
            origin.incarnation,
            value::key_text(origin.key)
        ));
    }
    let batch = model.batch(tag_of(origin.op));
    if batch.is_none_or(|batch| batch.first == 0) {
        return wrong("a value whose write was never given a number".to_owned());
    }
    Ok(origin.op)
}

/// Which life of each name is there; drops stay dropped and creates stay created.
///
/// # Errors
///
/// C2 for a tenant that is gone, C4 for one that came back, C3 for one that nobody created.
pub fn c4_tenants(
    model: &Model,
    counts: &mut RuleCounts,
    branches: &BTreeMap<usize, u64>,
) -> Checked<BTreeMap<usize, usize>> {
    counts.count(Rule::C4);
    let mut live = BTreeMap::new();
    for tenant in model.names() {
        let lives = || model.lives(tenant);
        let Some(branch) = branches.get(&tenant) else {
            let lost = lives().find(|(_, inc)| is_promised(inc));
            if let Some((_, inc)) = lost.filter(|_| !model.shared_hit) {
                return broken(lost_branch(inc));
            }
            continue;
        };
        let unsure = |inc: &Incarnation| matches!(inc.create, Known::UnderWay | Known::Failed);
        let known = lives().find(|(_, inc)| inc.branch == Some(*branch));
        let found = known.or_else(|| lives().rfind(|(_, inc)| unsure(inc)));
        let Some((index, inc)) = found else {
            let violation = Violation::new(
                Rule::C3,
                "only tenants that were created",
                format!("the tenant exists with branch {branch}, which nobody created"),
            );
            return broken(violation.of(tenant, None));
        };
        if inc.drop == Known::Acked && !model.shared_hit {
            let violation = Violation::new(
                Rule::C4,
                format!("the tenant of branch {branch} was dropped"),
                "the tenant exists",
            );
            return broken(violation.of(tenant, None));
        }
        let lost = lives().find(|(other, inc)| *other != index && is_promised(inc));
        if let Some((_, inc)) = lost.filter(|_| !model.shared_hit) {
            return broken(lost_branch(inc));
        }
        live.insert(tenant, index);
    }
    Ok(live)
}

fn is_promised(inc: &Incarnation) -> bool {
    inc.create == Known::Acked && inc.drop == Known::Not
}

fn lost_branch(inc: &Incarnation) -> Violation {
    let (rule, promised, found) = match inc.fork {
        None => (Rule::C2, "the tenant was created", "the tenant does not exist"),
        Some(_) => (Rule::C5, "the branch was forked", "the branch does not exist"),
    };
    Violation::new(rule, promised, found).of(inc.tenant, None)
}

/// A key's writes that would leave what was read.
struct Sight<'a> {
    inc: usize,
    key: u32,
    found: Option<u64>,
    history: &'a [Placed],
    /// Index behind each write that explains what was read; 0 for "no write".
    candidates: Vec<usize>,
}

impl<'a> Sight<'a> {
    fn new(model: &'a Model, (inc, key): (usize, u32), found: Option<u64>) -> Self {
        let history = model.history(inc, key);
        let fits = |placed: &Placed| match found {
            Some(op) => placed.put && placed.op == op,
            None => !placed.put,
        };
        let none = found.is_none().then_some(0);
        let placed = (1..).zip(history).filter(|(_, placed)| fits(placed)).map(|(at, _)| at);
        let candidates = none.into_iter().chain(placed).collect();
        Self { inc, key, found, history, candidates }
    }

    fn later(&self, after: usize) -> &'a [Placed] {
        self.history.get(after..).unwrap_or_default()
    }

    fn earlier(&self, upto: usize) -> Option<&'a Placed> {
        self.history.get(upto.checked_sub(1)?)
    }

    /// The prefixes that candidate `after` allows.
    fn interval(&self, model: &Model, after: usize) -> (SeqNo, SeqNo) {
        let low = self.earlier(after).map_or(0, |placed| placed.seq);
        let next = self.later(after).iter().find(|placed| model.is_definite(placed));
        (low, next.map_or(SeqNo::MAX, |placed| placed.seq - 1))
    }

    /// The candidates that this prefix allows, oldest first.
    fn explaining(&self, model: &Model, upto: SeqNo) -> Vec<usize> {
        let covers = |after: &usize| {
            let (low, high) = self.interval(model, *after);
            (low..=high).contains(&upto)
        };
        self.candidates.iter().copied().filter(covers).collect()
    }

    /// As [`explaining`](Self::explaining), where these unknown batches are in: a candidate that one of
    /// their writes hides explains nothing, unless nothing else does.
    fn explaining_with(&self, model: &Model, upto: SeqNo, inside: &BTreeSet<u64>) -> Vec<usize> {
        let all = self.explaining(model, upto);
        let hidden = |after: &usize| {
            let later = self.later(*after).iter();
            later.clone().any(|placed| placed.seq <= upto && inside.contains(&placed.tag))
        };
        let left: Vec<usize> = all.iter().copied().filter(|after| !hidden(after)).collect();
        if left.is_empty() { all } else { left }
    }

    fn words(&self, model: &Model) -> String {
        let Some(op) = self.found else { return "no value".to_owned() };
        match self.history.iter().find(|placed| placed.op == op) {
            Some(placed) => format!("the value of seq {} ({})", placed.seq, model.describe(placed)),
            None => "a value that an earlier recovery had left out".to_owned(),
        }
    }

    fn violation(&self, model: &Model, rule: Rule, promised: String) -> Violation {
        let tenant = model.incs.get(self.inc).map_or(0, |inc| inc.tenant);
        let found = format!("the key has {}", self.words(model));
        Violation::new(rule, promised, found).of(tenant, Some(self.key))
    }
}

fn sights<'a>(model: &'a Model, state: &State, live: &BTreeMap<usize, usize>) -> Vec<Sight<'a>> {
    let mut out = Vec::new();
    for (tenant, inc) in live {
        let Some(known) = model.incs.get(*inc) else { continue };
        let values = state.tenants.get(tenant).map(|tenant| &tenant.values);
        let read = values.into_iter().flat_map(|values| values.keys());
        let keys: BTreeSet<u32> = known.keys.keys().chain(read).copied().collect();
        let unread = state.tenants.get(tenant).map(|tenant| &tenant.unread);
        for key in keys {
            if unread.is_some_and(|unread| unread.contains(&key)) {
                continue;
            }
            let found = values.and_then(|values| values.get(&key)).copied();
            out.push(Sight::new(model, (*inc, key), found));
        }
    }
    out
}

/// Unknown batches that must be in, and those that must be out, in a state that is this prefix.
fn evidence(model: &Model, sights: &[Sight<'_>], upto: SeqNo) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let (mut inside, mut outside) = (BTreeSet::new(), BTreeSet::new());
    // One key shows that a batch is in; then the batch's other keys need what hides its writes there.
    loop {
        let known = inside.len();
        for sight in sights {
            let explains = sight.explaining_with(model, upto, &inside);
            if let [only] = explains.as_slice()
                && let Some(placed) = sight.earlier(*only)
                && !model.is_definite(placed)
            {
                inside.insert(placed.tag);
            }
            let last = explains.last().copied().unwrap_or(0);
            let later = sight.later(last).iter().filter(|placed| !model.is_definite(placed));
            outside.extend(later.map(|placed| placed.tag));
        }
        if inside.len() == known {
            break;
        }
    }
    // Absence that several unknown deletes explain: any one will do, the state is the same.
    for sight in sights {
        let explains = sight.explaining_with(model, upto, &inside);
        let unknown = |at: &usize| sight.earlier(*at).filter(|p| !model.is_definite(p));
        let tags: Vec<u64> = explains.iter().filter_map(unknown).map(|placed| placed.tag).collect();
        if tags.len() == explains.len()
            && !tags.iter().any(|tag| inside.contains(tag))
            && let Some(tag) = tags.iter().find(|tag| !outside.contains(tag))
        {
            inside.insert(*tag);
        }
    }
    (inside, outside)
}

/// How many keys allow each prefix, and how many forbid it since it splits a batch.
struct Cuts {
    allowed: Vec<i64>,
    wanted: i64,
}

impl Cuts {
    fn new(model: &Model, sights: &[Sight<'_>]) -> Self {
        let len = to_usize(model.last).saturating_add(2);
        let mut steps = vec![0_i64; len];
        let mut add = |low: SeqNo, high: SeqNo, n: i64| {
            if low > high || low > model.last {
                return;
            }
            if let Some(step) = steps.get_mut(to_usize(low)) {
                *step += n;
            }
            if let Some(step) = steps.get_mut(to_usize(high.min(model.last)).saturating_add(1)) {
                *step -= n;
            }
        };
        for sight in sights {
            // Candidates' intervals may touch but not overlap: each ends before the next definite write.
            let mut covered = None;
            for after in &sight.candidates {
                let (low, high) = sight.interval(model, *after);
                let low = covered.map_or(low, |c: SeqNo| low.max(c.saturating_add(1)));
                add(low, high, 1);
                covered = Some(covered.map_or(high, |c: SeqNo| c.max(high)));
            }
        }
        for (_, batch) in model.ranges() {
            let split =
                batch.known == Known::Acked || (batch.known == Known::UnderWay && !model.faulty);
            if split && batch.first < batch.last {
                add(batch.first, batch.last - 1, -1);
            }
        }
        let mut sum = 0;
        let allowed = steps
            .iter()
            .map(|step| {
                sum += step;
                sum
            })
            .collect();
        let wanted = i64::try_from(sights.len()).unwrap_or(i64::MAX);
        Self { allowed, wanted }
    }

    /// The longest prefix that everything allows.
    fn longest(&self, last: SeqNo) -> Option<SeqNo> {
        (0..=last).rev().find(|upto| self.allowed.get(to_usize(*upto)) == Some(&self.wanted))
    }
}

/// C1, C2 and C4 over a whole state.
///
/// # Errors
///
/// The rule that it breaks, on a key that shows it.
pub fn judge(
    model: &Model,
    counts: &mut RuleCounts,
    state: &State,
    bound: (SeqNo, &str),
) -> Checked<Explained> {
    let branches = state.tenants.iter().map(|(tenant, found)| (*tenant, found.branch)).collect();
    let live = c4_tenants(model, counts, &branches)?;
    let sights = sights(model, state, &live);
    for sight in &sights {
        c5_branches(model, counts, (sight.inc, sight.key), sight.found)?;
    }
    c1_known(model, counts, &sights)?;
    let cuts = Cuts::new(model, &sights);
    // Numbers above the last one that the database knows will be given again.
    let Some(last) = state.last.map(|last| last.min(model.last)) else {
        // Without a tenant there is nothing to read, and nothing to go on from.
        return Ok(Explained { upto: 0, came_back: BTreeSet::new(), live });
    };
    if let Some(upto) = cuts.longest(last) {
        c2_durability(model, counts, &sights, (upto, bound))?;
        c5_durable(model, counts, live.values().copied(), upto)?;
        let came_back = c1_whole_batches(model, counts, &sights, upto)?;
        return Ok(Explained { upto, came_back, live });
    }
    // No prefix explains it: say which promise that breaks. Where puts are lost too, deletes that came
    // back are a part of that.
    c2_each_key(model, counts, &sights, bound, true)?;
    c4_resurrection(model, counts, &sights, bound.0)?;
    c2_each_key(model, counts, &sights, bound, false)?;
    c1_prefix(model, counts, &sights)?;
    broken(Violation::new(Rule::C1, "a prefix of the order of writes", "none explains the state"))
}

/// C1: a value that an earlier recovery left out never comes back.
fn c1_known(model: &Model, counts: &mut RuleCounts, sights: &[Sight<'_>]) -> Checked {
    counts.count(Rule::C1);
    match sights.iter().find(|sight| sight.candidates.is_empty()) {
        None => Ok(()),
        Some(sight) => {
            let promised = "what a recovery left out stays out".to_owned();
            broken(sight.violation(model, Rule::C1, promised))
        }
    }
}

/// C2: the prefix reaches what was promised.
///
/// # Errors
///
/// C2 on the first promised write that is not in the prefix.
fn c2_durability(
    model: &Model,
    counts: &mut RuleCounts,
    sights: &[Sight<'_>],
    (upto, (bound, why)): (SeqNo, (SeqNo, &str)),
) -> Checked {
    counts.count(Rule::C2);
    if upto >= bound {
        return Ok(());
    }
    c2_each_key(model, counts, sights, (bound, why), true)?;
    c2_each_key(model, counts, sights, (bound, why), false)?;
    let what = format!("the state ends with seq {upto}");
    broken(
        Violation::new(Rule::C2, format!("everything up to seq {bound}: {why}"), what).seq(bound),
    )
}

/// C2 key by key: none reads older than a promised write to it.
///
/// # Errors
///
/// C2 on the first key that does.
fn c2_each_key(
    model: &Model,
    counts: &mut RuleCounts,
    sights: &[Sight<'_>],
    (bound, why): (SeqNo, &str),
    puts_only: bool,
) -> Checked {
    counts.count(Rule::C2);
    for sight in sights {
        let last = sight.candidates.iter().copied().max().unwrap_or(0);
        let promised = |placed: &&Placed| {
            placed.seq <= bound && model.is_definite(placed) && (placed.put || !puts_only)
        };
        // The newest promise is the one a user misses.
        if let Some(placed) = sight.later(last).iter().rfind(promised) {
            let words = format!("{} ({why})", model.describe(placed));
            return broken(sight.violation(model, Rule::C2, words).seq(placed.seq));
        }
    }
    Ok(())
}

/// C4: no key reads older than a promised delete of it, while other keys show that the delete's place in
/// the order was reached.
///
/// # Errors
///
/// C4 on the first key that does.
fn c4_resurrection(
    model: &Model,
    counts: &mut RuleCounts,
    sights: &[Sight<'_>],
    bound: SeqNo,
) -> Checked {
    counts.count(Rule::C4);
    match sights.iter().find_map(|sight| sight.resurrected(model, bound)) {
        Some(violation) => broken(violation),
        None => Ok(()),
    }
}

impl Sight<'_> {
    /// The violation, where the key reads older than a promised delete of it.
    fn resurrected(&self, model: &Model, bound: SeqNo) -> Option<Violation> {
        self.found?;
        let last = self.candidates.iter().copied().max().unwrap_or(0);
        let newest = self.later(last).iter().rfind(|placed| model.is_definite(placed))?;
        let gone = !newest.put && newest.seq <= bound;
        gone.then(|| self.violation(model, Rule::C4, model.describe(newest)).seq(newest.seq))
    }
}

/// C1: names two keys that no one prefix explains.
///
/// # Errors
///
/// C1 on the key that asks for the longest prefix.
fn c1_prefix(model: &Model, counts: &mut RuleCounts, sights: &[Sight<'_>]) -> Checked {
    counts.count(Rule::C1);
    let low = |sight: &Sight<'_>| {
        sight.candidates.iter().map(|at| sight.interval(model, *at).0).min().unwrap_or(0)
    };
    let high = |sight: &Sight<'_>| {
        sight.candidates.iter().map(|at| sight.interval(model, *at).1).max().unwrap_or(SeqNo::MAX)
    };
    let (Some(long), Some(short)) =
        (sights.iter().max_by_key(|s| low(s)), sights.iter().min_by_key(|s| high(s)))
    else {
        return Ok(());
    };
    let promised = format!(
        "one prefix of the order, batches whole: {} of {} needs at least seq {}",
        value::key_text(long.key),
        super::model::name_of(model, long.inc),
        low(long)
    );
    let mut violation = short.violation(model, Rule::C1, promised);
    violation.found = format!("{}, which allows at most seq {}", violation.found, high(short));
    broken(violation.seq(high(short)))
}

/// C1: a batch that failed is back whole, or not at all.
///
/// # Errors
///
/// C1 on a batch of which a half is back.
fn c1_whole_batches(
    model: &Model,
    counts: &mut RuleCounts,
    sights: &[Sight<'_>],
    upto: SeqNo,
) -> Checked<BTreeSet<u64>> {
    counts.count(Rule::C1);
    let (inside, outside) = evidence(model, sights, upto);
    let Some(half) = inside.intersection(&outside).next() else { return Ok(inside) };
    let missing = sights.iter().find(|sight| {
        let last = sight.explaining(model, upto).last().copied().unwrap_or(0);
        sight.later(last).iter().any(|placed| placed.tag == *half)
    });
    let promised = "a batch is back whole or not at all, and another key shows it back".to_owned();
    match missing {
        Some(sight) => broken(sight.violation(model, Rule::C1, promised)),
        None => broken(Violation::new(Rule::C1, promised, "a half of it")),
    }
}

impl Model {
    /// Goes on from an explained state.
    pub fn recovered(&mut self, explained: &Explained) {
        self.settle(explained.upto, &explained.came_back);
        let live: BTreeSet<usize> = explained.live.values().copied().collect();
        for (index, inc) in self.incs.iter_mut().enumerate() {
            if live.contains(&index) {
                (inc.create, inc.drop) = (Known::Acked, Known::Not);
            } else {
                (inc.create, inc.drop) = (Known::Acked, Known::Acked);
            }
        }
    }

    /// Gives a living tenant the branch id that was read.
    pub fn learn_branch(&mut self, inc: usize, branch: u64) {
        if let Some(inc) = self.incs.get_mut(inc) {
            inc.branch = Some(branch);
        }
    }
}
