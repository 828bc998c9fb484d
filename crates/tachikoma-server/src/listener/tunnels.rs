//! Keeps count of the connections that became tunnels, so that stopping waits for them, and ends
//! them when there is no more time.

use std::sync::Arc;

use tokio::sync::watch;

/// The tunnels of one listener. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Tunnels(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    open: watch::Sender<usize>,
    cut: watch::Sender<bool>,
}

impl Tunnels {
    pub(super) fn new() -> Self {
        Self(Arc::new(Inner { open: watch::Sender::new(0), cut: watch::Sender::new(false) }))
    }

    /// Opens a tunnel; it is open until what is returned is dropped.
    pub(crate) fn open(&self) -> Tunnel {
        self.0.open.send_modify(|open| *open += 1);
        Tunnel { tunnels: self.clone(), cut: self.0.cut.subscribe() }
    }

    /// Ends when no tunnel is open.
    pub(super) async fn none_open(&self) {
        // It cannot fail: the sender is held here.
        let _ = self.0.open.subscribe().wait_for(|open| *open == 0).await;
    }

    /// Ends them all.
    pub(super) fn cut(&self) -> usize {
        self.0.cut.send_replace(true);
        *self.0.open.borrow()
    }
}

/// An open tunnel.
#[derive(Debug)]
pub(crate) struct Tunnel {
    tunnels: Tunnels,
    cut: watch::Receiver<bool>,
}

impl Tunnel {
    /// Ends when the tunnel must end.
    pub(crate) async fn cut(&mut self) {
        let _ = self.cut.wait_for(|cut| *cut).await;
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.tunnels.0.open.send_modify(|open| *open -= 1);
    }
}
