//! Says why: for a request, each question that was asked, its answer and its section, and what
//! would have to be different.
//!
//! Decides nothing itself: it asks the very functions that an exchange asks, about what is stored
//! now, and changes nothing.

mod questions;

use std::{fmt, time::SystemTime};

use http::{HeaderMap, Request, Response};

use crate::{
    HttpCache, answer, cache_status,
    exchange::{Asked, Verdict, may_be_held, verdict},
    handle::Shared,
    head,
    judge::{self, judge},
    policy::{
        decision::{Bypass, Decision, Forward, Refusal},
        request::{RequestFacts, admit},
        response::ResponseFacts,
        reuse::{Failed, Reuse, Terms, reuse, stale_if_error},
    },
    storage::Found,
};

/// What the cache does with a request, and why.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Explanation {
    /// What is decided, as far as that is known without asking the origin.
    pub decision: Decision,
    /// Each question that was asked, in its order; the last one decided.
    pub steps: Vec<Step>,
    /// What would make the response one that is stored and shared.
    pub remedy: Option<&'static str>,
    /// Whether the origin's answer decides the rest.
    pub asks_origin: bool,
}

/// One question and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Step {
    /// What is asked: `request`, `stored` or `response`.
    pub about: &'static str,
    /// The question. "Yes" speaks for the cache.
    pub question: &'static str,
    /// Yes or no.
    pub answer: bool,
    /// Who asks: a section of an RFC, the operator, or this cache.
    pub section: &'static str,
    /// The figures or names that it is about.
    pub detail: Option<String>,
}

impl Explanation {
    /// What `Cache-Status` says of the decision.
    pub fn cache_status(&self) -> String {
        cache_status::member(&self.decision).unwrap_or_default()
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            let answer = if step.answer { "yes" } else { "no " };
            write!(f, "{answer}  {:8}  {}  [{}]", step.about, step.question, step.section)?;
            if let Some(detail) = &step.detail {
                write!(f, "  {detail}")?;
            }
            writeln!(f)?;
        }
        writeln!(f, "decision: {}", self.cache_status())?;
        if self.asks_origin {
            writeln!(f, "the origin's answer decides the rest")?;
        }
        match self.remedy {
            Some(remedy) => writeln!(f, "it would be cached with: {remedy}"),
            None => Ok(()),
        }
    }
}

impl HttpCache {
    /// Explains what the cache would do with a request now, without doing it: whether what is
    /// stored answers it, or why not.
    ///
    /// The request is as a server sees it: an absolute URI, or a path and a `Host`. It counts
    /// nothing and changes nothing.
    pub async fn explain<B>(&self, request: &Request<B>) -> Explanation {
        let shared = self.shared();
        let (request, asked) = match asked(shared, request) {
            Ok(asked) => asked,
            Err(bypass) => return bypassed(bypass),
        };
        let mut steps = questions::of_request(None);
        let now = shared.now();
        let found = shared.storage.find(&asked.key, request.headers(), &asked.facts).await;
        let found = found.unwrap_or_else(|_| Found::nothing());
        steps.extend(of_stored(&found, request.headers(), &asked.facts, now));
        let decision = match verdict(found, request.headers(), &asked.facts, now) {
            Verdict::Answer(decision, _) | Verdict::Refresh(decision, _) => decision,
            Verdict::OnlyIfCached => Decision::OnlyIfCached,
            Verdict::Forward(why, _) => forwarded(why, None),
        };
        let asks_origin = matches!(decision, Decision::Forwarded { .. });
        Explanation { decision, steps, remedy: None, asks_origin }
    }

    /// Explains what the cache would do with an answer of the origin to a request, by its head:
    /// whether it would be stored, or why not, and what would make it so.
    pub async fn explain_answer<B, R>(
        &self,
        request: &Request<B>,
        given: &Response<R>,
    ) -> Explanation {
        let before = self.explain(request).await;
        let shared = self.shared();
        let Decision::Forwarded { why, .. } = before.decision else { return before };
        let Ok((request, asked)) = asked(shared, request) else { return before };
        if matches!(why, Forward::Bypass(_)) {
            return before;
        }
        let mut steps = before.steps;
        let status = given.status();
        if status.is_server_error() {
            let (now, options) = (shared.now(), &asked.options);
            let found = shared.storage.find(&asked.key, request.headers(), &asked.facts).await;
            let found = found.unwrap_or_else(|_| Found::nothing());
            // Only what may be validated may cover, as in an exchange.
            let verdict = verdict(found, request.headers(), &asked.facts, now);
            if let Verdict::Forward(why, Some(stored)) = verdict
                && why != Forward::Partial
                && let Some(terms) = stored.response().map(|stored| &stored.terms)
            {
                let failed = match given.extensions().get::<crate::Disconnected>() {
                    Some(_) => Failed::Disconnected,
                    None => Failed::Answered,
                };
                let covered = stale_if_error(terms, &asked.facts, failed, now, options);
                steps.push(Step {
                    about: "stored",
                    question: "May it cover for an origin that fails?",
                    answer: covered.is_some(),
                    section: "RFC 5861 §4",
                    detail: None,
                });
                if let Some((by, allowed)) = covered {
                    let decision = Decision::Stale { by, allowed };
                    return Explanation { decision, steps, remedy: None, asks_origin: false };
                }
            }
        }
        let refusal = refusal(shared, &request, &asked, why, given);
        steps.extend(questions::of_response(refusal.as_ref()));
        let remedy = refusal.as_ref().and_then(questions::remedy);
        let decision = forwarded(why, Some(refusal.map_or(Ok(()), Err)));
        Explanation { decision, steps, remedy, asks_origin: false }
    }
}

