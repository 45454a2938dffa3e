//! `backup diff`.

use super::args::DiffArgs;
use super::context::App;
use super::copies::Copies;
use super::keys::{form, stream, warn_of_none};
use super::progress::Unit;
use super::restore::filters;
use crate::failure::Failure;
use crate::inspect::diff::{self, broken_off};
use crate::meter::Meter;
use crate::spool::Spool;
use crate::target::out::Stdout;

/// `backup diff`.
pub(super) async fn diff(app: &App, args: DiffArgs) -> Result<u8, Failure> {
    let which = &args.which;
    let filters = filters(&which.filters)?;
    let old = Copies::find(app, &args.old, &which.storage, &which.identity).await?;
    let new = Copies::find(app, &args.new, &which.storage, &which.identity).await?;
    let spool = Spool::new(&app.config.daemon.spool_dir);
    let stdout = Stdout::new()?;
    let meter = Meter::default();
    let collect = async |copies: Copies<'_>, phase| {
        let collect = async |subject, keys| {
            meter.start_phase(phase);
            let (meter, cancel) = (meter.clone(), app.cancel.clone());
            diff::collect(subject, keys, filters.clone(), &spool, meter, cancel).await
        };
        // Nothing is written before both were read.
        copies.with_nearest(|| true, collect).await
    };
    let work = async {
        let old = collect(old, "reading the first").await?;
        let new = collect(new, "reading the second").await?;
        let to = (stdout.out(), form(app));
        let counts = diff::compare([old, new], to, app.cancel.clone()).await?;
        warn_of_none(&filters, counts.keys());
        Ok(())
    };
    let work = app.with_progress_beside_output("reading", Unit::Bytes, &meter, work);
    stream(app, &stdout, Some(broken_off), work).await
}
