//! What the cache does in the ordinary course of things, in both modes.

use std::time::Duration;

use axum::{Router, body::Body, routing::get};
use http::{Method, StatusCode};
use tachikoma_cache::Cache;
use tachikoma_http_cache::HttpCacheLayer;
use tower::ServiceExt as _;

use crate::site::{MODES, Mode, Site, read, request, response};

fn numbered(
    headers: &'static [(&'static str, &'static str)],
) -> impl Fn(&crate::site::Seen) -> http::Response<Body> + Send + Sync {
    move |seen| response(200, headers, format!("answer {}", seen.before))
}

#[tokio::test]
async fn the_second_request_is_a_hit() {
    for mode in MODES {
        let site =
            Site::new(mode, numbered(&[("cache-control", "max-age=60"), ("x-a", "b")])).await;
        let miss = site.get("/a", &[]).await;
        assert_eq!(miss.said(), "tachikoma;fwd=uri-miss;stored", "{mode:?}");
        assert_eq!(miss.text(), "answer 0");
        site.advance(7);
        let hit = site.get("/a", &[]).await;
        assert_eq!(hit.said(), "tachikoma;hit;ttl=53", "{mode:?}");
        assert_eq!((hit.text().as_str(), hit.header("age")), ("answer 0", "7"));
        assert_eq!((hit.header("x-a"), hit.header("content-length")), ("b", "8"));
        assert!(!hit.header("date").is_empty());
        assert_eq!(site.get("/a?", &[]).await.text(), "answer 1");
        assert_eq!(site.fetched(), 2);
        let stats = site.cache.stats();
        assert_eq!((stats.hits, stats.misses, stats.stored), (1, 2, 2));
    }
}

#[tokio::test]
async fn a_hit_equals_the_stored_response_but_for_its_age() {
    for mode in MODES {
        let site = Site::new(mode, |_| {
            let headers = [
                ("cache-control", "max-age=60"),
                ("content-type", "application/json"),
                ("content-encoding", "gzip"),
                ("content-language", "de"),
                ("x-many", "1"),
                ("x-many", "2"),
                ("date", "Sun, 09 Sep 2001 01:46:40 GMT"),
            ];
            response(200, &headers, "zipped")
        })
        .await;
        let (miss, hit) = (site.get("/", &[]).await, site.get("/", &[]).await);
        let mut expected = miss.headers.clone();
        for name in ["cache-status", "age"] {
            expected.remove(name);
        }
        let mut actual = hit.headers.clone();
        for name in ["cache-status", "age"] {
            actual.remove(name);
        }
        assert_eq!(actual, expected, "{mode:?}");
        assert_eq!(miss.text(), hit.text());
    }
}

#[tokio::test]
async fn a_stale_response_is_validated_and_its_head_refreshed() {
    for mode in MODES {
        let site = Site::new(mode, |seen| {
            let version = if seen.before < 2 { "1" } else { "2" };
            let etag = format!("\"v{version}\"");
            let number = seen.before.to_string();
            let head = [("cache-control", "max-age=10"), ("etag", etag.as_str()), ("x-n", &number)];
            if seen.headers.get("if-none-match").is_some_and(|asked| *asked == *etag) {
                response(304, &head, Body::empty())
            } else {
                response(200, &head, format!("version {version}"))
            }
        })
        .await;
        assert_eq!(site.get("/", &[]).await.text(), "version 1");
        site.advance(10);
        let validated = site.get("/", &[]).await;
        assert_eq!(validated.said(), "tachikoma;fwd=stale;fwd-status=304;stored", "{mode:?}");
        assert_eq!((validated.status, validated.text()), (StatusCode::OK, "version 1".to_owned()));
        assert_eq!((validated.header("x-n"), validated.header("content-length")), ("1", "9"));
        site.advance(9);
        let hit = site.get("/", &[]).await;
        assert_eq!((hit.said(), hit.header("x-n")), ("tachikoma;hit;ttl=1", "1"), "{mode:?}");
        site.advance(1);
        let changed = site.get("/", &[]).await;
        assert_eq!(changed.said(), "tachikoma;fwd=stale;stored", "{mode:?}");
        assert_eq!(changed.text(), "version 2");
        assert_eq!(site.get("/", &[]).await.text(), "version 2");
        assert_eq!(site.fetched(), 3);
        assert_eq!(site.cache.stats().revalidations, 1);
    }
}

#[tokio::test]
async fn a_304_that_names_another_version_updates_nothing() {
    let site = Site::new(Mode::Layer, |seen| match seen.before {
        0 => response(200, &[("cache-control", "max-age=10"), ("etag", "\"v1\"")], "one"),
        1 => response(304, &[("cache-control", "max-age=99"), ("etag", "\"v2\"")], Body::empty()),
        _ => response(200, &[("cache-control", "max-age=10"), ("etag", "\"v2\"")], "two"),
    })
    .await;
    site.get("/", &[]).await;
    site.advance(10);
    // Nor is it an answer: the old body is not what it speaks of.
    assert_eq!(site.get("/", &[]).await.status, 502);
    assert_eq!(site.get("/", &[]).await.text(), "two");
    assert!(!site.last().headers.contains_key("if-none-match"));
}

