//! Smaller values in Redis: MessagePack in place of JSON, and compressed.
//! `cargo run -p tachikoma-cache --features msgpack,lz4 --example compact`.
//!
//! It starts a Redis server for itself; a program names its own. Both settings may change while a
//! fleet runs: every process with the features reads what each other wrote.
// xtask: run

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tachikoma_cache::{Cache, Codec};
use tachikoma_testkit::RedisServer;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Reading {
    station: String,
    celsius: f64,
    humidity: u8,
}

fn readings() -> Vec<Reading> {
    let reading = |hour: u8| Reading {
        station: "Niihama".to_owned(),
        celsius: 21.5 + f64::from(hour % 7),
        humidity: 60 + hour % 5,
    };
    (0..240).map(reading).collect()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = RedisServer::start();
    let url = |settings: &str| format!("{}?namespace=weather{settings}", server.url());
    let mut sizes = Vec::new();
    for (what, cache) in [
        ("JSON", Cache::connect(&url("")).await?),
        ("MessagePack", Cache::connect(&url("")).codec(Codec::MessagePack).await?),
        ("JSON, LZ4", Cache::connect(&url("&compression=lz4")).await?),
        ("MessagePack, LZ4", Cache::connect(&url("&codec=msgpack&compression=lz4")).await?),
    ] {
        cache.set("today", readings(), Duration::from_secs(60)).await?;
        let bytes = server.command(&["STRLEN", "weather:{vtoday}"]).integer();
        println!("{bytes:>6} bytes  {what}");
        sizes.push(bytes);
        // Whoever wrote it: this reader is set to JSON without compression.
        let reader = Cache::connect(&url("")).await?;
        let read = reader.get::<Vec<Reading>>("today").await?.ok_or("it was stored")?;
        assert_eq!(*read, readings());
    }
    assert!(sizes[1] < sizes[0] && sizes[2] < sizes[0] / 2 && sizes[3] < sizes[1] / 2);
    Ok(())
}
