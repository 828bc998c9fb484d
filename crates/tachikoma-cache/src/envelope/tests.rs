use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const OFFSET: Offset = Offset(-1500);

/// Encodes as a cache without keys and compression does.
fn encode(meta: &Meta, payload: &[u8], incarnation: u64, offset: Offset) -> Vec<u8> {
    encode_packed(meta, &Packed::plain(Bytes::copy_from_slice(payload)), incarnation, offset)
}

fn encode_packed(meta: &Meta, packed: &Packed, incarnation: u64, offset: Offset) -> Vec<u8> {
    unsigned(|seal| super::encode(meta, packed, incarnation, offset, seal))
}

fn decode(bytes: &Bytes, offset: Offset) -> Result<Decoded, Unreadable> {
    unsigned(|seal| super::decode(bytes, offset, seal))
}

fn unsigned<R>(run: impl FnOnce(Seal<'_>) -> R) -> R {
    let (space, keys) = (Namespace::default(), SignKeys::default());
    run(Seal { place: &Key::new(&space, "k").unwrap(), keys: &keys })
}

fn meta() -> Meta {
    Meta {
        soft_expiry: Some(Time::from_millis(1_700_000_030_000)),
        hard_expiry: Some(Time::from_millis(1_700_000_060_000)),
        ..Meta::new(
            Time::from_millis(1_700_000_000_000),
            TypeTag(0x0102_0304_0506_0708),
            CodecId::Json,
        )
    }
}

fn mark(group: &str, epoch: u64, counter: u64) -> Mark {
    Mark { group: Group::from_name(group), at: Snapshot { epoch, counter } }
}

fn sample() -> Vec<u8> {
    let marks = [mark("t:a", 7, 1), mark("t:b", 7, 1), mark("t:c", 7, 300)];
    let meta = Meta { marks: marks.into_iter().collect(), ..meta() };
    encode(&meta, b"{\"id\":42}", 9, OFFSET)
}

fn decoded(bytes: Vec<u8>) -> Result<Decoded, Unreadable> {
    decode(&Bytes::from(bytes), OFFSET)
}

/// The same bytes with another checksum, as an attacker or a careless program would write them.
fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.len() - CHECKSUM_BYTES;
    let checksum = unsigned(|seal| checksum(seal.place, &bytes[..end])).to_le_bytes();
    bytes[end..].copy_from_slice(&checksum);
    bytes
}

#[track_caller]
fn check_golden(meta: &Meta, payload: &[u8], expected: &str) {
    let bytes = encode(meta, payload, 0xA0A1_A2A3_A4A5_A6A7, Offset(0));
    let expected = expected.replace(' ', "");
    let digits = |at: usize| u8::from_str_radix(&expected[at..at + 2], 16).unwrap();
    let golden: Vec<u8> = (0..expected.len()).step_by(2).map(digits).collect();
    assert_eq!(bytes, golden, "{bytes:02x?}");
    let back = decode(&Bytes::from(bytes), Offset(0)).unwrap();
    assert_eq!((&back.meta, back.packed.bytes.as_ref()), (meta, payload));
    assert_eq!(back.incarnation, 0xA0A1_A2A3_A4A5_A6A7);
}

#[test]
fn version_1_keeps_its_bytes() {
    let plain = Meta { soft_expiry: None, hard_expiry: None, ..meta() };
    check_golden(
        &plain,
        b"",
        "f5544b 01 01 00 00 0807060504030201 a7a6a5a4a3a2a1a0 80d095ffbc31 00 3be7296ba04a4715",
    );
    check_golden(
        &meta(),
        b"42",
        "f5544b 01 01 00 03 0807060504030201 a7a6a5a4a3a2a1a0 80d095ffbc31 e0a499ffbc31 \
         b0ba97ffbc31 00 3432 d58b7423007402a6",
    );
    let marks = [mark("t:a", 1, 2), mark("t:b", 1, 2), mark("t:c", 3, 300)];
    let own = Meta {
        soft_expiry: meta().hard_expiry,
        codec: CodecId::Own,
        marks: marks.into_iter().collect(),
        ..meta()
    };
    check_golden(
        &own,
        b"\0\xff",
        "f5544b 01 02 00 05 0807060504030201 a7a6a5a4a3a2a1a0 80d095ffbc31 e0a499ffbc31 \
         03 06 743a61 0100000000000000 02 07 743a62 06 743a63 0300000000000000 ac02 00ff \
         7b0a0b3ee49497c0",
    );
    let nothing = Meta {
        idle: Some(Duration::from_millis(300)),
        load_time: Duration::from_millis(7),
        negative: true,
        ..plain
    };
    check_golden(
        &nothing,
        b"",
        "f5544b 01 01 00 38 0807060504030201 a7a6a5a4a3a2a1a0 80d095ffbc31 ac02 07 00 \
         95e51075516fc386",
    );
}

