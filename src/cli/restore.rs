//! `restore`.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use tokio::runtime::Handle;

use super::args::{self, RestoreArgs};
use super::backup::{find_copies, keys_of};
use super::context::App;
use super::output::{Paint, error_json, printable};
use super::progress::Unit;
use crate::catalog::selector::Subject;
use crate::failure::{Failure, Kind};
use crate::meter::Meter;
use crate::pipeline::Keys;
use crate::rdb::{DbIndex, Handler, LogicalType, Report};
use crate::reading::{self, Proven};
use crate::restore::{
    self, Backup, Check, Loss, NotFetched, NotGood, OnProgress, Outcome, Plan, Prepared, Request,
    Stage, Ttl,
};
use crate::secret::Secret;
use crate::selection::{Filters, KeyNames, KeyPattern};
use crate::server::{Address, Endpoint};
use crate::setup;
use crate::spool::Spool;
use crate::target::Rename;
use crate::target::file::{Existing, PendingFile};
use crate::target::live::OnConflict;
use crate::target::way::Mode;
use crate::units::{HumanBytes, HumanCount};

/// The backup to restore, as the journey wants it: readable as often as it is asked for.
struct Readable {
    subject: Subject,
    keys: Keys,
    runtime: Handle,
    proven: Proven,
}

impl Backup for Readable {
    fn read<H>(&self, mut handler: H) -> Result<(H, Report), Failure>
    where
        H: Handler<Error = Failure> + Send + 'static,
    {
        let whole = reading::read(
            &self.runtime,
            &self.subject,
            &self.keys,
            &mut handler,
            &Meter::default(),
            Some(&self.proven),
        )?;
        Ok((handler, whole.report))
    }
}

/// Why a copy of the backup was not restored.
enum Stop {
    /// It is not whole, or its storage does not give it. Nothing was touched, so another copy may do.
    Copy(Failure),
    /// Anything else.
    Final(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Final(failure)
    }
}

/// Restores to a server or into a file, from the nearest copy that is whole.
pub(super) async fn restore(app: &App, args: RestoreArgs) -> Result<u8, Failure> {
    let given = args.identity.as_deref();
    let given = given.map(setup::identity).transpose()?;
    let to = destination(app, &args).await?;
    let only = args.storage.as_ref().map(|name| name.as_str());
    let mut copies = app
        .stoppable(find_copies(app, &args.selector, only))
        .await?
        .into_iter()
        .peekable();
    let mut first: Option<Failure> = None;
    while let Some(subject) = copies.next() {
        match from_copy(app, &args, &to, given.as_ref(), subject).await {
            Ok(code) => return Ok(code),
            Err(Stop::Final(mut failure)) => {
                if let (Kind::Damaged, Some(other)) = (failure.kind, copies.peek()) {
                    failure.hint = elsewhere(other);
                }
                return Err(failure);
            }
            Err(Stop::Copy(failure)) => {
                if copies.peek().is_some() {
                    tracing::warn!("{failure}; nothing was written, and another copy is taken");
                }
                first.get_or_insert(failure);
            }
        }
    }
    Err(match first {
        Some(failure) => failure.cause("nothing was written"),
        None => Failure::new(Kind::NotFound, "there is no such backup"),
    })
}

fn elsewhere(other: &Subject) -> Option<String> {
    let Subject::Stored(other) = other else {
        return None;
    };
    let storage = other.place.storage();
    Some(format!(
        "storage {storage} has another copy: add `--storage {storage}`"
    ))
}

/// Where to, as far as it can be judged before a backup is read.
enum Destination<'a> {
    Server(Box<Endpoint>, &'a str),
    File(&'a Path),
}

/// Judges the destination, and asks for what it wants from a person: before anything is fetched, which may take long.
async fn destination<'a>(app: &App, args: &'a RestoreArgs) -> Result<Destination<'a>, Failure> {
    match (&args.to.to, &args.to.to_file) {
        (Some(to), _) => {
            let endpoint = app.stoppable(log_in(endpoint(app, args, to)?)).await?;
            Ok(Destination::Server(Box::new(endpoint), to))
        }
        (None, Some(path)) => {
            if !args.dry_run {
                // Dropped at once, it leaves nothing.
                PendingFile::create(path, existing(args))?;
            }
            Ok(Destination::File(path))
        }
        // The command line's own rules see to it that there is one.
        (None, None) => Err(Failure::new(Kind::Usage, "no destination is given")
            .hint("add --to NAME|URL or --to-file PATH")),
    }
}

