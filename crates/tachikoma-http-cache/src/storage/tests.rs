use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use proptest::prelude::*;
use tachikoma_cache::{Cache, Value as _};

use super::{stored::BodyName, *};
use crate::{
    key::Target,
    policy::{Options, range::Held, request::admit, reuse::Terms, vary::Selector},
};

fn request(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn facts(headers: &HeaderMap) -> RequestFacts {
    admit(&Method::GET, headers, false, &Options::default()).unwrap()
}

fn nothing() -> Dependencies {
    Dependencies::default()
}

fn response(body: &str, vary: &[&'static str], headers: &HeaderMap) -> StoredResponse {
    let names = vary.iter().map(|name| HeaderName::from_static(name)).collect();
    StoredResponse {
        part: None,
        whole: None,
        is_made_of: body.starts_with('h'),
        status: StatusCode::OK,
        headers: request(&[("content-type", "text/plain"), ("x-many", "1"), ("x-many", "2")]),
        body: Bytes::copy_from_slice(body.as_bytes()),
        terms: Terms {
            received_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_234_567),
            initial_age: Duration::from_secs(1),
            lifetime: Duration::from_secs(60),
            always_validate: false,
            forbids_stale: true,
            stale_while_revalidate: Duration::from_secs(2),
            stale_if_error: Duration::from_secs(3),
            shared: true,
            authorized: false,
        },
        selector: Selector::of(names, headers, true).unwrap(),
        tags: vec!["a".to_owned(), "b".to_owned()],
    }
}

struct Fixture {
    storage: Storage,
    key: Key,
    now: SystemTime,
}

impl Fixture {
    fn new() -> Self {
        let cache = Cache::memory().max_entries(1_000).build().unwrap();
        let storage = Storage::new(cache.entries(), 1 << 20);
        let key = Target::parse("http://a.test/x").unwrap().key();
        Self { storage, key, now: SystemTime::UNIX_EPOCH + Duration::from_secs(9) }
    }

    async fn begin(&self) -> FillLease {
        self.begin_in(Place::default(), "").await
    }

    async fn begin_in(&self, place: Place, variant: &str) -> FillLease {
        match self.storage.begin(&self.key, place, variant).await {
            Right::Lease(lease) => lease,
            other => panic!("{other:?}"),
        }
    }

    async fn fill(&mut self, response: StoredResponse) -> bool {
        self.now += Duration::from_secs(1);
        let lease = self.begin().await;
        let stored = Arc::new(Stored::Response(response));
        let options = Options::default();
        self.storage.fill(&self.key, lease, stored, &nothing(), &options, self.now).await.unwrap()
    }

    async fn found(&self, headers: &HeaderMap) -> Result<String, Forward> {
        let facts = facts(headers);
        let name = |found: Found| match found {
            Found::Response(stored, _) => {
                Ok(String::from_utf8(stored.response().unwrap().body.to_vec()).unwrap())
            }
            Found::Nothing(why, ..) => Err(why),
        };
        let found = name(self.storage.find(&self.key, headers, &facts).await.unwrap());
        let peeked = self.storage.peek(&self.key, headers, &facts).map(name);
        assert_eq!(peeked.as_ref(), Some(&found), "peek and find must agree");
        found
    }
}

#[tokio::test]
async fn a_response_without_vary_is_found_by_every_request() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.found(&request(&[])).await, Err(Forward::UriMiss));
    assert!(fixture.fill(response("one", &[], &request(&[]))).await);
    assert_eq!(fixture.found(&request(&[("accept", "x")])).await.as_deref(), Ok("one"));
    assert!(fixture.fill(response("two", &[], &request(&[]))).await);
    assert_eq!(fixture.found(&request(&[])).await.as_deref(), Ok("two"));
}

