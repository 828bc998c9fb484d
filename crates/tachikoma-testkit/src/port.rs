//! Hands out ports of 127.0.0.1 that no other test process holds.
//!
//! Binding port 0 and closing it again lets two test processes get the same port, and lets an
//! outgoing connection take the port of a server that a test has killed and is about to restart.
//! So ports come from below the ephemeral range (which starts at 32768), and each one is held
//! by a lock on a file until its holder is dropped or its process ends.

use std::collections::hash_map::RandomState;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher};
use std::net::TcpListener;
use std::sync::Mutex;

const FIRST: u16 = 15_000;
const COUNT: u16 = 17_000;

/// A port that stays ours for as long as this value lives.
#[derive(Debug)]
pub(crate) struct PortLease {
    port: u16,
    _lock: Option<File>,
}

impl PortLease {
    /// Takes a free port.
    pub(crate) fn take() -> Self {
        let folder = std::env::temp_dir()
            .join(format!("tachikoma-test-ports-{}", rustix::process::getuid().as_raw()));
        fs::create_dir_all(&folder).expect("the folder of port locks can be created");
        let seed = RandomState::new().build_hasher().finish();
        let start = u16::try_from(seed % u64::from(COUNT)).expect("below COUNT");
        for step in 0..COUNT {
            let port = FIRST + (start + step) % COUNT;
            let Ok(lock) = File::create(folder.join(port.to_string())) else {
                continue;
            };
            if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok() {
                return Self { port, _lock: Some(lock) };
            }
        }
        panic!("no free port between {FIRST} and {}", FIRST + COUNT);
    }

    /// A port the caller chose and answers for.
    pub(crate) fn fixed(port: u16) -> Self {
        Self { port, _lock: None }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

/// Returns a port of 127.0.0.1 that is free and stays reserved until this process ends.
#[must_use]
pub fn free_port() -> u16 {
    static HELD: Mutex<Vec<PortLease>> = Mutex::new(Vec::new());
    let lease = PortLease::take();
    let port = lease.port();
    HELD.lock().expect("nothing panics while it holds this lock").push(lease);
    port
}
