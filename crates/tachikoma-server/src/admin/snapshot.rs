//! Reads every counter of the server at one moment. `/stats` and `/metrics` say the same.

use std::sync::Arc;

use serde::Serialize;
use tachikoma_cache::{Clock, Time};

use crate::access_log::AccessLog;
use crate::listener::Terms;
use crate::shutdown::Shutdown;
use crate::traffic::{Traffic, TrafficStats};

/// Where the counters are.
pub(crate) struct Sources {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) started: Time,
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) terms: Terms,
    pub(crate) log: AccessLog,
    pub(crate) draining: Shutdown,
}

/// Every counter at one moment.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Snapshot {
    pub(super) process: Process,
    pub(super) http: Http,
}

/// The process itself.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Process {
    pub(super) version: &'static str,
    pub(super) pid: u32,
    pub(super) uptime_ms: u64,
    /// Memory in use; unknown where the system does not say.
    pub(super) resident_bytes: Option<u64>,
}

/// The public listener.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Http {
    pub(super) connections: u64,
    #[serde(flatten)]
    pub(super) traffic: TrafficStats,
    pub(super) access_log_dropped: u64,
}

impl Sources {
    pub(super) fn snapshot(&self) -> Snapshot {
        let uptime = self.clock.now().since(self.started);
        Snapshot {
            process: Process {
                version: env!("CARGO_PKG_VERSION"),
                pid: std::process::id(),
                uptime_ms: u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX),
                resident_bytes: resident_bytes(),
            },
            http: Http {
                connections: self.terms.open() as u64,
                traffic: self.traffic.stats(),
                access_log_dropped: self.log.dropped(),
            },
        }
    }
}

/// `VmRSS` of Linux; other systems have no file for it.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
