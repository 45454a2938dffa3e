//! Takes typed values out of a parsed table and gathers every mistake on the way.
//!
//! A reader never stops at the first mistake: a value that is wrong is told and left out, and reading goes on.
//! Each key that is asked for counts as known; [`TableReader::finish`] refuses the others, with the
//! nearest known one named.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::environment::Environment;
use super::mistake::{About, Mistake};
use crate::units;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
}

/// What all readers of one file share.
pub(super) struct Reading<'a> {
    pub(super) environment: &'a Environment,
    /// The folder of the configuration: what relative paths are relative to.
    pub(super) folder: &'a Path,
    mistakes: RefCell<Vec<Mistake>>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(environment: &'a Environment, folder: &'a Path) -> Reading<'a> {
        Reading {
            environment,
            folder,
            mistakes: RefCell::new(Vec::new()),
        }
    }

    /// Tells a mistake at a place.
    pub(super) fn mistake(&self, span: Range<usize>, text: impl fmt::Display) {
        self.tell(Some(span), text, About::Place);
    }

    /// Tells that something is missing: from the table at a place, or from the file as a whole.
    pub(super) fn missing(&self, span: Option<Range<usize>>, text: impl fmt::Display) {
        self.tell(span, text, About::Missing);
    }

    fn tell(&self, span: Option<Range<usize>>, text: impl fmt::Display, about: About) {
        self.mistakes.borrow_mut().push(Mistake {
            span,
            text: text.to_string(),
            about,
        });
    }

    pub(super) fn into_mistakes(self) -> Vec<Mistake> {
        self.mistakes.into_inner()
    }
}

/// Reads one table.
pub(super) struct TableReader<'r, 'i> {
    reading: &'r Reading<'r>,
    table: &'r DeTable<'i>,
    /// As it is told: `[daemon]`.
    title: String,
    known: RefCell<Vec<&'static str>>,
}

impl<'r, 'i> TableReader<'r, 'i> {
    pub(super) fn new(
        reading: &'r Reading<'r>,
        table: &'r DeTable<'i>,
        title: impl Into<String>,
    ) -> TableReader<'r, 'i> {
        TableReader {
            reading,
            table,
            title: title.into(),
            known: RefCell::default(),
        }
    }

    pub(super) fn reading(&self) -> &'r Reading<'r> {
        self.reading
    }

    /// The value of a key, whatever it is. From now on the key is known.
    pub(super) fn raw(&self, key: &'static str) -> Option<&'r Spanned<DeValue<'i>>> {
        self.known.borrow_mut().push(key);
        self.table.get(key)
    }

    /// Where a key itself stands.
    pub(super) fn key_span(&self, key: &str) -> Option<Range<usize>> {
        Some(self.table.get_key_value(key)?.0.span())
    }

    /// All entries, for a table whose keys are names.
    pub(super) fn entries(
        &self,
    ) -> impl Iterator<Item = (Located<&'r str>, &'r Spanned<DeValue<'i>>)> {
        self.table.iter().map(|(key, value)| {
            let name = Located {
                value: key.get_ref().as_ref(),
                span: key.span(),
            };
            (name, value)
        })
    }

    fn wrong_type(&self, key: &str, value: &Spanned<DeValue<'_>>, wanted: &str) {
        let found = value.get_ref().type_str();
        let article = if found.starts_with(['a', 'i']) {
            "an"
        } else {
            "a"
        };
        self.reading.mistake(
            value.span(),
            format!("`{key}` is {wanted}, not {article} {found}"),
        );
    }