#[test]
fn a_load_of_less_than_a_millisecond_is_not_stored_as_unknown() {
    for (nanos, stored) in [(0, 0), (1, 1), (999_999, 1), (1_000_000, 1), (1_000_001, 2)] {
        let meta = Meta { load_time: Duration::from_nanos(nanos), ..meta() };
        let back = decoded(encode(&meta, b"", 0, OFFSET)).unwrap().meta;
        assert_eq!(back.load_time, Duration::from_millis(stored), "{nanos} ns");
    }
}

#[test]
fn a_compressed_value_keeps_its_bytes() {
    let plain = Meta { soft_expiry: None, hard_expiry: None, ..meta() };
    let packed = Packed { form: Form::Zstd, length: 300, bytes: Bytes::from_static(b"zz") };
    let bytes = encode_packed(&plain, &packed, 0, Offset(0));
    assert_eq!((bytes[5], &bytes[30..34]), (2, &b"\xac\x02zz"[..]));
    assert_eq!(decode(&Bytes::from(bytes), Offset(0)).unwrap().packed, packed);
}

#[cfg(feature = "sign")]
mod signed {
    use super::*;
    use crate::signature::SignKey;

    fn keys(sign: &str, accept: Option<&str>) -> SignKeys {
        let mut keys = SignKeys::default();
        keys.sign_with(SignKey::new(sign).unwrap());
        if let Some(key) = accept {
            keys.accept(SignKey::new(key).unwrap());
        }
        keys
    }

    fn write(keys: &SignKeys, name: &str) -> Bytes {
        let space = Namespace::default();
        let seal = Seal { place: &Key::new(&space, name).unwrap(), keys };
        let packed = Packed::plain(Bytes::from_static(b"{}"));
        super::super::encode(&meta(), &packed, 7, OFFSET, seal).into()
    }

    #[track_caller]
    fn check(keys: &SignKeys, name: &str, bytes: &Bytes, expected: Result<(), Unreadable>) {
        let space = Namespace::default();
        let seal = Seal { place: &Key::new(&space, name).unwrap(), keys };
        assert_eq!(super::super::decode(bytes, OFFSET, seal).map(drop), expected, "{name}");
    }

    /// The same bytes with the checksum of another key.
    fn moved(bytes: &Bytes, name: &str) -> Bytes {
        let (space, end) = (Namespace::default(), bytes.len() - CHECKSUM_BYTES);
        let sum = checksum(&Key::new(&space, name).unwrap(), &bytes[..end]);
        [&bytes[..end], &sum.to_le_bytes()].concat().into()
    }

    const A: &str = "key a, 16 bytes.";
    const B: &str = "key b, 16 bytes.";

    #[test]
    fn ds_23_only_who_has_a_key_writes_what_is_read() {
        let (a, b, both) = (keys(A, None), keys(B, None), keys(B, Some(A)));
        let bytes = write(&a, "k");
        check(&a, "k", &bytes, Ok(()));
        check(&both, "k", &bytes, Ok(()));
        check(&b, "k", &bytes, Err(Unreadable::WrongSignature));
        check(&a, "l", &moved(&bytes, "l"), Err(Unreadable::WrongSignature));
        check(&SignKeys::default(), "k", &bytes, Ok(()));
        let unsigned = write(&SignKeys::default(), "k");
        check(&a, "k", &unsigned, Err(Unreadable::NotSigned));
    }

    #[test]
    fn ds_23_no_byte_can_be_changed_and_the_signature_not_taken_away() {
        let a = keys(A, None);
        let bytes = write(&a, "k");
        let end = bytes.len() - CHECKSUM_BYTES;
        for place in 4..end {
            let mut changed = bytes.to_vec();
            changed[place] ^= 1;
            let space = Namespace::default();
            let seal = Seal { place: &Key::new(&space, "k").unwrap(), keys: &a };
            let result = super::super::decode(&resealed(changed).into(), OFFSET, seal);
            assert_eq!(result, Err(Unreadable::WrongSignature), "byte {place}");
        }
        let mut stripped = bytes[..end - SIGNATURE_BYTES].to_vec();
        stripped[FLAGS_AT] &= !SIGNED;
        stripped.extend_from_slice(&[0; CHECKSUM_BYTES]);
        check(&a, "k", &resealed(stripped).into(), Err(Unreadable::NotSigned));
        let short = [&bytes[..20], &[0; CHECKSUM_BYTES]].concat();
        check(&a, "k", &resealed(short).into(), Err(Unreadable::Corrupt));
    }
}

