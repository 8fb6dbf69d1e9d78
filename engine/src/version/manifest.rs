//! The manifest: a log of version edits, and CURRENT, which names the live one.
//!
//! A record is a group of edits that survive together: `crc32c u32, length u32, offset u64, durable
//! u64, payload`, where `offset` is the record's own place in the file and `durable` the length of
//! the file that was synced when the record was built. A bad record below the highest `durable` of
//! any valid one is damage; at or above it, it was never acknowledged. Behind each group, once it
//! is synced, an empty record says so, lest damage to the last group pass for one that was never
//! acknowledged; it is not synced itself, so a power loss may take it.
//!
//! After a failed append or sync nothing more is appended to that file: the next edit begins a new
//! manifest from the live state. Until then the failed edit may come back at the next open, so
//! nothing that it names may be deleted. A rename of CURRENT that failed is looked up: it was done
//! or not done.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

pub use super::commit::{Commit, Complete, Install, Precondition};
use super::edit::Edit;
use super::set::VersionSet;
use crate::coding::Decoder;
use crate::env::{Env, File, IoClass};
use crate::error::{Error, Result};
use crate::group::{GroupQueue, Place, Work};
use crate::metrics::Counters;
use crate::types::{FileNumber, to_u64, to_usize};

/// A manifest is begun anew above this size and four times what it began with.
const ROTATE_BYTES_MIN: u64 = 256 * 1024;
const HEADER_BYTES: usize = 24;
const GROUP_EDITS_MAX: usize = 64;
/// No segment and no manifest is longer: more is refused before it is read.
const FILE_BYTES_MAX: u64 = 5 << 30;

/// Behind a bad record, so many times the file's length is checksummed at most.
const CHECKED_FOLD_MAX: u64 = 8;

/// The file of a manifest.
pub fn manifest_path(dir: &Path, number: FileNumber) -> PathBuf {
    dir.join(manifest_name(number))
}

fn manifest_name(number: FileNumber) -> String {
    format!("MANIFEST-{number:06}")
}

/// The file that names the live manifest.
pub fn current_path(dir: &Path) -> PathBuf {
    dir.join("CURRENT")
}

/// A place in the order of edits.
pub type CommitPlace = Place<Commit, Result<()>>;

impl core::fmt::Debug for Commit {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Commit").field("edits", &self.edits).finish_non_exhaustive()
    }
}

struct Writer<E: Env> {
    file: E::File,
    bytes: u64,
    synced_bytes: u64,
    begun_bytes: u64,
}

/// The live manifest of one database.
pub struct Manifest<E: Env> {
    env: E,
    dir: PathBuf,
    set: Arc<VersionSet>,
    counters: Arc<Counters>,
    next_file: Arc<AtomicU64>,
    queue: Arc<GroupQueue<Commit, Result<()>>>,
    /// Gone while a group is written, and after a failure: the next group then begins a new
    /// manifest.
    writer: Mutex<Option<Writer<E>>>,
    /// No edit is taken any more.
    ended: AtomicBool,
    /// Manifests to remove once another is live.
    replaced: Mutex<Vec<FileNumber>>,
    /// Length of the live manifest.
    bytes: AtomicU64,
}

