//! `status`.

use std::time::Duration;

use jiff::Timestamp;

use super::args::StatusArgs;
use super::context::App;
use super::output::{HumanTime, Paint, printable};
use super::table::{Align, Table};
use crate::failure::Failure;
use crate::health::{DatabaseState, Gatherer, Picture, Reason, Severity, StatusDocument, judge};
use crate::runs::Task;
use crate::setup;
use crate::units::{HumanBytes, HumanCount, HumanDuration};

/// Looks, tells, and exits 1 when something is unhealthy.
pub(super) async fn status(app: &App, args: StatusArgs) -> Result<u8, Failure> {
    let names: Vec<String> = args.names.iter().map(ToString::to_string).collect();
    let databases = setup::databases(&app.config, &names)?;
    let picture = Gatherer::default().gather(&app.config, databases).await;
    let now = Timestamp::now();
    let document = StatusDocument::new(&picture, judge(&picture, now), now);
    let text = text(app, &picture, &document.reasons, now);
    app.result(&document, text)?;
    Ok(u8::from(!document.healthy))
}

fn text(app: &App, picture: &Picture, reasons: &[Reason], now: Timestamp) -> String {
    let mut table = Table::new([
        ("DATABASE", Align::Left),
        ("NEWEST GOOD", Align::Left),
        ("KEYS", Align::Right),
        ("STORED", Align::Right),
        ("KEPT", Align::Left),
        ("NEXT", Align::Left),
        ("STATE", Align::Left),
    ]);
    for state in &picture.databases {
        table.row(row(picture, state, reasons, now));
    }
    let mut text = table.to_string();
    for reason in reasons {
        let label = match reason.severity {
            Severity::Unhealthy => app.output.paint(Paint::Bad, "unhealthy"),
            Severity::Warning => app.output.paint(Paint::Warning, "warning"),
        };
        let since = match reason.since {
            Some(since) => format!(" (since {})", HumanTime(since)),
            None => String::new(),
        };
        text.push_str(&format!("{label}: {}{since}\n", printable(&reason.message)));
    }
    for state in &picture.databases {
        let verified = state.records.get(&Task::Verify);
        let verified = verified.and_then(|record| record.attempt.as_ref());
        if verified.is_some_and(|attempt| attempt.stored_only) {
            text.push_str(&format!(
                "{}: last verified without the key: only size and SHA-256 of what is stored were compared\n",
                state.name
            ));
        }
    }
    if !picture.is_scheduled() {
        text.push_str(
            "no backup is scheduled: nothing is expected to be there; `schedule` in the configuration says when\n",
        );
    }
    text
}

fn row(
    picture: &Picture,
    state: &DatabaseState,
    reasons: &[Reason],
    now: Timestamp,
) -> Vec<String> {
    let good = state.newest_good();
    let age = match good {
        Some(good) => {
            let age = now.duration_since(good.started_at);
            format!(
                "{} ago",
                HumanDuration(Duration::try_from(age).unwrap_or_default())
            )
        }
        None => "none".to_owned(),
    };
    let kept: Vec<String> = state
        .storages
        .iter()
        .map(|storage| match &storage.held {
            Ok(held) => format!("{} in {}", HumanCount(held.kept), storage.name),
            Err(_) => format!("? in {}", storage.name),
        })
        .collect();
    let next = match state.next(Task::Backup, now, &picture.zone) {
        Some(next) => HumanTime(next).to_string(),
        None => "by hand".to_owned(),
    };
    let mut own: Vec<&Reason> = reasons
        .iter()
        .filter(|reason| reason.database == state.name)
        .collect();
    own.sort_by_key(|reason| std::cmp::Reverse(reason.severity));
    let mut words: Vec<String> = Vec::new();
    for reason in own {
        let word = match reason.severity {
            Severity::Unhealthy => reason.what.as_str().to_uppercase(),
            Severity::Warning => reason.what.as_str().to_owned(),
        };
        if !words.contains(&word) {
            words.push(word);
        }
    }
    if words.is_empty() {
        words.push("ok".to_owned());
    }
    vec![
        state.name.clone(),
        age,
        good.map_or_else(String::new, |good| HumanCount(good.keys).to_string()),
        good.map_or_else(String::new, |good| HumanBytes(good.bytes).to_string()),
        kept.join(", "),
        next,
        words.join(", "),
    ]
}
