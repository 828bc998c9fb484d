//! What is purged is gone, or stale, and how much that was; read back each time.

use tachikoma_cache::Removed;
use tachikoma_http_cache::Purge;

use crate::site::{Mode, Seen, Site, request, response};

const PATHS: [&str; 6] = ["/a/1", "/a/2?q=*", "/a/x.css", "/b/x.css", "/b/[1]", "/a"];

fn page(seen: &Seen) -> http::Response<axum::body::Body> {
    let tag = seen.uri.path().rsplit('/').next().unwrap_or_default().to_owned();
    let headers = [
        ("cache-control", "max-age=60, stale-while-revalidate=600"),
        ("surrogate-key", tag.as_str()),
        ("vary", if seen.uri.path() == "/a/1" { "x" } else { "" }),
    ];
    response(200, &headers, format!("{} {}", seen.uri, seen.before))
}

/// A site with a response for each path, on two hosts, and two variants of the first one.
async fn filled() -> Site {
    let site = Site::new(Mode::Layer, page).await;
    for host in ["shop.test", "other.test"] {
        for path in PATHS {
            site.get(path, &[("host", host)]).await;
        }
        site.get("/a/1", &[("host", host), ("x", "1")]).await;
    }
    site
}

async fn is_hit(site: &Site, host: &str, path: &str) -> bool {
    let only = [("host", host), ("cache-control", "only-if-cached")];
    site.get(path, &only).await.is_hit()
}

/// Which paths of a host are still there.
async fn left(site: &Site, host: &str) -> Vec<&'static str> {
    let mut left = Vec::new();
    for path in PATHS {
        if is_hit(site, host, path).await {
            left.push(path);
        }
    }
    left
}

#[track_caller]
fn memory(removed: Removed, expected: u64) {
    assert_eq!(removed.memory.unwrap_or(0), expected, "{removed:?}");
    assert_eq!(removed.redis, None);
}

async fn check(purge: Purge, count: u64, gone: &[&str], gone_of_the_other: &[&str]) {
    let site = filled().await;
    assert_eq!(site.cache.count(&purge).await.unwrap(), count, "{purge:?}");
    memory(site.cache.purge(&purge).await.unwrap(), count);
    for (host, gone) in [("shop.test", gone), ("other.test", gone_of_the_other)] {
        let expected: Vec<_> = PATHS.into_iter().filter(|path| !gone.contains(path)).collect();
        assert_eq!(left(&site, host).await, expected, "{purge:?} {host}");
    }
    memory(site.cache.purge(&purge).await.unwrap(), 0);
    if gone.contains(&"/a/1") {
        let variant = [("x", "1"), ("cache-control", "only-if-cached")];
        assert!(!site.get("/a/1", &variant).await.is_hit(), "{purge:?}: a variant is left");
    }
}

#[tokio::test]
async fn a_url_takes_all_its_variants_and_nothing_else() {
    check(Purge::url("http://shop.test/a/1"), 2, &["/a/1"], &[]).await;
    check(Purge::url("http://SHOP.test/a/2?q=*"), 1, &["/a/2?q=*"], &[]).await;
    check(Purge::url("http://shop.test/a/2"), 0, &[], &[]).await;
}

#[tokio::test]
async fn a_prefix_is_taken_byte_for_byte() {
    let a = ["/a/1", "/a/2?q=*", "/a/x.css"];
    check(Purge::prefix("http://shop.test/a/"), 4, &a, &[]).await;
    check(Purge::prefix("http://Shop.test/b/["), 1, &["/b/[1]"], &[]).await;
    check(Purge::prefix("/a/"), 8, &a, &a).await;
    check(Purge::prefix("/a/2?q=*"), 2, &["/a/2?q=*"], &["/a/2?q=*"]).await;
    check(Purge::prefix("http://shop.test/c"), 0, &[], &[]).await;
}

#[tokio::test]
async fn a_pattern_names_urls_or_the_paths_of_every_host() {
    let css = ["/a/x.css", "/b/x.css"];
    check(Purge::pattern("http://shop.test/*.css"), 2, &css, &[]).await;
    check(Purge::pattern("http://Shop.TEST/*.css"), 2, &css, &[]).await;
    check(Purge::pattern("http://*.TEST/*.css"), 4, &css, &css).await;
    check(Purge::pattern("http://shop.test/*.CSS"), 0, &[], &[]).await;
    check(Purge::pattern("/*.css"), 4, &css, &css).await;
    check(Purge::pattern("http://*.test/b/\\[?]"), 2, &["/b/[1]"], &["/b/[1]"]).await;
}

