//! `backup pin`, `unpin`, `accept`: what a person says of a backup.

use serde_json::{Value, json};

use super::args::MarkArgs;
use super::backup::{configured, listing, stores, tell_unasked};
use super::context::App;
use crate::catalog::Selector;
use crate::catalog::list::Place;
use crate::catalog::markers::{self, Change, Marker};
use crate::catalog::selector::{BY_PATH, Finder, Places};
use crate::failure::{Failure, Kind};

/// `backup pin`.
pub(super) async fn pin(app: &App, args: MarkArgs) -> Result<u8, Failure> {
    let (done, code) = each(app, &args, async |place| {
        markers::set(place, Marker::Pinned).await
    })
    .await?;
    told(
        app,
        &done,
        code,
        "pinned",
        true,
        ["pinned", "was pinned already"],
    )
}

/// `backup unpin`.
pub(super) async fn unpin(app: &App, args: MarkArgs) -> Result<u8, Failure> {
    let (done, code) = each(app, &args, async |place| {
        markers::clear(place, Marker::Pinned).await
    })
    .await?;
    told(
        app,
        &done,
        code,
        "pinned",
        false,
        ["unpinned", "was not pinned"],
    )
}

/// `backup accept`.
pub(super) async fn accept(app: &App, args: MarkArgs) -> Result<u8, Failure> {
    let mut shrunk = Vec::new();
    let (done, code) = each(app, &args, async |place| {
        if is_shrunk(app, place).await {
            shrunk.push(place.describe());
        }
        markers::set(place, Marker::Accepted).await
    })
    .await?;
    let not_shrunk = |(place, change): &(Place, Change)| {
        *change == Change::Made && !shrunk.contains(&place.describe())
    };
    if done.iter().any(not_shrunk) {
        tracing::info!("it was not shrunk: accepting it changes nothing now");
    }
    let words = match done.iter().all(not_shrunk) {
        true => ["accepted (it was not shrunk)", "was accepted already"],
        false => ["accepted", "was accepted already"],
    };
    told(app, &done, code, "accepted", true, words)
}

/// Whether a backup is shrunk, as far as that can be found out.
async fn is_shrunk(app: &App, place: &Place) -> bool {
    let prefix = place.prefix();
    let (Some((database, id)), Ok(storages)) = (
        prefix.split_once('/'),
        crate::setup::stores(&app.config, Some(place.storage())),
    ) else {
        return false;
    };
    let listing = listing(app, &[database.to_owned()], &storages).await;
    listing.is_ok_and(|listing| {
        let mut backups = listing.backups.iter();
        backups.any(|backup| backup.shrunk && backup.manifest.id.as_str() == id)
    })
}

/// Marks the backup that is meant in every storage that has it. Gives the exit code, too: a storage may not answer.
async fn each(
    app: &App,
    args: &MarkArgs,
    mut mark: impl AsyncFnMut(&Place) -> Result<Change, crate::catalog::Error>,
) -> Result<(Vec<(Place, Change)>, u8), Failure> {
    let selector: Selector = args.selector.parse()?;
    let storages = stores(app, &args.storage)?;
    let databases = configured(app);
    let finder = Finder {
        storages: &storages,
        databases: &databases,
    };
    let Places { places, silent } = app
        .stoppable(async { Ok(finder.find_places(&selector).await?) })
        .await?;
    let mut done = Vec::new();
    let mut missing = None;
    for place in places {
        if app.cancel.is_cancelled() {
            return Err(Failure::interrupted());
        }
        let marking = async { Ok(mark(&place).await?) };
        match app.stoppable_in_grace(marking).await {
            Ok(change) => done.push((place, change)),
            // What one storage has only the debris of may be whole in another.
            Err(failure) if failure.kind == Kind::NotFound => missing = Some(failure),
            Err(failure) => return Err(failure),
        }
    }
    match (done.is_empty(), missing) {
        (true, Some(failure)) => Err(failure),
        _ => Ok((done, tell_unasked(app, &silent))),
    }
}

fn told(
    app: &App,
    done: &[(Place, Change)],
    code: u8,
    member: &str,
    value: bool,
    [made, none]: [&str; 2],
) -> Result<u8, Failure> {
    let mut text = String::new();
    let mut documents = Vec::new();
    for (place, change) in done {
        let prefix = place.prefix();
        let (database, id) = prefix.split_once('/').unwrap_or(("", &prefix));
        let word = match change {
            Change::Made => made,
            Change::None => none,
        };
        let of = |text: &str| match text.is_empty() {
            true => Value::Null,
            false => text.into(),
        };
        let storage = (place.storage() != BY_PATH).then(|| place.storage());
        documents.push(json!({
            "id": of(id),
            "database": of(database),
            "storage": storage,
            member: value,
            "changed": *change == Change::Made,
        }));
        text.push_str(&format!("{}: {word}\n", place.describe()));
    }
    app.result(&documents, text)?;
    Ok(code)
}
