//! `sessions report`, `sessions expire`.

mod report_text;
mod tally_text;

use serde_json::{Value, json};

use super::args::{ExpireArgs, ReportArgs};
use super::context::App;
use super::output::error_json;
use super::progress::Unit;
use crate::config::{DatabaseConfig, Name};
use crate::failure::{Failure, Kind};
use crate::meter::Meter;
use crate::runs::Keeper;
use crate::selection::KeyNames;
use crate::sessions::journey;
use crate::sessions::report::{Report, ReportDocument};
use crate::sessions::sweep::{self, Mode, Swept};
use crate::sessions::tally::Tally;
use crate::setup;

/// What came of one configured database: its JSON, and its text.
type Told = (Value, String);

/// Why one failed, and what had been done by then, if anything.
type Failed = (Failure, Option<Told>);

/// `sessions report`.
pub(super) async fn report(app: &App, args: ReportArgs) -> Result<u8, Failure> {
    let names: Vec<String> = args.names.iter().map(Name::to_string).collect();
    let databases = setup::databases(&app.config, &names)?;
    let keys = if args.show_keys {
        KeyNames::Shown
    } else {
        KeyNames::Masked
    };
    let mut run = Run::new(app, databases.len());
    for database in databases {
        let name = database.name.as_str();
        let told = report_one(app, database, keys).await;
        run.add(
            name,
            told.map_err(|failure| (failure.context(format!("no report on {name}")), None)),
        )?;
    }
    run.end()
}

async fn report_one(app: &App, database: &DatabaseConfig, keys: KeyNames) -> Result<Told, Failure> {
    let meter = Meter::default();
    let job = setup::sweep(&app.config, database, Mode::Report, &app.cancel, &meter)?;
    let mut report = Report::new(&job.rules);
    let work = sweep::sweep(job, &mut report);
    let swept = app
        .with_progress("looking at keys", Unit::Keys, &meter, work)
        .await?;
    warn(database, &swept.warnings);
    for visited in &swept.databases {
        report.visit(visited.db);
    }
    let document = ReportDocument::new(database.name.as_str(), &swept, report, keys);
    let text = report_text::text(&document, &|paint, text| app.output.paint(paint, text));
    Ok((serde_json::to_value(&document).unwrap_or_default(), text))
}

/// `sessions expire`.
pub(super) async fn expire(app: &App, args: ExpireArgs) -> Result<u8, Failure> {
    let names: Vec<String> = args.names.iter().map(Name::to_string).collect();
    let mut databases = setup::databases(&app.config, &names)?;
    if names.is_empty() {
        databases.retain(|database| !database.sessions.is_empty());
        if databases.is_empty() {
            return Err(without_rules("no database has rules for sessions"));
        }
    }
    let keeper = Keeper::new(&app.config, app.cancel.clone());
    let done = expire_all(app, &keeper, databases, args.dry_run).await;
    keeper.farewell().await;
    done
}

async fn expire_all(
    app: &App,
    keeper: &Keeper<'_>,
    databases: Vec<&DatabaseConfig>,
    dry_run: bool,
) -> Result<u8, Failure> {
    let mut run = Run::new(app, databases.len());
    for database in databases {
        let name = database.name.as_str();
        let told = expire_one(app, keeper, database, dry_run).await;
        run.add(
            name,
            told.map_err(|(failure, done)| {
                let message = match &done {
                    None => format!("the sessions of {name} are not expired"),
                    Some(_) => format!("not all sessions of {name} were looked at"),
                };
                (failure.context(message), done)
            }),
        )?;
    }
    run.end()
}

