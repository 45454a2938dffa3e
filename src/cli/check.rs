//! `check`.

use std::time::Duration;

use serde_json::{Value, json};

use super::args::CheckArgs;
use super::context::App;
use super::output::{Paint, error_json};
use crate::backup::Job;
use crate::check::{self, Server, Sessions, Storage};
use crate::failure::{Failure, Kind};
use crate::setup::{self, Overrides};
use crate::storage::probe::Probed;
use crate::units::{HumanBytes, HumanCount, HumanDuration};

/// Clocks that differ by less are left alone.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

/// Tries everything, tells all of it, and fails when something that a backup needs does not work.
pub(super) async fn check(app: &App, args: CheckArgs) -> Result<u8, Failure> {
    let only = args.storage.storage.as_ref().map(ToString::to_string);
    let mut text = String::new();
    let mut worst: Option<u8> = None;
    let mut failed = |app: &App, failure: &Failure| {
        worst = Some(match failure.kind {
            Kind::Config => failure.kind.exit_code(),
            _ => worst.unwrap_or(1),
        });
        if !app.output.is_json() {
            app.output.tell(failure);
        }
    };
    if let Some(origin) = &app.config.origin {
        text.push_str(&format!("configuration {}\n", origin.display()));
    } else {
        text.push_str("no configuration file: the defaults\n");
    }
    let mut storages: Vec<Value> = Vec::new();
    for storage in setup::stores(&app.config, only.as_deref())? {
        match check::storage(&storage).await {
            Ok(found) => {
                text.push_str(&storage_text(app, &found));
                storages.push(serde_json::to_value(&found).unwrap_or_default());
            }
            Err(failure) => {
                let failure = failure.context(format!("storage {} does not work", storage.name));
                failed(app, &failure);
                storages.push(json!({ "storage": storage.name, "error": error_json(&failure) }));
            }
        }
    }
    let mut databases: Vec<Value> = Vec::new();
    for database in &app.config.databases {
        let tried = match setup::job(&app.config, database, &Overrides::default(), &app.cancel) {
            Ok(job) => check::server(&job).await.map(|found| (job, found)),
            Err(failure) => Err(failure),
        };
        let keys = check::keys(database);
        match tried {
            Ok((job, mut found)) => {
                found.warnings.extend(keys.iter().flatten().cloned());
                text.push_str(&server_text(app, &job, &found));
                let mut document = serde_json::to_value(&found).unwrap_or_default();
                if let Some(sessions) = check::sessions(database).await {
                    text.push_str(&sessions_text(app, &sessions));
                    if database.sessions.iter().any(|rule| rule.idle) {
                        text.push_str("    whether `idle` can be trusted is judged at each run\n");
                    }
                    document["sessions"] = serde_json::to_value(&sessions).unwrap_or_default();
                }
                databases.push(document);
                if found.method.is_none() {
                    failed(app, &no_method(&job, &found));
                }
            }
            Err(failure) => {
                let failure = failure.context(format!("database {} does not work", database.name));
                failed(app, &failure);
                databases.push(
                    json!({ "database": database.name.as_str(), "error": error_json(&failure) }),
                );
            }
        }
        if let Err(failure) = keys {
            let name = &database.name;
            let failure = failure.context(format!("backups of {name} cannot be encrypted"));
            failed(app, &failure);
            if let Some(document) = databases.last_mut().filter(|d| d.get("error").is_none()) {
                document["error"] = error_json(&failure);
            }
        }
    }
    app.result(
        &json!({ "storages": storages, "databases": databases }),
        text,
    )?;
    Ok(worst.unwrap_or(0))
}

fn storage_text(app: &App, found: &Storage) -> String {
    let free = match found.probed.free_bytes {
        Some(bytes) => format!(", {} free", HumanBytes(bytes)),
        None => String::new(),
    };
    let mut text = format!(
        "storage {}: {} {}{free}\n",
        found.storage,
        app.output.paint(Paint::Good, "works,"),
        found.place,
    );
    if found.remote {
        let once = match found.probed.create_only {
            true => ", and could not overwrite it",
            false => "",
        };
        text.push_str(&format!(
            "  written, read, listed and deleted a small object{once}\n"
        ));
    }
    for (warns, line) in storage_lines(&found.probed) {
        let line = match warns {
            true => app.output.paint(Paint::Warning, &line),
            false => line,
        };
        text.push_str(&format!("  {line}\n"));
    }
    text
}

