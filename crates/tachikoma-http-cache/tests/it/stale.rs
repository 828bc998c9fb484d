//! Stale responses: when they are served, and when never.

use axum::body::Body;
use http::{Response, StatusCode};
use tachikoma_http_cache::Disconnected;

use crate::{
    site::{MODES, Mode, Seen, Site, pause, response},
    sizes::streamed,
};

/// Answers once with this `Cache-Control`, then fails.
async fn failing(mode: Mode, cache_control: &'static str) -> Site {
    let site = Site::new(mode, move |seen| match seen.before {
        0 => response(200, &[("cache-control", cache_control)], "good"),
        _ => response(503, &[], "bad"),
    })
    .await;
    site.get("/", &[]).await;
    site
}

#[tokio::test]
async fn a_failing_origin_is_covered_for_as_long_as_the_response_allows() {
    for mode in MODES {
        let site = failing(mode, "max-age=10, stale-if-error=20").await;
        site.advance(29);
        let stale = site.get("/", &[]).await;
        assert_eq!(stale.said(), "tachikoma;hit;ttl=-19;detail=stale-if-error", "{mode:?}");
        assert_eq!((stale.text().as_str(), stale.header("age")), ("good", "29"));
        site.advance(1);
        assert_eq!(site.get("/", &[]).await.status, StatusCode::SERVICE_UNAVAILABLE, "{mode:?}");
    }
}

#[tokio::test]
async fn what_forbids_stale_use_is_never_served_stale() {
    for forbidding in ["must-revalidate", "proxy-revalidate", "s-maxage=10", "no-cache"] {
        let cache_control =
            format!("max-age=10, stale-if-error=99, stale-while-revalidate=99, {forbidding}");
        let cache_control: &'static str = cache_control.leak();
        let site = failing(Mode::Layer, cache_control).await;
        site.advance(11);
        for asked in ["x", "max-stale", "stale-if-error=99"] {
            let answer = site.get("/", &[("cache-control", asked)]).await;
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{forbidding} {asked}");
        }
    }
}

