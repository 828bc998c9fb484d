//! Decides what a demonstration finds in the database: missions with specs, the same each time.

use uuid::Uuid;

use super::{
    database::{MissionSeed, NewMission, SpecChange},
    model::MissionStatus,
    state::ApiState,
};

/// Missions of one transaction: few enough that other writers hardly wait.
const BATCH: usize = 500;

/// Each mission has this many specs at most.
const SPECS: usize = 3;

const VERBS: [&str; 6] = ["Survey", "Escort", "Repair", "Map", "Supply", "Observe"];
const PLACES: [&str; 7] = [
    "the northern ridge",
    "harbour 9",
    "the old aqueduct",
    "station Lagrange",
    "the salt plain",
    "the lighthouse",
    "sector 338",
];

/// What [`seed`] wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seeded {
    /// The missions, in the order in which they were created.
    pub missions: Vec<Uuid>,
}

/// The missions could not all be written.
#[derive(Debug, thiserror::Error)]
#[error("the database could not be filled with missions")]
pub struct SeedError(#[source] Box<dyn std::error::Error + Send + Sync>);

/// Creates `missions` missions with up to three specs each, whatever is there already.
///
/// Titles, texts and states follow from the number of the mission; ids are new each time.
///
/// # Errors
///
/// The database failed, or the cache could not be told. Missions written before stay.
pub async fn seed(state: &ApiState, missions: usize) -> Result<Seeded, SeedError> {
    let mut seeded = Vec::with_capacity(missions);
    while seeded.len() < missions {
        let end = missions.min(seeded.len() + BATCH);
        let batch: Vec<_> = (seeded.len()..end).map(mission).collect();
        seeded.extend(batch.iter().map(|seed| seed.mission.id));
        let written = state.database().seed(batch, state.now()).await;
        written.map_err(|error| SeedError(error.into()))?;
    }
    let told = super::invalidate::all_missions(state.cache()).await;
    told.map_err(|error| SeedError(error.into()))?;
    Ok(Seeded { missions: seeded })
}

/// The mission with this number.
fn mission(number: usize) -> MissionSeed {
    let pick = |all: &[&'static str], by: usize| all.get(by % all.len()).copied().unwrap_or("");
    let (verb, place) = (pick(&VERBS, number), pick(&PLACES, number / VERBS.len()));
    let title = format!("{verb} {place}");
    let description = format!("Mission {number}: {} {place} and report.", verb.to_lowercase());
    let statuses = MissionStatus::ALL;
    let status = statuses.get(number % statuses.len()).copied().unwrap_or_default();
    let specs = (1..=number % (SPECS + 1)).map(|spec| {
        let title = format!("{title}, part {spec}");
        let content = format!("1. Prepare.\n2. {title}.\n3. Write down what was seen.\n");
        (format!("part-{spec}"), SpecChange { title, content })
    });
    let mission = NewMission { id: Uuid::new_v4(), title: title.clone(), description, status };
    MissionSeed { mission, specs: specs.collect() }
}