impl<E: Env> core::fmt::Debug for Manifest<E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Manifest").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl<E: Env> Manifest<E> {
    /// A manifest that is begun with the first commit; `replaces` is the one that was read.
    pub fn new(
        env: E,
        dir: &Path,
        set: Arc<VersionSet>,
        (counters, next_file): (Arc<Counters>, Arc<AtomicU64>),
        replaces: Option<FileNumber>,
    ) -> Self {
        Self {
            env,
            dir: dir.to_owned(),
            set,
            counters,
            next_file,
            queue: Arc::default(),
            writer: Mutex::new(None),
            ended: AtomicBool::new(false),
            replaced: Mutex::new(replaces.into_iter().collect()),
            bytes: AtomicU64::new(0),
        }
    }

    /// Length of the live manifest in bytes; 0 until one is begun.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Makes edits durable together, then installs them: by `install`, or by applying them.
    ///
    /// # Errors
    ///
    /// The world's. The edits are not installed, but may come back at the next open, until a later
    /// commit succeeds.
    pub async fn commit(&self, edits: Vec<Edit>, install: Option<Install>) -> Result<()> {
        self.submit(Commit::new(edits, install)).await
    }

    /// As [`commit`](Self::commit).
    ///
    /// # Errors
    ///
    /// As there; those of its precondition, and then nothing was written.
    pub async fn submit(&self, commit: Commit) -> Result<()> {
        self.queue.submit(commit, self).await
    }

    /// Takes a place in the order of edits, without waiting. Whatever is committed from here on
    /// comes behind it, and waits until the place is [finished](Self::finish) or dropped.
    pub fn reserve(&self, commit: Commit) -> CommitPlace {
        self.queue.reserve(commit)
    }

    /// Commits what has a place.
    ///
    /// # Errors
    ///
    /// As for [`submit`](Self::submit).
    pub async fn finish(&self, place: CommitPlace) -> Result<()> {
        place.finish(self).await
    }

    /// Ends the log of edits: commits that wait are done, later ones get `Closed`.
    pub async fn close(&self) {
        // A commit without edits is the end, in the queue behind all that came before.
        drop(self.commit(Vec::new(), None).await);
    }

    /// Writes a new manifest from the live state and switches CURRENT to it.
    ///
    /// # Errors
    ///
    /// The world's. CURRENT names the old or the new manifest, both whole.
    async fn begin(&self) -> Result<Writer<E>> {
        let number = self.next_file.fetch_add(1, Ordering::Relaxed);
        let temporary = self.dir.join(format!("{number:06}.tmp"));
        let (file, bytes) = match self.prepare(number, &temporary).await {
            Ok(prepared) => prepared,
            Err(error) => {
                // Nothing names them yet; on a full disk they would be in the way of the next try.
                drop(self.env.remove(&temporary).await);
                drop(self.env.remove(&manifest_path(&self.dir, number)).await);
                return Err(error);
            }
        };
        if let Err(error) = self.env.rename(&temporary, &current_path(&self.dir)).await {
            self.look_up(number, &temporary, error).await?;
        }
        // From here on CURRENT may name it, whatever comes: it goes only when another is live.
        self.replaced.lock().push(number);
        self.env.sync_dir(&self.dir).await?;
        self.counters.manifest_bytes.add(bytes);
        let old: Vec<FileNumber> = {
            let mut replaced = self.replaced.lock();
            core::mem::replace(&mut *replaced, vec![number])
        };
        for old in old.into_iter().filter(|old| *old != number) {
            // Left behind it does no harm: the next open removes it.
            drop(self.env.remove(&manifest_path(&self.dir, old)).await);
        }
        Ok(Writer { file, bytes, synced_bytes: bytes, begun_bytes: bytes })
    }

    /// Whether a rename of CURRENT that failed was done.
    ///
    /// # Errors
    ///
    /// The rename's, where it was not done; what was prepared is then gone. Where CURRENT cannot be
    /// read, that is not known, and all of it stays.
    async fn look_up(&self, number: FileNumber, temporary: &Path, error: Error) -> Result<()> {
        match read_current(&self.env, &self.dir).await {
            Ok(Some(live)) if live == number => Ok(()),
            Ok(_) => {
                drop(self.env.remove(temporary).await);
                drop(self.env.remove(&manifest_path(&self.dir, number)).await);
                Err(error)
            }
            Err(_) => {
                self.replaced.lock().push(number);
                Err(error)
            }
        }
    }

    /// Everything of a new manifest up to the rename that makes it live.
    async fn prepare(&self, number: FileNumber, temporary: &Path) -> Result<(E::File, u64)> {
        let path = manifest_path(&self.dir, number);
        let file = self.env.create(&path).await?;
        let mut out = Vec::new();
        put_record(&mut out, (0, 0), &self.set.edits());
        file.append(&out, IoClass::Manifest).await?;
        file.sync_all(IoClass::Manifest).await?;
        // The name must be durable before CURRENT may point at it.
        self.env.sync_dir(&self.dir).await?;
        let pointer = self.env.create(temporary).await?;
        let name = format!("{}\n", manifest_name(number));
        pointer.append(name.as_bytes(), IoClass::Manifest).await?;
        pointer.sync_all(IoClass::Manifest).await?;
        Ok((file, to_u64(out.len())))
    }

    async fn write(&self, out: &[Edit]) -> Result<Writer<E>> {
        let live = self.writer.lock().take();
        let mut writer = match live {
            Some(w) if w.bytes < ROTATE_BYTES_MIN.max(4 * w.begun_bytes) => w,
            Some(_) | None => self.begin().await?,
        };
        let mut record = Vec::new();
        put_record(&mut record, (writer.bytes, writer.synced_bytes), out);
        writer.file.append(&record, IoClass::Manifest).await?;
        writer.file.sync_data(IoClass::Manifest).await?;
        writer.bytes += to_u64(record.len());
        writer.synced_bytes = writer.bytes;
        self.counters.manifest_bytes.add(to_u64(record.len()));
        self.bytes.store(writer.bytes, Ordering::Relaxed);
        Ok(writer)
    }

    /// Says behind a group of edits that it is durable. Gives the writer back where more may be
    /// appended to the file.
    async fn confirm(&self, mut writer: Writer<E>) -> Option<Writer<E>> {
        let mut record = Vec::new();
        put_record(&mut record, (writer.bytes, writer.synced_bytes), &[]);
        writer.file.append(&record, IoClass::Manifest).await.ok()?;
        writer.bytes += to_u64(record.len());
        Some(writer)
    }
}

