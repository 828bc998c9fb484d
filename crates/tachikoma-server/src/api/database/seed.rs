//! Decides how missions and their specs are written together: all or none.

use super::{
    Database, WriteError,
    missions::{self, NewMission},
    specs::{self, SpecChange},
};
use crate::api::timestamp::Timestamp;

/// A mission to be created with its specs, by their ids.
#[derive(Debug, Clone)]
pub(crate) struct MissionSeed {
    pub(crate) mission: NewMission,
    pub(crate) specs: Vec<(String, SpecChange)>,
}

impl Database {
    /// Creates missions with their specs, all or none.
    pub(crate) async fn seed(
        &self,
        seeds: Vec<MissionSeed>,
        now: Timestamp,
    ) -> Result<(), WriteError> {
        let mut work = self.write().await?;
        for seed in seeds {
            let mission = missions::insert(&mut work, seed.mission, now).await?;
            for (spec_id, change) in seed.specs {
                specs::upsert(&mut work, &specs::next(mission.id, &spec_id, change, None, now))
                    .await?;
            }
        }
        work.commit().await?;
        Ok(())
    }
}
