//! `backup prune`: what stays, what goes, and why.

use serde_json::{Value, json};

use super::args::PruneArgs;
use super::backup::{failed_json, storage_name};
use super::context::App;
use super::output::{HumanTime, Paint, error_json};
use super::table::{Align, Table};
use crate::failure::{Failure, Kind};
use crate::prune::{Judged, Mode, Pruned, State};
use crate::runs::Keeper;
use crate::setup;
use crate::units::HumanBytes;

/// What stands where a reason would, for one that goes.
const NO_RULE: &str = "no rule keeps it";

/// `backup prune`.
pub(super) async fn prune(app: &App, args: PruneArgs) -> Result<u8, Failure> {
    let names: Vec<String> = args.names.iter().map(ToString::to_string).collect();
    let databases = setup::databases(&app.config, &names)?;
    let storage = storage_name(&args.storage);
    let mode = match args.dry_run {
        true => Mode::DryRun,
        false => Mode::Remove,
    };
    let keeper = Keeper::new(&app.config, app.cancel.clone());
    let mut all = Vec::new();
    for database in databases {
        for pruned in keeper.prune(database, storage.as_deref(), mode).await? {
            all.push((database.name.to_string(), pruned));
        }
    }
    // One alone fails as itself, unless something is to be told beside it.
    let untold = |pruned: &Pruned| pruned.report.backups.is_empty() && pruned.failure.is_some();
    if all.len() == 1
        && all.iter().all(|(_, pruned)| untold(pruned))
        && let Some(failure) = all.pop().and_then(|(_, pruned)| pruned.failure)
    {
        return Err(failure);
    }
    told(app, &all, mode)
}

fn told(app: &App, all: &[(String, Pruned)], mode: Mode) -> Result<u8, Failure> {
    let documents: Vec<Value> = all
        .iter()
        .map(|(name, pruned)| document(name, pruned, mode))
        .collect();
    let mut table = Table::new([
        ("ID", Align::Left),
        ("DATABASE", Align::Left),
        ("BEGUN", Align::Left),
        ("STORED", Align::Right),
        ("STORAGE", Align::Left),
        ("", Align::Left),
        ("WHY", Align::Left),
    ]);
    for (name, pruned) in all {
        for judged in &pruned.report.backups {
            table.row([
                judged.id.to_string(),
                name.clone(),
                HumanTime(judged.began).to_string(),
                judged
                    .bytes
                    .map_or_else(String::new, |bytes| HumanBytes(bytes).to_string()),
                pruned.storage.clone(),
                word(judged, mode).to_owned(),
                reasons(judged).join(", "),
            ]);
        }
    }
    let mut text = match table.is_empty() {
        true => String::new(),
        false => table.to_string(),
    };
    for note in notes(all) {
        text.push_str(&format!("{}\n", app.output.paint(Paint::Warning, &note)));
    }
    text.push_str(&summary(all, mode));
    app.result(&documents, text)?;

    let mut code = 0;
    for (_, pruned) in all {
        let Some(failure) = &pruned.failure else {
            if pruned.report.guard.is_some() && pruned.report.policy.is_some() && code == 0 {
                code = Kind::Refused.exit_code();
            }
            continue;
        };
        if !app.output.is_json() {
            app.output.tell(failure);
        }
        // That of the only one, and 1 where several went differently.
        code = match all.len() {
            1 => failure.kind.exit_code(),
            _ => 1,
        };
    }
    match app.cancel.is_cancelled() {
        true => Err(Failure::interrupted()),
        false => Ok(code),
    }
}

fn document(name: &str, pruned: &Pruned, mode: Mode) -> Value {
    let report = &pruned.report;
    let backups = report.backups.iter().map(|judged| {
        json!({
            "id": judged.id,
            "started_at": judged.began,
            "bytes": judged.bytes,
            "kept": judged.state == State::Kept,
            "removed": judged.state == State::Removed,
            "reasons": reasons(judged),
        })
    });
    let mut document = match (&pruned.failure, report.backups.is_empty()) {
        (Some(failure), true) => failed_json(name, failure),
        (failure, _) => json!({
            "database": name,
            "policy": report.policy.as_ref().map(ToString::to_string),
            "guard": report.guard,
            "dry_run": mode == Mode::DryRun,
            "backups": backups.collect::<Vec<Value>>(),
            "removed": count(pruned, mode),
            "freed_bytes": report.freed_bytes,
            "swept": report.swept,
            "error": failure.as_ref().map(error_json),
        }),
    };
    document["storage"] = pruned.storage.as_str().into();
    if document["error"].is_null()
        && let Some(members) = document.as_object_mut()
    {
        members.remove("error");
    }
    document
}

fn word(judged: &Judged, mode: Mode) -> &'static str {
    match (judged.state, mode) {
        (State::Kept, _) => "stays",
        (State::Goes, Mode::DryRun) => "would go",
        (State::Goes, Mode::Remove) => "not yet removed",
        (State::Removed, _) => "removed",
    }
}

fn reasons(judged: &Judged) -> Vec<String> {
    match judged.state {
        State::Kept => judged.reasons.iter().map(ToString::to_string).collect(),
        State::Goes | State::Removed => vec![NO_RULE.to_owned()],
    }
}

/// What explains that nothing went.
fn notes(all: &[(String, Pruned)]) -> Vec<String> {
    let mut notes: Vec<String> = Vec::new();
    for (name, pruned) in all {
        let report = &pruned.report;
        let untold = pruned.failure.is_some() && report.backups.is_empty();
        let note = match (&report.guard, &report.policy) {
            _ if untold => continue,
            (_, None) => format!(
                "{name} has no policy for storage {}: nothing is ever removed there; write `keep = {{ last = 4, daily = 7 }}` into its [[database]] or into [defaults]",
                pruned.storage
            ),
            (Some(id), Some(_)) => format!(
                "nothing of {name} goes: its newest backup, {id}, has far fewer keys than the good one before it; if that is right, `rdbkeeper backup accept {id}` says so"
            ),
            (None, Some(_)) => continue,
        };
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    notes
}

/// How many went; in a dry run how many would.
fn count(pruned: &Pruned, mode: Mode) -> usize {
    let state = match mode {
        Mode::DryRun => State::Goes,
        Mode::Remove => State::Removed,
    };
    let gone = |judged: &&Judged| judged.state == state;
    pruned.report.backups.iter().filter(gone).count()
}

fn summary(all: &[(String, Pruned)], mode: Mode) -> String {
    let would = match mode {
        Mode::DryRun => "would remove",
        Mode::Remove => "removed",
    };
    let reports = || all.iter().map(|(_, pruned)| &pruned.report);
    let gone: usize = all.iter().map(|(_, pruned)| count(pruned, mode)).sum();
    let backups: usize = reports().map(|report| report.backups.len()).sum();
    let freed: u64 = reports().map(|report| report.freed_bytes).sum();
    let mut text = format!(
        "{would} {gone} of {backups} backup{}, {}",
        if backups == 1 { "" } else { "s" },
        HumanBytes(freed)
    );
    let folders: u64 = reports().map(|report| report.swept.folders).sum();
    if folders > 0 {
        let bytes: u64 = reports().map(|report| report.swept.bytes).sum();
        text.push_str(&format!(
            ", and what {folders} unfinished one{} left, {}",
            if folders == 1 { "" } else { "s" },
            HumanBytes(bytes)
        ));
    }
    text.push('\n');
    text
}