impl<E: Env> Manifest<E> {
    fn install(&self, commit: Commit) -> Result<()> {
        self.set.count_install();
        match commit.install {
            Some(install) => install(&self.set),
            None => {
                for edit in &commit.edits {
                    self.set.apply(edit).map_err(Error::InvalidArgument)?;
                }
            }
        }
        Ok(())
    }
}

impl<E: Env> Work for Manifest<E> {
    type Item = Commit;
    type Reply = Result<()>;

    fn joins(&self, group: &[Commit], next: &Commit) -> bool {
        // An empty commit ends the log and goes alone.
        !next.edits.is_empty()
            && group.iter().map(|c| c.edits.len()).sum::<usize>() < GROUP_EDITS_MAX
    }

    async fn run(&self, items: &mut Vec<Commit>) -> Vec<Result<()>> {
        if items.iter().all(|c| c.edits.is_empty()) {
            self.ended.store(true, Ordering::Release);
            drop(self.writer.lock().take());
        }
        if self.ended.load(Ordering::Acquire) {
            return items.iter().map(|_| Err(Error::Closed)).collect();
        }
        let mut prepared = Vec::with_capacity(items.len());
        for commit in items.iter_mut() {
            prepared.push(commit.prepare().await);
        }
        let good = items.iter().zip(&prepared).filter(|(_, outcome)| outcome.is_ok());
        let edits: Vec<Edit> = good.flat_map(|(c, _)| c.edits.iter().cloned()).collect();
        if edits.is_empty() {
            // What its installs held is let go of before anybody is answered.
            items.clear();
            return prepared;
        }
        let writer = match self.write(&edits).await {
            Ok(writer) => writer,
            Err(error) => {
                items.clear();
                return prepared.into_iter().map(|p| p.and(Err(error.clone()))).collect();
            }
        };
        // A leader dropped here is one dropped in the sync: durable, perhaps, and not installed.
        *self.writer.lock() = self.confirm(writer).await;
        items.drain(..).zip(prepared).map(|(c, p)| p.and_then(|()| self.install(c))).collect()
    }

    fn abandoned(&self) -> Result<()> {
        Err(Error::Interrupted)
    }
}

/// Appends a record that will be written at byte `place.0` of a file synced up to `place.1`.
fn put_record(out: &mut Vec<u8>, place: (u64, u64), edits: &[Edit]) {
    let mut payload = Vec::new();
    for edit in edits {
        edit.encode(&mut payload);
    }
    let mut head = Vec::with_capacity(HEADER_BYTES);
    head.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    head.extend_from_slice(&place.0.to_le_bytes());
    head.extend_from_slice(&place.1.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head), &payload);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(&payload);
}

/// What looks like a record, whose checksum was not looked at.
struct Shape<'a> {
    crc: u32,
    checked: &'a [u8],
    durable: u64,
}

fn read_shape(bytes: &[u8], at: usize) -> Option<Shape<'_>> {
    let mut d = Decoder::new(bytes.get(at..)?);
    let crc = d.u32()?;
    let body = d.rest();
    let len = to_usize(u64::from(d.u32()?));
    if d.u64()? != to_u64(at) {
        return None;
    }
    let durable = d.u64().filter(|durable| *durable <= to_u64(at))?;
    d.take(len)?;
    Some(Shape { crc, checked: body.get(..HEADER_BYTES - 4 + len)?, durable })
}

