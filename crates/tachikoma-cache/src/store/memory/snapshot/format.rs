//! The bytes of a snapshot file: version 1.
//!
//! Pure but for the reader and the writer that it is given. Decides whether bytes are a snapshot
//! and where its good part ends. The bytes may come from anywhere: it never panics, and allocates
//! no more than it has read.
//!
//! ```text
//! offset  size  field
//!      0     8  magic "TKSNAP\r\n"
//!      8     1  version
//!      9     1  'W': changes may have followed; 'C': none has. The only byte changed in place
//!     10     8  the wall clock when it was begun, in milliseconds since the Unix epoch
//!     18     8  XXH3-64 of bytes 0 to 8 and 10 to 17
//!     26     …  records
//! record     4  length of its body, below 2^32 - 1
//!            8  XXH3-64 of its body
//!            …  body: 2 × (length, text): namespace and name; then the entry
//!               as [`content`](super::content) has it
//! end        4  2^32 - 1
//!            8  number of records
//!            8  XXH3-64 of that number and all their checksums, in order
//! ```
//!
//! Integers are little-endian; lengths of texts have two bytes.

use std::io::{self, Read, Write};

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

const MAGIC: [u8; 8] = *b"TKSNAP\r\n";
const VERSION: u8 = 1;

/// Where the state stands in the file.
pub(super) const STATE_AT: u64 = 9;
/// Changes may have followed.
pub(super) const CHANGED: u8 = b'W';
/// No change has followed.
pub(super) const CURRENT: u8 = b'C';

const HEAD_BYTES: usize = 26;
const END: u32 = u32::MAX;

/// What a file begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Whether no change followed.
    pub(super) current: bool,
    /// The wall clock then.
    pub(super) saved_millis: u64,
}

/// Why a file gives no more entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bad {
    /// It is not a snapshot.
    NotOurs,
    /// A later version of this library wrote it.
    NewerVersion,
    /// It was cut off or changed.
    Damaged,
    /// It could not be read.
    Io(io::ErrorKind),
}

impl Bad {
    pub(super) fn message(self) -> &'static str {
        match self {
            Self::NotOurs => "it is not a snapshot",
            Self::NewerVersion => "a later version wrote it",
            Self::Damaged => "it was cut off or changed",
            Self::Io(_) => "it cannot be read",
        }
    }
}

impl From<io::Error> for Bad {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Damaged,
            kind => Self::Io(kind),
        }
    }
}

/// One entry as it stands in the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    body: Vec<u8>,
    namespace_end: usize,
    name_end: usize,
}

impl Record {
    pub(super) fn namespace(&self) -> Option<&str> {
        std::str::from_utf8(self.body.get(2..self.namespace_end)?).ok()
    }

    pub(super) fn name(&self) -> Option<&str> {
        std::str::from_utf8(self.body.get(self.namespace_end + 2..self.name_end)?).ok()
    }

    /// The entry, as [`content`](super::content) reads it.
    pub(super) fn content(&self) -> &[u8] {
        self.body.get(self.name_end..).unwrap_or_default()
    }
}

/// Writes a snapshot, in order: made with the head, records, [`end`](Self::end).
pub(super) struct Writer<W> {
    out: W,
    records: u64,
    bytes: u64,
    sums: Xxh3,
}

impl<W: Write> Writer<W> {
    /// Begins a file that changes may have followed; who knows better says so in place.
    pub(super) fn begin(mut out: W, saved_millis: u64) -> io::Result<Self> {
        let mut head = Vec::with_capacity(HEAD_BYTES);
        head.extend_from_slice(&MAGIC);
        head.extend([VERSION, CHANGED]);
        head.extend_from_slice(&saved_millis.to_le_bytes());
        head.extend_from_slice(&sum_of_head(&head).to_le_bytes());
        out.write_all(&head)?;
        Ok(Self { out, records: 0, bytes: HEAD_BYTES as u64, sums: Xxh3::new() })
    }

