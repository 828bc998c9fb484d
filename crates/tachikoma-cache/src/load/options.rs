//! What a caller may want of a load: how long values live, how stale they may be, how long to wait.
//!
//! Pure: plain settings, checked once. What follows from them for a value at hand is decided in
//! `choose`.

use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::expiry::{Life, MAX_TTL, Ttl, check_ttl, jittered};

/// The default of [`LoadOptions::load_timeout`].
pub const DEFAULT_LOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The default of [`LoadOptions::retry_after`].
pub const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);

/// The longest wait that an option may ask for.
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// The highest factor of an early refresh.
pub(crate) const MAX_BETA: f64 = 100.0;

/// What a caller wants of loads. A cache has its own ([`CacheBuilder`](crate::CacheBuilder) has the
/// same methods), and each call may differ ([`Load`](crate::Load) has them too).
///
/// ```
/// # use {std::time::Duration, tachikoma_cache::{Cache, LoadOptions}};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let catalogue = LoadOptions::new()
///     .ttl(Duration::from_secs(60))
///     .stale_while_revalidate(Duration::from_secs(30))
///     .stale_if_error(Duration::from_secs(3600));
/// let cache = Cache::memory().load_options(catalogue).build()?;
/// # let load = || async { Ok::<_, std::io::Error>(1_u32) };
/// let price = cache.get_or_load("price", load).soft_timeout(Duration::from_millis(50)).await?;
/// # assert_eq!(*price, 1);
/// # Ok(())
/// # }
/// ```
///
/// An option that is not allowed is an error of the builder. In a call it means that the value is
/// returned but not stored, and the error is counted: a load never fails because of the cache.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoadOptions {
    pub(crate) ttl: Ttl,
    pub(crate) time_to_idle: Option<Duration>,
    pub(crate) stale_while_revalidate: Duration,
    pub(crate) stale_if_error: Duration,
    pub(crate) soft_timeout: Option<Duration>,
    pub(crate) load_timeout: Duration,
    pub(crate) retry_after: Duration,
    pub(crate) negative_ttl: Option<Ttl>,
    pub(crate) early_refresh: Option<f64>,
    pub(crate) jitter: f64,
}

impl LoadOptions {
    /// The defaults, which each method names.
    pub fn new() -> Self {
        Self {
            ttl: Ttl::Default,
            time_to_idle: None,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            soft_timeout: None,
            load_timeout: DEFAULT_LOAD_TIMEOUT,
            retry_after: DEFAULT_RETRY_AFTER,
            negative_ttl: None,
            early_refresh: None,
            jitter: 0.0,
        }
    }

