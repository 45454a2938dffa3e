//! Aligned text for people: tables with a header, and lists of facts.

use std::fmt;

/// How a column is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Texts.
    Left,
    /// Numbers.
    Right,
}

/// A table whose columns are as wide as they need to be, two blanks apart.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub fn new<'c>(columns: impl IntoIterator<Item = (&'c str, Align)>) -> Table {
        Table {
            columns: columns
                .into_iter()
                .map(|(title, align)| (title.to_owned(), align))
                .collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row. Missing cells are empty, those beyond the columns are left out.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut row: Vec<String> = cells.into_iter().take(self.columns.len()).collect();
        row.resize(self.columns.len(), String::new());
        self.rows.push(row);
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let titles: Vec<String> = self
            .columns
            .iter()
            .map(|(title, _)| title.clone())
            .collect();
        let all = || [&titles].into_iter().chain(&self.rows);
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| all().map(|row| width(&row[column])).max().unwrap_or(0))
            .collect();
        for row in all() {
            let mut line = String::new();
            for ((cell, (_, align)), wide) in row.iter().zip(&self.columns).zip(&widths) {
                let blanks = " ".repeat(wide.saturating_sub(width(cell)));
                match align {
                    Align::Left => line.extend([cell, blanks.as_str(), "  "]),
                    Align::Right => line.extend([blanks.as_str(), cell, "  "]),
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Facts, one a line, their values aligned: for `show`.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    lines: Vec<(String, String)>,
}

impl Facts {
    /// Adds a fact.
    pub fn add(&mut self, name: &str, value: impl fmt::Display) {
        self.lines.push((name.to_owned(), value.to_string()));
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wide = self
            .lines
            .iter()
            .map(|(name, _)| width(name))
            .max()
            .unwrap_or(0);
        for (name, value) in &self.lines {
            let blanks = " ".repeat(wide.saturating_sub(width(name)));
            writeln!(f, "{}", format!("{name}{blanks}  {value}").trim_end())?;
        }
        Ok(())
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_without_blanks() {
        let mut table = Table::new([
            ("ID", Align::Left),
            ("KEYS", Align::Right),
            ("", Align::Left),
        ]);
        assert!(table.is_empty());
        table.row(["a".to_owned(), "1,234".to_owned(), "x".to_owned()]);
        table.row(["äbc".to_owned(), "5".to_owned()]);
        assert_eq!(table.to_string(), "ID    KEYS\na    1,234  x\näbc      5\n");
    }

    #[test]
    fn facts_stand_below_each_other() {
        let mut facts = Facts::default();
        facts.add("id", "x");
        facts.add("database", 7);
        facts.add("note", "");
        assert_eq!(facts.to_string(), "id        x\ndatabase  7\nnote\n");
    }
}
