//! The sections of the settings whose values are numbers with a default.
//!
//! A table says each setting once: its name, type and default, its flag and variable, and its
//! help. Out of it come what one source may say of a section, where all may be left out, and what
//! holds, where nothing is.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::units::{Size, Span, whole};

/// Makes the two sides of a section out of its table.
macro_rules! section {
    (
        $(#[$said_doc:meta])* $said:ident under $heading:literal,
        $(#[$doc:meta])* $name:ident:
        $(
            $help:literal,
            $field:ident: $type:ty = $default:expr, $shown:literal,
            $flag:literal, $variable:literal, $kind:literal $(by $parser:expr)?;
        )*
    ) => {
        $(#[$said_doc])*
        #[derive(Debug, Clone, Default, Deserialize, clap::Args)]
        #[serde(default, deny_unknown_fields)]
        #[command(next_help_heading = $heading)]
        pub struct $said {
            $(
                #[doc = concat!($help, ".")]
                #[arg(
                    id = $flag,
                    long = $flag,
                    env = $variable,
                    value_name = $kind,
                    help = concat!($help, " [default: ", $shown, "]"),
                    $(value_parser = $parser)?
                )]
                pub $field: Option<$type>,
            )*
        }

        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Serialize)]
        pub struct $name {
            $(
                #[doc = concat!($help, ". Default: ", $shown, ".")]
                pub $field: $type,
            )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl $name {
            /// Lets a source overrule what it speaks of.
            pub(super) fn apply(&mut self, said: &$said) {
                $(self.$field = said.$field.unwrap_or(self.$field);)*
            }

            /// Each default as it is, and as the table shows it.
            #[cfg(test)]
            fn defaults() -> Vec<(String, &'static str)> {
                let Self { $($field),* } = Self::default();
                vec![$(($field.to_string(), $shown)),*]
            }
        }
    };
}

const fn seconds(count: u64) -> Span {
    Span(Duration::from_secs(count))
}

section! {
    /// What one source says about the waits on the upstream.
    ProxySettings under "Waits on the upstream",
    /// Waits on an upstream, and how much of it may be used at once.
    Proxy:
    "Until the upstream takes a connection",
    connect_timeout: Span = seconds(5), "5s",
    "proxy-connect-timeout", "TACHIKOMA_PROXY_CONNECT_TIMEOUT", "DURATION";

    "Until the head of its response is in",
    head_timeout: Span = seconds(30), "30s",
    "proxy-head-timeout", "TACHIKOMA_PROXY_HEAD_TIMEOUT", "DURATION";

    "Between two pieces of its response body",
    body_timeout: Span = seconds(30), "30s",
    "proxy-body-timeout", "TACHIKOMA_PROXY_BODY_TIMEOUT", "DURATION";

    "Exchanges with one upstream at once; more wait",
    max_concurrent: u32 = 4096, "4096",
    "proxy-max-concurrent", "TACHIKOMA_PROXY_MAX_CONCURRENT", "NUMBER" by whole::<u32>;

    "Requests that wait for one upstream; more are answered with 503",
    max_waiting: u32 = 1024, "1024",
    "proxy-max-waiting", "TACHIKOMA_PROXY_MAX_WAITING", "NUMBER" by whole::<u32>;

    "How long one of them waits before it is answered with 503",
    wait_timeout: Span = seconds(10), "10s",
    "proxy-wait-timeout", "TACHIKOMA_PROXY_WAIT_TIMEOUT", "DURATION";
}

section! {
    /// What one source says about the bounds on clients.
    LimitSettings under "Bounds on clients",
    /// Bounds on clients.
    Limits:
    "Bytes of a request head",
    head_bytes: Size = Size(32 << 10), "32KiB",
    "limit-head-bytes", "TACHIKOMA_LIMITS_HEAD_BYTES", "SIZE";

    "Fields in a request head",
    head_fields: u16 = 100, "100",
    "limit-head-fields", "TACHIKOMA_LIMITS_HEAD_FIELDS", "NUMBER" by whole::<u16>;

    "Bytes of the target, and of each field of a request head",
    line_bytes: Size = Size(8 << 10), "8KiB",
    "limit-line-bytes", "TACHIKOMA_LIMITS_LINE_BYTES", "SIZE";

    "Bytes of a request body",
    body_bytes: Size = Size(1 << 30), "1GiB",
    "limit-body-bytes", "TACHIKOMA_LIMITS_BODY_BYTES", "SIZE";

    "Until a request head is in, or the next one on a kept connection",
    head_timeout: Span = seconds(15), "15s",
    "limit-head-timeout", "TACHIKOMA_LIMITS_HEAD_TIMEOUT", "DURATION";

    "Between two pieces of a body that a client sends or takes",
    body_timeout: Span = seconds(30), "30s",
    "limit-body-timeout", "TACHIKOMA_LIMITS_BODY_TIMEOUT", "DURATION";

    "Connections open at once; more wait to be taken",
    connections: u32 = 10_000, "10000",
    "limit-connections", "TACHIKOMA_LIMITS_CONNECTIONS", "NUMBER" by whole::<u32>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_the_defaults_that_hold() {
        for (holds, shown) in [Proxy::defaults(), Limits::defaults()].concat() {
            assert_eq!(holds, shown);
        }
    }
}
