//! Which keys go where, under which name, and when they expire there. Pure: it takes what is known and returns a decision.

use std::collections::BTreeMap;

use super::Error;
use crate::rdb::{DbIndex, KeyHead, StringRef};
use crate::selection::Filters;

/// 2009-01-01: Redis, and so RDB files, are of that year. Unix time in milliseconds.
const FIRST_SNAPSHOT_MS: i64 = 1_230_768_000_000;

const DAY_MS: i64 = 86_400_000;

/// What becomes of expiries: `--ttl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// The absolute time stands; what is over by the target's clock is left out.
    Keep,
    /// What was left when the backup was taken counts from the beginning of the restore.
    Shift {
        /// The beginning of the restore by the target's clock, Unix time in milliseconds.
        begin_ms: i64,
    },
    /// No key expires.
    Strip,
}

/// A prefix that becomes another: `--rename-prefix`.
#[derive(Clone, PartialEq, Eq)]
pub struct Rename {
    /// What the name begins with in the backup. Empty: every name.
    pub from: Vec<u8>,
    /// What it begins with on the target.
    pub to: Vec<u8>,
}

impl std::fmt::Debug for Rename {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.from.escape_ascii(), self.to.escape_ascii())
    }
}

/// Which keys go where.
#[derive(Clone, Debug)]
pub struct Route {
    /// Which keys are meant.
    pub filters: Filters,
    /// Databases that become others; the rest keep their number.
    pub map: BTreeMap<DbIndex, DbIndex>,
    /// Prefixes that become others; the first that fits counts.
    pub rename: Vec<Rename>,
    /// What becomes of expiries.
    pub expiry: Expiry,
    /// When the backup was taken, Unix time in milliseconds. See [`Route::learn`].
    pub snapshot_ms: Option<i64>,
}

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is not meant.
    LeftOut,
    /// It is over.
    Expired,
    /// It is written.
    Written {
        /// Where to.
        db: DbIndex,
        /// When it expires there, Unix time in milliseconds.
        expire_at_ms: Option<i64>,
    },
}

impl Default for Route {
    fn default() -> Route {
        Route {
            filters: Filters::default(),
            map: BTreeMap::new(),
            rename: Vec::new(),
            expiry: Expiry::Keep,
            snapshot_ms: None,
        }
    }
}

impl Route {
    /// Whether everything arrives as it was dumped.
    pub fn is_identity(&self) -> bool {
        self.filters.is_all()
            && self.map.iter().all(|(from, to)| from == to)
            && self.rename.iter().all(|rename| rename.from == rename.to)
            && self.expiry == Expiry::Keep
    }

    /// Where keys of this database go.
    pub fn database(&self, db: DbIndex) -> DbIndex {
        self.map.get(&db).copied().unwrap_or(db)
    }

    /// Takes the time of the snapshot from the file's `ctime` field, where it is not known better.
    pub fn learn(&mut self, key: &StringRef<'_>, value: &StringRef<'_>) {
        if self.snapshot_ms.is_some() || key.plain() != Some(b"ctime") {
            return;
        }
        let seconds = value
            .decode()
            .ok()
            .and_then(|text| std::str::from_utf8(&text).ok()?.parse::<i64>().ok());
        self.snapshot_ms = seconds.and_then(|seconds| seconds.checked_mul(1000));
    }

    /// Whether the time of the snapshot can be one, when expiries are counted from it: not before there was an RDB file,
    /// and no more than a day after `now_ms`, Unix time in milliseconds.
    ///
    /// # Errors
    /// [`Error::AbsurdSnapshotTime`].
    pub fn check_snapshot(&self, now_ms: i64) -> Result<(), Error> {
        let (Expiry::Shift { .. }, Some(said)) = (self.expiry, self.snapshot_ms) else {
            return Ok(());
        };
        if (FIRST_SNAPSHOT_MS..=now_ms.saturating_add(DAY_MS)).contains(&said) {
            return Ok(());
        }
        let said = match jiff::Timestamp::from_millisecond(said) {
            Ok(time) => time.to_string(),
            Err(_) => format!("{said} ms from 1970"),
        };
        Err(Error::AbsurdSnapshotTime { said })
    }

