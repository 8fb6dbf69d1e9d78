//! The real world: files of the operating system, threads and clocks.
//!
//! I/O blocks in the kernel, so its futures are ready at once. The class of an I/O is not passed
//! on.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this is the one place where the engine touches real files"
)]

use core::future::Future;
use core::sync::atomic::{AtomicU64, Ordering};
use std::fs::{self, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::FallocateFlags;

use super::thread::{self, Task};
use super::{BlockingEnv, Env, File, IoClass, Nanos, Site, Work};
use crate::error::{Error, Result};
use crate::types::to_u64;

/// The machine's own files, clocks and threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OsEnv;

/// An open file of the operating system.
#[derive(Debug)]
pub struct OsFile {
    file: fs::File,
    path: PathBuf,
    len: AtomicU64,
}

/// An advisory lock on a file, given back when dropped or when the process ends.
#[derive(Debug)]
pub struct OsLock {
    // Closing the file gives the lock back.
    _file: fs::File,
}

impl OsFile {
    fn open(options: &OpenOptions, op: &'static str, path: &Path) -> Result<Self> {
        let fail = |e: io::Error| Error::io(op, path, None, &e);
        let file = options.open(path).map_err(fail)?;
        let len = AtomicU64::new(file.metadata().map_err(fail)?.len());
        Ok(Self { file, path: path.to_owned(), len })
    }

    fn fail(&self, op: &'static str, offset: Option<u64>, error: &io::Error) -> Error {
        Error::io(op, &self.path, offset, error)
    }

    /// Refuses a range that the file does not hold before memory is taken for it: a length may come
    /// from damaged bytes. Another handle may have made the file longer than this one knows.
    fn check_end(&self, offset: u64, len: usize) -> Result<()> {
        let end = offset.saturating_add(to_u64(len));
        let fail = |e: io::Error| self.fail("read_at", Some(offset), &e);
        if end > self.len.load(Ordering::Acquire) && end > self.file.metadata().map_err(fail)?.len()
        {
            return Err(fail(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(())
    }
}

impl File for OsFile {
    async fn append(&self, data: &[u8], _class: IoClass) -> Result<()> {
        let mut rest = data;
        while !rest.is_empty() {
            let offset = self.len.load(Ordering::Acquire);
            let written = match self.file.write_at(rest, offset) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other,
            };
            let written = written.map_err(|e| self.fail("append", Some(offset), &e))?;
            // After each piece, so that an error later still leaves the true length.
            self.len.store(offset + to_u64(written), Ordering::Release);
            rest = rest.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    async fn read_at(&self, offset: u64, len: usize, _class: IoClass) -> Result<Bytes> {
        self.check_end(offset, len)?;
        let mut buffer = vec![0; len];
        self.file
            .read_exact_at(&mut buffer, offset)
            .map_err(|e| self.fail("read_at", Some(offset), &e))?;
        Ok(buffer.into())
    }

    async fn write_at(&self, offset: u64, data: &[u8], _class: IoClass) -> Result<()> {
        self.file
            .write_all_at(data, offset)
            .map_err(|e| self.fail("write_at", Some(offset), &e))?;
        self.len.fetch_max(offset + to_u64(data.len()), Ordering::AcqRel);
        Ok(())
    }

    async fn sync_data(&self, _class: IoClass) -> Result<()> {
        self.file.sync_data().map_err(|e| self.fail("sync_data", None, &e))
    }

    async fn sync_all(&self, _class: IoClass) -> Result<()> {
        self.file.sync_all().map_err(|e| self.fail("sync_all", None, &e))
    }

    /// Reserves nothing, and says so by success, on a filesystem that cannot reserve: appends then
    /// meet a full disk by themselves.
    async fn allocate(&self, len: u64) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, len) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            Err(e) => Err(self.fail("allocate", None, &e.into())),
        }
    }

    async fn set_len(&self, len: u64) -> Result<()> {
        self.file.set_len(len).map_err(|e| self.fail("set_len", Some(len), &e))?;
        self.len.store(len, Ordering::Release);
        Ok(())
    }

    fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }
}

impl Env for OsEnv {
    type File = OsFile;
    type Task = Task;
    type Lock = OsLock;

    async fn open(&self, path: &Path) -> Result<OsFile> {
        match OsFile::open(OpenOptions::new().read(true).write(true), "open", path) {
            Err(Error::Io {
                kind: io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem,
                ..
            }) => OsFile::open(OpenOptions::new().read(true), "open", path),
            other => other,
        }
    }

    async fn create(&self, path: &Path) -> Result<OsFile> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        OsFile::open(&options, "create", path)
    }

    async fn create_dir(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir).map_err(|e| Error::io("create_dir", dir, None, &e))
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to).map_err(|e| Error::io("rename", from, None, &e))
    }

    async fn remove(&self, path: &Path) -> Result<()> {
        fs::remove_file(path).map_err(|e| Error::io("remove", path, None, &e))
    }

    async fn link(&self, from: &Path, to: &Path) -> Result<()> {
        fs::hard_link(from, to).map_err(|e| Error::io("link", to, None, &e))
    }

    /// A name that is not UTF-8 is listed with U+FFFD in place of what is not: it matches no name
    /// that the engine gives.
    async fn list(&self, dir: &Path) -> Result<Vec<String>> {
        let fail = |e: io::Error| Error::io("list", dir, None, &e);
        let mut names = Vec::new();
        for entry in fs::read_dir(dir).map_err(fail)? {
            names.push(entry.map_err(fail)?.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    async fn sync_dir(&self, dir: &Path) -> Result<()> {
        fs::File::open(dir)
            .and_then(|handle| handle.sync_all())
            .map_err(|e| Error::io("sync_dir", dir, None, &e))
    }

    async fn lock(&self, path: &Path) -> Result<OsLock> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|e| Error::io("lock", path, None, &e))?;
        match file.try_lock() {
            Ok(()) => Ok(OsLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::Locked(path.to_owned())),
            Err(TryLockError::Error(e)) => Err(Error::io("lock", path, None, &e)),
        }
    }

    async fn free_bytes(&self, dir: &Path) -> Result<u64> {
        let stat =
            rustix::fs::statvfs(dir).map_err(|e| Error::io("free_bytes", dir, None, &e.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn now(&self) -> Nanos {
        thread::now()
    }

    fn wall(&self) -> Nanos {
        thread::wall()
    }

    fn sleep_until(&self, at: Nanos) -> impl Future<Output = ()> {
        thread::sleep_until(at)
    }

    fn charge(&self, _work: Work) {}

    async fn yield_point(&self, _site: Site) {}

    fn random_u64(&self, _site: Site) -> u64 {
        thread::random_u64()
    }

    fn spawn<F, Fut>(&self, name: &'static str, build: F) -> Task
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        thread::spawn(name, build)
    }
}

impl BlockingEnv for OsEnv {
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        thread::block_on(future)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_file_that_may_not_be_written_is_read_and_refuses_writes() {
        OsEnv.block_on(async {
            // Not even root may open this one for writing.
            let path = Path::new("/proc/sys/kernel/ostype");
            assert!(OpenOptions::new().write(true).open(path).is_err());
            let file = OsEnv.open(path).await.unwrap();
            assert!(file.read_at(0, 0, IoClass::Read).await.unwrap().is_empty());
            assert!(file.write_at(0, b"x", IoClass::Read).await.is_err());
        });
    }
}
