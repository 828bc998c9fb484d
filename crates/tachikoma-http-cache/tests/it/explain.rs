//! What the cache says of itself: header, log, metric and explanation agree, on random exchanges.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use http::{Request, Response};
use tachikoma_http_cache::{HttpCacheStats, policy::decision::Decision};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, SubscriberExt as _};

use crate::site::{Mode, Seen, Site, request, response};

/// What the log lines of the cache said.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<(String, String)>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Lines {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        #[derive(Default)]
        struct Found(Option<String>, Option<String>);
        impl Visit for Found {
            fn record_str(&mut self, field: &Field, value: &str) {
                match field.name() {
                    "decision" => self.0 = Some(value.to_owned()),
                    "cache_status" => self.1 = Some(value.to_owned()),
                    _ => {}
                }
            }
            fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
        }
        let mut found = Found::default();
        event.record(&mut found);
        if let Found(Some(decision), Some(said)) = found {
            self.0.lock().unwrap().push((decision, said));
        }
    }
}

/// What the origin is to answer.
type Given = (u16, Vec<(&'static str, &'static str)>);

/// A small generator: the same exchanges in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % sides
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.roll(from.len())]
    }

    /// Some of these fields, each once in so many times.
    fn some(
        &mut self,
        odds: usize,
        fields: &[(&'static str, &[&'static str])],
    ) -> Vec<(&'static str, &'static str)> {
        let mut chosen = Vec::new();
        for (name, values) in fields {
            if self.roll(odds) == 0 {
                chosen.push((*name, self.pick(values)));
            }
        }
        chosen
    }
}

const REQUEST: &[(&str, &[&str])] = &[
    (
        "cache-control",
        &["no-cache", "no-store", "max-age=0", "max-stale", "only-if-cached", "min-fresh=5"],
    ),
    ("authorization", &["Basic x"]),
    ("cookie", &["a=1", "b=2"]),
    ("x", &["1", "2"]),
    ("x-forwarded-host", &["evil"]),
    ("range", &["bytes=0-1"]),
    ("if-match", &["\"a\""]),
];

const RESPONSE: &[(&str, &[&str])] = &[
    (
        "cache-control",
        &[
            "max-age=5",
            "max-age=60, stale-while-revalidate=9",
            "max-age=2, stale-if-error=100",
            "s-maxage=9",
            "public, max-age=9",
            "private",
            "no-store",
            "no-cache",
            "must-understand, max-age=9",
        ],
    ),
    ("cache-control", &["max-age=9", "max-age=1", "must-revalidate"]),
    ("vary", &["x", "*", "a b", "accept"]),
    ("set-cookie", &["id=1"]),
    ("etag", &["\"a\""]),
    ("content-type", &["text/css"]),
    ("surrogate-key", &["a b", "c"]),
];

/// The figure that a decision is counted in.
fn counted(stats: &HttpCacheStats, decision: &str) -> u64 {
    match decision {
        "hit" => stats.hits,
        "stale" => stats.stale,
        "miss" => stats.misses,
        "revalidated" => stats.revalidations,
        "collapsed" => stats.collapsed,
        "only-if-cached" => stats.only_if_cached,
        "bypass" => stats.bypassed.iter().map(|(_, count)| count).sum(),
        other => panic!("{other} is not counted"),
    }
}

