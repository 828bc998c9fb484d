use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::clock::Time;
use crate::custom_codec::{Plain, Slot};
use crate::entry::Meta;
use crate::error::BoxError;

/// JSON with a letter before it, so that no other codec reads it.
#[derive(Debug)]
struct Lettered(u8);

impl CustomCodec for Lettered {
    fn id(&self) -> u8 {
        self.0
    }

    fn name(&self) -> &'static str {
        if self.0 == 200 { "lettered" } else { "other" }
    }

    fn encode(&self, value: Plain<'_>) -> Result<Vec<u8>, BoxError> {
        let mut bytes = vec![b'L'];
        serde_json::to_writer(&mut bytes, &value)?;
        Ok(bytes)
    }

    fn decode(&self, bytes: &[u8], slot: Slot<'_>) -> Result<(), BoxError> {
        match bytes.split_first() {
            Some((b'L', b"null-and-void")) => Ok(()),
            Some((b'L', b"panic")) => panic!("a bug in the codec"),
            Some((b'L', json)) => slot.read(&mut serde_json::Deserializer::from_slice(json)),
            _ => Err("no letter".into()),
        }
    }
}

fn codecs(write: Codec) -> Codecs {
    let mut codecs = Codecs::default();
    codecs.write_with(write);
    codecs
}

const LETTERED: Codec = Codec::Custom(&Lettered(200));

/// What a store of bytes makes of a value that a cache with these codecs wrote.
fn stored<T: Cacheable>(codecs: &Codecs, value: T) -> Result<Entry, Error> {
    let ops = TypeOps::by::<T>(codecs);
    let meta = Meta::new(Time::EPOCH, ops.tag, ops.codec);
    let entry = Entry::of(meta.clone(), Arc::new(value), ops.encode, ops.weigh);
    Ok(Entry::from_bytes(meta, entry.bytes()?))
}

fn read<T: Cacheable>(codecs: &Codecs, codec: CodecId, bytes: &[u8]) -> Result<Arc<T>, Error> {
    let meta = Meta::new(Time::EPOCH, TypeTag::of::<T>(), codec);
    codecs.object(&Entry::from_bytes(meta, Bytes::copy_from_slice(bytes)))
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Mission {
    id: u64,
    title: String,
    #[serde(default)]
    crew: Vec<String>,
    place: Option<(i32, f64)>,
    status: Status,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Status {
    Open,
    Closed { by: u32 },
    Moved(u16),
}

fn available() -> Vec<Codec> {
    let mut all = vec![Codec::Json, LETTERED];
    if msgpack::AVAILABLE {
        all.push(Codec::MessagePack);
    }
    all
}

#[test]
fn a_codec_is_read_by_every_cache_that_has_it() {
    let mission = Mission {
        id: u64::MAX,
        title: "s\u{0}é".into(),
        crew: vec!["Batou".into()],
        place: Some((-1, 0.25)),
        status: Status::Closed { by: 9 },
    };
    let mut reader = codecs(Codec::Json);
    reader.also_read(&Lettered(200));
    for codec in available() {
        let entry = stored(&codecs(codec), mission.clone()).unwrap();
        assert_eq!(*reader.object::<Mission>(&entry).unwrap(), mission, "{codec:?}");
    }
}

#[test]
fn a_codec_that_a_cache_has_not_is_a_miss() {
    let entry = stored(&codecs(LETTERED), 7_u32).unwrap();
    let error = codecs(Codec::Json).object::<u32>(&entry).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Undecodable);
    let error = read::<u32>(&codecs(Codec::Json), CodecId::Own, b"7").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Undecodable);
}

