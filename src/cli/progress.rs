//! How far it is: a bar when standard error is a terminal, else a log line now and then.
//!
//! The trap is that logs and a bar share the terminal: whoever writes to standard error while a bar may
//! show does it within [`suspended`].

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::units::{HumanBytes, HumanCount, HumanDuration};

/// How often a log line is written.
const EVERY: Duration = Duration::from_secs(10);

/// All bars of this process; they share the last lines of the terminal.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Runs `write` while no bar is shown.
pub fn suspended<R>(write: impl FnOnce() -> R) -> R {
    BARS.suspend(write)
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// A bar.
    Bar,
    /// A log line now and then.
    Log,
    /// Not at all.
    Nothing,
}

impl Show {
    /// A bar when standard error is a terminal, else log lines; nothing with `--quiet`.
    pub fn fitting(quiet: bool) -> Show {
        match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Show::Nothing,
            (false, true) => Show::Bar,
            (false, false) => Show::Log,
        }
    }

    /// How it is shown while results go to standard output, which may be a terminal, too.
    pub(super) fn beside(self, output_on_terminal: bool) -> Show {
        match self {
            Show::Bar if output_on_terminal => Show::Nothing,
            show => show,
        }
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Keys.
    Keys,
}

impl Unit {
    fn show(self, count: u64) -> String {
        match self {
            Unit::Bytes => HumanBytes(count).to_string(),
            Unit::Keys => HumanCount(count).of("key", "keys"),
        }
    }
}

/// The progress of one piece of work. Shared by threads; dropped, its bar goes.
#[derive(Debug)]
pub struct Progress {
    what: String,
    unit: Unit,
    show: Show,
    start: Instant,
    done: AtomicU64,
    /// 0: not known.
    total: AtomicU64,
    bar: Option<ProgressBar>,
    next_line: Mutex<Instant>,
}

impl Progress {
    /// Work that is called `what`, of `total` units when that is known.
    pub fn new(show: Show, what: impl Into<String>, unit: Unit, total: Option<u64>) -> Progress {
        let what = what.into();
        let bar = (show == Show::Bar).then(|| {
            let bar = BARS.add(ProgressBar::no_length());
            bar.set_style(style(total.is_some()));
            bar.set_prefix(what.clone());
            bar.enable_steady_tick(Duration::from_millis(200));
            if let Some(total) = total {
                bar.set_length(total);
            }
            bar
        });
        let now = Instant::now();
        Progress {
            what,
            unit,
            show,
            start: now,
            done: AtomicU64::new(0),
            total: AtomicU64::new(total.unwrap_or(0)),
            bar,
            next_line: Mutex::new(now + EVERY),
        }
    }

    /// No progress at all, for tests and where nobody looks.
    pub fn hidden() -> Progress {
        Progress::new(Show::Nothing, "", Unit::Bytes, None)
    }

    /// Now the total is known.
    pub fn set_total(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_style(style(true));
        }
        self.tell();
    }

    /// So many more are done.
    pub fn add(&self, more: u64) {
        self.done.fetch_add(more, Ordering::Relaxed);
        self.tell();
    }

    /// So many are done in all.
    pub fn set(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
        self.tell();
    }

    /// So many are done.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    fn tell(&self) {
        match self.show {
            Show::Nothing => {}
            Show::Bar => {
                if let Some(bar) = &self.bar {
                    bar.set_position(self.done());
                    bar.set_message(self.line(self.start.elapsed()));
                }
            }
            Show::Log => {
                let now = Instant::now();
                // Whoever finds it locked leaves the line to the other.
                let Ok(mut next) = self.next_line.try_lock() else {
                    return;
                };
                if now >= *next {
                    *next = now + EVERY;
                    drop(next);
                    tracing::info!("{}: {}", self.what, self.line(self.start.elapsed()));
                }
            }
        }
    }

    /// `1.2 GiB of 3 GiB (40 %), 120 MiB/s`.
    fn line(&self, elapsed: Duration) -> String {
        let done = self.done();
        let total = self.total.load(Ordering::Relaxed);
        let mut line = self.unit.show(done);
        if total > 0 {
            let percent = (u128::from(done) * 100 / u128::from(total)).min(100);
            line.push_str(&format!(" of {} ({percent} %)", self.unit.show(total)));
        }
        if elapsed >= Duration::from_secs(1) {
            let rate = (done as f64 / elapsed.as_secs_f64()) as u64;
            line.push_str(&format!(", {}/s", self.unit.show(rate)));
        }
        line
    }

    /// The work is done: the bar goes, and how long it took is logged at debug level.
    pub fn finish(self) {
        let elapsed = self.start.elapsed();
        if self.show != Show::Nothing {
            tracing::debug!(
                "{}: {} in {}",
                self.what,
                self.line(elapsed),
                HumanDuration(elapsed)
            );
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            BARS.remove(bar);
        }
    }
}

fn style(with_total: bool) -> ProgressStyle {
    let template = match with_total {
        true => "{prefix} [{bar:24}] {msg}",
        false => "{prefix} {spinner} {msg}",
    };
    // A template that did not parse would be a mistake of ours; a plain bar does no harm then.
    ProgressStyle::with_template(template)
        .map(|style| style.progress_chars("=> "))
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_how_far_and_how_fast() {
        let progress = Progress::new(Show::Nothing, "x", Unit::Bytes, Some(4 << 20));
        progress.add(1 << 20);
        assert_eq!(
            progress.line(Duration::from_millis(500)),
            "1 MiB of 4 MiB (25 %)"
        );
        assert_eq!(
            progress.line(Duration::from_secs(2)),
            "1 MiB of 4 MiB (25 %), 512 KiB/s"
        );
        let progress = Progress::new(Show::Nothing, "x", Unit::Keys, None);
        progress.set(1_234);
        assert_eq!(progress.line(Duration::ZERO), "1,234 keys");
        // A total that was an estimate may be passed.
        progress.set_total(1_000);
        assert!(progress.line(Duration::ZERO).contains("(100 %)"));
    }

    #[test]
    fn no_bar_stands_in_the_midst_of_results() {
        assert_eq!(Show::Bar.beside(true), Show::Nothing);
        assert_eq!(Show::Bar.beside(false), Show::Bar);
        // Lines go where standard error goes.
        assert_eq!(Show::Log.beside(true), Show::Log);
    }

    #[test]
    fn both_bars_can_be_drawn() {
        assert!(ProgressStyle::with_template("{prefix} [{bar:24}] {msg}").is_ok());
        assert!(ProgressStyle::with_template("{prefix} {spinner} {msg}").is_ok());
        let progress = Progress::new(Show::Bar, "x", Unit::Keys, None);
        progress.set_total(10);
        progress.add(10);
        progress.finish();
    }
}
