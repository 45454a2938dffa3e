//! Keys by the prefix of their names, in bounded memory.
//!
//! There may be as many prefixes as keys. When there are too many the small ones are merged into the next
//! shorter prefix, which from then on gathers all that has no entry of its own, and at last into "others". What
//! has many keys keeps its entry, whenever it comes.
//!
//! Prefixes that may be the beginning of an ID (see [`cut`](mod@cut)) are merged in the end unless several keys share
//! them. What is counted of a prefix's keys is whoever counts: a [`Tally`].

pub mod cut;

use std::collections::HashMap;

use self::cut::{Cut, Shape, ends_hard, parent};

/// At most so many prefixes are kept.
const MOST: usize = 2000;
/// A prefix that may be the beginning of an ID is shown when so many keys share it.
const SHARED_BY: u64 = 8;
/// So many prefixes are listed, the rest is summed.
const LISTED: usize = 20;
/// More siblings than this with few keys each are shown as one.
const SIBLINGS: usize = 8;
/// Few keys.
const FEW: u64 = 4;

/// What is counted of a prefix's keys.
pub trait Tally: Clone + Default {
    /// How many keys were counted.
    fn keys(&self) -> u64;

    /// Takes what another one counted.
    fn absorb(&mut self, other: &Self);
}

/// A prefix, or the whole name of a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Name {
    text: Box<[u8]>,
    whole: bool,
}

#[derive(Clone, Debug, Default)]
struct Entry<T> {
    sure: bool,
    gathers: bool,
    tally: T,
}

/// Keys by prefix.
#[derive(Clone, Debug, Default)]
pub struct Prefixes<T> {
    starred: HashMap<Box<[u8]>, Entry<T>>,
    whole: HashMap<Box<[u8]>, Entry<T>>,
    others: Entry<T>,
    /// Whether names with no prefix that could be shorter go to the others at once.
    full: bool,
}

impl<T: Tally> Prefixes<T> {
    /// Where a key is counted whose name was cut so.
    pub fn tally(&mut self, cut: &Cut<'_>) -> &mut T {
        &mut self.entry(cut).tally
    }

    fn entry(&mut self, cut: &Cut<'_>) -> &mut Entry<T> {
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
    fn new_entry(&mut self, cut: &Cut<'_>, whole: bool) -> &mut Entry<T> {
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
        let of = |map: &HashMap<Box<[u8]>, Entry<T>>, whole| -> Vec<(u64, Name)> {
            map.iter()
                .map(|(text, entry)| {
                    let text = text.clone();
                    (entry.tally.keys(), Name { text, whole })
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
        into.tally.absorb(&entry.tally);
    }

    /// All keys, whatever their prefix.
    pub fn total(&self) -> T {
        let mut all = self.others.tally.clone();
        for entry in self.starred.values().chain(self.whole.values()) {
            all.absorb(&entry.tally);
        }
        all
    }

    /// The prefixes, those first whose `size` is the largest.
    pub fn finish<S: Ord>(mut self, size: impl Fn(&T) -> S) -> PrefixTable<T> {
        self.hide();
        self.gather_siblings();
        let mut rest = self.others.tally.clone();
        let mut rest_prefixes = 0;
        let mut rows = Vec::new();
        for (star, map) in [("*", self.starred), ("", self.whole)] {
            for (text, entry) in map {
                if text.is_empty() && star.is_empty() {
                    rest.absorb(&entry.tally);
                    continue;
                }
                let prefix = format!("{}{star}", text.escape_ascii());
                rows.push((prefix, entry.tally));
            }
        }
        rows.sort_by(|(a_name, a), (b_name, b)| {
            size(b).cmp(&size(a)).then_with(|| a_name.cmp(b_name))
        });
        for (_, tally) in rows.iter().skip(LISTED) {
            rest.absorb(tally);
            rest_prefixes += 1;
        }
        rows.truncate(LISTED);
        PrefixTable {
            listed: rows,
            others: (rest_prefixes, rest),
        }
    }

    /// Merges what may be the beginning of an ID and is not shared by several keys, the longest first.
    fn hide(&mut self) {
        loop {
            let unsure = |entry: &Entry<T>| !entry.sure && entry.tally.keys() < SHARED_BY;
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

/// What was counted by prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixTable<T> {
    /// What the names begin with, and a `*`; or the whole name of one key. Bytes beyond ASCII are escaped as in Rust.
    /// Never any part of an ID.
    pub listed: Vec<(String, T)>,
    /// How many prefixes are not listed (those that were merged before the end aside), and the keys of all of them and of
    /// names that have none.
    pub others: (usize, T),
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::cut::cut;
    use super::*;

    #[derive(Clone, Debug, Default)]
    struct Keys(u64);

    impl Tally for Keys {
        fn keys(&self) -> u64 {
            self.0
        }

        fn absorb(&mut self, other: &Keys) {
            self.0 += other.0;
        }
    }

    fn filled(names: impl IntoIterator<Item = String>) -> Prefixes<Keys> {
        let mut prefixes = Prefixes::<Keys>::default();
        for name in names {
            prefixes.tally(&cut(name.as_bytes())).0 += 1;
        }
        prefixes
    }

    fn finished(prefixes: Prefixes<Keys>) -> PrefixTable<Keys> {
        prefixes.finish(|keys| keys.0)
    }

    fn total(table: &PrefixTable<Keys>) -> u64 {
        table.listed.iter().map(|row| row.1.0).sum::<u64>() + table.others.1.0
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
            prefixes.tally(&cut(name.as_bytes())).0 += 1;
        }
        assert!(prefixes.starred.len() + prefixes.whole.len() <= MOST);
        let table = finished(prefixes);
        assert_eq!(total(&table), 200_000);
        let users = &table.listed[0];
        assert_eq!(users.0, "user:*");
        assert!(users.1.0 > 99_000, "{users:?}");
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
        let table = finished(filled(names));
        assert_eq!(total(&table), 50_000);
        let found = table.listed.iter().find(|row| row.0 == "session:*");
        assert_eq!(found.unwrap().1.0, 10_000);
    }

    #[test]
    fn what_may_be_a_piece_of_an_id_waits_for_others_of_its_kind() {
        let id = "a1B2a1B2a1B2a1B2a1B2a1B2a1B2a1B2a1B2a1B2";
        let prefixes = |table: PrefixTable<Keys>| -> Vec<String> {
            table.listed.into_iter().map(|row| row.0).collect()
        };
        let few = filled((0..7).map(|n| format!("abcde-{n}X{id}")));
        assert_eq!(prefixes(finished(few)), [] as [&str; 0]);
        let many = filled((0..8).map(|n| format!("abcde-{n}X{id}")));
        assert_eq!(prefixes(finished(many)), ["abcde-*"]);
    }

    #[test]
    fn the_largest_come_first_and_the_rest_is_summed() {
        let names = (0..30).flat_map(|kind| (0..=kind).map(move |n| format!("{}:{n}", word(kind))));
        let table = finished(filled(names));
        assert_eq!(table.listed.len(), LISTED);
        assert_eq!(table.listed[0].1.0, 30);
        assert_eq!(table.others.0, 10);
        assert_eq!(total(&table), 30 * 31 / 2);
    }
}