#[tokio::test]
async fn what_names_no_urls_is_refused_and_says_what_is_allowed() {
    let site = Site::new(Mode::Layer, page).await;
    for purge in [
        Purge::prefix("shop.test/a"),
        Purge::prefix(""),
        Purge::pattern("user:*"),
        Purge::pattern("ftp://a/*"),
        Purge::url("a b"),
    ] {
        for purge in [purge.clone(), purge.soft()] {
            let error = site.cache.purge(&purge).await.unwrap_err().to_string();
            assert!(error.contains("http://"), "{error}");
            assert!(site.cache.count(&purge).await.is_err());
        }
    }
}

#[tokio::test]
async fn a_soft_purge_leaves_what_may_still_be_used_stale() {
    for (purge, count) in [
        (Purge::url("http://shop.test/a/1"), 2),
        (Purge::prefix("http://shop.test/a/1"), 2),
        (Purge::pattern("/a/1"), 4),
        (Purge::tag("1"), 4),
    ] {
        let site = filled().await;
        memory(site.cache.purge(&purge.soft()).await.unwrap(), count);
        assert!(is_hit(&site, "shop.test", "/b/x.css").await);
        for headers in [&[][..], &[("x", "1")]] {
            let stale = site.get("/a/1", headers).await;
            assert!(stale.said().contains("detail=stale-while-revalidate"), "{}", stale.said());
        }
        // The refresh brings what is fresh.
        for round in 0.. {
            if site.get("/a/1", &[]).await.said().starts_with("tachikoma;hit;ttl=60") {
                break;
            }
            assert!(round < 1_000, "never refreshed");
            crate::site::pause().await;
        }
    }
}

#[tokio::test]
async fn a_long_url_is_found_by_its_prefix_and_its_tag() {
    let long = format!("/long/{}", "x".repeat(5_000));
    let site = Site::new(Mode::Layer, |seen| {
        let headers = [("cache-control", "max-age=60"), ("surrogate-key", "long")];
        response(200, &headers, seen.before.to_string())
    })
    .await;
    for purge in [
        Purge::prefix("http://shop.test/long/"),
        Purge::pattern("/long*"),
        Purge::tag("long").soft(),
    ] {
        site.get(&long, &[]).await;
        assert!(site.get(&long, &[]).await.is_hit());
        assert_eq!(site.cache.count(&purge).await.unwrap(), 1, "{purge:?}");
        memory(site.cache.purge(&purge).await.unwrap(), 1);
        assert!(!site.get(&long, &[]).await.is_hit(), "{purge:?}");
    }
}

#[tokio::test]
async fn an_ignored_parameter_of_a_purged_url_is_ignored_too() {
    let site = Site::with(Mode::Layer, |layer| layer.ignore_query(["utm_*"]).unwrap(), page).await;
    site.get("/a?utm_x=1", &[]).await;
    let purge = Purge::url("http://shop.test/a?utm_y=2");
    memory(site.cache.purge(&purge).await.unwrap(), 1);
    assert!(!site.send(request("GET", "/a", &[])).await.is_hit());
}

#[tokio::test]
async fn a_soft_purge_of_a_tag_leaves_all_that_has_it_stale_however_much_that_is() {
    let site = Site::new(Mode::Layer, |seen| {
        let all = if seen.uri.path() == "/other" { "other" } else { "all" };
        let fresh = "max-age=60, stale-while-revalidate=600";
        response(200, &[("cache-control", fresh), ("surrogate-key", all)], "")
    })
    .await;
    let paths: Vec<String> = (0..600).map(|n| format!("/{n}")).collect();
    for path in &paths {
        site.get(path, &[]).await;
    }
    site.get("/other", &[]).await;
    // A task that never waits has others store what it asked for.
    for round in 0.. {
        if site.cache.stats().stored == 601 {
            break;
        }
        assert!(round < 2_000, "{} stored", site.cache.stats().stored);
        crate::site::pause().await;
    }
    memory(site.cache.purge(&Purge::tag("all").soft()).await.unwrap(), 600);
    for path in &paths {
        let stale = site.get(path, &[("cache-control", "only-if-cached")]).await;
        assert!(stale.said().contains("detail=stale-while-revalidate"), "{path}: {}", stale.said());
    }
    assert!(is_hit(&site, "shop.test", "/other").await);
    memory(site.cache.purge(&Purge::tag("none").soft()).await.unwrap(), 0);
}
