//! The keys of one database by prefix, in bounded memory.
//!
//! A database may have as many prefixes as keys. When there are too many the small ones are merged into the next
//! shorter prefix, which from then on gathers all that has no entry of its own, and at last into "others". What
//! has many keys keeps its entry, whenever it comes.
//!
//! Prefixes that may be the beginning of an ID (see [`prefix`](super::prefix)) are merged in the end unless
//! several keys share them.

use std::collections::HashMap;

use serde::Serialize;

use super::facts::Expiry;
use super::prefix::{Cut, Shape, ends_hard, parent};
use super::sample::{Held, KeysHeld};

/// At most so many prefixes are kept of a database.
const MOST: usize = 2000;
/// A prefix that may be the beginning of an ID is shown when so many keys share it.
const SHARED_BY: u64 = 8;
/// So many prefixes are listed, the rest is summed.
const LISTED: usize = 20;
/// More siblings than this with few keys each are shown as one.
const SIBLINGS: usize = 8;
/// Few keys.
const FEW: u64 = 4;

/// A prefix, or the whole name of a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Name {
    text: Box<[u8]>,
    whole: bool,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    sure: bool,
    gathers: bool,
    with_ttl: u64,
    without_ttl: Held,
}

impl Entry {
    fn keys(&self) -> u64 {
        self.with_ttl + self.without_ttl.keys()
    }

    fn absorb(&mut self, other: &Entry) {
        self.with_ttl += other.with_ttl;
        self.without_ttl.absorb(&other.without_ttl);
    }
}

/// The keys of one database by prefix.
#[derive(Clone, Debug, Default)]
pub(super) struct Prefixes {
    starred: HashMap<Box<[u8]>, Entry>,
    whole: HashMap<Box<[u8]>, Entry>,
    others: Entry,
    /// Whether names with no prefix that could be shorter go to the others at once.
    full: bool,
}

impl Prefixes {
    /// Whether the bytes of this key should be asked for.
    pub(super) fn wish(&mut self, cut: &Cut<'_>) -> bool {
        self.entry(cut).without_ttl.wish()
    }

    /// Counts a key.
    pub(super) fn add(&mut self, cut: &Cut<'_>, expiry: Option<Expiry>, bytes: Option<u64>) {
        let entry = self.entry(cut);
        if expiry == Some(Expiry::Never) {
            entry.without_ttl.add(bytes);
        } else {
            entry.with_ttl += 1;
        }
    }

    fn entry(&mut self, cut: &Cut<'_>) -> &mut Entry {
        let whole = cut.shape == Shape::Whole;
        let known = if whole { &self.whole } else { &self.starred };
        if !known.contains_key(cut.prefix) {
            return self.new_entry(cut, whole);
        }
        let known = if whole {
            &mut self.whole
        } else {
            &mut self.starred
        };
        match known.get_mut(cut.prefix) {
            Some(entry) => {
                entry.sure |= cut.sure;
                entry
            }
            None => &mut self.others,
        }
    }

    /// Where a key of a new prefix is counted.
    fn new_entry(&mut self, cut: &Cut<'_>, whole: bool) -> &mut Entry {
        let mut shorter = parent(cut.prefix);
        while let Some(prefix) = shorter {
            if self.starred.get(prefix).is_some_and(|entry| entry.gathers) {
                return self.starred.entry(prefix.into()).or_default();
            }
            shorter = parent(prefix);
        }
        if self.full {
            return &mut self.others;
        }
        if self.starred.len() + self.whole.len() >= MOST {
            self.shrink();
        }
        let map = if whole {
            &mut self.whole
        } else {
            &mut self.starred
        };
        let entry = map.entry(cut.prefix.into()).or_default();
        entry.sure |= cut.sure;
        entry
    }

    /// Merges small prefixes into shorter ones until half of the room is free.
    fn shrink(&mut self) {
        while self.starred.len() + self.whole.len() > MOST / 2 {
            let mut names: Vec<(u64, Name)> = self.names();
            names.sort_unstable();
            let surplus = names.len() - MOST / 4;
            for (_, name) in names.into_iter().take(surplus) {
                self.merge(&name);
            }
        }
    }

