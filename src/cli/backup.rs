//! `backup now`, `list`, `show`, `verify`, `delete`.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::args::{DeleteArgs, ListArgs, NowArgs, StorageArg, VerifyArgs};
use super::context::App;
use super::lacks::{lacks, tell_lacks, with_lacks};
use super::output::{HumanTime, Paint, error_json};
use super::progress::Unit;
use super::table::{Align, Table};
use crate::backup::{Made, Outcome};
use crate::catalog::list::{Broken, Listing, list as list_backups};
use crate::catalog::selector::{Finder, Places, Subject, WHAT_IS_A_PATH};
use crate::catalog::{Backup, BackupId, Error, Manifest, Selector, commit};
use crate::failure::{Failure, Kind};
use crate::meter::Meter;
use crate::pipeline::Keys;
use crate::runs::Keeper;
use crate::setup::{self, Overrides};
use crate::storage::NamedStore;
use crate::units::{HumanBytes, HumanCount, HumanDuration};
use crate::verify::{self, Verified};

/// `backup now`.
pub(super) async fn now(app: &App, args: NowArgs) -> Result<u8, Failure> {
    let names: Vec<String> = args.names.iter().map(ToString::to_string).collect();
    let databases = setup::databases(&app.config, &names)?;
    let overrides = Overrides {
        method: args.method.map(setup::choice),
        storage: storage_name(&args.storage),
    };
    let keeper = Keeper::new(&app.config, app.cancel.clone());
    let asked = databases.len();
    let work = keeper.back_up(&databases, &overrides);
    let mut outcomes = app
        .with_progress("backing up", Unit::Bytes, keeper.meter(), work)
        .await;
    let place = |name: &str| {
        databases
            .iter()
            .position(|database| database.name.as_str() == name)
    };
    outcomes.sort_by_key(|outcome| place(&outcome.name));
    let told = told(app, asked, outcomes);
    keeper.farewell().await;
    told
}

/// Tells what became of each database. One alone fails as itself, several as a failure of the run.
fn told(app: &App, asked: usize, mut outcomes: Vec<Outcome>) -> Result<u8, Failure> {
    if let [Outcome { result: Err(_), .. }] = &outcomes[..]
        && asked == 1
        && let Some(Outcome {
            result: Err(failure),
            ..
        }) = outcomes.pop()
    {
        return Err(failure);
    }
    let mut code = 0;
    let mut documents = Vec::new();
    let mut text = String::new();
    for outcome in &outcomes {
        match &outcome.result {
            Ok(made) => {
                documents.extend(made.storages.iter().map(|storage| {
                    manifest_json(&made.manifest, storage, false, false, made.shrunk)
                }));
                text.push_str(&made_text(app, made));
                for warning in &made.warnings {
                    tracing::warn!(database = outcome.name, "{warning}");
                }
            }
            Err(failure) => {
                code = match failure.kind {
                    Kind::Interrupted | Kind::Terminated => failure.kind.exit_code(),
                    _ => code.max(1),
                };
                documents.push(failed_json(&outcome.name, failure));
                if !app.output.is_json() {
                    app.output.tell(failure);
                }
            }
        }
    }
    app.result(&documents, text)?;
    if app.cancel.is_cancelled() {
        return Err(Failure::interrupted());
    }
    Ok(code)
}

fn made_text(app: &App, made: &Made) -> String {
    let manifest = &made.manifest;
    let took = manifest.finished_at.duration_since(manifest.started_at);
    let took = Duration::try_from(took).unwrap_or_default();
    let mut text = format!(
        "{} {}: {}, {} stored as {} ({}) in {}, by {} in {}\n",
        app.output.paint(Paint::Good, &manifest.database),
        manifest.id,
        HumanCount(manifest.rdb.keys).of("key", "keys"),
        HumanBytes(manifest.data.plain_bytes),
        HumanBytes(manifest.data.bytes),
        packing(manifest),
        made.storages.join(", "),
        manifest.method,
        HumanDuration(took),
    );
    for reason in &made.reasons {
        text.push_str(&format!("  {}\n", app.output.paint(Paint::Faint, reason)));
    }
    text
}

