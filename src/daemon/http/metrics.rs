//! Metrics in the text format of OpenMetrics, made anew for each scrape from the board and the last picture.
//!
//! The traps: a counter's `_total` and an info's `_info` are added by the encoder, so they are no part of the names
//! here; and a time that is missing makes an alert on its age silent, so what never happened is 0.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::answers::{Health, up_to_date};
use crate::daemon::agenda::JobId;
use crate::daemon::board::{JobSeen, Seen};
use crate::health::{Brief, DatabaseState, Picture, StorageState};
use crate::runs::Task;

/// `Content-Type` of the answer.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics of this moment.
pub(super) fn text(
    seen: &Seen,
    picture: Option<&Picture>,
    now: Timestamp,
) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    let mut families = Families::default();
    families.fill(seen, picture, now);
    registry.register_collector(Box::new(Arc::new(families)));
    registry.register(
        "rdbkeeper_build",
        "The version of rdbkeeper that runs",
        Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
    );
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

type Labels = Vec<(&'static str, String)>;

#[derive(Debug)]
struct Family {
    help: &'static str,
    kind: MetricType,
    samples: Vec<(Labels, f64)>,
}

/// Every metric with its samples, by name.
#[derive(Debug, Default)]
struct Families(BTreeMap<&'static str, Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, family) in &self.0 {
            let mut metric = encoder.encode_descriptor(name, family.help, None, family.kind)?;
            if let [(labels, value)] = &family.samples[..]
                && labels.is_empty()
            {
                // Without labels there are no braces.
                sample(metric, family.kind, *value)?;
                continue;
            }
            for (labels, value) in &family.samples {
                sample(metric.encode_family(labels)?, family.kind, *value)?;
            }
        }
        Ok(())
    }
}

fn sample(encoder: MetricEncoder<'_>, kind: MetricType, value: f64) -> Result<(), fmt::Error> {
    match kind {
        // Counts are far below 2^53.
        MetricType::Counter => ConstCounter::new(value as u64).encode(encoder),
        _ if value.fract() == 0.0 => ConstGauge::new(value as i64).encode(encoder),
        _ => ConstGauge::new(value).encode(encoder),
    }
}

/// A time as Prometheus has it: seconds since 1970; 0 for never.
fn seconds(time: Option<Timestamp>) -> f64 {
    time.map_or(0.0, |time| time.as_millisecond() as f64 / 1000.0)
}

fn of(database: &str) -> Labels {
    vec![("database", database.to_owned())]
}

