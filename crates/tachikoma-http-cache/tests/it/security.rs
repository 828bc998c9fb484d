//! What one client can make another one see: nothing. Each case in both modes, with no option set.

use axum::body::Body;
use http::StatusCode;
use tachikoma_http_cache::Forwarded;

use crate::site::{MODES, Mode, Seen, Site, request, response};

/// Answers with every header that the request had, as an application that reflects them would.
fn reflect(seen: &Seen) -> http::Response<Body> {
    let headers = [("cache-control", "public, max-age=60, s-maxage=60")];
    response(200, &headers, format!("{} {:?}", seen.uri, seen.headers))
}

#[tokio::test]
async fn a_header_that_no_key_holds_poisons_nothing() {
    for mode in MODES {
        for name in [
            "x-forwarded-host",
            "x-forwarded-port",
            "x-forwarded-proto",
            "x-forwarded-scheme",
            "x-forwarded-for",
            "x-forwarded-server",
            "x-forwarded-prefix",
            "forwarded",
            "x-host",
            "x-http-host-override",
            "x-original-url",
            "x-rewrite-url",
            "x-http-method-override",
            "x-method-override",
            "x-now-route-matches",
            "x-nextjs-data",
            "x-middleware-prefetch",
            "x-invoke-path",
            "purpose",
            "sec-purpose",
            "x-real-ip",
        ] {
            let site = Site::new(mode, reflect).await;
            let attack = site.get("/", &[(name, "evil")]).await;
            assert!(attack.text().contains("evil"));
            assert_eq!(attack.said(), format!("tachikoma;fwd=uri-miss;detail=\"unkeyed {name}\""));
            let victim = site.get("/", &[]).await;
            assert!(!victim.text().contains("evil"), "{mode:?} {name}");
            assert!(site.get("/", &[]).await.is_hit(), "{mode:?} {name}");
            // And the victim's answer is not the attacker's either.
            assert!(!site.get("/", &[(name, "evil")]).await.is_hit(), "{mode:?} {name}");
        }
    }
}