#[tokio::test]
async fn each_request_finds_the_variant_that_it_selects() {
    let mut fixture = Fixture::new();
    let (de, fr) = (request(&[("x-lang", "de")]), request(&[("x-lang", "fr")]));
    assert!(fixture.fill(response("deutsch", &["x-lang"], &de)).await);
    assert_eq!(fixture.found(&fr).await, Err(Forward::VaryMiss));
    assert!(fixture.fill(response("francais", &["x-lang"], &fr)).await);
    assert!(fixture.fill(response("nichts", &["x-lang"], &request(&[]))).await);
    assert_eq!(fixture.found(&de).await.as_deref(), Ok("deutsch"));
    assert_eq!(fixture.found(&fr).await.as_deref(), Ok("francais"));
    assert_eq!(fixture.found(&request(&[])).await.as_deref(), Ok("nichts"));
    assert!(fixture.fill(response("deutsch 2", &["x-lang"], &de)).await);
    assert_eq!(fixture.found(&de).await.as_deref(), Ok("deutsch 2"));
    let other = request(&[("x-lang", "it")]);
    let found = fixture.storage.find(&fixture.key, &other, &facts(&other)).await.unwrap();
    let Found::Nothing(Forward::VaryMiss, names, _) = found else { panic!("{found:?}") };
    assert_eq!(names, ["x-lang"]);
}

#[tokio::test]
async fn vary_may_differ_between_responses_and_the_most_recent_one_wins() {
    let mut fixture = Fixture::new();
    let both = request(&[("a", "1"), ("b", "2")]);
    assert!(fixture.fill(response("by a", &["a"], &both)).await);
    assert!(fixture.fill(response("by a and b", &["a", "b"], &both)).await);
    assert_eq!(fixture.found(&both).await.as_deref(), Ok("by a and b"));
    let other = request(&[("a", "1"), ("b", "3")]);
    assert_eq!(fixture.found(&other).await.as_deref(), Ok("by a"));
    assert_eq!(fixture.found(&request(&[("a", "2")])).await, Err(Forward::VaryMiss));
}

#[tokio::test]
async fn a_denied_header_finds_only_what_it_selects() {
    let mut fixture = Fixture::new();
    let evil = request(&[("x-forwarded-host", "evil")]);
    assert!(fixture.fill(response("plain", &[], &request(&[]))).await);
    assert_eq!(fixture.found(&evil).await, Err(Forward::VaryMiss));
    assert!(fixture.fill(response("keyed", &["x-forwarded-host"], &evil)).await);
    assert_eq!(fixture.found(&evil).await.as_deref(), Ok("keyed"));
    assert_eq!(fixture.found(&request(&[])).await, Err(Forward::VaryMiss));
}

#[tokio::test]
async fn no_more_than_32_variants_are_kept_and_none_is_orphaned() {
    let mut fixture = Fixture::new();
    let requests: Vec<_> = (0..40).map(|i| request(&[("x", &i.to_string())])).collect();
    for (i, headers) in requests.iter().enumerate() {
        assert!(fixture.fill(response(&i.to_string(), &["x"], headers)).await);
    }
    let mut found = 0;
    for headers in &requests {
        found += usize::from(fixture.found(headers).await.is_ok());
    }
    assert_eq!(found, MAX_VARIANTS);
    assert_eq!(fixture.found(&requests[39]).await.as_deref(), Ok("39"));
    let size = fixture.storage.entries().cache().stats().size;
    assert_eq!(size, Some(MAX_VARIANTS as u64 + 1));
    let removed = fixture.storage.remove(std::slice::from_ref(&fixture.key)).await.unwrap();
    assert_eq!(removed.total(), MAX_VARIANTS as u64);
    assert_eq!(fixture.storage.entries().cache().stats().size, Some(0));
}

#[tokio::test]
async fn an_invalidation_during_a_fetch_is_not_undone() {
    let fixture = Fixture::new();
    for vary in [&[][..], &["x"]] {
        let headers = request(&[]);
        let lease = fixture.begin().await;
        fixture.storage.remove(std::slice::from_ref(&fixture.key)).await.unwrap();
        let old = Arc::new(Stored::Response(response("old", vary, &headers)));
        let options = Options::default();
        let visible =
            fixture.storage.fill(&fixture.key, lease, old, &nothing(), &options, fixture.now).await;
        assert!(!visible.unwrap(), "{vary:?}");
        assert_eq!(fixture.found(&headers).await, Err(Forward::UriMiss), "{vary:?}");
        assert_eq!(fixture.storage.entries().cache().stats().size, Some(0), "{vary:?}");
    }
}