    /// How long the file would be if it ended now.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes + 20
    }

    /// How long it would be with this record too.
    pub(super) fn bytes_with(&self, namespace: &str, name: &str, content: &[u8]) -> u64 {
        let body = 4 + namespace.len() + name.len() + content.len();
        self.bytes().saturating_add(12).saturating_add(body as u64)
    }

    /// Adds an entry; `false` if it is too long to be in a snapshot.
    pub(super) fn record(
        &mut self,
        namespace: &str,
        name: &str,
        content: &[u8],
    ) -> io::Result<bool> {
        let body_bytes = 4 + namespace.len() + name.len() + content.len();
        let (Ok(length), Ok(namespace_bytes), Ok(name_bytes)) =
            (u32::try_from(body_bytes), u16::try_from(namespace.len()), u16::try_from(name.len()))
        else {
            return Ok(false);
        };
        if length == END {
            return Ok(false);
        }
        let mut body = Vec::with_capacity(body_bytes);
        body.extend_from_slice(&namespace_bytes.to_le_bytes());
        body.extend_from_slice(namespace.as_bytes());
        body.extend_from_slice(&name_bytes.to_le_bytes());
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(content);
        let sum = xxh3_64(&body).to_le_bytes();
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(&sum)?;
        self.out.write_all(&body)?;
        self.sums.update(&sum);
        self.records += 1;
        self.bytes += 12 + body.len() as u64;
        Ok(true)
    }

    /// Ends the file; returns what it was written to, and the number of records.
    pub(super) fn end(mut self) -> io::Result<(W, u64)> {
        let records = self.records.to_le_bytes();
        self.sums.update(&records);
        self.out.write_all(&END.to_le_bytes())?;
        self.out.write_all(&records)?;
        self.out.write_all(&self.sums.digest().to_le_bytes())?;
        Ok((self.out, self.records))
    }
}

/// Reads a snapshot: made with the head, then [`next`](Self::next) until it is done or bad.
pub(super) struct Reader<R> {
    input: R,
    head: Head,
    records: u64,
    sums: Xxh3,
}

