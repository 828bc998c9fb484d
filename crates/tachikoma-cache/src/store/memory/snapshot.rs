//! Restart warmth: what a store in memory holds, in a file, and back again.
//!
//! Decides which entries are worth writing, which of those in a file may still be used, and for how
//! long. It never fails a cache: a file that is damaged gives its good part, one that cannot be
//! read or written is reported and counted.
//!
//! - The file is written under another name, made durable and renamed: it is always a whole one.
//! - Lives are counted on by the wall clock. If that was set back since, nobody knows how old the
//!   entries are, and none is used.
//! - Groups: counters live in the process. An entry whose tags were invalidated is not written; the
//!   others get the counters of the process that reads them.
//! - An entry that was deleted or replaced after the file was written must not come back. The file
//!   says whether any change followed ([`guard`]); if so, its entries are stale.

mod content;
mod format;
mod guard;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use tracing::{info, warn};

use self::content::Offset;
use self::format::{Bad, Reader, Record, Writer};
use self::guard::Guard;
use super::{MemoryStore, When, Written};
use crate::clock::Time;
use crate::entry::{Entry, Meta};
use crate::error::{Error, ErrorKind};
use crate::invalidation::{Group, Marks, Validity};
use crate::key::{Key, Namespace};
use crate::stats::SnapshotStats;

/// So many entries are taken out under one lock.
const SLICE: usize = 64;

/// The default of [`SnapshotFile::max_bytes`].
pub const DEFAULT_MAX_BYTES: u64 = 1 << 30;

/// Where a store in memory keeps a snapshot of itself, so that the next process starts warm.
///
/// The file holds keys and values in clear, readable by its owner only (mode 0600): put it where
/// the values themselves may be. One file belongs to one cache.
#[derive(Debug, Clone)]
#[must_use = "give it to `snapshot` of a builder"]
pub struct SnapshotFile {
    path: PathBuf,
    interval: Option<Duration>,
    max_bytes: u64,
    trusted_when_overtaken: bool,
}

impl SnapshotFile {
    /// A snapshot in this file. Its directory must exist.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            interval: None,
            max_bytes: DEFAULT_MAX_BYTES,
            trusted_when_overtaken: false,
        }
    }

    /// Writes it every `interval` of real time, at least a second. Default: only when the cache is
    /// dropped, and when [`save_snapshot`](crate::Cache::save_snapshot) is called.
    pub fn every(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        self
    }

    /// The longest that the file may be. What does not fit is not written, and a longer file is not
    /// read. Default: 1 GiB.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Whether entries of a file that changes followed (the process was killed) are used as if none
    /// had: fresh for the rest of their lives. Only for caches whose entries go by time alone:
    /// what was deleted, replaced or invalidated after the file was written comes back.
    ///
    /// Default: no; such entries are stale, for those who accept a stale value.
    pub fn trusted_when_overtaken(mut self, trusted: bool) -> Self {
        self.trusted_when_overtaken = trusted;
        self
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let problem = if self.path.file_name().is_none() {
            "it names no file".to_owned()
        } else if self.interval.is_some_and(|every| every < Duration::from_secs(1)) {
            "its interval is less than a second".to_owned()
        } else {
            return Ok(());
        };
        let path = self.path.display();
        Err(Error::new(ErrorKind::Config, format!("snapshot \"{path}\": {problem}")))
    }
}

impl<P: Into<PathBuf>> From<P> for SnapshotFile {
    fn from(path: P) -> Self {
        Self::at(path)
    }
}

/// The snapshot of one store.
pub(super) struct Snapshots {
    file: SnapshotFile,
    guard: Guard,
    saving: Mutex<()>,
    figures: Figures,
    /// Ends the thread that saves now and then.
    running: Mutex<Option<mpsc::Sender<()>>>,
}

#[derive(Default)]
struct Figures {
    restored: AtomicU64,
    expired: AtomicU64,
    damaged: AtomicU64,
    saves: AtomicU64,
    failures: AtomicU64,
    entries: AtomicU64,
    left_out: AtomicU64,
    warned: AtomicBool,
}

impl fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Snapshots").field(&self.file).finish()
    }
}

impl Snapshots {
    pub(super) fn new(file: SnapshotFile) -> Self {
        Self {
            guard: Guard::new(file.path.clone()),
            file,
            saving: Mutex::new(()),
            figures: Figures::default(),
            running: Mutex::new(None),
        }
    }

    /// Something in the store was changed.
    #[inline]
    pub(super) fn changed(&self) {
        self.guard.changed();
    }

