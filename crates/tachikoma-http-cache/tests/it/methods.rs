//! What a HEAD tells about what is stored, and a POST whose answer is stored.

use http::StatusCode;

use crate::site::{MODES, Mode, Site, request, response};

/// Answers GET once, and a HEAD after it with `head`.
async fn with_head(mode: Mode, head: &'static [(&'static str, &'static str)]) -> Site {
    let site = Site::new(mode, move |seen| {
        if seen.method == "HEAD" {
            return response(200, head, "");
        }
        let fields = [("cache-control", "max-age=10"), ("etag", "\"a\""), ("x-seen", "get")];
        response(200, &fields, format!("answer {}", seen.before))
    })
    .await;
    site.get("/", &[]).await;
    site.advance(10);
    site
}

#[tokio::test]
async fn a_head_about_the_same_version_updates_what_is_stored() {
    for mode in MODES {
        let head = &[
            ("etag", "\"a\""),
            ("cache-control", "max-age=60"),
            ("content-length", "8"),
            ("x-seen", "head"),
        ];
        let site = with_head(mode, head).await;
        site.send(request("HEAD", "/", &[])).await;
        let updated = site.get("/", &[]).await;
        assert_eq!(updated.said(), "tachikoma;hit;ttl=60", "{mode:?}");
        assert_eq!((updated.text().as_str(), updated.header("x-seen")), ("answer 0", "head"));
        assert_eq!(site.fetched(), 2, "{mode:?}");
    }
}

#[tokio::test]
async fn a_head_about_another_version_makes_what_is_stored_unusable() {
    for head in [
        &[("etag", "\"b\""), ("cache-control", "max-age=60")][..],
        &[("content-length", "99"), ("cache-control", "max-age=60")],
        &[("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"), ("cache-control", "max-age=60")],
        &[("etag", "\"a\""), ("cache-control", "no-store")],
    ] {
        let site = with_head(Mode::Layer, head).await;
        site.send(request("HEAD", "/", &[])).await;
        let answer = site.get("/", &[("cache-control", "max-stale")]).await;
        assert_eq!(answer.said(), "tachikoma;fwd=uri-miss;stored", "{head:?}");
        assert_eq!(answer.text(), "answer 2", "{head:?}");
    }
}

/// Answers each request with these fields.
async fn answering(mode: Mode, fields: &'static [(&'static str, &'static str)]) -> Site {
    Site::new(mode, move |seen| response(200, fields, format!("{} {}", seen.method, seen.before)))
        .await
}

#[tokio::test]
async fn the_answer_to_a_post_is_stored_if_it_says_it_is_that_of_a_get() {
    for mode in MODES {
        let fields = &[("cache-control", "max-age=60"), ("content-location", "/cart?id=1")];
        let site = answering(mode, fields).await;
        site.get("/cart?id=1", &[]).await;
        let posted = site.send(request("POST", "/cart?id=1", &[])).await;
        assert_eq!(posted.said(), "tachikoma;fwd=method;stored;detail=method", "{mode:?}");
        assert_eq!(posted.text(), "POST 1");
        let got = site.get("/cart?id=1", &[]).await;
        assert_eq!((got.text().as_str(), got.is_hit()), ("POST 1", true), "{mode:?}");
        assert!(site.send(request("HEAD", "/cart?id=1", &[])).await.is_hit(), "{mode:?}");
        assert!(!site.send(request("POST", "/cart?id=1", &[])).await.is_hit(), "{mode:?}");
    }
}

#[tokio::test]
async fn no_other_answer_to_a_post_is_stored() {
    for fields in [
        &[("cache-control", "max-age=60")][..],
        &[("cache-control", "max-age=60"), ("content-location", "/other")],
        &[("content-location", "/cart"), ("etag", "\"a\"")],
        &[("cache-control", "public"), ("content-location", "/cart"), ("etag", "\"a\"")],
        &[("cache-control", "max-age=60, private"), ("content-location", "/cart")],
        &[("cache-control", "max-age=60"), ("content-location", "/cart"), ("set-cookie", "a=b")],
    ] {
        let site = answering(Mode::Layer, fields).await;
        site.get("/cart", &[]).await;
        let posted = site.send(request("POST", "/cart", &[])).await;
        assert_eq!(posted.status, StatusCode::OK);
        let got = site.get("/cart", &[]).await;
        assert_eq!((got.text().as_str(), got.is_hit()), ("GET 2", false), "{fields:?}");
    }
    let fields = &[("cache-control", "max-age=60"), ("content-location", "/cart")];
    let site = answering(Mode::Layer, fields).await;
    site.send(request("POST", "/cart", &[("cookie", "a=b")])).await;
    assert!(!site.get("/cart", &[]).await.is_hit(), "what a cookie brought");
    site.send(request("PUT", "/put", &[])).await;
    assert!(!site.get("/put", &[]).await.is_hit(), "only POST is defined so");
}
