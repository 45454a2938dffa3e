//! `recipients`, `passphrase`, `identity`: whom backups are encrypted to with age, and what reads them back.
//!
//! The trap: these are the keys that everything else hangs on, so no error here may hold what was written
//! in place of a public key.

use std::fmt;
use std::str::FromStr;

use super::fields;
use super::reader::{Located, TableReader};
use super::secrets::SecretSource;
use crate::secret::Secret;

/// The most recipients: each costs about a hundred bytes at the start of every archive, and a reader looks at
/// the first 64 KiB alone.
const MOST_RECIPIENTS: usize = 100;

/// What every age secret key begins with.
const SECRET_KEY: &str = "AGE-SECRET-KEY-";

/// Whom backups are encrypted to.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Encryption {
    /// Nobody: they are not encrypted.
    #[default]
    None,
    /// The holders of these keys, each alone. At least one.
    Recipients(Vec<Recipient>),
    /// Whoever knows this.
    Passphrase(SecretSource),
}

impl Encryption {
    /// Whether backups are encrypted at all.
    pub fn is_on(&self) -> bool {
        !matches!(self, Encryption::None)
    }

    /// The recipients as a manifest has them; none where there is a passphrase.
    pub fn recipients(&self) -> Vec<String> {
        match self {
            Encryption::Recipients(recipients) => {
                recipients.iter().map(ToString::to_string).collect()
            }
            Encryption::None | Encryption::Passphrase(_) => Vec::new(),
        }
    }
}

/// An age public key: `age1…`.
#[derive(Clone, PartialEq, Eq)]
pub struct Recipient(age::x25519::Recipient);

impl Recipient {
    /// The key, as the age crate has it.
    pub fn key(&self) -> &age::x25519::Recipient {
        &self.0
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_string())
    }
}

impl FromStr for Recipient {
    type Err = RecipientError;

    fn from_str(text: &str) -> Result<Recipient, RecipientError> {
        let text = text.trim();
        let upper = text.to_ascii_uppercase();
        if upper.starts_with(SECRET_KEY) {
            return Err(RecipientError::SecretKey);
        }
        if upper.starts_with("SSH-") {
            return Err(RecipientError::Ssh);
        }
        if upper.starts_with("AGE1PQ1") || upper.starts_with("AGE1TAGPQ1") {
            return Err(RecipientError::PostQuantum);
        }
        match text.parse() {
            Ok(key) => Ok(Recipient(key)),
            // A key of a plugin has the plugin's name between `age1` and the last `1`; no other has a `1` there.
            Err(_) if upper.starts_with("AGE1") && upper[4..].contains('1') => {
                Err(RecipientError::Plugin)
            }
            Err(_) => Err(RecipientError::Wrong),
        }
    }
}

/// Why a text is no recipient. It is not shown: it may be anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecipientError {
    /// The private key instead of the public one.
    #[error(
        "this is a secret key, which is not shown here; a recipient is its public key, age1…, as `age-keygen -y KEYFILE` prints it; put the secret key where `identity_file` reads it, on the hosts that restore, and away from here"
    )]
    SecretKey,
    /// A key of SSH.
    #[error("keys of SSH are not supported; make a key with age-keygen")]
    Ssh,
    /// A key of a plugin.
    #[error("keys of age plugins are not supported; make a key with age-keygen")]
    Plugin,
    /// A hybrid key.
    #[error("post-quantum keys are not supported; make a key with age-keygen, without -pq")]
    PostQuantum,
    /// Anything else.
    #[error("this is no age public key: one begins with age1 and has 62 characters")]
    Wrong,
}

/// The private keys in an age identity file: comments, empty lines, and a key a line.
///
/// # Errors
/// When there is none, or something else; nothing of it is in the error.
pub fn parse_identities(text: &Secret) -> Result<Vec<age::x25519::Identity>, IdentityError> {
    let text = text.expose();
    let start = text.trim_start();
    if start.starts_with("age-encryption.org/") || start.starts_with("-----BEGIN AGE ENCRYPTED") {
        return Err(IdentityError::Encrypted);
    }
    if start.starts_with("-----BEGIN ") {
        return Err(IdentityError::Ssh);
    }
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let (line, number) = (line.trim(), at + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.parse::<age::x25519::Identity>() {
            Ok(identity) => found.push(identity),
            Err(_) if line.starts_with("AGE-SECRET-KEY-PQ-") => {
                return Err(IdentityError::PostQuantum(number));
            }
            Err(_) if line.starts_with("AGE-PLUGIN-") => return Err(IdentityError::Plugin(number)),
            Err(_) if line.parse::<Recipient>().is_ok() => {
                return Err(IdentityError::PublicKey(number));
            }
            Err(_) => return Err(IdentityError::Line(number)),
        }
    }
    match found.is_empty() {
        true => Err(IdentityError::None),
        false => Ok(found),
    }
}

