//! `sessions expire` for people: what was done, rule by rule.
//!
//! The reasons of the JSON output are words for scripts; here each is said in words for people.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use crate::cli::output::{Paint, printable};
use crate::cli::table::Facts;
use crate::config::SessionStore;
use crate::sessions::report::KeysHeld;
use crate::sessions::tally::{ExpireDocument, RuleCounts, RuleFacts};
use crate::units::{HumanBytes, HumanCount, HumanDuration};

/// Paints a text: [`Output::paint`](crate::cli::output::Output::paint).
pub(super) type Painter<'p> = &'p dyn Fn(Paint, &str) -> String;

/// Whether what is told was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// Nothing was written.
    Would,
    /// It was done.
    Did,
}

/// The result for one configured database, which has `all` keys where that is known. SCAN may have passed over
/// those of other types.
pub(super) fn text(document: &ExpireDocument, all: Option<u64>, paint: Painter<'_>) -> String {
    let mood = if document.dry_run {
        Mood::Would
    } else {
        Mood::Did
    };
    let taken = document.scanned.saturating_sub(document.unmatched);
    let aside = match mood {
        Mood::Would => paint(Paint::Warning, "; dry run: nothing was written"),
        Mood::Did => String::new(),
    };
    let scanned = match all.filter(|all| *all > document.scanned) {
        Some(all) => format!("{} of {}", HumanCount(document.scanned), keys(all)),
        None => keys(document.scanned),
    };
    let mut text = format!(
        "{}: {scanned} looked at, {} taken by a rule{aside}\n",
        paint(Paint::Strong, &document.database),
        HumanCount(taken),
    );
    text.push_str(&idle_waits(document.idle_waits.as_deref(), paint));
    for counts in &document.rules {
        text.push_str(&format!("\n{}\n", rule_line(&counts.rule, paint)));
        text.push_str(&indented(facts(counts, mood)));
    }
    text
}

/// A line that says why nothing counts as idle yet, where that is so.
pub(super) fn idle_waits(why: Option<&str>, paint: Painter<'_>) -> String {
    let line = |why| {
        paint(
            Paint::Warning,
            &format!("nothing counts as idle yet: {why}"),
        )
    };
    why.map(|why| line(why) + "\n").unwrap_or_default()
}

/// `rule 1: pyramid, timeout 365d`. Rules are counted from 1 for people.
pub(super) fn rule_line(rule: &RuleFacts, paint: Painter<'_>) -> String {
    let mut line = format!(
        "{} {}, timeout {}",
        paint(Paint::Strong, &format!("rule {}:", rule.number + 1)),
        rule.store,
        seconds(rule.timeout),
    );
    if let Some(age) = rule.max_age {
        line.push_str(&format!(", max_age {}", seconds(age)));
    }
    line
}

/// The regex of a rule, and whether it was written or is what the store has of its own.
fn pattern(rule: &RuleFacts) -> String {
    let own = rule
        .store
        .parse::<SessionStore>()
        .is_ok_and(|store| store.default_match() == Some(&rule.pattern));
    let aside = if own { " (the default)" } else { "" };
    format!("{}{aside}", printable(&rule.pattern))
}

/// The counts of one rule, a line each, without those that are nothing.
pub(super) fn facts(counts: &RuleCounts, mood: Mood) -> Facts {
    let mut facts = Facts::default();
    facts.add("match", pattern(&counts.rule));
    if counts.matched == 0 {
        facts.add("keys", "none: is there such a key, and is `match` right?");
        return facts;
    }
    facts.add(
        "keys",
        format!(
            "{}: {} with a TTL, {}",
            HumanCount(counts.matched),
            HumanCount(counts.with_ttl),
            without_ttl(&counts.without_ttl),
        ),
    );
    let (name, shorten, delete) = match mood {
        Mood::Would => ("would", "shorten", "delete"),
        Mood::Did => ("done", "shortened", "deleted"),
    };
    let mut acts = Vec::new();
    if counts.set > 0 {
        acts.push(format!("set a TTL on {}", HumanCount(counts.set)));
    }
    if counts.shortened > 0 {
        acts.push(format!(
            "{shorten} that of {}",
            HumanCount(counts.shortened)
        ));
    }
    acts.extend(reasons(&counts.deleted).map(|line| format!("{delete} {line}")));
    if acts.is_empty() {
        acts.push("nothing".to_owned());
    }
    lines(&mut facts, name, acts);
    lines(&mut facts, "reported", reasons(&counts.reported));
    lines(&mut facts, "left", reasons(&counts.left));
    lines(&mut facts, "unreadable", reasons(&counts.unreadable));
    if counts.changed > 0 {
        let keys = HumanCount(counts.changed);
        facts.add(
            "changed",
            format!("{keys} meanwhile: left for the next run"),
        );
    }
    if counts.gone > 0 {
        facts.add("gone", format!("{} meanwhile", HumanCount(counts.gone)));
    }
    facts
}