    pub(super) fn stats(&self) -> SnapshotStats {
        let figures = &self.figures;
        SnapshotStats {
            restored: figures.restored.load(Relaxed),
            expired: figures.expired.load(Relaxed),
            damaged: figures.damaged.load(Relaxed),
            saves: figures.saves.load(Relaxed),
            failures: figures.failures.load(Relaxed),
            entries: figures.entries.load(Relaxed),
            left_out: figures.left_out.load(Relaxed),
        }
    }

    /// Fills a store that nobody uses yet from the file, if there is a usable one.
    pub(super) fn load(&self, store: &MemoryStore) {
        let path = self.file.path.as_path();
        let ended = match self.open() {
            Ok(None) => return,
            Ok(Some(file)) => self.read(store, file),
            Err(bad) => Err(bad),
        };
        let entries = self.figures.restored.load(Relaxed);
        match ended {
            Ok(()) => info!(path = %path.display(), entries, "snapshot read"),
            Err(bad) => {
                self.figures.damaged.fetch_add(1, Relaxed);
                let problem = bad.message();
                warn!(path = %path.display(), entries, problem, "snapshot not read to its end");
            }
        }
    }

    /// The file, if it is one that may be read: to write in where that is allowed.
    fn open(&self) -> Result<Option<Opened>, Bad> {
        let path = &self.file.path;
        let metadata = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        // A pipe would be waited for, and what others may write is not this process's memory.
        if !metadata.is_file() || is_writable_by_others(&metadata) {
            return Err(Bad::NotOurs);
        }
        if metadata.len() > self.file.max_bytes {
            return Err(Bad::Io(io::ErrorKind::FileTooLarge));
        }
        let both = OpenOptions::new().read(true).write(true).open(path);
        match both {
            Ok(file) => Ok(Some(Opened { file, writable: true })),
            Err(_) => Ok(Some(Opened { file: File::open(path)?, writable: false })),
        }
    }

    fn read(&self, store: &MemoryStore, opened: Opened) -> Result<(), Bad> {
        let Opened { file, writable } = opened;
        let (now, wall) = (store.clock.now(), millis(store.clock.wall()));
        let mut reader = Reader::begin(BufReader::new(&file))?;
        let head = reader.head();
        if wall < head.saved_millis {
            warn!(path = %self.file.path.display(), "the clock was set back: snapshot not used");
            return Ok(());
        }
        // A file that cannot be marked as overtaken later is one that will be.
        let trusted = (head.current && writable) || self.file.trusted_when_overtaken;
        let offset = Offset::between(now, wall);
        let ended = loop {
            match reader.next() {
                Ok(Some(record)) => self.restore(store, &record, offset, now, trusted),
                Ok(None) => break Ok(()),
                Err(bad) => break Err(bad),
            }
        };
        drop(reader);
        if head.current && writable {
            self.guard.read(file);
        }
        ended
    }

    fn restore(
        &self,
        store: &MemoryStore,
        record: &Record,
        offset: Offset,
        now: Time,
        trusted: bool,
    ) {
        let restored = entry_of(record, offset, now, trusted, |namespace, groups| {
            Marks::new(groups, store.groups.snapshot(namespace))
        });
        let figure = match restored {
            Some((_, _, entry)) if entry.meta().is_expired(now) => &self.figures.expired,
            Some((namespace, name, entry)) => {
                let Ok(key) = Key::new(&namespace, name) else { return };
                match store.write_one(&key, entry, When::Absent, now) {
                    Ok(Written::Stored) => &self.figures.restored,
                    Ok(Written::Refused) | Err(_) => &self.figures.damaged,
                }
            }
            None => &self.figures.damaged,
        };
        figure.fetch_add(1, Relaxed);
    }

    /// Writes what the store holds now; how many entries. Blocks.
    pub(super) fn save(&self, store: &MemoryStore) -> Result<u64, Error> {
        let _one_at_a_time = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        self.guard.begin();
        let saved = self.write(store).and_then(|(file, entries)| {
            self.guard.end(file)?;
            Ok(entries)
        });
        match saved {
            Ok(entries) => {
                self.figures.saves.fetch_add(1, Relaxed);
                self.figures.entries.store(entries, Relaxed);
                self.figures.warned.store(false, Relaxed);
                Ok(entries)
            }
            Err(error) => {
                self.guard.fail();
                self.figures.failures.fetch_add(1, Relaxed);
                let path = self.file.path.display();
                // Once until it works again: a full disk stays full for a while.
                if !self.figures.warned.swap(true, Relaxed) {
                    warn!(path = %path, %error, "snapshot not written");
                }
                let detail = format!("snapshot \"{path}\" not written");
                Err(Error::new(ErrorKind::Unavailable, detail).with_source(error))
            }
        }
    }

