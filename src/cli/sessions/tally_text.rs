//! `sessions expire` for people: what was done, rule by rule.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use crate::cli::output::{Paint, printable};
use crate::cli::table::Facts;
use crate::sessions::report::KeysHeld;
use crate::sessions::tally::{ExpireDocument, RuleCounts, RuleFacts, sum};
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

/// The result for one configured database.
pub(super) fn text(document: &ExpireDocument, paint: Painter<'_>) -> String {
    let mood = if document.dry_run {
        Mood::Would
    } else {
        Mood::Did
    };
    let taken = document.scanned.saturating_sub(document.unmatched);
    let aside = match mood {
        Mood::Would => paint(Paint::Warning, ", dry run: nothing was written"),
        Mood::Did => String::new(),
    };
    let mut text = format!(
        "{}: {}, {} taken by a rule{aside}\n",
        paint(Paint::Strong, &document.database),
        keys(document.scanned),
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

/// `rule 1: pyramid ^websauna_session…$, timeout 365d`. Rules are counted from 1 for people.
pub(super) fn rule_line(rule: &RuleFacts, paint: Painter<'_>) -> String {
    let mut line = format!(
        "{} {} {}, timeout {}",
        paint(Paint::Strong, &format!("rule {}:", rule.number + 1)),
        rule.store,
        printable(&rule.pattern),
        seconds(rule.timeout),
    );
    if let Some(age) = rule.max_age {
        line.push_str(&format!(", max_age {}", seconds(age)));
    }
    line
}

/// The counts of one rule, a line each, without those that are nothing.
pub(super) fn facts(counts: &RuleCounts, mood: Mood) -> Facts {
    let mut facts = Facts::default();
    facts.add(
        "matched",
        format!(
            "{}: {} with a TTL, {}",
            keys(counts.matched),
            HumanCount(counts.with_ttl),
            without_ttl(&counts.without_ttl),
        ),
    );
    if counts.matched == 0 {
        return facts;
    }
    let mut acts = Vec::new();
    if counts.set > 0 {
        acts.push(format!("set a TTL on {}", HumanCount(counts.set)));
    }
    if counts.shortened > 0 {
        let word = match mood {
            Mood::Would => "shorten",
            Mood::Did => "shortened",
        };
        acts.push(format!("{word} that of {}", HumanCount(counts.shortened)));
    }
    if !counts.deleted.is_empty() {
        let word = match mood {
            Mood::Would => "delete",
            Mood::Did => "deleted",
        };
        acts.push(format!("{word} {}", reasons(&counts.deleted)));
    }
    let name = match mood {
        Mood::Would => "would",
        Mood::Did => "done",
    };
    if acts.is_empty() {
        acts.push("nothing".to_owned());
    }
    facts.add(name, acts.join(", "));
    for (name, of) in [
        ("reported", &counts.reported),
        ("left", &counts.left),
        ("unreadable", &counts.unreadable),
    ] {
        if !of.is_empty() {
            facts.add(name, reasons(of));
        }
    }
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

/// `12 (ttl-in-order)`, `15: 12 ttl-in-order, 3 ttl-long`. The words are those of the JSON output.
fn reasons(of: &BTreeMap<&'static str, u64>) -> String {
    let mut most: Vec<(&str, u64)> = of.iter().map(|(why, keys)| (*why, *keys)).collect();
    most.sort_by_key(|(_, keys)| std::cmp::Reverse(*keys));
    match most.as_slice() {
        [(why, keys)] => format!("{} ({why})", HumanCount(*keys)),
        _ => {
            let each: Vec<String> = most
                .iter()
                .map(|(why, keys)| format!("{} {why}", HumanCount(*keys)))
                .collect();
            format!("{} ({})", HumanCount(sum(of)), each.join(", "))
        }
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
    match count {
        1 => "1 key".to_owned(),
        _ => format!("{} keys", HumanCount(count)),
    }
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
    fn a_run_over_two_million_keys_reads_in_ten_lines() {
        let document = ExpireDocument {
            database: "sessions".to_owned(),
            dry_run: true,
            scanned: 2_104_233,
            rules: vec![counts()],
            unmatched: 121,
            idle_waits: None,
        };
        let shown = text(&document, &plain);
        assert_eq!(
            shown,
            "\
sessions: 2,104,233 keys, 2,104,112 taken by a rule, dry run: nothing was written

rule 1: pyramid ^websauna_session[0-9a-f]{64}$, timeout 365d, max_age 365d
  matched     2,104,112 keys: 102,772 with a TTL, 2,001,340 without (1.2 GiB ± 0.4 %)
  would       set a TTL on 1,811,992, delete 189,336 (too-old)
  left        102,772 (100,000 ttl-in-order, 2,772 ttl-long)
  unreadable  9 (not the store's format)
  changed     2 meanwhile: left for the next run
  gone        1 meanwhile
"
        );
        assert!(shown.lines().all(|line| line.chars().count() <= 100));
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
        let shown = text(&document, &plain);
        assert!(
            shown.ends_with("matched  0 keys: 0 with a TTL, none without\n"),
            "{shown}"
        );
    }
}