/// What a person should know of a storage that works; true: it is to be acted upon.
fn storage_lines(probed: &Probed) -> Vec<(bool, String)> {
    let mut lines = Vec::new();
    if !probed.create_only {
        lines.push((
            true,
            "it overwrites what exists: prune from one host only".to_owned(),
        ));
    }
    if probed.features.multipart == Some(false) {
        lines.push((
            true,
            "it takes no upload in parts: backups of more than 5 MiB will fail".to_owned(),
        ));
    }
    if probed.features.versioned == Some(true) {
        lines.push((
            false,
            "it keeps versions: what prune removes goes with all its versions".to_owned(),
        ));
    }
    let off = probed.clock_ahead_seconds;
    if off.unsigned_abs() > CLOCK_TOLERANCE.as_secs() {
        let by = HumanDuration(Duration::from_secs(off.unsigned_abs()));
        let which = if off > 0 { "behind" } else { "ahead of" };
        lines.push((
            true,
            format!("this host's clock is {by} {which} the storage's: set it, by NTP best"),
        ));
    }
    lines
}

fn server_text(app: &App, job: &Job, found: &Server) -> String {
    let keys: Vec<String> = found
        .keys
        .iter()
        .map(|(db, keys)| format!("db {db}: {}", HumanCount(*keys).of("key", "keys")))
        .collect();
    let method = match &found.method {
        Some(method) => app
            .output
            .paint(Paint::Good, &format!("would be backed up by {method}")),
        None => app.output.paint(Paint::Bad, "cannot be backed up"),
    };
    let mut text = format!(
        "database {}: {method} from {} ({}, {})\n",
        found.database, found.address, found.server, found.role
    );
    let keys = if keys.is_empty() {
        "no keys".to_owned()
    } else {
        keys.join(", ")
    };
    text.push_str(&format!("  {keys}\n"));
    for line in found.reasons.iter().chain(&found.warnings) {
        text.push_str(&format!("  {line}\n"));
    }
    for method in &found.methods {
        let works = match (method.works, check::is_wanted(job, method)) {
            (true, true) => app.output.paint(Paint::Good, "works"),
            (true, false) => "works, and is not configured".to_owned(),
            (false, _) => app.output.paint(Paint::Warning, "does not work"),
        };
        text.push_str(&format!("  {}: {works}\n", method.method));
        let lines = method.obstacles.iter().chain(&method.unknown);
        for line in lines.chain(&method.warnings) {
            text.push_str(&format!("    {line}\n"));
        }
        text.push_str(&format!("    needs: {}\n", method.acl));
    }
    text
}

fn sessions_text(app: &App, found: &Sessions) -> String {
    let rules = match found.rules {
        0 => "no rules".to_owned(),
        1 => "1 rule".to_owned(),
        several => format!("{several} rules"),
    };
    let would = match (&found.refused, found.rules) {
        (_, 0) => "nothing expires".to_owned(),
        (None, _) => app
            .output
            .paint(Paint::Good, "would expire by `sessions expire`"),
        (Some(why), _) => app.output.paint(
            Paint::Warning,
            &format!("`sessions expire` would refuse: {why}"),
        ),
    };
    let mut text = format!("  sessions: {rules}, {would}\n");
    if let Some(schedule) = &found.schedule {
        text.push_str(&format!("    `rdbkeeper run` does it at {schedule}\n"));
    }
    text
}

fn no_method(job: &Job, found: &Server) -> Failure {
    let mut failure = Failure::new(
        Kind::Forbidden,
        format!("database {} cannot be backed up", job.name),
    )
    .hint("give the user the rights of one of the lines above that begin with `needs:`");
    let wanted = || {
        let methods = found.methods.iter();
        methods.filter(|method| check::is_wanted(job, method))
    };
    if wanted().all(|method| method.fork_refused) {
        failure.kind = Kind::Refused;
        failure = failure.hint(
            "do what is said above, or use method = \"scan\", which does not fork, or a replica (`replica_url`)",
        );
    }
    for method in wanted() {
        for obstacle in &method.obstacles {
            failure = failure.cause(format!("{}: {obstacle}", method.method));
        }
    }
    failure
}