#[tokio::test]
async fn explanation_header_log_and_metric_agree_on_a_thousand_random_exchanges() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::registry().with(lines.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
    let answer: Arc<Mutex<Given>> = Arc::default();
    let given = Arc::clone(&answer);
    let site = Site::new(Mode::Layer, move |_: &Seen| {
        let (status, headers) = given.lock().unwrap().clone();
        response(status, &headers, "hello")
    })
    .await;
    let (mut dice, mut explained, mut outcomes) = (Dice(0x5eed_cafe), 0, Vec::new());
    for round in 0..1_000 {
        let status = [200, 200, 200, 200, 404, 500, 302][dice.roll(7)];
        let path = ["/a", "/b", "/c.css", "/d?q"][dice.roll(4)];
        let mut fields = dice.some(6, RESPONSE);
        if dice.roll(5) > 0 {
            fields.push((RESPONSE[0].0, dice.pick(RESPONSE[0].1)));
        }
        *answer.lock().unwrap() = (status, fields);
        let method = if dice.roll(9) == 0 { dice.pick(&["HEAD", "POST"]) } else { "GET" };
        let headers = dice.some(9, REQUEST);
        let asked = || -> Request<Body> { request(method, path, &headers) };
        let head: Response<()> = {
            let (status, headers) = answer.lock().unwrap().clone();
            response(status, &headers, "").map(drop)
        };
        let asked_head = asked().map(drop);
        let before = site.cache.explain(&asked_head).await;
        let judged = site.cache.explain_answer(&asked_head, &head).await;
        let (stats, log) = (site.cache.stats(), lines.0.lock().unwrap().len());
        let fetched = site.fetched();
        let said = site.send(asked()).await.said().to_owned();

        // One log line for this exchange, and later ones for refreshes.
        let (decision, logged) = lines.0.lock().unwrap()[log].clone();
        assert_eq!(logged, said, "round {round}: the log");
        let after = site.cache.stats();
        let more = counted(&after, &decision) - counted(&stats, &decision);
        assert!(more >= 1, "round {round}: {said} is not counted as {decision}");

        let context = format!("round {round}: {method} {path} {headers:?} {:?}", answer.lock());
        assert_eq!(judged.cache_status(), said, "{context}\n{judged}");
        assert_eq!(judged.decision.name(), decision, "{context}");
        if before.asks_origin {
            let Decision::Forwarded { why, .. } = &before.decision else { panic!("{context}") };
            let stale = said.contains("stale-if-error");
            assert!(said.contains(&format!("fwd={}", why.token())) || stale, "{context}");
            assert!(site.fetched() > fetched, "{context}");
        } else {
            assert_eq!(before.cache_status(), said, "{context}");
            explained += 1;
        }
        let last = judged.steps.last().unwrap();
        assert!(!last.section.is_empty() && !last.question.is_empty());
        outcomes.push(said.split("ttl=").next().unwrap_or_default().to_owned());
        if dice.roll(3) == 0 {
            site.advance(dice.roll(12) as u64);
        }
        // A refresh in the background ends before the next exchange is explained.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
    }
    outcomes.sort_unstable();
    outcomes.dedup();
    assert!(explained > 100, "{explained} were explained without the origin");
    assert!(outcomes.len() > 25, "{outcomes:#?}");
}

#[tokio::test]
async fn an_explanation_names_what_would_make_the_response_one_to_cache() {
    for (headers, remedy) in [
        (&[("cache-control", "private")][..], "public, max-age=60"),
        (&[], "max-age=60"),
        (&[("cache-control", "max-age=60"), ("set-cookie", "a=b")], "no Set-Cookie"),
        (&[("cache-control", "max-age=60"), ("vary", "*")], "Vary"),
    ] {
        let site = Site::new(Mode::Layer, |_| response(200, &[], "")).await;
        let asked = request("GET", "/", &[]).map(drop);
        let judged = site.cache.explain_answer(&asked, &response(200, headers, "")).await;
        assert!(judged.remedy.unwrap_or_default().contains(remedy), "{headers:?}: {judged}");
        let last = judged.steps.last().unwrap();
        assert!(!last.answer && last.section.starts_with("RFC 9111"), "{judged}");
        assert!(judged.to_string().contains("decision: tachikoma;fwd=uri-miss;detail="));
    }
}

#[tokio::test]
async fn explaining_changes_nothing() {
    let site = Site::new(Mode::Layer, |seen| {
        let headers = [("cache-control", "max-age=10, stale-while-revalidate=60"), ("vary", "x")];
        response(200, &headers, seen.before.to_string())
    })
    .await;
    let asked = || request("GET", "/", &[]).map(drop);
    let before = site.cache.stats();
    assert!(site.cache.explain(&asked()).await.asks_origin);
    assert_eq!((site.cache.stats(), site.fetched()), (before, 0));
    site.get("/", &[]).await;
    site.advance(11);
    let before = site.cache.stats();
    for _ in 0..3 {
        let explained = site.cache.explain(&asked()).await;
        assert_eq!(explained.cache_status(), "tachikoma;hit;ttl=-1;detail=stale-while-revalidate");
    }
    let other = request("GET", "/", &[("x", "1")]).map(drop);
    let explained = site.cache.explain(&other).await;
    assert!(explained.to_string().contains("[RFC 9111 §4.1]  by x"), "{explained}");
    assert_eq!((site.cache.stats(), site.fetched()), (before, 1));
}