/// A whole record: its payload, and the length known durable when it was built.
fn read_record(bytes: &[u8], at: usize) -> Option<(&[u8], u64)> {
    let Shape { crc, checked, durable } = read_shape(bytes, at)?;
    let payload = (crc32c::crc32c(checked) == crc).then(|| checked.get(HEADER_BYTES - 4..))??;
    Some((payload, durable))
}

/// Whether a record behind the bad one at `at` says that this one was durable, in words.
fn damage_behind(bytes: &[u8], at: usize) -> Option<String> {
    // Made-up records that hold each other could cost the square of the file's length.
    let mut left = to_u64(bytes.len()).saturating_mul(CHECKED_FOLD_MAX);
    for p in at + 1..bytes.len() {
        let Some(shape) = read_shape(bytes, p).filter(|s| s.durable > to_u64(at)) else { continue };
        let Some(rest) = left.checked_sub(to_u64(shape.checked.len())) else {
            return Some("a bad record, and too much behind it looks like records".to_owned());
        };
        left = rest;
        if read_record(bytes, p).is_some() {
            let durable = shape.durable;
            let what = format!("the record at byte {p} says that {durable} bytes were durable");
            return Some(format!("a bad record, although {what}"));
        }
    }
    None
}

/// An edit with the offset of its record.
pub type PlacedEdit = (u64, Edit);

/// Every edit of a manifest's bytes, and where the last whole record ends.
///
/// # Errors
///
/// [`Error::Corruption`] where a record that was durable is damaged.
pub fn read_manifest(path: &Path, bytes: &[u8]) -> Result<(Vec<PlacedEdit>, u64)> {
    let (edits, end, damage) = read_manifest_prefix(path, bytes);
    damage.map_or(Ok((edits, end)), Err)
}

/// Every edit up to the first damage, where the last whole record ends, and the damage.
pub fn read_manifest_prefix(path: &Path, bytes: &[u8]) -> (Vec<PlacedEdit>, u64, Option<Error>) {
    let mut edits = Vec::new();
    let mut at = 0;
    while let Some((payload, _)) = read_record(bytes, at) {
        let mut d = Decoder::new(payload);
        while !d.is_empty() {
            let Some(edit) = Edit::decode(&mut d) else {
                let offset = to_u64(at + HEADER_BYTES + d.position());
                let what = "an edit with a valid checksum does not decode: another version of the \
                            format wrote it";
                return (edits, to_u64(at), Some(Error::corruption(path, offset, what)));
            };
            edits.push((to_u64(at), edit));
        }
        at += HEADER_BYTES + payload.len();
    }
    let damage = match damage_behind(bytes, at) {
        Some(what) => Some((at, what)),
        None if edits.is_empty() => Some((0, "the first record is not whole".to_owned())),
        None => None,
    };
    let damage = damage.map(|(at, what)| Error::corruption(path, to_u64(at), what));
    (edits, to_u64(at), damage)
}

