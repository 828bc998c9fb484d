//! Laws that hold whatever is asked and answered: generated sequences of requests are run through
//! the layer, changed in a way that must not matter, and run again.
//!
//! 1,000 sequences for each law; `TACHIKOMA_SEQUENCES` sets another number.

use std::collections::BTreeMap;

use proptest::{prelude::*, test_runner::TestRunner};

use crate::site::{Answer, Mode, Site, request, response};

/// One request, and how many seconds pass before it.
#[derive(Debug, Clone)]
struct Step {
    wait: u64,
    path: &'static str,
    headers: Vec<(&'static str, &'static str)>,
}

/// What the origin answers on a path: a status and fields.
#[derive(Debug, Clone)]
struct Page {
    status: u16,
    fields: Vec<(&'static str, &'static str)>,
}

/// A site with two pages, and what is asked of it.
#[derive(Debug, Clone)]
struct Sequence {
    pages: [Page; 2],
    steps: Vec<Step>,
}

const PATHS: [&str; 2] = ["/a", "/b"];

fn one_of(name: &'static str, values: &'static [&'static str]) -> BoxedStrategy<Field> {
    let some = prop::sample::select(values).prop_map(move |value| Some((name, value)));
    prop_oneof![Just(None), some].boxed()
}

type Field = Option<(&'static str, &'static str)>;

fn fields(
    of: Vec<BoxedStrategy<Field>>,
) -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    of.prop_map(|fields| fields.into_iter().flatten().collect())
}

fn page() -> impl Strategy<Value = Page> {
    const CACHE_CONTROL: [&str; 10] = [
        "max-age=5",
        "max-age=60",
        "s-maxage=9, max-age=1",
        "no-cache",
        "no-store",
        "private, max-age=60",
        "public, max-age=3",
        "max-age=4, must-revalidate",
        "max-age=4, stale-if-error=9",
        "max-age=60, no-cache=\"x-a\"",
    ];
    let fields = fields(vec![
        prop::sample::select(&CACHE_CONTROL[..])
            .prop_map(|value| Some(("cache-control", value)))
            .boxed(),
        one_of("etag", &["\"v\"", "W/\"v\"", "\"w\""]),
        one_of("last-modified", &["Sun, 06 Nov 1994 08:49:37 GMT"]),
        one_of("vary", &["accept-language", "x-a", "x-a, accept-language", "*"]),
        one_of("age", &["2", "50", "x"]),
        one_of("cdn-cache-control", &["max-age=7", "no-store", "max-age=x", "!"]),
        one_of("set-cookie", &["a=b"]),
        one_of("x-a", &["seen"]),
    ]);
    (prop::sample::select(&[200_u16, 200, 200, 404, 301, 503][..]), fields)
        .prop_map(|(status, fields)| Page { status, fields })
}

fn step() -> impl Strategy<Value = Step> {
    let asked = ["no-cache", "max-age=2", "max-stale", "max-stale=3", "only-if-cached", "no-store"];
    let asked =
        prop::sample::select(Vec::from(asked)).prop_map(|value| Some(("cache-control", value)));
    let headers = fields(vec![
        prop_oneof![4 => Just(None), 1 => asked].boxed(),
        one_of("accept-language", &["en", "de, en", "en,de"]),
        one_of("x-a", &["1", "2", "1, 2"]),
        prop_oneof![4 => Just(None), 1 => Just(Some(("cookie", "s=1")))].boxed(),
        prop_oneof![4 => Just(None), 1 => Just(Some(("if-none-match", "\"v\"")))].boxed(),
        prop_oneof![4 => Just(None), 1 => Just(Some(("range", "bytes=1-2")))].boxed(),
    ]);
    (0_u64..8, prop::sample::select(&PATHS[..]), headers).prop_map(|(wait, path, headers)| Step {
        wait,
        path,
        headers,
    })
}

fn sequence() -> impl Strategy<Value = Sequence> {
    ([page(), page()], prop::collection::vec(step(), 2..10))
        .prop_map(|(pages, steps)| Sequence { pages, steps })
}

/// What came of it: each answer in a form that can be compared, and how often the origin was asked.
async fn run(sequence: &Sequence) -> (Vec<Seen>, usize) {
    let pages = sequence.pages.clone();
    let site = Site::new(Mode::Layer, move |seen| {
        let page = &pages[usize::from(seen.uri.path() == PATHS[1])];
        let etag = page.fields.iter().find(|(name, _)| *name == "etag").map(|(_, etag)| *etag);
        let is_known = seen
            .headers
            .get("if-none-match")
            .is_some_and(|known| Some(known) == etag.map(|e| e.parse().unwrap()).as_ref());
        let status = if is_known && page.status == 200 { 304 } else { page.status };
        response(status, &page.fields, format!("answer {}", seen.before))
    })
    .await;
    let mut answers = Vec::new();
    for step in &sequence.steps {
        site.advance(step.wait);
        answers.push(Seen::of(&site.send(request("GET", step.path, &step.headers)).await));
    }
    (answers, site.fetched())
}

/// An answer, with its fields in an order of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    status: u16,
    fields: BTreeMap<String, Vec<String>>,
    body: String,
}

impl Seen {
    fn of(answer: &Answer) -> Self {
        let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in &answer.headers {
            let value = value.to_str().unwrap().to_owned();
            fields.entry(name.to_string()).or_default().push(value);
        }
        Self { status: answer.status.as_u16(), fields, body: answer.text() }
    }

