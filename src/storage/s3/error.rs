//! What a server or the network said, in plain words: the one place that knows the codes of S3.
//!
//! The trap: the SDK's errors print whole requests, signatures included. So only a code and the server's message
//! leave here, and of the network what kind of trouble it was.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use jiff::{SignedDuration, Timestamp};
use rustls::CertificateError;

use super::client::parse_date;
use crate::storage::{Error, Problem};
use crate::units::HumanDuration;

/// What servers say to a body that does not have its checksum.
const CHANGED_ON_THE_WAY: [&str; 2] = ["BadDigest", "XAmzContentChecksumMismatch"];

/// No more of a server's message is told.
const LONGEST: usize = 300;

/// A cause in words.
#[derive(Debug)]
pub(super) struct Told(pub(super) String);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Told {}

/// Who is asked for what, for an error that says so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// The store, for people.
    pub(super) store: &'a str,
    pub(super) bucket: &'a str,
    /// Where requests go: the endpoint, or AWS.
    pub(super) place: &'a str,
    /// The region that they are signed for.
    pub(super) region: &'a str,
    /// What was to be done: `write sessions/…/manifest.json`.
    pub(super) action: &'a str,
    /// The right that it needs: `s3:PutObject`.
    pub(super) right: &'a str,
}

/// What became of a request, without what it was.
#[derive(Debug)]
pub(super) enum Fault {
    /// The server answered that it does not do it.
    Refused(Refusal),
    /// It did not come to an answer.
    Broken(Break),
}

/// A server's refusal.
#[derive(Debug, Default)]
pub(super) struct Refusal {
    pub(super) status: u16,
    code: String,
    message: String,
    /// Where the bucket is, if the server tells.
    region: Option<String>,
    date: Option<Timestamp>,
}

/// Why there was no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Break {
    /// It stood still, or took too long.
    Stalled,
    /// Nobody listens there.
    ConnectionRefused,
    /// The host's name is not known.
    UnknownHost,
    /// Its certificate is signed by nobody whom we trust.
    UnknownAuthority,
    /// Its certificate is for another name.
    WrongName,
    /// Its certificate is over, or not yet valid.
    Expired,
    /// A proxy does not let it through.
    Tunnel,
    /// Another failure of TLS.
    Tls,
    /// The connection broke.
    Connection,
    /// The credentials could not be had.
    Credentials,
    /// The answer makes no sense.
    Garbled,
    /// Something else.
    Other,
}

impl<E> From<SdkError<E, HttpResponse>> for Fault
where
    E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
{
    fn from(error: SdkError<E, HttpResponse>) -> Fault {
        if let Some(answer) = error.raw_response() {
            let status = answer.status();
            if status.is_client_error() || status.is_server_error() || status.as_u16() / 100 == 3 {
                return Fault::Refused(refusal(&error, answer));
            }
        }
        match &error {
            SdkError::ServiceError(context) => {
                // Completing an upload is answered with 200 and then with an error.
                let mut refusal = refusal(&error, context.raw());
                refusal.status = 500;
                Fault::Refused(refusal)
            }
            SdkError::TimeoutError(_) => Fault::Broken(Break::Stalled),
            SdkError::DispatchFailure(failure) if failure.is_timeout() => {
                Fault::Broken(Break::Stalled)
            }
            SdkError::ResponseError(_) => match kind_of_break(&error) {
                Break::Other => Fault::Broken(Break::Garbled),
                other => Fault::Broken(other),
            },
            _ => Fault::Broken(kind_of_break(&error)),
        }
    }
}

fn refusal<E>(error: &SdkError<E, HttpResponse>, answer: &HttpResponse) -> Refusal
where
    E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
{
    let meta = error.as_service_error().map(ProvideErrorMetadata::meta);
    let text = |text: Option<&str>| text.unwrap_or_default().trim().to_owned();
    let message = text(meta.and_then(|meta| meta.message()));
    let header = |name: &str| answer.headers().get(name).map(str::to_owned);
    Refusal {
        status: answer.status().as_u16(),
        code: text(meta.and_then(|meta| meta.code())),
        region: header("x-amz-bucket-region").or_else(|| expected_region(&message)),
        date: header("date").and_then(|date| parse_date(&date)),
        message,
    }
}

/// Of "the region 'us-east-1' is wrong; expecting 'eu-west-1'" the second.
fn expected_region(message: &str) -> Option<String> {
    let (_, after) = message.split_once("expecting '")?;
    let (region, _) = after.split_once('\'')?;
    Some(region.to_owned())
}