/// The number of the live manifest, from CURRENT; `None` where there is no database yet.
///
/// # Errors
///
/// The world's, or [`Error::Corruption`] where CURRENT does not name a manifest.
pub async fn read_current<E: Env>(env: &E, dir: &Path) -> Result<Option<FileNumber>> {
    let path = current_path(dir);
    let file = match env.open(&path).await {
        Ok(file) => file,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let len = to_usize(file.len());
    let bad = || Error::corruption(&path, 0, "it does not name a manifest as MANIFEST-NNNNNN");
    if len > 64 {
        return Err(bad());
    }
    let bytes = file.read_at(0, len, IoClass::Manifest).await?;
    let name = core::str::from_utf8(&bytes).ok().and_then(|s| s.strip_suffix('\n'));
    let number = name.and_then(|n| n.strip_prefix("MANIFEST-")?.parse().ok()).ok_or_else(bad)?;
    // Numbers parse with a sign or too few zeros too, and such a name is that of no file.
    if name != Some(&manifest_name(number)) {
        return Err(bad());
    }
    Ok(Some(number))
}

/// Reads a whole file, in pieces.
///
/// # Errors
///
/// The world's, or [`Error::Corruption`] for a file that is too long to be one of a database's.
pub async fn read_file<E: Env>(env: &E, path: &Path, class: IoClass) -> Result<Bytes> {
    const PIECE_BYTES: u64 = 1024 * 1024;
    let file = env.open(path).await?;
    let len = file.len();
    if len > FILE_BYTES_MAX {
        let what = format!("it has {len} bytes; no such file of a database has above 5 GiB");
        return Err(Error::corruption(path, 0, what));
    }
    let mut out = Vec::new();
    let mut at = 0;
    while at < len {
        let piece = PIECE_BYTES.min(len - at);
        out.extend_from_slice(&file.read_at(at, to_usize(piece), class).await?);
        at += piece;
    }
    Ok(Bytes::from(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::BlockingEnv as _;
    use crate::env::mem::MemEnv;

    fn bytes_of(groups: &[Vec<Edit>]) -> (Vec<u8>, Vec<usize>) {
        let (mut out, mut ends) = (Vec::new(), Vec::new());
        for group in groups {
            let at = to_u64(out.len());
            put_record(&mut out, (at, at), group);
            ends.push(out.len());
        }
        (out, ends)
    }

    fn floors(n: u64) -> Vec<Vec<Edit>> {
        (0..n).map(|segment| vec![Edit::WalFloor { segment }]).collect()
    }

    #[test]
    fn a_cut_leaves_the_whole_records_before_it() {
        let (bytes, ends) = bytes_of(&floors(5));
        for cut in ends[0]..bytes.len() {
            let (edits, end) = read_manifest(Path::new("M"), &bytes[..cut]).unwrap();
            assert_eq!(edits.len(), ends.iter().filter(|e| **e <= cut).count());
            assert_eq!(to_usize(end), ends[edits.len() - 1]);
        }
        assert!(read_manifest(Path::new("M"), &bytes[..ends[0] - 1]).is_err());
    }

    #[test]
    fn current_names_a_manifest_in_one_way_only() {
        let (env, dir) = (MemEnv::default(), Path::new("/"));
        let read = |text: &str| {
            env.block_on(async {
                let file = env.create(&current_path(dir)).await?;
                file.append(text.as_bytes(), IoClass::Manifest).await?;
                read_current(&env, dir).await
            })
        };
        assert_eq!(read("MANIFEST-000123\n").unwrap(), Some(123));
        assert_eq!(read("MANIFEST-1234567\n").unwrap(), Some(1_234_567));
        for text in ["MANIFEST-00123\n", "MANIFEST-+00123\n", "MANIFEST-0000123\n"] {
            assert!(matches!(read(text), Err(Error::Corruption { .. })), "{text:?}");
        }
    }

    #[test]
    fn records_made_up_one_within_the_other_are_refused_in_time() {
        let (mut bytes, ends) = bytes_of(&floors(1));
        let len = 8 << 20;
        while bytes.len() < len {
            let at = bytes.len();
            let left = u32::try_from(len - at).unwrap().saturating_sub(64);
            bytes.extend_from_slice(&[0; 4]);
            bytes.extend_from_slice(&left.to_le_bytes());
            bytes.extend_from_slice(&to_u64(at).to_le_bytes());
            bytes.extend_from_slice(&to_u64(at).to_le_bytes());
        }
        // Without a bound some 350,000 checksums of 4 MiB each.
        bytes[ends[0] + 4..ends[0] + 8].fill(0);
        let error = read_manifest(Path::new("M"), &bytes).unwrap_err();
        assert_eq!(error.location().1, Some(to_u64(ends[0])));
    }

    #[test]
    fn damage_below_a_durable_length_is_loud_and_above_it_is_the_torn_tail() {
        let (mut bytes, ends) = bytes_of(&floors(5));
        bytes[ends[1] + 2] ^= 1;
        let error = read_manifest(Path::new("M"), &bytes).unwrap_err();
        assert_eq!(error.location().1, Some(to_u64(ends[1])));
        // The last group is proven by the empty record behind it, and that one by nothing.
        let (mut bytes, ends) = bytes_of(&[floors(2).remove(0), floors(2).remove(1), Vec::new()]);
        bytes[ends[0] + 2] ^= 1;
        assert!(read_manifest(Path::new("M"), &bytes).is_err());
        bytes[ends[0] + 2] ^= 1;
        bytes[ends[1] + 2] ^= 1;
        assert_eq!(read_manifest(Path::new("M"), &bytes).unwrap().0.len(), 2);
        // A group that was being written when the empty record before it was lost.
        let lost = (to_u64(bytes.len()), to_u64(ends[1]));
        put_record(&mut bytes, lost, &floors(1)[0]);
        assert_eq!(read_manifest(Path::new("M"), &bytes).unwrap().0.len(), 2);
    }
}