impl<R: Read> Reader<R> {
    pub(super) fn begin(mut input: R) -> Result<Self, Bad> {
        let mut head = Vec::with_capacity(HEAD_BYTES);
        input.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head)?;
        let magic = head.len().min(MAGIC.len());
        if head[..magic] != MAGIC[..magic] {
            return Err(Bad::NotOurs);
        }
        // The version stands before everything that it could change.
        match head.get(MAGIC.len()) {
            Some(&VERSION) => {}
            Some(&version) if version > VERSION => return Err(Bad::NewerVersion),
            _ => return Err(Bad::Damaged),
        }
        let (content, sum) = head.split_last_chunk::<8>().ok_or(Bad::Damaged)?;
        if head.len() != HEAD_BYTES || sum_of_head(content) != u64::from_le_bytes(*sum) {
            return Err(Bad::Damaged);
        }
        let saved = content.last_chunk::<8>().ok_or(Bad::Damaged)?;
        let head =
            Head { current: content[9] == CURRENT, saved_millis: u64::from_le_bytes(*saved) };
        Ok(Self { input, head, records: 0, sums: Xxh3::new() })
    }

    pub(super) fn head(&self) -> Head {
        self.head
    }

    /// The next entry; `None` at a proper end.
    pub(super) fn next(&mut self) -> Result<Option<Record>, Bad> {
        let length = u32::from_le_bytes(self.array()?);
        if length == END {
            return self.end().map(|()| None);
        }
        let sum: [u8; 8] = self.array()?;
        let mut body = Vec::new();
        // It grows with what is there, whatever the length says.
        self.input.by_ref().take(u64::from(length)).read_to_end(&mut body)?;
        if body.len() as u64 != u64::from(length) || xxh3_64(&body).to_le_bytes() != sum {
            return Err(Bad::Damaged);
        }
        let namespace_end = end_of_text(&body, 0).ok_or(Bad::Damaged)?;
        let name_end = end_of_text(&body, namespace_end).ok_or(Bad::Damaged)?;
        self.sums.update(&sum);
        self.records += 1;
        Ok(Some(Record { body, namespace_end, name_end }))
    }

    fn end(&mut self) -> Result<(), Bad> {
        let records: [u8; 8] = self.array()?;
        self.sums.update(&records);
        let whole = u64::from_le_bytes(records) == self.records
            && self.array()? == self.sums.digest().to_le_bytes();
        if whole { Ok(()) } else { Err(Bad::Damaged) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Bad> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

/// Where a text ends that begins at `at` with its length.
fn end_of_text(body: &[u8], at: usize) -> Option<usize> {
    let length = body.get(at..)?.first_chunk::<2>()?;
    let end = at + 2 + usize::from(u16::from_le_bytes(*length));
    (end <= body.len()).then_some(end)
}

/// The checksum of a head, without the byte that is changed in place.
fn sum_of_head(head: &[u8]) -> u64 {
    let mut sum = Xxh3::new();
    for (at, byte) in head.iter().enumerate() {
        if at as u64 != STATE_AT {
            sum.update(&[*byte]);
        }
    }
    sum.digest()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(records: &[(&str, &str, &[u8])]) -> Vec<u8> {
        let mut writer = Writer::begin(Vec::new(), 1234).unwrap();
        for (namespace, name, content) in records {
            assert!(writer.record(namespace, name, content).unwrap());
        }
        let expected = writer.bytes();
        let (bytes, count) = writer.end().unwrap();
        assert_eq!((bytes.len() as u64, count), (expected, records.len() as u64));
        bytes
    }

    /// Namespace, name and content.
    type Parts = (String, String, Vec<u8>);

    /// The good part of a file, and how it ended.
    fn read(bytes: &[u8]) -> (Vec<Parts>, Result<(), Bad>) {
        let mut records = Vec::new();
        let mut reader = match Reader::begin(bytes) {
            Ok(reader) => reader,
            Err(bad) => return (records, Err(bad)),
        };
        loop {
            match reader.next() {
                Ok(Some(record)) => records.push((
                    record.namespace().unwrap().to_owned(),
                    record.name().unwrap().to_owned(),
                    record.content().to_owned(),
                )),
                Ok(None) => return (records, Ok(())),
                Err(bad) => return (records, Err(bad)),
            }
        }
    }

    const THREE: [(&str, &str, &[u8]); 3] =
        [("app", "a", b"one"), ("app/x", "", b""), ("app", "é\0:", &[0xFF; 300])];

    #[test]
    fn what_was_written_is_read() {
        let (records, ended) = read(&written(&THREE));
        assert_eq!(ended, Ok(()));
        let expected: Vec<_> =
            THREE.iter().map(|(a, b, c)| ((*a).into(), (*b).into(), c.to_vec())).collect();
        assert_eq!(records, expected);
        assert_eq!(read(&written(&[])), (Vec::new(), Ok(())));
    }

    #[test]
    fn a_file_that_was_cut_off_anywhere_keeps_its_whole_records() {
        let bytes = written(&THREE);
        let (all, _) = read(&bytes);
        for end in 0..bytes.len() {
            let (records, ended) = read(&bytes[..end]);
            assert!(matches!(ended, Err(Bad::Damaged)), "{end}: {ended:?}");
            assert_eq!(records[..], all[..records.len()], "{end}");
        }
    }

    #[test]
    fn a_changed_byte_is_noticed_wherever_it_is() {
        let bytes = written(&THREE);
        let (all, _) = read(&bytes);
        for at in (0..bytes.len()).filter(|at| *at as u64 != STATE_AT) {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                let (records, ended) = read(&bytes);
                assert!(ended.is_err(), "{at}, bit {bit}");
                assert_eq!(records[..], all[..records.len()], "{at}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_later_version_is_left_alone_whatever_follows_it() {
        let mut bytes = written(&THREE);
        bytes[8] = 2;
        assert_eq!(read(&bytes).1, Err(Bad::NewerVersion));
        assert_eq!(read(&bytes[..9]).1, Err(Bad::NewerVersion));
        assert_eq!(read(b"SQLite format 3\0").1, Err(Bad::NotOurs));
    }

    #[test]
    fn a_length_without_bytes_allocates_nothing_for_them() {
        let mut bytes = written(&[]);
        bytes.truncate(HEAD_BYTES);
        bytes.extend_from_slice(&(END - 1).to_le_bytes());
        bytes.extend_from_slice(&[0; 100]);
        assert_eq!(read(&bytes), (Vec::new(), Err(Bad::Damaged)));
    }

    #[test]
    fn the_state_is_a_byte_that_no_checksum_has() {
        let mut bytes = written(&THREE);
        let head = |bytes: &[u8]| Reader::begin(bytes).map(|reader| reader.head());
        assert_eq!(head(&bytes), Ok(Head { current: false, saved_millis: 1234 }));
        bytes[usize::try_from(STATE_AT).unwrap()] = CURRENT;
        assert_eq!(head(&bytes), Ok(Head { current: true, saved_millis: 1234 }));
        assert_eq!(read(&bytes).1, Ok(()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        /// Several changes anywhere: never a panic, never a record that was not written.
        #[test]
        fn mutated_files_never_give_a_record_that_was_not_written(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
            cut in any::<prop::sample::Index>(),
            cuts: bool,
        ) {
            let original = written(&THREE);
            let (all, _) = read(&original);
            let mut bytes = original.clone();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if cuts {
                bytes.truncate(cut.index(bytes.len()));
            }
            let (records, _) = read(&bytes);
            prop_assert_eq!(&records[..], &all[..records.len()]);
        }
    }
}
