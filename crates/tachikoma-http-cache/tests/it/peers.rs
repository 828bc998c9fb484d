//! What other Rust caches get wrong, as far as it is about HTTP; named after the behaviour.

use axum::body::Body;
use http::{Method, StatusCode};

use crate::site::{MODES, Mode, Site, request, response};

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

#[tokio::test]
async fn get_after_head_has_its_body_and_head_after_get_has_none() {
    for mode in MODES {
        let site = Site::new(mode, |_| response(200, &[FRESH], "hello")).await;
        let head = site.send(request("HEAD", "/", &[])).await;
        assert_eq!((head.status, head.text()), (StatusCode::OK, String::new()), "{mode:?}");
        let get = site.get("/", &[]).await;
        assert_eq!((get.text().as_str(), get.is_hit()), ("hello", false), "{mode:?}");
        let head = site.send(request("HEAD", "/", &[])).await;
        assert!(head.is_hit() && head.text().is_empty(), "{mode:?}");
        assert_eq!(head.header("content-length"), "5", "{mode:?}");
        assert_eq!(site.get("/", &[]).await.text(), "hello");
    }
}

#[tokio::test]
async fn an_anonymous_401_is_not_for_an_authenticated_user() {
    for mode in MODES {
        let site = Site::new(mode, |seen| {
            if seen.headers.contains_key("authorization") {
                response(200, &[("cache-control", "public, max-age=60")], "welcome")
            } else {
                response(401, &[FRESH], "who are you")
            }
        })
        .await;
        assert_eq!(site.get("/", &[]).await.status, StatusCode::UNAUTHORIZED);
        let user = site.get("/", &[("authorization", "Basic x")]).await;
        assert_eq!((user.status, user.text()), (StatusCode::OK, "welcome".to_owned()), "{mode:?}");
    }
}

#[tokio::test]
async fn what_is_stale_at_once_is_not_reused() {
    for mode in MODES {
        for cache_control in
            ["max-age=0", "max-age=60, max-age=0", "s-maxage=0, max-age=60", "no-cache, max-age=60"]
        {
            let site = Site::new(mode, move |seen| {
                let headers = [("cache-control", cache_control), ("etag", "\"a\"")];
                response(200, &headers, seen.before.to_string())
            })
            .await;
            for expected in ["0", "1", "2"] {
                assert_eq!(site.get("/", &[]).await.text(), expected, "{mode:?} {cache_control}");
            }
        }
    }
}

#[tokio::test]
async fn without_a_lifetime_neither_language_nor_page_is_mixed_up() {
    for mode in MODES {
        let site = Site::with(
            mode,
            |layer| layer.heuristic(true),
            |seen| {
                let language = seen.headers.get("accept-language").unwrap().to_str().unwrap();
                let headers = [
                    ("vary", "accept-language"),
                    ("last-modified", "Sat, 08 Sep 2001 01:46:40 GMT"),
                ];
                response(200, &headers, format!("{language} {}", seen.uri))
            },
        )
        .await;
        for language in ["fr", "de"] {
            for path in ["/?page=1", "/?page=2"] {
                for _ in 0..2 {
                    let answer = site.get(path, &[("accept-language", language)]).await;
                    assert_eq!(answer.text(), format!("{language} {path}"), "{mode:?}");
                }
            }
        }
        assert_eq!(site.fetched(), 4, "{mode:?}");
    }
}

#[tokio::test]
async fn a_post_is_never_answered_from_the_store() {
    for mode in MODES {
        let site = Site::new(mode, |seen| response(200, &[FRESH], seen.before.to_string())).await;
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
            let before = site.fetched();
            for _ in 0..2 {
                assert!(!site.send(request(method.as_str(), "/", &[])).await.is_hit());
            }
            assert_eq!(site.fetched(), before + 2, "{mode:?} {method}");
        }
    }
}

