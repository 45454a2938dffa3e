//! A run of the program: from the command line to the exit code.
//!
//! The first SIGINT or SIGTERM asks the work to stop and to leave nothing half-made; a second one
//! ends the process at once.

use std::ffi::OsString;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::args::{self, BackupCommand, Cli, Command, NotACommand, SessionsCommand};
use super::context::App;
use super::logging::{self, Verbosity};
use super::output::{Form, Output};
use super::progress::Show;
use super::{
    backup, check, copy, diff, export, keys, man, mark, prune, restore, run as daemon, sessions,
    show, status,
};
use crate::config::Environment;
use crate::failure::{Failure, Kind};
use crate::setup;
use crate::turns::COMPRESSION;

/// Parses a command line, runs it, and gives the exit code.
pub fn run(line: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match args::parse(line) {
        Ok(cli) => cli,
        Err(NotACommand::Text { plain, ansi }) => {
            let output = Output::new(Form::Text);
            return print(if output.color_out() { &ansi } else { &plain });
        }
        Err(NotACommand::Wrong { failure, json }) => {
            let form = if json { Form::Json } else { Form::Text };
            return Output::new(form).failure(&failure);
        }
    };
    match &cli.command {
        Command::Completions { shell } => {
            return print(&String::from_utf8_lossy(&man::completions(*shell)));
        }
        Command::Man => return print(&man::page()),
        Command::Run => daemon::with_few_heaps(),
        _ => {}
    }
    let form = if cli.global.json {
        Form::Json
    } else {
        Form::Text
    };
    let output = Output::new(form);
    let verbosity = Verbosity {
        verbose: cli.global.verbose,
        quiet: cli.global.quiet,
    };
    if let Err(failure) = logging::start(cli.global.log, verbosity, output.color_err()) {
        return output.failure(&failure);
    }
    match start(cli, output) {
        Ok(code) => code,
        Err(failed) => failed.0.failure(&failed.1),
    }
}

/// Prints a text; a reader that went away is nothing to complain about.
fn print(text: &str) -> u8 {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    0
}

fn start(cli: Cli, output: Output) -> Result<u8, Box<(Output, Failure)>> {
    let environment = Environment::of_process();
    let config = match setup::load(cli.global.config.as_deref(), &environment) {
        Ok(config) => config,
        Err(failure) => return Err(Box::new((output, failure))),
    };
    COMPRESSION.at_most(config.daemon.compression_threads());
    // Linux counts it for each thread, and threads begin with that of the one that makes them: so before any is made.
    if matches!(
        cli.command,
        Command::Run | Command::Backup(BackupCommand::Now(_))
    ) {
        be_nice(config.daemon.nice);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let failure = Failure::new(Kind::Failed, "cannot start threads").caused_by(&error);
            return Err(Box::new((output, failure)));
        }
    };
    if matches!(cli.command, Command::Run) {
        let work = daemon::run(config, cli.global.config, environment, cli.global.json);
        let result = runtime.block_on(work);
        runtime.shutdown_background();
        return result.map_err(|failure| Box::new((output, failure)));
    }
    let app = App {
        config,
        output,
        cancel: CancellationToken::new(),
        show: Show::fitting(cli.global.quiet),
    };
    let terminated = Arc::new(AtomicBool::new(false));
    let result = runtime.block_on(async {
        watch_signals(app.cancel.clone(), Arc::clone(&terminated))?;
        dispatch(&app, cli.command).await
    });
    // A thread that still reads a backup which nobody wants any more must not keep us.
    runtime.shutdown_background();
    let result = result.map_err(|mut failure| {
        if failure.kind == Kind::Interrupted && terminated.load(Ordering::Relaxed) {
            failure.kind = Kind::Terminated;
        }
        failure
    });
    match result {
        Ok(code) => Ok(code),
        Err(failure) => Err(Box::new((app.output, failure))),
    }
}

/// Gives way to others for the processor as far as is configured. Who began us with more than that meant it.
fn be_nice(wanted: u8) {
    let wanted = i32::from(wanted);
    // What cannot be told is as nobody has changed it.
    let own = rustix::process::getpriority_process(None).unwrap_or(0);
    if own < wanted
        && let Err(error) = rustix::process::setpriority_process(None, wanted)
    {
        tracing::warn!("`nice` = {wanted} has no effect, it stays at {own}: {error}");
    }
}

async fn dispatch(app: &App, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Backup(BackupCommand::Now(args)) => backup::now(app, args).await,
        Command::Backup(BackupCommand::List(args)) => app.stoppable(backup::list(app, args)).await,
        Command::Backup(BackupCommand::Show(args)) => app.stoppable(show::show(app, args)).await,
        Command::Backup(BackupCommand::Keys(args)) => keys::keys(app, args).await,
        Command::Backup(BackupCommand::Export(args)) => export::export(app, args).await,
        Command::Backup(BackupCommand::Diff(args)) => diff::diff(app, args).await,
        Command::Backup(BackupCommand::Verify(args)) => {
            app.stoppable(backup::verify(app, args)).await
        }
        Command::Backup(BackupCommand::Prune(args)) => prune::prune(app, args).await,
        Command::Backup(BackupCommand::Pin(args)) => mark::pin(app, args).await,
        Command::Backup(BackupCommand::Unpin(args)) => mark::unpin(app, args).await,
        Command::Backup(BackupCommand::Accept(args)) => mark::accept(app, args).await,
        Command::Backup(BackupCommand::Copy(args)) => copy::copy(app, args).await,
        Command::Backup(BackupCommand::Delete(args)) => backup::delete(app, args).await,
        Command::Restore(args) => restore::restore(app, *args).await,
        Command::Sessions(SessionsCommand::Report(args)) => sessions::report(app, args).await,
        Command::Sessions(SessionsCommand::Expire(args)) => sessions::expire(app, args).await,
        Command::Check(args) => app.stoppable(check::check(app, args)).await,
        Command::Status(args) => app.stoppable(status::status(app, args)).await,
        // These were answered before.
        Command::Run | Command::Completions { .. } | Command::Man => Ok(0),
    }
}

fn watch_signals(cancel: CancellationToken, terminated: Arc<AtomicBool>) -> Result<(), Failure> {
    let watch = |kind| {
        signal(kind).map_err(|error| {
            Failure::new(Kind::Failed, "cannot watch for signals").caused_by(&error)
        })
    };
    let mut interrupt = watch(SignalKind::interrupt())?;
    let mut terminate = watch(SignalKind::terminate())?;
    tokio::spawn(async move {
        loop {
            let code = tokio::select! {
                _ = interrupt.recv() => Kind::Interrupted,
                _ = terminate.recv() => Kind::Terminated,
            };
            if cancel.is_cancelled() {
                std::process::exit(i32::from(code.exit_code()));
            }
            terminated.store(code == Kind::Terminated, Ordering::Relaxed);
            tracing::info!("stopping; once more ends it at once");
            cancel.cancel();
        }
    });
    Ok(())
}
