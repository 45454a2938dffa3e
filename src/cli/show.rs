//! `backup show`.

use jiff::Timestamp;
use serde_json::json;

use super::args::ShowArgs;
use super::backup::{backup_json, listing, marks, stores};
use super::content::content_text;
use super::context::App;
use super::copies::Copies;
use super::lacks::{lacks, with_lacks};
use super::output::{HumanTime, error_json};
use super::progress::Unit;
use super::table::{Align, Facts, Table};
use crate::catalog::Backup;
use crate::catalog::manifest::Rdb;
use crate::catalog::selector::{BY_PATH, Subject};
use crate::failure::{Failure, Kind};
use crate::inspect::content::{Content, Survey};
use crate::meter::Meter;
use crate::reading::read_async;
use crate::selection::KeyNames;
use crate::units::{HumanBytes, HumanCount};
use crate::verify::{self, Verified};

/// `backup show`.
pub(super) async fn show(app: &App, args: ShowArgs) -> Result<u8, Failure> {
    let names = match args.show_keys {
        true => KeyNames::Shown,
        false => KeyNames::Masked,
    };
    let mut copies = Copies::find(app, &args.selector, &args.storage, &args.identity).await?;
    match copies.nearest()? {
        Subject::Stored(backup) => {
            let mut backup = *backup;
            // What is computed of a backup needs those before it, and those elsewhere.
            let database = backup.manifest.database.clone();
            let mut lacking = Vec::new();
            if backup.place.storage() != BY_PATH {
                let storages = stores(app, &args.storage)?;
                let all = listing(app, std::slice::from_ref(&database), &storages).await?;
                let storage = backup.place.storage();
                let mut of_storage = all.backups.iter().filter(|b| b.place.storage() == storage);
                let same = of_storage.find(|b| b.manifest.id == backup.manifest.id);
                backup.shrunk = same.is_some_and(|same| same.shrunk);
                let listed: Vec<String> = storages.into_iter().map(|s| s.name).collect();
                let key = (database, backup.manifest.id.clone());
                lacking = lacks(app, &all, &listed).remove(&key).unwrap_or_default();
            }
            let mut document = with_lacks(backup_json(&backup), &lacking);
            let mut text = stored_text(&backup, &lacking);
            let wanted = args.content || (!args.no_content && !backup.place.store().is_remote());
            if !wanted {
                app.result(&document, text)?;
                return Ok(0);
            }
            if !args.content {
                copies.only_on_this_host();
            }
            match content(app, copies, names).await {
                Ok(content) => {
                    document["content"] = serde_json::to_value(&content).unwrap_or_default();
                    text.push_str(&content_text(&content));
                }
                // Nobody asked for it: the facts are what there is without the key.
                Err(failure)
                    if failure.kind == Kind::Key
                        && args.identity.identity.is_none()
                        && !args.content =>
                {
                    document["content"] = json!({ "error": error_json(&failure) });
                    text.push_str("\nIt is encrypted and the key is not here: what its keys add up to is not known.\n");
                }
                // The facts are worth having even then.
                Err(failure) => {
                    document["content"] = json!({ "error": error_json(&failure) });
                    app.result(&document, text)?;
                    return Err(failure);
                }
            }
            app.result(&document, text)?;
        }
        subject @ Subject::File(_) => {
            let meter = Meter::default();
            let keys = copies.keys(&subject);
            let survey = Survey::new(Timestamp::now(), names);
            let work = verify::verify_with(subject, &keys, survey, meter.clone());
            let (verified, survey) = app
                .with_progress("reading", Unit::Bytes, &meter, work)
                .await?;
            let mut document = serde_json::to_value(&verified).unwrap_or_default();
            let mut text = file_text(&verified);
            if let Some(survey) = survey.filter(|_| !args.no_content) {
                let content = survey.finish();
                document["content"] = serde_json::to_value(&content).unwrap_or_default();
                text.push_str(&content_text(&content));
            }
            app.result(&document, text)?;
        }
    }
    Ok(0)
}

