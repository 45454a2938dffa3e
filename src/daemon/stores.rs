//! When the newest backup of a database was begun: what the stores say at start, for the catch-up.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::agenda::{Known, SET_BACK};
use crate::catalog::list::list;
use crate::config::Config;
use crate::setup;

/// A storage that has not answered by then is silent.
const PATIENCE: Duration = Duration::from_secs(30);

/// When the newest backup of a database was begun that each of its storages has, as far as they answer.
pub(super) async fn newest(config: Arc<Config>, database: String, now: Timestamp) -> Known {
    let Ok(configured) = config.database(&database) else {
        return Known::default();
    };
    let mut known = Known {
        newest: None,
        all_answered: true,
    };
    let mut missing = false;
    for name in &configured.storage {
        let listed = match setup::stores(&config, Some(name.as_str())) {
            Ok(store) => tokio::time::timeout(PATIENCE, list(&store, Some(&database))).await,
            Err(failure) => {
                tracing::warn!(database, "{failure}");
                known.all_answered = false;
                continue;
            }
        };
        let Ok(Ok(listing)) = listed else {
            tracing::warn!(
                database,
                "storage {name} does not say which backups it has: they do not count for what was missed"
            );
            known.all_answered = false;
            continue;
        };
        let begun = listing
            .backups
            .iter()
            .map(|backup| backup.manifest.started_at);
        let begun = begun.filter(|begun| begun.duration_since(now) <= SET_BACK);
        match begun.max() {
            Some(here) => known.newest = Some(known.newest.map_or(here, |n| n.min(here))),
            None => missing = true,
        }
    }
    // Every one of its storages must have a backup.
    if missing {
        known.newest = None;
    }
    known
}