async fn from_copy(
    app: &App,
    args: &RestoreArgs,
    to: &Destination<'_>,
    given: Option<&Keys>,
    subject: Subject,
) -> Result<u8, Stop> {
    let mut request = request(args)?;
    let keys = keys_of(app, &subject, given);
    // Before anything is fetched: whoever lacks the key is to know at once.
    app.stoppable(reading::may_read(&subject, &keys))
        .await
        .map_err(of_read)?;
    if let Subject::Stored(backup) = &subject {
        request.snapshot_ms = Some(backup.manifest.snapshot_at.as_millisecond());
    }
    let backup = Arc::new(Readable {
        subject: fetched(app, subject).await?,
        keys,
        runtime: Handle::current(),
        proven: Proven::default(),
    });
    match to {
        Destination::Server(endpoint, to) => {
            let endpoint = endpoint.as_ref().clone();
            to_server(app, args, (to, endpoint), backup, request).await
        }
        Destination::File(path) => to_file(app, args, path, backup, request).await,
    }
}

/// The backup, fetched when it is far away.
async fn fetched(app: &App, subject: Subject) -> Result<Subject, Stop> {
    let backup = match subject {
        Subject::Stored(backup) => *backup,
        file @ Subject::File(_) => return Ok(file),
    };
    let (spool, meter) = (Spool::new(&app.config.daemon.spool_dir), Meter::default());
    let work = async {
        tokio::select! {
            fetched = restore::fetch(backup, &spool, &meter) => fetched,
            () = app.cancel.cancelled() => Err(NotFetched::Copy(Failure::interrupted())),
        }
    };
    let fetched = app
        .with_progress("fetching", Unit::Bytes, &meter, work)
        .await;
    match fetched {
        Ok(backup) => Ok(Subject::Stored(Box::new(backup))),
        Err(NotFetched::Copy(failure)) => Err(of_read(failure)),
        // No other copy would fit either.
        Err(NotFetched::Spool(failure)) => Err(Stop::Final(failure)),
    }
}

/// A failure of getting at a copy: whether it is the copy's.
fn of_read(failure: Failure) -> Stop {
    match failure.kind {
        Kind::Damaged | Kind::NotFound | Kind::Storage => Stop::Copy(failure),
        _ => Stop::Final(failure),
    }
}

/// A failure from before anything was written: whether it is the copy's.
fn of_copy(failure: Failure) -> Stop {
    match failure.kind {
        Kind::Damaged => Stop::Copy(failure),
        _ => Stop::Final(failure),
    }
}

/// The keys that are meant.
pub(super) fn filters(args: &args::Filters) -> Result<Filters, Failure> {
    let patterns = |globs: &[Vec<u8>]| globs.iter().cloned().map(KeyPattern::new).collect();
    let mut filters = Filters {
        databases: args.db.iter().copied().map(DbIndex).collect(),
        include: patterns(&args.r#match),
        exclude: patterns(&args.exclude),
        ..Filters::default()
    };
    for name in &args.r#type {
        let kind: LogicalType = name
            .parse()
            .map_err(|_| Failure::new(Kind::Usage, format!("`{name}` is not a type")))?;
        filters.types.insert(kind);
    }
    Ok(filters)
}

fn request(args: &RestoreArgs) -> Result<Request, Failure> {
    let mut request = Request {
        filters: filters(&args.filters)?,
        flush: args.flush,
        rate: args.rate.unwrap_or(0),
        always_look: args.dry_run,
        on_conflict: match args.on_conflict {
            args::OnConflict::Fail => OnConflict::Fail,
            args::OnConflict::Skip => OnConflict::Skip,
            args::OnConflict::Replace => OnConflict::Replace,
        },
        check: match args.check {
            args::Check::All => Check::All,
            args::Check::Sample => Check::Sample,
            args::Check::None => Check::None,
        },
        mode: match args.mode {
            args::Mode::Auto => Mode::Auto,
            args::Mode::Restore => Mode::Restore,
            args::Mode::Commands => Mode::Commands,
        },
        loss: match args.allow_loss {
            true => Loss::Allowed,
            false => Loss::Refused,
        },
        ttl: match args.ttl {
            args::Ttl::Keep => Ttl::Keep,
            args::Ttl::Shift => Ttl::Shift,
            args::Ttl::Strip => Ttl::Strip,
        },
        names: match args.show_keys {
            true => KeyNames::Shown,
            false => KeyNames::Masked,
        },
        ..Request::default()
    };
    for (old, new) in &args.map {
        if request.map.insert(DbIndex(*old), DbIndex(*new)).is_some() {
            return Err(Failure::new(
                Kind::Usage,
                format!("database {old} is mapped twice"),
            ));
        }
    }
    request.rename = args
        .rename_prefix
        .iter()
        .map(|(from, to)| Rename {
            from: from.clone(),
            to: to.clone(),
        })
        .collect();
    Ok(request)
}

