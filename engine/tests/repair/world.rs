//! A database to damage, and all that repair promises of any damage.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use forebay_engine::env::mem::MemEnv;
use forebay_engine::env::{BlockingEnv, Env, File, IoClass};
use forebay_engine::options::Layout;
use forebay_engine::repair::{RepairOptions, RepairReport, repair};
use forebay_engine::types::to_usize;
use forebay_engine::verify::{VerifyReport, verify_dir};
use forebay_engine::{Db, WriteOptions};

use crate::small::options;

pub(crate) const DIR: &str = "/db";
pub(crate) const TENANTS: [&str; 3] = ["ann", "bob", "cleo"];
pub(crate) const KEYS: u32 = 40;

/// What was written: by tenant and key all values, the newest last; `None` for a delete.
pub(crate) type History = BTreeMap<(String, String), Vec<Option<String>>>;

pub(crate) struct World {
    pub(crate) env: MemEnv,
    pub(crate) layout: Layout,
    pub(crate) history: History,
    /// Branch ids, by which tenants whose names are lost come back.
    pub(crate) ids: BTreeMap<String, u64>,
}

pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

impl World {
    pub(crate) fn new(layout: Layout) -> Self {
        let env = MemEnv::default();
        let (mut history, mut ids) = (History::new(), BTreeMap::new());
        env.block_on(async {
            for round in 0..3_u32 {
                let db = Db::open(env.clone(), Path::new(DIR), options(layout)).await.unwrap();
                if round == 0 {
                    for tenant in db.create_tenants(&TENANTS).await.unwrap() {
                        ids.insert(tenant.name().to_owned(), tenant.branch_id().0);
                    }
                }
                for step in 0..KEYS * if round == 2 { 6 } else { 3 } {
                    for name in TENANTS {
                        let tenant = db.tenant(name).unwrap();
                        // The last round leaves half of the keys as they are.
                        let keys = if round == 2 { KEYS >> 1 } else { KEYS };
                        let key = format!("k{:03}", (step * 7 + round) % keys);
                        let value = format!("{name}/{key}/{round}/{step}/{}", "v".repeat(60));
                        let deleted = (step + round) % 11 == 0;
                        if deleted {
                            tenant.delete(key.as_bytes(), WriteOptions::synced()).await.unwrap();
                        } else {
                            let value = value.as_bytes();
                            let options = WriteOptions::synced();
                            tenant.put(key.as_bytes(), value, options).await.unwrap();
                        }
                        let versions = history.entry((name.to_owned(), key)).or_default();
                        versions.push((!deleted).then_some(value));
                    }
                    if step % 40 == 39 && round < 2 {
                        db.tenant("ann").unwrap().flush().await.unwrap();
                        db.tenant("bob").unwrap().flush().await.unwrap();
                    }
                    if step == 60 && round == 1 {
                        db.tenant("bob").unwrap().compact().await.unwrap();
                    }
                }
                db.wait_idle().await.unwrap();
                db.close().await.unwrap();
            }
        });
        Self { env, layout, history, ids }
    }