#[tokio::test]
async fn an_unrelated_header_changes_nothing() {
    for mode in MODES {
        let site = Site::new(mode, reflect).await;
        site.get("/", &[]).await;
        for name in ["x-anything", "accept", "user-agent", "referer", "x-request-id", "origin"] {
            assert!(site.get("/", &[(name, "other")]).await.is_hit(), "{mode:?} {name}");
        }
        assert_eq!(site.fetched(), 1);
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_forwarding_selects_a_variant() {
    let site = Site::with(Mode::Layer, |layer| layer.forwarded(Forwarded::Keyed), reflect).await;
    let a = [("x-forwarded-host", "a.test"), ("x-forwarded-for", "1.1.1.1")];
    let b = [("x-forwarded-host", "b.test"), ("x-forwarded-for", "1.1.1.1")];
    let a_again = [("x-forwarded-host", "a.test"), ("x-forwarded-for", "2.2.2.2")];
    for headers in [a, b] {
        assert!(!site.get("/", &headers).await.is_hit());
    }
    assert!(!site.get("/", &[]).await.is_hit());
    assert!(site.get("/", &a_again).await.text().contains("a.test"));
    assert!(site.get("/", &b).await.is_hit());
    assert_eq!(site.fetched(), 3);
}

#[tokio::test]
async fn credentials_share_nothing_without_permission() {
    for mode in MODES {
        for name in ["authorization", "cookie"] {
            let private = |seen: &Seen| {
                response(200, &[("cache-control", "max-age=60")], format!("{:?}", seen.headers))
            };
            let site = Site::new(mode, private).await;
            let alice = site.get("/", &[(name, "alice")]).await;
            assert_eq!(alice.said(), format!("tachikoma;fwd=uri-miss;detail={name}"));
            for other in [&[(name, "bob")][..], &[]] {
                assert!(!site.get("/", other).await.text().contains("alice"), "{mode:?} {name}");
            }
            // What an anonymous request stored is not for Alice either.
            assert!(site.get("/", &[]).await.is_hit());
            assert!(site.get("/", &[(name, "alice")]).await.text().contains("alice"));

            let site = Site::new(mode, reflect).await;
            site.get("/", &[(name, "alice")]).await;
            assert!(site.get("/", &[]).await.is_hit(), "{mode:?} {name}: said public");
        }
    }
}

#[tokio::test]
async fn a_cookie_is_never_replayed() {
    for mode in MODES {
        let site = Site::new(mode, |seen| {
            let cookie = format!("id={}", seen.before);
            let headers =
                [("cache-control", "public, s-maxage=60"), ("set-cookie", cookie.as_str())];
            response(200, &headers, "x")
        })
        .await;
        for expected in ["id=0", "id=1"] {
            let answer = site.get("/", &[]).await;
            assert_eq!(answer.header("set-cookie"), expected, "{mode:?}");
            assert_eq!(answer.said(), "tachikoma;fwd=uri-miss;detail=set-cookie");
        }
    }
}

#[tokio::test]
async fn the_cookie_of_a_validation_reaches_its_client_only() {
    for mode in MODES {
        let site = Site::new(mode, |seen| match seen.before {
            0 => response(200, &[("cache-control", "max-age=10"), ("etag", "\"a\"")], "x"),
            _ => response(
                304,
                &[("cache-control", "max-age=10"), ("etag", "\"a\""), ("set-cookie", "id=1")],
                Body::empty(),
            ),
        })
        .await;
        site.get("/", &[]).await;
        site.advance(10);
        assert_eq!(site.get("/", &[]).await.header("set-cookie"), "id=1", "{mode:?}");
        assert_eq!(site.get("/", &[]).await.header("set-cookie"), "", "{mode:?}");
    }
}

#[tokio::test]
async fn vary_star_is_never_a_hit() {
    for mode in MODES {
        let many: Vec<String> = (0..200).map(|i| format!("x-{i}")).collect();
        let cases: [(&[&str], bool); 7] = [
            (&["*"], false),
            (&["x, *"], false),
            (&["x", "*"], false),
            (&[""], true),
            (&[","], true),
            (&["a b"], false),
            (&[&many.join(",")], false),
        ];
        for (lines, stored) in cases {
            let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
            let shown = lines.clone();
            let site = Site::new(mode, move |_| {
                let mut headers = vec![("cache-control", "max-age=60")];
                headers.extend(lines.iter().map(|line| ("vary", line.as_str())));
                response(200, &headers, "x")
            })
            .await;
            site.get("/", &[]).await;
            assert_eq!(site.get("/", &[]).await.is_hit(), stored, "{mode:?} {shown:?}");
        }
    }
}

#[tokio::test]
async fn repeated_request_headers_count_whole() {
    for mode in MODES {
        let site = Site::new(mode, |seen| {
            let headers = [("cache-control", "max-age=60"), ("vary", "x")];
            response(200, &headers, format!("{:?}", seen.headers))
        })
        .await;
        site.get("/", &[("x", "a"), ("x", "b")]).await;
        assert!(site.get("/", &[("x", "a, b")]).await.is_hit(), "{mode:?}");
        assert!(!site.get("/", &[("x", "a"), ("x", "c")]).await.is_hit(), "{mode:?}");
        assert!(!site.get("/", &[("x", "a")]).await.is_hit(), "{mode:?}");
    }
}

#[tokio::test]
async fn a_path_is_taken_as_it_is_sent() {
    for mode in MODES {
        let site = Site::new(mode, reflect).await;
        let paths = [
            "/account",
            "/account/x.css",
            "/account%3Bx.css",
            "/account%23x.css",
            "/account%3Fx.css",
            "/account%0a.css",
            "/account;x.css",
            "/account/",
            "//account",
            "/./account",
            "/ACCOUNT",
            "/account?",
            "/account?a=1&a=2",
            "/account?a=2&a=1",
            "/account|x:y",
        ];
        for path in paths {
            assert!(!site.get(path, &[]).await.is_hit(), "{mode:?} {path}");
        }
        for path in paths {
            let hit = site.get(path, &[]).await;
            assert!(hit.is_hit() && hit.text().starts_with(&format!("{path} ")), "{mode:?} {path}");
        }
    }
}

#[tokio::test]
async fn hosts_are_kept_apart() {
    for mode in MODES {
        let site = Site::new(mode, reflect).await;
        for host in ["a.test", "b.test", "a.test:1337", "[::1]"] {
            assert!(!site.get("/", &[("host", host)]).await.is_hit(), "{mode:?} {host}");
        }
        assert!(site.get("/", &[("host", "A.test")]).await.is_hit(), "{mode:?}");
    }
    let site = Site::new(Mode::Layer, reflect).await;
    for host in ["a.test/b", "a|/b", "u@a.test", ""] {
        for _ in 0..2 {
            let answer = site.get("/", &[("host", host)]).await;
            assert_eq!(answer.said(), "tachikoma;fwd=bypass;detail=target", "{host}");
        }
    }
}

#[tokio::test]
async fn a_request_with_a_body_is_never_stored() {
    let site = Site::new(Mode::Layer, reflect).await;
    let mut fat = request("GET", "/", &[("content-length", "4")]);
    *fat.body_mut() = Body::from("evil");
    assert_eq!(site.send(fat).await.said(), "tachikoma;fwd=bypass;detail=request-body");
    assert!(!site.get("/", &[]).await.is_hit());
}

#[tokio::test]
async fn fields_of_a_connection_are_not_replayed() {
    const GONE: [(&str, &str); 12] = [
        ("connection", "x-hop, x-other"),
        ("x-hop", "1"),
        ("x-other", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-authenticate", "Basic"),
        ("proxy-authentication-info", "x"),
        ("proxy-authorization", "Basic x"),
        ("proxy-connection", "keep-alive"),
        ("te", "trailers"),
        ("trailer", "x"),
        ("upgrade", "h2c"),
        ("server-timing", "db;dur=5"),
    ];
    let site = Site::new(Mode::Layer, |_| {
        let kept = [("cache-control", "max-age=60"), ("x-kept", "1")];
        response(200, &[&kept[..], &GONE].concat(), "x")
    })
    .await;
    site.get("/", &[]).await;
    let hit = site.get("/", &[]).await;
    assert!(hit.is_hit() && hit.header("x-kept") == "1");
    for (name, _) in GONE {
        assert!(!hit.headers.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn an_error_that_a_request_may_have_caused_is_not_shared() {
    for mode in MODES {
        let site = Site::new(mode, |seen| {
            if seen.headers.contains_key("x-huge") {
                response(400, &[("cache-control", "max-age=60")], "too large")
            } else {
                response(200, &[("cache-control", "max-age=60")], "fine")
            }
        })
        .await;
        let huge = "a".repeat(9_000);
        let attack = site.get("/", &[("x-huge", &huge)]).await;
        assert_eq!(attack.status, StatusCode::BAD_REQUEST);
        assert_eq!(attack.said(), "tachikoma;fwd=uri-miss;detail=oversize");
        assert_eq!(site.get("/", &[]).await.text(), "fine", "{mode:?}");
    }
}

#[tokio::test]
async fn private_parts_of_a_response_are_not_stored() {
    let site = Site::new(Mode::Layer, |_| {
        let headers = [("cache-control", "max-age=60, private=\"x-user\""), ("x-user", "alice")];
        response(200, &headers, "x")
    })
    .await;
    assert_eq!(site.get("/", &[]).await.header("x-user"), "alice");
    let hit = site.get("/", &[]).await;
    assert!(hit.is_hit() && hit.header("x-user").is_empty());
}

#[tokio::test]
async fn huge_numbers_neither_panic_nor_live_for_ever() {
    for (name, value) in [
        ("cache-control", "max-age=99999999999999999999"),
        ("age", "18446744073709551615"),
        ("expires", "Fri, 31 Dec 9999 23:59:59 GMT"),
    ] {
        let site = Site::new(Mode::Layer, move |_| {
            response(200, &[("cache-control", "max-age=60"), (name, value)], "x")
        })
        .await;
        for _ in 0..2 {
            assert_eq!(site.get("/", &[]).await.status, StatusCode::OK, "{name}");
        }
        site.advance(1 << 31);
        assert!(!site.get("/", &[]).await.is_hit(), "{name}");
    }
}

#[tokio::test]
async fn an_error_about_one_request_leaves_the_page_that_others_get() {
    for (status, is_kept) in [
        (400, true),
        (401, true),
        (403, true),
        (406, true),
        (429, true),
        (431, true),
        (500, true),
        (200, false),
        (303, false),
        (404, false),
        (410, false),
    ] {
        let site = Site::new(Mode::Layer, move |seen| {
            if seen.headers.contains_key("x-bad") {
                return response(status, &[("cache-control", "no-store")], "for you");
            }
            response(200, &[("cache-control", "max-age=60"), ("etag", "\"a\"")], "page")
        })
        .await;
        site.get("/", &[]).await;
        let bad = site.get("/", &[("cache-control", "no-cache"), ("x-bad", "1")]).await;
        assert_eq!((bad.status.as_u16(), bad.text().as_str()), (status, "for you"));
        assert_eq!(site.get("/", &[]).await.is_hit(), is_kept, "{status}");
    }
}