#[tokio::test]
async fn private_in_capitals_and_no_store_on_a_second_line_are_seen() {
    for mode in MODES {
        for lines in
            [&["max-age=60, PRIVATE"][..], &["max-age=60", "no-store"], &["max-age=60, No-Store"]]
        {
            let site = Site::new(mode, move |_| {
                let headers: Vec<_> = lines.iter().map(|line| ("cache-control", *line)).collect();
                response(200, &headers, "x")
            })
            .await;
            for _ in 0..2 {
                assert!(!site.get("/", &[]).await.is_hit(), "{mode:?} {lines:?}");
            }
            assert_eq!(site.fetched(), 2);
        }
    }
}

#[tokio::test]
async fn a_304_brings_its_new_fields_and_every_repeated_one() {
    let site = Site::new(Mode::Layer, |seen| match seen.before {
        0 => response(
            200,
            &[("cache-control", "max-age=10"), ("etag", "\"a\""), ("x-many", "1")],
            "x",
        ),
        _ => response(
            304,
            &[("cache-control", "max-age=10"), ("x-many", "2"), ("x-many", "3"), ("x-new", "4")],
            Body::empty(),
        ),
    })
    .await;
    site.get("/", &[]).await;
    site.advance(10);
    site.get("/", &[]).await;
    let hit = site.get("/", &[]).await;
    assert!(hit.is_hit());
    let many: Vec<_> = hit.headers.get_all("x-many").iter().collect();
    assert_eq!(many, ["2", "3"]);
    assert_eq!(hit.header("x-new"), "4");
}

#[tokio::test]
async fn an_asctime_date_is_a_date() {
    let site = Site::new(Mode::Layer, |_| {
        let headers =
            [("date", "Sun Sep  9 01:46:40 2001"), ("expires", "Sun Sep  9 01:47:40 2001")];
        response(200, &headers, "x")
    })
    .await;
    site.get("/", &[]).await;
    assert_eq!(site.get("/", &[]).await.said(), "tachikoma;hit;ttl=60");
}

#[tokio::test]
async fn a_date_that_is_added_is_written_as_http_writes_dates() {
    let site = Site::new(Mode::Layer, |_| response(200, &[FRESH], "x")).await;
    site.get("/", &[]).await;
    let hit = site.get("/", &[]).await;
    let date = hit.header("date");
    assert!(
        date.ends_with(" GMT") && date.len() == "Sun, 06 Nov 1994 08:49:37 GMT".len(),
        "{date}"
    );
}

#[tokio::test]
async fn a_body_that_will_not_be_stored_is_passed_on_piece_by_piece() {
    use http_body_util::BodyExt as _;
    for mode in MODES {
        let (release, held) = tokio::sync::oneshot::channel::<()>();
        let held = std::sync::Mutex::new(Some(held));
        let site = Site::new(mode, move |_| {
            let held = held.lock().unwrap().take().unwrap();
            let pieces = futures_util::stream::unfold((0, Some(held)), |(n, held)| async move {
                match n {
                    0 => Some((Ok::<_, std::io::Error>("first"), (1, held))),
                    1 => {
                        // The rest comes only when the beginning has been read.
                        held.unwrap().await.unwrap();
                        Some((Ok(" last"), (2, None)))
                    }
                    _ => None,
                }
            });
            response(200, &[("cache-control", "no-store")], Body::from_stream(pieces))
        })
        .await;
        let mut body = site.open(request("GET", "/", &[])).await.into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "first", "{mode:?}");
        release.send(()).unwrap();
        assert_eq!(body.collect().await.unwrap().to_bytes(), " last", "{mode:?}");
        assert_eq!(site.cache.stats().fill_bytes, 0, "{mode:?}");
    }
}

#[tokio::test]
async fn neither_a_cookie_nor_a_zero_s_maxage_yields_to_max_stale() {
    for mode in MODES {
        for fields in [
            &[("cache-control", "s-maxage=0, max-age=60"), ("etag", "\"a\"")][..],
            &[("cache-control", "max-age=60, no-cache"), ("etag", "\"a\"")],
            &[("cache-control", "max-age=1"), ("set-cookie", "a=b")],
        ] {
            let site =
                Site::new(mode, move |seen| response(200, fields, seen.before.to_string())).await;
            for expected in ["0", "1"] {
                let answer = site.get("/", &[("cache-control", "max-stale")]).await;
                assert_eq!(answer.text(), expected, "{mode:?} {fields:?}");
                site.advance(2);
            }
        }
    }
}
