//! What is told of a run, in which form: documents and pings, without sending them.
//!
//! `json`: one document for each piece of news that somebody asked for. `healthchecks`: one ping a run, for such a
//! service judges by itself what is new; only a backup's success counts as one, or a job that expires sessions every
//! quarter of an hour would hide that backups stay away.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;

use super::Task;
use super::ledger::{Attempt, Told};
use super::settle::News;
use crate::backup::Made;
use crate::config::{Notify, NotifyOn, NotifyStyle};
use crate::units::{HumanBytes, HumanCount, HumanDuration};

/// A ping's body is cut here, in bytes: no service keeps more of it.
const LONGEST_BODY: usize = 10_000;

/// What is told, and how it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What it is about, for the log: `failure`.
    pub event: &'static str,
    /// What is added to the path of the URL.
    pub path: Option<&'static str>,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// What is posted.
    pub body: Bytes,
    /// Whether it is worth nothing as soon as there is another one: that something begins.
    pub passing: bool,
}

/// A run that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended<'a> {
    /// The database.
    pub database: &'a str,
    /// This host.
    pub host: &'a str,
    /// What was done.
    pub task: Task,
    /// How it went.
    pub attempt: &'a Attempt,
    /// The backup that was made.
    pub made: Option<&'a Made>,
}

/// The document that is posted with `style = "json"`. Times are UTC.
#[derive(Clone, Debug, Serialize)]
struct Document<'a> {
    event: &'static str,
    /// Why a failure is told: `first`, `other-kind`, `reminder`.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'static str>,
    task: &'static str,
    database: &'a str,
    host: &'a str,
    /// When the run ended.
    time: Timestamp,
    message: String,
    /// Since when the job fails, or had failed.
    since: Option<Timestamp>,
    error: Option<&'a Told>,
    backup: Option<Backup<'a>>,
    tool: &'static str,
}

#[derive(Clone, Debug, Serialize)]
struct Backup<'a> {
    id: &'a str,
    keys: u64,
    bytes: u64,
    plain_bytes: u64,
    method: &'a str,
    storages: &'a [String],
    shrunk: bool,
    duration_seconds: f64,
}