    /// What becomes of a key. `now_ms` is the target's clock; `None` where there is none (a file): nothing is over there.
    ///
    /// # Errors
    /// [`Error::NoSnapshotTime`] when expiries are to be shifted and nobody said from when.
    pub fn fate(&self, head: &KeyHead<'_>, key: &[u8], now_ms: Option<i64>) -> Result<Fate, Error> {
        if !self.filters.takes_but_for_name(head) || !self.filters.takes_name(key) {
            return Ok(Fate::LeftOut);
        }
        let written = |expire_at_ms| Fate::Written {
            db: self.database(head.db),
            expire_at_ms,
        };
        let Some(at) = head.expire_at_ms else {
            return Ok(written(None));
        };
        Ok(match self.expiry {
            Expiry::Keep if now_ms.is_some_and(|now| at <= now) => Fate::Expired,
            Expiry::Keep => written(Some(at)),
            Expiry::Shift { begin_ms } => {
                let snapshot = self.snapshot_ms.ok_or(Error::NoSnapshotTime)?;
                let left = at.saturating_sub(snapshot);
                let until = begin_ms.saturating_add(left);
                // Also what has ended since the restore began: the server would not keep it, and yet say that it did.
                if left <= 0 || now_ms.is_some_and(|now| until <= now) {
                    Fate::Expired
                } else {
                    written(Some(until))
                }
            }
            // What was over when the backup was taken was gone for everybody: it does not come back for ever.
            Expiry::Strip if self.snapshot_ms.is_some_and(|snapshot| at <= snapshot) => {
                Fate::Expired
            }
            Expiry::Strip => written(None),
        })
    }