    fn names(&self) -> Vec<(u64, Name)> {
        let of = |map: &HashMap<Box<[u8]>, Entry>, whole| -> Vec<(u64, Name)> {
            map.iter()
                .map(|(text, entry)| {
                    let text = text.clone();
                    (entry.keys(), Name { text, whole })
                })
                .collect()
        };
        let mut names = of(&self.starred, false);
        names.extend(of(&self.whole, true));
        names
    }

    /// Merges an entry into the next shorter prefix.
    fn merge(&mut self, name: &Name) {
        let map = if name.whole {
            &mut self.whole
        } else {
            &mut self.starred
        };
        let Some(entry) = map.remove(&name.text) else {
            return;
        };
        let into = match parent(&name.text) {
            Some(prefix) => {
                let into = self.starred.entry(prefix.into()).or_default();
                into.gathers = true;
                // What ends at a separator that no ID holds is no beginning of one.
                into.sure |= ends_hard(prefix);
                into
            }
            None => {
                self.full = true;
                &mut self.others
            }
        };
        into.absorb(&entry);
    }

    /// Keys without TTL, of all prefixes.
    pub(super) fn without_ttl(&self) -> KeysHeld {
        let mut all = self.others.without_ttl;
        for entry in self.starred.values().chain(self.whole.values()) {
            all.absorb(&entry.without_ttl);
        }
        all.held()
    }

    /// The prefixes: those without TTL first, by what they hold.
    pub(super) fn finish(mut self) -> PrefixTable {
        self.hide();
        self.gather_siblings();
        let mut rest = self.others.clone();
        let mut rest_prefixes = 0;
        let mut rows = Vec::new();
        for (star, map) in [("*", self.starred), ("", self.whole)] {
            for (text, entry) in map {
                if text.is_empty() && star.is_empty() {
                    rest.absorb(&entry);
                    continue;
                }
                let prefix = format!("{}{star}", text.escape_ascii());
                rows.push((prefix, entry));
            }
        }
        rows.sort_by(|(a_name, a), (b_name, b)| {
            let size = |entry: &Entry| {
                let held = entry.without_ttl.held();
                (held.bytes.unwrap_or(0), held.keys, entry.keys())
            };
            size(b).cmp(&size(a)).then_with(|| a_name.cmp(b_name))
        });
        for (_, entry) in rows.iter().skip(LISTED) {
            rest.absorb(entry);
            rest_prefixes += 1;
        }
        rows.truncate(LISTED);
        let rows = rows.into_iter().map(|(prefix, entry)| PrefixCounts {
            prefix,
            keys: entry.keys(),
            with_ttl: entry.with_ttl,
            without_ttl: entry.without_ttl.held(),
        });
        PrefixTable {
            listed: rows.collect(),
            others: OtherPrefixes {
                prefixes: rest_prefixes,
                keys: rest.keys(),
                with_ttl: rest.with_ttl,
                without_ttl: rest.without_ttl.held(),
            },
        }
    }

    /// Merges what may be the beginning of an ID and is not shared by several keys, the longest first.
    fn hide(&mut self) {
        loop {
            let unsure = |entry: &Entry| !entry.sure && entry.keys() < SHARED_BY;
            let longest = self
                .starred
                .iter()
                .filter(|(text, entry)| !text.is_empty() && unsure(entry))
                .map(|(text, _)| text.len())
                .max();
            let Some(longest) = longest else { return };
            let hidden: Vec<Name> = self
                .starred
                .iter()
                .filter(|(text, entry)| text.len() == longest && unsure(entry))
                .map(|(text, _)| Name {
                    text: text.clone(),
                    whole: false,
                })
                .collect();
            for name in hidden {
                self.merge(&name);
            }
        }
    }

    /// Many siblings with few keys each say less than their prefix.
    fn gather_siblings(&mut self) {
        let mut families: HashMap<Box<[u8]>, Vec<Name>> = HashMap::new();
        for (keys, name) in self.names() {
            // Whole names are few keys each by nature, and worth knowing one by one.
            if keys < FEW
                && !name.whole
                && let Some(prefix) = parent(&name.text)
                && ends_hard(prefix)
            {
                families.entry(prefix.into()).or_default().push(name);
            }
        }
        for siblings in families.into_values() {
            if siblings.len() > SIBLINGS {
                for name in siblings {
                    self.merge(&name);
                }
            }
        }
    }
}

