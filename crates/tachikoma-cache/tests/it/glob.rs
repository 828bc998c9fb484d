//! The glob against the matcher that it must equal: a live Redis.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tachikoma_cache::glob::Glob;
use tachikoma_testkit::{Connection, RedisServer, Resp};

const KEYS: usize = 400;
const PATTERNS: usize = 400;

/// Letters that meet often, every character with a meaning, and some of two and three bytes.
const ALPHABET: &[char] = &[
    'a', 'b', 'c', 'z', '0', '9', ':', '*', '?', '[', ']', '^', '-', '\\', '{', '}', ',', '!', 'é',
    'ü', '東', '\u{7f}', '\n', ' ',
];

fn text(random: &mut StdRng, length: std::ops::Range<usize>) -> String {
    let length = random.random_range(length);
    (0..length).map(|_| ALPHABET[random.random_range(0..ALPHABET.len())]).collect()
}

/// A pattern that has a fair chance: a key with some of its characters turned into wildcards.
fn near(random: &mut StdRng, key: &str) -> String {
    let mut pattern = String::new();
    for character in key.chars() {
        match random.random_range(0..10) {
            0 => pattern.push('*'),
            1 => pattern.push('?'),
            2 => pattern.extend(['[', character, ']']),
            3 => pattern.extend(['[', '^', character, ']']),
            4 => pattern.extend(['[', 'a', '-', character, ']']),
            5 => pattern.extend(['[', character, '-', 'z', ']']),
            6 => pattern.extend(['\\', character]),
            7 => pattern.extend(['[', '\\', character, 'b', ']']),
            _ => pattern.push(character),
        }
    }
    match random.random_range(0..4) {
        0 => pattern.push('*'),
        1 => drop(pattern.pop()),
        _ => {}
    }
    pattern
}

/// What Redis finds among the keys it holds.
fn redis(connection: &mut Connection, pattern: &str) -> Vec<Vec<u8>> {
    let reply = connection.command(&["KEYS", pattern]).unwrap();
    let mut found: Vec<_> = reply.array().iter().map(bytes).collect();
    found.sort();
    found
}

fn bytes(reply: &Resp) -> Vec<u8> {
    match reply {
        Resp::Bulk(bytes) => bytes.clone(),
        other => panic!("expected bytes, got {other:?}"),
    }
}

#[test]
fn patterns_match_in_this_library_what_they_match_in_redis() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let mut random = StdRng::seed_from_u64(338);

    let mut keys: Vec<String> = (0..KEYS).map(|_| text(&mut random, 1..9)).collect();
    keys.sort();
    keys.dedup();
    for key in &keys {
        connection.command(&["SET", key, "v"]).unwrap();
    }
    let mut matches = 0;
    for round in 0..PATTERNS {
        let pattern = if round % 2 == 0 {
            text(&mut random, 0..12)
        } else {
            let key = &keys[random.random_range(0..keys.len())];
            near(&mut random, key)
        };
        let glob = Glob::new(&pattern).unwrap();
        let ours: Vec<Vec<u8>> = keys
            .iter()
            .map(|key| key.as_bytes().to_vec())
            .filter(|key| glob.matches(key))
            .collect();
        assert_eq!(ours, redis(&mut connection, &pattern), "{pattern:?}");
        matches += ours.len();
    }
    let pairs = keys.len() * PATTERNS;
    assert!(pairs >= 20_000, "only {pairs} pairs");
    // A comparison of nothing with nothing would pass too.
    assert!(matches >= 1_000, "only {matches} of {pairs} pairs matched");
}

#[test]
fn every_byte_against_every_small_set_is_as_in_redis() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let keys: Vec<Vec<u8>> = (0..=u8::MAX).map(|byte| vec![byte]).collect();
    for key in &keys {
        connection.command(&[b"SET", key.as_slice(), b"v"]).unwrap();
    }
    let letters = ["a", "z", "]", "^", "-", "\\", "[", "é", "~"];
    let mut sets = vec![String::new()];
    for _ in 0..3 {
        sets = sets.iter().flat_map(|set| letters.map(|letter| format!("{set}{letter}"))).collect();
    }
    let patterns = sets.iter().flat_map(|set| [format!("[{set}]"), format!("[{set}")]);
    for pattern in patterns {
        let glob = Glob::new(&pattern).unwrap();
        let ours: Vec<Vec<u8>> = keys.iter().filter(|key| glob.matches(key)).cloned().collect();
        assert_eq!(ours, redis(&mut connection, &pattern), "{pattern:?}");
    }
}

#[test]
fn the_two_known_differences_are_still_there() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    connection.command(&["SET", "", "v"]).unwrap();
    assert_eq!(redis(&mut connection, "*"), [b""]);
    assert_eq!(redis(&mut connection, "**"), [b""; 0]);
    assert!(Glob::new("**").unwrap().matches(b""));

    let key = "a".repeat(1_500);
    connection.command(&["SET", &key, "v"]).unwrap();
    let (shallow, deep) = ("*a".repeat(900), "*a".repeat(1_100));
    assert_eq!(redis(&mut connection, &shallow), [key.as_bytes()]);
    assert_eq!(redis(&mut connection, &deep), [b""; 0]);
    assert!(Glob::new(&shallow).unwrap().matches(key.as_bytes()));
    assert!(Glob::new(&deep).unwrap().matches(key.as_bytes()));
}
