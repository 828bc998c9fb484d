//! What a caller gets who wants several keys at once: each as if it were alone, with one lookup and
//! one call of the loader.
//!
//! Each key has a flight of its own: what others are loading already is waited for, and others may
//! join what is loaded here. A caller leads or follows in all of its flights before it waits for
//! any, so two callers with the same keys in another order do not wait for each other.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::{Either, join_all, select};
use tokio::sync::Notify;

use super::answer::{Answer, Decision};
use super::batch::{AT_ONCE, Terms, Want};
use super::crew::{Crew, Joining, Verdict};
use super::flight::Joined;
use super::lead::Seat;
use super::lead_many::lead_many;
use super::outcome::{Failure, Held};
use super::reentrancy::Chain;
use super::{limit, renews};
use crate::entry::Entry;
use crate::error::Error;
use crate::invalidation::Group;
use crate::key::Key;
use crate::runtime::{can_load, lock, spawn};
use crate::shared::Shared;
use crate::store::StaleReason;

/// What a caller wants; its names are all different.
pub(crate) struct Wanted {
    pub(crate) names: Vec<String>,
    pub(crate) tags: Result<Vec<Group>, Error>,
    pub(crate) terms: Terms,
}

/// One key whose load this caller takes part in.
struct Member {
    want: Want,
    crew: Arc<Crew>,
    joining: Joining,
    followed: bool,
}

/// What came of one key.
enum Came {
    Answer(Answer),
    Failure(Failure),
    /// It was overtaken by an invalidation; `true`: the store is away.
    Again(bool),
}

/// What each of the names is answered with, in their order.
pub(crate) async fn answer_many(
    shared: &Arc<Shared>,
    wanted: Wanted,
) -> Result<Vec<Answer>, Failure> {
    let Wanted { names, tags, mut terms } = wanted;
    accept(shared, &names, tags, &mut terms);
    let count = names.len();
    let mut answers: BTreeMap<usize, Answer> = BTreeMap::new();
    let (mut wants, renewals) = look_up(shared, names, &mut terms, &mut answers).await;
    if terms.store && can_load() {
        refresh(shared, renewals, &terms);
    }
    for again in [false, true] {
        if wants.is_empty() {
            break;
        }
        let came = take_part(shared, std::mem::take(&mut wants), &terms, again).await;
        for (want, came) in came {
            match came {
                Came::Answer(answer) => drop(answers.insert(want.place, answer)),
                Came::Failure(failure) => return Err(failure),
                Came::Again(_) if again => return Err(Failure::Aborted),
                Came::Again(away) => {
                    terms.store &= !away;
                    wants.push(want);
                }
            }
        }
        if terms.store {
            wants = found_meanwhile(shared, wants, &terms, &mut answers).await;
        }
    }
    let answers: Vec<_> = answers.into_values().collect();
    if answers.len() == count { Ok(answers) } else { Err(Failure::Aborted) }
}

/// Takes tags and options, or notes that nothing can be stored with them.
fn accept(shared: &Shared, names: &[String], tags: Result<Vec<Group>, Error>, terms: &mut Terms) {
    let name = names.first().map_or("", String::as_str);
    let checked = terms.options.check();
    if checked.is_err() {
        terms.options = shared.options;
    }
    match tags.and_then(|tags| checked.map(|()| tags)) {
        Ok(tags) => terms.tags = tags,
        Err(error) => {
            shared.note_of("store", &terms.namespace, name, &error);
            terms.store = false;
        }
    }
}