/// How a backup is packed: `zstd:3`, `zstd:3, encrypted`.
pub(super) fn packing(manifest: &Manifest) -> String {
    match manifest.data.encryption {
        Some(_) => format!("{}, encrypted", manifest.data.compression),
        None => manifest.data.compression.to_string(),
    }
}

pub(super) fn failed_json(database: &str, failure: &Failure) -> Value {
    json!({ "database": database, "error": error_json(failure) })
}

/// A manifest with what is computed of it.
fn manifest_json(
    manifest: &Manifest,
    storage: &str,
    pinned: bool,
    accepted: bool,
    shrunk: bool,
) -> Value {
    let mut value = serde_json::to_value(manifest).unwrap_or_default();
    if let Value::Object(members) = &mut value {
        members.insert("storage".to_owned(), storage.into());
        members.insert("pinned".to_owned(), pinned.into());
        members.insert("accepted".to_owned(), accepted.into());
        members.insert("shrunk".to_owned(), shrunk.into());
    }
    value
}

pub(super) fn backup_json(backup: &Backup) -> Value {
    let mut value = manifest_json(
        &backup.manifest,
        backup.place.storage(),
        backup.pinned,
        backup.accepted,
        backup.shrunk,
    );
    // A mark that only what is broken has.
    if backup.damaged
        && let Value::Object(members) = &mut value
    {
        members.insert("damaged".to_owned(), true.into());
    }
    value
}

pub(super) fn storage_name(storage: &StorageArg) -> Option<String> {
    storage.storage.as_ref().map(ToString::to_string)
}

pub(super) fn stores(app: &App, storage: &StorageArg) -> Result<Vec<NamedStore>, Failure> {
    setup::stores(&app.config, storage_name(storage).as_deref())
}

/// The names of all configured databases.
pub(super) fn configured(app: &App) -> Vec<String> {
    let names = app.config.databases.iter();
    names.map(|database| database.name.to_string()).collect()
}

/// Finds the backup that a selector means.
pub(super) async fn find(
    app: &App,
    selector: &str,
    storage: Option<&str>,
) -> Result<Subject, Failure> {
    let mut copies = find_copies(app, selector, storage).await?;
    Ok(copies.swap_remove(0))
}

/// Finds every copy of the backup that a selector means, the nearest first; at least one.
pub(super) async fn find_copies(
    app: &App,
    selector: &str,
    storage: Option<&str>,
) -> Result<Vec<Subject>, Failure> {
    find_parsed(app, selector, storage)
        .await
        .map_err(|failure| match failure.kind {
            Kind::NotFound | Kind::Usage => match path_of_this_name(selector) {
                Some(what) => failure.hint(format!(
                    "there is a {what} of this name: write ./{selector}, for {WHAT_IS_A_PATH}"
                )),
                None => failure,
            },
            _ => failure,
        })
}

/// What there is under the name of a selector that means something else than a path.
fn path_of_this_name(selector: &str) -> Option<&'static str> {
    if let Ok(Selector::Path(_)) = selector.parse::<Selector>() {
        return None;
    }
    let found = std::fs::metadata(selector).ok()?;
    Some(if found.is_dir() { "folder" } else { "file" })
}

async fn find_parsed(
    app: &App,
    selector: &str,
    storage: Option<&str>,
) -> Result<Vec<Subject>, Failure> {
    let selector: Selector = selector.parse()?;
    let database = match &selector {
        Selector::Newest(name) | Selector::At(name, _) => Some(name.as_str()),
        Selector::Id(_) | Selector::Latest | Selector::Path(_) => None,
    };
    let storages = setup::nearest(&app.config, storage, database)?;
    let databases = configured(app);
    let finder = Finder {
        storages: &storages,
        databases: &databases,
    };
    Ok(finder.find_copies(&selector).await?)
}

/// The keys that may open a backup.
pub(super) fn keys_of(app: &App, subject: &Subject, given: Option<&Keys>) -> Keys {
    if let Some(given) = given {
        return given.clone();
    }
    let database = match subject {
        Subject::Stored(backup) => Some(backup.manifest.database.as_str()),
        Subject::File(_) => None,
    };
    setup::keys(&app.config, database)
}