    /// Writes the file and gives it its name.
    fn write(&self, store: &MemoryStore) -> io::Result<(File, u64)> {
        let unfinished = Unfinished::create(&self.file.path)?;
        let wall = millis(store.clock.wall());
        let writer = Writer::begin(BufWriter::with_capacity(1 << 16, &unfinished.file), wall)?;
        let (mut writer, mut left_out) = (writer, 0);
        let (mut at, mut slice) = (Some(0), Vec::with_capacity(SLICE));
        while let Some(from) = at {
            let now = store.clock.now();
            at = store.engine.walk(from, SLICE, now, |namespace, name, entry| {
                slice.push((namespace.clone(), name.to_owned(), entry.clone()));
            });
            for (namespace, name, entry) in slice.drain(..) {
                if store.groups.check(&namespace, &entry.meta().marks) != Validity::Valid {
                    continue;
                }
                // The type's own code; not kept, or the cache would hold everything twice.
                let encoded = catch_unwind(AssertUnwindSafe(|| entry.encoded()));
                let Ok(Ok(payload)) = encoded else {
                    left_out += 1;
                    continue;
                };
                let offset = Offset::between(now, wall);
                let Some(content) = content::encode(entry.meta(), &payload, offset) else {
                    left_out += 1;
                    continue;
                };
                let namespace = namespace.as_str();
                let fits = writer.bytes_with(namespace, &name, &content) <= self.file.max_bytes;
                if !(fits && writer.record(namespace, &name, &content)?) {
                    left_out += 1;
                }
            }
        }
        let (buffer, entries) = writer.end()?;
        buffer.into_inner().map_err(io::IntoInnerError::into_error)?;
        self.figures.left_out.store(left_out, Relaxed);
        Ok((unfinished.finish(&self.file.path)?, entries))
    }

    /// Saves every so often, as long as the store lives, if that was asked for.
    pub(super) fn keep_saving(&self, store: Weak<MemoryStore>) -> Result<(), Error> {
        let Some(interval) = self.file.interval else { return Ok(()) };
        let (running, stop) = mpsc::channel::<()>();
        let save_on = move || {
            while stop.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                let Some(store) = store.upgrade() else { return };
                if let Some(snapshots) = store.snapshots.as_ref().filter(|own| !own.is_current()) {
                    // Counted and logged there.
                    let _ = snapshots.save(&store);
                }
            }
        };
        std::thread::Builder::new().name("cache-snapshot".to_owned()).spawn(save_on).map_err(
            |error| {
                Error::new(ErrorKind::Unavailable, "the snapshot thread cannot start")
                    .with_source(error)
            },
        )?;
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
        Ok(())
    }

    /// Whether the file says what the store holds.
    pub(super) fn is_current(&self) -> bool {
        self.guard.is_current()
    }
}

struct Opened {
    file: File,
    writable: bool,
}

/// The entry of a record with its key; `None` if it is none. `mark` gives groups the counters of
/// this process.
fn entry_of(
    record: &Record,
    offset: Offset,
    now: Time,
    trusted: bool,
    mark: impl FnOnce(&Namespace, &[Group]) -> Marks,
) -> Option<(Namespace, String, Entry)> {
    let namespace = Namespace::new(record.namespace()?).ok()?;
    let name = record.name()?.to_owned();
    let content::Decoded { meta, groups, value } = content::decode(record.content(), offset)?;
    let soft = meta.soft_expiry;
    let meta = Meta {
        created: meta.created.min(now),
        soft_expiry: if trusted { soft } else { Some(soft.map_or(now, |at| at.min(now))) },
        marks: mark(&namespace, &groups),
        ..meta
    };
    Some((namespace, name, Entry::restored(meta, value)))
}

fn millis(wall: SystemTime) -> u64 {
    let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A file that is being written under another name; gone when it is dropped unfinished.
struct Unfinished {
    file: File,
    path: PathBuf,
    finished: bool,
}

impl Unfinished {
    fn create(target: &Path) -> io::Result<Self> {
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(".unfinished");
        let path = target.with_file_name(name);
        // What a killed process left. Made anew, so that no link of somebody else's is followed.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(Self { file: options.open(&path)?, path, finished: false })
    }

    /// Makes it durable and gives it its name.
    fn finish(mut self, target: &Path) -> io::Result<File> {
        self.file.sync_all()?;
        fs::rename(&self.path, target)?;
        self.finished = true;
        #[cfg(unix)]
        {
            let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
        }
        self.file.try_clone()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.finished {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(unix)]
fn is_writable_by_others(metadata: &fs::Metadata) -> bool {
    std::os::unix::fs::MetadataExt::mode(metadata) & 0o022 != 0
}

#[cfg(not(unix))]
fn is_writable_by_others(_: &fs::Metadata) -> bool {
    false
}