fn existing(args: &RestoreArgs) -> Existing {
    match args.yes {
        true => Existing::Replace,
        false => Existing::Refuse,
    }
}

/// Shows the journey's progress by a meter.
fn progress(meter: &Meter) -> OnProgress {
    let meter = meter.clone();
    Arc::new(move |progress| {
        meter.start_phase(match progress.stage {
            Stage::Reading => "reading the backup",
            Stage::Looking => "looking for keys that are there",
            Stage::Writing => "writing",
            Stage::Checking => "comparing",
        });
        meter.start_keys(progress.of.unwrap_or(0));
        meter.add_keys(progress.keys);
    })
}

async fn to_file(
    app: &App,
    args: &RestoreArgs,
    path: &Path,
    backup: Arc<Readable>,
    request: Request,
) -> Result<u8, Stop> {
    let meter = Meter::default();
    if args.dry_run {
        let work = restore::plan_file(backup, path, request, progress(&meter), app.cancel.clone());
        let plan = app
            .with_progress("checking", Unit::Keys, &meter, work)
            .await
            .map_err(of_copy)?;
        return Ok(dry_run(app, &plan)?);
    }
    let work = restore::to_file(
        backup,
        path,
        existing(args),
        request,
        progress(&meter),
        app.cancel.clone(),
    );
    let outcome = app
        .with_progress("restoring", Unit::Keys, &meter, work)
        .await
        .map_err(of_copy)?;
    app.result(&outcome, outcome_text(app, &outcome))?;
    Ok(0)
}

async fn to_server(
    app: &App,
    args: &RestoreArgs,
    (to, endpoint): (&str, Endpoint),
    backup: Arc<Readable>,
    mut request: Request,
) -> Result<u8, Stop> {
    request.into = endpoint.address.db().map(DbIndex);
    if args.rate.is_none()
        && let Ok(database) = app.config.database(to)
    {
        request.rate = database.max_keys_per_second;
    }
    let meter = Meter::default();
    let work = restore::prepare(
        backup,
        endpoint,
        request,
        progress(&meter),
        app.cancel.clone(),
    );
    let prepared: Prepared<Readable> = app
        .with_progress("checking", Unit::Keys, &meter, work)
        .await
        .map_err(of_copy)?;
    if args.dry_run {
        return Ok(dry_run(app, prepared.plan())?);
    }
    if prepared.plan().refusal.is_none()
        && !args.yes
        && let Some(question) = prepared.plan().question()
    {
        app.stoppable(agree(&question)).await?;
    }
    for warning in &prepared.plan().warnings {
        tracing::warn!("{warning}");
    }
    let ran = app
        .with_progress("restoring", Unit::Keys, &meter, prepared.run())
        .await;
    match ran {
        Ok(outcome) => {
            app.result(&outcome, outcome_text(app, &outcome))?;
            Ok(0)
        }
        Err(NotGood {
            failure,
            outcome: Some(outcome),
        }) if app.output.is_json() => {
            let error = error_json(&failure);
            app.result(&Unlike { outcome, error }, "")?;
            Ok(failure.kind.exit_code())
        }
        Err(NotGood { failure, .. }) => Err(Stop::Final(failure)),
    }
}

/// What was restored and is not as it should be.
#[derive(Serialize)]
struct Unlike {
    #[serde(flatten)]
    outcome: Box<Outcome>,
    error: serde_json::Value,
}

fn dry_run(app: &App, plan: &Plan) -> Result<u8, Failure> {
    app.result(plan, plan.to_string())?;
    let Some(refusal) = &plan.refusal else {
        return Ok(0);
    };
    if !app.output.is_json() {
        app.output.tell(refusal);
    }
    Ok(refusal.kind.exit_code())
}