#[tokio::test]
async fn a_clients_condition_is_answered_from_the_store() {
    for mode in MODES {
        let etag = [("cache-control", "max-age=60"), ("etag", "\"v1\""), ("content-type", "a/b")];
        let site = Site::new(mode, move |_| response(200, &etag, "hello")).await;
        site.get("/", &[]).await;
        for same in ["\"v1\"", "W/\"v1\"", "\"v0\", \"v1\"", "*"] {
            let answer = site.get("/", &[("if-none-match", same)]).await;
            assert_eq!(answer.status, StatusCode::NOT_MODIFIED, "{mode:?} {same}");
            assert_eq!((answer.text().as_str(), answer.header("etag")), ("", "\"v1\""));
            assert!(answer.header("content-type").is_empty() && answer.is_hit());
        }
        let other = site.get("/", &[("if-none-match", "\"v2\"")]).await;
        assert_eq!((other.status, other.text()), (StatusCode::OK, "hello".to_owned()));
        assert_eq!(site.fetched(), 1, "{mode:?}");
    }
}

#[tokio::test]
async fn without_anything_stored_a_clients_condition_reaches_the_origin() {
    let site =
        Site::new(Mode::Layer, |_| response(304, &[("etag", "\"v1\"")], Body::empty())).await;
    let answer = site.get("/", &[("if-none-match", "\"v1\"")]).await;
    assert_eq!(answer.status, StatusCode::NOT_MODIFIED);
    assert_eq!(site.last().headers["if-none-match"], "\"v1\"");
    assert_eq!(answer.said(), "tachikoma;fwd=uri-miss;detail=status");
}

#[tokio::test]
async fn an_unsafe_request_that_succeeds_invalidates() {
    for mode in MODES {
        let site = Site::new(mode, |seen| {
            let fails = seen.uri.query() == Some("fail");
            match seen.method {
                Method::GET => {
                    response(200, &[("cache-control", "max-age=60")], format!("{}", seen.before))
                }
                _ if fails => response(500, &[], ""),
                _ => response(
                    201,
                    &[("location", "/b"), ("content-location", "http://other.test/c")],
                    "",
                ),
            }
        })
        .await;
        let other = [("host", "other.test")];
        for path in ["/a", "/b"] {
            site.get(path, &[]).await;
        }
        site.get("/c", &other).await;
        let post = site.send(request("POST", "/a", &[])).await;
        assert_eq!(post.said(), "tachikoma;fwd=method;detail=method", "{mode:?}");
        assert!(!site.get("/a", &[]).await.is_hit(), "{mode:?}: the target");
        assert!(!site.get("/b", &[]).await.is_hit(), "{mode:?}: its location");
        assert!(site.get("/c", &other).await.is_hit(), "{mode:?}: another origin");
        site.send(request("DELETE", "/a?fail", &[])).await;
        assert!(site.get("/a", &[]).await.is_hit(), "{mode:?}: a failed request");
    }
}

#[tokio::test]
async fn each_variant_is_stored_for_the_requests_that_select_it() {
    for mode in MODES {
        let site = Site::new(mode, |seen| {
            let headers = [("cache-control", "max-age=60"), ("vary", "Accept-Language, x-b")];
            let language =
                seen.headers.get("accept-language").map_or("none", |v| v.to_str().unwrap());
            response(200, &headers, language.to_owned())
        })
        .await;
        for language in ["de", "fr"] {
            assert_eq!(site.get("/", &[("accept-language", language)]).await.text(), language);
        }
        assert_eq!(site.get("/", &[]).await.text(), "none");
        for language in ["fr", "de"] {
            let hit = site.get("/", &[("accept-language", language)]).await;
            assert!(hit.is_hit() && hit.text() == language, "{mode:?} {hit:?}");
        }
        let other = site.get("/", &[("accept-language", "de"), ("x-b", "1")]).await;
        assert_eq!(other.said(), "tachikoma;fwd=vary-miss;stored", "{mode:?}");
        let removed = site.cache.purge_url("http://shop.test/").await.unwrap();
        assert_eq!(removed.memory, Some(4));
        assert_eq!(
            site.get("/", &[("accept-language", "de")]).await.said(),
            "tachikoma;fwd=uri-miss;stored"
        );
    }
}