    /// How long a loaded value is fresh. Default: the cache's `default_ttl`. Allowed: more than
    /// zero, at most ten years.
    #[must_use]
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.ttl = ttl.into();
        self
    }

    /// A value goes when nobody has looked it up for this long, within its TTL. Default: only the
    /// TTL counts. Allowed: more than zero, at most ten years.
    #[must_use]
    pub fn time_to_idle(mut self, idle: Duration) -> Self {
        self.time_to_idle = Some(idle);
        self
    }

    /// For this long after its TTL a value is still served, at once, while one load in the
    /// background renews it (RFC 5861 names it so). Default: zero, no value is served after its
    /// TTL. Allowed: at most ten years.
    #[must_use]
    pub fn stale_while_revalidate(mut self, window: Duration) -> Self {
        self.stale_while_revalidate = window;
        self
    }

    /// For this long after its TTL a value is served if the load fails, panics, or takes too long.
    /// Default: zero. Allowed: at most ten years.
    #[must_use]
    pub fn stale_if_error(mut self, window: Duration) -> Self {
        self.stale_if_error = window;
        self
    }

    /// With a stale value at hand a caller waits no longer than this: it gets the stale value, the
    /// load goes on and its value is stored. Default: it waits until
    /// [`load_timeout`](Self::load_timeout). Allowed: more than zero, at most a day.
    #[must_use]
    pub fn soft_timeout(mut self, timeout: Duration) -> Self {
        self.soft_timeout = Some(timeout);
        self
    }

    /// How long a loader may take before it is ended, and those who wait for it get
    /// [`LoadError::TimedOut`](crate::LoadError::TimedOut). A load of another process is waited for
    /// as long, before this one. Default: 30 s. Allowed: more than zero, at most a day.
    #[must_use]
    pub fn load_timeout(mut self, timeout: Duration) -> Self {
        self.load_timeout = timeout;
        self
    }

    /// After a failed load the source is not asked for the key again for so long, as long as there
    /// is a value that may be served instead. Zero: it is asked each time. Default: 1 s. Allowed:
    /// at most a day.
    #[must_use]
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.retry_after = pause;
        self
    }

    /// How long it is remembered that the source has no value, for
    /// [`get_or_load_optional`](crate::Cache::get_or_load_optional). Default: not at all. Allowed:
    /// as for [`ttl`](Self::ttl).
    #[must_use]
    pub fn negative_ttl<D: Into<Ttl>>(mut self, ttl: D) -> Self {
        self.negative_ttl = Some(ttl.into());
        self
    }

    /// Refreshes a value in the background before its TTL ends, the likelier the nearer the end and
    /// the longer its load took, so that not all processes load at once (Vattani, Chierichetti,
    /// Lowenstein: "Optimal Probabilistic Cache Stampede Prevention", VLDB 2015). 1 is the paper's
    /// factor, more is earlier. Default: no early refresh. Allowed: more than 0, at most 100.
    #[must_use]
    pub fn early_refresh(mut self, beta: f64) -> Self {
        self.early_refresh = Some(beta);
        self
    }

    /// Each TTL is shortened by a random part of up to this fraction, never below a millisecond, so
    /// that what was loaded together does not expire together. Default: 0. Allowed: 0 to 1.
    #[must_use]
    pub fn jitter(mut self, fraction: f64) -> Self {
        self.jitter = fraction;
        self
    }

    /// Says which option is not allowed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidTtl`] for a time to live, [`ErrorKind::Config`] for all others; the
    /// message names the option, its value and what is allowed.
    pub fn check(&self) -> Result<(), Error> {
        for (name, ttl) in [("ttl", Some(self.ttl)), ("negative_ttl", self.negative_ttl)] {
            if let Some(Ttl::After(ttl)) = ttl {
                check_ttl(ttl).map_err(|_| {
                    let kind = ErrorKind::InvalidTtl;
                    refused(kind, name, ttl, "more than zero and at most ten years")
                })?;
            }
        }
        let config = ErrorKind::Config;
        if let Some(idle) = self.time_to_idle.filter(|idle| idle.is_zero() || *idle > MAX_TTL) {
            let allowed = "more than zero and at most ten years";
            return Err(refused(config, "time_to_idle", idle, allowed));
        }
        for (name, window, most, allowed) in [
            ("stale_while_revalidate", self.stale_while_revalidate, MAX_TTL, "at most ten years"),
            ("stale_if_error", self.stale_if_error, MAX_TTL, "at most ten years"),
            ("retry_after", self.retry_after, DAY, "at most a day"),
        ] {
            if window > most {
                return Err(refused(config, name, window, allowed));
            }
        }
        let timeouts =
            [("load_timeout", Some(self.load_timeout)), ("soft_timeout", self.soft_timeout)];
        for (name, timeout) in timeouts {
            if let Some(timeout) = timeout.filter(|timeout| timeout.is_zero() || *timeout > DAY) {
                return Err(refused(config, name, timeout, "more than zero and at most a day"));
            }
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            return Err(refused(config, "jitter", self.jitter, "0 to 1"));
        }
        // Written so that NaN is refused too.
        if let Some(beta) = self.early_refresh
            && !(beta > 0.0 && beta <= MAX_BETA)
        {
            return Err(refused(config, "early_refresh", beta, "more than 0 and at most 100"));
        }
        Ok(())
    }

    /// How long a value is kept after its TTL, for those who accept a stale one.
    pub(crate) fn kept_stale(&self) -> Duration {
        self.stale_while_revalidate.max(self.stale_if_error)
    }

    /// The life of a value with this TTL (`default` stands for [`Ttl::Default`]); `draw`, from 0 to
    /// 1, says how much the jitter takes.
    pub(crate) fn life(&self, ttl: Ttl, default: Ttl, draw: f64) -> Life {
        let ttl = match if ttl == Ttl::Default { default } else { ttl } {
            Ttl::After(ttl) => Ttl::After(jittered(ttl, self.jitter, draw)),
            ttl => ttl,
        };
        Life { ttl, stale: self.kept_stale(), idle: self.time_to_idle }
    }
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self::new()
    }
}