/// The errors from the outermost on, as texts; one that repeats its cause's is left out.
pub(super) fn chain(error: &(dyn StdError + 'static)) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    for error in errors(error) {
        let text = error.to_string();
        match texts.last() {
            Some(last) if last.contains(&text) => {}
            _ => texts.push(text),
        }
    }
    texts
}

fn errors<'e>(
    error: &'e (dyn StdError + 'static),
) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    // An I/O error skips what it wraps.
    std::iter::successors(Some(error), |&error| {
        match error.downcast_ref::<io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as &(dyn StdError + 'static)),
            None => error.source(),
        }
    })
}

pub(super) fn kind_of_break(error: &(dyn StdError + 'static)) -> Break {
    let mut found = Break::Other;
    for error in errors(error) {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return match tls {
                rustls::Error::InvalidCertificate(problem) => match problem {
                    // One made anew under the old name signs with another key.
                    CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                        Break::UnknownAuthority
                    }
                    CertificateError::NotValidForName
                    | CertificateError::NotValidForNameContext { .. } => Break::WrongName,
                    CertificateError::Expired
                    | CertificateError::ExpiredContext { .. }
                    | CertificateError::NotValidYet
                    | CertificateError::NotValidYetContext { .. } => Break::Expired,
                    _ => Break::Tls,
                },
                _ => Break::Tls,
            };
        }
        if let Some(io) = error.downcast_ref::<io::Error>() {
            found = match io.kind() {
                io::ErrorKind::ConnectionRefused => Break::ConnectionRefused,
                io::ErrorKind::TimedOut => Break::Stalled,
                io::ErrorKind::InvalidData => Break::Tls,
                _ if found == Break::Other => Break::Connection,
                _ => found,
            };
        }
        let text = error.to_string();
        if text.contains("dns error") || text.contains("failed to lookup address") {
            return Break::UnknownHost;
        }
        if text.contains("credential") {
            return Break::Credentials;
        }
        if text.contains("tunnel error") {
            return Break::Tunnel;
        }
        if found == Break::Other && (text.contains("connection") || text.contains("hyper")) {
            found = Break::Connection;
        }
    }
    found
}

impl Fault {
    /// The status of the answer; 0 where there was none.
    pub(super) fn status(&self) -> u16 {
        match self {
            Fault::Refused(refusal) => refusal.status,
            Fault::Broken(_) => 0,
        }
    }

    /// Whether the server gave one of these codes.
    pub(super) fn is(&self, codes: &[&str]) -> bool {
        matches!(self, Fault::Refused(refusal) if codes.contains(&refusal.code.as_str()))
    }

    /// Whether what arrived is not what was sent, by its checksum.
    pub(super) fn is_of_other_bytes(&self) -> bool {
        self.is(&CHANGED_ON_THE_WAY)
    }

    /// Whether it does not know what it was asked for.
    pub(super) fn is_unknown_to_server(&self) -> bool {
        self.status() == 501 || self.is(&["NotImplemented", "MethodNotAllowed"])
    }

    /// Whether it says that it has not learned to do it.
    pub(super) fn is_not_implemented(&self) -> bool {
        self.status() == 501 || self.is(&["NotImplemented"])
    }

    /// The error to tell.
    pub(super) fn told(self, asked: Asked<'_>) -> Error {
        let (problem, cause, hint) = match &self {
            Fault::Refused(refusal) => refused(refusal, asked),
            Fault::Broken(kind) => broken(*kind, asked),
        };
        let mut error = Error::new(problem, asked.store, asked.action).because(Told(cause));
        error.hint = hint;
        error
    }
}

type Words = (Problem, String, Option<String>);

