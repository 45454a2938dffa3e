//! `backup copy`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::args::CopyArgs;
use super::backup::{failed_json, find_copies, listing, storage_name, tell_silent};
use super::context::App;
use super::lacks;
use super::output::Paint;
use super::progress::Unit;
use crate::catalog::Backup;
use crate::catalog::list::{Listing, list};
use crate::catalog::selector::Subject;
use crate::config::Name;
use crate::copy::{self, Copied};
use crate::failure::{Failure, Kind};
use crate::meter::Meter;
use crate::setup;
use crate::storage::NamedStore;
use crate::units::HumanBytes;

/// What is to be copied: the name that it was asked for by, and its copies, the nearest first.
struct Asked {
    name: String,
    copies: Result<Vec<Backup>, Failure>,
}

/// `backup copy`: every backup that is meant is copied, even after one that cannot be.
pub(super) async fn copy(app: &App, args: CopyArgs) -> Result<u8, Failure> {
    let mut to = setup::stores(&app.config, Some(args.to.as_str()))?;
    let to = to.swap_remove(0);
    let from = storage_name(&args.storage);
    let mut code = 0;
    let asked = match args.all {
        true => {
            let lacking = lacking(app, &args.selectors, from.as_deref(), &to, &mut code);
            app.stoppable(lacking).await?
        }
        false => {
            let mut asked = Vec::new();
            for name in args.selectors {
                let copies = app.stoppable(named(app, &name, from.as_deref())).await;
                asked.push(Asked { name, copies });
            }
            asked
        }
    };
    let alone = asked.len() == 1;
    let mut documents: Vec<Value> = Vec::new();
    let mut text = String::new();
    let mut held = BTreeMap::new();
    let mut stopped = false;
    for Asked { name, copies } in asked {
        if app.cancel.is_cancelled() {
            stopped = true;
            break;
        }
        let copied = match copies {
            Ok(copies) => one(app, &copies, &to, &mut held).await,
            Err(failure) => Err(failure),
        };
        match copied {
            Ok(copied) => {
                text.push_str(&copied_text(app, &copied));
                documents.push(serde_json::to_value(&copied).unwrap_or_default());
            }
            Err(failure) if alone => return Err(failure),
            Err(failure) => {
                code = code.max(1);
                stopped |= failure.kind == Kind::Interrupted;
                documents.push(failed_json(&name, &failure));
                if !app.output.is_json() {
                    app.output.tell(&failure);
                }
            }
        }
    }
    if documents.is_empty() && !app.output.is_json() && !stopped {
        text = format!("{} lacks nothing\n", to.name);
    }
    app.result(&documents, text)?;
    match stopped {
        true => Err(Failure::interrupted()),
        false => Ok(code),
    }
}

/// The copies of a backup that a person named.
async fn named(app: &App, selector: &str, from: Option<&str>) -> Result<Vec<Backup>, Failure> {
    let found = find_copies(app, selector, from).await?;
    let copies = found.into_iter().filter_map(|subject| match subject {
        Subject::Stored(backup) => Some(*backup),
        Subject::File(_) => None,
    });
    let copies: Vec<Backup> = copies.collect();
    match copies.is_empty() {
        false => Ok(copies),
        true => Err(Failure::new(
            Kind::Usage,
            format!("{selector} is a file: it has no manifest, and cannot be copied"),
        )
        .hint("name the folder that holds manifest.json")),
    }
}

/// Every backup of these databases that the target lacks, as `list` tells it, oldest first.
async fn lacking(
    app: &App,
    names: &[String],
    from: Option<&str>,
    to: &NamedStore,
    code: &mut u8,
) -> Result<Vec<Asked>, Failure> {
    for name in names {
        name.parse::<Name>()
            .map_err(|error| Failure::new(Kind::Usage, error.to_string()))?;
    }
    let databases = setup::databases(&app.config, names)?;
    let mut asked = Vec::new();
    for database in databases {
        let name = database.name.to_string();
        let mut storages = setup::nearest(&app.config, from, Some(&name))?;
        storages.retain(|storage| storage.name != to.name);
        let elsewhere = listing(app, std::slice::from_ref(&name), &storages).await?;
        tell_silent(app, &elsewhere);
        if !elsewhere.silent.is_empty() {
            *code = 1;
        }
        let mut all = listing(app, std::slice::from_ref(&name), std::slice::from_ref(to)).await?;
        all.backups.extend(elsewhere.backups);
        for id in lacks::lacking(app, &all, database, &to.name) {
            let of_id = all.backups.iter().filter(|copy| copy.manifest.id == id);
            let mut copies: Vec<Backup> = of_id.cloned().collect();
            copies.sort_by_key(|copy| copy.damaged);
            let copies = Ok(copies);
            let name = name.clone();
            asked.push(Asked { name, copies });
        }
    }
    Ok(asked)
}

/// Copies one, after a look at whose backups the target holds, which is kept in `held`.
async fn one(
    app: &App,
    copies: &[Backup],
    to: &NamedStore,
    held: &mut BTreeMap<String, Listing>,
) -> Result<Copied, Failure> {
    let Some(nearest) = copies.first() else {
        return Err(Failure::new(Kind::NotFound, "there is no such backup"));
    };
    let database = nearest.manifest.database.clone();
    let shared = app.config.database(&database).is_ok_and(|of| of.shared);
    if !shared {
        if !held.contains_key(&database) {
            let listing =
                app.stoppable(async { Ok(list(std::slice::from_ref(to), Some(&database)).await?) });
            held.insert(database.clone(), listing.await?);
        }
        if let Some(listing) = held.get(&database) {
            copy::may_take(listing, &nearest.manifest)?;
        }
    }
    // One that lies in the target itself is no source, unless there is no other: then it is there.
    let elsewhere = |copy: &&Backup| copy.place.storage() != to.name;
    let others: Vec<Backup> = copies.iter().filter(elsewhere).cloned().collect();
    let from = match others.is_empty() {
        true => copies,
        false => &others,
    };
    let meter = Meter::default();
    let host = setup::host_name();
    let work = copy::copy(from, to, &host, &meter, &app.cancel);
    app.with_progress("copying", Unit::Bytes, &meter, work)
        .await
}

fn copied_text(app: &App, copied: &Copied) -> String {
    let Copied {
        id,
        database,
        from,
        to,
        ..
    } = copied;
    match copied.copied {
        true => format!(
            "{} {database} {id} from {from} to {to} ({})\n",
            app.output.paint(Paint::Good, "copied"),
            HumanBytes(copied.bytes)
        ),
        false => format!("{database} {id} is in {to} already\n"),
    }
}