#[tokio::test]
async fn a_tag_invalidated_during_a_fetch_keeps_the_response_out() {
    let fixture = Fixture::new();
    for vary in [&[][..], &["x"]] {
        let headers = request(&[]);
        let lease = fixture.begin().await;
        fixture.storage.entries().invalidate_tags(["b"]).await.unwrap();
        let old = Arc::new(Stored::Response(response("old", vary, &headers)));
        let options = Options::default();
        let _ =
            fixture.storage.fill(&fixture.key, lease, old, &nothing(), &options, fixture.now).await;
        assert!(fixture.found(&headers).await.is_err(), "{vary:?}");
    }
}

/// Fetches for each of these values of `x`, all begun before any of them is stored.
async fn fetched_together(fixture: &Fixture, values: std::ops::Range<u32>) {
    let mut begun = Vec::new();
    for i in values {
        let headers = request(&[("x", &i.to_string())]);
        let found = fixture.storage.find(&fixture.key, &headers, &facts(&headers)).await.unwrap();
        let lease = fixture.begin_in(found.place(), &i.to_string()).await;
        begun.push((lease, Arc::new(Stored::Response(response(&i.to_string(), &["x"], &headers)))));
    }
    let (options, nothing) = (Options::default(), nothing());
    let fills = begun.into_iter().map(|(lease, stored)| {
        fixture.storage.fill(&fixture.key, lease, stored, &nothing, &options, fixture.now)
    });
    for filled in futures_util::future::join_all(fills).await {
        assert!(filled.unwrap());
    }
}

#[tokio::test]
async fn variants_that_are_fetched_together_are_all_kept() {
    let mut fixture = Fixture::new();
    assert!(fixture.fill(response("first", &["x"], &request(&[]))).await);
    fetched_together(&fixture, 0..20).await;
    for i in 0..20 {
        let text = i.to_string();
        assert_eq!(fixture.found(&request(&[("x", &text)])).await, Ok(text));
    }
    assert_eq!(fixture.found(&request(&[])).await.as_deref(), Ok("first"));
    assert_eq!(fixture.storage.entries().cache().stats().size, Some(22));
}

#[tokio::test]
async fn what_is_invalidated_while_a_variant_of_it_is_fetched_stays_so() {
    for by_tag in [false, true] {
        let mut fixture = Fixture::new();
        let (old, new) = (request(&[("x", "old")]), request(&[("x", "new")]));
        assert!(fixture.fill(response("known", &["x"], &request(&[]))).await);
        let found = fixture.storage.find(&fixture.key, &old, &facts(&old)).await.unwrap();
        let lease = fixture.begin_in(found.place(), "old").await;
        if by_tag {
            fixture.storage.entries().invalidate_tags(["a"]).await.unwrap();
        } else {
            fixture.storage.remove(std::slice::from_ref(&fixture.key)).await.unwrap();
        }
        // The URL is known again before the old answer is in.
        assert!(fixture.fill(response("new", &["x"], &new)).await);
        let stored = Arc::new(Stored::Response(response("old", &["x"], &old)));
        let (options, nothing) = (Options::default(), nothing());
        let visible =
            fixture.storage.fill(&fixture.key, lease, stored, &nothing, &options, fixture.now);
        assert!(!visible.await.unwrap(), "by tag: {by_tag}");
        assert_eq!(fixture.found(&old).await, Err(Forward::VaryMiss), "by tag: {by_tag}");
        assert_eq!(fixture.found(&new).await.as_deref(), Ok("new"));
    }
}