    /// A string as the array or the key `key` holds it, variables expanded.
    pub(super) fn expanded(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        wanted: &str,
    ) -> Option<Located<String>> {
        let span = value.span();
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_type(key, value, wanted);
            return None;
        };
        match self.reading.environment.expand(text) {
            Ok(value) => Some(Located { value, span }),
            Err(error) => {
                self.reading.mistake(span, format!("`{key}`: {error}"));
                None
            }
        }
    }

    /// A string, variables expanded.
    pub(super) fn string(&self, key: &'static str) -> Option<Located<String>> {
        let value = self.raw(key)?;
        self.expanded(key, value, "a string")
    }

    /// A string that is not empty, variables expanded.
    pub(super) fn text(&self, key: &'static str) -> Option<Located<String>> {
        let found = self.string(key)?;
        if found.value.is_empty() {
            self.reading
                .mistake(found.span, format!("`{key}` is empty"));
            return None;
        }
        Some(found)
    }

    /// What a string parses to.
    pub(super) fn parsed<T>(&self, key: &'static str) -> Option<Located<T>>
    where
        T: FromStr<Err: fmt::Display>,
    {
        let found = self.string(key)?;
        match found.value.parse() {
            Ok(value) => Some(Located {
                value,
                span: found.span,
            }),
            Err(error) => {
                self.reading
                    .mistake(found.span, format!("`{key}`: {error}"));
                None
            }
        }
    }

    /// A path; a relative one is taken from the configuration's folder.
    pub(super) fn path(&self, key: &'static str) -> Option<Located<PathBuf>> {
        let found = self.text(key)?;
        Some(Located {
            value: self.reading.folder.join(found.value),
            span: found.span,
        })
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, key: &'static str) -> Option<bool> {
        let value = self.raw(key)?;
        let found = value.get_ref().as_bool();
        if found.is_none() {
            self.wrong_type(key, value, "true or false");
        }
        found
    }

    /// A whole number within a range.
    pub(super) fn whole(
        &self,
        key: &'static str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Option<u64> {
        let value = self.raw(key)?;
        let wanted = if *range.end() == u64::MAX {
            format!("a whole number from {} on", range.start())
        } else {
            format!("a whole number from {} to {}", range.start(), range.end())
        };
        self.whole_in(key, value, &wanted, range)
    }

    fn whole_in(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        wanted: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Option<u64> {
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong_type(key, value, wanted);
            return None;
        };
        match u64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) if range.contains(&number) => Some(number),
            _ => {
                self.reading
                    .mistake(value.span(), format!("`{key}` is {wanted}, not {integer}"));
                None
            }
        }
    }

    /// A number within a range, written with or without a point.
    pub(super) fn number(
        &self,
        key: &'static str,
        range: std::ops::RangeInclusive<f64>,
    ) -> Option<f64> {
        let value = self.raw(key)?;
        let wanted = format!("a number from {} to {}", range.start(), range.end());
        let text = match value.get_ref() {
            DeValue::Float(float) => float.as_str(),
            DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str(),
            _ => {
                self.wrong_type(key, value, &wanted);
                return None;
            }
        };
        match text.parse::<f64>() {
            Ok(number) if range.contains(&number) => Some(number),
            _ => {
                self.reading
                    .mistake(value.span(), format!("`{key}` is {wanted}, not {text}"));
                None
            }
        }
    }

    /// A duration: `"15m"`, or whole seconds.
    pub(super) fn duration(&self, key: &'static str) -> Option<Located<Duration>> {
        self.unit(key, "a duration like \"15m\"", units::parse_duration)
    }

    /// A size: `"64MiB"`, or whole bytes.
    pub(super) fn size(&self, key: &'static str) -> Option<Located<u64>> {
        self.unit(key, "a size like \"64MiB\"", units::parse_size)
    }

    fn unit<T>(
        &self,
        key: &'static str,
        wanted: &str,
        parse: fn(&str) -> Result<T, units::UnitError>,
    ) -> Option<Located<T>> {
        let value = self.raw(key)?;
        let span = value.span();
        let text = match value.get_ref() {
            DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str().to_owned(),
            DeValue::String(_) => self.expanded(key, value, wanted)?.value,
            _ => {
                self.wrong_type(key, value, wanted);
                return None;
            }
        };
        match parse(&text) {
            Ok(value) => Some(Located { value, span }),
            Err(error) => {
                self.reading.mistake(span, format!("`{key}`: {error}"));
                None
            }
        }
    }

    /// An array of strings, variables expanded.
    pub(super) fn strings(&self, key: &'static str) -> Option<Located<Vec<Located<String>>>> {
        let (items, span) = self.array(key, "an array of strings")?;
        let mut all = Vec::with_capacity(items.len());
        for item in items {
            all.push(self.expanded(key, item, "an array of strings")?);
        }
        Some(Located { value: all, span })
    }

    /// An array of whole numbers of 32 bits.
    pub(super) fn wholes(&self, key: &'static str) -> Option<Located<Vec<Located<u32>>>> {
        let wanted = "an array of whole numbers";
        let (items, span) = self.array(key, wanted)?;
        let mut all = Vec::with_capacity(items.len());
        for item in items {
            let number = self.whole_in(key, item, wanted, 0..=u64::from(u32::MAX))?;
            let value = u32::try_from(number).unwrap_or(u32::MAX);
            all.push(Located {
                value,
                span: item.span(),
            });
        }
        Some(Located { value: all, span })
    }

    fn array(
        &self,
        key: &'static str,
        wanted: &str,
    ) -> Option<(&'r [Spanned<DeValue<'i>>], Range<usize>)> {
        let value = self.raw(key)?;
        match value.get_ref() {
            DeValue::Array(items) => Some((items, value.span())),
            _ => {
                self.wrong_type(key, value, wanted);
                None
            }
        }
    }

    /// A table below this one.
    pub(super) fn table(&self, key: &'static str, wanted: &str) -> Option<&'r DeTable<'i>> {
        let value = self.raw(key)?;
        let found = value.get_ref().as_table();
        if found.is_none() {
            self.wrong_type(key, value, wanted);
        }
        found
    }

    /// Refuses the keys that were not asked for. Those of `later` are real, and not for this version.
    pub(super) fn finish(self, later: &[&str]) {
        let known = self.known.into_inner();
        for (key, _) in self.table.iter() {
            let (name, span) = (key.get_ref().as_ref(), key.span());
            if known.contains(&name) {
                continue;
            }
            let mut text = if later.contains(&name) {
                format!(
                    "`{name}` in {} is not supported by this version",
                    self.title
                )
            } else {
                format!("unknown key `{name}` in {}", self.title)
            };
            if !later.contains(&name) {
                match nearest(name, known.iter().copied()) {
                    Some(near) => text.push_str(&format!("; did you mean `{near}`?")),
                    None => {
                        let mut known = known.clone();
                        known.sort_unstable();
                        text.push_str(&format!("; it takes {}", known.join(", ")));
                    }
                }
            }
            self.reading.tell(Some(span), text, About::UnknownKey);
        }
    }
}

/// The nearest of the known words, when one is near enough to be meant.
pub(super) fn nearest<'w>(word: &str, known: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let word = word.to_ascii_lowercase().replace('-', "_");
    known
        .map(|candidate| (strsim::jaro_winkler(&word, candidate), candidate))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate)
}
