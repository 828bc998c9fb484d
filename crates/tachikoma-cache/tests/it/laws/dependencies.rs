//! What was made of entries goes when these go: pages of one namespace, made of values of another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use tachikoma_cache::dependencies::{Dependencies, MAX_DEPENDENCIES, Unknown, carry};
use tachikoma_cache::invalidation::Group;
use tachikoma_cache::{Cache, Entries, Error, Pattern, Value};
use tachikoma_testkit::Stopwatch;

use super::MINUTE;

/// A page: what it shows.
#[derive(Debug, PartialEq)]
struct Page(String);

impl Value for Page {
    const TYPE: &'static str = "page";

    fn encode(&self) -> Result<Bytes, Error> {
        Ok(self.0.clone().into())
    }

    fn decode(bytes: &Bytes) -> Result<Self, Error> {
        Ok(Self(String::from_utf8_lossy(bytes).into_owned()))
    }

    fn weight(&self) -> usize {
        self.0.len()
    }
}

/// Pages beside the data, as a layer before an application keeps them.
struct Site {
    data: Cache,
    pages: Entries,
}

impl Site {
    fn of(cache: &Cache) -> Self {
        Self { data: cache.clone(), pages: cache.namespace("pages").unwrap().entries() }
    }

    /// The page if it is stored and valid, else rendered and stored; whether it was rendered.
    async fn page<F: Future<Output = String>>(
        &self,
        name: &str,
        render: impl FnOnce() -> F,
    ) -> (String, bool) {
        if let Some(page) = self.pages.get::<Page>(name).await.unwrap() {
            return (page.0.clone(), false);
        }
        let lease = self.pages.begin(name).await.unwrap();
        let (text, read) = Dependencies::record(render()).await;
        let page = Arc::new(Page(text.clone()));
        self.pages.fill_with(lease, page, MINUTE, [""; 0], &read).await.unwrap();
        (text, true)
    }

    /// A page that shows these keys.
    async fn shows(&self, name: &str, keys: &[&str]) -> (String, bool) {
        let render = || async {
            let mut text = String::new();
            for key in keys {
                let value = self.data.get::<String>(key).await.unwrap();
                text += value.as_ref().map_or("-", |value| value.as_str());
            }
            text
        };
        self.page(name, render).await
    }

    async fn set(&self, key: &str, value: &str) {
        self.data.set(key, value.to_owned(), MINUTE).tags(["missions"]).await.unwrap();
    }

    /// Renders until the page is stored: after a change the first may be made of a copy that is
    /// just behind.
    async fn settled(&self, name: &str, keys: &[&str]) {
        let watch = Stopwatch::start();
        while self.shows(name, keys).await.1 {
            assert!(watch.elapsed() < MINUTE, "{name} is never a hit");
        }
    }

    /// Looks until the page shows this: other nodes hear of a change within their freshness.
    async fn becomes(&self, name: &str, keys: &[&str], wanted: &str) {
        let watch = Stopwatch::start();
        loop {
            let (shown, _) = self.shows(name, keys).await;
            if shown == wanted {
                return;
            }
            assert!(watch.elapsed() < MINUTE, "{name} shows {shown}, not {wanted}");
            tokio::task::yield_now().await;
        }
    }
}

/// Another key of the same group, and one of another.
fn neighbours(key: &str) -> (String, String) {
    let mut names = (0..).map(|i| format!("other:{i}"));
    let other = names.next().unwrap();
    let same = names.find(|name| Group::of_key(name) == Group::of_key(key)).unwrap();
    assert_ne!(Group::of_key(&other), Group::of_key(key));
    (same, other)
}