#[tokio::test]
async fn a_hashed_key_finds_only_its_own_url() {
    let mut fixture = Fixture::new();
    let long = format!("http://a.test/{}", "x".repeat(5_000));
    fixture.key = Target::parse(&long).unwrap().key();
    let mut whole = response("long", &[], &request(&[]));
    whole.whole = fixture.key.whole.clone();
    assert!(fixture.fill(whole).await);
    assert_eq!(fixture.found(&request(&[])).await.as_deref(), Ok("long"));
    // Another URL with the same hash.
    fixture.key.whole = Some("http://b.test/".into());
    assert_eq!(fixture.found(&request(&[])).await, Err(Forward::UriMiss));
}

fn index() -> Stored {
    let selector = Selector::of(vec![HeaderName::from_static("x")], &request(&[("x", "1")]), true);
    let variant = Variant {
        id: u128::MAX - 5,
        created: SystemTime::UNIX_EPOCH + Duration::from_secs(7),
        expires: SystemTime::UNIX_EPOCH + Duration::from_secs(8),
        selector: selector.unwrap(),
        tags: vec!["t".to_owned()],
    };
    let whole = Some("http://a.test/".into());
    Stored::Index(Index { whole, generation: 77, variants: vec![variant; 3] })
}

#[test]
fn what_is_encoded_is_decoded() {
    let headers = request(&[("x", "1")]);
    let whole = response("hello", &["x", "y"], &headers);
    let spans = vec![4..6, 9..12];
    let held = Held { spans, end: Some(20), total: None };
    let part = StoredResponse { part: Some(held), ..whole.clone() };
    let name = BodyName { hash: u128::MAX / 3, length: 5 };
    let without = |of: &StoredResponse| StoredResponse { body: Bytes::new(), ..of.clone() };
    let apart = [&whole, &part].map(|of| Stored::Apart(without(of), name));
    for stored in
        [Stored::Response(whole), Stored::Response(part), index()].into_iter().chain(apart)
    {
        let bytes = stored.encode().unwrap();
        assert_eq!(Stored::decode(&bytes).unwrap(), stored);
        assert!(stored.weight() > 0);
    }
}

#[test]
fn spans_that_are_not_of_the_body_are_not_decoded() {
    for spans in [vec![0..9, 20..21], vec![3..6, 0..2], vec![0..5, 7..7]] {
        let held = Held { spans, end: None, total: None };
        let wrong = StoredResponse { part: Some(held), ..response("hello", &[], &request(&[])) };
        let name = BodyName { hash: 1, length: 5 };
        let apart = StoredResponse { body: Bytes::new(), ..wrong.clone() };
        for wrong in [Stored::Response(wrong), Stored::Apart(apart, name)] {
            assert!(Stored::decode(&wrong.encode().unwrap()).is_err());
        }
    }
}

#[test]
fn a_part_of_an_index_or_a_head_is_not_decoded() {
    let headers = request(&[]);
    let empty = Stored::Response(response("", &["x"], &headers)).encode().unwrap();
    let name = BodyName { hash: 1, length: 5 };
    let apart = Stored::Apart(response("", &["x"], &headers), name).encode().unwrap();
    let index = index().encode().unwrap();
    for bytes in [empty, index, apart] {
        for length in 0..bytes.len() {
            let part = bytes.slice(..length);
            assert!(Stored::decode(&part).is_err(), "{length} of {}", bytes.len());
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Stored::decode(&Bytes::from(bytes));
    }

    #[test]
    fn no_changed_byte_makes_the_decoder_panic(at: prop::sample::Index, byte: u8) {
        let name = BodyName { hash: 1, length: 5 };
        let apart = Stored::Apart(response("", &["x"], &request(&[])), name);
        for stored in [Stored::Response(response("body", &["x"], &request(&[]))), index(), apart] {
            let mut bytes = stored.encode().unwrap().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = Stored::decode(&Bytes::from(bytes));
        }
    }

    #[test]
    fn any_body_survives(body in prop::collection::vec(any::<u8>(), 0..2_000)) {
        let mut whole = response("", &[], &request(&[]));
        whole.body = Bytes::from(body);
        let stored = Stored::Response(whole);
        prop_assert_eq!(Stored::decode(&stored.encode().unwrap()).unwrap(), stored);
    }
}
