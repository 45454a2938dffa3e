//! What is to be told after a run: a pure function of the record before it and of how it went.
//!
//! A failure is told when a job first fails, when it fails for another kind of reason, and once a day while it lasts;
//! recovery once; shrunk backups at first and once a day, until one is not. The traps: a job that fails now for this reason and now for
//! that one must not tell at every run, so each kind has its own day; and a clock that is put back must not
//! silence anything, so a day in either direction counts.

use jiff::{SignedDuration, Timestamp};

use super::ledger::{Attempt, Record};

/// After this long the same failure is told again. A little less than a day, so that a job that is due once a day is
/// told of every day, although it begins some seconds sooner or later.
pub const REMINDER: SignedDuration = SignedDuration::from_secs(24 * 3600 - 120);

/// Something that is to be told, if somebody asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The run failed.
    Failure {
        /// When the first run ended of those that have failed.
        since: Timestamp,
        /// Why it is told.
        why: Why,
    },
    /// The run succeeded, and the one before had failed.
    Recovery {
        /// When the first run ended of those that had failed.
        since: Timestamp,
    },
    /// The backup has far fewer keys than the last good one; and the backup before had not, or it goes on for a day.
    Shrink,
    /// The run succeeded.
    Success,
}

/// Why a failure is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The run before had not failed.
    First,
    /// It had not failed for this kind of reason.
    OtherKind,
    /// It goes on.
    Reminder,
}

impl Why {
    /// The word in a notice.
    pub fn as_str(self) -> &'static str {
        match self {
            Why::First => "first",
            Why::OtherKind => "other-kind",
            Why::Reminder => "reminder",
        }
    }
}

