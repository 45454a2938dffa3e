//! Logs: text for people and JSON for machines, to standard error; or entries of the journal.
//!
//! `--log auto` finds out where it is: the journal when standard error leads there, else text, with times
//! where no terminal shows a person that it happens now. What a command answers (`error: …`) is no log and is
//! written to standard error whatever is chosen here.

mod journal;

use std::io::{self, IsTerminal as _, Write};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Directive;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

use self::journal::Journal;
use super::args::LogFormat;
use super::progress::suspended;
use crate::failure::{Failure, Kind};

/// The variable that says what is logged, in the words of `tracing`; it wins over `-v` and `-q`.
pub const VARIABLE: &str = "RDBKEEPER_LOG";

/// The libraries of AWS: what their names begin with.
const AWS: &[&str] = &["aws_config", "aws_runtime", "aws_sdk", "aws_smithy"];

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verbosity {
    /// The count of `-v`.
    pub verbose: u8,
    /// `-q`.
    pub quiet: bool,
}

impl Verbosity {
    /// Our own level; that of the libraries is at most a warning, until everything is asked for.
    fn levels(self) -> (LevelFilter, LevelFilter) {
        match (self.quiet, self.verbose) {
            (true, _) => (LevelFilter::ERROR, LevelFilter::ERROR),
            (false, 0) => (LevelFilter::INFO, LevelFilter::WARN),
            (false, 1) => (LevelFilter::DEBUG, LevelFilter::WARN),
            (false, _) => (LevelFilter::TRACE, LevelFilter::DEBUG),
        }
    }

    fn filter(self) -> EnvFilter {
        let (own, others) = self.levels();
        let base = EnvFilter::default().add_directive(Directive::from(others));
        let own = format!("rdbkeeper={own}").parse::<Directive>();
        // The texts are known to parse.
        let base = own.map_or(EnvFilter::default(), |own| base.add_directive(own));
        // What those of AWS warn of stands in our own errors, without whole requests in it.
        let silent = match self.verbose {
            0 | 1 => AWS,
            _ => &[],
        };
        silent
            .iter()
            .filter_map(|name| format!("{name}=off").parse::<Directive>().ok())
            .fold(base, EnvFilter::add_directive)
    }
}

/// Where logs go, and how they look there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Entries of the journal.
    Journal,
    /// Lines of text.
    Text {
        /// Whether each begins with its time.
        times: bool,
    },
    /// A JSON object a line.
    Json,
}

impl Form {
    /// What was asked for, where standard error is a terminal, the journal, or neither.
    fn fitting(format: LogFormat, terminal: bool, journal: bool) -> Form {
        match format {
            LogFormat::Auto if journal => Form::Journal,
            LogFormat::Auto => Form::Text { times: !terminal },
            LogFormat::Text => Form::Text { times: true },
            LogFormat::Json => Form::Json,
            LogFormat::Journald => Form::Journal,
        }
    }
}

/// Begins to log, once for the process; a second call changes nothing.
///
/// # Errors
/// When the journal was asked for by name, and there is none.
pub fn start(format: LogFormat, verbosity: Verbosity, color: bool) -> Result<(), Failure> {
    let filter = EnvFilter::try_from_env(VARIABLE).unwrap_or_else(|_| verbosity.filter());
    let form = Form::fitting(format, io::stderr().is_terminal(), journal::is_stderr());
    let sink: Box<dyn Layer<_> + Send + Sync> = match form {
        Form::Journal => match Journal::open() {
            Ok(journal) => journal.boxed(),
            Err(error) if format == LogFormat::Journald => {
                return Err(Failure::new(Kind::Usage, "there is no journal to log to")
                    .caused_by(&error)
                    .hint("`--log journald` needs systemd's journal; `--log text` writes to standard error"));
            }
            // Its socket is hidden from us; lines of standard error reach it all the same, and get their times there.
            Err(_) => lines(color).without_time().boxed(),
        },
        Form::Json => lines(false).json().flatten_event(true).boxed(),
        Form::Text { times: true } => lines(color).boxed(),
        Form::Text { times: false } => lines(color).without_time().boxed(),
    };
    let started = tracing_subscriber::registry()
        .with(filter)
        .with(sink)
        .try_init();
    if started.is_err() {
        tracing::debug!("logging had been started before");
    }
    Ok(())
}

/// Lines on standard error.
fn lines<S>(color: bool) -> fmt::Layer<S, fmt::format::DefaultFields, fmt::format::Format, Stderr> {
    fmt::layer()
        .with_writer(Stderr)
        .with_target(false)
        .with_ansi(color)
}

/// Writes to standard error while no progress bar is shown. Each event arrives as one write.
#[derive(Clone, Copy, Debug)]
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        suspended(|| io::stderr().lock().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Stderr;

    fn make_writer(&'a self) -> Stderr {
        Stderr
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_words_come_first() {
        let shown = |verbose, quiet| Verbosity { verbose, quiet }.filter().to_string();
        assert!(shown(0, false).contains("rdbkeeper=info"));
        assert!(shown(0, false).contains("warn"));
        assert!(shown(1, false).contains("rdbkeeper=debug"));
        assert!(shown(2, false).contains("rdbkeeper=trace"));
        assert!(shown(0, true).contains("rdbkeeper=error"));
    }

    #[test]
    fn logs_fit_where_standard_error_leads() {
        let (plain, timed) = (Form::Text { times: false }, Form::Text { times: true });
        for (format, terminal, journal, form) in [
            (LogFormat::Auto, true, false, plain),
            (LogFormat::Auto, false, true, Form::Journal),
            (LogFormat::Auto, false, false, timed),
            (LogFormat::Text, true, false, timed),
            (LogFormat::Text, false, true, timed),
            (LogFormat::Json, false, true, Form::Json),
            (LogFormat::Journald, true, false, Form::Journal),
            (LogFormat::Journald, false, false, Form::Journal),
        ] {
            let fitting = Form::fitting(format, terminal, journal);
            assert_eq!(fitting, form, "{format:?} {terminal} {journal}");
        }
    }
}
