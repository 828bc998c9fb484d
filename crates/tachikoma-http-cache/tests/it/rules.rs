//! What an operator says about some of the URLs, in both modes.

use std::time::Duration;

use axum::{Router, body::Body, extract::OriginalUri, routing::get};
use http::HeaderName;
use tachikoma_cache::Cache;
use tachikoma_http_cache::{HttpCacheLayer, Rule};
use tower::ServiceExt as _;

use crate::site::{MODES, Mode, Seen, Site, read, request, response};

const MINUTE: Duration = Duration::from_secs(60);

async fn site(
    mode: Mode,
    rule: Rule,
    handler: impl Fn(&Seen) -> http::Response<Body> + Send + Sync + 'static,
) -> Site {
    Site::with(mode, |layer| layer.rule(rule).unwrap(), handler).await
}

fn reflect(seen: &Seen, headers: &[(&str, &str)]) -> http::Response<Body> {
    response(200, headers, format!("{} {:?} {}", seen.uri, seen.headers, seen.before))
}

#[tokio::test]
async fn an_ignored_parameter_is_seen_by_neither_the_key_nor_the_origin() {
    for mode in MODES {
        let rule = Rule::prefix("/").unwrap().ignore_query(["utm_*", "gclid"]).unwrap();
        let fresh = |seen: &Seen| reflect(seen, &[("cache-control", "max-age=60")]);
        let site = site(mode, rule, fresh).await;
        let attack = site.get("/a?utm_content=%3Cscript%3E&b=1&gclid=2", &[]).await;
        assert!(!attack.text().contains("script"), "{mode:?}");
        assert_eq!(site.last().uri.to_string(), "/a?b=1");
        let victim = site.get("/a?b=1", &[]).await;
        assert!(victim.is_hit() && !victim.text().contains("script"), "{mode:?}");
        assert!(site.get("/a?utm_source=x&b=1", &[]).await.is_hit());
        assert!(!site.get("/a?b=1&c", &[]).await.is_hit());
        // An unsafe request invalidates what those with the parameter get too.
        site.send(request("POST", "/a?utm_source=y&b=1", &[])).await;
        assert!(!site.get("/a?b=1", &[]).await.is_hit(), "{mode:?}");
    }
}

#[tokio::test]
async fn a_nested_router_does_not_see_an_ignored_parameter_either() {
    let show = |OriginalUri(uri): OriginalUri| async move {
        ([("cache-control", "max-age=60")], uri.to_string())
    };
    let layer = HttpCacheLayer::new(Cache::memory().build().unwrap());
    let layer = layer.ignore_query(["utm_*"]).unwrap();
    let inner = Router::new().route("/b", get(show)).layer(layer);
    let app = Router::new().nest("/a", inner);
    for hit in [false, true] {
        let asked = app.clone().oneshot(request("GET", "/a/b?utm_x=1&c=2", &[]));
        let answer = read(asked.await.unwrap()).await;
        assert_eq!((answer.text().as_str(), answer.is_hit()), ("/a/b?c=2", hit));
    }
}

#[tokio::test]
async fn a_rule_may_give_a_lifetime_and_another_may_take_a_path_out() {
    for mode in MODES {
        let site = Site::with(
            mode,
            |layer| {
                let news = Rule::path("/news/*").unwrap().ttl(MINUTE);
                let live = Rule::path("/news/live*").unwrap().bypass();
                layer.rule(news).unwrap().rule(live).unwrap()
            },
            |seen| match seen.uri.query() {
                Some("private") => reflect(seen, &[("cache-control", "private")]),
                Some("old") => reflect(seen, &[("cache-control", "max-age=10"), ("age", "500")]),
                Some("error") => response(500, &[], "sorry"),
                _ => reflect(seen, &[("cache-control", "max-age=5")]),
            },
        )
        .await;
        for (path, stored) in [
            ("/news/a", true),
            ("/news/b?old", true),
            ("/news/c?private", false),
            ("/news/d?error", false),
            ("/news/live", false),
        ] {
            site.get(path, &[]).await;
            site.advance(59);
            assert_eq!(site.get(path, &[]).await.is_hit(), stored, "{mode:?} {path}");
        }
        site.advance(60);
        assert!(!site.get("/news/a", &[]).await.is_hit(), "{mode:?}");
        let live = site.get("/news/live", &[]).await;
        assert_eq!(live.said(), "tachikoma;fwd=bypass;detail=rule", "{mode:?}");
        site.get("/other", &[]).await;
        site.advance(5);
        assert!(!site.get("/other", &[]).await.is_hit(), "{mode:?}: not of the rule");
    }
}

#[tokio::test]
async fn what_is_forced_is_stored_without_its_cookie() {
    for mode in MODES {
        let site = site(mode, Rule::prefix("/shared").unwrap().force_store(MINUTE), |seen| {
            let headers = [
                ("cache-control", "private, no-store, no-cache"),
                ("set-cookie", "id=1"),
                ("content-type", "text/html"),
            ];
            reflect(seen, &headers)
        })
        .await;
        let first = site.get("/shared", &[("cookie", "a=alice")]).await;
        assert_eq!(first.header("set-cookie"), "id=1", "{mode:?}");
        for cookie in ["a=bob", "a=carol"] {
            let hit = site.get("/shared", &[("cookie", cookie)]).await;
            assert!(hit.is_hit() && hit.header("set-cookie").is_empty(), "{mode:?} {}", hit.said());
        }
        // Not for who shows credentials, and not for other paths.
        assert!(!site.get("/shared", &[("authorization", "Basic x")]).await.is_hit());
        site.get("/", &[]).await;
        assert!(!site.get("/", &[]).await.is_hit(), "{mode:?}");
    }
}