/// Lists what is there, of the named databases or of all, with the shrunk ones marked.
pub(super) async fn listing(
    app: &App,
    names: &[String],
    storages: &[NamedStore],
) -> Result<Listing, Failure> {
    let mut listing = Listing::default();
    if names.is_empty() {
        listing = list_backups(storages, None).await?;
    }
    for name in names {
        let of_name = list_backups(storages, Some(name)).await?;
        listing.backups.extend(of_name.backups);
        listing.broken.extend(of_name.broken);
        for (storage, error) in of_name.silent {
            if !listing.silent.iter().any(|(known, _)| *known == storage) {
                listing.silent.push((storage, error));
            }
        }
    }
    listing.sort();
    listing.mark_shrunk(|name| {
        let configured = app.config.databases.iter();
        configured
            .filter(|database| database.name.as_str() == name)
            .map(|database| database.shrink_guard)
            .next()
            .unwrap_or(0.5)
    });
    Ok(listing)
}

/// `backup list`.
pub(super) async fn list(app: &App, args: ListArgs) -> Result<u8, Failure> {
    let names: Vec<String> = args.names.iter().map(ToString::to_string).collect();
    let storages = stores(app, &args.storage)?;
    let listing = listing(app, &names, &storages).await?;
    let code = u8::from(!listing.silent.is_empty());
    tell_silent(app, &listing);
    let mut table = Table::new([
        ("ID", Align::Left),
        ("DATABASE", Align::Left),
        ("TAKEN", Align::Left),
        ("KEYS", Align::Right),
        ("STORED", Align::Right),
        ("PLAIN", Align::Right),
        ("METHOD", Align::Left),
        ("STORAGE", Align::Left),
        ("", Align::Left),
    ]);
    let mut documents = Vec::new();
    let listed: Vec<String> = storages.iter().map(|s| s.name.clone()).collect();
    let lacks = lacks(app, &listing, &listed);
    for backup in &listing.backups {
        let manifest = &backup.manifest;
        let key = (manifest.database.clone(), manifest.id.clone());
        let lacking = lacks.get(&key).map(Vec::as_slice).unwrap_or_default();
        documents.push(with_lacks(backup_json(backup), lacking));
        let mut marks: Vec<String> = marks(backup).iter().map(ToString::to_string).collect();
        if !lacking.is_empty() {
            marks.push(format!("lacks {}", lacking.join(", ")));
        }
        table.row([
            manifest.id.to_string(),
            manifest.database.clone(),
            HumanTime(manifest.snapshot_at).to_string(),
            HumanCount(manifest.rdb.keys).to_string(),
            HumanBytes(manifest.data.bytes).to_string(),
            HumanBytes(manifest.data.plain_bytes).to_string(),
            manifest.method.clone(),
            backup.place.storage().to_owned(),
            marks.join(", "),
        ]);
    }
    tell_lacks(&lacks);
    for broken in &listing.broken {
        let failure = failure_of(broken);
        tracing::warn!("{}: {}", broken.id, failure.message);
        documents.push(failed_json(&broken.database, &failure));
        table.row([
            broken.id.to_string(),
            broken.database.clone(),
            HumanTime(broken.id.time()).to_string(),
            String::new(),
            String::new(),
            String::new(),
            String::new(),
            broken.place.storage().to_owned(),
            match failure.kind {
                Kind::Damaged => "DAMAGED".to_owned(),
                _ => "UNREADABLE".to_owned(),
            },
        ]);
    }
    // A name that is neither configured nor in the archive is a mistyped one.
    for name in &names {
        let known = |of: &str| of == name;
        if !listing.backups.iter().any(|b| known(&b.manifest.database))
            && !listing.broken.iter().any(|b| known(&b.database))
        {
            app.config.database(name)?;
        }
    }
    if table.is_empty() && !app.output.is_json() {
        let wheres: Vec<String> = storages.iter().map(|s| s.store.describe()).collect();
        let whose = match names.is_empty() {
            true => String::new(),
            false => format!(" of {}", names.join(", ")),
        };
        app.result(
            &documents,
            format!("no backups{whose} in {}", wheres.join(", ")),
        )?;
        return Ok(code);
    }
    app.result(&documents, table)?;
    Ok(code)
}

