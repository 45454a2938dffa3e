//! A plan in words.

use std::fmt;

use super::plan::{LibraryFate, Plan};
use crate::units::HumanCount;

/// A few lines for a person.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "restore {} to {}",
            HumanCount(self.keys).of("key", "keys"),
            self.target
        )?;
        if let Some(server) = &self.target_server {
            write!(f, " ({server})")?;
        }
        writeln!(f)?;
        for (db, keys) in &self.flush {
            writeln!(
                f,
                "  database {db} is emptied first: {}",
                HumanCount(*keys).of("key", "keys")
            )?;
        }
        for found in &self.databases {
            write!(f, "  database {}", found.from)?;
            if found.to != found.from {
                write!(f, " to {}", found.to)?;
            }
            write!(f, ": {}", HumanCount(found.keys).of("key", "keys"))?;
            let types: Vec<String> = found
                .types
                .iter()
                .map(|(name, keys)| format!("{} {name}", HumanCount(*keys)))
                .collect();
            if !types.is_empty() {
                write!(f, " ({})", types.join(", "))?;
            }
            for (count, what) in [
                (found.expires, "expire"),
                (found.expired, "over and left out"),
                (found.left_out, "not selected"),
                (found.unheld, "cannot be held and left out"),
            ] {
                if count > 0 {
                    write!(f, ", {} {what}", HumanCount(count))?;
                }
            }
            writeln!(f)?;
        }
        if let Some(ways) = &self.ways {
            for (count, what) in [
                (ways.recoded, "re-encoded for the target's version"),
                (ways.commands, "written by plain commands"),
            ] {
                if count > 0 {
                    let keys = HumanCount(count).of("key is", "keys are");
                    writeln!(f, "  {keys} {what}")?;
                }
            }
        }
        for library in &self.functions {
            let fate = match library.fate {
                LibraryFate::Load => "loaded",
                LibraryFate::Replace => "replaces the target's",
                LibraryFate::Same => "there already",
                LibraryFate::Skip => "the target's stays",
                LibraryFate::Conflict => "the target has another one",
                LibraryFate::Unheld => "the target knows no functions",
                LibraryFate::Unseen => "the target does not tell which ones it has",
            };
            writeln!(f, "  function library {}: {fate}", library.name)?;
        }
        if let Some(conflicts) = &self.conflicts {
            writeln!(
                f,
                "  {} there already (--on-conflict {})",
                HumanCount(conflicts.keys).of("of these keys is", "of these keys are"),
                self.on_conflict
            )?;
        }
        for found in &self.unheld {
            writeln!(f, "  cannot be held: {found}")?;
        }
        if let Some(memory) = &self.memory {
            writeln!(f, "  memory: {memory}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "  note: {warning}")?;
        }
        if let Some(refused) = &self.refused {
            writeln!(f, "  refused: {refused}")?;
        }
        Ok(())
    }
}
