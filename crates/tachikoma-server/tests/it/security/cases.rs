//! The table: what an attacker sends, and what the next client must see of it (catalogue §2).
//!
//! A case is named after its row of the catalogue; a letter behind it is a case of the same class.

/// What must come of a request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Want {
    /// Whatever: it is the attack.
    Any,
    /// With nothing of the attack, wherever it comes from.
    Clean,
    /// From the origin, with nothing of the attack.
    Apart,
    /// From the cache, with nothing of the attack.
    Hit,
    /// Not from the cache, whatever its status.
    NoHit,
    /// One of these statuses, and not from the cache.
    Status(&'static [u16]),
    /// From the cache, without a body.
    HitWithoutBody,
    /// From the origin, with the body in the very coding that it had there.
    AsSent,
    /// From the cache of the proxy. In an app the attack may have been a change that it made.
    ProxyHit,
    /// One of these statuses from the proxy; in an app, only not from the cache.
    ProxyStatus(&'static [u16]),
}
use Want::{Any, Apart, AsSent, Clean, Hit, HitWithoutBody, NoHit, ProxyHit, ProxyStatus, Status};

/// The class, how the origin answers, and the requests with what must come of them. `{p}` is a path
/// of the case's own.
type Case = (&'static str, &'static str, &'static [(&'static str, Want)]);

const GET: &str = "GET {p}";

/// The origin's answers by name: status, then headers. The body is all that it saw.
pub(super) fn page(name: &str, head: &str, count: usize) -> (u16, String) {
    let has = |part: &str| head.to_ascii_lowercase().contains(part);
    let fresh = "cache-control: public, max-age=60".to_owned();
    let stale = "stale-if-error=60, stale-while-revalidate=60";
    match name {
        "plain" => (200, String::new()),
        "max-age" => (200, "cache-control: max-age=60".to_owned()),
        "400 if evil" if has("evil") => (400, fresh),
        "403 if evil" if has("evil") => (403, fresh),
        "404 if evil" if has("evil") => (404, fresh),
        "429 if evil" if has("evil") => (429, fresh),
        "500 without a word" => (500, String::new()),
        "404 without a word" => (404, String::new()),
        "404" => (404, fresh),
        "416 if range" if has("range:") => (416, fresh),
        "empty if prefetch" if has("purpose") => (204, fresh),
        "cookie" => (200, format!("{fresh}\r\nset-cookie: id=evil-{count}")),
        "private second" if count > 0 => (200, "cache-control: private, max-age=60".to_owned()),
        "vary star" => (200, format!("{fresh}\r\nvary: *")),
        "vary x star" => (200, format!("{fresh}\r\nvary: x, *")),
        "vary two lines" => (200, format!("{fresh}\r\nvary: x\r\nvary: *")),
        "vary bad" => (200, format!("{fresh}\r\nvary: a b")),
        "vary not ascii" => (200, format!("{fresh}\r\nvary: caf\u{e9}")),
        "vary empty" => (200, format!("{fresh}\r\nvary: ")),
        "vary comma" => (200, format!("{fresh}\r\nvary: ,")),
        "vary many" => {
            let names: Vec<String> = (0..200).map(|i| format!("x-{i}")).collect();
            (200, format!("{fresh}\r\nvary: {}", names.join(",")))
        }
        "vary x" => (200, format!("{fresh}\r\nvary: x")),
        "vary user-agent" => (200, format!("{fresh}\r\nvary: user-agent")),
        // What a CORS layer around a handler that negotiates leaves.
        "vary accept and origin" => (200, format!("{fresh}\r\nvary: accept\r\nvary: origin")),
        "s-maxage" => (200, "cache-control: s-maxage=60".to_owned()),
        "must-revalidate" => (200, "cache-control: max-age=60, must-revalidate".to_owned()),
        "overflow" => (200, "cache-control: max-age=99999999999999999999".to_owned()),
        "age overflow" => (200, format!("{fresh}\r\nage: 18446744073709551615")),
        "strict then down" | "no-cache then down" | "s-maxage then down" if count > 0 => {
            (503, String::new())
        }
        "strict then down" => {
            (200, format!("cache-control: max-age=0, must-revalidate, {stale}\r\netag: \"a\""))
        }
        "no-cache then down" => {
            (200, format!("cache-control: max-age=60, no-cache, {stale}\r\netag: \"a\""))
        }
        "s-maxage then down" => {
            (200, format!("cache-control: s-maxage=0, max-age=60, {stale}\r\netag: \"a\""))
        }
        "elsewhere" if has("post ") => {
            (201, "location: http://other.test/HS-067-victim/\r\ncontent-length: 0".to_owned())
        }
        "etag" => (200, format!("{fresh}\r\netag: \"a\"")),
        "dated" => (200, format!("{fresh}\r\nlast-modified: Sun, 06 Nov 1994 08:49:37 GMT")),
        "secret" => (200, format!("{fresh}\r\ncontent-type: text/html\r\nset-cookie: csrf=1")),
        "private" => (200, "cache-control: private, max-age=60".to_owned()),
        "zipped" => (200, format!("{fresh}\r\ncontent-encoding: x-own\r\nvary: accept-encoding")),
        _ => (200, fresh),
    }
}

