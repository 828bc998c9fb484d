//! Stored parts that are completed: one request for the bytes that are missing.

use axum::body::Body;
use http::{Response, StatusCode};

use crate::site::{MODES, Mode, Seen, Site, response};

const CONTENT: &str = "0123456789abcdefghij";

/// The part that is asked for, as a 206 with these fields.
fn part(seen: &Seen, fields: &[(&str, &str)]) -> Option<Response<Body>> {
    let range = seen.headers.get("range")?.to_str().unwrap();
    let (first, last) = match range[6..].split_once('-').unwrap() {
        ("", length) => (CONTENT.len() - length.parse::<usize>().unwrap(), CONTENT.len() - 1),
        (first, "") => (first.parse().unwrap(), CONTENT.len() - 1),
        (first, last) => (first.parse().unwrap(), last.parse().unwrap()),
    };
    let range = format!("bytes {first}-{last}/{}", CONTENT.len());
    let mut response = response(206, fields, &CONTENT[first..=last]);
    response.headers_mut().insert("content-range", range.parse().unwrap());
    Some(response)
}

async fn site(
    mode: Mode,
    handler: impl Fn(&Seen) -> Response<Body> + Send + Sync + 'static,
) -> Site {
    Site::with(mode, |layer| layer.empty_body(Body::empty), handler).await
}

/// An origin that has ranges, under this `ETag`, for a minute.
async fn divisible(mode: Mode, etag: &'static str) -> Site {
    site(mode, move |seen| {
        let fields = [("cache-control", "max-age=60"), ("etag", etag), ("x-call", "later")];
        let fields = if seen.before == 0 { &fields[..2] } else { &fields };
        part(seen, fields).unwrap_or_else(|| response(200, fields, CONTENT))
    })
    .await
}

/// What the origin was asked for, by `Range` and `If-Range`.
fn asked(site: &Site) -> Vec<String> {
    let log = site.log.lock().unwrap();
    let field = |seen: &Seen, name| {
        seen.headers.get(name).map_or(String::new(), |value| value.to_str().unwrap().to_owned())
    };
    log.iter()
        .map(|seen| format!("{} {}", field(seen, "range"), field(seen, "if-range")))
        .map(|asked| asked.trim().to_owned())
        .collect()
}

#[tokio::test]
async fn only_what_is_missing_is_asked_for() {
    for mode in MODES {
        for (stored, missing) in [
            (&["bytes=0-4"][..], "bytes=5- \"a\""),
            (&["bytes=-5"], "bytes=0-14 \"a\""),
            (&["bytes=0-4", "bytes=15-"], "bytes=5-14 \"a\""),
            (&["bytes=0-18"], "bytes=19- \"a\""),
        ] {
            let site = divisible(mode, "\"a\"").await;
            for range in stored {
                site.get("/", &[("range", range)]).await;
            }
            let whole = site.get("/", &[]).await;
            assert_eq!((whole.status, whole.text().as_str()), (StatusCode::OK, CONTENT));
            assert_eq!(whole.header("content-length"), "20", "{mode:?} {stored:?}");
            assert_eq!((whole.header("content-range"), whole.header("x-call")), ("", "later"));
            assert_eq!(whole.said(), "tachikoma;fwd=partial;fwd-status=206;stored");
            assert_eq!(asked(&site).last().unwrap(), missing, "{mode:?} {stored:?}");
            let again = site.get("/", &[]).await;
            assert_eq!((again.text().as_str(), again.is_hit()), (CONTENT, true), "{mode:?}");
            assert_eq!(site.fetched(), stored.len() + 1, "{mode:?} {stored:?}");
        }
    }
}

#[tokio::test]
async fn what_lies_apart_is_asked_for_as_a_whole() {
    for mode in MODES {
        let site = divisible(mode, "\"a\"").await;
        for range in ["bytes=2-4", "bytes=10-12"] {
            site.get("/", &[("range", range)]).await;
        }
        assert_eq!(site.get("/", &[]).await.text(), CONTENT, "{mode:?}");
        assert_eq!(asked(&site).last().unwrap(), "", "{mode:?}");
    }
}