impl<'a> Backup<'a> {
    fn of(made: &'a Made) -> Backup<'a> {
        let manifest = &made.manifest;
        Backup {
            id: manifest.id.as_str(),
            keys: manifest.rdb.keys,
            bytes: manifest.data.bytes,
            plain_bytes: manifest.data.plain_bytes,
            method: &manifest.method,
            storages: &made.storages,
            shrunk: made.shrunk,
            duration_seconds: took(made).as_secs_f64(),
        }
    }
}

/// How long a backup took.
pub(super) fn took(made: &Made) -> Duration {
    let manifest = &made.manifest;
    let took = manifest.finished_at.duration_since(manifest.started_at);
    Duration::try_from(took).unwrap_or_default()
}

/// What is told when a backup begins.
pub fn beginning(notify: &Notify) -> Option<Notice> {
    let asked = notify.style == NotifyStyle::Healthchecks && notify.on.contains(&NotifyOn::Success);
    asked.then(|| ping("start", Some("start"), String::new()))
}

/// What is told when a run has ended.
pub fn ending(notify: &Notify, ended: &Ended<'_>, news: &[News]) -> Vec<Notice> {
    match notify.style {
        NotifyStyle::Json => news
            .iter()
            .filter(|news| notify.on.contains(&asked(news)))
            .map(|news| posted(ended, news))
            .collect(),
        NotifyStyle::Healthchecks => pinged(notify, ended, news).into_iter().collect(),
    }
}

fn asked(news: &News) -> NotifyOn {
    match news {
        News::Failure { .. } => NotifyOn::Failure,
        News::Recovery { .. } => NotifyOn::Recovery,
        News::Shrink => NotifyOn::Shrink,
        News::Success => NotifyOn::Success,
    }
}

fn posted(ended: &Ended<'_>, news: &News) -> Notice {
    let event = asked(news).as_str();
    let document = Document {
        event,
        why: match news {
            News::Failure { why, .. } => Some(why.as_str()),
            _ => None,
        },
        task: ended.task.as_str(),
        database: ended.database,
        host: ended.host,
        time: ended.attempt.finished_at,
        message: message(ended, news),
        since: match news {
            News::Failure { since, .. } | News::Recovery { since } => Some(*since),
            News::Shrink | News::Success => None,
        },
        error: ended.attempt.error.as_ref(),
        backup: ended.made.map(Backup::of),
        tool: concat!("rdbkeeper ", env!("CARGO_PKG_VERSION")),
    };
    Notice {
        event,
        path: None,
        content_type: "application/json",
        // A struct of texts and numbers cannot fail to be written.
        body: serde_json::to_vec(&document).unwrap_or_default().into(),
        passing: false,
    }
}

/// The one ping of a run.
fn pinged(notify: &Notify, ended: &Ended<'_>, news: &[News]) -> Option<Notice> {
    let on = |what| notify.on.contains(&what);
    if let Some(error) = &ended.attempt.error {
        // A check that has rung does not ring again. The other tasks' failures are told as news, or each would keep
        // the check of the backups down.
        let news = news.iter().any(|news| matches!(news, News::Failure { .. }));
        let told = on(NotifyOn::Failure) && (ended.task == Task::Backup || news);
        return told.then(|| ping("failure", Some("fail"), failure_text(ended, error)));
    }
    if ended.task != Task::Backup {
        return None;
    }
    if ended.made.is_some_and(|made| made.shrunk) && on(NotifyOn::Shrink) {
        return Some(ping("shrink", Some("fail"), message(ended, &News::Shrink)));
    }
    let recovery = news
        .iter()
        .find(|news| matches!(news, News::Recovery { .. }));
    let (event, news) = match recovery {
        _ if on(NotifyOn::Success) => ("success", &News::Success),
        Some(recovery) if on(NotifyOn::Recovery) => ("recovery", recovery),
        _ => return None,
    };
    Some(ping(event, None, message(ended, news)))
}

fn ping(event: &'static str, path: Option<&'static str>, mut text: String) -> Notice {
    let mut end = LONGEST_BODY.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    Notice {
        event,
        path,
        content_type: "text/plain; charset=utf-8",
        body: text.into(),
        passing: event == "start",
    }
}

fn failure_text(ended: &Ended<'_>, error: &Told) -> String {
    let mut text = format!("{} on {}: {}", ended.task, ended.host, error.message);
    for cause in &error.causes {
        text.push_str("\ncause: ");
        text.push_str(cause);
    }
    text
}

/// One sentence for people.
fn message(ended: &Ended<'_>, news: &News) -> String {
    let (task, database, host) = (ended.task, ended.database, ended.host);
    let facts = ended.made.map(|made| {
        format!(
            "{} has {}, {} stored in {}",
            made.manifest.id,
            HumanCount(made.manifest.rdb.keys).of("key", "keys"),
            HumanBytes(made.manifest.data.bytes),
            made.storages.join(", ")
        )
    });
    let facts = facts.map_or_else(String::new, |facts| format!(": {facts}"));
    match news {
        News::Failure { .. } => match &ended.attempt.error {
            Some(error) => {
                let mut text = format!("{host}: {}", error.message);
                for cause in &error.causes {
                    text.push_str(": ");
                    text.push_str(cause);
                }
                text
            }
            None => format!("{host}: {task} of {database} failed"),
        },
        News::Recovery { since } => {
            let lasted = ended.attempt.finished_at.duration_since(*since);
            let lasted = HumanDuration(Duration::try_from(lasted).unwrap_or_default());
            format!("{host}: {task} of {database} works again after {lasted}{facts}")
        }
        News::Shrink => {
            format!(
                "{host}: the backup of {database} has far fewer keys than the last good one{facts}"
            )
        }
        News::Success => format!("{host}: {task} of {database} succeeded{facts}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::Value;

    use super::*;
    use crate::config::SecretSource;
    use crate::failure::{Failure, Kind};
    use crate::runs::settle::Why;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn notify(style: NotifyStyle, on: &[NotifyOn]) -> Notify {
        Notify {
            url: SecretSource::Inline("https://example.com/token".into()),
            style,
            on: on.to_vec(),
        }
    }

    fn attempt(failed: bool) -> Attempt {
        let failure = Failure::new(Kind::Storage, "cannot back up web").cause("disk is full");
        Attempt::new(at(10), at(20), failed.then_some(&failure))
    }

    fn ended(task: Task, attempt: &Attempt) -> Ended<'_> {
        Ended {
            database: "web",
            host: "h1",
            task,
            attempt,
            made: None,
        }
    }

    #[test]
    fn a_document_tells_what_failed_where_since_when_and_why() {
        let attempt = attempt(true);
        let news = [News::Failure {
            since: at(5),
            why: Why::OtherKind,
        }];
        let notify = notify(NotifyStyle::Json, &[NotifyOn::Failure]);
        let notices = ending(&notify, &ended(Task::Backup, &attempt), &news);
        let document: Value = serde_json::from_slice(&notices[0].body).unwrap();
        assert_eq!(
            document,
            serde_json::json!({
                "event": "failure",
                "why": "other-kind",
                "task": "backup",
                "database": "web",
                "host": "h1",
                "time": "1970-01-01T00:00:20Z",
                "message": "h1: cannot back up web: disk is full",
                "since": "1970-01-01T00:00:05Z",
                "error": {"kind": "storage", "message": "cannot back up web", "causes": ["disk is full"]},
                "backup": null,
                "tool": concat!("rdbkeeper ", env!("CARGO_PKG_VERSION")),
            })
        );
    }

    #[test]
    fn nobody_is_told_what_he_did_not_ask_for() {
        let attempt = attempt(false);
        let news = [News::Recovery { since: at(5) }, News::Success];
        let events = |on: &[NotifyOn]| -> Vec<&str> {
            let notify = notify(NotifyStyle::Json, on);
            let notices = ending(&notify, &ended(Task::Sessions, &attempt), &news);
            notices.iter().map(|notice| notice.event).collect()
        };
        assert_eq!(events(&[NotifyOn::Failure, NotifyOn::Shrink]), [""; 0]);
        assert_eq!(events(&[NotifyOn::Recovery]), ["recovery"]);
        assert_eq!(events(&NotifyOn::ALL), ["recovery", "success"]);
    }

    #[test]
    fn a_healthcheck_gets_one_ping_a_run_and_hears_of_success_from_backups_alone() {
        let (good, bad) = (attempt(false), attempt(true));
        let all = notify(NotifyStyle::Healthchecks, &NotifyOn::ALL);
        let quiet = notify(NotifyStyle::Healthchecks, &[NotifyOn::Failure]);
        let recovered = [News::Recovery { since: at(5) }, News::Success];
        let failed = [News::Failure {
            since: at(5),
            why: Why::First,
        }];
        let pings = |notify: &Notify, task, attempt: &Attempt, news: &[News]| {
            let notices = ending(notify, &ended(task, attempt), news);
            notices
                .into_iter()
                .map(|notice| notice.path.unwrap_or("").to_owned())
                .collect::<Vec<String>>()
        };
        assert_eq!(pings(&all, Task::Backup, &good, &recovered), [""]);
        assert_eq!(pings(&quiet, Task::Backup, &good, &recovered), [""; 0]);
        assert_eq!(pings(&all, Task::Backup, &bad, &failed), ["fail"]);
        // A backup's failure that is no news is pinged all the same.
        assert_eq!(pings(&quiet, Task::Backup, &bad, &[]), ["fail"]);
        assert_eq!(pings(&all, Task::Sessions, &bad, &[]), [""; 0]);
        assert_eq!(pings(&all, Task::Verify, &bad, &failed), ["fail"]);
        assert_eq!(pings(&all, Task::Verify, &good, &recovered), [""; 0]);
        assert!(beginning(&all).unwrap().passing);
        assert_eq!(beginning(&quiet), None);
        let notices = ending(&all, &ended(Task::Backup, &bad), &failed);
        assert_eq!(
            notices[0].body,
            "backup on h1: cannot back up web\ncause: disk is full"
        );
    }
}
