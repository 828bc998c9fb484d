//! What is asked of a request, of what is stored and of a response, in the order it is asked, each
//! with the section that says so.
//!
//! Decides nothing: which question had which answer follows from what the policy decided.

use super::Step;
use crate::policy::decision::{Bypass, Refusal};

/// The name of the decision that a "no" leads to, the question, its section.
type Question = (&'static str, &'static str, &'static str);

/// Asked of a request, before anything is looked up.
const REQUEST: [Question; 7] = [
    ("method", "Is it GET or HEAD?", "RFC 9111 §3"),
    ("rule", "Does no rule take it out?", "the operator"),
    ("request-body", "Is it without a body?", "RFC 9110 §9.3.1"),
    ("upgrade", "Does it stay with this protocol?", "RFC 9110 §7.8"),
    ("precondition", "Is it without a condition that only the origin can judge?", "RFC 9110 §13.1"),
    ("request-no-store", "May its answer be stored (no `no-store`)?", "RFC 9111 §5.2.1.5"),
    ("target", "Does it name one host and one path?", "RFC 9110 §7.2"),
];

/// Asked of a response.
const RESPONSE: [Question; 24] = [
    ("head", "Was it asked for by GET?", "RFC 9111 §3"),
    ("status", "Is its status about the resource, and final?", "RFC 9111 §3"),
    ("part", "Does it say which bytes it has, where those were asked for?", "RFC 9111 §3.3"),
    ("not-understood", "Is its status understood, where it must be?", "RFC 9111 §5.2.2.3"),
    ("no-store", "Is it without `no-store`?", "RFC 9111 §5.2.2.5"),
    ("private", "Is it without `private`?", "RFC 9111 §5.2.2.7"),
    ("set-cookie", "Is it without `Set-Cookie`?", "RFC 9111 §7.3"),
    ("transfer-coding", "Is it without a transfer coding but `chunked`?", "RFC 9111 §3.3"),
    ("authorization", "May it be shared, asked for with `Authorization`?", "RFC 9111 §3.5"),
    ("cookie", "May it be shared, asked for with `Cookie`?", "RFC 9111 §3.5"),
    ("vary-star", "Is it without `Vary: *`?", "RFC 9111 §4.1"),
    ("vary-invalid", "Is its `Vary` a list of at most 32 names?", "RFC 9110 §12.5.5"),
    ("vary-credentials", "Does its `Vary` name no credential of the request?", "RFC 9111 §4.1"),
    ("unkeyed", "Is everything that may have changed it in the key or in `Vary`?", "RFC 9111 §4.1"),
    ("oversize", "Is it no error that the request's size may have caused?", "RFC 9111 §3"),
    ("no-freshness", "Is there anything to say how long it is fresh?", "RFC 9111 §4.2"),
    ("never-usable", "Can it ever be used, fresh or validated?", "RFC 9111 §3"),
    ("content-type", "Is it what the rule for its path is about?", "the operator"),
    ("tags", "Has it at most 64 tags of 256 bytes?", "this cache"),
    ("elsewhere", "Is it no part of what another process has whole?", "this cache"),
    ("too-large", "Is it within `max_body_size`?", "RFC 9111 §3"),
    ("end-unproved", "Can its end be told from a broken connection?", "RFC 9112 §8"),
    ("no-room", "Is there room in `max_fill_bytes`?", "this cache"),
    ("store", "Does the store take it?", "this cache"),
];

/// The questions asked of a request until one was answered with no.
pub(super) fn of_request(bypass: Option<Bypass>) -> Vec<Step> {
    trail("request", &REQUEST, bypass.map(Bypass::name), None)
}

/// The questions asked of a response until one was answered with no.
pub(super) fn of_response(refusal: Option<&Refusal>) -> Vec<Step> {
    let detail = match refusal {
        Some(Refusal::Unkeyed(name)) => Some(name.as_str()),
        _ => None,
    };
    trail("response", &RESPONSE, refusal.map(Refusal::name), detail)
}

fn trail(
    about: &'static str,
    questions: &[Question],
    no: Option<&'static str>,
    detail: Option<&str>,
) -> Vec<Step> {
    let mut steps = Vec::new();
    for (name, question, section) in questions {
        let is_no = no == Some(name);
        let detail = detail.filter(|_| is_no).map(str::to_owned);
        steps.push(Step { about, question, answer: !is_no, section, detail });
        if is_no {
            return steps;
        }
    }
    if let Some(name) = no {
        let question = "Is it otherwise allowed?";
        let detail = Some(name.to_owned());
        steps.push(Step { about, question, answer: false, section: "RFC 9111 §3", detail });
    }
    steps
}

/// What in the response would make it one that is stored and shared.
pub(super) fn remedy(refusal: &Refusal) -> Option<&'static str> {
    Some(match refusal.name() {
        "no-store" => "Cache-Control: max-age=60 (without no-store)",
        "private" => "Cache-Control: public, max-age=60 (without private)",
        "set-cookie" => "no Set-Cookie; or a rule with force_store, which takes it off",
        "authorization" => "Cache-Control: public, max-age=60",
        "cookie" => "Cache-Control: public, max-age=60; or a rule with ignore_cookies",
        "vary-star" | "vary-invalid" | "vary-credentials" => {
            "Vary: with the names of the request headers that select it, like Accept-Encoding"
        }
        "unkeyed" => {
            "Vary: with the name of that request header; or a client that does not send it"
        }
        "no-freshness" | "never-usable" => "Cache-Control: max-age=60; or an ETag to validate by",
        "not-understood" => "Cache-Control: max-age=60 (without must-understand)",
        "content-type" => "the Content-Type that belongs to the extension of its path",
        "end-unproved" => "Content-Length, or Transfer-Encoding: chunked",
        "too-large" => "a larger max_body_size (not a header)",
        "tags" => "fewer or shorter tags in Surrogate-Key and Cache-Tag",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_to_pass_a_request_by_is_asked_for() {
        for bypass in Bypass::ALL {
            let steps = of_request(Some(bypass));
            let last = steps.last().unwrap();
            assert!(!last.answer && last.detail.is_none(), "{bypass:?}");
            assert!(steps.iter().rev().skip(1).all(|step| step.answer));
        }
        assert!(of_request(None).iter().all(|step| step.answer));
    }

    #[test]
    fn no_question_is_asked_twice_and_each_names_its_section() {
        let mut names: Vec<_> = REQUEST.iter().chain(&RESPONSE).map(|(name, ..)| name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
        for (_, question, section) in REQUEST.iter().chain(&RESPONSE) {
            assert!(question.ends_with('?') && !section.is_empty(), "{question}");
        }
    }
}