#[tokio::test]
async fn a_route_may_be_declared_independent_of_cookies_and_keyed_by_a_header() {
    for mode in MODES {
        let rule = Rule::path("/page*").unwrap().ignore_cookies();
        let rule = rule.key_headers([HeaderName::from_static("accept")]);
        let fresh = |seen: &Seen| reflect(seen, &[("cache-control", "max-age=60")]);
        let site = site(mode, rule, fresh).await;
        site.get("/page", &[("cookie", "a=1"), ("accept", "text/html")]).await;
        let other = site.get("/page", &[("cookie", "a=2"), ("accept", "text/html")]).await;
        assert!(other.is_hit(), "{mode:?}: {}", other.said());
        let json = site.get("/page", &[("accept", "application/json")]).await;
        assert!(!json.is_hit(), "{mode:?}");
        assert!(!site.get("/else", &[("cookie", "a=1")]).await.is_hit());
        assert!(!site.get("/else", &[("cookie", "a=1")]).await.is_hit(), "{mode:?}");
    }
}

/// HS-065: what a flood of such requests costs the origin is the operator's to say.
#[tokio::test]
async fn where_requests_have_no_say_none_of_them_reaches_the_origin() {
    const SAYINGS: [(&str, &str); 6] = [
        ("cache-control", "no-cache"),
        ("cache-control", "no-store"),
        ("cache-control", "max-age=0"),
        ("cache-control", "min-fresh=100"),
        ("pragma", "no-cache"),
        ("cache-control", "max-stale"),
    ];
    for mode in MODES {
        let rule = Rule::prefix("/").unwrap().ignore_request_directives();
        let fresh = |seen: &Seen| reflect(seen, &[("cache-control", "max-age=60")]);
        let site = site(mode, rule, fresh).await;
        let only = [("cache-control", "only-if-cached")];
        assert_eq!(site.get("/", &only).await.said(), "tachikoma;fwd=uri-miss;stored", "{mode:?}");
        for _ in 0..50 {
            for saying in SAYINGS {
                let answer = site.get("/", &[saying]).await;
                assert!(answer.is_hit(), "{mode:?} {saying:?}: {}", answer.said());
            }
        }
        assert_eq!(site.fetched(), 1, "{mode:?}");
        // What is stale is no answer to who would take it.
        site.advance(60);
        assert!(!site.get("/", &[("cache-control", "max-stale")]).await.is_hit(), "{mode:?}");
        // Credentials are none of that.
        assert!(!site.get("/", &[("cookie", "a=b")]).await.is_hit(), "{mode:?}");
    }
    let site =
        Site::new(Mode::Layer, |seen| reflect(seen, &[("cache-control", "max-age=60")])).await;
    for _ in 0..3 {
        site.get("/", &[("cache-control", "no-cache")]).await;
    }
    assert_eq!(site.fetched(), 3, "by default they are heeded");
}

/// Web cache deception: a path that looks like a file, and is an account.
#[tokio::test]
async fn a_rule_about_files_does_not_make_an_account_a_file() {
    for mode in MODES {
        let site = site(mode, Rule::path("*.css").unwrap().ttl(MINUTE), |seen| {
            let kind =
                if seen.uri.path().starts_with("/account") { "text/html" } else { "text/css" };
            reflect(seen, &[("content-type", kind)])
        })
        .await;
        let account = site.get("/account/x.css", &[("cookie", "id=alice")]).await;
        assert_eq!(account.said(), "tachikoma;fwd=uri-miss;detail=cookie", "{mode:?}");
        let anonymous = site.get("/account/x.css", &[]).await;
        assert_eq!(anonymous.said(), "tachikoma;fwd=uri-miss;detail=content-type", "{mode:?}");
        assert!(!anonymous.text().contains("alice"), "{mode:?}");
        site.get("/style.css", &[]).await;
        assert!(site.get("/style.css", &[]).await.is_hit(), "{mode:?}");
    }
}

#[tokio::test]
async fn tags_come_from_headers_that_are_named_and_from_rules() {
    let site = Site::with(
        Mode::Layer,
        |layer| {
            let layer = layer.tags_from_header([HeaderName::from_static("x-topics")]);
            layer.rule(Rule::prefix("/").unwrap().tag("all").unwrap()).unwrap()
        },
        |seen| reflect(seen, &[("cache-control", "max-age=60"), ("x-topics", "news, sport")]),
    )
    .await;
    for tag in ["news", "sport", "all"] {
        site.get("/", &[]).await;
        assert!(site.get("/", &[]).await.is_hit(), "{tag}");
        assert_eq!(site.cache.count_tag(tag).await.unwrap(), 1);
        site.cache.purge_tag(tag).await.unwrap();
        assert!(!site.get("/", &[]).await.is_hit(), "{tag}");
    }
}

#[tokio::test]
async fn a_rule_for_a_host_holds_for_its_name_with_a_last_dot_too() {
    for name in ["shop.test", "shop.test.", "*.test", "*.test."] {
        let rule = Rule::path("/*").unwrap().host(name).unwrap().bypass();
        let fresh = |seen: &Seen| reflect(seen, &[("cache-control", "max-age=60")]);
        let site = site(Mode::Layer, rule, fresh).await;
        for host in ["shop.test", "shop.test.", "Shop.Test.:80"] {
            site.get("/", &[("host", host)]).await;
            assert!(!site.get("/", &[("host", host)]).await.is_hit(), "{name} {host}");
        }
        assert!(!site.get("/", &[("host", "shop.test.evil")]).await.is_hit());
        assert!(site.get("/", &[("host", "shop.test.evil")]).await.is_hit(), "{name}");
    }
}
