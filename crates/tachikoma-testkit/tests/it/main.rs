//! The test servers against themselves: they start, break and end as they say.

#![allow(clippy::expect_used, reason = "tests fail by panic")]

mod fault;
mod nginx;
mod redis;
mod rows;