#[test]
fn a_choice_of_codecs_is_checked() {
    let refused = |codecs: &Codecs, word: &str| {
        let error = codecs.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(word), "{error}");
    };
    refused(&codecs(Codec::Custom(&Lettered(127))), "128 to 255");
    let mut two = codecs(LETTERED);
    two.also_read(&Lettered(201));
    assert!(two.check().is_ok());
    two.also_read(&Lettered(200));
    assert!(two.check().is_ok(), "the same one twice");
    if msgpack::AVAILABLE {
        assert!(codecs(Codec::MessagePack).check().is_ok());
    } else {
        refused(&codecs(Codec::MessagePack), "feature");
    }
    assert!("json".parse::<Codec>().is_ok() && "msgpack".parse::<Codec>().is_ok());
    assert!("yaml".parse::<Codec>().unwrap_err().contains("msgpack"));
}

#[test]
fn a_codec_of_the_application_that_fails_or_panics_is_a_miss() {
    let codecs = codecs(LETTERED);
    for bytes in [&b"x"[..], b"L", b"L\"text\"", b"Lnull-and-void", b"Lpanic"] {
        let error = read::<u32>(&codecs, CodecId::Custom(200), bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Undecodable, "{bytes:?}");
    }
}

#[test]
fn what_does_not_fit_is_undecodable_and_its_text_not_shown() {
    let secret = "s3ntinel".to_owned();
    for codec in available() {
        let written = codecs(codec);
        let bytes = stored(&written, secret.clone()).unwrap().bytes().unwrap();
        let error = read::<u32>(&written, codec.id(), &bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Undecodable);
        assert!(!format!("{error} {error:?}").contains("s3ntinel"), "{codec:?}: {error:?}");
    }
}

/// A field that an older program does not know, and one that it has and the newer dropped.
#[test]
fn programs_with_more_or_fewer_fields_read_each_other() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Old {
        id: u32,
        title: String,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct New {
        #[serde(default)]
        crew: Vec<u8>,
        title: String,
        id: u32,
    }
    for codec in available() {
        let codecs = codecs(codec);
        let new = New { crew: vec![1], title: "a".into(), id: 7 };
        let bytes = stored(&codecs, new).unwrap().bytes().unwrap();
        let old = read::<Old>(&codecs, codec.id(), &bytes).unwrap();
        assert_eq!(*old, Old { id: 7, title: "a".into() }, "{codec:?}");
        let bytes = stored(&codecs, Old { id: 8, title: "b".into() }).unwrap().bytes().unwrap();
        let new = read::<New>(&codecs, codec.id(), &bytes).unwrap();
        assert_eq!(*new, New { crew: Vec::new(), title: "b".into(), id: 8 }, "{codec:?}");
    }
}

/// A value as deep as somebody likes.
#[derive(Debug, Serialize, Deserialize)]
struct Deep(Vec<Deep>);

#[test]
fn ds_18_a_value_100_000_levels_deep_is_an_error_and_no_stack_overflow() {
    let codecs = codecs(LETTERED);
    let json = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    let lettered = [b"L", json.as_slice()].concat();
    // 0x91: a list of one; 0x81 0xa0: a map of one with the key "".
    let packed = [vec![0x91; 100_000], vec![0x90]].concat();
    let maps = [b"\x81\xa0".repeat(100_000), vec![0x80]].concat();
    for (codec, bytes) in [
        (CodecId::Json, &json),
        (CodecId::Custom(200), &lettered),
        (CodecId::MessagePack, &packed),
        (CodecId::MessagePack, &maps),
    ] {
        let error = read::<Deep>(&codecs, codec, bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Undecodable, "{codec:?}");
        let error = read::<serde_json::Value>(&codecs, codec, bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Undecodable, "{codec:?}");
    }
}

/// `rmp-serde` does not count the levels of enums.
#[test]
fn ds_18_enums_100_000_levels_deep_are_an_error_too() {
    #[derive(Debug, Serialize, Deserialize)]
    enum Chain {
        End,
        Next(Box<Chain>),
    }
    let deep = |before: &[u8], end: &[u8], after: &[u8]| {
        [before.repeat(100_000), end.to_vec(), after.repeat(100_000)].concat()
    };
    for (codec, bytes) in [
        (CodecId::Json, deep(b"{\"Next\":", b"\"End\"", b"}")),
        (CodecId::MessagePack, deep(b"\x81\xa4Next", b"\xa3End", b"")),
    ] {
        let error = read::<Chain>(&codecs(Codec::Json), codec, &bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Undecodable, "{codec:?}");
    }
}

