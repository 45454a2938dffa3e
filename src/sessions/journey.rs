//! Expiring the sessions of one configured database: what must hold before, and then the sweep.

use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::sweep::{self, Swept};
use super::tally::Tally;
use crate::catalog::list::list;
use crate::catalog::lock::{HostLock, Work};
use crate::failure::{Failure, Kind};
use crate::storage::NamedStore;
use crate::units::HumanDuration;

/// How far ahead of ours the clock may be that a backup's time was read from.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_mins(5);

/// What must hold before sessions are expired.
#[derive(Clone, Debug)]
pub struct Conditions {
    /// The folder of host locks.
    pub state_dir: PathBuf,
    /// The storages that have the database's backups.
    pub storages: Vec<NamedStore>,
    /// How old the newest backup may be; zero: it is not asked.
    pub require_backup: Duration,
}

/// Expires sessions, when the conditions hold. What was done is in `tally`, also when it fails on the way.
///
/// # Errors
/// [`Kind::Busy`] when another process expires sessions of this database; [`Kind::Refused`] when there is no
/// backup that is fresh enough; and those of the [sweep].
pub async fn expire(
    job: sweep::Job,
    conditions: &Conditions,
    tally: &mut Tally,
) -> Result<Swept, Failure> {
    let _lock = HostLock::take(&conditions.state_dir, &job.name, Work::Sessions)?;
    ask_for_backup(&job.name, conditions).await?;
    Ok(sweep::sweep(job, tally).await?)
}

/// Asks for a backup that is fresh enough, where one is required. The newest counts, in whichever storage it is: one
/// that is shrunk, too, for expiring sessions shrinks. One from the future was made with a wrong clock, and does not.
///
/// # Errors
/// [`Kind::Refused`], and those of the storages.
pub async fn ask_for_backup(database: &str, conditions: &Conditions) -> Result<(), Failure> {
    if conditions.require_backup.is_zero() {
        return Ok(());
    }
    let listing = list(&conditions.storages, Some(database)).await?;
    let now = Timestamp::now();
    let taken = listing
        .backups
        .iter()
        .filter(|backup| !backup.damaged)
        .map(|backup| now.duration_since(backup.manifest.snapshot_at))
        .filter(|age| *age > -CLOCKS_DIFFER);
    let why = match taken.min() {
        None => "there is no backup of it".to_owned(),
        Some(age) => {
            let age = Duration::try_from(age).unwrap_or_default();
            if age <= conditions.require_backup {
                return Ok(());
            }
            format!("the newest one is {} old", HumanDuration(age))
        }
    };
    let wanted = HumanDuration(conditions.require_backup);
    let mut failure = Failure::new(
        Kind::Refused,
        format!("sessions are not expired without a backup that is younger than {wanted}"),
    )
    .cause(why);
    for (storage, _) in &listing.silent {
        failure = failure.cause(format!("storage {storage} could not be asked"));
    }
    Err(failure.hint(format!(
        "run `rdbkeeper backup now {database}` first, or change `require_backup`"
    )))
}
