//! Verifying as it is configured: the newest backup of a database, in each of its storages.

use jiff::Timestamp;

use super::Keeper;
use crate::catalog::Selector;
use crate::catalog::selector::Finder;
use crate::config::DatabaseConfig;
use crate::failure::{Failure, Kind};
use crate::meter::Meter;
use crate::setup::{self, Overrides};
use crate::verify::{Verified, verify};

impl Keeper<'_> {
    /// Verifies the newest backup of a database in each of its storages. All are tried; the first failure is told,
    /// that of a damaged backup before others.
    ///
    /// # Errors
    /// [`Kind::Damaged`] when one is damaged; [`Kind::NotFound`] when a storage has none.
    pub async fn verify(&self, database: &DatabaseConfig) -> Result<Vec<Verified>, Failure> {
        let started_at = Timestamp::now();
        let verified = self.verify_newest(database).await;
        // Where there is no backup there is nothing to find out; that there is none is told already.
        if !matches!(&verified, Err(failure) if failure.kind == Kind::NotFound) {
            let stored_only = verified
                .as_ref()
                .is_ok_and(|all| all.iter().any(|one| one.content.is_none()));
            self.record_verified(database, started_at, verified.as_ref().err(), stored_only);
        }
        verified
    }

    async fn verify_newest(&self, database: &DatabaseConfig) -> Result<Vec<Verified>, Failure> {
        let name = database.name.to_string();
        let about = |failure: Failure| failure.context(format!("cannot verify {name}"));
        let job = setup::job(self.config, database, &Overrides::default(), &self.cancel);
        let mut done = Vec::new();
        let mut worst: Option<Failure> = None;
        for storage in job.map_err(about)?.storages {
            let finder = Finder {
                storages: std::slice::from_ref(&storage),
                databases: std::slice::from_ref(&name),
            };
            let newest = Selector::Newest(name.clone());
            let keys = setup::keys(self.config, Some(&name));
            let work = async { verify(finder.find(&newest).await?, &keys, Meter::default()).await };
            let verified = tokio::select! {
                verified = work => verified,
                () = self.cancel.cancelled() => {
                    return Err(about(Failure::interrupted()));
                }
            };
            match verified {
                Ok(verified) => done.push(verified),
                Err(failure)
                    if worst
                        .as_ref()
                        .is_none_or(|worst| worst.kind != Kind::Damaged) =>
                {
                    let how = match failure.kind {
                        Kind::Damaged => "is damaged",
                        _ => "cannot be verified",
                    };
                    worst = Some(failure.context(format!(
                        "the newest backup of {name} in storage {} {how}",
                        storage.name
                    )));
                }
                Err(_) => {}
            }
        }
        match worst {
            Some(failure) => Err(failure),
            None => Ok(done),
        }
    }
}
