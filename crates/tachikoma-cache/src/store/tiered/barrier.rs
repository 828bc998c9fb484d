//! One question for all who want to know that nothing is on its way any more.
//!
//! Decides who asks and who waits: at most one question is under way, and it is the answer of those
//! who came before it was asked. Whoever comes later is answered by the next one.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Barrier {
    /// How many have come.
    came: AtomicU64,
    /// How many of them, the first, have been answered. Held by the one who asks.
    answered: Mutex<u64>,
}

impl Barrier {
    /// Ends after a question that was asked since this call was answered. One that fails is the
    /// failure of who asked it alone; whoever waits asks again.
    pub(super) async fn pass<E>(&self, ask: impl AsyncFnOnce() -> Result<(), E>) -> Result<(), E> {
        let place = self.came.fetch_add(1, Ordering::AcqRel) + 1;
        let mut answered = self.answered.lock().await;
        if *answered >= place {
            return Ok(());
        }
        let came = self.came.load(Ordering::Acquire);
        ask().await?;
        *answered = came;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use futures_util::FutureExt as _;
    use futures_util::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    /// Answers as often as it is allowed to.
    struct Server {
        asked: AtomicUsize,
        answers: Semaphore,
    }

    impl Server {
        async fn ask(&self) -> Result<(), ()> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            self.answers.acquire().await.map(tokio::sync::SemaphorePermit::forget).map_err(drop)
        }
    }

    fn server() -> (Arc<Barrier>, Arc<Server>) {
        let server = Server { asked: AtomicUsize::new(0), answers: Semaphore::new(0) };
        (Arc::default(), Arc::new(server))
    }

    #[tokio::test]
    async fn all_who_come_while_one_question_is_under_way_share_the_next() {
        let (barrier, server) = server();
        let first = barrier.pass(async || server.ask().await);
        let others = (0..100).map(|_| barrier.pass(async || server.ask().await));
        let (mut first, mut others) = (Box::pin(first), Box::pin(join_all(others)));
        assert!(first.as_mut().now_or_never().is_none());
        assert!(others.as_mut().now_or_never().is_none());
        server.answers.add_permits(1);
        assert_eq!(first.await, Ok(()));
        assert!(others.as_mut().now_or_never().is_none(), "that one was asked before they came");
        server.answers.add_permits(1);
        assert!(others.await.into_iter().all(|passed| passed == Ok(())));
        assert_eq!(server.asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn who_goes_away_or_fails_while_it_asks_holds_up_nobody() {
        let (barrier, server) = server();
        let mut gone = Box::pin(barrier.pass(async || server.ask().await));
        let mut waits = Box::pin(barrier.pass(async || server.ask().await));
        assert!(gone.as_mut().now_or_never().is_none());
        assert!(waits.as_mut().now_or_never().is_none());
        drop(gone);
        assert_eq!(barrier.pass(async || Err("refused")).now_or_never(), None, "it waits its turn");
        server.answers.add_permits(1);
        assert_eq!(waits.await, Ok(()));
        assert_eq!(barrier.pass(async || Err("refused")).await, Err("refused"));
        server.answers.add_permits(1);
        assert_eq!(barrier.pass(async || server.ask().await).await, Ok(()));
    }
}