    /// The key's name on the target, put into `name`.
    pub fn name(&self, key: &[u8], name: &mut Vec<u8>) {
        name.clear();
        for rename in &self.rename {
            if let Some(rest) = key.strip_prefix(rename.from.as_slice()) {
                name.extend_from_slice(&rename.to);
                name.extend_from_slice(rest);
                return;
            }
        }
        name.extend_from_slice(key);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::rdb::{Family, ValueType};

    fn fate(
        route: &Route,
        db: u32,
        key: &[u8],
        expire_at_ms: Option<i64>,
        now: Option<i64>,
    ) -> Fate {
        let raw = [&[key.len() as u8], key].concat();
        let head = KeyHead {
            db: DbIndex(db),
            value_type: ValueType::new(0, Family::Redis).unwrap(),
            key: StringRef::parse(&raw).unwrap().unwrap(),
            expire_at_ms,
            idle_s: None,
            freq: None,
            meta: &[],
            raw: &[],
        };
        route.fate(&head, key, now).unwrap()
    }

    fn to(db: u32, expire_at_ms: Option<i64>) -> Fate {
        Fate::Written {
            db: DbIndex(db),
            expire_at_ms,
        }
    }

    #[test]
    fn keep_leaves_out_what_is_over_by_the_targets_clock() {
        let route = Route::default();
        assert_eq!(fate(&route, 0, b"k", None, Some(1000)), to(0, None));
        assert_eq!(
            fate(&route, 0, b"k", Some(1001), Some(1000)),
            to(0, Some(1001))
        );
        assert_eq!(fate(&route, 0, b"k", Some(1000), Some(1000)), Fate::Expired);
        assert_eq!(fate(&route, 0, b"k", Some(-5), Some(1000)), Fate::Expired);
        assert_eq!(fate(&route, 0, b"k", Some(5), None), to(0, Some(5)));
    }

    #[test]
    fn shift_counts_what_was_left_from_now() {
        let mut route = Route {
            expiry: Expiry::Shift { begin_ms: 9000 },
            ..Route::default()
        };
        let raw = b"\x05ctime\x012";
        let key = StringRef::parse(raw).unwrap().unwrap();
        let value = StringRef::parse(&raw[6..]).unwrap().unwrap();
        route.learn(&key, &value);
        assert_eq!(route.snapshot_ms, Some(2000));
        assert_eq!(
            fate(&route, 0, b"k", Some(2500), Some(9000)),
            to(0, Some(9500))
        );
        assert_eq!(fate(&route, 0, b"k", Some(2000), Some(9000)), Fate::Expired);
        assert_eq!(fate(&route, 0, b"k", None, Some(9000)), to(0, None));
    }

    #[test]
    fn shift_leaves_out_what_ends_while_the_restore_runs() {
        let route = Route {
            expiry: Expiry::Shift { begin_ms: 9000 },
            snapshot_ms: Some(2000),
            ..Route::default()
        };
        assert_eq!(
            fate(&route, 0, b"k", Some(2500), Some(9499)),
            to(0, Some(9500))
        );
        assert_eq!(fate(&route, 0, b"k", Some(2500), Some(9500)), Fate::Expired);
    }

    #[test]
    fn absurd_times_are_refused_and_overflow_nothing() {
        const EXTREMES: [i64; 6] = [i64::MIN, -1, 0, 1, i64::MAX - 1, i64::MAX];
        for snapshot in EXTREMES {
            for begin_ms in EXTREMES {
                for at in EXTREMES {
                    let route = Route {
                        expiry: Expiry::Shift { begin_ms },
                        snapshot_ms: Some(snapshot),
                        ..Route::default()
                    };
                    fate(&route, 0, b"k", Some(at), Some(begin_ms));
                    fate(&route, 0, b"k", Some(at), None);
                    let keep = Route {
                        expiry: Expiry::Keep,
                        ..route.clone()
                    };
                    assert!(keep.check_snapshot(begin_ms).is_ok());
                }
            }
        }
        let now = 1_800_000_000_000;
        let check = |snapshot| {
            let route = Route {
                expiry: Expiry::Shift { begin_ms: now },
                snapshot_ms: Some(snapshot),
                ..Route::default()
            };
            route.check_snapshot(now).is_ok()
        };
        for absurd in EXTREMES {
            assert!(!check(absurd), "{absurd}");
        }
        assert!(!check(FIRST_SNAPSHOT_MS - 1) && check(FIRST_SNAPSHOT_MS));
        assert!(check(now + DAY_MS) && !check(now + DAY_MS + 1));
    }

    #[test]
    fn strip_does_not_revive_what_was_over_in_the_snapshot() {
        let route = Route {
            expiry: Expiry::Strip,
            snapshot_ms: Some(2000),
            ..Route::default()
        };
        assert_eq!(fate(&route, 0, b"k", Some(2001), Some(9000)), to(0, None));
        assert_eq!(fate(&route, 0, b"k", Some(1999), Some(9000)), Fate::Expired);
    }

    #[test]
    fn databases_are_mapped_after_they_are_filtered_and_prefixes_once() {
        let route = Route {
            filters: Filters {
                databases: [DbIndex(1)].into(),
                ..Filters::default()
            },
            map: [(DbIndex(1), DbIndex(5)), (DbIndex(5), DbIndex(6))].into(),
            rename: vec![
                Rename {
                    from: b"a".to_vec(),
                    to: b"b".to_vec(),
                },
                Rename {
                    from: b"b".to_vec(),
                    to: b"c".to_vec(),
                },
            ],
            ..Route::default()
        };
        assert_eq!(fate(&route, 1, b"k", None, None), to(5, None));
        assert_eq!(fate(&route, 5, b"k", None, None), Fate::LeftOut);
        let mut name = Vec::new();
        route.name(b"ax", &mut name);
        assert_eq!(name, b"bx");
        route.name(b"xa", &mut name);
        assert_eq!(name, b"xa");
        assert!(!route.is_identity() && Route::default().is_identity());
    }
}