    fn said(&self) -> &str {
        self.fields.get("cache-status").map_or("", |lines| lines[0].as_str())
    }

    fn is_hit(&self) -> bool {
        self.said().starts_with("tachikoma;hit")
    }

    /// Without what a stored response does not have.
    fn of_the_resource(&self) -> BTreeMap<String, Vec<String>> {
        let own = ["age", "cache-status", "set-cookie", "date", "content-length"];
        let fields = self.fields.iter().filter(|(name, _)| !own.contains(&name.as_str()));
        fields.map(|(name, lines)| (name.clone(), lines.clone())).collect()
    }
}

/// Checks a law on generated values.
fn check<T: std::fmt::Debug>(
    strategy: impl Strategy<Value = T>,
    law: impl Fn(&tokio::runtime::Runtime, T) -> Result<(), TestCaseError>,
) {
    let cases = std::env::var("TACHIKOMA_SEQUENCES").ok().and_then(|number| number.parse().ok());
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases.unwrap_or(1_000))
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = TestRunner::new(config);
    runner.run(&strategy, |value| law(&runtime, value)).unwrap();
}

#[test]
fn an_unrelated_header_changes_nothing() {
    check((sequence(), any::<prop::sample::Index>()), |runtime, (plain, at)| {
        let mut changed = plain.clone();
        for (place, step) in changed.steps.iter_mut().enumerate() {
            if place % 2 == at.index(2) {
                step.headers.push(("x-unrelated", "value"));
                step.headers.push(("user-agent", "another"));
            }
        }
        prop_assert_eq!(runtime.block_on(run(&plain)), runtime.block_on(run(&changed)));
        Ok(())
    });
}

#[test]
fn the_order_of_header_fields_changes_nothing() {
    check(sequence(), |runtime, plain| {
        let mut changed = plain.clone();
        changed.steps.iter_mut().for_each(|step| step.headers.reverse());
        changed.pages.iter_mut().for_each(|page| page.fields.reverse());
        prop_assert_eq!(runtime.block_on(run(&plain)), runtime.block_on(run(&changed)));
        Ok(())
    });
}

#[test]
fn a_hit_is_what_the_origin_said_but_for_its_age() {
    check(sequence(), |runtime, sequence| {
        let (answers, _) = runtime.block_on(run(&sequence));
        for (place, hit) in answers.iter().enumerate().filter(|(_, answer)| answer.is_hit()) {
            let page = &sequence.pages[usize::from(sequence.steps[place].path == PATHS[1])];
            if hit.status != page.status {
                // A 304 or a part.
                continue;
            }
            for (name, value) in &page.fields {
                // `no-cache="x-a"` keeps that one out, where it governs.
                if !["age", "set-cookie", "x-a"].contains(name) {
                    prop_assert_eq!(hit.fields.get(*name), Some(&vec![(*value).to_owned()]));
                }
            }
            prop_assert!(hit.fields.contains_key("age") && hit.fields.contains_key("date"));
            prop_assert!(!hit.fields.contains_key("set-cookie"));
            // Word for word the answer that brought it, if that came as a whole.
            let brought = |earlier: &&Seen| {
                earlier.body == hit.body && earlier.status == hit.status && !earlier.is_hit()
            };
            if let Some(origin) = answers[..place].iter().find(brought) {
                for (name, lines) in hit.of_the_resource() {
                    prop_assert_eq!(origin.fields.get(&name), Some(&lines), "{}", name);
                }
            }
        }
        Ok(())
    });
}

#[test]
fn what_is_stale_does_not_become_fresh_again() {
    let waits = prop::collection::vec(0_u64..20, 1..8);
    check((page(), waits), |runtime, (page, waits)| {
        let probe =
            |wait| Step { wait, path: "/a", headers: vec![("cache-control", "only-if-cached")] };
        let first = Step { wait: 0, path: "/a", headers: Vec::new() };
        let steps = std::iter::once(first).chain(waits.into_iter().map(probe)).collect();
        let sequence = Sequence { pages: [page.clone(), page], steps };
        let (answers, fetched) = runtime.block_on(run(&sequence));
        let hits: Vec<bool> = answers[1..].iter().map(Seen::is_hit).collect();
        prop_assert!(hits.windows(2).all(|pair| pair[0] || !pair[1]), "{:?}", hits);
        let ages: Vec<u64> = answers[1..]
            .iter()
            .filter(|answer| answer.is_hit())
            .map(|answer| answer.fields["age"][0].parse().unwrap())
            .collect();
        prop_assert!(ages.is_sorted(), "{:?}", ages);
        prop_assert_eq!(fetched, 1);
        Ok(())
    });
}

#[test]
fn with_no_store_every_request_reaches_the_origin() {
    let spellings =
        ["no-store", "NO-STORE", "max-age=60, no-store", "no-store=\"x\", public", "a, ,no-store"];
    let stated = prop::sample::select(Vec::from(spellings));
    check((sequence(), stated), |runtime, (mut sequence, stated)| {
        for page in &mut sequence.pages {
            page.fields.retain(|(name, _)| !["cache-control", "cdn-cache-control"].contains(name));
            page.fields.push(("cache-control", stated));
        }
        for step in &mut sequence.steps {
            step.headers.retain(|(name, _)| *name != "cache-control");
        }
        let (answers, fetched) = runtime.block_on(run(&sequence));
        prop_assert_eq!(fetched, sequence.steps.len());
        prop_assert!(answers.iter().all(|answer| !answer.is_hit()));
        Ok(())
    });
}