pub(super) const CASES: &[Case] = &[
    ("HS-001", "fresh", &[("GET {p}\r\nX-Forwarded-Host: evil", Any), (GET, Clean), (GET, Hit)]),
    ("HS-001b", "fresh", &[("GET {p}\r\nX-Forwarded-Proto: evil", Any), (GET, Clean), (GET, Hit)]),
    ("HS-003", "fresh", &[("GET {p}\r\nX-Forwarded-Port: evil", Any), (GET, Clean), (GET, Hit)]),
    ("HS-005", "fresh", &[("GET {p}\r\nForwarded: host=evil", Any), (GET, Clean), (GET, Hit)]),
    ("HS-007", "fresh", &[("GET {p}\r\nX-Host: evil", Any), (GET, Clean), (GET, Hit)]),
    ("HS-007b", "fresh", &[("GET {p}\r\nX-HTTP-Host-Override: evil", Any), (GET, Clean)]),
    ("HS-007c", "fresh", &[("GET {p}\r\nX-Forwarded-Server: evil", Any), (GET, Clean)]),
    ("HS-009", "fresh", &[("GET {p}\r\nx-now-route-matches: evil", Any), (GET, Clean)]),
    ("HS-009b", "fresh", &[("GET {p}\r\nx-nextjs-data: evil", Any), (GET, Clean), (GET, Hit)]),
    ("HS-009c", "fresh", &[("GET {p}\r\nx-middleware-prefetch: evil", Any), (GET, Clean)]),
    ("HS-009d", "fresh", &[("GET {p}\r\nX-Original-URL: /evil", Any), (GET, Clean)]),
    ("HS-009e", "fresh", &[("GET {p}\r\nX-HTTP-Method-Override: evil", Any), (GET, Clean)]),
    (
        "HS-011",
        "vary accept and origin",
        &[
            ("GET {p}\r\nAccept: evil\r\nOrigin: a", Any),
            ("GET {p}\r\nAccept: b\r\nOrigin: a", Apart),
            ("GET {p}\r\nAccept: b\r\nOrigin: evil", Any),
            ("GET {p}\r\nAccept: b\r\nOrigin: a", Hit),
        ],
    ),
    ("HS-013", "fresh", &[("GET {p}\r\nUser-Agent: a", NoHit), ("GET {p}\r\nUser-Agent: b", Hit)]),
    (
        "HS-013b",
        "vary user-agent",
        &[("GET {p}\r\nUser-Agent: evil", Any), ("GET {p}\r\nUser-Agent: b", Apart)],
    ),
    ("HS-015", "empty if prefetch", &[("GET {p}\r\nPurpose: prefetch", Any), (GET, Clean)]),
    ("HS-015b", "empty if prefetch", &[("GET {p}\r\nSec-Purpose: prefetch", Any), (GET, Clean)]),
    ("HS-019", "fresh", &[("GET {p}?cb=a&cb=evil", Any), ("GET {p}?cb=a", Apart)]),
    ("HS-019b", "fresh", &[("GET {p}?a=1&b=2", NoHit), ("GET {p}?b=2&a=1", NoHit)]),
    ("HS-021", "fresh", &[("GET {p}\r\nContent-Length: 4\r\n\r\nevil", Any), (GET, Apart)]),
    ("HS-023", "fresh", &[("HEAD {p}\r\nContent-Length: 4\r\n\r\nevil", Any), (GET, Clean)]),
    ("HS-027", "fresh", &[("GET {p}\r\nHost: a.test:1337", Any), (GET, Apart), (GET, Hit)]),
    ("HS-029", "400 if evil", &[("GET {p}\r\nX-Huge: evil{9k}", Any), (GET, Apart)]),
    ("HS-031", "404 if evil", &[("GET {p}\r\nX-HTTP-Method: evil", Any), (GET, Apart)]),
    ("HS-031b", "404 if evil", &[("GET {p}\r\nX-Method-Override: evil", Any), (GET, Apart)]),
    ("HS-033", "400 if evil", &[("GET {p}\r\nX-Forwarded-Host: evil", Any), (GET, Clean)]),
    ("HS-033b", "500 without a word", &[(GET, NoHit), (GET, Status(&[500]))]),
    ("HS-033c", "404 without a word", &[(GET, NoHit), (GET, Status(&[404]))]),
    ("HS-035", "416 if range", &[("GET {p}\r\nRange: bytes=99999-", Any), (GET, Apart)]),
    ("HS-037", "403 if evil", &[("GET {p}\r\nX: evil", Any), (GET, Apart)]),
    ("HS-039", "429 if evil", &[("GET {p}\r\nX: evil", Any), (GET, Apart)]),
    ("HS-041", "plain", &[("GET {p}x.css\r\nCookie: id=evil", Any), ("GET {p}x.css", Apart)]),
    ("HS-041b", "max-age", &[("GET {p}x.css\r\nCookie: id=evil", Any), ("GET {p}x.css", Apart)]),
    ("HS-041c", "private second", &[("GET {p}x.css", NoHit), ("GET {p}x.css", Hit)]),
    ("HS-043", "fresh", &[("GET {p}%3Bevil.css", Any), ("GET {p}", Apart)]),
    ("HS-043b", "fresh", &[("GET {p}%23evil.css", Any), ("GET {p}", Apart)]),
    ("HS-043c", "fresh", &[("GET {p}%3Fevil.css", Any), ("GET {p}", Apart)]),
    ("HS-043d", "fresh", &[("GET {p}%26evil.css", Any), ("GET {p}", Apart)]),
    ("HS-045", "fresh", &[("GET {p}%0aevil.css", Any), ("GET {p}", Apart)]),
    ("HS-045b", "fresh", &[("GET {p}%0devil.css", Any), ("GET {p}%0d", Apart)]),
    ("HS-045c", "fresh", &[("GET {p}%09evil.css", Any), ("GET {p}%09", Apart)]),
    ("HS-045d", "fresh", &[("GET {p}a/../evil", Any), ("GET {p}evil2", NoHit)]),
    ("HS-043e", "plain", &[("GET {p}%3Bx.css\r\nCookie: evil", Any), ("GET {p}%3Bx.css", Apart)]),
    ("HS-043f", "max-age", &[("GET {p}%23x.css\r\nCookie: evil", Any), ("GET {p}%23x.css", Apart)]),
    ("HS-043g", "max-age", &[("GET {p}%3Fx.css\r\nCookie: evil", Any), ("GET {p}%3Fx.css", Apart)]),
    ("HS-043h", "private", &[("GET {p}%26x.css\r\nCookie: evil", Any), ("GET {p}%26x.css", Apart)]),
    ("HS-045e", "max-age", &[("GET {p}%0ax.css\r\nCookie: evil", Any), ("GET {p}%0ax.css", Apart)]),
    ("HS-045f", "private", &[("GET {p}%09x.css\r\nCookie: evil", Any), ("GET {p}%09x.css", Apart)]),
    ("HS-047", "fresh", &[("GET {p}#evil.css", Any), (GET, Any), ("GET {p}x#evil", Any)]),
    ("HS-055", "cookie", &[("GET {p}", Any), ("GET {p}", NoHit), ("GET {p}", NoHit)]),
    ("HS-057", "vary star", &[("GET {p}", Any), ("GET {p}", Apart)]),
    ("HS-057b", "vary x star", &[("GET {p}\r\nX: evil", Any), (GET, Apart), (GET, Apart)]),
    ("HS-057c", "vary two lines", &[("GET {p}\r\nX: evil", Any), (GET, Apart), (GET, Apart)]),
    ("HS-057d", "vary bad", &[("GET {p}", Any), ("GET {p}", Apart)]),
    ("HS-057e", "vary many", &[("GET {p}", Any), ("GET {p}", Apart)]),
    ("HS-057f", "vary not ascii", &[("GET {p}", Any), ("GET {p}", Apart)]),
    // Neither names a field, so nothing selects.
    ("HS-057g", "vary empty", &[("GET {p}", Any), ("GET {p}\r\nX: a", Hit)]),
    ("HS-057h", "vary comma", &[("GET {p}", Any), ("GET {p}\r\nX: a", Hit)]),
    (
        "HS-059",
        "vary x",
        &[
            ("GET {p}\r\nX: a\r\nX: b", Apart),
            ("GET {p}\r\nX: a, b", Hit),
            ("GET {p}\r\nX: a\r\nX: c", Apart),
            ("GET {p}\r\nX: a", Apart),
        ],
    ),
    ("HS-061", "fresh", &[("GET {p}\r\nAuthorization: Basic x", NoHit), (GET, Hit)]),
    ("HS-061b", "s-maxage", &[("GET {p}\r\nAuthorization: Basic x", NoHit), (GET, Hit)]),
    ("HS-061c", "max-age", &[("GET {p}\r\nAuthorization: evil", Any), (GET, Apart), (GET, Hit)]),
    ("HS-061d", "max-age", &[("GET {p}\r\nCookie: evil", Any), (GET, Apart), (GET, Hit)]),
    ("HS-061e", "max-age", &[(GET, Clean), ("GET {p}\r\nCookie: a", NoHit)]),
    ("HS-061f", "must-revalidate", &[("GET {p}\r\nAuthorization: x", NoHit), (GET, Hit)]),
    ("HS-061g", "private", &[("GET {p}\r\nAuthorization: evil", Any), (GET, Apart), (GET, Apart)]),
    (
        "HS-065",
        "strict then down",
        &[(GET, Clean), ("GET {p}\r\nCache-Control: max-stale", Status(&[503, 504]))],
    ),
    ("HS-065b", "fresh", &[("GET {p}\r\nCache-Control: only-if-cached", Status(&[504]))]),
    ("HS-065c", "cookie", &[(GET, Any), ("GET {p}\r\nCache-Control: max-stale", NoHit)]),
    (
        "HS-065d",
        "no-cache then down",
        &[(GET, Clean), ("GET {p}\r\nCache-Control: max-stale=9", Status(&[503, 504]))],
    ),
    (
        "HS-065e",
        "s-maxage then down",
        &[(GET, Clean), ("GET {p}\r\nCache-Control: max-stale=9", Status(&[503, 504]))],
    ),
    (
        "HS-065f",
        "strict then down",
        &[(GET, Clean), ("GET {p}\r\nCache-Control: stale-if-error=9", Status(&[503, 504]))],
    ),
    ("HS-065g", "fresh", &[(GET, Clean), ("GET {p}\r\nCache-Control: max-age=0", NoHit)]),
    ("HS-065h", "fresh", &[(GET, Clean), ("GET {p}\r\nCache-Control: no-cache", NoHit)]),
    ("HS-069", "fresh", &[(GET, Clean), ("HEAD {p}", HitWithoutBody)]),
    ("HS-069b", "fresh", &[("HEAD {p}", Any), (GET, Clean), (GET, Hit)]),
    ("HS-071", "fresh", &[("GET {p}\r\nHost: evil.test", Any), (GET, Apart), (GET, Hit)]),
    ("HS-073", "fresh", &[("GET {p}\r\nHost: a.test/b", ProxyStatus(&[400])), (GET, Clean)]),
    ("HS-073b", "fresh", &[("GET {p}\r\nHost: a|evil", ProxyStatus(&[400])), (GET, Clean)]),
    ("HS-073c", "fresh", &[("GET {p}|x", NoHit), ("GET {p}:x", NoHit), ("GET {p}%1fx", NoHit)]),
    ("HS-075", "strict then down", &[(GET, Clean), (GET, Status(&[503, 504]))]),
    ("HS-077", "overflow", &[(GET, Clean), (GET, Hit)]),
    ("HS-077b", "age overflow", &[(GET, Clean), (GET, NoHit)]),
    ("HS-079", "secret", &[("GET {p}\r\nAccept-Encoding: gzip, br", AsSent)]),
    ("HS-079b", "private", &[("GET {p}\r\nAccept-Encoding: gzip, br", AsSent)]),
    (
        "HS-079c",
        "zipped",
        &[("GET {p}\r\nAccept-Encoding: x-own", AsSent), ("GET {p}\r\nAccept-Encoding: br", Apart)],
    ),
    ("HS-095", "fresh", &[("GET http://evil.test{p}", ProxyStatus(&[400, 421])), (GET, Clean)]),
    ("HS-097", "etag", &[(GET, Clean), ("GET {p}\r\nRange: bytes=0-0\r\nIf-Range: \"b\"", Hit)]),
    ("HS-097b", "etag", &[(GET, Clean), ("GET {p}\r\nRange: bytes=0-0\r\nIf-Range: W/\"a\"", Hit)]),
    (
        "HS-097c",
        "dated",
        &[
            (GET, Clean),
            ("GET {p}\r\nRange: bytes=0-0\r\nIf-Range: Sun, 06 Nov 1994 08:49:38 GMT", Hit),
        ],
    ),
    ("HS-097d", "etag", &[(GET, Clean), ("GET {p}\r\nRange: bytes=0-0\r\nIf-Range: a", Hit)]),
    ("HS-101", "fresh", &[(GET, Clean), ("PURGE {p}", ProxyStatus(&[405])), (GET, ProxyHit)]),
    ("HS-101b", "fresh", &[(GET, Clean), ("BAN {p}", ProxyStatus(&[405])), (GET, ProxyHit)]),
    ("K2", "fresh", &[("GET {p}", Clean), ("GET {p}\r\nX-Unrelated: evil", Hit)]),
];
