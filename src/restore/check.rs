//! After a restore: what was written is compared with the backup.
//!
//! The backup is read once more, and the target asked for all of the keys, or for a sample of them. What is told is what
//! can be known: a target has other clients, and a key that differs was damaged, or changed by one of them since.

use serde::Serialize;

use crate::failure::{Failure, Kind};
use crate::target::facts::TargetFacts;
use crate::target::live::{Chosen, Comparison};
use crate::units::HumanCount;

/// So many keys are a sample, about.
const SAMPLE: u64 = 1000;

/// What `--check` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Check {
    /// Every key that was written.
    All,
    /// About a thousand of them, evenly chosen; the first of each type and the largest are always among them.
    #[default]
    Sample,
    /// Nothing.
    None,
}

impl Check {
    /// The word on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Check::All => "all",
            Check::Sample => "sample",
            Check::None => "none",
        }
    }

    /// Which of so many keys are compared.
    pub(super) fn chosen(self, keys: u64, largest: Option<u64>) -> Chosen {
        match self {
            Check::All => Chosen::All,
            Check::Sample | Check::None => Chosen::about(SAMPLE, keys, largest),
        }
    }

    /// How many of so many keys are compared, about.
    pub(super) fn about(self, keys: u64) -> u64 {
        match self {
            Check::All => keys,
            Check::Sample => keys.min(SAMPLE),
            Check::None => 0,
        }
    }
}

/// What a check found: that all is well, or that it could not be looked at. Anything else is a [`Failure`].
#[derive(Clone, Debug, Serialize)]
pub struct Checked {
    /// `all` or `sample`.
    pub mode: &'static str,
    /// Keys that were compared; of a file, keys in it.
    pub keys: u64,
    /// Those of them whose value was not read: they are there, with the right length where that can be asked.
    #[serde(skip_serializing_if = "is_zero")]
    pub by_length: u64,
    /// Keys that are not there.
    pub missing: u64,
    /// Keys that differ.
    pub differing: u64,
    /// The first few of them, masked unless they may be shown.
    pub samples: Vec<String>,
    /// Keys that are not as in the backup, and may be those that were there before (`--on-conflict skip`).
    #[serde(skip_serializing_if = "is_zero")]
    pub perhaps_skipped: u64,
    /// Why not all could be compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<String>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Checked {
    /// Of a file that was read back.
    pub(super) fn file(check: Check, keys: u64) -> Checked {
        Checked {
            mode: check.as_str(),
            keys,
            by_length: 0,
            missing: 0,
            differing: 0,
            samples: Vec::new(),
            perhaps_skipped: 0,
            incomplete: None,
        }
    }

    /// What a comparison means. `written` is how many keys the restore wrote.
    ///
    /// # Errors
    /// Something is not as it should be.
    pub(super) fn of(
        check: Check,
        found: Comparison,
        written: u64,
        facts: &TargetFacts,
    ) -> Result<Checked, Failure> {
        let place = &facts.place;
        let fewer: u64 = found.counted.iter().map(|counted| counted.missing()).sum();
        let samples: Vec<String> = found
            .differences
            .iter()
            .map(|difference| {
                let words = difference.unlike.words();
                format!("{} in database {} {words}", difference.key, difference.db)
            })
            .collect();
        let checked = Checked {
            mode: check.as_str(),
            keys: found.keys,
            by_length: found.by_length,
            missing: found.missing.max(fewer),
            differing: found.differing,
            samples,
            perhaps_skipped: found.perhaps_skipped,
            incomplete: found
                .forbidden
                .map(|(command, reply)| format!("{place} refuses {command}: {reply}")),
        };
        if checked.missing == 0 && checked.differing == 0 {
            return Ok(checked);
        }
        let compared = match checked.keys {
            0 => "none could be compared".to_owned(),
            keys => format!("{} were compared", HumanCount(keys)),
        };
        let mut wrong = Vec::new();
        if checked.differing > 0 {
            wrong.push(format!(
                "{} differ from the backup (changed since by another client, or damaged)",
                HumanCount(checked.differing)
            ));
        }
        if checked.missing > 0 {
            let evicts = facts.info.get("maxmemory_policy");
            let evicted = match facts.info.maxmemory > 0
                && evicts.is_some_and(|policy| policy != "noeviction")
            {
                true => ", evicted",
                false => "",
            };
            wrong.push(format!(
                "{} are missing (deleted since by another client{evicted}, or lost)",
                HumanCount(checked.missing)
            ));
        }
        let mut failure = Failure::new(
            Kind::Failed,
            format!(
                "{} keys were written to {place}; of the backup's keys {compared}, {}",
                HumanCount(written),
                wrong.join(", ")
            ),
        );
        for sample in &checked.samples {
            failure = failure.cause(format!("key {sample}"));
        }
        for counted in found.counted.iter().filter(|counted| counted.missing() > 0) {
            failure = failure.cause(format!(
                "database {} has {} keys, and at least {} of the backup's should be there",
                counted.db,
                HumanCount(counted.has),
                HumanCount(counted.expected)
            ));
        }
        Err(failure.hint(
            "if no client has changed them, restore again with --on-conflict replace --check all; --show-keys names the keys",
        ))
    }

    /// What it says behind the number of keys that were restored: `500 compared with the backup`.
    pub fn words(&self) -> String {
        let mut text = match (&self.incomplete, self.keys) {
            (Some(why), 0) => return format!("not checked: {why}"),
            (Some(why), keys) => {
                format!("{} compared with the backup, then {why}", HumanCount(keys))
            }
            (None, keys) => format!("{} compared with the backup", HumanCount(keys)),
        };
        if self.by_length > 0 {
            text += &format!(" ({} by length alone)", HumanCount(self.by_length));
        }
        if self.perhaps_skipped > 0 {
            text += &format!(
                ", {} of them differ and may have been there before",
                HumanCount(self.perhaps_skipped)
            );
        }
        text
    }
}
