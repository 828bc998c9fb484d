use std::path::Path;

use bytes::Bytes;

use super::mutate::Mutator;
use super::stored::Node;
use super::*;
use crate::clock::Time;
use crate::codec::{Codec, Codecs, TypeOps};
use crate::compression::{Compression, Packed, Packing};
use crate::entry::{Entry, Meta};
use crate::envelope::{self, Offset, Seal};
use crate::invalidation::{Group, Mark, Marks, Snapshot};
use crate::key::Key;
use crate::signature::SignKeys;

/// How many changed inputs of each kind; `TACHIKOMA_MUTATIONS` and `TACHIKOMA_SEED` say otherwise.
const MUTATIONS: u64 = 100_000;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// The most that the process has held, in bytes.
fn most_held() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// Runs `check` for one part in `share` of the mutations, and says what the memory did meanwhile.
fn bounded(what: &str, share: u64, check: impl FnOnce(&mut Mutator, u64)) {
    let seed = number("TACHIKOMA_SEED", 1);
    let times = number("TACHIKOMA_MUTATIONS", MUTATIONS) / share;
    let before = most_held();
    check(&mut Mutator::new(seed), times);
    let grown = most_held() - before;
    println!("{times} {what}, seed {seed}: {} KiB more", grown / 1024);
    assert!(grown < 32 << 20, "{grown} bytes more");
}

fn sign_keys() -> SignKeys {
    let mut keys = SignKeys::default();
    if let Ok(key) = crate::signature::SignKey::new("0123456789abcdef") {
        keys.sign_with(key);
    }
    keys
}

fn value_bytes(codec: Codec) -> Option<(Meta, Bytes)> {
    let mut codecs = Codecs::default();
    codecs.write_with(codec);
    codecs.check().ok()?;
    let text = |i: u32| Node::Text(format!("mission {i} of a fleet"));
    let value = Node::List(vec![
        Node::List((0..12).map(text).collect()),
        Node::Numbers { signed: -1, float: Some(0.5) },
        Node::Next(Box::new(Node::Leaf)),
    ]);
    let ops = TypeOps::by::<Node>(&codecs);
    let meta = Meta::new(Time::from_millis(1_700_000_000_000), ops.tag, ops.codec);
    let entry = Entry::of(meta.clone(), std::sync::Arc::new(value), ops.encode, ops.weigh);
    Some((meta, entry.bytes().unwrap()))
}

/// Entries as every setting of this build writes them.
fn entries(keys: &SignKeys, place: &Key<'_>) -> Vec<Vec<u8>> {
    let at = |counter| Snapshot { epoch: 7, counter };
    let mark = |name: &str, counter| Mark { group: Group::from_name(name), at: at(counter) };
    let own = vec![mark("t:a", 1), mark("t:b", 1), mark("t:c", 300)];
    let other = (Namespace::new("other").unwrap(), vec![mark("k:00ff", 2), mark("k:*", 2)]);
    let marks = Marks::stored(own, vec![other]);
    let mut all = Vec::new();
    for (meta, bytes) in [Codec::Json, Codec::MessagePack].into_iter().filter_map(value_bytes) {
        for compression in [Compression::None, Compression::Lz4, Compression::ZSTD] {
            let packing = Packing { compression, above: 64 };
            let packed = packing.pack(bytes.clone());
            let later = Some(Time::from_millis(1_800_000_000_000));
            let meta = Meta {
                hard_expiry: later,
                soft_expiry: later,
                marks: marks.clone(),
                load_time: std::time::Duration::from_millis(300),
                ..meta.clone()
            };
            for meta in [meta.clone(), Meta { soft_expiry: None, marks: Marks::default(), ..meta }]
            {
                all.push(envelope::encode(&meta, &packed, 9, Offset(0), Seal { place, keys }));
            }
        }
        let nothing = Meta { negative: true, ..meta };
        let packed = Packed::plain(Bytes::new());
        all.push(envelope::encode(&nothing, &packed, 9, Offset(0), Seal { place, keys }));
    }
    all
}

