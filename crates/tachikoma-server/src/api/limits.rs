//! The bounds of what the API takes and for how long it waits, in one place: handlers, the
//! database layer and the OpenAPI document read the same constants.

use std::time::Duration;

/// Largest request body in bytes (1 MiB); beyond it the answer is 413.
pub(crate) const BODY_BYTES: usize = 1024 * 1024;
/// How long a client may take to send a body; beyond it the answer is 408.
pub(crate) const BODY_TIME: Duration = Duration::from_secs(10);

/// Characters of a title or a name.
pub(crate) const TITLE_CHARS: usize = 200;
/// Characters of a mission's description.
pub(crate) const DESCRIPTION_CHARS: usize = 10_000;
/// Characters of a spec's content.
pub(crate) const CONTENT_CHARS: usize = 200_000;
/// Characters of a spec id.
pub(crate) const SPEC_ID_CHARS: usize = 64;
/// Specs of one mission: the list of them is not paged.
pub(crate) const SPECS_PER_MISSION: u32 = 1_000;

/// Characters of an email address (RFC 5321 §4.5.3.1.3, erratum 1690).
pub(crate) const EMAIL_CHARS: usize = 254;
/// Fewest characters of a password (NIST SP 800-63B §3.1.1.2 asks for at least 8).
pub(crate) const PASSWORD_MIN_CHARS: usize = 8;
/// Most characters of a password: the hash reads all of them.
pub(crate) const PASSWORD_MAX_CHARS: usize = 256;

/// Highest page number.
pub(crate) const PAGE_MAX: u32 = 1_000_000;
/// Missions of a page when the request does not say.
pub(crate) const PAGE_SIZE_DEFAULT: u32 = 20;
/// Most missions of a page.
pub(crate) const PAGE_SIZE_MAX: u32 = 100;

/// How long an answer to a write waits for its invalidation; beyond it the answer is 202.
pub(crate) const INVALIDATION_TIME: Duration = Duration::from_millis(500);
/// How often it is tried meanwhile, while the cache's store is there: each waits for the store.
pub(crate) const INVALIDATION_ATTEMPTS: u32 = 8;
/// How long a statement waits for a lock that another process holds.
pub(crate) const BUSY_TIME: Duration = Duration::from_secs(5);
/// How long a request waits for a database connection.
pub(crate) const ACQUIRE_TIME: Duration = Duration::from_secs(5);
/// Connections that read, in each process.
pub(crate) const READ_CONNECTIONS: u32 = 4;

/// Passwords that are hashed at once in each process: one takes 19 MiB and a core.
pub(crate) const HASHES_AT_ONCE: usize = 2;
/// How long a request waits for its turn to hash a password; beyond it the answer is 503.
pub(crate) const HASH_WAIT: Duration = Duration::from_secs(2);
/// Attempts to log in that one email address has at hand.
pub(crate) const LOGIN_BURST: u32 = 10;
/// After this time an email address has one more attempt.
pub(crate) const LOGIN_REFILL: Duration = Duration::from_secs(6);
/// Email addresses whose attempts are remembered.
pub(crate) const LOGIN_ADDRESSES: usize = 10_000;
