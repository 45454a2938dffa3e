//! `backup export`.

use std::io::IsTerminal as _;
use std::path::Path;

use serde_json::json;

use super::args::{self, ExportArgs};
use super::backup::storage_name;
use super::context::App;
use super::keys::{ended, opened};
use super::output::Paint;
use super::progress::Unit;
use super::restore::filters;
use crate::export::{self, Exported, Format};
use crate::failure::{Failure, Kind};
use crate::meter::Meter;
use crate::setup;
use crate::target::file::Existing;
use crate::target::out::Out;
use crate::units::{HumanBytes, HumanCount};

/// `backup export`.
pub(super) async fn export(app: &App, args: ExportArgs) -> Result<u8, Failure> {
    let filters = filters(&args.filters)?;
    let format = match args.format {
        args::Format::Rdb => Format::Rdb,
        args::Format::Jsonl => Format::Jsonl,
        args::Format::Resp => Format::Resp,
    };
    let path = args.output.as_deref();
    let path = path.filter(|path| *path != Path::new("-"));
    // First of all, so that a path that can't be written is not found out at the end.
    let (out, reader) = match path {
        Some(path) => {
            let existing = match args.yes {
                true => Existing::Replace,
                false => Existing::Refuse,
            };
            (Out::file(path, existing)?, None)
        }
        None => {
            may_stream(app, format)?;
            let (out, reader) = Out::stdout()?;
            (out, Some(reader))
        }
    };
    let given = args.identity.identity.as_deref();
    let given = given.map(setup::identity).transpose()?;
    let storage = storage_name(&args.storage);
    let opening = opened(app, &args.selector, storage.as_deref(), given.as_ref());
    let (subject, keys) = opening.await?;
    let meter = Meter::default();
    let cancel = app.cancel.clone();
    let work = export::export(subject, keys, format, filters, out, meter.clone(), cancel);
    let work = app.with_progress("exporting", Unit::Bytes, &meter, work);
    match (path, reader) {
        (Some(path), _) => {
            // What was begun of the file goes when the work has come to its end.
            let exported = app.stoppable_in_grace(work).await?;
            let document = document(format, path, &exported);
            app.result(&document, text(app, path, &exported))?;
            Ok(0)
        }
        (None, Some(reader)) => {
            let exported = app.stoppable(work).await;
            ended(app, &reader, exported.map(drop))
        }
        (None, None) => Ok(0),
    }
}

/// Refuses what standard output is not for.
fn may_stream(app: &App, format: Format) -> Result<(), Failure> {
    if format == Format::Jsonl {
        return Ok(());
    }
    let refuse = |why: &str| {
        Err(Failure::new(Kind::Usage, why).hint("add -o FILE, or send standard output elsewhere"))
    };
    if app.output.is_json() {
        return refuse("this is no JSON document, which --json asks for");
    }
    match std::io::stdout().is_terminal() && format == Format::Rdb {
        true => refuse("an RDB file is not for a terminal"),
        false => Ok(()),
    }
}

fn document(format: Format, path: &Path, exported: &Exported) -> serde_json::Value {
    json!({
        "path": path.display().to_string(),
        "format": format.as_str(),
        "bytes": exported.bytes,
        "keys": exported.keys,
        "left_out": exported.left_out,
    })
}

fn text(app: &App, path: &Path, exported: &Exported) -> String {
    let keys = match exported.keys {
        Some(keys) => format!("{} keys", HumanCount(keys)),
        None => "all".to_owned(),
    };
    let mut text = format!(
        "{} {keys} to {} ({})",
        app.output.paint(Paint::Good, "exported"),
        path.display(),
        HumanBytes(exported.bytes)
    );
    if exported.left_out > 0 {
        text.push_str(&format!(
            "; {} keys were not selected",
            HumanCount(exported.left_out)
        ));
    }
    text
}