/// Looks all keys up: what is to be loaded now, and what in the background.
async fn look_up(
    shared: &Arc<Shared>,
    names: Vec<String>,
    terms: &mut Terms,
    answers: &mut BTreeMap<usize, Answer>,
) -> (Vec<Want>, Vec<Want>) {
    let namespace = terms.namespace.clone();
    let (mut wants, mut renewals) = (Vec::new(), Vec::new());
    let mut decide = |place: usize, key: &Key<'_>, held: Option<Held>| {
        let want = |held: Option<Held>, has_fallback| Want {
            place,
            name: key.name().to_owned(),
            held,
            has_fallback,
            renews: None,
        };
        match shared.decide(key, held, &terms.options) {
            Decision::Serve(answer) => drop(answers.insert(place, answer)),
            Decision::Renew(answer, held) => {
                answers.insert(place, answer);
                let renews = held.guarantee.is_fresh().then(|| held.entry.meta().created);
                renewals.push(Want { renews, ..want(Some(held), true) });
            }
            Decision::Load(held, has_fallback) => wants.push(want(held, has_fallback)),
        }
    };
    let (mut asked, mut no_keys) = (Vec::new(), Vec::new());
    for (place, name) in names.into_iter().enumerate() {
        let key = match Key::new(&namespace, name.clone()) {
            Ok(key) => key,
            Err(error) => {
                shared.miss_of(&namespace, &name);
                shared.counters.errors.count(error.kind());
                no_keys.push(Want { place, name, held: None, has_fallback: false, renews: None });
                continue;
            }
        };
        let mut found = None;
        let see = &mut |entry: &Entry, guarantee| found = Some((entry.clone(), guarantee));
        let peek = shared.peek(&key, see);
        let held = found.and_then(|found| shared.hold(&key, found, terms.ops, true));
        if peek.asks() {
            asked.push((place, key, held));
        } else {
            decide(place, &key, held);
        }
    }
    let mut failure = None;
    terms.local = asked.is_empty();
    for chunk in asked.chunks(AT_ONCE) {
        let keys: Vec<_> = chunk.iter().map(|(_, key, _)| key.clone()).collect();
        let found = match &failure {
            None => shared.store.read(&keys, &shared.cx()).await,
            Some(_) => Ok(Vec::new()),
        };
        let found = found.unwrap_or_else(|error| {
            failure = Some(error);
            Vec::new()
        });
        let mut found = found.into_iter();
        for (place, key, spare) in chunk {
            let found = found.next().flatten();
            let held = match &failure {
                None => found.and_then(|found| shared.hold(key, found, terms.ops, true)),
                Some(_) => spare.clone(),
            };
            decide(*place, key, held);
        }
    }
    if let Some(error) = failure {
        if let Some((_, key, _)) = asked.first() {
            shared.note("look up", key, &error);
        }
        // A store that does not answer is not asked for the right to store either.
        terms.store = false;
    }
    wants.extend(no_keys);
    (wants, renewals)
}

/// Leads or follows in the flight of each key, and waits for all.
async fn take_part(
    shared: &Arc<Shared>,
    wants: Vec<Want>,
    terms: &Terms,
    again: bool,
) -> Vec<(Want, Came)> {
    let fail = |wants: Vec<Want>, failure: Failure| {
        wants.into_iter().map(|want| failed(shared, want, terms, failure.clone())).collect()
    };
    if !can_load() {
        return fail(wants, Failure::NoRuntime);
    }
    let names = wants.iter().map(|want| want.name.clone()).collect();
    let me = Chain::link_many(shared, &terms.namespace, names, terms.kind);
    if me.is_running() {
        return fail(wants, Failure::Reentrant);
    }
    let members = join(shared, wants, terms, me, again);
    let crews: Vec<_> = members.iter().map(|member| Arc::clone(&member.crew)).collect();
    // One for all: they begin together.
    let limit = limit(shared, terms.options.load_timeout, &crews).boxed().shared();
    join_all(members.into_iter().map(|member| wait(shared, member, terms, limit.clone()))).await
}

fn join(
    shared: &Arc<Shared>,
    wants: Vec<Want>,
    terms: &Terms,
    me: Chain,
    again: bool,
) -> Vec<Member> {
    let (space, kind) = (&terms.namespace, terms.kind);
    let hurried = Arc::new(Notify::new());
    let crew = || Crew::hurried_by(Arc::clone(&hurried));
    let (mut members, mut seats) = (Vec::with_capacity(wants.len()), Vec::new());
    for want in wants {
        let joined = match Key::new(space, want.name.as_str()) {
            Err(_) => (None, crew()),
            Ok(key) => {
                let mut table = lock(shared.flights.shard(&key));
                let joined = table.join(&key, kind, &terms.tags, crew);
                let (Joined::Lead(_, crew) | Joined::Follow(crew)) = &joined;
                if !want.has_fallback {
                    crew.need();
                }
                if me.is_nested() {
                    crew.hurry();
                }
                match joined {
                    Joined::Lead(id, crew) => (Some(id), crew),
                    Joined::Follow(crew) => {
                        drop(table);
                        shared.counters.coalesced.add_one();
                        let joining = if again { Joining::BeforeReading } else { crew.joining() };
                        members.push(Member { want, crew, joining, followed: true });
                        continue;
                    }
                }
            }
        };
        let (id, crew) = joined;
        let seat = Seat::at(shared, space, &want.name, id, Arc::clone(&crew));
        seats.push((seat, want.clone()));
        let joining = Joining::BeforeReading;
        members.push(Member { want, crew, joining, followed: false });
    }
    if !seats.is_empty() {
        spawn(Arc::new(me), lead_many(seats, hurried, terms.clone()));
    }
    members
}