#[test]
fn nothing_with_a_value_is_corrupt() {
    let nothing = Meta { negative: true, ..meta() };
    assert!(decoded(encode(&nothing, b"", 9, OFFSET)).is_ok());
    assert_eq!(decoded(encode(&nothing, b"1", 9, OFFSET)), Err(Unreadable::Corrupt));
}

#[test]
fn ds_15_a_truncated_entry_is_corrupt_at_every_length() {
    let whole = sample();
    for length in 1..whole.len() {
        let cut = whole[..length].to_vec();
        assert_eq!(decoded(cut), Err(Unreadable::Corrupt), "{length} of {}", whole.len());
    }
    assert_eq!(decoded(Vec::new()), Err(Unreadable::NotOurs));
}

#[test]
fn ds_16_no_flipped_bit_gives_an_entry() {
    let whole = sample();
    for place in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[place / 8] ^= 1 << (place % 8);
        let result = decoded(bytes);
        let expected = match place / 8 {
            0..3 => Unreadable::NotOurs,
            // The last bit turns version 1 into 0, the others into later ones.
            3 if place % 8 == 0 => Unreadable::NotOurs,
            3 => Unreadable::NewerVersion,
            _ => Unreadable::Corrupt,
        };
        assert_eq!(result, Err(expected), "bit {place}");
    }
}

#[track_caller]
fn check_changed(place: usize, value: u8, expected: Unreadable) {
    let mut bytes = sample();
    bytes[place] = value;
    assert_eq!(decoded(resealed(bytes)), Err(expected), "byte {place} = {value}");
}

#[test]
fn an_entry_of_another_key_is_corrupt() {
    let bytes = Bytes::from(sample());
    let keys = SignKeys::default();
    for (space, name, good) in
        [("tachikoma", "k", true), ("tachikoma", "", false), ("tachikom", "ak", false)]
    {
        let space = Namespace::new(space).unwrap();
        let seal = Seal { place: &Key::new(&space, name).unwrap(), keys: &keys };
        assert_eq!(super::decode(&bytes, OFFSET, seal).is_ok(), good, "{space:?} {name:?}");
    }
}

#[test]
fn ds_20_what_this_version_does_not_know_has_its_own_reason() {
    check_changed(3, 2, Unreadable::NewerVersion);
    check_changed(4, 99, Unreadable::UnknownCodec);
    check_changed(5, 3, Unreadable::UnknownCompression);
    check_changed(6, 128, Unreadable::Corrupt);
    check_changed(6, SOFT_IS_HARD, Unreadable::Corrupt);
    check_changed(6, HARD | SOFT | SOFT_IS_HARD, Unreadable::Corrupt);
    assert_eq!(decoded(b"{\"id\":42}".to_vec()), Err(Unreadable::NotOurs));
}

#[test]
fn ds_17_lengths_that_claim_gigabytes_are_refused() {
    let mut head = sample()[..HEAD_BYTES].to_vec();
    head[6] = 0;
    put_varint(&mut head, 1);
    for (count, length) in [(u64::MAX, 0), (1, u64::MAX), (1, 8 << 30), (u64::MAX, u64::MAX)] {
        let mut bytes = head.clone();
        put_varint(&mut bytes, count);
        put_varint(&mut bytes, length);
        bytes.extend_from_slice(&[0; CHECKSUM_BYTES]);
        assert_eq!(decoded(resealed(bytes)), Err(Unreadable::Corrupt), "{count} × {length}");
    }
}

#[test]
fn the_first_mark_cannot_repeat_one_before() {
    let mut bytes = sample()[..HEAD_BYTES].to_vec();
    bytes[6] = 0;
    bytes.extend([1, 1, 1]);
    bytes.extend_from_slice(&[0; CHECKSUM_BYTES]);
    assert_eq!(decoded(resealed(bytes)), Err(Unreadable::Corrupt));
}

#[test]
fn a_number_has_at_most_64_bits() {
    for (bytes, expected) in [
        (vec![0xFF; 9], None),
        ([vec![0xFF; 9], vec![0x01]].concat(), Some(u64::MAX)),
        ([vec![0xFF; 9], vec![0x02]].concat(), None),
        (vec![0xFF; 11], None),
    ] {
        assert_eq!(Reader { rest: &bytes }.varint().ok(), expected, "{bytes:02x?}");
    }
}

