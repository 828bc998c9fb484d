//! `Cache-Ticket`: whoever brings the ticket of an invalidation is shown nothing from before it,
//! neither a copy in this process's memory nor what is still arriving.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream::{StreamExt as _, iter, once};
use tachikoma_cache::{Cache, TestClock};
use tachikoma_http_cache::{CACHE_TICKET, Purge};
use tachikoma_testkit::{Fault, FaultProxy, RedisServer};
use tokio::sync::Semaphore;

use crate::site::{Answer, Mode, Site, pause, request, response};

const FRESH: [(&str, &str); 2] = [("cache-control", "max-age=600"), ("surrogate-key", "news")];

/// A node whose page says the version, on this server or what stands before it.
async fn node(port: u16, version: &Arc<AtomicU64>) -> (Cache, Site) {
    let url = format!("redis://127.0.0.1:{port}/0?memory=on&store_timeout=10s");
    let cache = Cache::connect(&url).await.unwrap();
    let version = Arc::clone(version);
    let page = move |_: &_| response(200, &FRESH, version.load(SeqCst).to_string());
    let tickets = |layer: tachikoma_http_cache::HttpCacheLayer| layer.tickets(true);
    let site = Site::on(cache.clone(), TestClock::new(), Mode::Layer, tickets, page).await;
    (cache, site)
}

/// Asks until the page is found in the cache.
async fn until_hit(site: &Site, version: u64) {
    for _ in 0..10_000 {
        let answer = site.get("/page", &[]).await;
        if answer.is_hit() && answer.text() == version.to_string() {
            return;
        }
        pause().await;
    }
    panic!("{version} is no hit");
}

async fn with_ticket(site: &Site, ticket: &str) -> Answer {
    site.get("/page", &[(CACHE_TICKET.as_str(), ticket)]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_was_purged_elsewhere_is_not_shown_to_who_has_the_ticket() {
    let redis = RedisServer::start();
    let proxy = FaultProxy::to(redis.port());
    let version = Arc::new(AtomicU64::new(0));
    let (here, one) = node(redis.port(), &version).await;
    let (_, late) = node(proxy.port(), &version).await;
    proxy.set(Fault::Delay(Duration::from_millis(2)));
    let mut behind = 0;
    for round in 0..220_u64 {
        until_hit(&late, round).await;
        // A copy in its memory is made by a read after the one that stored it.
        until_hit(&late, round).await;
        version.store(round + 1, SeqCst);
        let url = "http://shop.test/page";
        let purge = if round % 2 == 0 { Purge::tag("news") } else { Purge::url(url) };
        one.cache.purge(&purge).await.unwrap();
        if round < 20 {
            let without = late.get("/page", &[]).await;
            behind += u64::from(without.text() == round.to_string());
            continue;
        }
        let ticket = if round % 10 == 0 { "bad".into() } else { here.ticket().to_string() };
        let seen = with_ticket(&late, &ticket).await;
        assert_eq!(seen.text(), (round + 1).to_string(), "{ticket}: {}", seen.said());
    }
    assert!(behind > 0, "no node is late here");
}

#[tokio::test]
async fn who_has_a_ticket_does_not_join_what_began_before() {
    let gate = Arc::new(Semaphore::new(0));
    let (wait, clock) = (Arc::clone(&gate), TestClock::new());
    let cache = Cache::memory().clock(Arc::new(clock.clone())).build().unwrap();
    let page = move |seen: &crate::site::Seen| {
        if seen.before > 0 {
            return response(200, &FRESH, "new");
        }
        let wait = Arc::clone(&wait);
        let rest = once(async move {
            wait.acquire().await.unwrap().forget();
            Bytes::from_static(b"d")
        });
        let body = iter([Bytes::from_static(b"ol")]).chain(rest);
        response(200, &FRESH, Body::from_stream(body.map(Ok::<_, Infallible>)))
    };
    let tickets = |layer: tachikoma_http_cache::HttpCacheLayer| layer.tickets(true);
    let site = Site::on(cache.clone(), clock.clone(), Mode::Layer, tickets, page).await;
    let first = site.open(request("GET", "/page", &[])).await;
    clock.advance(Duration::from_millis(1));
    let joined = site.open(request("GET", "/page", &[])).await;
    assert_eq!(site.fetched(), 1, "without a ticket it is joined");
    let ticket = cache.ticket().to_string();
    assert_eq!(with_ticket(&site, &ticket).await.text(), "new");
    assert_eq!(site.fetched(), 2);
    gate.add_permits(1);
    for response in [first, joined] {
        assert_eq!(crate::site::read(response).await.text(), "old");
    }
}

#[tokio::test]
async fn a_layer_that_was_not_told_to_heeds_no_tickets() {
    let site = Site::new(Mode::Layer, |seen| response(200, &FRESH, seen.before.to_string())).await;
    for _ in 0..2 {
        assert_eq!(with_ticket(&site, "bad").await.text(), "0");
    }
    assert_eq!(
        site.last().headers.get(CACHE_TICKET).unwrap(),
        "bad",
        "the origin may have its own"
    );
}