/// Whether a text is meant as an identity file, and not as a passphrase.
pub fn looks_like_identities(text: &Secret) -> bool {
    let marks = ["AGE-PLUGIN-", "-----BEGIN ", "age-encryption.org/", "#"];
    let mut lines = text.expose().lines().map(str::trim_start);
    lines.any(|line| {
        let secret = line
            .get(..SECRET_KEY.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(SECRET_KEY));
        secret || marks.iter().any(|mark| line.starts_with(mark)) || line.starts_with("age1")
    })
}

/// Judges a passphrase: what encrypts must be told from other things, and be typed, when a backup is read back.
///
/// # Errors
/// When it would not; nothing of it is in the error.
pub fn judge_passphrase(text: &Secret) -> Result<(), PassphraseError> {
    let text = text.expose();
    let start = text.trim_start();
    if start.is_empty() {
        return Err(PassphraseError::Empty);
    }
    if start.starts_with("age1") {
        return Err(PassphraseError::Recipient);
    }
    if start.starts_with('#') && text.lines().count() == 1 {
        return Err(PassphraseError::Comment);
    }
    if looks_like_identities(&Secret::new(text)) {
        return Err(PassphraseError::Identity);
    }
    match text.contains(['\n', '\r']) {
        true => Err(PassphraseError::Lines),
        false => Ok(()),
    }
}

/// Why a text is no passphrase for backups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PassphraseError {
    /// Nothing in it.
    #[error("it is empty")]
    Empty,
    /// More than a line.
    #[error("it has several lines, and a passphrase is one")]
    Lines,
    /// A public key.
    #[error("it is a public key of age, no passphrase: `recipients` is meant")]
    Recipient,
    /// A file of keys.
    #[error("it is a file of age keys, no passphrase: `identity_file` is meant")]
    Identity,
    /// What a file of keys begins with.
    #[error("it begins with #, like a comment in a file of age keys; take another passphrase")]
    Comment,
}

/// Why a text holds no private keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Nothing in it.
    #[error("there is no age identity in it: a line that begins with AGE-SECRET-KEY-1")]
    None,
    /// A line is none.
    #[error("line {0} is no age identity: one begins with AGE-SECRET-KEY-1")]
    Line(usize),
    /// A line is a public key.
    #[error("line {0} is a public key: only the secret key that belongs to it opens a backup")]
    PublicKey(usize),
    /// The identities are encrypted with a passphrase.
    #[error(
        "the identities in it are encrypted themselves; decrypt them first, `age -d FILE`, to where only this user can read"
    )]
    Encrypted,
    /// A key of SSH.
    #[error("keys of SSH are not supported")]
    Ssh,
    /// An identity of a plugin.
    #[error("line {0} is the identity of an age plugin, which is not supported")]
    Plugin(usize),
    /// A hybrid key.
    #[error("line {0} is a post-quantum key, which is not supported")]
    PostQuantum(usize),
}

/// Reads `recipients`, or `passphrase` or its file.
pub(super) fn read_encryption(reader: &TableReader<'_, '_>) -> Option<Encryption> {
    let reading = reader.reading();
    let recipients = read_recipients(reader);
    let passphrase = fields::read_secret(reader, "passphrase", "passphrase_file");
    let given = reader.key_span("recipients").is_some();
    match (recipients, passphrase) {
        (Some(found), None) if found.value.is_empty() => Some(Encryption::None),
        (Some(found), None) => Some(Encryption::Recipients(found.value)),
        (_, Some(found)) if given => {
            reading.mistake(
                found.span,
                "`recipients` and a passphrase exclude each other: an age file has either; drop one of them",
            );
            None
        }
        (_, Some(found)) => {
            if let SecretSource::Inline(text) = &found.value
                && let Err(error) = judge_passphrase(text)
            {
                reading.mistake(found.span, format!("`passphrase`: {error}"));
                return None;
            }
            Some(Encryption::Passphrase(found.value))
        }
        (None, None) => None,
    }
}

