//! `sessions report` for people: the rules first, then what never expires, then what could be written.

use super::tally_text::{
    Mood, Painter, bytes, facts, idle_waits, indented, keys, rule_line, seconds,
};
use crate::cli::output::{HumanTime, Paint};
use crate::cli::table::{Align, Table};
use crate::sessions::report::{
    DatabaseReport, Oldest, ReportDocument, RuleReport, Suggestion, TimeoutFrom,
};
use crate::units::HumanCount;

/// A person gets so many suggestions at once, the most weighty.
const SUGGESTED: usize = 5;

/// The report on one configured database.
pub(super) fn text(document: &ReportDocument, paint: Painter<'_>) -> String {
    let mut text = format!(
        "{} at {}, {}, {}\n",
        paint(Paint::Strong, &document.database),
        document.address,
        document
            .server
            .as_deref()
            .unwrap_or("a server that does not say what it is"),
        HumanTime(document.at),
    );
    text.push_str(&idle_waits(document.idle_waits.as_deref(), paint));
    for database in &document.databases {
        text.push('\n');
        text.push_str(&database_text(database, paint));
    }
    text
}

fn database_text(database: &DatabaseReport, paint: Painter<'_>) -> String {
    let name = paint(Paint::Strong, &format!("db {}:", database.db));
    let all = keys(database.keys);
    if database.keys == 0 {
        return format!("{name} no keys\n");
    }
    let never = &database.without_ttl;
    let mut text = if never.keys == 0 {
        let each = if database.keys == 1 { "" } else { "each " };
        format!("{name} {all}, {each}with a TTL\n")
    } else {
        let aside = format!("{} never expire ({})", HumanCount(never.keys), bytes(never));
        format!("{name} {all}, {}\n", paint(Paint::Warning, &aside))
    };
    for rule in &database.rules {
        text.push('\n');
        text.push_str(&rule_text(rule, paint));
    }
    if database.unmatched > 0 && !database.rules.is_empty() {
        text.push_str(&format!(
            "\n{} that no rule takes\n",
            keys(database.unmatched)
        ));
    }
    if never.keys > 0 {
        let title = paint(Paint::Strong, "what never expires, by prefix");
        text.push_str(&format!("\n{title}\n"));
        text.push_str(&indented(prefixes(database)));
    }
    for suggestion in database.suggestions.iter().take(SUGGESTED) {
        text.push('\n');
        text.push_str(&suggestion_text(suggestion, paint));
    }
    let more = database.suggestions.len().saturating_sub(SUGGESTED);
    if more > 0 {
        text.push_str(&format!("\n{more} more suggestions: see --json\n"));
    }
    if !database.suggestions.is_empty() {
        text.push_str(
            "\nWrite what fits below its [[database]], with the timeout that the application has; then look again.\n",
        );
    }
    text
}

fn rule_text(rule: &RuleReport, paint: Painter<'_>) -> String {
    let mut text = format!("{}\n", rule_line(&rule.counts.rule, paint));
    let mut lines = facts(&rule.counts, Mood::Would);
    if let Some(oldest) = &rule.oldest {
        lines.add("oldest", oldest_text(oldest));
    }
    text.push_str(&indented(lines));
    if rule.ttl.total() > 0 {
        text.push_str(&indented(lifetimes(rule)));
    }
    text
}

fn oldest_text(oldest: &Oldest) -> String {
    format!(
        "{} old, of {} that were read; its key: {}",
        age(oldest.age),
        HumanCount(oldest.read),
        oldest.key
    )
}

/// An age in the unit that says most.
fn age(of: u64) -> String {
    const YEAR: u64 = 365 * 86_400;
    if of >= 2 * YEAR {
        format!("{:.1} years", of as f64 / YEAR as f64)
    } else {
        seconds(of).to_string()
    }
}

