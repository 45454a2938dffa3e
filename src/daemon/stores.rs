//! When the newest backup of a database was begun: what the stores say at start, for the catch-up.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::agenda::SET_BACK;
use crate::catalog::list::list;
use crate::config::Config;
use crate::setup;

/// A storage that has not answered by then is silent.
const PATIENCE: Duration = Duration::from_secs(30);

/// When the newest backup of a database was begun that each of its storages has, as far as they answer. `None`:
/// there is none, or no storage answers.
pub(super) async fn newest(
    config: Arc<Config>,
    database: String,
    now: Timestamp,
) -> Option<Timestamp> {
    let configured = config.database(&database).ok()?;
    let mut newest: Option<Timestamp> = None;
    for name in &configured.storage {
        let store = setup::stores(&config, Some(name.as_str())).ok()?;
        let listed = tokio::time::timeout(PATIENCE, list(&store, Some(&database))).await;
        let Ok(Ok(listing)) = listed else {
            tracing::warn!(
                database,
                "storage {name} does not say which backups it has: they do not count for what was missed"
            );
            continue;
        };
        let begun = listing
            .backups
            .iter()
            .map(|backup| backup.manifest.started_at);
        let begun = begun.filter(|begun| begun.duration_since(now) <= SET_BACK);
        // Every one of its storages must have a backup.
        let here = begun.max()?;
        newest = Some(newest.map_or(here, |newest| newest.min(here)));
    }
    newest
}