#[test]
fn times_are_stored_as_the_server_has_them() {
    let bytes = Bytes::from(encode(&meta(), b"", 0, Offset(2000)));
    let elsewhere = decode(&bytes, Offset(-500)).unwrap().meta;
    assert_eq!(elsewhere.created.as_millis(), meta().created.as_millis() + 2500);
    let here = decode(&bytes, Offset(2000)).unwrap().meta;
    assert_eq!(here, meta());
}

#[test]
fn the_head_alone_tells_when_an_entry_expires() {
    let bytes = sample();
    let whole = decoded(bytes.clone()).unwrap();
    let payload_from = bytes.len() - CHECKSUM_BYTES - whole.packed.bytes.len();
    assert_eq!(decode_head(&bytes[..payload_from], OFFSET).unwrap(), whole.meta);
    assert_eq!(decode_head(&bytes[..payload_from - 1], OFFSET), Err(Unreadable::Corrupt));
}

fn any_marks() -> impl Strategy<Value = Marks> {
    let one = ("[a-z]:.{0,12}", 0..3_u64, any::<u64>())
        .prop_map(|(name, epoch, counter)| mark(&name, epoch, counter % 3 * (u64::MAX / 3)));
    let marks = || prop::collection::vec(one.clone(), 0..6);
    let foreign = prop::collection::vec(("[a-z]{1,3}", marks()), 0..3);
    (marks(), foreign).prop_map(|(own, foreign)| {
        let foreign: BTreeMap<_, _> = foreign.into_iter().collect();
        let space = |(name, marks): (String, _)| (Namespace::new(&name).unwrap(), marks);
        Marks::stored(own, foreign.into_iter().map(space).collect())
    })
}

fn any_meta() -> impl Strategy<Value = Meta> {
    // Far enough from both ends that no offset has to be cut off.
    let time = || (1_u64 << 40..1 << 50).prop_map(Time::from_millis);
    let expiry = || prop::option::of(time());
    let codec = prop_oneof![Just(CodecId::Json), Just(CodecId::Own)];
    let span = || (0_u64..1 << 40).prop_map(Duration::from_millis);
    let loaded = (span(), prop::option::of(span()), any::<bool>());
    (time(), expiry(), expiry(), any::<bool>(), any::<u64>(), codec, any_marks(), loaded).prop_map(
        |(created, hard_expiry, soft, same, tag, codec, marks, (load_time, idle, negative))| Meta {
            soft_expiry: if same { hard_expiry } else { soft },
            hard_expiry,
            marks,
            load_time,
            idle,
            negative,
            ..Meta::new(created, TypeTag(tag), codec)
        },
    )
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(
        meta in any_meta(),
        payload in prop::collection::vec(any::<u8>(), 0..200),
        form in prop_oneof![Just(Form::Plain), Just(Form::Lz4), Just(Form::Zstd)],
        length: u64,
        incarnation: u64,
        offset in -(1_i64 << 39)..1 << 39,
    ) {
        let packed = match form {
            _ if meta.negative => Packed::plain(Bytes::new()),
            Form::Plain => Packed::plain(payload.into()),
            _ => Packed { form, length, bytes: payload.into() },
        };
        let bytes = Bytes::from(encode_packed(&meta, &packed, incarnation, Offset(offset)));
        let back = decode(&bytes, Offset(offset)).unwrap();
        prop_assert_eq!(back, Decoded { meta, incarnation, packed });
    }

    /// Whatever is changed, with the checksum made good again: an answer, never a panic.
    #[test]
    fn changed_bytes_are_decoded_or_refused(
        meta in any_meta(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut: prop::sample::Index,
    ) {
        let payload: &[u8] = if meta.negative { b"" } else { b"payload" };
        let mut bytes = encode(&meta, payload, 1, Offset(0));
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        bytes.truncate(CHECKSUM_BYTES + cut.index(bytes.len() - CHECKSUM_BYTES + 1));
        let bytes = Bytes::from(resealed(bytes));
        let _ = decode_head(&bytes, Offset(i64::MIN));
        if let Ok(entry) = decode(&bytes, Offset(i64::MAX)) {
            prop_assert!(entry.packed.bytes.len() < bytes.len());
        }
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut framed = vec![0xF5, b'T', b'K', 1, 1, 0];
        framed.extend_from_slice(&bytes);
        framed.extend_from_slice(&[0; CHECKSUM_BYTES]);
        let _ = decoded(resealed(framed));
        prop_assert!(decoded(bytes).is_err());
    }
}