fn broken(kind: Break, asked: Asked<'_>) -> Words {
    let place = asked.place;
    let (problem, cause, hint) = match kind {
        Break::Stalled => (
            Problem::Unavailable,
            format!("{place} did not answer in time, several times"),
            "is the network slow, or the server overloaded? try again later",
        ),
        Break::ConnectionRefused => (
            Problem::Unavailable,
            format!("{place} refuses connections"),
            "does the server run there? `endpoint` says where it is looked for",
        ),
        Break::UnknownHost => (
            Problem::Unavailable,
            format!("the host of {place} cannot be found"),
            "is `endpoint` (or `region`) written right, and does the name server answer? where a bucket has no host name of its own, `path_style = true` helps",
        ),
        Break::UnknownAuthority => (
            Problem::Denied,
            format!(
                "the certificate of {place} is signed by an authority that is not trusted here"
            ),
            "name the authority's certificate: `ca_file = \"…\"`",
        ),
        Break::WrongName => (
            Problem::Denied,
            format!("the certificate of {place} is for another host name"),
            "`endpoint` must have a host name that stands in the certificate; `path_style = true` keeps the bucket out of the host name",
        ),
        Break::Expired => (
            Problem::Denied,
            format!(
                "the certificate of {place} is not valid now: it has run out, or one of the clocks is wrong"
            ),
            "renew the server's certificate, or set the clock",
        ),
        Break::Tls => (
            Problem::Unavailable,
            format!("no TLS connection to {place} could be made"),
            "does the server speak TLS at this port? `endpoint` begins with http:// where it does not",
        ),
        Break::Tunnel => (
            Problem::Unavailable,
            format!("the proxy does not let a connection to {place} through"),
            "HTTPS_PROXY names the proxy; NO_PROXY lists the hosts that are reached without it",
        ),
        Break::Connection => (
            Problem::Unavailable,
            format!("the connection to {place} broke, several times"),
            "try again later",
        ),
        Break::Credentials => (
            Problem::Denied,
            "the credentials could not be had".to_owned(),
            "does the service that gives them out answer? a long-lived key can be set: `access_key_id`, `secret_access_key_file`",
        ),
        Break::Garbled => (
            Problem::Unavailable,
            format!("what {place} answered is not understood"),
            "is there an S3 server, and not a web page?",
        ),
        Break::Other => (
            Problem::Other,
            format!("the request to {place} could not be made"),
            "is the storage configured right? `rdbkeeper check` tries it",
        ),
    };
    (problem, cause, Some(hint.to_owned()))
}

fn refused(refusal: &Refusal, asked: Asked<'_>) -> Words {
    let said = refusal.said();
    let Asked {
        bucket,
        place,
        right,
        ..
    } = asked;
    let words = |problem, cause: String, hint: &str| (problem, cause, Some(hint.to_owned()));
    match (refusal.code.as_str(), refusal.status) {
        ("NoSuchBucket", _) => words(
            Problem::Misplaced,
            format!("there is no bucket `{bucket}` at {place}"),
            "make it, or correct `bucket` in the configuration; rdbkeeper makes none",
        ),
        ("PreconditionFailed", _) | (_, 412) => {
            (Problem::Exists, "there is one already".to_owned(), None)
        }
        ("NoSuchKey" | "NotFound" | "NoSuchVersion" | "NoSuchUpload", _) => {
            (Problem::NotFound, said, None)
        }
        (
            "PermanentRedirect"
            | "TemporaryRedirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException"
            | "IncorrectEndpoint",
            _,
        )
        | (_, 301 | 307) => wrong_region(refusal, asked),
        ("InvalidAccessKeyId" | "InvalidAccessKey", _) => words(
            Problem::Denied,
            format!("{place} does not know the access key ({said})"),
            "`access_key_id`, or the key that the environment gives, is not one of this server's",
        ),
        ("SignatureDoesNotMatch", _) => words(
            Problem::Denied,
            format!("the secret key does not fit the access key ({said})"),
            "check `secret_access_key`; a proxy that changes requests does this, too",
        ),
        (
            "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "RequestExpired",
            _,
        ) => words(
            Problem::Denied,
            format!("the credentials have run out ({said})"),
            "get new ones; a long-lived key or a role does not run out in mid-work",
        ),
        ("InvalidToken", _) => words(
            Problem::Denied,
            format!("the session token is not right ({said})"),
            "`session_token` belongs to temporary keys alone, and to the same pair",
        ),
        ("RequestTimeTooSkewed", _) => words(
            Problem::Denied,
            format!(
                "this host's clock is not the server's{}",
                skew(refusal.date)
            ),
            "set the clock, by NTP best",
        ),
        (code, _) if code.starts_with("KMS") => words(
            Problem::Denied,
            said,
            "the credentials need kms:GenerateDataKey and kms:Decrypt on the key of `kms_key_id`, and it must be enabled",
        ),
        ("InvalidObjectState", _) => words(
            Problem::Other,
            format!("it lies in a storage class that cannot be read at once ({said})"),
            "restore it there first (`aws s3api restore-object`), then try again",
        ),
        ("NotImplemented", _) | (_, 501) => words(
            Problem::Other,
            format!("the server does not know this request ({said})"),
            "`checksums = false`, or a setting that it does not have (`object_lock`, `storage_class`, `server_side_encryption`) may be why: `rdbkeeper check` tries it",
        ),
        (
            "SlowDown"
            | "ServiceUnavailable"
            | "InternalError"
            | "RequestTimeout"
            | "RequestLimitExceeded"
            | "TooManyRequests"
            | "Throttling"
            | "ThrottlingException"
            | "ConditionalRequestConflict"
            | "OperationAborted",
            _,
        )
        | (_, 409 | 429 | 500 | 502..=506) => words(
            Problem::Unavailable,
            format!("{said}, several times"),
            "the server is overloaded or in trouble: try again later",
        ),
        (
            "QuotaExceeded"
            | "XMinioStorageFull"
            | "InsufficientStorage"
            | "StorageFull"
            | "InsufficientCapacity"
            | "XMinioAdminBucketQuotaExceeded",
            _,
        )
        | (_, 507) => words(
            Problem::Full,
            said,
            "make room there, or keep fewer backups",
        ),
        (code, _) if CHANGED_ON_THE_WAY.contains(&code) => words(
            Problem::Unavailable,
            format!("what arrived at {place} is not what was sent, several times ({said})"),
            "does a proxy, or failing hardware, change it on the way? try again later; `checksums = false` would store it as it arrives",
        ),
        (code, status) if complains_of_checksums(code, &refusal.message) => words(
            Problem::Other,
            said,
            if status == 400 {
                "does the server refuse checksums? `checksums = false` sends none"
            } else {
                "try again"
            },
        ),
        (code, _)
            if code.contains("ObjectLock")
                || refusal.message.contains("Object Lock")
                || refusal.message.contains("ObjectLock") =>
        {
            words(
                Problem::Misplaced,
                said,
                "object lock must be switched on for the bucket, best when it is made; or drop `object_lock`",
            )
        }
        ("InvalidStorageClass", _) => words(
            Problem::Misplaced,
            said,
            "correct `storage_class`, or leave it out",
        ),
        (_, 401 | 403) => words(
            Problem::Denied,
            said,
            &format!(
                "the credentials need the right `{right}` on the bucket `{bucket}`; docs/storage.md has a policy"
            ),
        ),
        (_, 404) => (Problem::NotFound, said, None),
        _ => words(
            Problem::Other,
            said,
            "is the storage configured right? `rdbkeeper check` tries it",
        ),
    }
}