#[tokio::test]
async fn parts_of_other_versions_are_never_joined() {
    for mode in MODES {
        for etags in [["\"a\"", "\"b\""], ["W/\"a\"", "W/\"a\""], ["\"a\"", ""], ["", ""]] {
            // An origin that does not look at `If-Range`.
            let site = site(mode, move |seen| {
                let etag = etags[seen.before.min(1)];
                let fields = [("cache-control", "max-age=60"), ("etag", etag)];
                let fields = if etag.is_empty() { &fields[..1] } else { &fields[..] };
                let other = "ABCDEFGHIJKLMNOPQRST";
                part(seen, fields).unwrap_or_else(|| response(200, fields, other))
            })
            .await;
            site.get("/", &[("range", "bytes=0-4")]).await;
            let whole = site.get("/", &[]).await;
            assert_eq!(whole.status, StatusCode::OK, "{mode:?} {etags:?}");
            assert_eq!(whole.text(), "ABCDEFGHIJKLMNOPQRST", "{mode:?} {etags:?}");
            assert_eq!(asked(&site)[1..].len(), 2, "{mode:?} {etags:?}");
            assert_eq!(asked(&site)[2], "", "{mode:?} {etags:?}");
            assert!(site.get("/", &[]).await.is_hit(), "{mode:?} {etags:?}");
        }
    }
}

#[tokio::test]
async fn an_origin_without_ranges_sends_the_whole_at_once() {
    for mode in MODES {
        let site = site(mode, |seen| {
            let fields = [("cache-control", "max-age=60")];
            let part = part(seen, &fields).filter(|_| seen.before == 0);
            part.unwrap_or_else(|| response(200, &fields, CONTENT))
        })
        .await;
        site.get("/", &[("range", "bytes=0-4")]).await;
        let whole = site.get("/", &[]).await;
        assert_eq!((whole.status, whole.text().as_str()), (StatusCode::OK, CONTENT), "{mode:?}");
        assert_eq!(asked(&site), ["bytes=0-4", "bytes=5-"], "{mode:?}");
        assert!(site.get("/", &[]).await.is_hit(), "{mode:?}");
    }
}

#[tokio::test]
async fn a_rest_that_is_shorter_than_it_says_never_ends_cleanly() {
    for mode in MODES {
        let site = site(mode, |seen| {
            let fields = [("cache-control", "max-age=60"), ("etag", "\"a\"")];
            let Some(part) = part(seen, &fields) else { return response(200, &fields, CONTENT) };
            match seen.before {
                0 => part,
                _ => part.map(|_| {
                    // Of no known length, so nothing below sees that it is too short.
                    Body::from_stream(futures_util::stream::iter([Ok::<_, std::io::Error>("56")]))
                }),
            }
        })
        .await;
        site.get("/", &[("range", "bytes=0-4")]).await;
        let broken = site.get("/", &[]).await;
        assert!(broken.body.is_err(), "{mode:?} {broken:?}");
        assert!(!site.get("/", &[]).await.is_hit(), "{mode:?}");
    }
}

#[tokio::test]
async fn nothing_is_joined_for_who_may_not_have_the_part() {
    for mode in MODES {
        let site = divisible(mode, "\"a\"").await;
        site.get("/", &[("range", "bytes=0-4")]).await;
        for own in [("cookie", "a=b"), ("authorization", "Basic eDp5")] {
            assert_eq!(site.get("/", &[own]).await.text(), CONTENT);
            assert_eq!(asked(&site).last().unwrap(), "", "{mode:?} {own:?}");
        }
        // Nor is a part that is no longer fresh, without anything that says that it is current.
        let stale = divisible(mode, "W/\"a\"").await;
        stale.get("/", &[("range", "bytes=0-4")]).await;
        stale.advance(61);
        assert_eq!(stale.get("/", &[]).await.text(), CONTENT);
        assert_eq!(asked(&stale), ["bytes=0-4", ""], "{mode:?}");
    }
}

#[tokio::test]
async fn a_cookie_with_the_rest_goes_to_its_client_alone() {
    for mode in MODES {
        let site = site(mode, |seen| {
            let fields =
                [("cache-control", "max-age=60"), ("etag", "\"a\""), ("set-cookie", "a=b")];
            let fields = if seen.before == 1 { &fields[..] } else { &fields[..2] };
            part(seen, fields).unwrap_or_else(|| response(200, fields, CONTENT))
        })
        .await;
        site.get("/", &[("range", "bytes=0-4")]).await;
        let own = site.get("/", &[]).await;
        assert_eq!((own.text().as_str(), own.header("set-cookie")), (CONTENT, "a=b"), "{mode:?}");
        let other = site.get("/", &[]).await;
        assert_eq!((other.header("set-cookie"), other.is_hit()), ("", false), "{mode:?}");
    }
}

#[tokio::test]
async fn without_a_way_to_ask_again_the_whole_is_asked_for() {
    for mode in MODES {
        let site = Site::new(mode, |seen| {
            let fields = [("cache-control", "max-age=60"), ("etag", "\"a\"")];
            part(seen, &fields).unwrap_or_else(|| response(200, &fields, CONTENT))
        })
        .await;
        site.get("/", &[("range", "bytes=0-4")]).await;
        assert_eq!(site.get("/", &[]).await.text(), CONTENT);
        assert_eq!(asked(&site), ["bytes=0-4", ""], "{mode:?}");
    }
}
