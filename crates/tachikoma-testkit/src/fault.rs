//! A TCP proxy that breaks what passes through it, to test what a client does then.
//!
//! It decides nothing by chance: each fault is set by the test and holds from that moment for
//! open and new connections alike. Faults concern what the server answers unless their name says
//! otherwise; a stalled proxy forwards nothing at all.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::port::PortLease;

/// What the proxy does to connections. Counts of bytes are per connection and start anew each
/// time a fault is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Forwards everything.
    Pass,
    /// Waits this long before each piece of a reply.
    Delay(Duration),
    /// Accepts and holds every byte back, until another fault is set.
    Stall,
    /// Closes all connections and the listening socket: connecting is refused.
    Refuse,
    /// Forwards this many bytes of replies, then closes the connection.
    CutAfter(u64),
    /// Flips the lowest bit of the reply byte at this offset, counted from 0.
    CorruptAt(u64),
    /// Forwards this many bytes of requests, then closes the connection.
    CutRequestsAfter(u64),
    /// Flips the lowest bit of the request byte at this offset, counted from 0.
    CorruptRequestAt(u64),
    /// Forwards replies at this many bytes per second.
    Throttle(u32),
    /// Ends the direction of replies, as a server does that will not answer any more, and goes on
    /// taking requests.
    HalfClose,
}

#[derive(Debug)]
struct State {
    fault: Fault,
    /// Counts how often a fault was set, so that byte counts know when to start anew.
    version: u64,
    listening: bool,
    closed: bool,
    accepted: u64,
    /// Both ends of each open connection, by the order in which it was accepted.
    open: HashMap<u64, [TcpStream; 2]>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    target: AtomicU16,
    port: u16,
}

/// A proxy on a free port of 127.0.0.1 in front of another port. Dropping it ends its threads.
#[derive(Debug)]
pub struct FaultProxy {
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
    _lease: PortLease,
}

impl FaultProxy {
    /// Starts a proxy to `127.0.0.1:target` that passes everything.
    #[must_use]
    pub fn to(target: u16) -> Self {
        let lease = PortLease::take();
        let state = State {
            fault: Fault::Pass,
            version: 0,
            listening: false,
            closed: false,
            accepted: 0,
            open: HashMap::new(),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            target: AtomicU16::new(target),
            port: lease.port(),
        });
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept_until_closed(&shared)
        });
        let proxy = Self { shared, acceptor: Some(acceptor), _lease: lease };
        proxy.wait_for_listener(true);
        proxy
    }

    /// The port to connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.shared.port
    }

    /// Sets the fault; when this returns, it is in force.
    pub fn set(&self, fault: Fault) {
        {
            let mut state = self.shared.lock();
            state.fault = fault;
            state.version += 1;
        }
        self.shared.changed.notify_all();
        if fault == Fault::Refuse {
            self.drop_connections();
            self.wake_acceptor();
        }
        if fault == Fault::HalfClose {
            for [client, _] in self.shared.lock().open.values() {
                let _ = client.shutdown(Shutdown::Write);
            }
        }
        self.wait_for_listener(fault != Fault::Refuse);
    }

    /// From now on new connections lead to another port of 127.0.0.1, as after a failover by name.
    /// Open ones stay where they are.
    pub fn retarget(&self, target: u16) {
        self.shared.target.store(target, Ordering::Release);
    }

    /// Closes all current connections; new ones are treated as before.
    pub fn drop_connections(&self) {
        for stream in self.shared.lock().open.drain().flat_map(|(_, ends)| ends) {
            // Fails only when the peer has closed it already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// How many connections the proxy has accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.lock().accepted
    }

    /// The acceptor sleeps in `accept`; a connection of our own makes it look at the state.
    fn wake_acceptor(&self) {
        let _ = TcpStream::connect(("127.0.0.1", self.shared.port));
    }

    fn wait_for_listener(&self, listening: bool) {
        let state = self.shared.lock();
        let limit = Duration::from_secs(10);
        let (_state, result) = self
            .shared
            .changed
            .wait_timeout_while(state, limit, |state| state.listening != listening)
            .expect("no thread panics while it holds the lock");
        assert!(!result.timed_out(), "the proxy on port {} did not follow", self.shared.port);
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        self.drop_connections();
        self.wake_acceptor();
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        self.drop_connections();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds the lock")
    }

    /// Waits while everything is held back, then says what to do and since which version.
    fn fault(&self) -> (Fault, u64) {
        let state = self
            .changed
            .wait_while(self.lock(), |state| state.fault == Fault::Stall && !state.closed)
            .expect("no thread panics while it holds the lock");
        (state.fault, state.version)
    }
}

