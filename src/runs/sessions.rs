//! Expiring sessions as it is configured.

use std::time::Duration;

use jiff::Timestamp;

use super::{Keeper, Task};
use crate::config::DatabaseConfig;
use crate::failure::{Failure, Kind};
use crate::sessions::journey;
use crate::sessions::sweep::{Mode, Swept};
use crate::sessions::tally::Tally;
use crate::setup;
use crate::units::HumanDuration;

impl Keeper<'_> {
    /// Expires the old sessions of a database, and gives up after `limit`. What was done is in the tally, also when it
    /// fails on the way.
    ///
    /// # Errors
    /// Those of [`journey::expire`], [`Kind::Config`] when it has no rules, and [`Kind::Timeout`].
    pub async fn expire(
        &self,
        database: &DatabaseConfig,
        limit: Option<Duration>,
    ) -> (Tally, Result<Swept, Failure>) {
        let started_at = Timestamp::now();
        let mut tally = Tally::new(&database.sessions);
        let work = self.sweep(database, &mut tally);
        let swept = match limit {
            None => work.await,
            // A storage that never answers when it is asked for a backup must not hold the job's place for ever.
            Some(limit) => tokio::time::timeout(limit, work)
                .await
                .unwrap_or_else(|_| Err(took_longer(limit))),
        };
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

fn took_longer(limit: Duration) -> Failure {
    let took = HumanDuration(limit);
    Failure::new(Kind::Timeout, format!("it took longer than {took}"))
        .hint("raise the database's `timeout`")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::TcpListener;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::config::{Config, Environment};
    use crate::server::configured::judge_url;

    #[tokio::test]
    async fn what_hangs_is_given_up_and_recorded_as_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        // It takes connections and never says anything.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let text = format!(
            "[daemon]\nstate_dir = {:?}\n[storage.disk]\nkind = \"local\"\npath = {:?}\n\
             [[database]]\nname = \"web\"\nurl = \"redis://{}\"\n\
             [[database.sessions]]\nstore = \"django\"\ntimeout = \"1d\"\n",
            folder.path().join("state"),
            folder.path().join("archive"),
            silent.local_addr().unwrap(),
        );
        let environment = Environment::in_folder(folder.path()).with("HOME", "/nowhere");
        let config = Config::parse("/c.toml".as_ref(), &text, &environment, &judge_url).unwrap();
        let keeper = Keeper::new(&config, CancellationToken::new());
        let limit = Duration::from_millis(100);
        let (_, swept) = keeper.expire(&config.databases[0], Some(limit)).await;
        assert_eq!(swept.unwrap_err().kind, Kind::Timeout);
        let record = keeper.ledger().read("web", Task::Sessions);
        let error = record.attempt.unwrap().error.unwrap();
        assert_eq!(error.message, "cannot expire sessions of web");
        assert_eq!(error.causes, ["it took longer than 100ms"]);
    }
}