/// Reads the backup for what its keys add up to.
async fn content(app: &App, copies: Copies<'_>, names: KeyNames) -> Result<Content, Failure> {
    let meter = Meter::default();
    let work = copies.with_nearest(
        || true,
        async |subject: Subject, keys| {
            if let Subject::Stored(backup) = &subject {
                meter.start_bytes(backup.manifest.data.plain_bytes);
            }
            let survey = Survey::new(Timestamp::now(), names);
            let (survey, _) = read_async(subject, keys, survey, meter.clone()).await?;
            Ok(survey.finish())
        },
    );
    app.with_progress("reading", Unit::Bytes, &meter, work)
        .await
}

fn stored_text(backup: &Backup, lacking: &[String]) -> String {
    let manifest = &backup.manifest;
    let source = &manifest.source;
    let mut facts = Facts::default();
    facts.add("backup", &manifest.id);
    facts.add("database", &manifest.database);
    facts.add(
        "storage",
        format!("{} ({})", backup.place.storage(), backup.place.describe()),
    );
    let marks = marks(backup);
    if !marks.is_empty() {
        facts.add("marks", marks.join(", "));
    }
    if !lacking.is_empty() {
        facts.add("lacks", lacking.join(", "));
    }
    facts.add(
        "taken",
        format!(
            "{} ({})",
            HumanTime(manifest.snapshot_at),
            manifest.consistency
        ),
    );
    facts.add(
        "method",
        format!(
            "{} from {} {}, {}",
            manifest.method, source.role, source.address, source.server
        ),
    );
    facts.add("host", format!("{} ({})", manifest.host, manifest.tool));
    facts.add(
        "stored",
        format!(
            "{} in {} ({})",
            HumanBytes(manifest.data.bytes),
            manifest.data.object,
            manifest.data.compression
        ),
    );
    if let Some(encryption) = &manifest.data.encryption {
        let whom = match &manifest.data.recipients[..] {
            [] => "with a passphrase".to_owned(),
            recipients => format!("to {}", recipients.join(", ")),
        };
        facts.add("encrypted", format!("{encryption}, {whom}"));
    }
    facts.add(
        "RDB file",
        format!(
            "{}, version {} {}",
            HumanBytes(manifest.data.plain_bytes),
            manifest.rdb.family,
            manifest.rdb.version
        ),
    );
    add_counts(&mut facts, &manifest.rdb);
    format!("{facts}\n{}", databases(&manifest.rdb))
}

fn file_text(verified: &Verified) -> String {
    let mut facts = Facts::default();
    facts.add("file", verified.path.as_deref().unwrap_or_default());
    let Some(content) = &verified.content else {
        return facts.to_string();
    };
    facts.add(
        "RDB file",
        format!(
            "{}, version {} {}",
            HumanBytes(content.plain_bytes),
            content.rdb.family,
            content.rdb.version
        ),
    );
    facts.add("checksum", content.checksum);
    add_counts(&mut facts, &content.rdb);
    format!("{facts}\n{}", databases(&content.rdb))
}

fn add_counts(facts: &mut Facts, rdb: &Rdb) {
    facts.add(
        "keys",
        format!(
            "{}, {} with an expiry",
            HumanCount(rdb.keys),
            HumanCount(rdb.expires)
        ),
    );
    if rdb.functions > 0 {
        facts.add("functions", rdb.functions);
    }
    if rdb.opaque {
        facts.add(
            "opaque",
            "it holds what this version does not know: the counts are those up to there",
        );
    }
}

fn databases(rdb: &Rdb) -> Table {
    let mut table = Table::new([
        ("DB", Align::Right),
        ("KEYS", Align::Right),
        ("EXPIRING", Align::Right),
        ("TYPES", Align::Left),
    ]);
    for database in &rdb.databases {
        let types: Vec<String> = database
            .types
            .iter()
            .map(|(kind, keys)| format!("{kind} {}", HumanCount(*keys)))
            .collect();
        table.row([
            database.db.to_string(),
            HumanCount(database.keys).to_string(),
            HumanCount(database.expires).to_string(),
            types.join(", "),
        ]);
    }
    table
}
