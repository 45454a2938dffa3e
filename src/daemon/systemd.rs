//! The protocol of systemd (sd_notify(3)): ready, reloading, stopping, what is going on, and that the work loop
//! goes round. Without systemd nothing of it is sent.
//!
//! The trap: the watchdog must be fed by the loop that does the work, after it has really gone round. A timer
//! beside it would go on feeding when the loop hangs.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use sd_notify::NotifyState;

use super::board::{Seen, Trouble};
use crate::units::{HumanBytes, HumanCount};

/// How often a change of numbers alone is told.
const NUMBERS: Duration = Duration::from_secs(5);

/// What systemd was told last.
#[derive(Debug)]
pub(super) struct Systemd {
    told: Option<Status>,
    told_at: Instant,
    /// How often it wants to be fed at least; `None`: not at all.
    watchdog: Option<Duration>,
    fed_at: Option<Instant>,
    failed: bool,
}

impl Systemd {
    /// Whatever this process was started by.
    pub(super) fn of_process() -> Systemd {
        Systemd {
            told: None,
            told_at: Instant::now(),
            watchdog: sd_notify::watchdog_enabled(),
            fed_at: None,
            failed: false,
        }
    }

    /// READY=1, after the start and after each reload.
    pub(super) fn ready(&mut self) {
        self.send(&[NotifyState::Ready]);
    }

    /// RELOADING=1; [`Systemd::ready`] ends it.
    pub(super) fn reloading(&mut self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.send(&[NotifyState::Reloading, now]),
            Err(_) => self.send(&[NotifyState::Reloading]),
        }
    }

    /// STOPPING=1
    pub(super) fn stopping(&mut self, text: &str) {
        self.send(&[NotifyState::Stopping, NotifyState::Status(text)]);
    }

    /// STATUS=…, when it is news.
    pub(super) fn status(&mut self, status: Status) {
        let news = match &self.told {
            None => true,
            Some(told) if told.lasting == status.lasting => {
                told.text != status.text && self.told_at.elapsed() >= NUMBERS
            }
            Some(_) => true,
        };
        if news {
            self.send(&[NotifyState::Status(&status.text)]);
            self.told = Some(status);
            self.told_at = Instant::now();
        }
    }

    /// The work loop has gone round: WATCHDOG=1, when half of its time is over.
    pub(super) fn went_round(&mut self) {
        let Some(watchdog) = self.watchdog else {
            return;
        };
        // A round comes every second: a little before half of it rather than after.
        let pause = (watchdog / 2).saturating_sub(Duration::from_secs(1));
        if self.fed_at.is_none_or(|fed| fed.elapsed() >= pause) {
            self.send(&[NotifyState::Watchdog]);
            self.fed_at = Some(Instant::now());
        }
    }

    fn send(&mut self, states: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(states) {
            if !self.failed {
                tracing::warn!("systemd cannot be told what is going on: {error}");
            }
            self.failed = true;
        }
    }
}

/// What is going on, in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Status {
    /// The line.
    text: String,
    /// The line without the numbers that move all the time.
    lasting: String,
}

/// The line: troubles first, then what is at work, then what is next.
pub(super) fn status(seen: &Seen, now: Timestamp) -> Status {
    let zone = &seen.config.daemon.timezone;
    let mut status = Status {
        text: String::new(),
        lasting: String::new(),
    };
    for (trouble, told) in &seen.troubles {
        // It is said by "nothing is scheduled".
        if *trouble != Trouble::Idle {
            status.add(&told.text, "");
        }
    }
    let mut idle = true;
    for (id, job) in &seen.jobs {
        let Some(running) = &job.running else {
            continue;
        };
        idle = false;
        let doing = match id.task {
            crate::runs::Task::Backup => "backing up",
            crate::runs::Task::Verify => "verifying",
            crate::runs::Task::Sessions => "expiring sessions of",
        };
        let what = format!("{doing} {}", id.database);
        let reading = running.meter.read();
        let numbers = match (running.waiting, reading.bytes, reading.keys) {
            (true, ..) => {
                status.add(&format!("{what} (waiting)"), "");
                continue;
            }
            (_, 0, 0) => String::new(),
            (_, 0, keys) => format!(" ({})", HumanCount(keys).of("key", "keys")),
            (_, bytes, _) => format!(" ({})", HumanBytes(bytes)),
        };
        status.add(&what, &numbers);
    }
    if idle {
        status.add("idle", "");
    }
    let next = seen
        .jobs
        .iter()
        .filter(|(_, job)| job.running.is_none())
        .filter_map(|(id, job)| Some((job.next?, id, job.again)))
        .min();
    match next {
        Some((at, id, again)) => {
            let again = if again { " again" } else { "" };
            let at = moment(at, now, zone);
            status.add(
                &format!("next: {} {}{again} at {at}", id.database, id.task),
                "",
            );
        }
        None if seen.jobs.is_empty() => status.add("nothing is scheduled", ""),
        None => {}
    }
    status
}

impl Status {
    fn add(&mut self, lasting: &str, numbers: &str) {
        for text in [&mut self.text, &mut self.lasting] {
            let gap = if text.is_empty() { "" } else { "; " };
            let _ = write!(text, "{gap}{lasting}");
        }
        self.text.push_str(numbers);
    }
}

/// A moment for a person who reads it now: the time alone within a day.
pub(super) fn moment(at: Timestamp, now: Timestamp, zone: &TimeZone) -> String {
    let at_zoned = at.to_zoned(zone.clone());
    let near = at.duration_since(now).as_hours().abs() < 20;
    let format = match (near, at_zoned.second()) {
        (true, 0) => "%H:%M",
        (true, _) => "%H:%M:%S",
        (false, _) => "%Y-%m-%d %H:%M",
    };
    at_zoned.strftime(format).to_string()
}
