//! Decides when the server stops: at the first SIGTERM or SIGINT it drains, at the second it ends
//! at once. SIGHUP is no reason to stop.

use std::io;

use tokio::sync::watch;

/// Asks everyone who holds the [`Shutdown`] to stop. Dropping it asks too.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

/// Says when to stop. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

/// A new pair of the two ends.
pub fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Trigger(sender), Shutdown(receiver))
}

impl Trigger {
    /// Asks to stop. Asking twice changes nothing.
    pub fn ask(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Ends when the server was asked to stop.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn asked(&mut self) {
        // An error means that the trigger is gone: nobody could ask any more.
        let _ = self.0.wait_for(|asked| *asked).await;
    }

    /// Whether the server was asked to stop.
    pub fn is_asked(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

/// Asks for shutdown at the first SIGTERM or SIGINT, and ends the process at the second.
///
/// # Errors
///
/// The system does not let this process listen for signals.
pub fn on_signals() -> io::Result<Shutdown> {
    let (trigger, shutdown) = channel();
    let mut signals = Signals::new()?;
    tokio::spawn(async move {
        signals.next().await;
        tracing::info!("stopping: open requests are finished first; a second signal ends at once");
        trigger.ask();
        let code = signals.next().await;
        tracing::warn!("second signal: ending now");
        std::process::exit(code);
    });
    Ok(shutdown)
}

#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal and returns the exit code that shells give it: 128 and its number.
    async fn next(&mut self) -> i32 {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return 128 + 15,
                _ = self.interrupt.recv() => return 128 + 2,
                // Whoever sends it wants the settings read again, not an end without draining.
                _ = self.hangup.recv() => {
                    tracing::warn!("SIGHUP changes nothing: settings are read once, at the start");
                }
            }
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> i32 {
        let _ = tokio::signal::ctrl_c().await;
        128 + 2
    }
}