fn read_recipients(reader: &TableReader<'_, '_>) -> Option<Located<Vec<Recipient>>> {
    let reading = reader.reading();
    let found = reader.strings("recipients")?;
    let mut all: Vec<Recipient> = Vec::with_capacity(found.value.len());
    let mut whole = true;
    if found.value.len() > MOST_RECIPIENTS {
        reading.mistake(
            found.span.clone(),
            format!("`recipients` are {MOST_RECIPIENTS} at most"),
        );
        whole = false;
    }
    for item in found.value {
        match item.value.parse::<Recipient>() {
            Ok(recipient) if all.contains(&recipient) => {
                reading.mistake(item.span, format!("`recipients` names {recipient} twice"));
                whole = false;
            }
            Ok(recipient) => all.push(recipient),
            Err(error) => {
                reading.mistake(item.span, format!("`recipients`: {error}"));
                whole = false;
            }
        }
    }
    whole.then_some(Located {
        value: all,
        span: found.span,
    })
}

/// Reads `identity`, or its file. One that stands here is judged at once.
pub(super) fn read_identity(reader: &TableReader<'_, '_>) -> Option<SecretSource> {
    let found = fields::read_secret(reader, "identity", "identity_file")?;
    if let SecretSource::Inline(text) = &found.value
        && let Err(error) = parse_identities(text)
    {
        let text = format!("`identity`: {error}");
        reader.reading().mistake(found.span, text);
        return None;
    }
    Some(found.value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use age::secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn a_public_key_is_a_recipient_and_nothing_else_is() {
        let key = age::x25519::Identity::generate();
        let public = key.to_public().to_string();
        let recipient: Recipient = format!(" {public} ").parse().unwrap();
        assert_eq!(recipient.to_string(), public);
        let secret = key.to_string().expose_secret().to_owned();
        for (text, expected) in [
            (secret.as_str(), RecipientError::SecretKey),
            (&secret.to_lowercase(), RecipientError::SecretKey),
            ("ssh-ed25519 AAAA me@home", RecipientError::Ssh),
            ("age1yubikey1qxyz", RecipientError::Plugin),
            ("age1pq1xyz", RecipientError::PostQuantum),
            (&public[..60], RecipientError::Wrong),
            ("", RecipientError::Wrong),
            ("ägé1", RecipientError::Wrong),
        ] {
            assert_eq!(text.parse::<Recipient>(), Err(expected), "{text}");
        }
        assert!(
            !RecipientError::SecretKey
                .to_string()
                .contains(&secret[20..])
        );
    }

    #[test]
    fn an_identity_file_holds_comments_and_several_keys() {
        let [one, two] = [(); 2].map(|()| age::x25519::Identity::generate());
        let text = |key: &age::x25519::Identity| key.to_string().expose_secret().to_owned();
        let file = format!(
            "# created: today\n# public key: {}\n{}\r\n\n  {}\n",
            one.to_public(),
            text(&one),
            text(&two)
        );
        let file = Secret::new(file);
        assert!(looks_like_identities(&file));
        assert_eq!(parse_identities(&file).unwrap().len(), 2);
        let public = one.to_public().to_string();
        for (file, expected) in [
            ("# nothing\n", IdentityError::None),
            ("hunter2", IdentityError::Line(1)),
            (&format!("\n{public}"), IdentityError::PublicKey(2)),
            ("age-encryption.org/v1\n-> scrypt", IdentityError::Encrypted),
            (
                "-----BEGIN AGE ENCRYPTED FILE-----",
                IdentityError::Encrypted,
            ),
            ("-----BEGIN OPENSSH PRIVATE KEY-----", IdentityError::Ssh),
            ("AGE-PLUGIN-YUBIKEY-1Q", IdentityError::Plugin(1)),
            ("AGE-SECRET-KEY-PQ-1Q", IdentityError::PostQuantum(1)),
        ] {
            let found = parse_identities(&Secret::new(file)).map(|found| found.len());
            assert_eq!(found, Err(expected), "{file}");
        }
        assert!(!looks_like_identities(&Secret::new(
            "correct horse battery staple"
        )));
    }

    #[test]
    fn a_passphrase_is_a_line_that_is_taken_for_nothing_else() {
        for (text, expected) in [
            ("correct horse", Ok(())),
            ("hunter#2", Ok(())),
            ("", Err(PassphraseError::Empty)),
            (" \n", Err(PassphraseError::Empty)),
            ("two\nlines", Err(PassphraseError::Lines)),
            ("two\rlines", Err(PassphraseError::Lines)),
            ("#hunter2", Err(PassphraseError::Comment)),
            ("age1xyz", Err(PassphraseError::Recipient)),
            ("# made\nage-secret-key-1X", Err(PassphraseError::Identity)),
            ("-----BEGIN X", Err(PassphraseError::Identity)),
        ] {
            let text = Secret::new(text);
            assert_eq!(judge_passphrase(&text), expected, "{}", text.expose());
            // What encrypts is a passphrase to a reader that takes keys as well.
            assert!(expected.is_err() || !looks_like_identities(&text));
        }
    }
}