#[test]
fn ds_17_lengths_of_gigabytes_are_refused() {
    let codecs = codecs(Codec::Json);
    let claims: [&[u8]; 6] = [
        b"\xdd\xff\xff\xff\xff\x01", // a list of 2³² - 1
        b"\xdf\xff\xff\xff\xff\x01", // a map
        b"\xdb\xff\xff\xff\xff\x41", // a text
        b"\xc6\xff\xff\xff\xff\x41", // bytes
        b"\xc9\xff\xff\xff\xff\x41", // an extension
        b"\xdc\xff\xff\x91",         // a list of 65,535 lists
    ];
    for bytes in claims {
        for result in [
            read::<Vec<u64>>(&codecs, CodecId::MessagePack, bytes).map(drop),
            read::<Vec<Vec<[u64; 32]>>>(&codecs, CodecId::MessagePack, bytes).map(drop),
            read::<BTreeMap<u64, u64>>(&codecs, CodecId::MessagePack, bytes).map(drop),
            read::<String>(&codecs, CodecId::MessagePack, bytes).map(drop),
            read::<serde_json::Value>(&codecs, CodecId::MessagePack, bytes).map(drop),
        ] {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Undecodable, "{bytes:02x?}");
        }
    }
}

#[test]
fn what_json_has_no_form_for_is_an_error_there_and_kept_by_messagepack() {
    let map = BTreeMap::from([((1_u8, 2_u8), 3_u8)]);
    let error = stored(&codecs(Codec::Json), map.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unencodable);
    if msgpack::AVAILABLE {
        let codecs = codecs(Codec::MessagePack);
        let entry = stored(&codecs, map.clone()).unwrap();
        assert_eq!(*codecs.object::<BTreeMap<(u8, u8), u8>>(&entry).unwrap(), map);
        let entry = stored(&codecs, f64::NAN).unwrap();
        assert!(codecs.object::<f64>(&entry).unwrap().is_nan());
        let entry = stored(&codecs, i128::MIN).unwrap();
        assert_eq!(*codecs.object::<i128>(&entry).unwrap(), i128::MIN);
    }
}

fn any_mission() -> impl Strategy<Value = Mission> {
    let status = prop_oneof![
        Just(Status::Open),
        any::<u32>().prop_map(|by| Status::Closed { by }),
        any::<u16>().prop_map(Status::Moved),
    ];
    let place = prop::option::of((any::<i32>(), -1e9..1e9_f64));
    (any::<u64>(), any::<String>(), prop::collection::vec(any::<String>(), 0..4), place, status)
        .prop_map(|(id, title, crew, place, status)| Mission { id, title, crew, place, status })
}

proptest! {
    #[test]
    fn what_is_written_is_read(mission in any_mission()) {
        for codec in available() {
            let codecs = codecs(codec);
            let entry = stored(&codecs, mission.clone()).unwrap();
            let back = codecs.object::<Mission>(&entry).unwrap();
            let same = |a: f64, b: f64| (a - b).abs() <= a.abs() * 1e-12;
            let places = back.place.zip(mission.place);
            prop_assert!(places.is_none_or(|(a, b)| a.0 == b.0 && same(a.1, b.1)));
            prop_assert_eq!(Mission { place: mission.place, ..(*back).clone() }, mission.clone());
        }
    }

    #[test]
    fn any_bytes_are_a_value_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let codecs = codecs(LETTERED);
        for id in [1, 2, 3, 200, 201] {
            let id = CodecId::from_byte(id).unwrap();
            let _ = read::<Mission>(&codecs, id, &bytes);
            let _ = read::<Vec<Option<String>>>(&codecs, id, &bytes);
            let _ = read::<serde_json::Value>(&codecs, id, &bytes);
        }
    }
}
