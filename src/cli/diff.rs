//! `backup diff`.

use super::args::DiffArgs;
use super::backup::storage_name;
use super::context::App;
use super::keys::{ended, form, opened};
use super::progress::Unit;
use super::restore::filters;
use crate::failure::Failure;
use crate::inspect::diff;
use crate::meter::Meter;
use crate::setup;
use crate::spool::Spool;
use crate::target::out::Out;

/// `backup diff`.
pub(super) async fn diff(app: &App, args: DiffArgs) -> Result<u8, Failure> {
    let filters = filters(&args.filters)?;
    let given = args.identity.identity.as_deref();
    let given = given.map(setup::identity).transpose()?;
    let storage = storage_name(&args.storage);
    let old = opened(app, &args.old, storage.as_deref(), given.as_ref()).await?;
    let new = opened(app, &args.new, storage.as_deref(), given.as_ref()).await?;
    let spool = Spool::new(&app.config.daemon.spool_dir);
    let (out, reader) = Out::stdout()?;
    let meter = Meter::default();
    let work = diff::diff(
        [old, new],
        filters,
        &spool,
        (out, form(app)),
        meter.clone(),
        app.cancel.clone(),
    );
    let work = app.with_progress("comparing", Unit::Bytes, &meter, work);
    let compared = app.stoppable(work).await;
    ended(app, &reader, compared.map(drop))
}
