//! Ranges of bytes: from what is stored whole, from stored parts, and of several at once.

use http::StatusCode;
use tachikoma_http_cache::HttpCacheLayer;

use crate::site::{Answer, MODES, Mode, Seen, Site, request, response};
use axum::body::Body;

const CONTENT: &str = "0123456789abcdefghij";

/// An origin that serves ranges of [`CONTENT`] under this `ETag` for a minute.
async fn divisible(
    mode: Mode,
    etag: impl Fn(&Seen) -> &'static str + Send + Sync + 'static,
) -> Site {
    divisible_with(mode, |layer| layer, etag).await
}

async fn divisible_with(
    mode: Mode,
    options: impl FnOnce(HttpCacheLayer) -> HttpCacheLayer,
    etag: impl Fn(&Seen) -> &'static str + Send + Sync + 'static,
) -> Site {
    Site::with(
        mode,
        |layer| options(layer).empty_body(Body::empty),
        move |seen| {
            let etag = etag(seen);
            let fields = [("cache-control", "max-age=60"), ("etag", etag), ("content-type", "a/b")];
            if seen.headers.get("if-none-match").is_some_and(|known| known == etag) {
                return response(304, &fields, "");
            }
            let range = seen.headers.get("range").map(|range| range.to_str().unwrap());
            let Some((first, last)) = range.and_then(|range| range[6..].split_once('-')) else {
                return response(200, &fields, CONTENT);
            };
            let (first, last): (usize, usize) = match (first, last) {
                ("", length) => {
                    (CONTENT.len() - length.parse::<usize>().unwrap(), CONTENT.len() - 1)
                }
                (first, "") => (first.parse().unwrap(), CONTENT.len() - 1),
                (first, last) => (first.parse().unwrap(), last.parse().unwrap()),
            };
            let range = format!("bytes {first}-{last}/{}", CONTENT.len());
            let mut response = response(206, &fields, &CONTENT[first..=last]);
            response.headers_mut().insert("content-range", range.parse().unwrap());
            response
        },
    )
    .await
}

/// Most of a video is too large to be stored; a player asks for its end first.
#[tokio::test]
async fn more_of_the_same_version_that_is_too_large_takes_away_nothing() {
    for mode in MODES {
        let large = |layer: HttpCacheLayer| layer.max_body_size(8);
        let site = divisible_with(mode, large, |seen| {
            if seen.uri.path() == "/new" && seen.before > 2 { "\"b\"" } else { "\"a\"" }
        })
        .await;
        for (path, is_kept) in [("/same", true), ("/new", false)] {
            let ask = async |range: &str| site.get(path, &[("range", range)]).await;
            assert!(!ask("bytes=16-").await.is_hit());
            assert!(ask("bytes=16-").await.is_hit());
            let large = ask("bytes=2-").await;
            assert_eq!((large.text().as_str(), large.is_hit()), (&CONTENT[2..], false));
            assert!(large.said().contains("too-large"), "{}", large.said());
            assert_eq!(ask("bytes=16-").await.is_hit(), is_kept, "{mode:?} {path}");
        }
    }
}

async fn range(site: &Site, range: &str) -> Answer {
    site.get("/", &[("range", range)]).await
}

#[tokio::test]
async fn a_range_is_taken_from_what_is_stored_whole() {
    for mode in MODES {
        let site = divisible(mode, |_| "\"a\"").await;
        site.get("/", &[]).await;
        let part = range(&site, "bytes=1-3").await;
        assert_eq!((part.status, part.text()), (StatusCode::PARTIAL_CONTENT, "123".to_owned()));
        assert_eq!(part.header("content-range"), "bytes 1-3/20", "{mode:?}");
        assert_eq!((part.header("content-length"), part.header("content-type")), ("3", "a/b"));
        assert_eq!((part.header("etag"), part.is_hit()), ("\"a\"", true));
        let whole = site.get("/", &[("range", "bytes=1-3"), ("if-range", "\"b\"")]).await;
        assert_eq!((whole.status, whole.text()), (StatusCode::OK, CONTENT.to_owned()));
        let behind = range(&site, "bytes=20-").await;
        assert_eq!(behind.status, StatusCode::RANGE_NOT_SATISFIABLE, "{mode:?}");
        assert_eq!(behind.header("content-range"), "bytes */20");
        assert_eq!((behind.header("cache-control"), behind.text().as_str()), ("", ""));
        let same = [("range", "bytes=1-3"), ("if-none-match", "\"a\"")];
        assert_eq!(site.get("/", &same).await.status, StatusCode::NOT_MODIFIED);
        assert_eq!(site.fetched(), 1, "{mode:?}");
        site.advance(60);
        let stale = range(&site, "bytes=1-3").await;
        assert_eq!(stale.said(), "tachikoma;fwd=stale;fwd-status=304;stored", "{mode:?}");
        assert_eq!((stale.status, stale.text()), (StatusCode::PARTIAL_CONTENT, "123".to_owned()));
    }
}

