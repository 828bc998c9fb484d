//! Counts the requests of the public listener. Counters are read, never pushed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use http::StatusCode;
use serde::Serialize;

/// The counters of one listener.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    begun: AtomicU64,
    ended: AtomicU64,
    by_class: [AtomicU64; 6],
    bytes: AtomicU64,
    cut: AtomicU64,
}

/// What was counted up to now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct TrafficStats {
    /// Requests whose head was read.
    pub(crate) requests: u64,
    /// Requests that are not done.
    pub(crate) in_flight: u64,
    /// Responses by the first digit of their status.
    pub(crate) responses: Responses,
    /// Bytes of response bodies that were sent.
    pub(crate) body_bytes: u64,
    /// Responses that broke off before the end of their body.
    pub(crate) cut_off: u64,
}

/// Responses by the first digit of their status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Responses {
    #[serde(rename = "2xx")]
    pub(crate) success: u64,
    #[serde(rename = "3xx")]
    pub(crate) redirection: u64,
    #[serde(rename = "4xx")]
    pub(crate) client_error: u64,
    #[serde(rename = "5xx")]
    pub(crate) server_error: u64,
}

impl Traffic {
    /// Counts a request. It is in flight until what is returned is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Counted {
        self.begun.fetch_add(1, Relaxed);
        Counted { traffic: Arc::clone(self), cut: AtomicBool::new(false) }
    }

    pub(crate) fn stats(&self) -> TrafficStats {
        // Ended first: a request that ends in between is then still in flight, never minus one.
        let ended = self.ended.load(Relaxed);
        let requests = self.begun.load(Relaxed);
        let class = |digit: usize| self.by_class[digit].load(Relaxed);
        TrafficStats {
            requests,
            in_flight: requests.saturating_sub(ended),
            responses: Responses {
                success: class(2),
                redirection: class(3),
                client_error: class(4),
                server_error: class(5),
            },
            body_bytes: self.bytes.load(Relaxed),
            cut_off: self.cut.load(Relaxed),
        }
    }
}

/// One request on its way.
#[derive(Debug)]
pub(crate) struct Counted {
    traffic: Arc<Traffic>,
    cut: AtomicBool,
}

impl Counted {
    pub(crate) fn answered(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).min(5);
        self.traffic.by_class[class].fetch_add(1, Relaxed);
    }

    pub(crate) fn ended(&self, bytes: u64, complete: bool) {
        self.traffic.bytes.fetch_add(bytes, Relaxed);
        self.cut.store(!complete, Relaxed);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.traffic.ended.fetch_add(1, Relaxed);
        if self.cut.load(Relaxed) {
            self.traffic.cut.fetch_add(1, Relaxed);
        }
    }
}
