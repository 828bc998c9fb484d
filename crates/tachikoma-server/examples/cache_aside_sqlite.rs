//! Cache-aside over a SQLite database: read through the cache, invalidate after a write.
//!
//! ```text
//! cargo run -p tachikoma-server --example cache_aside_sqlite
//! ```
//!
//! It prints what each read did and ends by itself. The data cache needs `tachikoma-cache` only;
//! the example lives beside the server because that one uses SQLite already.

// xtask: run

use std::error::Error;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};
use tachikoma_cache::{Cache, ErrorKind, Hit, LoadError};

const TTL: Duration = Duration::from_secs(60);

#[derive(Debug, Serialize, Deserialize)]
struct Mission {
    id: i64,
    title: String,
}

/// The missions of one database, behind one cache.
#[derive(Clone)]
struct Missions {
    pool: SqlitePool,
    cache: Cache,
}

impl Missions {
    /// One mission. Whatever the cache does, only the database can make this fail.
    async fn get(&self, id: i64) -> Result<Hit<Mission>, LoadError<sqlx::Error>> {
        let pool = self.pool.clone();
        self.cache
            .get_or_load(&format!("mission:{id}"), move || async move {
                let row = sqlx::query_as("SELECT id, title FROM missions WHERE id = ?");
                let (id, title) = row.bind(id).fetch_one(&pool).await?;
                Ok(Mission { id, title })
            })
            .ttl(TTL)
            .tags(["missions"])
            .await
    }

    /// The titles of all missions, with a tag of its own: it depends on every row.
    async fn titles(&self) -> Result<Hit<Vec<String>>, LoadError<sqlx::Error>> {
        let pool = self.pool.clone();
        self.cache
            .get_or_load("missions:titles", move || async move {
                sqlx::query_scalar("SELECT title FROM missions ORDER BY id").fetch_all(&pool).await
            })
            .ttl(TTL)
            .tags(["missions"])
            .await
    }

    /// Writes the row, and only then takes what depends on it out of the cache.
    async fn rename(&self, id: i64, title: &str) -> Result<(), Box<dyn Error>> {
        sqlx::query("UPDATE missions SET title = ? WHERE id = ?")
            .bind(title)
            .bind(id)
            .execute(&self.pool)
            .await?;
        match self.cache.invalidate_tag("missions").await {
            // The row is written. A store that is away is told as soon as it is back.
            Err(error) if error.kind() == ErrorKind::Pending => Ok(()),
            result => Ok(result?),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // One connection: each connection to `:memory:` is a database of its own.
    let pool = SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await?;
    sqlx::query("CREATE TABLE missions (id INTEGER PRIMARY KEY, title TEXT NOT NULL)")
        .execute(&pool)
        .await?;
    sqlx::query("INSERT INTO missions VALUES (1, 'Find the Puppeteer'), (2, 'Guard the minister')")
        .execute(&pool)
        .await?;
    // Or `Cache::connect("redis://127.0.0.1/0?namespace=example").await?`
    let cache = Cache::memory().max_bytes(16 << 20).build()?;
    let missions = Missions { pool, cache };

    for _ in 0..2 {
        let mission = missions.get(1).await?;
        println!("{} {:<20} {:?}", mission.id, mission.title, mission.source());
    }
    println!("{} missions", missions.titles().await?.len());

    missions.rename(1, "Follow the Puppeteer").await?;
    for _ in 0..2 {
        let mission = missions.get(1).await?;
        println!("{} {:<20} {:?}", mission.id, mission.title, mission.source());
    }

    // Everybody asks at once, and the database is asked once.
    missions.cache.clear().await?;
    let before = missions.cache.stats().loads;
    let everybody = (0..1000).map(|_| {
        let missions = missions.clone();
        tokio::spawn(async move { missions.get(2).await.map(|mission| mission.title.clone()) })
    });
    for title in everybody.collect::<Vec<_>>() {
        assert_eq!(title.await??, "Guard the minister");
    }
    let stats = missions.cache.stats();
    assert_eq!(stats.loads - before, 1);
    println!("1000 at once: 1 load");
    println!("{} hits, {} misses", stats.hits, stats.misses);
    Ok(())
}
