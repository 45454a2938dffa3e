//! `restore`.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use tokio::runtime::Handle;

use super::args::{self, RestoreArgs};
use super::backup::{find, keys_of};
use super::context::App;
use super::output::Paint;
use super::progress::Unit;
use crate::catalog::selector::Subject;
use crate::failure::{Failure, Kind};
use crate::meter::Meter;
use crate::pipeline::Keys;
use crate::rdb::{DbIndex, Handler, LogicalType, Report};
use crate::reading;
use crate::restore::{self, Backup, OnProgress, Outcome, Plan, Prepared, Request, Ttl};
use crate::secret::Secret;
use crate::selection::{Filters, KeyNames, KeyPattern};
use crate::server::{Address, Endpoint};
use crate::target::Rename;
use crate::target::file::Existing;
use crate::target::live::OnConflict;
use crate::units::{HumanBytes, HumanCount};

/// The backup to restore, as the journey wants it: readable as often as it is asked for.
struct Readable {
    subject: Subject,
    keys: Keys,
    runtime: Handle,
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
        )?;
        Ok((handler, whole.report))
    }
}

/// Restores to a server or into a file.
pub(super) async fn restore(app: &App, args: RestoreArgs) -> Result<u8, Failure> {
    let subject = find(
        app,
        &args.selector,
        args.storage.as_ref().map(|name| name.as_str()),
    )
    .await?;
    let mut request = request(&args)?;
    let keys = keys_of(app, &subject, args.identity.as_deref());
    app.stoppable(reading::may_read(&subject, &keys)).await?;
    if let Subject::Stored(backup) = &subject {
        request.snapshot_ms = Some(backup.manifest.snapshot_at.as_millisecond());
    }
    let backup = Arc::new(Readable {
        subject,
        keys,
        runtime: Handle::current(),
    });
    match (&args.to.to, &args.to.to_file) {
        (Some(to), _) => to_server(app, &args, to, backup, request).await,
        (None, Some(path)) => to_file(app, &args, path, backup, request).await,
        // The command line's own rules see to it that there is one.
        (None, None) => Err(Failure::new(Kind::Usage, "no destination is given")
            .hint("add --to NAME|URL or --to-file PATH")),
    }
}

fn request(args: &RestoreArgs) -> Result<Request, Failure> {
    let patterns = |globs: &[Vec<u8>]| globs.iter().cloned().map(KeyPattern::new).collect();
    let mut filters = Filters {
        databases: args.filters.db.iter().copied().map(DbIndex).collect(),
        include: patterns(&args.filters.r#match),
        exclude: patterns(&args.filters.exclude),
        ..Filters::default()
    };
    for name in &args.filters.r#type {
        let kind: LogicalType = name
            .parse()
            .map_err(|_| Failure::new(Kind::Usage, format!("`{name}` is not a type")))?;
        filters.types.insert(kind);
    }
    let mut request = Request {
        filters,
        flush: args.flush,
        rate: args.rate.unwrap_or(0),
        always_look: args.dry_run,
        on_conflict: match args.on_conflict {
            args::OnConflict::Fail => OnConflict::Fail,
            args::OnConflict::Skip => OnConflict::Skip,
            args::OnConflict::Replace => OnConflict::Replace,
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

/// Shows the journey's progress by a meter.
fn progress(meter: &Meter) -> OnProgress {
    let meter = meter.clone();
    Arc::new(move |progress| {
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
) -> Result<u8, Failure> {
    let meter = Meter::default();
    if args.dry_run {
        let work = restore::plan_file(backup, path, request, progress(&meter), app.cancel.clone());
        let plan = app
            .with_progress("checking", Unit::Keys, &meter, work)
            .await?;
        return dry_run(app, &plan);
    }
    let existing = match args.yes {
        true => Existing::Replace,
        false => Existing::Refuse,
    };
    let work = restore::to_file(
        backup,
        path,
        existing,
        request,
        progress(&meter),
        app.cancel.clone(),
    );
    let outcome = app
        .with_progress("restoring", Unit::Keys, &meter, work)
        .await?;
    app.result(&outcome, outcome_text(app, &outcome))?;
    Ok(0)
}

async fn to_server(
    app: &App,
    args: &RestoreArgs,
    to: &str,
    backup: Arc<Readable>,
    mut request: Request,
) -> Result<u8, Failure> {
    let endpoint = log_in(endpoint(app, args, to)?).await?;
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
        .await?;
    if args.dry_run {
        return dry_run(app, prepared.plan());
    }
    if prepared.plan().refusal.is_none()
        && !args.yes
        && let Some(question) = prepared.plan().question()
    {
        agree(&question).await?;
    }
    for warning in &prepared.plan().warnings {
        tracing::warn!("{warning}");
    }
    let outcome = app
        .with_progress("restoring", Unit::Keys, &meter, prepared.run())
        .await?;
    app.result(&outcome, outcome_text(app, &outcome))?;
    Ok(0)
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
    let prompt = format!("password of {}: ", endpoint.address);
    let asked = tokio::task::spawn_blocking(move || rpassword::prompt_password(prompt)).await;
    match asked {
        Ok(Ok(password)) => endpoint.password = Some(Secret::new(password)),
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
        let mut err = std::io::stderr().lock();
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
    let mut text = format!(
        "{} {} keys to {}",
        app.output.paint(Paint::Good, "restored"),
        HumanCount(outcome.keys),
        outcome.target
    );
    if let Some(bytes) = outcome.bytes {
        text.push_str(&format!(" ({})", HumanBytes(bytes)));
    }
    let rest = [
        (outcome.functions, "function libraries loaded"),
        (outcome.skipped, "keys that were there stayed"),
        (outcome.expired, "keys were over and left out"),
        (outcome.left_out, "keys were not selected"),
    ];
    for (count, what) in rest {
        if count > 0 {
            text.push_str(&format!("; {} {what}", HumanCount(count)));
        }
    }
    text.push('\n');
    text
}