fn accept_until_closed(shared: &Arc<Shared>) {
    loop {
        let listener = TcpListener::bind(("127.0.0.1", shared.port)).expect("the port is ours");
        shared.lock().listening = true;
        shared.changed.notify_all();
        while let Ok((client, _)) = listener.accept() {
            let mut state = shared.lock();
            if state.closed || state.fault == Fault::Refuse {
                break;
            }
            state.accepted += 1;
            let number = state.accepted;
            drop(state);
            let shared = Arc::clone(shared);
            thread::spawn(move || {
                serve(&shared, number, client);
                shared.lock().open.remove(&number);
            });
        }
        drop(listener);
        let mut state = shared.lock();
        state.listening = false;
        shared.changed.notify_all();
        while state.fault == Fault::Refuse && !state.closed {
            state = shared.changed.wait(state).expect("no thread panics while it holds the lock");
        }
        if state.closed {
            return;
        }
    }
}

fn serve(shared: &Arc<Shared>, number: u64, client: TcpStream) {
    // A client whose server cannot be reached sees its connection closed.
    let Ok(server) = TcpStream::connect(("127.0.0.1", shared.target.load(Ordering::Acquire)))
    else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let copies = || Some([client.try_clone().ok()?, server.try_clone().ok()?]);
    let (Some(ends), Some([client_too, server_too])) = (copies(), copies()) else {
        return;
    };
    {
        let mut state = shared.lock();
        if state.closed || state.fault == Fault::Refuse {
            return;
        }
        state.open.insert(number, ends);
    }
    let requests = Arc::clone(shared);
    thread::spawn(move || pump(&requests, client_too, server_too, false));
    pump(shared, server, client, true);
}

/// Copies until one side ends, then ends both directions that this thread can see.
fn pump(shared: &Shared, mut from: TcpStream, mut to: TcpStream, replies: bool) {
    let mut buffer = vec![0; 16 * 1024];
    let (mut seen, mut since) = (0_u64, 0);
    while let Ok(length) = from.read(&mut buffer) {
        let (fault, version) = shared.fault();
        if version != since {
            (seen, since) = (0, version);
        }
        let go_on = forward(&mut to, &mut buffer[..length], fault, seen, replies);
        seen += length as u64;
        if length == 0 || !go_on {
            break;
        }
    }
    let cut = matches!(shared.lock().fault, Fault::CutRequestsAfter(_));
    if replies || cut {
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    } else {
        let _ = to.shutdown(Shutdown::Write);
    }
}

/// Writes one piece as the fault says; `false` ends the connection.
fn forward(to: &mut TcpStream, bytes: &mut [u8], fault: Fault, seen: u64, replies: bool) -> bool {
    match fault {
        Fault::Stall | Fault::Refuse => false,
        Fault::Delay(delay) if replies => {
            thread::sleep(delay);
            to.write_all(bytes).is_ok()
        }
        Fault::CutAfter(limit) if replies => cut(to, bytes, limit, seen),
        Fault::CutRequestsAfter(limit) if !replies => cut(to, bytes, limit, seen),
        Fault::CorruptAt(offset) if replies => corrupt(to, bytes, offset, seen),
        Fault::CorruptRequestAt(offset) if !replies => corrupt(to, bytes, offset, seen),
        Fault::Throttle(rate) if replies => {
            // Ten pieces a second: slow enough to see, small enough to be smooth.
            let piece = usize::try_from(rate / 10).unwrap_or(usize::MAX).max(1);
            bytes.chunks(piece).all(|chunk| {
                thread::sleep(Duration::from_millis(100));
                to.write_all(chunk).is_ok()
            })
        }
        Fault::HalfClose if replies => {
            // Fails when it has been done.
            let _ = to.shutdown(Shutdown::Write);
            true
        }
        _ => to.write_all(bytes).is_ok(),
    }
}

fn cut(to: &mut TcpStream, bytes: &[u8], limit: u64, seen: u64) -> bool {
    let left = usize::try_from(limit.saturating_sub(seen)).unwrap_or(usize::MAX);
    to.write_all(&bytes[..left.min(bytes.len())]).is_ok() && left > bytes.len()
}

fn corrupt(to: &mut TcpStream, bytes: &mut [u8], offset: u64, seen: u64) -> bool {
    let place = offset.checked_sub(seen).and_then(|place| usize::try_from(place).ok());
    if let Some(byte) = place.and_then(|place| bytes.get_mut(place)) {
        *byte ^= 1;
    }
    to.write_all(bytes).is_ok()
}
