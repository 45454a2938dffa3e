//! What is written to standard output and standard error.
//!
//! Results go to standard output, failures to standard error; with `--json` both are one JSON document
//! on standard output, and there is only one. Texts that came from a server or a file are shown without
//! their control characters, so that they cannot play tricks on a terminal.

use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::failure::Failure;

/// The form of the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Text,
    /// One JSON document.
    Json,
}

/// Standard output and standard error, as a command uses them.
#[derive(Debug)]
pub struct Output {
    form: Form,
    color_out: bool,
    color_err: bool,
    written: AtomicBool,
    broken_off: OnceLock<BrokenOff>,
}

/// Makes of a failure what ends a JSON document that was written piece by piece and is not whole.
pub type BrokenOff = fn(&Value) -> String;

impl Output {
    /// Those of this process. Colours show on terminals, unless `NO_COLOR` is set or `TERM` is `dumb`.
    pub fn new(form: Form) -> Output {
        let wanted = colors_wanted(
            std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()),
            std::env::var_os("TERM").is_some_and(|value| value == "dumb"),
        );
        Output {
            form,
            color_out: wanted && form == Form::Text && io::stdout().is_terminal(),
            color_err: wanted && io::stderr().is_terminal(),
            written: AtomicBool::new(false),
            broken_off: OnceLock::new(),
        }
    }

    /// The form of the results.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Whether results are JSON.
    pub fn is_json(&self) -> bool {
        self.form == Form::Json
    }

    /// Whether standard output may be coloured.
    pub fn color_out(&self) -> bool {
        self.color_out
    }

    /// Whether standard error is shown in colours.
    pub fn color_err(&self) -> bool {
        self.color_err
    }

    /// Paints a text for standard output.
    pub fn paint(&self, paint: Paint, text: &str) -> String {
        painted(self.color_out, paint, text)
    }

    /// Writes the result: `json` with `--json`, else `text`. To be called once.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn result<T: Serialize + ?Sized>(
        &self,
        json: &T,
        text: impl fmt::Display,
    ) -> io::Result<()> {
        match self.form {
            Form::Json => self.json(json),
            Form::Text => self.text(text),
        }
    }

    /// Writes the one JSON document.
    ///
    /// # Errors
    /// When standard output cannot be written, or there was a document already.
    pub fn json<T: Serialize + ?Sized>(&self, value: &T) -> io::Result<()> {
        let text = serde_json::to_string_pretty(value)?;
        if self.written.swap(true, Ordering::SeqCst) {
            return Err(io::Error::other("a JSON document was written already"));
        }
        let mut out = io::stdout().lock();
        writeln!(out, "{text}")?;
        out.flush()
    }

    /// Says that something else writes the one result to standard output, piece by piece. A failure that comes
    /// afterwards is told on standard error, in whatever form the results are.
    pub fn streams(&self) {
        self.written.store(true, Ordering::SeqCst);
    }

    /// Says that something else wrote a part of the one document, and nobody writes to it any more: how the failure that
    /// is the reason ends it.
    pub fn breaks_off(&self, end: BrokenOff) {
        self.broken_off.get_or_init(|| end);
    }

    /// Writes text to standard output, a newline at its end.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn text(&self, text: impl fmt::Display) -> io::Result<()> {
        let text = text.to_string();
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        if !text.is_empty() && !text.ends_with('\n') {
            out.write_all(b"\n")?;
        }
        out.flush()
    }

    /// Tells a failure and gives its exit code. Where even that cannot be written nobody listens.
    pub fn failure(&self, failure: &Failure) -> u8 {
        // A document that has been written stands: the failure is told on standard error then, and so it is when
        // standard output takes nothing.
        if self.form == Form::Text || !self.json_failure(failure) {
            self.tell(failure);
        }
        failure.kind.exit_code()
    }

    /// Makes a failure the document, or the end of the one that was begun.
    fn json_failure(&self, failure: &Failure) -> bool {
        let document = failure_json(failure);
        match self.broken_off.get() {
            Some(end) => self.text(end(&document)).is_ok(),
            None => self.json(&document).is_ok(),
        }
    }

    /// Tells a failure on standard error, in whatever form the results are: where one of several databases
    /// failed, and its error stands in the result too.
    pub fn tell(&self, failure: &Failure) {
        let text = failure_text(failure, self.color_err);
        super::progress::suspended(|| {
            let _ = io::stderr().lock().write_all(text.as_bytes());
        });
    }
}