/// Several lines under one name.
fn lines(facts: &mut Facts, name: &str, lines: impl IntoIterator<Item = String>) {
    let mut name = name;
    for line in lines {
        facts.add(name, line);
        name = "";
    }
}

/// `12: the TTL is in order`, those of the most keys first.
fn reasons(of: &BTreeMap<&'static str, u64>) -> impl Iterator<Item = String> {
    let mut most: Vec<(&str, u64)> = of.iter().map(|(why, keys)| (*why, *keys)).collect();
    most.sort_by_key(|(_, keys)| std::cmp::Reverse(*keys));
    most.into_iter()
        .map(|(why, keys)| format!("{}: {}", HumanCount(keys), in_words(why)))
}

/// What the word of a reason means. It is said of one key or of many.
fn in_words(reason: &str) -> &str {
    match reason {
        "ttl-in-order" => "the TTL is in order",
        "ttl-long" => "the TTL is longer than the rule allows, and `long_ttl` keeps it",
        "ttl-too-long" => "the TTL is longer than the rule allows",
        "no-ttl" => "no TTL, and `missing_ttl` sets none",
        "ended" => "the end that stands in the session is past",
        "too-old" => "older than `max_age`",
        "idle" => "not used for longer than the timeout",
        "marker-live" => "over by its own times, but its marker says that it is in use",
        "for-ever-by-intent" => "meant to last for ever",
        "never-renewed" => "no TTL, and reading would renew none",
        "lock-without-ttl" => "a lock without TTL, whose owner may still run",
        "not-a-session" => "not a session by its name",
        "another type" => "the value is of another type",
        "too long" => "the value is too long",
        "not the store's format" => "the value is not in the store's format",
        "not a session" => "the value is not a session",
        other => other,
    }
}

fn without_ttl(held: &KeysHeld) -> String {
    if held.keys == 0 {
        return "none without".to_owned();
    }
    format!("{} without ({})", HumanCount(held.keys), bytes(held))
}

/// `1.2 GiB`, `1.2 GiB ± 0.4 %` from a sample, `size unknown`.
pub(super) fn bytes(held: &KeysHeld) -> String {
    let (Some(bytes), Some(error)) = (held.bytes, held.bytes_error) else {
        return "size unknown".to_owned();
    };
    if held.sampled >= held.keys || bytes == 0 {
        return HumanBytes(bytes).to_string();
    }
    let percent = error as f64 * 100.0 / bytes as f64;
    if percent < 0.05 {
        return format!("about {}", HumanBytes(bytes));
    }
    format!("{} ± {percent:.1} %", HumanBytes(bytes))
}

/// `1 key`, `1,234 keys`.
pub(super) fn keys(count: u64) -> String {
    HumanCount(count).of("key", "keys")
}

/// A duration of whole seconds.
pub(super) fn seconds(seconds: u64) -> HumanDuration {
    HumanDuration(Duration::from_secs(seconds))
}

