use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

const LIMIT: usize = 64 << 20;

/// Those that this build has.
fn available() -> Vec<Compression> {
    let all = [Compression::None, Compression::Lz4, Compression::ZSTD];
    all.into_iter().filter(|compression| compression.check().is_ok()).collect()
}

fn packing(compression: Compression) -> Packing {
    Packing { compression, ..Packing::default() }
}

/// About as repetitive as the JSON of a list.
fn text(bytes: usize) -> Bytes {
    let mut text = String::new();
    for id in (0..100_003_u64).map(|id| id * 7919 % 100_003) {
        if text.len() >= bytes {
            break;
        }
        write!(text, "{{\"id\":{id},\"status\":\"open\"}},").unwrap();
    }
    text.truncate(bytes);
    text.into()
}

#[test]
fn only_what_is_long_and_becomes_shorter_is_compressed() {
    let noise: Vec<u8> = (0..5000_u64)
        .flat_map(|i| xxhash_rust::xxh3::xxh3_64(&i.to_le_bytes()).to_le_bytes())
        .collect();
    for compression in available() {
        let packing = packing(compression);
        assert_eq!(packing.pack(text(1024)).form, Form::Plain, "{compression:?}");
        let packed = packing.pack(text(10_000));
        let compressed = compression != Compression::None;
        assert_eq!(packed.form != Form::Plain, compressed, "{compression:?}");
        if compressed {
            assert!(packed.bytes.len() < 6_000, "{compression:?}: {}", packed.bytes.len());
        }
        assert_eq!(packed.unpack(LIMIT).unwrap(), text(10_000));
        let stays = packing.pack(noise.clone().into());
        assert_eq!(stays.form, Form::Plain, "{compression:?}");
    }
}

#[test]
fn what_would_look_like_a_bomb_is_not_made() {
    for compression in available() {
        let zeros = Bytes::from(vec![0; 4 << 20]);
        let packed = packing(compression).pack(zeros.clone());
        assert_eq!(packed.unpack(LIMIT).unwrap(), zeros, "{compression:?}");
    }
}

#[test]
fn a_value_above_the_limit_is_not_inflated() {
    for compression in available().into_iter().filter(|c| *c != Compression::None) {
        let packed = packing(compression).pack(text(100_000));
        assert_eq!(packed.clone().unpack(99_999), Err(Stuck::TooLarge), "{compression:?}");
        assert!(packed.unpack(100_000).is_ok(), "{compression:?}");
    }
}

#[test]
fn a_length_that_is_not_true_is_corrupt() {
    for compression in available().into_iter().filter(|c| *c != Compression::None) {
        let packed = packing(compression).pack(text(100_000));
        let most = packed.bytes.len() as u64 * MAX_RATIO as u64;
        for length in [0, 1, 99_999, 100_001, most, most + 1, u64::MAX] {
            let lying = Packed { length, ..packed.clone() };
            assert_eq!(lying.unpack(usize::MAX), Err(Stuck::Corrupt), "{compression:?} {length}");
        }
    }
}

#[test]
fn what_this_build_cannot_inflate_says_so() {
    for (form, compression) in [(Form::Lz4, Compression::Lz4), (Form::Zstd, Compression::ZSTD)] {
        let packed = Packed { form, length: 20, bytes: Bytes::from_static(b"????????") };
        let expected = match compression.check() {
            Ok(()) => Stuck::Corrupt,
            Err(error) => {
                assert!(error.to_string().contains("feature"), "{error}");
                Stuck::NoFeature
            }
        };
        assert_eq!(packed.unpack(LIMIT), Err(expected));
    }
}

#[test]
fn a_compression_has_a_name_and_maybe_a_level() {
    for (name, expected) in [
        ("none", Compression::None),
        ("lz4", Compression::Lz4),
        ("zstd", Compression::ZSTD),
        ("zstd:19", Compression::Zstd { level: 19 }),
    ] {
        assert_eq!(name.parse(), Ok(expected), "{name}");
    }
    for bad in ["", "gzip", "lz4:3", "zstd:", "zstd:x", "zstd:-1", "ZSTD"] {
        assert!(bad.parse::<Compression>().is_err(), "{bad}");
    }
    for level in [0, 20] {
        assert_eq!(Compression::Zstd { level }.check().unwrap_err().kind(), ErrorKind::Config);
    }
}

proptest! {
    #[test]
    fn what_is_packed_is_unpacked(
        pieces in prop::collection::vec((any::<u8>(), 1..600_usize), 0..40), above in 0..2000_usize,
    ) {
        let plain: Vec<u8> =
            pieces.iter().flat_map(|(byte, times)| std::iter::repeat_n(*byte, *times)).collect();
        for compression in available() {
            let packed = Packing { compression, above }.pack(plain.clone().into());
            prop_assert!(packed.bytes.len() <= plain.len());
            prop_assert_eq!(&packed.unpack(LIMIT).unwrap(), &plain);
        }
    }

    #[test]
    fn any_bytes_are_inflated_within_their_length_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..200), length in 0..50_000_u64, lz4: bool,
    ) {
        let form = if lz4 { Form::Lz4 } else { Form::Zstd };
        if let Ok(plain) = (Packed { form, length, bytes: bytes.into() }).unpack(40_000) {
            prop_assert_eq!(plain.len() as u64, length);
            prop_assert!(length <= 40_000);
        }
    }
}