fn colors_wanted(no_color: bool, dumb: bool) -> bool {
    !no_color && !dumb
}

/// What a colour means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// It went well.
    Good,
    /// Look at it.
    Warning,
    /// It failed.
    Bad,
    /// A heading.
    Strong,
    /// An aside.
    Faint,
}

fn painted(color: bool, paint: Paint, text: &str) -> String {
    if !color {
        return text.to_owned();
    }
    let code = match paint {
        Paint::Good => "32",
        Paint::Warning => "33",
        Paint::Bad => "1;31",
        Paint::Strong => "1",
        Paint::Faint => "2",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// `error: …`, then `  cause: …` lines, then `  hint: …`, a newline at the end. What has several lines
/// goes on indented.
pub fn failure_text(failure: &Failure, color: bool) -> String {
    let mut text = String::new();
    let mut line = |indent: &str, label: &str, paint: Paint, content: &str| {
        let content = printable(content);
        let label = painted(color, paint, label);
        let mut lines = content.lines();
        let first = lines.next().unwrap_or("");
        text.push_str(&format!("{indent}{label}: {first}\n"));
        for next in lines {
            text.push_str(&format!("{indent}  {next}\n"));
        }
    };
    line("", "error", Paint::Bad, &failure.message);
    for cause in failure.causes_and_said() {
        line("  ", "cause", Paint::Strong, &cause);
    }
    if let Some(hint) = &failure.hint {
        line("  ", "hint", Paint::Good, hint);
    }
    text
}

/// `{"error": {…}}`.
pub fn failure_json(failure: &Failure) -> Value {
    json!({ "error": error_json(failure) })
}

/// What stands in `error`; for lists, where it stands beside `database`.
pub fn error_json(failure: &Failure) -> Value {
    json!({
        "code": failure.kind.exit_code(),
        "kind": failure.kind.as_str(),
        "message": failure.message,
        "causes": failure.causes_and_said(),
        "hint": failure.hint,
    })
}

/// The text with its control characters written as `\xNN`, newlines and tabs aside.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' && c != '\t' {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                out.push_str(&format!("\\x{byte:02x}"));
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// Shows a time for people, in UTC, to the second: `2026-11-22 21:43:53 UTC`.
#[derive(Clone, Copy, Debug)]
pub struct HumanTime(pub Timestamp);

impl fmt::Display for HumanTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
        f.pad(&shown)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::failure::Kind;

    fn failure() -> Failure {
        Failure::new(Kind::Refused, "cannot restore")
            .cause("three keys exist:\n  a\n  b")
            .cause("evil\x1b[2J\u{9b}")
            .hint("use --on-conflict")
    }

    #[test]
    fn a_failure_reads_as_error_causes_and_hint() {
        assert_eq!(
            failure_text(&failure(), false),
            "error: cannot restore\n  cause: three keys exist:\n      a\n      b\n  cause: evil\\x1b[2J\\xc2\\x9b\n  hint: use --on-conflict\n"
        );
        assert!(failure_text(&failure(), true).starts_with("\x1b[1;31merror\x1b[0m: cannot"));
    }

    #[test]
    fn a_failure_in_json_has_every_member() {
        let value = failure_json(&Failure::new(Kind::NotFound, "no such backup"));
        assert_eq!(
            value,
            json!({"error": {"code": 4, "kind": "not-found", "message": "no such backup", "causes": [], "hint": null}})
        );
    }

    #[test]
    fn colours_are_for_those_who_want_them() {
        assert!(colors_wanted(false, false));
        assert!(!colors_wanted(true, false));
        assert!(!colors_wanted(false, true));
    }

    #[test]
    fn times_are_shown_to_the_second() {
        let time: Timestamp = "2026-11-22T21:43:53.9Z".parse().unwrap();
        assert_eq!(HumanTime(time).to_string(), "2026-11-22 21:43:53 UTC");
    }
}
