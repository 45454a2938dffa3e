//! Pruning as it is configured: when a person asks for it, and after each backup.

use jiff::Timestamp;

use super::backup::everywhere;
use super::{Keeper, Task};
use crate::backup::Outcome;
use crate::config::DatabaseConfig;
use crate::failure::{Failure, Kind};
use crate::prune::{Mode, Pruned, prune, prune_within};
use crate::setup;
use crate::storage::NamedStore;

impl Keeper<'_> {
    /// Prunes a database in its storages, or in one storage alone, whether it is one of its own or not.
    ///
    /// # Errors
    /// [`Kind::Config`] when a storage is not configured. What goes wrong in a storage is in its [`Pruned`].
    pub async fn prune(
        &self,
        database: &DatabaseConfig,
        storage: Option<&str>,
        mode: Mode,
    ) -> Result<Vec<Pruned>, Failure> {
        let storages = match storage {
            Some(name) => setup::stores(self.config, Some(name))?,
            None => setup::storages_of(self.config, database)?,
        };
        let job = setup::prune(self.config, database, storages, &self.cancel, &self.gate);
        Ok(prune(&job, mode, Timestamp::now()).await)
    }

    /// Prunes where a new backup was committed, while its lock is held. What goes wrong is told, and stays a warning:
    /// the backup was made.
    pub(super) async fn prune_after(&self, outcome: &mut Outcome) {
        let Ok(database) = self.config.database(&outcome.name) else {
            return;
        };
        if outcome.kept_in.is_empty() {
            return;
        }
        if let Some(why) = self.gate.closed() {
            tracing::info!(
                database = outcome.name,
                "not pruned: {why}; the next backup prunes"
            );
            return;
        }
        let storages = match setup::stores(self.config, None) {
            Ok(storages) => storages,
            Err(_) => return,
        };
        let mut whole = everywhere(database, outcome.kept_in.iter().map(String::as_str));
        let has_it = |storage: &NamedStore| outcome.kept_in.contains(&storage.name);
        let storages = storages.into_iter().filter(has_it).collect();
        // A storage that hangs must not keep the database's lock for ever.
        let job = setup::prune(self.config, database, storages, &self.cancel, &self.gate);
        let all = prune_within(&job, Mode::Remove, Timestamp::now(), database.timeout).await;
        let mut failed = Vec::new();
        for pruned in all {
            if pruned.report.guard.is_some() {
                tracing::info!(
                    database = outcome.name,
                    "nothing is pruned in storage {}: the newest backup is shrunk",
                    pruned.storage
                );
            }
            let Some(failure) = pruned.failure else {
                continue;
            };
            match failure.kind {
                // Whoever is at it does it.
                Kind::Busy | Kind::Interrupted | Kind::Terminated => {
                    whole = false;
                    tracing::info!(
                        database = outcome.name,
                        "{failure}: {}",
                        failure.causes.join(": ")
                    );
                }
                _ => {
                    let told = [&[failure.message][..], &failure.causes]
                        .concat()
                        .join(": ");
                    tracing::error!(database = outcome.name, "{told}");
                    failed.push(told.replace('\n', " "));
                    if let Ok(made) = &mut outcome.result {
                        made.warnings.push(told);
                    }
                }
            }
        }
        self.record_prune(&outcome.name, &failed, whole);
    }

    /// Records that old backups could not be removed, or, once they were everywhere, that they could.
    fn record_prune(&self, name: &str, failed: &[String], whole: bool) {
        let old = self.ledger.read(name, Task::Backup);
        let told = match failed {
            [] if !whole => return,
            [] => None,
            failed => Some(failed.join("; ")),
        };
        let record = old.clone().after_prune(told, Timestamp::now());
        if record != old {
            self.write_record(name, Task::Backup, &record);
        }
    }
}