async fn expire_one(
    app: &App,
    keeper: &Keeper<'_>,
    database: &DatabaseConfig,
    dry_run: bool,
) -> Result<Told, Failed> {
    if database.sessions.is_empty() {
        return Err((without_rules("it has no rules for sessions"), None));
    }
    let work = async {
        match dry_run {
            true => look(app, database, keeper.meter()).await,
            false => keeper.expire(database, None).await,
        }
    };
    let (tally, swept) = app
        .with_progress("expiring sessions", Unit::Keys, keeper.meter(), work)
        .await;
    let mut document = tally.document(database.name.as_str(), dry_run);
    let mut all = None;
    if let Ok(swept) = &swept {
        all = swept.databases.iter().map(|visited| visited.keys).sum();
        document.idle_waits.clone_from(&swept.idle_waits);
    }
    let text = tally_text::text(&document, all, &|paint, text| app.output.paint(paint, text));
    match swept {
        Ok(swept) => {
            warn(database, &swept.warnings);
            Ok((serde_json::to_value(&document).unwrap_or_default(), text))
        }
        Err(failure) if tally.done() > 0 => {
            let done = format!(
                "{} had been done by then, and stay so",
                tally_text::keys(tally.done())
            );
            let document = serde_json::to_value(&document).unwrap_or_default();
            Err((failure.cause(done), Some((document, text))))
        }
        Err(failure) => Err((failure, None)),
    }
}

/// A dry run. It may be done at any time, and says what would stop the real one.
async fn look(
    app: &App,
    database: &DatabaseConfig,
    meter: &Meter,
) -> (Tally, Result<Swept, Failure>) {
    let mut tally = Tally::new(&database.sessions);
    let work = async {
        let job = setup::sweep(&app.config, database, Mode::DryRun, &app.cancel, meter)?;
        let conditions = setup::conditions(&app.config, database)?;
        if let Err(refused) = journey::ask_for_backup(&job.name, &conditions).await {
            let why = format!("{}: {}", refused.message, refused.causes.join("; "));
            warn(database, &[why]);
        }
        Ok(sweep::sweep(job, &mut tally).await?)
    };
    let swept = work.await;
    (tally, swept)
}

fn without_rules(message: &str) -> Failure {
    Failure::new(Kind::Config, message)
        .hint("write [[database.sessions]]; `rdbkeeper sessions report` suggests what")
}

fn warn(database: &DatabaseConfig, warnings: &[String]) {
    for warning in warnings {
        tracing::warn!(database = database.name.as_str(), "{warning}");
    }
}

/// The results of one command over several databases: one that fails does not keep the others from being done.
struct Run<'a> {
    app: &'a App,
    asked: usize,
    code: u8,
    documents: Vec<Value>,
    texts: Vec<String>,
}

impl<'a> Run<'a> {
    fn new(app: &'a App, asked: usize) -> Run<'a> {
        Run {
            app,
            asked,
            code: 0,
            documents: Vec::new(),
            texts: Vec::new(),
        }
    }

    /// Takes what came of a database. One alone fails as itself, and a signal ends the run: what was done until
    /// then is told before.
    fn add(&mut self, name: &str, told: Result<Told, Failed>) -> Result<(), Failure> {
        let (failure, done) = match told {
            Ok((document, text)) => {
                self.documents.push(document);
                self.texts.push(text);
                return Ok(());
            }
            Err(failed) => failed,
        };
        let (mut document, text) = done.unwrap_or_default();
        if !text.is_empty() {
            self.texts.push(text);
        }
        match &mut document {
            Value::Object(members) => {
                members.insert("error".to_owned(), error_json(&failure));
            }
            _ => document = json!({ "database": name, "error": error_json(&failure) }),
        }
        let ends = failure.kind == Kind::Interrupted;
        if self.asked == 1 {
            // Its one JSON document is the error.
            if !self.app.output.is_json() && !self.texts.is_empty() {
                self.app.result(&document, self.texts.join("\n"))?;
            }
            return Err(failure);
        }
        self.documents.push(document);
        self.code = 1;
        if ends {
            self.app.result(&self.documents, self.texts.join("\n"))?;
            return Err(failure);
        }
        if !self.app.output.is_json() {
            self.app.output.tell(&failure);
        }
        Ok(())
    }

    fn end(self) -> Result<u8, Failure> {
        self.app.result(&self.documents, self.texts.join("\n"))?;
        if self.app.cancel.is_cancelled() {
            return Err(Failure::interrupted());
        }
        Ok(self.code)
    }
}
