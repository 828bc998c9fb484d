use http::{HeaderValue, Uri};
use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn options(rules: &[Rule], url: &str, headers: &[(&'static str, &'static str)]) -> Arc<Options> {
    let uri: Uri = url.parse().unwrap();
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, HeaderValue::from_static(value));
    }
    let rules = Rules::new(rules.to_vec());
    rules.options(&Base::default(), uri.host().unwrap(), uri.path(), &map)
}

#[track_caller]
fn check(rule: Rule, url: &str, expected: bool) {
    let rule = rule.ttl(MINUTE);
    assert_eq!(
        options(std::slice::from_ref(&rule), url, &[]).ttl.is_some(),
        expected,
        "{rule:?} {url}"
    );
}

#[test]
fn a_rule_is_about_its_host_and_path() {
    let path = |pattern| Rule::path(pattern).unwrap();
    check(path("/a/*"), "http://a.test/a/b/c", true);
    check(path("/a/*"), "http://a.test/a", false);
    check(path("/a/*"), "http://a.test/A/b", false);
    check(path("*"), "http://a.test/", true);
    check(path("*.css"), "http://a.test/x.css", true);
    check(path("*.css"), "http://a.test/x.css/y", false);
    let prefix = |prefix| Rule::prefix(prefix).unwrap();
    check(prefix("/a[1]/"), "http://a.test/a[1]/b", true);
    check(prefix("/a*"), "http://a.test/ab", false);
    check(prefix("/a"), "http://a.test/ab", true);
    let host = |host| Rule::prefix("/").unwrap().host(host).unwrap();
    check(host("a.test"), "http://a.test/", true);
    check(host("a.test"), "http://b.a.test/", false);
    check(host("*.a.test"), "http://b.a.test/", true);
    check(host("*.a.test"), "http://a.test/", false);
    check(host("*.a.test"), "http://evila.test/", false);
}

#[test]
fn what_would_never_match_or_is_no_name_is_refused_and_says_what_is_allowed() {
    let refused = [
        Rule::path("static/*").unwrap_err(),
        Rule::path("").unwrap_err(),
        Rule::path(&"*".repeat(5_000)).unwrap_err(),
        Rule::prefix("static").unwrap_err(),
        Rule::prefix("/").unwrap().host("http://a.test").unwrap_err(),
        Rule::prefix("/").unwrap().host("a.test:80").unwrap_err(),
        Rule::prefix("/").unwrap().host("").unwrap_err(),
        Rule::prefix("/").unwrap().ignore_query([""]).unwrap_err(),
        Rule::prefix("/").unwrap().tag("").unwrap_err(),
        Rule::prefix("/").unwrap().tag(&"x".repeat(300)).unwrap_err(),
    ];
    for error in refused {
        let text = error.to_string();
        assert!(text.starts_with(error.what()) && text.contains("allowed is"), "{text}");
        assert!(text.len() < 300, "{text}");
    }
}

#[test]
fn a_later_rule_overrules_and_lists_add_up() {
    let accept = HeaderName::from_static("accept");
    let rules = [
        Rule::path("*").unwrap().ttl(MINUTE).tag("all").unwrap().key_headers([accept.clone()]),
        Rule::path("/a*").unwrap().ttl(MINUTE * 2).tag("a").unwrap(),
        Rule::path("/b*").unwrap().bypass(),
    ];
    let a = options(&rules, "http://a.test/a", &[]);
    assert_eq!((a.ttl, a.bypass), (Some(MINUTE * 2), false));
    assert_eq!(a.tags, ["all", "a"]);
    assert_eq!(a.key_headers, [accept]);
    let b = options(&rules, "http://a.test/b", &[]);
    assert_eq!((b.ttl, b.bypass), (Some(MINUTE), true));
}

#[test]
fn a_rule_about_files_is_not_about_requests_with_credentials() {
    let rule = Rule::path("*.css").unwrap().ttl(MINUTE);
    let of = |headers: &[_]| options(std::slice::from_ref(&rule), "http://a.test/x.css", headers);
    assert_eq!(of(&[]).content_types, ["text/css"]);
    for name in ["cookie", "authorization"] {
        let options = of(&[(name, "x")]);
        assert!(options.ttl.is_none() && options.content_types.is_empty());
    }
}

#[track_caller]
fn check_query(uri: &str, names: &[&str], expected: Option<&str>) {
    let names = query_names(names).unwrap();
    let left = without(&uri.parse().unwrap(), &names).map(|uri| uri.to_string());
    assert_eq!(left.as_deref(), expected, "{uri}");
}

#[test]
fn ignored_parameters_are_taken_out_and_the_rest_stays_as_it_was_sent() {
    check_query("/a?utm_source=x&b=%41&b=2", &["utm_*"], Some("/a?b=%41&b=2"));
    check_query("/a?utm_source=x", &["utm_*"], Some("/a"));
    check_query("/a?b=1&&c", &["utm_*"], None);
    check_query("/a?gclid&b", &["gclid"], Some("/a?b"));
    check_query("/a?Gclid&b", &["gclid"], None);
    check_query("/a?xgclid=1", &["gclid"], None);
    check_query("http://a.test/a?gclid=1", &["gclid"], Some("http://a.test/a"));
    check_query("/a", &["*"], None);
}

proptest! {
    #[test]
    fn what_is_left_of_a_query_has_nothing_more_to_take_out(query in "[a-c=&%]{0,16}") {
        let names = query_names(["a*"]).unwrap();
        let uri: Uri = format!("/x?{query}").parse().unwrap();
        if let Some(left) = without(&uri, &names) {
            prop_assert_eq!(without(&left, &names), None);
            prop_assert_eq!(left.path(), "/x");
        }
    }
}
