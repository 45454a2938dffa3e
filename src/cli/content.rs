//! What a backup's keys add up to, for people.

use jiff::Timestamp;

use super::output::HumanTime;
use super::table::{Align, Table};
use crate::inspect::content::{Content, Counts, Expiries};
use crate::units::{HumanBytes, HumanCount};

/// The columns of what keys add up to.
const COLUMNS: [(&str, Align); 8] = [
    ("KEYS", Align::Right),
    ("BYTES", Align::Right),
    ("NO EXPIRY", Align::Right),
    ("OVER", Align::Right),
    ("< 1 H", Align::Right),
    ("< 1 D", Align::Right),
    ("< 30 D", Align::Right),
    ("MORE", Align::Right),
];

fn table(first: &'static str) -> Table {
    Table::new([(first, Align::Left)].into_iter().chain(COLUMNS))
}

fn row(table: &mut Table, name: String, counts: &Counts) {
    let Expiries {
        none,
        over,
        under_1h,
        under_1d,
        under_30d,
        more,
    } = counts.expiry;
    let keys = HumanCount(counts.keys).to_string();
    let expiries = [none, over, under_1h, under_1d, under_30d, more];
    let expiries = expiries.map(|keys| HumanCount(keys).to_string());
    let cells = [name, keys, HumanBytes(counts.bytes).to_string()];
    table.row(cells.into_iter().chain(expiries));
}

/// When a key expires; in milliseconds where the calendar ends before.
fn expires(at_ms: Option<i64>) -> String {
    match at_ms.map(|at| (at, Timestamp::from_millisecond(at))) {
        None => "-".to_owned(),
        Some((_, Ok(time))) => HumanTime(time).to_string(),
        Some((at, Err(_))) => format!("{at} ms"),
    }
}

/// Tables by type, by prefix, and of the largest keys; with an empty line before them.
pub(super) fn content_text(content: &Content) -> String {
    if content.types.is_empty() {
        return String::new();
    }
    let mut types = table("TYPE");
    for of in &content.types {
        row(&mut types, of.kind.to_owned(), &of.counts);
    }
    let mut prefixes = table("PREFIX");
    for of in &content.prefixes {
        row(&mut prefixes, of.prefix.clone(), &of.counts);
    }
    let others = &content.other_prefixes;
    if others.counts.keys > 0 {
        row(&mut prefixes, "others".to_owned(), &others.counts);
    }
    let mut largest = Table::new([
        ("LARGEST", Align::Left),
        ("DB", Align::Right),
        ("TYPE", Align::Left),
        ("BYTES", Align::Right),
        ("EXPIRES", Align::Left),
    ]);
    for large in &content.largest {
        largest.row([
            large.key.clone(),
            large.db.to_string(),
            large.kind.to_owned(),
            HumanBytes(large.bytes).to_string(),
            expires(large.expire_at_ms),
        ]);
    }
    format!(
        "\nBytes are those in the RDB file; expiries are counted from {}.\n\n{types}\n{prefixes}\n{largest}",
        HumanTime(content.at)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_a_time_as_long_as_there_is_a_calendar() {
        assert_eq!(expires(None), "-");
        assert_eq!(expires(Some(4_102_444_800_123)), "2100-01-01 00:00:00 UTC");
        assert_eq!(expires(Some(i64::MAX)), "9223372036854775807 ms");
    }
}