fn with(database: &str, more: impl IntoIterator<Item = (&'static str, String)>) -> Labels {
    let mut labels = of(database);
    labels.extend(more);
    labels
}

impl Families {
    fn gauge(&mut self, name: &'static str, help: &'static str, labels: Labels, value: f64) {
        self.add(MetricType::Gauge, name, help, labels, value);
    }

    fn counter(&mut self, name: &'static str, help: &'static str, labels: Labels, value: u64) {
        self.add(MetricType::Counter, name, help, labels, value as f64);
    }

    fn add(
        &mut self,
        kind: MetricType,
        name: &'static str,
        help: &'static str,
        labels: Labels,
        value: f64,
    ) {
        let family = self.0.entry(name).or_insert_with(|| Family {
            help,
            kind,
            samples: Vec::new(),
        });
        family.samples.push((labels, value));
    }

    fn fill(&mut self, seen: &Seen, picture: Option<&Picture>, now: Timestamp) {
        let health = Health::of(seen, picture, now);
        self.gauge(
            "rdbkeeper_healthy",
            "1 while /healthz answers 200",
            Labels::new(),
            f64::from(u8::from(health.healthy)),
        );
        self.gauge(
            "rdbkeeper_start_timestamp_seconds",
            "When the daemon was started",
            Labels::new(),
            seconds(Some(seen.started_at)),
        );
        let picture = picture.map(|picture| up_to_date(picture, seen));
        let states = picture.iter().flat_map(|picture| &picture.databases);
        for state in states {
            self.state(state);
        }
        for (id, job) in &seen.jobs {
            self.job(id, job);
        }
    }

    fn state(&mut self, state: &DatabaseState) {
        let name = state.name.as_str();
        let record = |task| state.records.get(&task);
        let backup = record(Task::Backup);
        let told = backup.and_then(|record| record.succeeded_at);
        let newest = state.newest();
        self.gauge(
            "rdbkeeper_backup_last_success_timestamp_seconds",
            "When the last backup ended that every storage has; 0: never",
            of(name),
            seconds(told.max(everywhere(state))),
        );
        let attempt = backup.and_then(|record| record.attempt.as_ref());
        let attempt = attempt.filter(|attempt| !attempt.overdue);
        let attempt = attempt.map(|attempt| attempt.started_at);
        self.gauge(
            "rdbkeeper_backup_last_attempt_timestamp_seconds",
            "When the last backup was begun; 0: never",
            of(name),
            seconds(attempt.max(newest.map(|newest| newest.started_at))),
        );
        if let Some(newest) = newest {
            self.newest(name, newest);
        }
        let held = state.storages.iter().filter_map(|s| s.held.as_ref().ok());
        if let Some(kept) = held.map(|held| held.kept).max() {
            self.gauge(
                "rdbkeeper_backups_kept",
                "How many backups there are, in the storage that has the most",
                of(name),
                kept as f64,
            );
        }
        for storage in &state.storages {
            if let Ok(held) = &storage.held {
                self.gauge(
                    "rdbkeeper_storage_backups_kept",
                    "How many backups a storage has",
                    with(name, [("storage", storage.name.clone())]),
                    held.kept as f64,
                );
                self.gauge(
                    "rdbkeeper_storage_backups_bytes",
                    "Stored bytes of the backups that a storage has",
                    with(name, [("storage", storage.name.clone())]),
                    held.bytes as f64,
                );
            }
        }
        if state.schedules.contains_key(&Task::Verify) {
            let verified = record(Task::Verify).and_then(|record| record.succeeded_at);
            self.gauge(
                "rdbkeeper_verify_last_success_timestamp_seconds",
                "When the newest backup was last read and found whole; 0: never",
                of(name),
                seconds(verified),
            );
        }
        if state.schedules.contains_key(&Task::Sessions) {
            let swept = record(Task::Sessions).and_then(|record| record.attempt.as_ref());
            self.gauge(
                "rdbkeeper_sessions_last_run_timestamp_seconds",
                "When the last sweep over sessions ended; 0: never",
                of(name),
                seconds(swept.map(|attempt| attempt.finished_at)),
            );
        }
    }

    fn newest(&mut self, name: &str, newest: &Brief) {
        self.gauge(
            "rdbkeeper_backup_last_duration_seconds",
            "How long the newest backup took",
            of(name),
            newest.took().as_secs_f64(),
        );
        self.gauge(
            "rdbkeeper_backup_last_stored_bytes",
            "Bytes of the newest backup as it is stored",
            of(name),
            newest.bytes as f64,
        );
        self.gauge(
            "rdbkeeper_backup_last_plain_bytes",
            "Bytes of the RDB file in the newest backup",
            of(name),
            newest.plain_bytes as f64,
        );
        self.gauge(
            "rdbkeeper_backup_last_keys",
            "Keys in the newest backup",
            of(name),
            newest.keys as f64,
        );
    }

    fn job(&mut self, id: &JobId, job: &JobSeen) {
        let name = id.database.as_str();
        match id.task {
            Task::Backup => {
                let results = [
                    ("success", job.counts.succeeded),
                    ("failure", job.counts.failed),
                ];
                for (result, count) in results {
                    self.counter(
                        "rdbkeeper_backups",
                        "Backups since the daemon was started",
                        with(name, [("result", result.to_owned())]),
                        count,
                    );
                }
                if let Some(next) = job.next {
                    self.gauge(
                        "rdbkeeper_backup_next_timestamp_seconds",
                        "When the next backup begins",
                        of(name),
                        seconds(Some(next)),
                    );
                }
            }
            Task::Verify => {}
            Task::Sessions => self.sessions(name, job),
        }
    }

    fn sessions(&mut self, name: &str, job: &JobSeen) {
        let Some(sweeps) = &job.sweeps else { return };
        for rule in &sweeps.last {
            let number = rule.rule.number.to_string();
            for (state, keys) in [
                ("with_ttl", rule.with_ttl),
                ("without_ttl", rule.without_ttl.keys),
            ] {
                let more = [("rule", number.clone()), ("state", state.to_owned())];
                self.gauge(
                    "rdbkeeper_sessions_keys",
                    "Keys that a rule took in the last sweep, before anything was done",
                    with(name, more),
                    keys as f64,
                );
            }
        }
        for ((rule, action), keys) in &sweeps.done {
            let more = [("rule", rule.to_string()), ("action", (*action).to_owned())];
            self.counter(
                "rdbkeeper_sessions_expired",
                "Keys that something was done to since the daemon was started",
                with(name, more),
                *keys,
            );
        }
    }
}

/// When the last backup ended that every storage has. `None`: never, or one of them does not say what it has: then the
/// others prove nothing.
fn everywhere(state: &DatabaseState) -> Option<Timestamp> {
    let newest = |storage: &StorageState| {
        let held = storage.held.as_ref().ok();
        held.and_then(|held| Some(held.newest.as_ref()?.finished_at))
    };
    // `None` is the smallest.
    state.storages.iter().map(newest).min().flatten()
}

#[cfg(test)]
mod tests;
