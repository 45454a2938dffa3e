//! Expiring sessions as it is configured.

use jiff::Timestamp;

use super::{Keeper, Task};
use crate::config::DatabaseConfig;
use crate::failure::{Failure, Kind};
use crate::sessions::journey;
use crate::sessions::sweep::{Mode, Swept};
use crate::sessions::tally::Tally;
use crate::setup;

impl Keeper<'_> {
    /// Expires the old sessions of a database. What was done is in the tally, also when it fails on the way.
    ///
    /// # Errors
    /// Those of [`journey::expire`], and [`Kind::Config`] when it has no rules.
    pub async fn expire(&self, database: &DatabaseConfig) -> (Tally, Result<Swept, Failure>) {
        let started_at = Timestamp::now();
        let mut tally = Tally::new(&database.sessions);
        let swept = self.sweep(database, &mut tally).await;
        // Where it is told nothing else says whose sessions these are.
        let told = swept.as_ref().err().map(|failure| {
            let failure = failure.clone();
            failure.context(format!("cannot expire sessions of {}", database.name))
        });
        let result = told.as_ref().map_or(Ok(None), Err);
        self.record(database, Task::Sessions, started_at, result);
        (tally, swept)
    }

    async fn sweep(&self, database: &DatabaseConfig, tally: &mut Tally) -> Result<Swept, Failure> {
        if database.sessions.is_empty() {
            return Err(Failure::new(Kind::Config, "it has no rules for sessions")
                .hint("write [[database.sessions]]; `rdbkeeper sessions report` suggests what"));
        }
        let mode = Mode::Expire;
        let job = setup::sweep(self.config, database, mode, &self.cancel, &self.meter)?;
        let conditions = setup::conditions(self.config, database)?;
        journey::expire(job, &conditions, tally).await
    }
}
