//! Replies and entries that are cut short, changed, or of somebody else.

use tachikoma_cache::ErrorKind;
use tachikoma_testkit::{Connection, Fault, FaultRow};

use super::*;

/// What a connection gives for a key whose value is known.
async fn read(cache: &Cache, key: &str, value: &str) -> (bool, bool) {
    let found = cache.get::<String>(key).await;
    let wrong = matches!(&found, Ok(Some(found)) if **found != *value);
    let own = value.to_owned();
    let loaded = cache.get_or_load(key, move || async move { Ok::<_, Infallible>(own) }).await;
    (wrong, loaded.is_ok_and(|loaded| **loaded == *value))
}

/// Breaks the replies to each of these connections at another byte.
async fn broken_replies(row: &mut FaultRow, places: u64, fault: impl Fn(u64) -> Fault) {
    let rig = Rig::start().await;
    let value = "0123456789".repeat(16);
    rig.cache.set("k", value.clone(), MINUTE).await.unwrap();
    let (mut wrong, mut failed) = (0, 0);
    for place in 0..places {
        rig.proxy.set(Fault::Pass);
        let cache = ready(rig.proxy.port()).await;
        rig.proxy.set(fault(place));
        let (is_wrong, loaded) = read(&cache, "k", &value).await;
        wrong += u64::from(is_wrong);
        failed += u64::from(!loaded);
    }
    row.count(&format!("get, wrong values at {places} places"), 0, wrong);
    row.count(&format!("get_or_load, failures at {places} places"), 0, failed);
    rig.proxy.set(Fault::Pass);
    row.at_most("recovery", ms(2000), recovery(&rig.cache).await);
}

#[tokio::test]
async fn fm_04_a_reply_that_is_cut() {
    let mut row = FaultRow::new("FM-04", "the connection ends after byte k of a reply, k < 200");
    broken_replies(&mut row, 200, Fault::CutAfter).await;
    row.report();
}

#[tokio::test]
async fn fm_04_a_request_that_is_cut() {
    let mut row = FaultRow::new("FM-04", "the connection ends after byte k of a request, k < 200");
    let rig = Rig::start().await;
    let direct = ready(rig.server.port()).await;
    let (mut torn, mut forgotten) = (0, 0);
    for place in 0..200 {
        rig.proxy.set(Fault::Pass);
        let cache = ready(rig.proxy.port()).await;
        direct.set("k", "old".to_owned(), MINUTE).await.unwrap();
        rig.proxy.set(Fault::CutRequestsAfter(place));
        if place % 2 == 0 {
            // A transaction of about 190 bytes.
            let _ = cache.set("k", "new".to_owned(), MINUTE).await;
            let found = direct.get::<String>("k").await.unwrap();
            torn += u64::from(!found.is_some_and(|found| *found == "old" || *found == "new"));
        } else {
            let _ = cache.delete("k").await;
            rig.proxy.set(Fault::Pass);
            soon("up", ms(3000), async || cache.health() == Health::Up).await;
            soon("delivered", ms(3000), async || cache.stats().pending_invalidations == 0).await;
            forgotten += u64::from(direct.exists("k").await.unwrap());
        }
    }
    row.count("set, neither the old nor the new value at 100 places", 0, torn);
    row.count("delete, not carried out in the end at 100 places", 0, forgotten);
    row.report();
}

#[tokio::test]
async fn fm_13_a_reply_that_is_changed() {
    let mut row = FaultRow::new("FM-13", "byte k of a reply is changed on its way, k < 230");
    broken_replies(&mut row, 230, Fault::CorruptAt).await;
    row.report();
}

/// The bytes of an entry, and a way to put others in their place.
struct Stored {
    rig: Rig,
    redis: Connection,
    bytes: Vec<u8>,
}

impl Stored {
    async fn new() -> Self {
        let rig = Rig::start().await;
        rig.cache.set("k", "the right value".to_owned(), MINUTE).await.unwrap();
        let mut redis = rig.server.connection();
        let bytes = redis.command(&["GET", "test:{vk}"]).unwrap();
        let tachikoma_testkit::Resp::Bulk(bytes) = bytes else { panic!("{bytes:?}") };
        Self { rig, redis, bytes }
    }

    /// Whether a read of these bytes is a miss.
    async fn is_miss(&mut self, bytes: &[u8]) -> bool {
        self.redis.command(&[b"SET".as_slice(), b"test:{vk}", bytes]).unwrap();
        matches!(self.rig.cache.get::<String>("k").await, Ok(None))
    }

