//! Law 40 under shuttle: questions, answers, pushes and copies in another order in each run.
//!
//! The server, the network and the client's loop are tasks; what is theirs to keep, they keep: the
//! server pushes the name of a key that it was asked for when that changes, in the order of its
//! answers. When an answer is kept is up to the reader.

use std::collections::VecDeque;
use std::sync::Mutex;

use shuttle::future::{block_on, spawn, yield_now};
use shuttle::scheduler::RandomScheduler;
use tokio::sync::oneshot;

use super::*;

const SCHEDULES: usize = 10_000;

enum Message {
    Answer(u64, oneshot::Sender<u64>),
    /// The key has this version now.
    Push(u64),
}

/// A server with one key, whose value is its version, and what is on its way from it.
#[derive(Default)]
struct Server {
    version: u64,
    tracked: bool,
    sent: VecDeque<Message>,
}

impl Server {
    fn get(&mut self, reader: oneshot::Sender<u64>) {
        self.tracked = true;
        self.sent.push_back(Message::Answer(self.version, reader));
    }

    fn change(&mut self) {
        self.version += 1;
        if std::mem::take(&mut self.tracked) {
            self.sent.push_back(Message::Push(self.version));
        }
    }
}

/// What the readers of a run share.
struct Run {
    rig: Rig,
    server: Mutex<Server>,
    /// Up to which version everything was told.
    told: Mutex<u64>,
}

impl Run {
    /// One read; `marks_first` is what is shipped.
    async fn read(&self, marks_first: bool) {
        let told = *self.told.lock().unwrap();
        if let Some(shown) = self.shown() {
            assert!(shown >= told, "an old copy: {shown} is shown after {told} was told");
            return;
        }
        let (key, now) = (self.rig.key("k"), self.rig.clock.now());
        let before = marks_first.then(|| self.rig.near.mark(&key, None, now));
        yield_now().await;
        let (reader, answer) = oneshot::channel();
        self.server.lock().unwrap().get(reader);
        let version = answer.await.unwrap();
        yield_now().await;
        let marked = before.unwrap_or_else(|| self.rig.near.mark(&key, None, now));
        let value = Bytes::copy_from_slice(&version.to_le_bytes());
        let mut found = Some((Entry::from_bytes(self.rig.meta(), value), Guarantee::Fresh));
        marked.keep(0, &mut found, now);
    }

    fn shown(&self) -> Option<u64> {
        let (mut shown, now) = (None, self.rig.clock.now());
        self.rig.near.peek(&self.rig.key("k")[0], now, |_| false, &mut |entry, _| {
            shown = Some(u64::from_le_bytes(entry.bytes().unwrap()[..].try_into().unwrap()));
        });
        shown
    }

    /// The client's loop; whether there was anything.
    fn deliver(&self) -> bool {
        let message = self.server.lock().unwrap().sent.pop_front();
        match message {
            Some(Message::Answer(version, reader)) => drop(reader.send(version)),
            Some(Message::Push(version)) => {
                self.rig.near.changed(&self.rig.key("k")[0]);
                *self.told.lock().unwrap() = version;
            }
            None => return false,
        }
        true
    }
}

fn check(marks_first: bool) {
    let law = move || {
        let server = Mutex::new(Server::default());
        let run = Arc::new(Run { rig: Rig::new(), server, told: Mutex::new(0) });
        let mut tasks = Vec::new();
        for _ in 0..2 {
            let run = Arc::clone(&run);
            tasks.push(spawn(async move {
                for _ in 0..3 {
                    run.read(marks_first).await;
                    yield_now().await;
                }
            }));
        }
        let writer = Arc::clone(&run);
        tasks.push(spawn(async move {
            for _ in 0..2 {
                writer.server.lock().unwrap().change();
                yield_now().await;
            }
        }));
        block_on(async {
            while !tasks.iter().all(shuttle::future::JoinHandle::is_finished) {
                run.deliver();
                yield_now().await;
            }
            for task in tasks {
                task.await.unwrap();
            }
            while run.deliver() {}
            // Everything was told: a copy that is left is what the server has.
            let left = run.shown();
            assert!(left.is_none_or(|version| version == 2), "an old copy: {left:?} is left");
        });
    };
    let mut config = shuttle::Config::default();
    config.stack_size = 256 * 1024;
    shuttle::Runner::new(RandomScheduler::new(SCHEDULES), config).run(law);
}

#[test]
fn no_copy_outlives_the_push_of_its_change() {
    check(true);
}

/// What a check is good for that has never found anything, this one shows.
#[test]
#[should_panic(expected = "an old copy")]
fn without_a_mark_before_the_question_a_copy_is_left() {
    check(false);
}
