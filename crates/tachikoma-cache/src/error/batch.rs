//! What of a batch failed, item by item.
//!
//! It decides nothing: which items fail is found out by whoever runs the batch.

use std::error::Error as StdError;
use std::fmt;

use super::{Error, ErrorKind};

/// Some items of a batch failed; all others are in.
///
/// Turns into an [`Error`] with the kind of the first failure, for callers who only use `?`.
#[derive(Debug)]
pub struct BatchError {
    total: usize,
    /// Never empty; in the order of the items.
    failed: Vec<(usize, Error)>,
}

impl BatchError {
    /// An error if anything failed.
    pub(crate) fn check(total: usize, mut failed: Vec<(usize, Error)>) -> Result<(), Self> {
        failed.sort_by_key(|(index, _)| *index);
        if failed.is_empty() { Ok(()) } else { Err(Self { total, failed }) }
    }

    /// What failed: the index of the item, from 0, and why. In the order of the items.
    pub fn failed(&self) -> &[(usize, Error)] {
        &self.failed
    }

    /// How many items the batch had.
    pub fn total(&self) -> usize {
        self.total
    }

    /// The kind of the first failure.
    pub fn kind(&self) -> ErrorKind {
        self.failed.first().map_or(ErrorKind::Unavailable, |(_, error)| error.kind())
    }
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} items failed", self.failed.len(), self.total)?;
        match self.failed.first() {
            Some((index, error)) => write!(f, "; the first at index {index}: {error}"),
            None => Ok(()),
        }
    }
}

impl StdError for BatchError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.failed.first().and_then(|(_, error)| error.source())
    }
}

impl From<BatchError> for Error {
    fn from(batch: BatchError) -> Self {
        let kind = batch.kind();
        let detail = format!("{} of {} items failed", batch.failed.len(), batch.total);
        let error = Self::new(kind, detail);
        match batch.failed.into_iter().next() {
            Some((index, first)) => error.with_source(first.at(index, batch.total)),
            None => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> BatchError {
        let failed = vec![
            (7, Error::from(ErrorKind::TimedOut)),
            (2, Error::new(ErrorKind::TooLarge, "9 bytes; at most 8")),
        ];
        BatchError::check(10, failed).unwrap_err()
    }

    #[test]
    fn it_names_how_many_failed_and_the_first() {
        assert_eq!(
            batch().to_string(),
            "2 of 10 items failed; the first at index 2: the value is too large: \
             9 bytes; at most 8"
        );
        assert_eq!(batch().failed().iter().map(|(at, _)| *at).collect::<Vec<_>>(), [2, 7]);
        assert!(BatchError::check(10, Vec::new()).is_ok());
    }

    #[test]
    fn as_one_error_it_has_the_kind_of_the_first_and_its_place() {
        let error = Error::from(batch());
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert_eq!(error.to_string(), "the value is too large: 2 of 10 items failed");
        assert!(error.source().unwrap().to_string().contains("at index 2 of 10"), "{error:?}");
    }
}
