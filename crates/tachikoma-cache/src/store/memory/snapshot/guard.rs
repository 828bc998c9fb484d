//! Knows whether the file still says what the memory holds.
//!
//! Decides when the file is marked as overtaken: before the first change after it was written is
//! answered. A file that is not overtaken may be trusted after a restart, whatever ended the
//! process: a mark that was written is in the page cache, which outlives the process. It may be
//! lost with the machine's power; a thread of its own makes it durable, milliseconds later.
//!
//! A change is told after it was made. Whoever saves is marked as saving before it looks, and looks
//! under the locks that changes are made under: so each change is either seen or told in time.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::error;

use super::format::{CHANGED, CURRENT, STATE_AT};

pub(super) struct Guard {
    path: PathBuf,
    /// Whether a change has to be told.
    armed: AtomicBool,
    state: Mutex<State>,
}

enum State {
    /// The file, if there is one, is overtaken.
    Overtaken,
    /// It is being written anew; the one that is there still says what the memory held when that
    /// began.
    Saving(Option<File>),
    /// It says what the memory holds.
    Current(File),
}

impl Guard {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, armed: AtomicBool::new(false), state: Mutex::new(State::Overtaken) }
    }

    /// Something was changed that the file may say otherwise.
    #[inline]
    pub(super) fn changed(&self) {
        if self.armed.load(SeqCst) {
            self.overtake();
        }
    }

    /// Whether the file says what the memory holds.
    pub(super) fn is_current(&self) -> bool {
        matches!(*self.lock(), State::Current(_))
    }

    /// The file is as the memory was read from it.
    pub(super) fn read(&self, file: File) {
        *self.lock() = State::Current(file);
        self.armed.store(true, SeqCst);
    }

    /// Before the memory is looked at, to be saved.
    pub(super) fn begin(&self) {
        let mut state = self.lock();
        *state = match std::mem::replace(&mut *state, State::Overtaken) {
            State::Current(file) | State::Saving(Some(file)) => State::Saving(Some(file)),
            State::Overtaken | State::Saving(None) => State::Saving(None),
        };
        self.armed.store(true, SeqCst);
    }

    /// The memory is saved in `file`, which has its name.
    pub(super) fn end(&self, file: File) -> io::Result<()> {
        let mut state = self.lock();
        if !matches!(*state, State::Saving(_)) {
            return Ok(());
        }
        mark(&file, CURRENT)?;
        let durable = file.try_clone()?;
        *state = State::Current(file);
        drop(state);
        durable.sync_data()
    }

    /// It could not be saved; the file that was there is still there.
    pub(super) fn fail(&self) {
        let mut state = self.lock();
        *state = match std::mem::replace(&mut *state, State::Overtaken) {
            State::Saving(Some(file)) | State::Current(file) => State::Current(file),
            State::Saving(None) | State::Overtaken => State::Overtaken,
        };
    }

    #[cold]
    fn overtake(&self) {
        let mut state = self.lock();
        let file = match std::mem::replace(&mut *state, State::Overtaken) {
            State::Current(file) | State::Saving(Some(file)) => Some(file),
            State::Saving(None) | State::Overtaken => None,
        };
        if let Some(file) = file {
            match mark(&file, CHANGED) {
                Ok(()) => {
                    let _ = std::thread::Builder::new()
                        .name("cache-snapshot-mark".to_owned())
                        .spawn(move || file.sync_data());
                }
                Err(failed) => {
                    error!(path = %self.path.display(), %failed, "snapshot not marked: removed");
                    let _ = std::fs::remove_file(&self.path);
                }
            }
        }
        // Under the lock, or a save that begins now would go unguarded.
        self.armed.store(false, SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn mark(mut file: &File, state: u8) -> io::Result<()> {
    file.seek(SeekFrom::Start(STATE_AT))?;
    file.write_all(&[state])
}
