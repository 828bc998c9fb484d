//! Starts warm: `cargo run -p tachikoma-cache --example snapshot`.
//!
//! Two caches after each other on one file stand for two runs of a program. The second one finds
//! what the first one loaded, and takes no longer than the file does to be read.

use std::time::Duration;

use tachikoma_cache::Cache;
use tachikoma_cache::store::memory::SnapshotFile;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::temp_dir().join(format!("tachikoma-{}.snapshot", std::process::id()));
    for run in ["first", "second"] {
        // Also every five minutes, for a process that is killed.
        let file = SnapshotFile::at(&path).every(Duration::from_secs(300));
        let cache = Cache::memory().snapshot(file).build()?;
        let load = || async {
            println!("loading");
            Ok::<_, std::io::Error>("Motoko".to_owned())
        };
        let user = cache.get_or_load("user:1", load).ttl(Duration::from_secs(60)).await?;
        println!("{run} run: {} ({:?})", *user, user.source());
        // Dropping the last handle would do it too; this one says whether it worked.
        println!("{} entries written", cache.save_snapshot().await?);
    }
    std::fs::remove_file(path)?;
    Ok(())
}
