//! Cache-aside as it is mostly written: `GET`, else load and `SET`; after a write `DEL`.
//!
//! It is here to be caught.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tachikoma_testkit::{Connection, Resp};

/// As long as the shipped cache keeps what it read.
const TTL_SECONDS: &str = "900";

const DEADLINE: Duration = Duration::from_secs(2);

/// Plain commands on connections that are kept.
#[derive(Debug, Clone)]
pub(crate) struct Naive {
    port: u16,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Naive {
    pub(crate) fn new(port: u16) -> Self {
        Self { port, idle: Arc::default() }
    }

    pub(crate) async fn get(&self, key: &str) -> io::Result<Option<u32>> {
        let answer = self.command(vec!["GET".to_owned(), key.to_owned()]).await?;
        Ok(match answer {
            Resp::Bulk(bytes) => String::from_utf8_lossy(&bytes).parse().ok(),
            _ => None,
        })
    }

    pub(crate) async fn set(&self, key: &str, version: u32) -> io::Result<()> {
        let words = ["SET", key, &version.to_string(), "EX", TTL_SECONDS];
        self.command(words.map(str::to_owned).to_vec()).await.map(drop)
    }

    pub(crate) async fn remove(&self, key: &str) -> io::Result<()> {
        let answer = self.command(vec!["DEL".to_owned(), key.to_owned()]).await?;
        match answer {
            Resp::Integer(_) => Ok(()),
            other => Err(io::Error::other(format!("{other:?}"))),
        }
    }

    async fn command(&self, words: Vec<String>) -> io::Result<Resp> {
        let naive = self.clone();
        let work = move || {
            let idle = naive.lock().pop();
            let mut connection = match idle {
                Some(connection) => connection,
                None => Connection::open(naive.port, DEADLINE)?,
            };
            let answer = connection.command(&words)?;
            naive.lock().push(connection);
            Ok(answer)
        };
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
