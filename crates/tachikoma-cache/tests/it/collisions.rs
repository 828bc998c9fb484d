//! DS-32: keys that somebody chose to meet in a table cost no more than any others.
//!
//! 20,000 keys here; `TACHIKOMA_COLLISIONS=100000` makes it as many as the catalogue asks for.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::FutureExt as _;
use tachikoma_cache::{Cache, Ttl};
use tachikoma_testkit::Stopwatch;

/// The low bits in which the keys of [`meeting_in_fnv`] are equal: those that choose a place.
const BITS: u64 = (1 << 20) - 1;

fn count() -> usize {
    std::env::var("TACHIKOMA_COLLISIONS").map_or(20_000, |n| n.parse().unwrap())
}

/// One step of the hash that rustc uses.
fn fx(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95)
}

fn fnv(hash: u64, text: &str) -> u64 {
    text.bytes().fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

/// Two words each; the second undoes what the first did. Of those the ones that are ASCII.
fn meeting_in_fx() -> Vec<String> {
    let seven = |n: u64, place: u64| (n >> (7 * place) & 0x7f) << (8 * place);
    let first = |n: u64| seven(n, 0) | seven(n, 1) | seven(n, 2) | seven(n, 3);
    let undone = (1_u64..).filter_map(|n| {
        let word = first(n);
        let second = fx(0, word).rotate_left(5);
        let fits = second & 0x8080_8080_8080_8080 == 0;
        let bytes = || [word.to_le_bytes(), second.to_le_bytes()].concat();
        fits.then(|| String::from_utf8(bytes()).unwrap())
    });
    undone.take(count()).collect()
}

/// Seventeen places with a choice between two texts each, after both of which the low bits are the
/// same: enough for 131,072 keys.
fn meeting_in_fnv() -> Vec<String> {
    let mut state = FNV_START;
    let choices: Vec<[String; 2]> = (0..17)
        .map(|_| {
            let mut seen: HashMap<u64, String> = HashMap::new();
            let pair = (0_u64..).find_map(|n| {
                let text = format!("{n:06}");
                let other = seen.insert(fnv(state, &text) & BITS, text.clone())?;
                Some([other, text])
            });
            let pair = pair.unwrap();
            state = fnv(state, &pair[0]);
            pair
        })
        .collect();
    let chosen = |n: usize| {
        let texts = choices.iter().enumerate().map(move |(place, pair)| &pair[n >> place & 1]);
        texts.map(String::as_str).collect()
    };
    (0..count()).map(chosen).collect()
}

/// As long as the others, and nobody's choice.
fn ordinary(length: usize) -> Vec<String> {
    (0..count()).map(|n| format!("{n:0length$}")).collect()
}

/// The shortest time of three.
fn filling(keys: &[String]) -> Duration {
    let fill = || {
        let cache = Cache::memory().max_entries(1 << 20).max_bytes(1 << 30).build().unwrap();
        let watch = Stopwatch::start();
        for key in keys {
            cache.set(key, 1_u8, Ttl::Never).into_future().now_or_never().unwrap().unwrap();
        }
        let took = watch.elapsed();
        assert_eq!(cache.stats().size, Some(keys.len() as u64));
        took
    };
    (0..3).map(|_| fill()).min().unwrap()
}

#[track_caller]
fn check(what: &str, keys: &[String]) {
    let (chosen, usual) = (filling(keys), filling(&ordinary(keys[0].len())));
    println!("{what}: {chosen:?}; keys that nobody chose: {usual:?}");
    assert!(chosen <= usual * 3, "{what}: {chosen:?} and not {usual:?}");
}

#[test]
fn ds_32_keys_that_all_have_one_fx_hash_are_stored_as_fast_as_others() {
    let keys = meeting_in_fx();
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    let hash = |key: &String| {
        let (first, second) = key.as_bytes().split_at(8);
        fx(fx(0, word(first)), word(second))
    };
    assert!(keys.iter().all(|key| hash(key) == hash(&keys[0])), "they meet");
    check("one FxHash", &keys);
}

#[test]
fn ds_32_keys_that_all_have_one_place_by_fnv_are_stored_as_fast_as_others() {
    let keys = meeting_in_fnv();
    let place = |key: &String| fnv(FNV_START, key) & BITS;
    assert!(keys.iter().all(|key| place(key) == place(&keys[0])), "they meet");
    check("one place by FNV-1a", &keys);
}