/// Each line two blanks in.
pub(super) fn indented(text: impl Display) -> String {
    let text = text.to_string();
    text.lines()
        .map(|line| format!("  {line}").trim_end().to_owned() + "\n")
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;

    pub(in crate::cli::sessions) fn plain(_: Paint, text: &str) -> String {
        text.to_owned()
    }

    pub(in crate::cli::sessions) fn counts() -> RuleCounts {
        RuleCounts {
            rule: RuleFacts {
                number: 0,
                store: "pyramid",
                pattern: "^websauna_session[0-9a-f]{64}$".to_owned(),
                timeout: 31_536_000,
                max_age: Some(31_536_000),
            },
            matched: 2_104_112,
            with_ttl: 102_772,
            without_ttl: KeysHeld {
                keys: 2_001_340,
                bytes: Some(1_288_490_189),
                bytes_error: Some(5_000_000),
                sampled: 31_300,
            },
            set: 1_811_992,
            shortened: 0,
            deleted: [("too-old", 189_336)].into(),
            reported: BTreeMap::new(),
            left: [("ttl-in-order", 100_000), ("ttl-long", 2_772)].into(),
            unreadable: [("not the store's format", 9)].into(),
            changed: 2,
            gone: 1,
        }
    }

    #[test]
    fn a_run_over_two_million_keys_reads_at_a_glance() {
        let document = ExpireDocument {
            database: "sessions".to_owned(),
            dry_run: true,
            scanned: 2_104_233,
            rules: vec![counts()],
            unmatched: 121,
            idle_waits: None,
        };
        let shown = text(&document, Some(2_104_260), &plain);
        assert_eq!(
            shown,
            "\
sessions: 2,104,233 of 2,104,260 keys looked at, 2,104,112 taken by a rule; dry run: nothing was written

rule 1: pyramid, timeout 365d, max_age 365d
  match       ^websauna_session[0-9a-f]{64}$
  keys        2,104,112: 102,772 with a TTL, 2,001,340 without (1.2 GiB ± 0.4 %)
  would       set a TTL on 1,811,992
              delete 189,336: older than `max_age`
  left        100,000: the TTL is in order
              2,772: the TTL is longer than the rule allows, and `long_ttl` keeps it
  unreadable  9: the value is not in the store's format
  changed     2 meanwhile: left for the next run
  gone        1 meanwhile
"
        );
        assert!(shown.lines().all(|line| line.chars().count() <= 110));
    }

    #[test]
    fn a_run_that_found_nothing_says_so() {
        let mut none = counts();
        none.matched = 0;
        none.with_ttl = 0;
        none.without_ttl = KeysHeld::default();
        let document = ExpireDocument {
            database: "sessions".to_owned(),
            dry_run: false,
            scanned: 5,
            rules: vec![none],
            unmatched: 5,
            idle_waits: None,
        };
        let shown = text(&document, None, &plain);
        assert!(
            shown.ends_with("keys   none: is there such a key, and is `match` right?\n"),
            "{shown}"
        );
    }

    #[test]
    fn every_reason_is_said_in_words() {
        use crate::sessions::{Reason, Unreadable};
        let reasons = [
            Reason::TtlInOrder,
            Reason::TtlLong,
            Reason::TtlTooLong,
            Reason::NoTtl,
            Reason::Ended,
            Reason::TooOld,
            Reason::Idle,
            Reason::ForEverByIntent,
            Reason::NeverRenewed,
            Reason::LockWithoutTtl,
            Reason::NotASession,
        ];
        let unreadable = [
            Unreadable::WrongType,
            Unreadable::TooLong,
            Unreadable::Format,
            Unreadable::NotASession,
        ];
        let words = reasons.map(Reason::as_str).into_iter();
        for word in words.chain(unreadable.map(Unreadable::as_str)) {
            assert_ne!(in_words(word), word);
        }
    }

    #[test]
    fn a_regex_that_the_store_has_of_its_own_is_told_as_such() {
        let mut flask = counts();
        flask.rule.store = "flask";
        flask.rule.pattern = SessionStore::Flask.default_match().unwrap().to_owned();
        let shown = facts(&flask, Mood::Did).to_string();
        let first = shown.lines().next().unwrap();
        assert!(first.ends_with("$ (the default)"), "{first}");
    }
}