fn complains_of_checksums(code: &str, message: &str) -> bool {
    let code_says = matches!(code, "InvalidDigest" | "XAmzContentSHA256Mismatch");
    let message = message.to_ascii_lowercase();
    code_says
        || ["checksum", "x-amz-content-sha256", "trailer", "crc32"]
            .iter()
            .any(|word| message.contains(word))
}

fn wrong_region(refusal: &Refusal, asked: Asked<'_>) -> Words {
    let ours = asked.region;
    match &refusal.region {
        Some(theirs) if theirs != ours => (
            Problem::Misplaced,
            format!(
                "the bucket `{}` is in region {theirs}, and it was looked for in {ours}",
                asked.bucket
            ),
            Some(format!("write region = \"{theirs}\"")),
        ),
        _ => (
            Problem::Misplaced,
            format!(
                "the bucket `{}` is not in region {ours} ({})",
                asked.bucket,
                refusal.said()
            ),
            Some("correct `region`, or `endpoint`".to_owned()),
        ),
    }
}

fn skew(theirs: Option<Timestamp>) -> String {
    let Some(theirs) = theirs else {
        return String::new();
    };
    let ahead: SignedDuration = Timestamp::now().duration_since(theirs);
    let by = HumanDuration(std::time::Duration::from_secs(
        ahead.unsigned_abs().as_secs(),
    ));
    match ahead.is_negative() {
        true => format!(": it is {by} behind"),
        false => format!(": it is {by} ahead"),
    }
}

impl Refusal {
    /// The server's words on one line.
    fn said(&self) -> String {
        let Refusal {
            status,
            code,
            message,
            ..
        } = self;
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        let message: String = message.chars().take(LONGEST).collect();
        match (code.is_empty(), message.is_empty()) {
            (true, _) => format!("the server answers {status}"),
            (false, true) => format!("the server answers {status} {code}"),
            (false, false) => format!("the server answers {status} {code}: {message}"),
        }
    }
}