/// The record after a run, and what is to be told. `shrunk` is known of backups that were made.
pub fn settle(old: Record, attempt: Attempt, shrunk: Option<bool>) -> (Record, Vec<News>) {
    let was_failing = old.failing_since;
    let shrink_told = old.shrink_told;
    let kind = attempt.error.as_ref().map(|error| error.kind.clone());
    let (began, ended) = (attempt.started_at, attempt.finished_at);
    let mut record = old.after(attempt);
    let mut news = Vec::new();
    match kind {
        Some(kind) => {
            let since = record.failing_since.unwrap_or(ended);
            let why = match record.told.get(&kind) {
                _ if was_failing.is_none() => Some(Why::First),
                None => Some(Why::OtherKind),
                Some(told) if began.duration_since(*told).abs() >= REMINDER => Some(Why::Reminder),
                Some(_) => None,
            };
            if let Some(why) = why {
                record.told.insert(kind, began);
                news.push(News::Failure { since, why });
            }
        }
        None => {
            if let Some(since) = was_failing {
                news.push(News::Recovery { since });
            }
            if let Some(shrunk) = shrunk {
                record.shrunk = shrunk;
                record.shrink_told = shrink_told.filter(|_| shrunk);
                let told = record.shrink_told;
                if shrunk && told.is_none_or(|told| began.duration_since(told).abs() >= REMINDER) {
                    record.shrink_told = Some(began);
                    news.push(News::Shrink);
                }
            }
            news.push(News::Success);
        }
    }
    (record, news)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::failure::{Failure, Kind};

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + minute * 60).unwrap()
    }

    fn run(minute: i64, failure: Option<Kind>) -> Attempt {
        let failure = failure.map(|kind| Failure::new(kind, "cannot back up sessions"));
        Attempt::new(at(minute), at(minute), failure.as_ref())
    }

    /// What is told of runs, each with its minute, how it failed, and whether it is shrunk.
    fn told(runs: &[(i64, Option<Kind>, bool)]) -> Vec<(i64, News)> {
        let mut record = Record::default();
        let mut all = Vec::new();
        for (minute, failure, shrunk) in runs {
            let shrunk = failure.is_none().then_some(*shrunk);
            let (after, news) = settle(record, run(*minute, *failure), shrunk);
            // A restart of the daemon repeats nothing: what is known is what is written.
            record = serde_json::from_slice(&serde_json::to_vec(&after).unwrap()).unwrap();
            assert_eq!(record, after);
            let news = news.into_iter().filter(|news| *news != News::Success);
            all.extend(news.map(|news| (*minute, news)));
        }
        all
    }

    fn failure(since: i64, why: Why) -> News {
        let since = at(since);
        News::Failure { since, why }
    }

    const DAY: i64 = 24 * 60;
    const DOWN: Option<Kind> = Some(Kind::Unreachable);
    const FULL: Option<Kind> = Some(Kind::Storage);

    #[test]
    fn a_failure_is_told_first_then_daily_and_recovery_once() {
        let mut runs: Vec<_> = (0..DAY / 5).map(|n| (n * 5, DOWN, false)).collect();
        assert_eq!(told(&runs), [(0, failure(0, Why::First))]);
        runs.extend((DAY / 5..DAY / 5 + 10).map(|n| (n * 5, DOWN, false)));
        runs.extend([(3000, None, false), (3005, None, false)]);
        assert_eq!(
            told(&runs),
            [
                (0, failure(0, Why::First)),
                (DAY, failure(0, Why::Reminder)),
                (3000, News::Recovery { since: at(0) }),
            ]
        );
    }

    #[test]
    fn a_daily_job_that_begins_a_little_sooner_is_told_of_every_day() {
        let runs = [(10, DOWN, false), (DAY + 9, DOWN, false)];
        assert_eq!(told(&runs).len(), 2);
    }

    #[test]
    fn another_kind_of_failure_is_told_and_two_that_alternate_are_told_once_each() {
        let runs: Vec<_> = (0..100)
            .map(|n| (n * 5, if n % 2 == 0 { DOWN } else { FULL }, false))
            .collect();
        assert_eq!(
            told(&runs),
            [(0, failure(0, Why::First)), (5, failure(0, Why::OtherKind))]
        );
    }

    #[test]
    fn each_episode_is_told_anew() {
        let runs = [
            (0, DOWN, false),
            (5, None, false),
            (10, DOWN, false),
            (15, None, false),
        ];
        assert_eq!(
            told(&runs),
            [
                (0, failure(0, Why::First)),
                (5, News::Recovery { since: at(0) }),
                (10, failure(10, Why::First)),
                (15, News::Recovery { since: at(10) }),
            ]
        );
    }

    #[test]
    fn a_shrunk_backup_is_told_once_a_day_until_one_is_not() {
        let runs = [
            (0, None, false),
            (5, None, true),
            (10, None, true),
            // A failure between two shrunk backups does not end the episode.
            (15, DOWN, false),
            (20, None, true),
            (25, None, false),
            (30, None, true),
            (DAY, None, true),
            (DAY + 29, None, true),
            (DAY + 60, None, true),
            (2 * DAY + 60, None, false),
        ];
        assert_eq!(
            told(&runs),
            [
                (5, News::Shrink),
                (15, failure(15, Why::First)),
                (20, News::Recovery { since: at(15) }),
                (30, News::Shrink),
                (DAY + 29, News::Shrink),
            ]
        );
    }

    #[test]
    fn a_clock_that_is_put_back_by_days_silences_nothing() {
        let runs = [
            (100 * DAY, DOWN, false),
            (5, DOWN, false),
            (10, DOWN, false),
        ];
        let told = told(&runs);
        assert_eq!(told.len(), 2, "{told:?}");
    }

    #[test]
    fn a_record_of_before_there_was_anything_to_tell_is_read() {
        let old = r#"{"attempt":null,"succeeded_at":null,"failing_since":"2026-11-22T00:00:00Z"}"#;
        let record: Record = serde_json::from_str(old).unwrap();
        let (_, news) = settle(record, run(0, DOWN), None);
        assert!(matches!(
            news[..],
            [News::Failure {
                why: Why::OtherKind,
                ..
            }]
        ));
    }

    proptest! {
        #[test]
        fn failures_and_recoveries_take_turns_and_no_kind_is_told_twice_a_day(
            runs in proptest::collection::vec((1i64..60, 0usize..4), 0..400)
        ) {
            let mut minute = 0;
            let runs: Vec<_> = runs
                .into_iter()
                .map(|(pause, how)| {
                    minute += pause;
                    (minute, [None, DOWN, FULL, Some(Kind::Timeout)][how], false)
                })
                .collect();
            let news = told(&runs);
            let mut failing = false;
            let mut firsts = 0;
            for (_, news) in &news {
                match news {
                    News::Failure { why: Why::First, .. } => {
                        prop_assert!(!failing);
                        failing = true;
                        firsts += 1;
                    }
                    News::Failure { .. } => prop_assert!(failing),
                    News::Recovery { .. } => {
                        prop_assert!(failing);
                        failing = false;
                    }
                    News::Shrink | News::Success => prop_assert!(false),
                }
            }
            let episodes = runs
                .iter()
                .scan(false, |before, (_, failure, _)| {
                    let begins = failure.is_some() && !*before;
                    *before = failure.is_some();
                    Some(usize::from(begins))
                })
                .sum::<usize>();
            prop_assert_eq!(firsts, episodes);
        }
    }
}