/// Why an answer would not be stored, as far as its head tells.
fn refusal<R>(
    shared: &Shared,
    request: &Request<()>,
    asked: &Asked,
    why: Forward,
    given: &Response<R>,
) -> Option<Refusal> {
    let (headers, options) = (given.headers(), &asked.options);
    let facts = ResponseFacts::read(given.status(), headers, &options.targeted);
    let at = shared.entries().clock().wall();
    let times = judge::Asked { at, answered_at: at };
    let judged = judge(&asked.facts, request.headers(), &facts, headers, times, options);
    let judged = judged.and_then(|_| judge::may_take_place(why, given.status(), headers));
    if let Err(refusal) = judged {
        return Some(refusal);
    }
    let least = head::content_length(headers).unwrap_or(0);
    let head = (headers, given.version(), given.extensions());
    may_be_held(head, least, shared.max_body_size).err()
}

fn asked<B>(shared: &Shared, request: &Request<B>) -> Result<(Request<()>, Asked), Bypass> {
    let mut asked = Request::new(());
    *asked.method_mut() = request.method().clone();
    *asked.uri_mut() = request.uri().clone();
    *asked.headers_mut() = request.headers().clone();
    let (target, options) = shared.target(&mut asked);
    let facts = admit(asked.method(), asked.headers(), false, &options)?;
    let key = target.ok_or(Bypass::Target)?.key();
    Ok((asked, Asked { key, facts, options, since: None }))
}

fn bypassed(bypass: Bypass) -> Explanation {
    let steps = questions::of_request(Some(bypass));
    Explanation { decision: Decision::bypass(bypass), steps, remedy: None, asks_origin: true }
}

fn forwarded(why: Forward, stored: Option<Result<(), Refusal>>) -> Decision {
    Decision::Forwarded { why, status: None, collapsed: false, stored }
}

/// The questions asked of what is stored.
fn of_stored(
    found: &Found,
    request: &HeaderMap,
    facts: &RequestFacts,
    now: SystemTime,
) -> Vec<Step> {
    let step = |question, answer, section, detail| {
        let about = "stored";
        Step { about, question, answer, section, detail }
    };
    let is_known = !matches!(found, Found::Nothing(Forward::UriMiss, ..));
    let mut steps = vec![step("Is anything stored for this URL?", is_known, "RFC 9111 §4", None)];
    let stored = match found {
        Found::Response(stored, _) => stored.response(),
        Found::Nothing(Forward::Elsewhere, ..) => {
            steps.push(step("Is it selected by this request?", true, "RFC 9111 §4.1", None));
            let question = "Is its large body in the memory of this process?";
            steps.push(step(question, false, "this cache", None));
            None
        }
        Found::Nothing(_, names, _) => {
            if is_known {
                let names: Vec<_> = names.iter().map(http::HeaderName::as_str).collect();
                let question = "Is what is stored selected by this request?";
                let detail = Some(format!("by {}", names.join(", ")));
                steps.push(step(question, false, "RFC 9111 §4.1", detail));
            }
            None
        }
    };
    let Some(stored) = stored else { return steps };
    steps.push(step("Is it selected by this request?", true, "RFC 9111 §4.1", None));
    let is_held = answer::is_held(stored, request, facts.head);
    let question = "Does it hold the bytes that are asked for?";
    steps.push(step(question, is_held, "RFC 9111 §3.3", None));
    if !is_held {
        return steps;
    }
    for (question, answer, section, detail) in of_terms(&stored.terms, facts, now) {
        steps.push(step(question, answer, section, detail));
        if !answer {
            break;
        }
    }
    steps
}

/// As `reuse` asks them.
fn of_terms(
    terms: &Terms,
    facts: &RequestFacts,
    now: SystemTime,
) -> Vec<(&'static str, bool, &'static str, Option<String>)> {
    let (age, asked) = (terms.age(now), &facts.directives);
    let figures = format!("age {} s, fresh for {} s", age.as_secs(), terms.lifetime.as_secs());
    let mut questions = vec![
        (
            "May it be used for a request with these credentials?",
            (!facts.has_authorization || terms.authorized) && (!facts.has_cookie || terms.shared),
            "RFC 9111 §3.5",
            None,
        ),
        (
            "May it be used without asking the origin each time?",
            !terms.always_validate,
            "RFC 9111 §5.2.2.4",
            None,
        ),
        (
            "Does the request take what is stored (no `no-cache`)?",
            !asked.no_cache,
            "RFC 9111 §5.2.1.4",
            None,
        ),
    ];
    match reuse(terms, facts, now) {
        Reuse::Stale { allowed, .. } => {
            let detail = Some(format!("{figures}; {}", allowed.name()));
            let question = "May it be used though it is stale?";
            questions.push((question, true, "RFC 9111 §4.2.4", detail));
        }
        outcome => {
            let is_used = matches!(outcome, Reuse::Fresh { .. });
            let question = "Is it fresh enough for this request?";
            questions.push((question, is_used, "RFC 9111 §4.2", Some(figures)));
        }
    }
    questions
}