#[test]
fn changed_envelopes_are_never_a_wrong_value() {
    let (space, none, some) = (Namespace::default(), SignKeys::default(), sign_keys());
    let place = Key::new(&space, "k").unwrap();
    let (plain, signed) = (entries(&none, &place), entries(&some, &place));
    let signing = some.are_needed();
    bounded("changed envelopes", 1, |mutator, times| {
        for _ in 0..times {
            let (which, other) = (mutator.below(plain.len()), mutator.below(plain.len()));
            let changed = mutator.mutate(&plain[which], &plain[other]);
            if !plain.contains(&changed) {
                let seal = Seal { place: &place, keys: &none };
                let result = envelope::decode(&changed.clone().into(), Offset(0), seal);
                assert!(result.is_err(), "{changed:02x?}");
            }
            // With the checksum made good, as an attacker would: an answer, never a panic.
            envelope(&changed[..changed.len().saturating_sub(envelope::CHECKSUM_BYTES)]);
            if signing {
                let changed = mutator.mutate(&signed[which], &signed[other]);
                let content = &changed[..changed.len().saturating_sub(envelope::CHECKSUM_BYTES)];
                let sealed = envelope::resealed(content, &place);
                if !signed.contains(&sealed) {
                    let seal = Seal { place: &place, keys: &some };
                    let result = envelope::decode(&sealed.clone().into(), Offset(0), seal);
                    assert!(result.is_err(), "{sealed:02x?}");
                }
            }
        }
    });
}

/// Answers of each kind that RESP3 has, around good and bad entries.
fn replies(entry: &[u8], foreign: &[u8]) -> Vec<Vec<u8>> {
    let bulk = |bytes: &[u8]| [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    let (good, bad) = (bulk(entry), bulk(foreign));
    let texts: [&[u8]; 19] = [
        b"$-1\r\n",
        b"_\r\n",
        b"+OK\r\n",
        b":42\r\n",
        b"-ERR unknown command\r\n",
        b"-WRONGTYPE Operation against a key\r\n",
        b"-LOADING Redis is loading\r\n",
        b"#t\r\n",
        b",1.5\r\n",
        b"(3492890328409238509324850943850943825024385\r\n",
        b"=8\r\ntxt:text\r\n",
        b"!9\r\nERR wrong\r\n",
        b"%1\r\n+a\r\n:1\r\n",
        b"~2\r\n:1\r\n:2\r\n",
        b">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n",
        b"*-1\r\n",
        b"*0\r\n",
        b"$0\r\n\r\n",
        b"|1\r\n+ttl\r\n:1\r\n+OK\r\n",
    ];
    let mut all: Vec<Vec<u8>> = texts.iter().map(|text| text.to_vec()).collect();
    all.push([b"*3\r\n", good.as_slice(), b"$-1\r\n", &bad].concat());
    all.push([b"*1\r\n".repeat(90), good.clone()].concat());
    all.push([b"*1\r\n".repeat(10_000), good.clone()].concat());
    // Most of them are what a read gets.
    for _ in 0..all.len() {
        all.push(good.clone());
        all.push(bad.clone());
    }
    all
}

#[test]
fn changed_replies_are_never_a_wrong_value() {
    let (space, keys) = (Namespace::default(), SignKeys::default());
    let (place, other) = (Key::new(&space, "k").unwrap(), Key::new(&space, "l").unwrap());
    let ours = entries(&keys, &place);
    let good = replies(&ours[0], &entries(&keys, &other)[0]);
    bounded("changed replies", 1, |mutator, times| {
        let mut values = 0;
        for _ in 0..times {
            let (which, with) = (mutator.below(good.len()), mutator.below(good.len()));
            let changed = mutator.mutate(&good[which], &good[with]);
            reply(&changed);
            for text in crate::store::redis::fuzzing::texts(&changed) {
                let seal = Seal { place: &place, keys: &keys };
                if envelope::decode(&text.clone().into(), Offset(0), seal).is_ok() {
                    assert_eq!(text, ours[0], "{changed:02x?}");
                    values += 1;
                }
            }
        }
        println!("{values} of them still held the value");
        assert!(values > 0, "or nothing was read at all");
    });
}

/// The functions that take any bytes, with what was kept of earlier runs, and with changes of it.
#[track_caller]
fn check_corpus(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let files =
        std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let inputs: Vec<Vec<u8>> =
        files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
    assert!(!inputs.is_empty(), "{} is empty", folder.display());
    for input in &inputs {
        target(input);
    }
    bounded(name, 20, |mutator, times| {
        for _ in 0..times {
            let (which, other) = (mutator.below(inputs.len()), mutator.below(inputs.len()));
            target(&mutator.mutate(&inputs[which], &inputs[other]));
        }
    });
}

#[test]
fn the_corpora_of_the_fuzzers_break_no_law() {
    check_corpus("envelope", envelope);
    check_corpus("key", key);
    check_corpus("glob", glob);
    check_corpus("value", value);
    check_corpus("packed", packed);
    check_corpus("reply", reply);
}
