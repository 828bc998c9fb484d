//! Shares lookups: of many callers who look one key up at the same time, few ask the store.
//!
//! A caller is only given the answer to a question that was asked after it came, so it never sees
//! less than it would have seen by itself (a failure, which shows nothing, is given to all): while
//! one question is under way, the next one waits for all who come meanwhile. Ten thousand callers
//! of one key make two questions. Questions run in a task of their own, so no caller waits for
//! another one to be polled.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};

use super::lookups::Answer;
use super::wave::Wave;
use crate::clock::{Stopwatch, real_sleep};
use crate::error::ErrorKind;
use crate::key::{Key, Namespace};
use crate::runtime::spawn;
use crate::shared::Shared;

/// The store's answer for a key, to a question asked from now on. The store bounds how long it
/// takes; who comes while a question fails gets that failure and does not wait for another one.
pub(crate) async fn look_up(shared: &Arc<Shared>, key: &Key<'_>) -> Answer {
    let (wave, asks) = shared.lookups.join(key);
    if asks {
        let asker = Asker {
            shared: Arc::clone(shared),
            namespace: key.namespace().clone(),
            name: key.name().to_owned(),
            asking: None,
            done: false,
        };
        spawn(Arc::new(()), asker.run());
    }
    // On a machine too busy to ask in time, waiting is still better than many loads; this bound is
    // for a store that breaks its promise.
    let patience = pin!(real_sleep(shared.store_timeout * 4));
    match select(wave.outcome(), patience).await {
        Either::Left((answer, _)) => answer,
        Either::Right(_) => Answer { found: Err(ErrorKind::TimedOut), took: shared.store_timeout },
    }
}

/// Asks for all who wait. However its task ends, they get an answer.
struct Asker {
    shared: Arc<Shared>,
    namespace: Namespace,
    name: String,
    asking: Option<Arc<Wave<Answer>>>,
    /// Whether nobody waits any more.
    done: bool,
}

impl Asker {
    async fn run(mut self) {
        let (namespace, name) = (self.namespace.clone(), self.name.clone());
        let Ok(key) = Key::new(&namespace, name) else { return };
        let keys = [key];
        while let Some(wave) = self.shared.lookups.take(&keys[0]) {
            self.asking = Some(Arc::clone(&wave));
            let took = Stopwatch::start();
            let found = self.shared.store.read(&keys, &self.shared.cx()).await;
            let found = found.map(|mut found| found.pop().flatten()).map_err(|e| e.kind());
            let answer = Answer { found, took: took.elapsed() };
            wave.publish(answer.clone());
            self.asking = None;
            if answer.found.is_err() {
                return self.give_up(&answer);
            }
        }
        self.done = true;
    }
}

impl Asker {
    /// Answers all who wait, without another question.
    fn give_up(&mut self, answer: &Answer) {
        if let Some(wave) = self.asking.take() {
            wave.publish(answer.clone());
        }
        if let Ok(key) = Key::new(&self.namespace, self.name.as_str()) {
            while let Some(wave) = self.shared.lookups.take(&key) {
                wave.publish(answer.clone());
            }
        }
        self.done = true;
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        // Its task was thrown away, so somebody may be left.
        self.give_up(&Answer { found: Err(ErrorKind::Unavailable), took: Duration::ZERO });
    }
}
