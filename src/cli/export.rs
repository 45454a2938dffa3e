//! `backup export`.

use std::io::IsTerminal as _;
use std::path::Path;

use serde_json::json;

use super::args::{self, ExportArgs};
use super::context::App;
use super::copies::Copies;
use super::keys::{stream, warn_of_none};
use super::output::Paint;
use super::progress::Unit;
use super::restore::filters;
use crate::export::{self, Exported, Format};
use crate::failure::{Failure, Kind};
use crate::meter::Meter;
use crate::target::file::Existing;
use crate::target::out::{Out, Stdout};
use crate::units::{HumanBytes, HumanCount};

/// `backup export`.
pub(super) async fn export(app: &App, args: ExportArgs) -> Result<u8, Failure> {
    let which = &args.which;
    let filters = filters(&which.filters)?;
    let format = match args.format {
        args::Format::Rdb => Format::Rdb,
        args::Format::Jsonl => Format::Jsonl,
        args::Format::Resp => Format::Resp,
    };
    let path = args.output.as_deref();
    let path = path.filter(|path| *path != Path::new("-"));
    let to = match path {
        Some(path) => {
            let existing = match args.yes {
                true => Existing::Replace,
                false => Existing::Refuse,
            };
            // First of all, so that a path that can't be written is not found out at the end; dropped, it leaves nothing.
            drop(Out::file(path, existing)?);
            To::File(path, existing)
        }
        None => {
            may_stream(app, format)?;
            To::Stdout(Stdout::new()?)
        }
    };
    let copies = Copies::find(app, &args.selector, &which.storage, &which.identity).await?;
    let meter = Meter::default();
    let work = copies.with_nearest(
        || to.may_begin_again(),
        async |subject, keys| {
            let (out, meter, cancel) = (to.begin()?, meter.clone(), app.cancel.clone());
            export::export(subject, keys, format, filters.clone(), out, meter, cancel).await
        },
    );
    let work = async {
        let exported = work.await?;
        if let Some(keys) = exported.keys {
            warn_of_none(&filters, keys);
        }
        Ok(exported)
    };
    match &to {
        To::File(path, _) => {
            let work = app.with_progress("exporting", Unit::Bytes, &meter, work);
            // What was begun of the file goes when the work has come to its end.
            let exported = app.stoppable_in_grace(work).await?;
            let document = document(format, path, &exported);
            app.result(&document, text(app, path, &exported))?;
            Ok(0)
        }
        To::Stdout(stdout) => {
            let work = app.with_progress_beside_output("exporting", Unit::Bytes, &meter, work);
            stream(app, stdout, None, async { work.await.map(drop) }).await
        }
    }
}

/// Where an export goes.
enum To<'a> {
    File(&'a Path, Existing),
    Stdout(Stdout),
}

impl To<'_> {
    fn begin(&self) -> Result<Out, Failure> {
        match self {
            To::File(path, existing) => Ok(Out::file(path, *existing)?),
            To::Stdout(stdout) => Ok(stdout.out()),
        }
    }

    /// Whether what was written so far leaves no trace.
    fn may_begin_again(&self) -> bool {
        match self {
            To::File(..) => true,
            To::Stdout(stdout) => !stdout.has_output(),
        }
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
        Some(keys) => HumanCount(keys).of("key", "keys"),
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
            "; {}",
            HumanCount(exported.left_out).of("key was not selected", "keys were not selected")
        ));
    }
    text
}