/// The prefixes of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PrefixTable {
    pub(super) listed: Vec<PrefixCounts>,
    pub(super) others: OtherPrefixes,
}

/// A prefix and its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PrefixCounts {
    /// What the names begin with, and a `*`; or the whole name of one key. Bytes beyond ASCII are escaped as in Rust.
    /// Never any part of an ID.
    pub prefix: String,
    /// Its keys.
    pub keys: u64,
    /// Those with a TTL.
    pub with_ttl: u64,
    /// Those that never expire.
    pub without_ttl: KeysHeld,
}

/// All prefixes that are not listed, and the names that have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct OtherPrefixes {
    /// How many prefixes; those that were merged before the end are not counted.
    pub prefixes: usize,
    /// Their keys.
    pub keys: u64,
    /// Those with a TTL.
    pub with_ttl: u64,
    /// Those that never expire.
    pub without_ttl: KeysHeld,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::prefix::cut;
    use super::*;

    fn filled(names: impl IntoIterator<Item = String>) -> Prefixes {
        let mut prefixes = Prefixes::default();
        for name in names {
            let cut = cut(name.as_bytes());
            let bytes = prefixes.wish(&cut).then_some(100);
            prefixes.add(&cut, Some(Expiry::Never), bytes);
        }
        prefixes
    }

    fn total(table: &PrefixTable) -> u64 {
        table.listed.iter().map(|row| row.keys).sum::<u64>() + table.others.keys
    }

    fn word(mut number: usize) -> String {
        let mut word = String::new();
        for _ in 0..4 {
            word.push(char::from(b"bcdfghklmnprst"[number % 14]));
            word.push(char::from(b"aeiou"[number / 14 % 5]));
            number /= 70;
        }
        word
    }

    #[test]
    fn memory_does_not_grow_with_the_prefixes_and_no_key_is_lost() {
        let mut prefixes = filled((0..100_000).map(|n| format!("user:{}:cart", word(n))));
        let kept = prefixes.starred.len() + prefixes.whole.len();
        assert!(kept <= MOST, "{kept}");
        for n in 0..100_000 {
            let name = word(n);
            prefixes.add(&cut(name.as_bytes()), None, None);
        }
        assert!(prefixes.starred.len() + prefixes.whole.len() <= MOST);
        let table = prefixes.finish();
        assert_eq!(total(&table), 200_000);
        let users = &table.listed[0];
        assert_eq!(users.prefix, "user:*");
        assert!(users.keys > 99_000, "{users:?}");
        assert!(users.without_ttl.bytes.unwrap().abs_diff(users.keys * 100) < 100);
    }

    #[test]
    fn a_large_prefix_keeps_its_place_among_many_small_ones() {
        let names = (0..50_000).map(|n| {
            if n % 5 == 0 {
                format!("session:{n:064x}")
            } else {
                format!("user:{}:cart", word(n))
            }
        });
        let table = filled(names).finish();
        assert_eq!(total(&table), 50_000);
        let found = table.listed.iter().find(|row| row.prefix == "session:*");
        assert_eq!(found.unwrap().keys, 10_000);
    }

    #[test]
    fn what_may_be_a_piece_of_an_id_waits_for_others_of_its_kind() {
        let id = "a1B2a1B2a1B2a1B2a1B2a1B2a1B2a1B2a1B2a1B2";
        let prefixes = |table: PrefixTable| -> Vec<String> {
            table.listed.into_iter().map(|row| row.prefix).collect()
        };
        let few = filled((0..7).map(|n| format!("abcde-{n}X{id}")));
        assert_eq!(prefixes(few.finish()), [] as [&str; 0]);
        let many = filled((0..8).map(|n| format!("abcde-{n}X{id}")));
        assert_eq!(prefixes(many.finish()), ["abcde-*"]);
    }

    #[test]
    fn the_largest_come_first_and_the_rest_is_summed() {
        let names = (0..30).flat_map(|kind| (0..=kind).map(move |n| format!("{}:{n}", word(kind))));
        let table = filled(names).finish();
        assert_eq!(table.listed.len(), LISTED);
        assert_eq!(table.listed[0].keys, 30);
        assert_eq!(table.others.prefixes, 10);
        assert_eq!(total(&table), 30 * 31 / 2);
    }
}
