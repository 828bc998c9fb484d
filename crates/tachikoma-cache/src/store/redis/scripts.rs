//! The scripts that run in Redis, where one command is not enough.
//!
//! Constant texts: what differs comes as `KEYS` and `ARGV` only. None is on the path of a hit, and
//! none takes longer with more entries.

use std::sync::LazyLock;

use ::redis::{Cmd, Script};

/// A script: its text never changes, what differs are keys and arguments.
#[derive(Debug)]
pub(super) struct Lua {
    text: &'static str,
    hash: String,
}

impl Lua {
    pub(super) fn new(text: &'static str) -> Self {
        Self { text, hash: Script::new(text).get_hash().to_owned() }
    }

    pub(super) fn by_hash(&self, keys: &[&str], arguments: &[&[u8]]) -> Cmd {
        Self::command("EVALSHA", &self.hash, keys, arguments)
    }

    pub(super) fn by_text(&self, keys: &[&str], arguments: &[&[u8]]) -> Cmd {
        Self::command("EVAL", self.text, keys, arguments)
    }

    fn command(name: &str, script: &str, keys: &[&str], arguments: &[&[u8]]) -> Cmd {
        let mut command = ::redis::cmd(name);
        command.arg(script).arg(keys.len());
        for key in keys {
            command.arg(*key);
        }
        for argument in arguments {
            command.arg(*argument);
        }
        command
    }
}

/// Stores a loaded value while its lease is valid, and ends the lease.
///
/// `KEYS`: entry, lease. `ARGV`: token, value, milliseconds to live or empty. Answers 1 if stored.
/// The last command reads the entry because a write ends its tracking (`CLIENT TRACKING`) on this
/// connection, and a read begins it again.
pub(super) static FILL: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
if ARGV[3] == '' then redis.call('SET', KEYS[1], ARGV[2])
else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
redis.call('DEL', KEYS[2])
redis.call('EXISTS', KEYS[1])
return 1",
    )
});

/// Ends a lease that was not used.
///
/// `KEYS`: lease. `ARGV`: token.
pub(super) static RELEASE: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0",
    )
});

/// Begins the time of a lease anew.
///
/// `KEYS`: lease. `ARGV`: token, milliseconds. Answers 1 if the lease still has this token.
pub(super) static RENEW: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])",
    )
});

/// Lets an entry stay longer, never shorter, and none for ever.
///
/// `KEYS`: entry. `ARGV`: milliseconds to live.
pub(super) static KEEP: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local left = redis.call('PTTL', KEYS[1])
if left >= 0 and left < tonumber(ARGV[1]) then
  return redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
return 0",
    )
});

/// Replaces an entry that is still the one that the caller saw.
///
/// `KEYS`: entry, lease. `ARGV`: the last eight bytes of the entry as it was seen (its checksum;
/// empty: it was absent, or no text), value, milliseconds to live or empty, 1 to end the lease too.
/// Answers 1 if it was replaced.
pub(super) static REPLACE: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local last = redis.pcall('GETRANGE', KEYS[1], -8, -1)
if type(last) == 'table' then
  if not string.find(last.err, 'WRONGTYPE', 1, true) then return last end
  last = ''
end
if last ~= ARGV[1] then return 0 end
if ARGV[3] == '' then redis.call('SET', KEYS[1], ARGV[2])
else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
if ARGV[4] == '1' then redis.call('DEL', KEYS[2]) end
return 1",
    )
});

/// Begins a guard of an entry: removes it, and takes its lease, so that whatever removes or writes
/// the key meanwhile takes that away.
///
/// `KEYS`: entry, lease, guards. `ARGV`: token, milliseconds. Answers how many entries there were.
pub(super) static GUARD: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
if redis.call('ZCOUNT', KEYS[3], '-inf', '(+inf') == 0 then redis.call('DEL', KEYS[3])
else redis.call('ZADD', KEYS[3], '+inf', '+') end
redis.call('ZADD', KEYS[3], now + tonumber(ARGV[2]), ARGV[1])
if redis.call('PTTL', KEYS[3]) < tonumber(ARGV[2]) then
  redis.call('PEXPIRE', KEYS[3], ARGV[2])
end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return redis.call('DEL', KEYS[1])",
    )
});

/// Ends a guard of an entry.
///
/// `KEYS`: entry, lease, guards. `ARGV`: token, value or empty, milliseconds to live or empty.
/// Answers 1 if the value was stored, because the guard was open until now and alone and nobody
/// removed or wrote the key meanwhile; otherwise the entry is removed. About the last command see
/// [`FILL`].
pub(super) static END_GUARD: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ends = redis.call('ZSCORE', KEYS[3], ARGV[1])
local alone = ends and tonumber(ends) > now and not redis.call('ZSCORE', KEYS[3], '+')
  and redis.call('GET', KEYS[2]) == ARGV[1]
redis.call('ZREM', KEYS[3], ARGV[1])
if redis.call('ZCOUNT', KEYS[3], '-inf', '(+inf') == 0 then redis.call('DEL', KEYS[3]) end
redis.call('DEL', KEYS[2])
if not alone or ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
  return 0
end
if ARGV[3] == '' then redis.call('SET', KEYS[1], ARGV[2])
else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
redis.call('EXISTS', KEYS[1])
return 1",
    )
});

/// Invalidates groups.
///
/// `KEYS`: their numbers, a sorted set. `ARGV`: the member of an epoch if there is none yet, the
/// most members that may be kept, then the member of each group. The epoch is the highest member;
/// its number is that of the next invalidation. When there are too many, those whose last
/// invalidation is the longest ago are forgotten, some more than needed so that this is seldom, and
/// the floor is raised to the last of them, so that nothing of them comes back.
pub(super) static INVALIDATE: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local top = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
local number = tonumber(top[2] or 1)
for i = 3, #ARGV do redis.call('ZADD', KEYS[1], number, ARGV[i]) end
redis.call('ZADD', KEYS[1], number + 1, top[1] or ARGV[1])
local most = tonumber(ARGV[2])
local over = redis.call('ZCARD', KEYS[1]) - most
if over > 0 then
  local last = over + math.floor(most / 100) - 1
  local floor = redis.call('ZRANGE', KEYS[1], last, last, 'WITHSCORES')[2]
  redis.call('ZREMRANGEBYRANK', KEYS[1], 0, last)
  redis.call('ZADD', KEYS[1], 'NX', floor, '@f')
end
return number",
    )
});