fn lifetimes(rule: &RuleReport) -> Table {
    let classes = rule.ttl.classes();
    let columns = classes.map(|(name, _)| (name, Align::Right));
    let mut table = Table::new([("TTL", Align::Left)].into_iter().chain(columns));
    let cells = classes.map(|(_, keys)| HumanCount(keys).to_string());
    table.row(["keys".to_owned()].into_iter().chain(cells));
    table
}

fn prefixes(database: &DatabaseReport) -> Table {
    let mut table = Table::new([
        ("PREFIX", Align::Left),
        ("KEYS", Align::Right),
        ("WITHOUT TTL", Align::Right),
        ("THEY HOLD", Align::Left),
    ]);
    for row in &database.prefixes {
        if row.without_ttl.keys > 0 {
            let prefix = match row.prefix.as_str() {
                "*" => "* (no prefix)",
                prefix => prefix,
            };
            table.row([
                prefix.to_owned(),
                HumanCount(row.keys).to_string(),
                HumanCount(row.without_ttl.keys).to_string(),
                bytes(&row.without_ttl),
            ]);
        }
    }
    let others = &database.other_prefixes;
    if others.without_ttl.keys > 0 {
        table.row([
            "(others)".to_owned(),
            HumanCount(others.keys).to_string(),
            HumanCount(others.without_ttl.keys).to_string(),
            bytes(&others.without_ttl),
        ]);
    }
    table
}