/// Tells of storages that do not answer: what they hold is not in the list.
pub(super) fn tell_silent(app: &App, listing: &Listing) {
    for (storage, error) in &listing.silent {
        let message = format!("storage {storage} cannot be listed");
        let failure = Failure::new(Kind::Storage, message)
            .caused_by(error)
            .hint("--storage NAME looks at one storage alone");
        app.output.tell(&failure);
    }
}

/// The failure of a broken backup in a listing, borrowed.
fn failure_of(broken: &Broken) -> Failure {
    match &broken.error {
        Error::Newer { .. } => Failure::new(Kind::Failed, broken.error.to_string())
            .hint("use the newest rdbkeeper to read it"),
        Error::Storage(error) => {
            let failure = Failure::new(Kind::Storage, error.to_string()).caused_by(error);
            failure.hint("it is not known whether the backup is whole: try again later")
        }
        error => Failure::new(Kind::Damaged, error.to_string())
            .hint("`rdbkeeper backup verify` tells which backups are whole"),
    }
}

pub(super) fn marks(backup: &Backup) -> Vec<&'static str> {
    [
        (backup.pinned, "pinned"),
        (backup.damaged, "DAMAGED"),
        (backup.accepted, "accepted"),
        (backup.shrunk, "SHRUNK"),
        (backup.manifest.rdb.opaque, "opaque"),
        (backup.manifest.data.encryption.is_some(), "encrypted"),
    ]
    .into_iter()
    .filter_map(|(is, mark)| is.then_some(mark))
    .collect()
}

/// `backup verify`: every backup that is meant is read, even after one that is damaged.
pub(super) async fn verify(app: &App, args: VerifyArgs) -> Result<u8, Failure> {
    let given = args.identity.identity.as_deref();
    let given = given.map(setup::identity).transpose()?;
    let mut results = Vec::new();
    let mut silent = false;
    if args.selectors.is_empty() {
        let storages = stores(app, &args.storage)?;
        let listing = listing(app, &[], &storages).await?;
        tell_silent(app, &listing);
        silent = !listing.silent.is_empty();
        for (name, subject) in chosen(app, listing, args.all) {
            results.push((name, subject));
        }
        if results.is_empty() {
            return Err(Failure::new(Kind::NotFound, "there is no backup to verify")
                .hint("`rdbkeeper backup now` makes one"));
        }
    }
    for selector in &args.selectors {
        results.push((
            selector.clone(),
            find(app, selector, storage_name(&args.storage).as_deref()).await,
        ));
    }
    let asked = results.len();
    let mut documents = Vec::new();
    let mut text = String::new();
    let mut worst: Option<Failure> = None;
    for (name, subject) in results {
        let verified = match subject {
            Ok(subject) => {
                let meter = Meter::default();
                let keys = keys_of(app, &subject, given.as_ref());
                let storage = subject.storage().map(str::to_owned);
                let work = verify::verify(subject, &keys, meter.clone());
                let verified = app.with_progress("verifying", Unit::Bytes, &meter, work);
                // Of several copies it has to be known which one is meant.
                verified.await.map_err(|failure| match storage {
                    Some(storage) => failure.cause(format!("it lies in storage {storage}")),
                    None => failure,
                })
            }
            Err(failure) => Err(failure),
        };
        match verified {
            Ok(verified) => {
                text.push_str(&verified_text(app, &name, &verified));
                documents.push(serde_json::to_value(&verified).unwrap_or_default());
            }
            Err(failure) if asked == 1 => return Err(failure),
            Err(failure) => {
                documents.push(failed_json(&name, &failure));
                if !app.output.is_json() {
                    app.output.tell(&failure);
                }
                // A damaged backup is the gravest of what can be found.
                if worst
                    .as_ref()
                    .is_none_or(|worst| worst.kind != Kind::Damaged)
                {
                    worst = Some(failure);
                }
            }
        }
    }
    app.result(&documents, text)?;
    Ok(worst.map_or(u8::from(silent), |failure| failure.kind.exit_code()))
}

