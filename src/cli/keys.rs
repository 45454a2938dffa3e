//! `backup keys`.

use super::args::KeysArgs;
use super::backup::{find, keys_of, storage_name};
use super::context::App;
use super::progress::Unit;
use super::restore::filters;
use crate::catalog::selector::Subject;
use crate::failure::Failure;
use crate::inspect::keys::{Form, list};
use crate::meter::Meter;
use crate::pipeline::Keys;
use crate::setup;
use crate::target::out::{Out, Reader};

/// `backup keys`.
pub(super) async fn keys(app: &App, args: KeysArgs) -> Result<u8, Failure> {
    let filters = filters(&args.filters)?;
    let given = args.identity.identity.as_deref();
    let given = given.map(setup::identity).transpose()?;
    let storage = storage_name(&args.storage);
    let backup = opened(app, &args.selector, storage.as_deref(), given.as_ref()).await?;
    let (out, reader) = Out::stdout()?;
    let meter = Meter::default();
    let work = list(
        backup,
        filters,
        (out, form(app)),
        meter.clone(),
        app.cancel.clone(),
    );
    let work = app.with_progress("reading", Unit::Bytes, &meter, work);
    let listed = app.stoppable(work).await;
    ended(app, &reader, listed.map(drop))
}

/// The form of what is streamed.
pub(super) fn form(app: &App) -> Form {
    match app.output.is_json() {
        true => Form::Json,
        false => Form::Text,
    }
}

/// The exit code of a command that streams its result. Whoever has seen enough is nothing to complain about.
pub(super) fn ended(
    app: &App,
    reader: &Reader,
    result: Result<(), Failure>,
) -> Result<u8, Failure> {
    match result {
        Ok(()) => Ok(0),
        Err(_) if reader.is_gone() => Ok(0),
        Err(failure) if reader.has_output() => {
            app.output.streams();
            Err(failure.context("what was written to standard output is not all"))
        }
        Err(failure) => Err(failure),
    }
}

/// What a selector names, and the keys that may open it.
pub(super) async fn opened(
    app: &App,
    selector: &str,
    storage: Option<&str>,
    given: Option<&Keys>,
) -> Result<(Subject, Keys), Failure> {
    let subject = app.stoppable(find(app, selector, storage)).await?;
    let keys = keys_of(app, &subject, given);
    Ok((subject, keys))
}