    pub(crate) fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        self.env.block_on(async {
            let mut out = BTreeMap::new();
            for name in self.env.list(Path::new(DIR)).await.unwrap() {
                let file = self.env.open(&path(&name)).await.unwrap();
                let len = to_usize(file.len());
                out.insert(name, file.read_at(0, len, IoClass::Read).await.unwrap().to_vec());
            }
            out
        })
    }

    /// The directory with other contents.
    pub(crate) fn with(&self, contents: &BTreeMap<String, Vec<u8>>) -> Self {
        let env = MemEnv::default();
        env.block_on(async {
            env.create_dir(Path::new(DIR)).await.unwrap();
            for (name, bytes) in contents {
                let file = env.create(&path(name)).await.unwrap();
                file.append(bytes, IoClass::Read).await.unwrap();
            }
        });
        let (history, ids) = (self.history.clone(), self.ids.clone());
        Self { env, layout: self.layout, history, ids }
    }

    pub(crate) fn verify(&self) -> VerifyReport {
        let report = self.env.block_on(verify_dir(&self.env, Path::new(DIR), |_| {}));
        report.unwrap().unwrap()
    }

    pub(crate) fn repair(&self, dry_run: bool) -> RepairReport {
        let options = RepairOptions { dry_run, layout: Some(self.layout) };
        self.env.block_on(repair(&self.env, Path::new(DIR), &options)).unwrap()
    }

    /// Every value of every tenant, by its old name.
    pub(crate) fn read(&self) -> BTreeMap<(String, String), Option<String>> {
        self.env.block_on(async {
            let db = Db::open(self.env.clone(), Path::new(DIR), options(self.layout)).await;
            let db = db.unwrap();
            let mut out = BTreeMap::new();
            for name in db.tenants() {
                let old = match name.strip_prefix("recovered-") {
                    Some(id) => {
                        let id: u64 = id.parse().unwrap();
                        self.ids.iter().find(|(_, i)| **i == id).unwrap().0.clone()
                    }
                    None => name.clone(),
                };
                assert!(self.ids.contains_key(&old), "tenant {name} was invented");
                let tenant = db.tenant(&name).unwrap();
                for key in (0..KEYS).map(|k| format!("k{k:03}")) {
                    let value = tenant.get(key.as_bytes()).await.unwrap();
                    let value = value.map(|v| String::from_utf8(v.to_vec()).unwrap());
                    out.insert((old.clone(), key), value);
                }
                let mut scan = tenant.scan(..).unwrap();
                while let Some((key, value)) = scan.next().await.unwrap() {
                    let key = (old.clone(), String::from_utf8(key.to_vec()).unwrap());
                    assert_eq!(out[&key].as_ref().map(String::as_bytes), Some(&value[..]));
                }
            }
            db.close().await.unwrap();
            out
        })
    }

    /// Repairs what may be whole already, and reads it.
    pub(crate) fn check_repair_of_any(
        &self,
    ) -> (RepairReport, BTreeMap<(String, String), Option<String>>) {
        let report = self.repair(false);
        assert!(!self.repair(false).needed, "a second repair after {report:?}");
        let verified = self.verify();
        assert!(verified.is_clean(), "{:?} after {report:?}", verified.findings);
        (report, self.read())
    }

    pub(crate) fn expected(&self) -> BTreeMap<(String, String), Option<String>> {
        self.history.iter().map(|(k, v)| (k.clone(), v.last().unwrap().clone())).collect()
    }

    /// Repairs, holds all that repair promises of any damage, and returns what is read then.
    pub(crate) fn check_repair(
        &self,
    ) -> (RepairReport, BTreeMap<(String, String), Option<String>>) {
        let before = self.contents();
        let told = self.repair(true);
        assert_eq!(self.contents(), before, "a dry run writes nothing");
        let report = self.repair(false);
        assert_eq!((told.needed, told.lost.len()), (report.needed, report.lost.len()));
        let after = self.contents();
        for (name, bytes) in before.iter().filter(|(name, _)| *name != "LOCK") {
            let is_kept = after.get(name) == Some(bytes)
                || after.get(&format!("{name}.lost")) == Some(bytes)
                || (name == "CURRENT" && bytes.starts_with(b"MANIFEST-"));
            assert!(is_kept, "{name} is gone");
        }
        let again = self.repair(false);
        assert!(!again.needed, "a second repair: {again:?}");
        assert_eq!(self.contents(), after);
        let verified = self.verify();
        assert!(verified.is_clean(), "{:?} after {report:?}", verified.findings);
        let read = self.read();
        for (key, value) in &read {
            let Some(value) = value else { continue };
            let versions = &self.history[key];
            assert!(versions.contains(&Some(value.clone())), "{key:?} never had {value}");
        }
        for name in &report.set_aside {
            assert!(self.contents().contains_key(name), "the open removed {name}");
        }
        (report, read)
    }
}

pub(crate) const LAYOUTS: [Layout; 3] = [Layout::PerTenant, Layout::Shared, Layout::Grouped(2)];

pub(crate) fn names(contents: &BTreeMap<String, Vec<u8>>, part: &str) -> Vec<String> {
    contents.keys().filter(|name| name.contains(part)).cloned().collect()
}

#[derive(Clone, Debug)]
pub(crate) enum Damage {
    Remove,
    Cut(usize),
    Flip(usize),
    Garbage,
}

pub(crate) fn damage(contents: &mut BTreeMap<String, Vec<u8>>, name: &str, how: &Damage) {
    if matches!(how, Damage::Remove) {
        contents.remove(name);
        return;
    }
    let bytes = contents.get_mut(name).unwrap();
    let len = bytes.len().max(1);
    match how {
        Damage::Remove => {}
        Damage::Cut(at) => bytes.truncate(at % len),
        Damage::Flip(at) => {
            if let Some(byte) = bytes.get_mut(at % len) {
                *byte ^= 0x20;
            }
        }
        Damage::Garbage => bytes.fill(0xa5),
    }
}

pub(crate) fn assert_names(report: &VerifyReport, name: &str) {
    let names_it = |finding: &forebay_engine::verify::Finding| {
        finding.error.location().0.is_some_and(|p| p == path(name))
    };
    assert!(report.findings.iter().any(names_it), "{name}: {:?}", report.findings);
}