    fn undecodable(&self) -> u64 {
        self.rig.cache.stats().errors.of(ErrorKind::Undecodable)
    }
}

#[tokio::test]
async fn fm_13_entries_that_are_damaged() {
    let mut stored = Stored::new().await;
    let mut row = FaultRow::new("FM-13", "an entry is truncated or changed where it is stored");
    let whole = stored.bytes.clone();
    let mut shown = 0;
    for length in 0..whole.len() {
        shown += u64::from(!stored.is_miss(&whole[..length]).await);
    }
    row.count(&format!("get, truncated at {} lengths, values shown", whole.len()), 0, shown);
    let bits = whole.len() * 8;
    let mut shown = 0;
    for bit in 0..bits {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        shown += u64::from(!stored.is_miss(&bytes).await);
    }
    row.count(&format!("get, one of {bits} bits changed, values shown"), 0, shown);
    let counted = stored.undecodable();
    let least = (whole.len() + bits) as u64;
    row.holds("counted as undecodable", &format!("≥ {least}"), counted, counted >= least);
    let (good, _) = load(&stored.rig.cache, "k").await;
    row.holds("get_or_load", "ok", if good { "ok" } else { "failed" }, good);
    row.report();
}

#[tokio::test]
async fn fm_13_entries_of_others() {
    let mut stored = Stored::new().await;
    let mut row = FaultRow::new("FM-13", "another version, codec, type or program wrote the entry");
    let mut newer = stored.bytes.clone();
    newer[3] = 99;
    let foreign: [(&str, Vec<u8>); 4] = [
        ("a newer version", newer.clone()),
        ("text", b"{\"json\":true}".to_vec()),
        ("nothing", Vec::new()),
        ("4 MiB of one byte", vec![0xF5; 4 << 20]),
    ];
    for (what, bytes) in foreign {
        let miss = stored.is_miss(&bytes).await;
        row.holds(&format!("get, {what}"), "a miss", if miss { "a miss" } else { "shown" }, miss);
    }
    stored.is_miss(&newer).await;
    pause(ms(50)).await;
    let kept = stored.redis.command(&["EXISTS", "test:{vk}"]).unwrap().integer();
    row.holds("a newer version's entry", "kept", kept, kept == 1);
    let bytes = stored.bytes.clone();
    stored.redis.command(&[b"SET".as_slice(), b"test:{vk}", &bytes]).unwrap();
    let other = stored.rig.cache.get::<Vec<u64>>("k").await;
    let miss = matches!(other, Ok(None));
    row.holds("get, as another type", "a miss", if miss { "a miss" } else { "shown" }, miss);
    let (good, _) = load(&stored.rig.cache, "k").await;
    row.holds("get_or_load, as another type", "ok", if good { "ok" } else { "failed" }, good);
    row.report();
}

#[tokio::test]
async fn fm_12_something_else_at_the_key() {
    measured(async || {
        let rig = Rig::start().await;
        let mut row = FaultRow::new("FM-12", "a list lives at the keys");
        let mut redis = rig.server.connection();
        for key in ["known", "s", "d", "p1", "f"] {
            redis.command(&["RPUSH", &format!("test:{{v{key}}}"), "x"]).unwrap();
        }
        redis.command(&["CONFIG", "RESETSTAT"]).unwrap();
        let known = rig.cache.get::<u64>("known").await;
        let miss = matches!(known, Ok(None));
        row.holds("get, the value", "a miss", if miss { "a miss" } else { told(&known) }, miss);
        Six::of(&rig.cache).await.report(&mut row, ["ok"; 6], ms(300));
        let counted = rig.cache.stats().errors.of(ErrorKind::Undecodable);
        row.holds("counted as undecodable", "≥ 2", counted, counted >= 2);
        let stored = rig.cache.get::<u64>("s").await.is_ok_and(|value| value.is_some());
        row.holds("set, read back", "the value", stored, stored);
        let left = ["d", "p1"].map(|key| format!("test:{{v{key}}}"));
        let left = redis.command(&["EXISTS", &left[0], &left[1]]).unwrap().integer();
        row.count("delete and delete_pattern, left", 0, u64::try_from(left).unwrap());
        let commands = u64::try_from(rig.server.info("total_commands_processed")).unwrap();
        row.count("commands for eight calls", 80, commands);
        row
    })
    .await;
}