laws! {
    async fn a_page_goes_when_any_key_that_it_shows_is_deleted_or_set(b) {
        let b = b.with_dependencies().await;
        let site = Site::of(&b.cache);
        let keys = ["a", "b"];
        site.set("a", "1").await;
        site.set("b", "2").await;
        site.settled("p", &keys).await;
        assert_eq!(site.shows("p", &keys).await, ("12".into(), false));
        site.data.delete("a").await.unwrap();
        assert_eq!(site.shows("p", &keys).await, ("-2".into(), true));
        site.settled("p", &keys).await;
        site.set("a", "3").await;
        assert_eq!(site.shows("p", &keys).await, ("32".into(), true));
        site.settled("p", &keys).await;
        site.data.delete_many(&["b"]).await.unwrap();
        assert_eq!(site.shows("p", &keys).await.0, "3-");
        site.settled("p", &keys).await;
        site.data.set_many([("b", "4".to_owned())], MINUTE).await.unwrap();
        assert_eq!(site.shows("p", &keys).await.0, "34");
        site.data.delete("b").await.unwrap();
        site.settled("p", &keys).await;
        assert!(site.data.set_if_absent("b", "5".to_owned(), MINUTE).await.unwrap());
        assert_eq!(site.shows("p", &keys).await.0, "35");
    }

    async fn a_page_stays_while_other_keys_change_and_with_a_neighbour_goes_only_once(b) {
        let b = b.with_dependencies().await;
        let site = Site::of(&b.cache);
        let (same, other) = neighbours("a");
        site.set("a", "1").await;
        site.settled("p", &["a"]).await;
        site.data.delete(&other).await.unwrap();
        site.set(&other, "x").await;
        assert_eq!(site.shows("p", &["a"]).await, ("1".into(), false));
        site.data.delete(&same).await.unwrap();
        assert_eq!(site.shows("p", &["a"]).await, ("1".into(), true), "the group is shared");
        assert!(site.data.get::<String>("a").await.unwrap().is_some(), "the value is not");
        site.settled("p", &["a"]).await;
        assert_eq!(site.shows("p", &["a"]).await, ("1".into(), false));
    }

    async fn a_page_goes_with_a_tag_and_is_stale_when_it_expires(b) {
        let b = b.with_dependencies().await;
        let site = Site::of(&b.cache);
        site.set("a", "1").await;
        site.settled("p", &["a"]).await;
        site.data.expire_tag("missions").await.unwrap();
        assert!(site.pages.get::<Page>("p").await.unwrap().is_none());
        let info = site.pages.cache().entry_info("p").await.unwrap();
        assert!(info.is_some_and(|info| info.freshness.is_stale()), "stale, not gone");
        site.set("a", "2").await;
        site.settled("p", &["a"]).await;
        site.data.invalidate_tag("missions").await.unwrap();
        assert!(site.pages.cache().entry_info("p").await.unwrap().is_none(), "gone");
        assert_eq!(site.shows("p", &["a"]).await, ("-".into(), true));
    }

    async fn patterns_and_clear_take_pages_also_of_keys_that_have_left(b) {
        let b = b.with_dependencies().await;
        let site = Site::of(&b.cache);
        for clear in [false, true] {
            let load = || async { Ok::<_, ()>("1".to_owned()) };
            let render = || async {
                // It lives for a moment; the page longer.
                let value = site.data.get_or_load("m:1", load).ttl(MINUTE / 60).await.unwrap();
                value.as_str().to_owned()
            };
            site.page("p", render).await;
            b.advance(5_000);
            assert!(!site.data.exists("m:1").await.unwrap());
            assert!(!site.page("p", render).await.1, "it is still stored");
            if clear {
                site.data.clear().await.unwrap();
            } else {
                site.data.delete_pattern(&Pattern::raw("m:*").unwrap()).await.unwrap();
            }
            assert!(site.page("p", render).await.1);
        }
    }

    async fn a_page_that_was_made_of_a_loaded_value_goes_with_key_and_tag(b) {
        let b = b.with_dependencies().await;
        let site = Site::of(&b.cache);
        let version = AtomicU32::new(0);
        let loaded = || async {
            let now = version.fetch_add(1, Ordering::SeqCst);
            let load = move || async move { Ok::<_, ()>(now.to_string()) };
            let hit = site.data.get_or_load("a", load).ttl(MINUTE).tags(["t"]).await.unwrap();
            hit.as_str().to_owned()
        };
        assert!(site.page("p", loaded).await.1);
        let (first, rendered) = site.page("p", loaded).await;
        assert!(!rendered);
        site.data.delete("a").await.unwrap();
        let (second, rendered) = site.page("p", loaded).await;
        assert!(rendered && second != first);
        assert!(!site.page("p", loaded).await.1);
        site.data.invalidate_tag("t").await.unwrap();
        assert!(site.page("p", loaded).await.1);
    }

    async fn a_page_that_shows_that_there_is_nothing_goes_when_there_is_something(b) {
        let b = b.with_dependencies().await;
        let site = Site::of(&b.cache);
        assert_eq!(site.shows("p", &["a"]).await, ("-".into(), true));
        assert_eq!(site.shows("p", &["a"]).await, ("-".into(), false));
        site.set("a", "1").await;
        assert_eq!(site.shows("p", &["a"]).await, ("1".into(), true));
    }

    async fn an_entry_that_was_loaded_of_others_goes_with_them_and_takes_the_page_along(b) {
        let b = b.with_dependencies().await;
        let site = Arc::new(Site::of(&b.cache));
        site.set("a", "1").await;
        let part = || async {
            let (data, inner) = (site.data.clone(), site.data.clone());
            let load = move || async move {
                let value = inner.get::<String>("a").await.unwrap();
                Ok::<_, ()>(value.map_or("-".to_owned(), |value| value.as_str().to_owned()))
            };
            data.get_or_load("part", load).ttl(MINUTE).await.unwrap().as_str().to_owned()
        };
        site.page("p", part).await;
        let watch = Stopwatch::start();
        while site.page("p", part).await.1 {
            assert!(watch.elapsed() < MINUTE);
        }
        site.set("a", "2").await;
        assert_eq!(site.page("p", part).await, ("2".into(), true));
        assert_eq!(part().await, "2", "also without a page around it");
        site.data.delete("a").await.unwrap();
        assert_eq!(part().await, "-");
    }

    async fn what_several_keys_give_together_is_noted_of_each(b) {
        let b = b.with_dependencies().await;
        let site = Site::of(&b.cache);
        site.set("a", "1").await;
        let many = || async {
            let found = site.data.get_many::<String>(&["a", "b"]).await.unwrap();
            let load = |names: Vec<String>| async {
                Ok::<_, ()>(names.into_iter().map(|name| (name, "l".to_owned())))
            };
            let loaded = site.data.get_or_load_many(["c", "d"], load).ttl(MINUTE).await.unwrap();
            format!("{}{}", found.iter().flatten().count(), loaded.iter().flatten().count())
        };
        for key in ["a", "b", "c", "d"] {
            site.page("p", many).await;
            let watch = Stopwatch::start();
            while site.page("p", many).await.1 {
                assert!(watch.elapsed() < MINUTE);
            }
            site.data.delete(key).await.unwrap();
            assert!(site.page("p", many).await.1, "{key}");
        }
    }

    async fn a_spawned_task_counts_if_it_is_carried_along(b) {
        let b = b.with_dependencies().await;
        let site = Site::of(&b.cache);
        site.set("a", "1").await;
        let spawned = || async {
            let data = site.data.clone();
            let read = async move { data.get::<String>("a").await.unwrap().is_some() };
            tokio::spawn(carry(read)).await.unwrap().to_string()
        };
        let watch = Stopwatch::start();
        while site.page("p", spawned).await.1 {
            assert!(watch.elapsed() < MINUTE);
        }
        site.data.delete("a").await.unwrap();
        assert_eq!(site.page("p", spawned).await, ("false".into(), true));
    }

    async fn what_is_not_known_to_depend_on_what_is_not_stored(b) {
        let b = b.with_dependencies().await;
        let site = Site::of(&b.cache);
        let listed = || async { site.data.keys().await.unwrap().keys.len().to_string() };
        let (_, read) = Dependencies::record(listed()).await;
        assert_eq!(read.unknown(), Some(Unknown::Listed));
        site.page("p", listed).await;
        assert!(site.page("p", listed).await.1);
        let much = || async {
            // Some share a group.
            for i in 0..MAX_DEPENDENCIES * 5 / 4 {
                site.data.get::<String>(&format!("much:{i}")).await.unwrap();
            }
            String::new()
        };
        let (_, read) = Dependencies::record(much()).await;
        assert_eq!(read.unknown(), Some(Unknown::TooMany));
    }

    async fn a_stale_value_makes_no_page_that_is_stored(b) {
        let b = b.with_dependencies().await;
        let site = Site::of(&b.cache);
        let served = |fails: bool| {
            let data = site.data.clone();
            async move {
                let load = move || async move {
                    if fails { Err(()) } else { Ok("1".to_owned()) }
                };
                let hit = data.get_or_load("a", load).ttl(MINUTE / 60).stale_if_error(MINUTE);
                let hit = hit.await.unwrap();
                (hit.is_stale(), hit.as_str().to_owned()).1
            }
        };
        served(false).await;
        super::flight::settled(&b, |b| Box::pin(async move {
            b.cache.exists("a").await.unwrap()
        })).await;
        b.advance(2_000);
        let (_, read) = Dependencies::record(served(true)).await;
        assert_eq!(read.unknown(), Some(Unknown::Stale));
        assert!(site.page("p", || served(true)).await.1);
        assert!(site.page("p", || served(true)).await.1, "not stored");
    }

    async fn without_the_switch_nothing_is_noted(b) {
        let site = Site::of(&b.cache);
        site.set("a", "1").await;
        let (_, read) = Dependencies::record(site.data.get::<String>("a")).await;
        assert!(read.is_empty());
        assert_eq!(site.shows("p", &["a"]).await, ("1".into(), true));
        site.data.delete("a").await.unwrap();
        assert_eq!(site.shows("p", &["a"]).await, ("1".into(), false));
    }

    async fn a_change_on_one_node_takes_the_pages_of_all(b) {
        let b = b.with_dependencies().await;
        let sites = [Site::of(&b.cache), Site::of(&b.node().await), Site::of(&b.node().await)];
        let keys = ["a", "b"];
        sites[0].set("b", "x").await;
        for round in 0..20 {
            let writer = &sites[round % 3];
            writer.set("a", &round.to_string()).await;
            let wanted = format!("{round}x");
            for site in &sites {
                site.becomes("p", &keys, &wanted).await;
            }
            writer.data.delete("a").await.unwrap();
            for site in &sites {
                site.becomes("p", &keys, "-x").await;
            }
        }
    }

    /// Every page that is stored after a write has ended shows that write or a later one, whatever
    /// renders at the same time.
    async fn pages_rendered_while_others_write_are_not_left_behind(b) {
        let b = b.with_dependencies().await;
        let site = Arc::new(Site::of(&b.cache));
        let source = Arc::new(AtomicU32::new(0));
        let readers: Vec<_> = (0..4).map(|reader| {
            let (site, source) = (Arc::clone(&site), Arc::clone(&source));
            tokio::spawn(async move {
                for _ in 0..100 {
                    let before = source.load(Ordering::SeqCst) / 2;
                    let now = Arc::clone(&source);
                    let data = site.data.clone();
                    let render = || async move {
                        let load = move || async move {
                            Ok::<_, ()>((now.load(Ordering::SeqCst).div_ceil(2)).to_string())
                        };
                        let hit = data.get_or_load("a", load).ttl(MINUTE).await.unwrap();
                        tokio::task::yield_now().await;
                        hit.as_str().to_owned()
                    };
                    let (shown, _) = site.page(&format!("p{}", reader % 2), render).await;
                    let shown: u32 = shown.parse().unwrap();
                    assert!(shown >= before, "{shown} is older than {before}");
                }
            })
        }).collect();
        for _ in 0..100 {
            source.fetch_add(1, Ordering::SeqCst); // It is committed …
            site.data.delete("a").await.unwrap();
            source.fetch_add(1, Ordering::SeqCst); // … and told.
            tokio::task::yield_now().await;
        }
        for reader in readers {
            reader.await.unwrap();
        }
    }
}
