//! Finding keys by a pattern.
//!
//! One step of `SCAN` for each page: never `KEYS`, which stops the server for everybody. What a
//! page says of entries beyond their names is asked in one more round trip, two with groups.

use ::redis::Pipeline;

use super::Shared;
use super::courier;
use super::layout;
use super::link::Connection;
use super::write::{HEAD_BYTES, readable};
use crate::clock::{Deadline, Time};
use crate::error::Error;
use crate::glob::Glob;
use crate::invalidation::{Marks, Validity};
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
        let moment = self.link.groups.moment();
        let connection = self.link.connection()?;
        if want == Want::Names {
            self.link.whole()?;
        }
        let count = limit.clamp(1, MOST_AT_ONCE);
        // Its caller's own deadline: it is not on the path of a request, and a page may be large.
        let deadline = cx.deadline;
        let (next, names) =
            courier::scan(&self.link, &connection, space, at.0, glob, count, deadline).await?;
        let items = match want {
            Want::Names => names.into_iter().map(|name| Item { name, entry: None }).collect(),
            Want::Live => {
                let names = names.into_iter().filter(|name| !self.book.covers(space, name));
                self.live(&connection, space, names.collect(), cx.now, deadline).await?
            }
            Want::Entries => {
                // What somebody else called by a name that is too long is no entry.
                let keys: Vec<Key<'_>> = names
                    .iter()
                    .filter(|name| !self.book.covers(space, name))
                    .filter_map(|name| Key::new(space, name.as_str()).ok())
                    .collect();
                let keys: Vec<&Key<'_>> = keys.iter().collect();
                if keys.is_empty() {
                    Vec::new()
                } else {
                    let (values, heard) = self.fetch(&connection, &keys, moment, deadline).await?;
                    let shown =
                        self.show(&connection, &keys, values, &heard, cx.now, deadline).await?;
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

    /// Which of these are names of live entries. Asks for the beginnings of the entries only.
    async fn live(
        &self,
        connection: &Connection,
        space: &Namespace,
        names: Vec<String>,
        now: Time,
        deadline: Deadline,
    ) -> Result<Vec<Item>, Error> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut commands = Pipeline::new();
        for name in &names {
            let entry = layout::entry_of(space, name);
            commands.cmd("GETRANGE").arg(entry).arg(0).arg(HEAD_BYTES - 1);
        }
        let heads = self.link.pipeline(connection, &commands, deadline).await?;
        let heads: Vec<_> = heads.into_iter().map(|head| readable(connection, head, now)).collect();
        let none = Marks::default();
        let marked: Vec<_> =
            heads.iter().map(|marks| (space, marks.as_ref().unwrap_or(&none))).collect();
        let verdicts = self.validities(connection, &marked, &[], deadline).await?;
        let found = names.into_iter().zip(&heads).zip(verdicts);
        Ok(found
            .filter(|((_, marks), verdict)| marks.is_some() && *verdict != Validity::Invalid)
            .map(|((name, _), _)| Item { name, entry: None })
            .collect())
    }
}
