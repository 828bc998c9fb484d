//! Finding keys by a pattern.
//!
//! One step of `SCAN` for each page: never `KEYS`, which stops the server for everybody.

use super::Shared;
use super::courier;
use crate::error::{Error, ErrorKind};
use crate::glob::Glob;
use crate::key::{Key, Namespace};
use crate::store::{Cursor, Cx, Item, Page, Want};

/// More at once does not go faster and makes others wait longer (10,000: 65 ms, 1,000: 15 ms).
const MOST_AT_ONCE: usize = 1000;

impl Shared {
    pub(super) async fn scan(
        &self,
        space: &Namespace,
        at: Cursor,
        glob: &Glob,
        want: Want,
        limit: usize,
        cx: &Cx,
    ) -> Result<Page, Error> {
        let connection = self.link.connection()?;
        let count = limit.clamp(1, MOST_AT_ONCE);
        // Its caller's own deadline: it is not on the path of a request, and a page may be large.
        let deadline = cx.deadline;
        let (next, names) =
            courier::scan(&self.link, &connection, space, at.0, glob, count, deadline).await?;
        let items = match want {
            Want::Names => names.into_iter().map(|name| Item { name, entry: None }).collect(),
            Want::Entries => {
                let keys = names
                    .iter()
                    .filter(|name| !self.book.covers(space, name))
                    .map(|name| Key::new(space, name.as_str()))
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|_| Error::new(ErrorKind::Undecodable, "a key is too long"))?;
                let keys: Vec<&Key<'_>> = keys.iter().collect();
                if keys.is_empty() {
                    Vec::new()
                } else {
                    let values = self.fetch(&connection, &keys, deadline).await?;
                    let shown = self.show(&connection, &keys, values, cx.now, deadline).await?;
                    let live = keys.iter().zip(shown).filter_map(|(key, shown)| {
                        let (entry, _) = shown?;
                        Some(Item { name: key.name().to_owned(), entry: Some(entry) })
                    });
                    live.collect()
                }
            }
        };
        Ok(Page { items, next: (next != 0).then_some(Cursor(next)) })
    }
}