#[tokio::test]
async fn only_if_cached_never_reaches_the_origin() {
    let site = Site::new(Mode::Layer, numbered(&[("cache-control", "max-age=60")])).await;
    let only = [("cache-control", "only-if-cached")];
    let none = site.get("/", &only).await;
    assert_eq!((none.status, site.fetched()), (StatusCode::GATEWAY_TIMEOUT, 0));
    site.get("/", &[]).await;
    assert!(site.get("/", &only).await.is_hit());
    site.advance(60);
    assert_eq!(site.get("/", &only).await.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(site.fetched(), 1);
}

#[tokio::test]
async fn a_request_may_ask_for_a_newer_answer() {
    let site = Site::new(Mode::Layer, numbered(&[("cache-control", "max-age=60")])).await;
    site.get("/", &[]).await;
    let renewed = site.get("/", &[("cache-control", "no-cache")]).await;
    assert_eq!(
        (renewed.said(), renewed.text().as_str()),
        ("tachikoma;fwd=request;stored", "answer 1")
    );
    assert_eq!(site.get("/", &[("pragma", "no-cache")]).await.text(), "answer 2");
    assert_eq!(site.get("/", &[]).await.text(), "answer 2");
    let no_store = site.get("/", &[("cache-control", "no-store")]).await;
    assert_eq!(
        (no_store.said(), no_store.text().as_str()),
        ("tachikoma;fwd=bypass;detail=request-no-store", "answer 3")
    );
    assert_eq!(site.get("/", &[]).await.text(), "answer 2");
}

#[tokio::test]
async fn a_newer_answer_that_may_not_be_stored_ends_the_older_one() {
    let site = Site::new(Mode::Layer, |seen| match seen.before {
        0 => response(200, &[("cache-control", "max-age=60")], "old"),
        _ => response(200, &[("cache-control", "no-store")], "new"),
    })
    .await;
    site.get("/", &[]).await;
    assert_eq!(site.get("/", &[("cache-control", "no-cache")]).await.text(), "new");
    assert_eq!(site.get("/", &[]).await.text(), "new");
}

#[tokio::test]
async fn a_tag_purges_what_carries_it() {
    for mode in MODES {
        let site = Site::new(mode, |seen| {
            let tag = format!("all {}", seen.uri.path().trim_start_matches('/'));
            response(200, &[("cache-control", "max-age=60"), ("surrogate-key", &tag)], "x")
        })
        .await;
        for path in ["/a", "/b"] {
            site.get(path, &[]).await;
        }
        site.cache.purge_tag("a").await.unwrap();
        assert!(!site.get("/a", &[]).await.is_hit(), "{mode:?}");
        assert!(site.get("/b", &[]).await.is_hit(), "{mode:?}");
        site.cache.purge_tag("all").await.unwrap();
        assert!(!site.get("/b", &[]).await.is_hit(), "{mode:?}");
    }
}

#[tokio::test]
async fn a_purge_says_how_much_it_removed_and_refuses_what_is_no_url() {
    let site = Site::new(Mode::Layer, numbered(&[("cache-control", "max-age=60")])).await;
    site.get("/a?b=c", &[]).await;
    let purge = |url| site.cache.purge_url(url);
    assert_eq!(purge("http://shop.test/a").await.unwrap().total(), 0);
    assert_eq!(purge("http://SHOP.test/a?b=c").await.unwrap().total(), 1);
    assert!(!site.get("/a?b=c", &[]).await.is_hit());
    let error = purge("no url").await.unwrap_err();
    assert!(error.to_string().contains("\"no url\" is not a URL"), "{error}");
}

#[tokio::test]
async fn what_states_no_lifetime_is_stored_only_if_the_operator_says_so() {
    let site = Site::new(Mode::Layer, numbered(&[])).await;
    assert_eq!(site.get("/", &[]).await.said(), "tachikoma;fwd=uri-miss;detail=never-usable");
    let site =
        Site::with(Mode::Layer, |layer| layer.default_ttl(Duration::from_secs(5)), numbered(&[]))
            .await;
    site.get("/", &[]).await;
    assert_eq!(site.get("/", &[]).await.said(), "tachikoma;hit;ttl=5");
    let old = &[("last-modified", "Sat, 08 Sep 2001 01:46:40 GMT")];
    let site = Site::with(Mode::Layer, |layer| layer.heuristic(true), numbered(old)).await;
    site.get("/", &[]).await;
    assert_eq!(site.get("/", &[]).await.said(), "tachikoma;hit;ttl=8640");
}

#[tokio::test]
async fn routers_nested_at_two_places_do_not_share_their_paths() {
    let layer = HttpCacheLayer::new(Cache::memory().build().unwrap());
    let part = |name: &'static str| {
        let handler = move || async move { ([("cache-control", "max-age=60")], name) };
        Router::new().route("/x", get(handler)).route("/", get(handler)).layer(layer.clone())
    };
    let app: Router = Router::new().nest("/a", part("a")).nest("/b", part("b"));
    for (path, body) in [("/a/x", "a"), ("/b/x", "b"), ("/a", "a"), ("/b", "b")] {
        for hit in [false, true] {
            let answer = read(app.clone().oneshot(request("GET", path, &[])).await.unwrap()).await;
            assert_eq!((answer.text().as_str(), answer.is_hit()), (body, hit), "{path}");
        }
    }
}