fn refused(kind: ErrorKind, name: &str, value: impl std::fmt::Debug, allowed: &str) -> Error {
    Error::new(kind, format!("{name} is {value:?}; allowed is {allowed}"))
}

/// The methods of [`LoadOptions`] on something that has options, which its method `change` changes.
macro_rules! option_methods {
    ($whose:literal) => {
        option_methods!(@each $whose,
            time_to_idle(idle: ::std::time::Duration),
            stale_while_revalidate(window: ::std::time::Duration),
            stale_if_error(window: ::std::time::Duration),
            soft_timeout(timeout: ::std::time::Duration),
            load_timeout(timeout: ::std::time::Duration),
            retry_after(pause: ::std::time::Duration),
            negative_ttl(ttl: impl Into<Ttl>),
            early_refresh(beta: f64),
            jitter(fraction: f64),
        );
    };
    (@each $whose:literal, $($name:ident($value:ident: $type:ty),)*) => {
        $(
            #[doc = concat!(
                "[`LoadOptions::", stringify!($name), "`](crate::LoadOptions::", stringify!($name),
                ") ", $whose, "."
            )]
            pub fn $name(self, $value: $type) -> Self {
                self.change(|options| options.$name($value))
            }
        )*
    };
}
pub(crate) use option_methods;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(options: LoadOptions, expected: Result<(), &str>) {
        let actual = options.check().map_err(|error| error.to_string());
        match (&actual, expected) {
            (Ok(()), Ok(())) => {}
            (Err(text), Err(words)) if text.contains(words) && text.contains("allowed") => {}
            _ => panic!("{actual:?} for {options:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn the_defaults_are_allowed_and_so_are_the_limits() {
        check(LoadOptions::new(), Ok(()));
        check(
            LoadOptions::new()
                .ttl(MAX_TTL)
                .time_to_idle(MAX_TTL)
                .stale_while_revalidate(MAX_TTL)
                .stale_if_error(MAX_TTL)
                .soft_timeout(DAY)
                .load_timeout(DAY)
                .retry_after(DAY)
                .negative_ttl(Ttl::Never)
                .early_refresh(MAX_BETA)
                .jitter(1.0),
            Ok(()),
        );
    }

    #[test]
    fn what_is_not_allowed_is_named_with_its_value() {
        let new = LoadOptions::new;
        let (zero, most) = (Duration::ZERO, Duration::MAX);
        check(new().ttl(zero), Err("ttl is 0ns"));
        check(new().negative_ttl(zero), Err("negative_ttl is 0ns"));
        check(new().time_to_idle(zero), Err("time_to_idle is 0ns"));
        check(new().time_to_idle(most), Err("time_to_idle is"));
        check(new().stale_while_revalidate(most), Err("stale_while_revalidate is"));
        check(new().stale_if_error(most), Err("stale_if_error is"));
        check(new().soft_timeout(zero), Err("soft_timeout is 0ns"));
        check(new().load_timeout(most), Err("load_timeout is"));
        check(new().retry_after(most), Err("retry_after is"));
        for jitter in [1.01, -0.1, f64::NAN, f64::INFINITY] {
            check(new().jitter(jitter), Err(&format!("jitter is {jitter:?}")));
        }
        for beta in [0.0, -1.0, 100.5, f64::NAN, f64::INFINITY] {
            check(new().early_refresh(beta), Err(&format!("early_refresh is {beta:?}")));
        }
    }
}
