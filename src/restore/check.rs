//! After a restore: what was written is compared with the backup.
//!
//! The backup is read once more, and the target asked for all of the keys, or for a sample of them. What is told is what
//! can be known: a target has other clients, and a key that differs was damaged, or changed by one of them since.

use serde::Serialize;

use crate::failure::{Failure, Kind};
use crate::selection::KeyNames;
use crate::server::Facts;
use crate::target::facts::TargetFacts;
use crate::target::live::{Chosen, Comparison, Counted};
use crate::units::{HumanBytes, HumanCount};

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

/// What a check found.
#[derive(Clone, Debug, Serialize)]
pub struct Checked {
    /// `all` or `sample`.
    pub mode: &'static str,
    /// Keys that were compared; of a file, keys in it.
    pub keys: u64,
    /// Those of them of which only the length was compared.
    #[serde(skip_serializing_if = "is_zero")]
    pub by_length: u64,
    /// Those of them that were only looked for.
    #[serde(skip_serializing_if = "is_zero")]
    pub by_presence: u64,
    /// Those of them that are not there.
    pub missing: u64,
    /// Those of them that differ.
    pub differing: u64,
    /// By how many keys the databases have fewer than they must: of all keys of the backup, compared or not, at least so
    /// many are missing.
    pub fewer: u64,
    /// The first few that are missing or differ, masked unless they may be shown.
    pub samples: Vec<String>,
    /// Keys that are not as in the backup, and may be those that were there before (`--on-conflict skip`).
    #[serde(skip_serializing_if = "is_zero")]
    pub perhaps_skipped: u64,
    /// Keys, whosesoever, that the target has evicted since the restore began.
    #[serde(skip_serializing_if = "is_zero")]
    pub evicted: u64,
    /// Why not all could be compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<String>,
    /// Whether it is a file that was read back.
    #[serde(skip)]
    is_file: bool,
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
            by_presence: 0,
            missing: 0,
            differing: 0,
            fewer: 0,
            samples: Vec::new(),
            perhaps_skipped: 0,
            evicted: 0,
            incomplete: None,
            is_file: true,
        }
    }

    /// What a comparison found. `facts` are those from before the restore.
    pub(super) fn of(check: Check, found: &Comparison, facts: &TargetFacts) -> Checked {
        let samples = found.differences.iter().map(|difference| {
            let words = difference.unlike.words();
            format!("{} in database {} {words}", difference.key, difference.db)
        });
        let after = found.after.as_ref();
        Checked {
            mode: check.as_str(),
            keys: found.keys,
            by_length: found.by_length,
            by_presence: found.by_presence,
            missing: found.missing,
            differing: found.differing,
            fewer: found.counted.iter().map(Counted::missing).sum(),
            samples: samples.collect(),
            perhaps_skipped: found.perhaps_skipped,
            evicted: after.map_or(0, |after| {
                evicted_keys(after).saturating_sub(evicted_keys(&facts.info))
            }),
            incomplete: found
                .forbidden
                .as_ref()
                .map(|(command, reply)| format!("{} refuses {command}: {reply}", facts.place)),
            is_file: false,
        }
    }

    /// What is wrong on the target, if anything is. `written` is how many keys the restore wrote.
    pub(super) fn wrong(
        &self,
        found: &Comparison,
        written: u64,
        place: &str,
        names: KeyNames,
    ) -> Option<Failure> {
        if self.missing == 0 && self.differing == 0 && self.fewer == 0 {
            return None;
        }
        let written = HumanCount(written).of("key was", "keys were");
        let mut message = format!("{written} written to {place}");
        let mut why = match self.evicted {
            0 => " (deleted since by another client, or lost)",
            _ => " (evicted, deleted since by another client, or lost)",
        };
        if self.fewer > self.missing {
            let fewer = HumanCount(self.fewer);
            let are = if self.fewer == 1 { "is" } else { "are" };
            message += &format!("; at least {fewer} of the backup's keys {are} missing{why}");
            why = "";
        }
        let mut unlike = Vec::new();
        if self.missing > 0 {
            let missing = HumanCount(self.missing).of("is missing", "are missing");
            unlike.push(format!("{missing}{why}"));
        }
        if self.differing > 0 {
            unlike.push(format!(
                "{} from the backup (changed since by another client, or damaged)",
                HumanCount(self.differing).of("differs", "differ")
            ));
        }
        if unlike.is_empty() {
            unlike.push("none differs".to_owned());
        }
        message += &match self.keys {
            0 => "; none was compared".to_owned(),
            keys => format!("; of {} compared {}", HumanCount(keys), unlike.join(", ")),
        };
        let mut failure = Failure::new(Kind::Failed, message);
        for sample in &self.samples {
            failure = failure.cause(format!("key {sample}"));
        }
        for counted in found.counted.iter().filter(|counted| counted.missing() > 0) {
            failure = failure.cause(format!(
                "database {} has {}, and at least {} of the backup's should be there",
                counted.db,
                HumanCount(counted.has).of("key", "keys"),
                HumanCount(counted.expected)
            ));
        }
        Some(failure.hint(self.what_to_do(found, names)))
    }

    fn what_to_do(&self, found: &Comparison, names: KeyNames) -> String {
        let again = "restore again with --on-conflict replace --check all";
        if self.evicted > 0 {
            let after = found.after.as_ref();
            let policy = after.and_then(|after| after.get("maxmemory_policy"));
            return format!(
                "the target is full and has evicted {} since the restore began (maxmemory {}, maxmemory-policy {}): raise `maxmemory` or set `maxmemory-policy noeviction`, then {again}",
                HumanCount(self.evicted).of("key", "keys"),
                HumanBytes(after.map_or(0, |after| after.maxmemory)),
                policy.unwrap_or("unknown")
            );
        }
        match names {
            KeyNames::Shown => format!("if no client has changed them, {again}"),
            KeyNames::Masked => {
                format!("if no client has changed them, {again}; --show-keys names the keys")
            }
        }
    }

    /// What it says behind the number of keys that were restored: `500 compared with the backup`.
    pub fn words(&self) -> String {
        if self.is_file {
            return "read back whole".to_owned();
        }
        let mut text = match (&self.incomplete, self.keys) {
            (Some(why), 0) => return format!("not checked: {why}"),
            (Some(why), keys) => {
                format!("{} compared with the backup, then {why}", HumanCount(keys))
            }
            (None, keys) => format!("{} compared with the backup", HumanCount(keys)),
        };
        let asides: Vec<String> = [
            (self.by_length, "by length alone"),
            (self.by_presence, "only for being there"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, how)| format!("{} {how}", HumanCount(count)))
        .collect();
        if !asides.is_empty() {
            text += &format!(" ({})", asides.join(", "));
        }
        if self.perhaps_skipped > 0 {
            text += &format!(
                ", {} of them {} and may have been there before",
                HumanCount(self.perhaps_skipped),
                if self.perhaps_skipped == 1 {
                    "differs"
                } else {
                    "differ"
                }
            );
        }
        if self.evicted > 0 {
            text += &format!(
                "; meanwhile the target evicted {}: see its `maxmemory`",
                HumanCount(self.evicted).of("key", "keys")
            );
        }
        text
    }
}

/// How many keys a server has evicted since it started.
fn evicted_keys(info: &Facts) -> u64 {
    let count = info.get("evicted_keys").and_then(|text| text.parse().ok());
    count.unwrap_or(0)
}