#[tokio::test]
async fn several_ranges_are_one_multipart_body() {
    for mode in MODES {
        let site = divisible(mode, |_| "\"a\"").await;
        site.get("/", &[]).await;
        let parts = range(&site, "bytes=0-1,-2").await;
        assert_eq!(parts.status, StatusCode::PARTIAL_CONTENT, "{mode:?}");
        let kind = parts.header("content-type").to_owned();
        let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
        let expected = format!(
            "\r\n--{boundary}\r\nContent-Type: a/b\r\nContent-Range: bytes 0-1/20\r\n\r\n01\
             \r\n--{boundary}\r\nContent-Type: a/b\r\nContent-Range: bytes 18-19/20\r\n\r\nij\
             \r\n--{boundary}--\r\n"
        );
        assert_eq!(parts.text(), expected, "{mode:?}");
        assert_eq!(parts.header("content-length"), expected.len().to_string());
        assert_eq!(parts.header("content-range"), "");
    }
}

#[tokio::test]
async fn a_part_is_stored_and_answers_what_lies_within_it() {
    for mode in MODES {
        let site = divisible(mode, |_| "\"a\"").await;
        let first = range(&site, "bytes=4-9").await;
        assert_eq!(first.said(), "tachikoma;fwd=uri-miss;stored", "{mode:?}");
        let within = range(&site, "bytes=5-7").await;
        assert_eq!((within.text().as_str(), within.is_hit()), ("567", true), "{mode:?}");
        assert_eq!(within.header("content-range"), "bytes 5-7/20");
        assert_eq!(range(&site, "bytes=20-").await.status, StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(site.fetched(), 1, "{mode:?}");
        let beyond = range(&site, "bytes=8-12").await;
        assert_eq!(beyond.said(), "tachikoma;fwd=partial;stored", "{mode:?}");
        let head = site.send(request("HEAD", "/", &[])).await;
        assert_eq!(head.said(), "tachikoma;fwd=partial;detail=head", "{mode:?}");
        let whole = site.get("/", &[]).await;
        assert_eq!((whole.status, whole.text()), (StatusCode::OK, CONTENT.to_owned()));
        assert_eq!(whole.said(), "tachikoma;fwd=partial;stored", "{mode:?}");
        assert!(range(&site, "bytes=0-").await.is_hit(), "{mode:?}");
    }
}

#[tokio::test]
async fn parts_of_one_version_grow_together_until_they_are_the_whole() {
    for mode in MODES {
        let site = divisible(mode, |_| "\"a\"").await;
        for part in ["bytes=0-4", "bytes=10-14", "bytes=3-11"] {
            assert!(!range(&site, part).await.is_hit(), "{mode:?} {part}");
        }
        let across = range(&site, "bytes=2-13").await;
        assert_eq!((across.text().as_str(), across.is_hit()), (&CONTENT[2..14], true), "{mode:?}");
        range(&site, "bytes=-5").await;
        let whole = site.get("/", &[]).await;
        assert_eq!(
            (whole.status, whole.text(), whole.is_hit()),
            (StatusCode::OK, CONTENT.to_owned(), true)
        );
        assert_eq!(whole.header("content-range"), "");
        assert_eq!(whole.header("content-length"), "20");
        assert_eq!(site.fetched(), 4, "{mode:?}");
    }
}

#[tokio::test]
async fn parts_that_no_strong_validator_ties_together_are_never_combined() {
    for (first, then) in [("\"a\"", "\"b\""), ("W/\"a\"", "W/\"a\""), ("", "")] {
        let site =
            divisible(Mode::Layer, move |seen| if seen.before == 0 { first } else { then }).await;
        range(&site, "bytes=0-9").await;
        range(&site, "bytes=10-19").await;
        assert!(range(&site, "bytes=12-13").await.is_hit(), "{first}: the last one is stored");
        assert!(!range(&site, "bytes=2-3").await.is_hit(), "{first}");
        assert!(!site.get("/", &[]).await.is_hit(), "{first}");
    }
}

#[tokio::test]
async fn what_does_not_say_which_part_it_is_is_never_stored() {
    for fields in [
        &[("content-range", "bytes 9-4/20")][..],
        &[("content-range", "bytes */20")],
        &[],
        &[("content-range", "bytes 0-4/20"), ("content-type", "multipart/byteranges; boundary=x")],
    ] {
        let site = Site::new(Mode::Layer, move |_| {
            let fields = [fields, &[("cache-control", "max-age=60")]].concat();
            response(206, &fields, "01234")
        })
        .await;
        for _ in 0..2 {
            let answer = range(&site, "bytes=0-4").await;
            assert_eq!(answer.said(), "tachikoma;fwd=uri-miss;detail=part", "{fields:?}");
        }
        let unasked = site.get("/", &[]).await;
        assert_eq!(unasked.said(), "tachikoma;fwd=uri-miss;detail=part", "{fields:?}");
    }
}

#[tokio::test]
async fn a_part_is_confirmed_by_a_304_and_forgotten_by_an_unsafe_request() {
    for mode in MODES {
        let site = divisible(mode, |_| "\"a\"").await;
        range(&site, "bytes=4-9").await;
        site.advance(60);
        let confirmed = range(&site, "bytes=5-6").await;
        assert_eq!(confirmed.said(), "tachikoma;fwd=stale;fwd-status=304;stored", "{mode:?}");
        assert_eq!((confirmed.status.as_u16(), confirmed.text().as_str()), (206, "56"));
        assert!(range(&site, "bytes=4-4").await.is_hit(), "{mode:?}");
        site.send(request("DELETE", "/", &[])).await;
        assert!(!range(&site, "bytes=4-4").await.is_hit(), "{mode:?}");
    }
}