/// What comes of one key; a stale value in place of a failure or of waiting too long.
async fn wait(
    shared: &Arc<Shared>,
    member: Member,
    terms: &Terms,
    limit: impl Future<Output = ()> + Unpin,
) -> (Want, Came) {
    let Member { want, crew, joining, followed } = member;
    let options = &terms.options;
    let key = (&terms.namespace, want.name.as_str());
    let fallback = want.held.as_ref().filter(|_| want.has_fallback);
    let outcome = async {
        match select(pin!(crew.outcome(joining)), limit).await {
            Either::Left((verdict, _)) => verdict,
            Either::Right(_) => Verdict::Good(Err(Failure::TimedOut)),
        }
    };
    let outcome = pin!(outcome);
    let verdict = match (fallback, options.soft_timeout) {
        (Some(held), Some(patience)) => match select(outcome, shared.clock.sleep(patience)).await {
            Either::Left((verdict, _)) => verdict,
            Either::Right(((), outcome)) => {
                match shared.instead(key, held, options.kept_stale(), StaleReason::SoftTimeout) {
                    Some(answer) => return (want, Came::Answer(answer)),
                    None => outcome.await,
                }
            }
        },
        _ => outcome.await,
    };
    let came = match verdict {
        Verdict::Good(Ok(given)) => Came::Answer(Answer::of(given, followed)),
        Verdict::Good(Err(failure)) => return failed(shared, want, terms, failure),
        Verdict::AskAgain => Came::Again(false),
        Verdict::StoreAway => Came::Again(true),
    };
    (want, came)
}

/// A stale value in place of a failure, if that is accepted.
fn failed(shared: &Shared, want: Want, terms: &Terms, failure: Failure) -> (Want, Came) {
    let key = (&terms.namespace, want.name.as_str());
    let fallback = want.held.as_ref().filter(|_| want.has_fallback);
    let stale = fallback.and_then(|held| shared.instead_of(&failure, key, held, &terms.options));
    (want, stale.map_or(Came::Failure(failure), Came::Answer))
}

/// Takes out what was stored while this caller waited in vain. Not counted again.
async fn found_meanwhile(
    shared: &Shared,
    wants: Vec<Want>,
    terms: &Terms,
    answers: &mut BTreeMap<usize, Answer>,
) -> Vec<Want> {
    let mut left = Vec::new();
    for chunk in wants.chunks(AT_ONCE) {
        let keys = chunk.iter().filter_map(|want| Key::new(&terms.namespace, &*want.name).ok());
        let keys: Vec<_> = keys.collect();
        let found = shared.store.read(&keys, &shared.cx()).await.unwrap_or_default();
        let mut found = found.into_iter();
        for want in chunk {
            let held = found.next().flatten().and_then(|found| {
                let now = shared.clock.now();
                Held::of(found, &shared.codecs, terms.ops, true, now).ok().flatten()
            });
            match held {
                Some(held) if held.guarantee.is_fresh() => {
                    answers.insert(want.place, Answer::found(&held, held.guarantee));
                }
                _ => left.push(want.clone()),
            }
        }
    }
    left
}

/// Renews values in the background, but for those that others are loading. It does not wait.
fn refresh(shared: &Arc<Shared>, wants: Vec<Want>, terms: &Terms) {
    let (space, kind) = (&terms.namespace, terms.kind);
    let hurried = Arc::new(Notify::new());
    let mut seats = Vec::new();
    for want in wants {
        let Ok(key) = Key::new(space, want.name.as_str()) else { continue };
        let mut table = lock(shared.flights.shard(&key));
        if table.has(&key, renews) {
            continue;
        }
        // Those that are left have loaded and are storing.
        table.detach(&key);
        let crew = || Crew::hurried_by(Arc::clone(&hurried));
        if let Joined::Lead(id, crew) = table.join(&key, kind, &terms.tags, crew) {
            drop(table);
            seats.push((Seat::at(shared, space, &want.name, Some(id), crew), want));
        }
    }
    if !seats.is_empty() {
        let names = seats.iter().map(|(seat, _)| seat.name().to_owned()).collect();
        let me = Chain::begin_many(shared, space, names, kind);
        spawn(Arc::new(me), lead_many(seats, hurried, terms.clone()));
    }
}