fn suggestion_text(suggestion: &Suggestion, paint: Painter<'_>) -> String {
    let mut evidence = vec![format!(
        "{} without TTL",
        HumanCount(suggestion.without_ttl)
    )];
    evidence.push(match suggestion.read {
        0 => "known by their names, no value was read".to_owned(),
        read => format!(
            "{} of {}",
            HumanCount(suggestion.read_as_store),
            HumanCount(read).of(
                "value that was read is such",
                "values that were read are such"
            )
        ),
    });
    if suggestion.for_ever > 0 {
        let keys = HumanCount(suggestion.for_ever);
        evidence.push(format!("{keys} of those mean to last for ever"));
    }
    if suggestion.timeout_from == Some(TimeoutFrom::Sessions) {
        evidence.push("this timeout stands in most of them".to_owned());
    }
    let kind = match suggestion.store {
        "celery" => "results",
        _ => "sessions",
    };
    // All but the first line can be pasted as it is.
    format!(
        "{} for {} that no rule takes and that look like {kind} of {}:\n  # {}\n{}",
        paint(Paint::Strong, "a rule"),
        keys(suggestion.keys),
        suggestion.store,
        evidence.join("; "),
        indented(&suggestion.toml)
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tally_text::tests::{counts, plain};
    use super::*;
    use crate::sessions::histogram::Histogram;
    use crate::sessions::report::{KeysHeld, OtherPrefixes, PrefixCounts};

    fn held(keys: u64, bytes: u64) -> KeysHeld {
        KeysHeld {
            keys,
            bytes: Some(bytes),
            bytes_error: Some(bytes / 250),
            sampled: keys.min(31_300),
        }
    }

    fn row(prefix: &str, keys: u64, without: u64, bytes: u64) -> PrefixCounts {
        PrefixCounts {
            prefix: prefix.to_owned(),
            keys,
            with_ttl: keys - without,
            without_ttl: held(without, bytes),
        }
    }

    fn leaked() -> DatabaseReport {
        DatabaseReport {
            db: 1,
            keys: 2_104_233,
            with_ttl: 102_856,
            without_ttl: held(2_001_377, 1_288_500_000),
            rules: vec![RuleReport {
                counts: counts(),
                ttl: Histogram {
                    no_ttl: 2_001_340,
                    up_to_1h: 12,
                    up_to_1d: 310,
                    up_to_7d: 9_000,
                    up_to_30d: 20_001,
                    up_to_1y: 73_449,
                    more: 0,
                },
                oldest: Some(Oldest {
                    created_at: "2019-03-01T08:00:00Z".parse().unwrap(),
                    age: 243_700_000,
                    read: 964,
                    key: "\"websauna_session…\" (80 bytes)".to_owned(),
                }),
            }],
            unmatched: 121,
            prefixes: vec![
                row("websauna_session*", 2_104_112, 2_001_340, 1_288_490_189),
                row("throttle_login", 1, 1, 9_100),
                row("image:*", 84, 0, 0),
            ],
            other_prefixes: OtherPrefixes {
                prefixes: 0,
                keys: 36,
                with_ttl: 0,
                without_ttl: held(36, 4_000),
            },
            suggestions: Vec::new(),
        }
    }

    fn document(databases: Vec<DatabaseReport>) -> ReportDocument {
        ReportDocument {
            database: "sessions".to_owned(),
            address: "localhost:6379".to_owned(),
            server: Some("redis 7.0.15".to_owned()),
            at: "2026-11-22T21:43:53Z".parse().unwrap(),
            idle_waits: None,
            databases,
        }
    }

    #[test]
    fn two_million_leaked_sessions_are_seen_at_a_glance() {
        let shown = text(&document(vec![leaked()]), &plain);
        assert_eq!(
            shown,
            "\
sessions at localhost:6379, redis 7.0.15, 2026-11-22 21:43:53 UTC

db 1: 2,104,233 keys, 2,001,377 never expire (1.2 GiB ± 0.4 %)

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
  oldest      7.7 years old, of 964 that were read; its key: \"websauna_session…\" (80 bytes)
  TTL   to 1h  to 1d  to 7d  to 30d   to 1y  longer       none
  keys     12    310  9,000  20,001  73,449       0  2,001,340

121 keys that no rule takes

what never expires, by prefix
  PREFIX                  KEYS  WITHOUT TTL  THEY HOLD
  websauna_session*  2,104,112    2,001,340  1.2 GiB ± 0.4 %
  throttle_login             1            1  8.9 KiB
  (others)                  36           36  3.9 KiB
"
        );
        assert!(shown.lines().all(|line| line.chars().count() <= 100));
    }

    fn suggestion() -> Suggestion {
        Suggestion {
            store: "pyramid",
            pattern: "^websauna_session[0-9a-f]{64}$".to_owned(),
            timeout: Some(31_536_000),
            timeout_from: Some(TimeoutFrom::Sessions),
            keys: 2_104_112,
            without_ttl: 2_001_340,
            read: 64,
            read_as_store: 63,
            for_ever: 0,
            toml: "[[database.sessions]]\nstore   = \"pyramid\"\n".to_owned(),
        }
    }

    #[test]
    fn a_suggestion_can_be_pasted() {
        let mut database = leaked();
        database.rules.clear();
        database.suggestions.push(suggestion());
        let shown = text(&document(vec![database]), &plain);
        let (_, end) = shown.split_once("\na rule ").unwrap();
        assert_eq!(
            end,
            "\
for 2,104,112 keys that no rule takes and that look like sessions of pyramid:
  # 2,001,340 without TTL; 63 of 64 values that were read are such; this timeout stands in most of them
  [[database.sessions]]
  store   = \"pyramid\"

Write what fits below its [[database]], with the timeout that the application has; then look again.
"
        );
    }

    #[test]
    fn many_suggestions_are_a_few_and_a_count() {
        let mut database = leaked();
        database.suggestions = vec![suggestion(); 7];
        let shown = text(&document(vec![database]), &plain);
        assert_eq!(shown.matches("\na rule for").count(), 5);
        assert!(shown.contains("\n2 more suggestions: see --json\n"));
    }

    #[test]
    fn an_empty_database_is_one_line() {
        let mut empty = leaked();
        empty.keys = 0;
        let shown = text(&document(vec![empty]), &plain);
        assert!(shown.ends_with("\n\ndb 1: no keys\n"));
    }
}
