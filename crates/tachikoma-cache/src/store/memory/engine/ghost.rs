//! Remembers what was evicted lately: fingerprints of keys, no keys and no values.
//!
//! It decides whether a key that comes back was wanted too soon after it left. It may mistake one
//! key for another (32 bits of the hash); that costs a better place in a queue, never a wrong
//! value.
//!
//! The ghost queue of S3-FIFO (Yang et al., SOSP 2023, §4.1).

use std::collections::VecDeque;

use hashbrown::HashTable;

#[derive(Debug, Default)]
pub(super) struct Ghost {
    /// The oldest first. A mark whose turn is not that of the table was taken or renewed since.
    order: VecDeque<Mark>,
    marks: HashTable<Mark>,
    turn: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    print: u32,
    turn: u32,
}

impl Ghost {
    /// Remembers a key, and of all keys at most the last `limit`.
    pub(super) fn add(&mut self, hash: u64, limit: usize) {
        let mark = Mark { print: print(hash), turn: self.turn };
        self.turn = self.turn.wrapping_add(1);
        match self.marks.find_mut(spread(mark.print), |other| other.print == mark.print) {
            Some(known) => *known = mark,
            None => drop(self.marks.insert_unique(spread(mark.print), mark, |m| spread(m.print))),
        }
        self.order.push_back(mark);
        while self.order.len() > limit {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            if let Ok(found) = self.marks.find_entry(spread(oldest.print), |m| *m == oldest) {
                found.remove();
            }
        }
    }

    /// Whether the key left lately. It is forgotten then.
    pub(super) fn take(&mut self, hash: u64) -> bool {
        let print = print(hash);
        match self.marks.find_entry(spread(print), |mark| mark.print == print) {
            Ok(found) => {
                found.remove();
                true
            }
            Err(_) => false,
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The half of the hash that does not choose the bucket of the entry itself.
fn print(hash: u64) -> u32 {
    (hash >> 32) as u32
}

fn spread(print: u32) -> u64 {
    // 2^64 divided by the golden ratio: the table looks at the high and at the low bits.
    let mixed = u64::from(print).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ (mixed >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(key: u64) -> u64 {
        key << 32
    }

    #[test]
    fn it_remembers_the_last_ones_and_each_once() {
        let mut ghost = Ghost::default();
        for key in 0..10 {
            ghost.add(hash(key), 4);
        }
        assert!(!ghost.take(hash(5)));
        assert!(ghost.take(hash(6)));
        assert!(!ghost.take(hash(6)), "taken is forgotten");
        assert!(ghost.take(hash(9)));
    }

    #[test]
    fn a_key_that_left_twice_stays_as_long_as_its_last_leave() {
        let mut ghost = Ghost::default();
        for key in [1, 2, 3, 1, 4] {
            ghost.add(hash(key), 3);
        }
        assert!(ghost.take(hash(1)));
        assert!(!ghost.take(hash(2)));
    }

    #[test]
    fn it_never_grows_beyond_its_limit() {
        let mut ghost = Ghost::default();
        for key in 0..10_000 {
            ghost.add(hash(key % 700), 64);
            if key % 3 == 0 {
                ghost.take(hash(key % 700));
            }
            assert!(ghost.order.len() <= 64 && ghost.marks.len() <= 64);
        }
    }
}