/// Of a listing: everything, or the newest of each database, whether it can be read or not.
fn chosen(app: &App, listing: Listing, all: bool) -> Vec<(String, Result<Subject, Failure>)> {
    let mut found: Vec<(Timestamp, BackupId, String, Result<Subject, Failure>)> = Vec::new();
    for backup in listing.backups {
        let manifest = &backup.manifest;
        let (began, id) = (manifest.started_at, manifest.id.clone());
        let name = manifest.database.clone();
        found.push((began, id, name, Ok(Subject::Stored(Box::new(backup)))));
    }
    for broken in listing.broken {
        let failure = failure_of(&broken);
        // What is known of one without a manifest is the second in its ID.
        found.push((broken.id.time(), broken.id, broken.database, Err(failure)));
    }
    found.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    if !all {
        let configured = configured(app);
        let newest = |name: &String| found.iter().rev().find(|(_, _, of, _)| of == name);
        let newest: Vec<(BackupId, String)> = configured
            .iter()
            .filter_map(newest)
            .map(|(_, id, name, _)| (id.clone(), name.clone()))
            .collect();
        let is_newest =
            |id: &BackupId, name: &String| newest.iter().any(|n| n.0 == *id && n.1 == *name);
        found.retain(|(_, id, name, _)| is_newest(id, name));
    }
    found
        .into_iter()
        .map(|(_, _, name, subject)| (name, subject))
        .collect()
}

fn verified_text(app: &App, name: &str, verified: &Verified) -> String {
    let what = match (&verified.id, &verified.database, &verified.storage) {
        (Some(id), Some(database), Some(storage)) => format!("{database} {id} in {storage}"),
        _ => name.to_owned(),
    };
    let digests = match verified.digests {
        true => "digests match",
        false => "no manifest, so no digests to compare",
    };
    let result = match verified.result {
        "whole" => app.output.paint(Paint::Good, "whole"),
        other => app.output.paint(Paint::Warning, other),
    };
    match &verified.content {
        Some(content) => format!(
            "{result} {what}: {}, {}, {digests}, RDB checksum {}\n",
            HumanCount(content.rdb.keys).of("key", "keys"),
            HumanBytes(content.plain_bytes),
            content.checksum
        ),
        None => format!(
            "{result} {what}: {}, size and SHA-256 match; it is encrypted and the key is not here, so this is all that could be checked{}\n",
            HumanBytes(verified.bytes),
            match verified.still_damaged {
                true => "; its mark DAMAGED stands until it is verified with the key",
                false => "",
            }
        ),
    }
}

/// `backup delete`.
pub(super) async fn delete(app: &App, args: DeleteArgs) -> Result<u8, Failure> {
    let selector: Selector = args.selector.parse()?;
    let storages = stores(app, &args.storage)?;
    let databases = configured(app);
    let finder = Finder {
        storages: &storages,
        databases: &databases,
    };
    let finding = async { Ok(finder.find_places(&selector).await?) };
    let Places { places, silent } = app.stoppable(finding).await?;
    let names: Vec<String> = places.iter().map(|place| place.describe()).collect();
    if !args.yes {
        return Err(Failure::new(
            Kind::Usage,
            format!("this would remove {} for good", names.join(" and ")),
        )
        .hint("add --yes to do it"));
    }
    for place in &places {
        if app.cancel.is_cancelled() {
            return Err(Failure::interrupted());
        }
        let deleting = async { Ok(commit::delete(place).await?) };
        app.stoppable_in_grace(deleting).await?;
    }
    app.result(
        &json!({ "deleted": names }),
        format!("removed {}", names.join(" and ")),
    )?;
    Ok(tell_unasked(app, &silent))
}

/// Tells of storages that could not be asked whether they have the backup. Gives the exit code.
pub(super) fn tell_unasked(app: &App, silent: &[(String, Error)]) -> u8 {
    for (storage, error) in silent {
        let message = format!("storage {storage} does not answer: nothing was changed there");
        let failure = Failure::new(Kind::Storage, message)
            .caused_by(error)
            .hint("run it again when it is back");
        app.output.tell(&failure);
    }
    u8::from(!silent.is_empty())
}