#[tokio::test]
async fn what_is_stored_covers_for_an_origin_that_cannot_be_reached() {
    let site = Site::new(Mode::Layer, |seen| {
        if seen.before < 2 {
            let headers: &[_] = match seen.uri.path() {
                "/strict" => &[("cache-control", "max-age=10, must-revalidate")],
                _ => &[("cache-control", "max-age=10")],
            };
            return response(200, headers, "good");
        }
        let mut failed = response(502, &[], "bad");
        failed.extensions_mut().insert(Disconnected);
        failed
    })
    .await;
    site.get("/", &[]).await;
    site.get("/strict", &[]).await;
    site.advance(3_609);
    let stale = site.get("/", &[]).await;
    assert_eq!(stale.said(), "tachikoma;hit;ttl=-3599;detail=disconnected");
    assert_eq!((stale.status, stale.text().as_str()), (StatusCode::OK, "good"));
    assert_eq!(site.get("/strict", &[]).await.status, StatusCode::BAD_GATEWAY);
    site.advance(1);
    assert_eq!(site.get("/", &[]).await.status, StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn a_client_may_accept_a_stale_response() {
    let site = failing(Mode::Layer, "max-age=10").await;
    site.advance(15);
    let stale = site.get("/", &[("cache-control", "max-stale=5")]).await;
    assert_eq!(stale.said(), "tachikoma;hit;ttl=-5;detail=max-stale");
    let too_old = site.get("/", &[("cache-control", "max-stale=4")]).await;
    assert_eq!(too_old.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_stale_response_is_served_at_once_and_refreshed_once() {
    for mode in MODES {
        let site = Site::new(mode, |seen| {
            let headers = [("cache-control", "max-age=10, stale-while-revalidate=60")];
            response(200, &headers, format!("answer {}", seen.before))
        })
        .await;
        site.get("/", &[]).await;
        site.advance(10);
        let stale = site.get("/", &[]).await;
        assert_eq!(stale.said(), "tachikoma;hit;ttl=0;detail=stale-while-revalidate", "{mode:?}");
        assert_eq!(stale.text(), "answer 0");
        for _ in 0..200 {
            let answer = site.get("/", &[]).await;
            if answer.text() == "answer 1" {
                break;
            }
            pause().await;
        }
        let fresh = site.get("/", &[]).await;
        assert_eq!(
            (fresh.said(), fresh.text().as_str()),
            ("tachikoma;hit;ttl=10", "answer 1"),
            "{mode:?}"
        );
        assert_eq!(site.fetched(), 2, "{mode:?}: one refresh");
    }
}

#[tokio::test]
async fn many_requests_for_a_stale_response_make_one_refresh() {
    let site = Site::new(Mode::Layer, |seen| {
        let headers = [("cache-control", "max-age=10, stale-while-revalidate=60")];
        response(200, &headers, format!("answer {}", seen.before))
    })
    .await;
    site.get("/", &[]).await;
    site.advance(10);
    let many = (0..10_000).map(|_| site.get("/", &[]));
    for answer in futures_util::future::join_all(many).await {
        assert!(answer.is_hit(), "{answer:?}");
    }
    for _ in 0..200 {
        pause().await;
    }
    assert_eq!(site.fetched(), 2);
}

#[tokio::test]
async fn an_error_is_not_stored_unless_it_says_so_and_then_for_ten_seconds() {
    for mode in MODES {
        let site = Site::new(mode, |seen| {
            let fresh = seen.uri.query() == Some("fresh");
            let headers: &[_] = if fresh { &[("cache-control", "max-age=3600")] } else { &[] };
            let status = seen.uri.path().trim_start_matches('/').parse().unwrap();
            response(status, headers, Body::empty())
        })
        .await;
        for status in [400, 403, 404, 410, 429, 500, 503] {
            site.get(&format!("/{status}"), &[]).await;
            assert!(!site.get(&format!("/{status}"), &[]).await.is_hit(), "{mode:?} {status}");
            let path = format!("/{status}?fresh");
            site.get(&path, &[]).await;
            let stored = site.get(&path, &[]).await;
            assert_eq!(stored.is_hit(), ![403, 429].contains(&status), "{mode:?} {status}");
            site.advance(10);
            assert!(!site.get(&path, &[]).await.is_hit(), "{mode:?} {status}");
        }
    }
}

/// A page that has changed, of an origin that says "not modified" of it all the same.
fn confused(seen: &Seen) -> Response<Body> {
    let fields = |etag| [("cache-control", "max-age=10"), ("etag", etag)];
    match seen.before {
        0 => response(200, &fields("\"a\""), "old"),
        _ if seen.headers.contains_key("if-none-match") => response(304, &fields("\"b\""), ""),
        _ => response(200, &fields("\"b\""), "new"),
    }
}

#[tokio::test]
async fn what_a_304_does_not_mean_is_not_its_answer() {
    for mode in MODES {
        let site = Site::with(mode, |layer| layer.empty_body(Body::empty), confused).await;
        site.get("/", &[]).await;
        site.advance(11);
        let asked_again = site.get("/", &[]).await;
        assert_eq!((asked_again.status, asked_again.text().as_str()), (StatusCode::OK, "new"));
        assert_eq!((site.fetched(), asked_again.said()), (3, "tachikoma;fwd=stale;stored"));
        let hit = site.get("/", &[]).await;
        assert!(hit.is_hit() && hit.text() == "new", "{mode:?}");
    }
    // Who cannot ask again says so, and forgets what is old.
    let site = Site::new(Mode::Layer, confused).await;
    site.get("/", &[]).await;
    site.advance(11);
    let refused = site.get("/", &[]).await;
    assert_eq!((refused.status, refused.text().as_str()), (StatusCode::BAD_GATEWAY, ""));
    assert_eq!(site.get("/", &[]).await.text(), "new");
}

#[tokio::test]
async fn a_version_that_proves_too_large_leaves_no_older_one_behind() {
    for mode in MODES {
        let site = Site::with(
            mode,
            |layer| layer.max_body_size(100_000),
            |seen| {
                let fields = [("cache-control", "max-age=10, stale-while-revalidate=600")];
                let whole = vec![7; if seen.before == 0 { 10 } else { 200_000 }];
                response(200, &fields, streamed(&whole, false))
            },
        )
        .await;
        site.get("/", &[]).await;
        site.advance(10);
        for round in 0.. {
            let answer = site.get("/", &[]).await;
            if !answer.is_hit() {
                assert_eq!(answer.body.unwrap().len(), 200_000, "{mode:?}");
                break;
            }
            assert!(round < 2_000, "{mode:?}: the older version is still there");
            pause().await;
        }
    }
}
