//! What a client has seen of one node, another one does not answer behind.

use super::Cache;
use crate::clock::Time;
use crate::runtime::lock;
use crate::ticket::Ticket;

impl Cache {
    /// A ticket for everything that has been invalidated or written before this call, by whomever:
    /// to be given to a client after an `Ok`, so that its next read, on any node, skips what is
    /// older.
    ///
    /// It costs nothing and asks nobody. What is [`Pending`](crate::ErrorKind::Pending) is not in
    /// yet, so no ticket covers it.
    ///
    /// ```
    /// # use tachikoma_cache::Cache;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (here, there) = (Cache::memory().build()?, Cache::memory().build()?);
    /// here.delete("rights:42").await?;
    /// let header = here.ticket().to_string();
    /// // … in another process, with the next request of the same client:
    /// there.honour(header.parse()?).await;
    /// # assert!(there.get::<u64>("rights:42").await?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        Ticket::random()
    }

    /// Waits until reads of this process show nothing as fresh that is older than the ticket; when
    /// this process met it first.
    ///
    /// Only a memory tier can be behind: for it a ticket that this process has not met costs one
    /// round trip to Redis, which all who come at the same time share. While Redis does not answer
    /// it waits until the tier shows nothing older by itself, at most for the `freshness` (1 s by
    /// default). Everywhere else, and for a ticket that was met, there is nothing to wait for.
    ///
    /// Afterwards hits, also of entries with tags, are as new as what the ticket stands for, in
    /// every namespace of this cache; a value that is marked as stale is the only exception. A
    /// layer above that lets requests share what is under way must keep them from joining what
    /// began before the time that this returns.
    ///
    /// # Cancel safety
    ///
    /// Who does not wait for its end knows nothing more; others who wait are not held up.
    pub async fn honour(&self, ticket: Ticket) -> Time {
        let shared = self.shared();
        let met = lock(&shared.tickets).met(ticket);
        if let Some(met) = met {
            return met;
        }
        let now = shared.clock.now();
        shared.store.catch_up().await;
        lock(&shared.tickets).honoured(ticket, now);
        now
    }
}
