//! Logs, to standard error: text for people, JSON for machines.

use std::io::{self, IsTerminal as _, Write};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Directive;
use tracing_subscriber::fmt::MakeWriter;

use super::args::LogFormat;
use super::progress::suspended;

/// The variable that says what is logged, in the words of `tracing`; it wins over `-v` and `-q`.
pub const VARIABLE: &str = "RDBKEEPER_LOG";

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
        // The text is one of five that are known to parse.
        own.map_or(EnvFilter::default(), |own| base.add_directive(own))
    }
}

/// Begins to log, once for the process; a second call changes nothing.
pub fn start(format: LogFormat, verbosity: Verbosity, color: bool) {
    let filter = EnvFilter::try_from_env(VARIABLE).unwrap_or_else(|_| verbosity.filter());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Stderr)
        .with_target(false)
        .with_ansi(color);
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let timeless = format == LogFormat::Auto && (io::stderr().is_terminal() || journal);
    let started = match format {
        LogFormat::Json => builder
            .json()
            .with_ansi(false)
            .flatten_event(true)
            .try_init(),
        _ if timeless => builder.without_time().try_init(),
        _ => builder.try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging had been started before");
    }
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
}