/// The server that `--to` names.
fn endpoint(app: &App, args: &RestoreArgs, to: &str) -> Result<Endpoint, Failure> {
    let mut endpoint = match to.contains("://") {
        true => {
            let address: Address =
                to.parse()
                    .map_err(|error: crate::server::address::AddressError| {
                        Failure::new(Kind::Usage, "--to is not a server's URL").caused_by(&error)
                    })?;
            Endpoint::new(address)
        }
        false => Endpoint::of_database(app.config.database(to).map_err(|error| {
            Failure::from(error)
                .hint("--to takes a configured database's name, or a URL like redis://host:6379")
        })?)?,
    };
    if let Some(path) = &args.password_file {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::new(Kind::Usage, format!("cannot read {}", path.display())).caused_by(&error)
        })?;
        endpoint.password = Some(Secret::new(text.trim_end_matches(['\r', '\n'])));
    }
    let replace = |mine: &mut Option<_>, given: &Option<_>| {
        if given.is_some() {
            mine.clone_from(given);
        }
    };
    replace(&mut endpoint.tls.ca_file, &args.tls_ca);
    replace(&mut endpoint.tls.cert_file, &args.tls_cert);
    replace(&mut endpoint.tls.key_file, &args.tls_key);
    Ok(endpoint)
}

/// Asks for the password on a terminal, when the server wants one and none is given.
async fn log_in(mut endpoint: Endpoint) -> Result<Endpoint, Failure> {
    if endpoint.password.is_some() || !std::io::stdin().is_terminal() {
        return Ok(endpoint);
    }
    let Err(error) = endpoint.wire().await else {
        return Ok(endpoint);
    };
    let failure = Failure::from(error);
    if failure.kind != Kind::Auth {
        return Err(failure);
    }
    let user = printable(endpoint.username.as_deref().unwrap_or("default"));
    let prompt = format!("password of user `{user}` at {}: ", endpoint.place());
    let asked = tokio::task::spawn_blocking(move || rpassword::prompt_password(prompt)).await;
    match asked {
        Ok(Ok(password)) => endpoint.password = Some(Secret::new(password)),
        // The signal ended the waiting.
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::Interrupted => {
            return Err(Failure::interrupted());
        }
        _ => return Err(failure),
    }
    Ok(endpoint)
}

/// Asks a person; anything but yes is no.
async fn agree(question: &str) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(Kind::Usage, format!("would {question}"))
            .hint("add --yes when that is meant"));
    }
    let question = question.to_owned();
    let answer = tokio::task::spawn_blocking(move || {
        // Not locked while it waits: whoever answers by Ctrl-C is told that it stops.
        let mut err = std::io::stderr();
        write!(err, "{question}? [y/N] ").and_then(|()| err.flush())?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    })
    .await;
    match answer {
        Ok(Ok(answer)) if matches!(answer.trim(), "y" | "Y" | "yes") => Ok(()),
        _ => Err(Failure::new(Kind::Refused, "nothing was written").cause("the answer was no")),
    }
}

fn outcome_text(app: &App, outcome: &Outcome) -> String {
    let file = outcome.bytes.is_some();
    let what = match outcome.opaque {
        false => HumanCount(outcome.keys).of("key", "keys"),
        true => "a file whose keys are not known".to_owned(),
    };
    let mut text = format!(
        "{} {what} to {}",
        app.output.paint(Paint::Good, "restored"),
        outcome.target
    );
    if let Some(bytes) = outcome.bytes {
        text.push_str(&format!(" ({})", HumanBytes(bytes)));
    }
    let libraries = match file {
        false => ["function library loaded", "function libraries loaded"],
        true => ["function library", "function libraries"],
    };
    let losses = &outcome.losses;
    let rest = [
        (outcome.functions, libraries),
        (
            outcome.skipped,
            ["key that was there stayed", "keys that were there stayed"],
        ),
        (
            outcome.expired,
            ["key was over and left out", "keys were over and left out"],
        ),
        (
            outcome.left_out,
            ["key was not selected", "keys were not selected"],
        ),
        (
            outcome.recoded,
            [
                "key re-encoded for the target's version",
                "keys re-encoded for the target's version",
            ],
        ),
        (
            outcome.commands,
            ["key by plain commands", "keys by plain commands"],
        ),
        (
            losses.keys,
            ["key could not be held", "keys could not be held"],
        ),
        (
            losses.metadata,
            [
                "key came without its metadata",
                "keys came without their metadata",
            ],
        ),
        (
            losses.field_expiries,
            [
                "field came without its expiry",
                "fields came without their expiry",
            ],
        ),
        (
            losses.elements,
            ["element was too large", "elements were too large"],
        ),
        (
            losses.pending_entries,
            [
                "pending entry could not be held",
                "pending entries could not be held",
            ],
        ),
        (
            losses.functions,
            [
                "function library could not be held",
                "function libraries could not be held",
            ],
        ),
    ];
    for (count, [one, many]) in rest {
        if count > 0 {
            text.push_str(&format!("; {}", HumanCount(count).of(one, many)));
        }
    }
    if let Some(checked) = &outcome.checked {
        text.push_str(&format!("; {}", checked.words()));
    }
    text.push('\n');
    text
}
