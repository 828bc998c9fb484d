//! Searches every state that a protocol can come to, breadth first, so that what is found is found
//! by a shortest way.
//!
//! It decides only whether a broken state can be reached. The search itself is stateright's.

use std::fmt::{self, Debug, Display};
use std::hash::Hash;
use std::time::{Duration, Instant};

use stateright::{Checker as _, Model, Property};

/// A protocol: where it begins, what can happen next, and what must not have happened.
pub(crate) trait Protocol: Sized + Send + Sync + 'static {
    type State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static;

    fn start(&self) -> Self::State;

    /// Adds everything that can happen next.
    fn steps(&self, now: &Self::State, steps: &mut Steps<'_, Self::State>);

    /// Whether the promise is broken.
    fn is_broken(&self, state: &Self::State) -> bool;
}

/// Who does what, and to which version of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Act {
    pub(crate) who: &'static str,
    pub(crate) does: &'static str,
    pub(crate) version: Option<u8>,
}

impl Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.who, self.does)?;
        self.version.map_or(Ok(()), |version| write!(f, " v{version}"))
    }
}

/// What can happen next.
pub(crate) struct Steps<'a, S>(&'a mut Vec<Step<S>>);

impl<S> Steps<'_, S> {
    pub(crate) fn add(&mut self, who: &'static str, does: &'static str, to: S) {
        self.0.push(Step { act: Act { who, does, version: None }, to });
    }

    pub(crate) fn add_of(&mut self, who: &'static str, does: &'static str, version: u8, to: S) {
        self.0.push(Step { act: Act { who, does, version: Some(version) }, to });
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Step<S> {
    act: Act,
    to: S,
}

struct Adapter<P>(P);

const KEPT: &str = "the promise is kept";

impl<P: Protocol> Model for Adapter<P> {
    type State = P::State;
    type Action = Step<P::State>;

    fn init_states(&self) -> Vec<P::State> {
        vec![self.0.start()]
    }

    fn actions(&self, state: &P::State, actions: &mut Vec<Self::Action>) {
        self.0.steps(state, &mut Steps(actions));
    }

    fn next_state(&self, _: &P::State, step: Self::Action) -> Option<P::State> {
        Some(step.to)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always(KEPT, |model: &Self, state| !model.0.is_broken(state))]
    }
}

/// What a search came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Which variant of the protocol.
    pub variant: &'static str,
    /// Whether its promise should hold.
    pub sound: bool,
    /// How many different states were seen: all there are, if the promise holds.
    pub states: usize,
    /// How long the search took.
    pub took: Duration,
    /// The shortest way to a broken promise, if there is one.
    pub trace: Option<Vec<String>>,
}

impl Outcome {
    /// Whether the search found something exactly if it should have.
    pub fn is_as_expected(&self) -> bool {
        self.sound == self.trace.is_none()
    }
}

impl Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { variant, states, .. } = self;
        write!(f, "{variant}: {states} states in {:.2} s, ", self.took.as_secs_f64())?;
        match &self.trace {
            None => write!(f, "nothing found"),
            Some(trace) => write!(f, "broken in {} steps: {}", trace.len(), trace.join("; ")),
        }
    }
}

/// Searches `protocol`; `sound` says whether its promise should hold.
pub(crate) fn search<P: Protocol>(variant: &'static str, sound: bool, protocol: P) -> Outcome {
    #[expect(clippy::disallowed_methods, reason = "how long a search takes is shown")]
    let begun = Instant::now();
    let checker = Adapter(protocol).checker().spawn_bfs().join();
    let path = checker.discovery(KEPT);
    let trace = path.map(|path| {
        let steps = path.into_actions().into_iter();
        steps.map(|step| step.act.to_string()).collect()
    });
    let states = checker.unique_state_count();
    Outcome { variant, sound, states, took: begun.elapsed(), trace }
}

/// The same list with another value at `place`.
pub(crate) fn with<T: Clone, const N: usize>(list: &[T; N], place: usize, value: T) -> [T; N] {
    let mut list = list.clone();
    if let Some(at) = list.get_mut(place) {
        *at = value;
    }
    list
}
