//! What a plan warns of, and what it is refused for.

use super::memory::MemoryPlan;
use super::plan::{DatabasePlan, Ingredients, LibraryFate, Plan, UnheldPlan};
use crate::failure::{Failure, Kind};
use crate::target::Expiry;
use crate::target::facts::TargetLibraries;
use crate::target::live::OnConflict;
use crate::target::way::Mode;
use crate::units::{HumanCount, listed};

impl Plan {
    pub(super) fn warn(&mut self, ingredients: &Ingredients<'_>) {
        let survey = ingredients.survey;
        let mut warn = |text: String| self.warnings.push(text);
        match survey.opaque {
            Some((offset, what)) => warn(format!(
                "from byte {offset} on the backup is opaque, so which keys it has there is not known: {what}"
            )),
            None if self.keys == 0 => warn(why_no_keys(&self.databases, self.left_out)),
            None => {}
        }
        if !survey.libraries.is_empty() && !ingredients.route.filters.is_all() {
            warn(format!(
                "{} left out, because only some keys are selected",
                HumanCount(survey.libraries.len() as u64)
                    .of("function library is", "function libraries are")
            ));
        }
        if survey.field_expiries > 0 && ingredients.route.expiry != Expiry::Keep {
            warn(format!(
                "the expiries of single fields stay as they are, in {}: --ttl is about keys",
                HumanCount(survey.field_expiries).of("hash", "hashes")
            ));
        }
        if ingredients.facts.is_none() {
            return;
        }
        if !survey.modules.is_empty() {
            let names: Vec<&str> = survey.modules.iter().map(String::as_str).collect();
            warn(format!(
                "data of modules that belongs to no key can't be restored to a running server: {}",
                names.join(", ")
            ));
        }
        if survey.unreadable_libraries > 0 {
            warn(format!(
                "{} in the form of Redis 7.0's release candidates, which no server takes",
                HumanCount(survey.unreadable_libraries)
                    .of("function library is", "function libraries are")
            ));
        }
        if let Some(warning) = self.memory.as_ref().and_then(MemoryPlan::warning) {
            warn(warning);
        }
    }

    /// Whether it may be done.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn judge(&self, ingredients: &Ingredients<'_>) -> Result<(), Failure> {
        let refuse = |message: String| Failure::new(Kind::Refused, message);
        let place = ingredients.place;
        // A copy of it is as good as the file.
        let copied = ingredients.facts.is_none() && ingredients.route.is_identity();
        if let Some((offset, what)) = ingredients.survey.opaque.filter(|_| !copied) {
            return Err(crate::target::Error::Opaque { offset, what }.into());
        }
        // A mistyped filter must not look like success.
        let selected = |found: &DatabasePlan| found.keys + found.expired + found.unheld > 0;
        if self.left_out > 0 && !self.databases.iter().any(selected) {
            return Err(refuse(format!(
                "no key of the backup is selected: the filters leave out all {}",
                HumanCount(self.left_out)
            ))
            .hint("`rdbkeeper backup show` tells what it holds, by database and type; globs are quoted for the shell"));
        }
        if !ingredients.lacking.is_empty() {
            let list = listed(ingredients.lacking);
            let databases = if ingredients.lacking.len() == 1 {
                "database"
            } else {
                "databases"
            };
            return Err(refuse(format!("{place} has no {databases} {list}")).hint(
                "raise `databases` in its configuration, or put the keys elsewhere with --map",
            ));
        }
        if !self.unheld.is_empty() && !self.allow_loss {
            let server = self.target_server.as_deref().unwrap_or("the target");
            let whole = self.unheld.iter().all(|found| found.parts == 0);
            let mut failure = refuse(format!(
                "{place} ({server}) cannot hold {}{} of the {}",
                if whole { "" } else { "everything in " },
                HumanCount(ingredients.survey.unheld_keys),
                HumanCount(self.keys).of("key", "keys")
            ));
            for found in &self.unheld {
                failure = failure.cause(found.to_string());
            }
            let all = |of: fn(&UnheldPlan) -> bool| self.unheld.iter().all(of);
            return Err(failure.hint(if all(|found| found.module.is_some()) {
                "load the module into the target, leave these keys out with --exclude or --type, or say --allow-loss to go on without them"
            } else if self.mode == Some(Mode::Restore.as_str()) {
                "--mode auto writes what it can in another way; --allow-loss leaves out what cannot be held"
            } else {
                "restore to a newer server, leave these keys out with --exclude or --type, or say --allow-loss to go on without what cannot be held"
            }));
        }
        let libraries = |fate: LibraryFate| {
            let names: Vec<&str> = self
                .functions
                .iter()
                .filter(|library| library.fate == fate)
                .map(|library| library.name.as_str())
                .collect();
            (!names.is_empty()).then(|| names.join(", "))
        };
        if let Some(names) = libraries(LibraryFate::Unheld).filter(|_| !self.allow_loss) {
            return Err(refuse(format!("{place} knows no functions"))
                .cause(format!("function libraries in the backup: {names}"))
                .hint("restore to Redis 7.0 or newer, or go on without them: --allow-loss"));
        }
        if let (Some(_), Some(facts)) = (libraries(LibraryFate::Unseen), ingredients.facts)
            && let TargetLibraries::Refused(reply) = &facts.libraries
        {
            let source = crate::server::Error::Reply {
                command: "FUNCTION LIST".to_owned(),
                reply: reply.clone(),
            };
            return Err(crate::target::Error::target(place, source).into());
        }
        // Whatever is done with keys of the target: of two keys of the backup one would vanish.
        if self.collisions > 0 {
            return Err(refuse(format!(
                "{} of the backup would take the name of another one",
                HumanCount(self.collisions).of("key", "keys")
            ))
            .hint("put the databases elsewhere with --map, or choose another prefix"));
        }
        if let Some(memory) = &self.memory {
            memory.judge(place, self.doing(ingredients))?;
        }
        if ingredients.on_conflict != OnConflict::Fail || ingredients.facts.is_none() {
            return Ok(());
        }
        let hint = "keep the target's with --on-conflict skip, or the backup's with --on-conflict replace; --flush empties the databases first";
        if let Some(conflicts) = self
            .conflicts
            .as_ref()
            .filter(|conflicts| conflicts.keys > 0)
        {
            let mut failure = refuse(format!(
                "{place} has {} of the {} already",
                HumanCount(conflicts.keys),
                HumanCount(self.keys).of("key", "keys")
            ));
            if !conflicts.samples.is_empty() {
                failure = failure.cause(format!("for example {}", conflicts.samples.join(", ")));
            }
            return Err(failure.hint(hint));
        }
        if let Some(names) = libraries(LibraryFate::Conflict) {
            return Err(refuse(format!("{place} has other function libraries of the same name"))
                .cause(format!("they are: {names}"))
                .hint("keep the target's with --on-conflict skip, or the backup's with --on-conflict replace"));
        }
        Ok(())
    }
}

/// Why there is no key to write.
fn why_no_keys(databases: &[DatabasePlan], left_out: u64) -> String {
    let sum = |of: fn(&DatabasePlan) -> u64| databases.iter().map(of).sum::<u64>();
    let reasons: Vec<String> = [
        (sum(|found| found.expired), "over already"),
        (sum(|found| found.unheld), "cannot be held"),
        (left_out, "not selected"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, why)| format!("{} {why}", HumanCount(count)))
    .collect();
    match reasons.is_empty() {
        true => "the backup has no keys".to_owned(),
        false => format!("no key is left to write: {}", reasons.join(", ")),
    }
}
