//! What is unhealthy besides the judge's reasons.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::*;
use crate::config::{Config, Environment};
use crate::daemon::board::Board;
use crate::health::{DatabaseState, Held, StorageState};
use crate::server::configured::judge_url;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// `web` is backed up by a schedule into two storages, `other` by hand into one.
fn board() -> Board {
    let text = "[daemon]\nstate_dir = \"/s\"\nspool_dir = \"/s\"\n[storage.disk]\nkind = \"local\"\npath = \"/a\"\n\
        [storage.offsite]\nkind = \"local\"\npath = \"/b\"\n\
        [[database]]\nname = \"web\"\nurl = \"redis://h\"\nstorage = [\"disk\", \"offsite\"]\nschedule = \"0 * * * *\"\n\
        [[database]]\nname = \"other\"\nurl = \"redis://h\"\nstorage = [\"disk\"]\n";
    let environment = Environment::of_process();
    let config = Config::parse("/c.toml".as_ref(), text, &environment, &judge_url).unwrap();
    Board::new(Arc::new(config), at(0))
}

/// A picture in which these databases and storages were looked at, and none of them is scheduled.
fn picture(databases: &[(&str, &[&str])]) -> Picture {
    let storage = |name: &&str| StorageState {
        name: (*name).to_owned(),
        held: Ok(Held::default()),
    };
    let state = |(name, storages): &(&str, &[&str])| DatabaseState {
        name: (*name).to_owned(),
        schedules: BTreeMap::new(),
        jitter: Duration::ZERO,
        timeout: Duration::from_secs(3600),
        storages: storages.iter().map(storage).collect(),
        records: BTreeMap::new(),
    };
    Picture {
        taken_at: at(10),
        zone: TimeZone::UTC,
        databases: databases.iter().map(state).collect(),
    }
}

#[test]
fn what_was_configured_after_the_last_look_is_not_healthy() {
    let seen = board().read();
    let all: &[(&str, &[&str])] = &[("web", &["disk", "offsite"]), ("other", &["disk"])];
    assert!(Health::of(&seen, Some(&picture(all)), at(20)).healthy);
    let half: &[(&str, &[&str])] = &[("web", &["disk"]), ("other", &["disk"])];
    for (looked_at, missing) in [(&all[1..], &["disk", "offsite"][..]), (half, &["offsite"])] {
        let health = Health::of(&seen, Some(&picture(looked_at)), at(20));
        assert!(!health.healthy, "{missing:?}");
        let found: Vec<_> = health
            .reasons
            .iter()
            .map(|reason| {
                assert_eq!(reason.what, What::NotLookedAt);
                reason.storage.as_deref().unwrap()
            })
            .collect();
        assert_eq!(found, missing);
    }
    // Nobody counts on one that is backed up by hand.
    let health = Health::of(&seen, Some(&picture(&all[..1])), at(20));
    assert!(health.healthy);
    assert_eq!(health.reasons.len(), 1);
}

#[test]
fn a_daemon_that_will_not_make_what_it_should_is_not_healthy() {
    let all: &[(&str, &[&str])] = &[("web", &["disk", "offsite"]), ("other", &["disk"])];
    for (trouble, healthy) in [
        (Trouble::Scheduler, false),
        (Trouble::Reload, false),
        (Trouble::Idle, false),
        (Trouble::State, true),
        (Trouble::Pruning, true),
        (Trouble::Restart, true),
    ] {
        let board = board();
        board.trouble(trouble, at(5), "as a test wants it".to_owned());
        let health = Health::of(&board.read(), Some(&picture(all)), at(20));
        assert_eq!(health.healthy, healthy, "{trouble:?}");
        assert_eq!(health.troubles.len(), 1);
    }
}
