//! `backup keys`, and what it has in common with the other commands that write while they read.

use std::future::Future;

use super::args::KeysArgs;
use super::context::App;
use super::copies::Copies;
use super::output::BrokenOff;
use super::progress::Unit;
use super::restore::filters;
use crate::failure::Failure;
use crate::inspect::keys::{Form, broken_off, list};
use crate::meter::Meter;
use crate::selection::Filters;
use crate::target::out::Stdout;

/// `backup keys`.
pub(super) async fn keys(app: &App, args: KeysArgs) -> Result<u8, Failure> {
    let filters = filters(&args.which.filters)?;
    let which = &args.which;
    let copies = Copies::find(app, &args.selector, &which.storage, &which.identity).await?;
    let stdout = Stdout::new()?;
    let meter = Meter::default();
    let work = copies.with_nearest(
        || !stdout.has_output(),
        async |subject, keys| {
            list(
                (subject, keys),
                filters.clone(),
                (stdout.out(), form(app)),
                meter.clone(),
                app.cancel.clone(),
            )
            .await
        },
    );
    let work = app.with_progress_beside_output("reading", Unit::Bytes, &meter, work);
    let work = async {
        let keys = work.await?;
        warn_of_none(&filters, keys);
        Ok(())
    };
    stream(app, &stdout, Some(broken_off), work).await
}

/// The form of what is streamed.
pub(super) fn form(app: &App) -> Form {
    match app.output.is_json() {
        true => Form::Json,
        false => Form::Text,
    }
}

/// Warns when the filters leave out every key there is: they take so many.
pub(super) fn warn_of_none(filters: &Filters, taken: u64) {
    if taken == 0 && !filters.is_all() {
        tracing::warn!("no key is selected: the filters take none of those in the backup");
    }
}

/// Runs work that writes to standard output, and gives the exit code. Whoever has seen enough is nothing to complain about.
///
/// `broken_off` ends a JSON document that is not whole; `None`: the result is no document.
pub(super) async fn stream(
    app: &App,
    stdout: &Stdout,
    broken_off: Option<BrokenOff>,
    work: impl Future<Output = Result<(), Failure>>,
) -> Result<u8, Failure> {
    // After a signal the work has a moment to end what it is writing.
    let worked = app.stoppable_in_grace(async { Ok(work.await) }).await;
    // Else somebody may still be writing.
    let over = worked.is_ok();
    let failure = match worked.and_then(|result| result) {
        Ok(()) => return Ok(0),
        Err(_) if stdout.is_gone() => return Ok(0),
        Err(failure) => failure,
    };
    if !stdout.close() {
        return Err(failure);
    }
    match broken_off {
        Some(end) if over && !stdout.has_failed() => app.output.breaks_off(end),
        _ => app.output.streams(),
    }
    Err(failure.context("what was written to standard output is not all"))
}
