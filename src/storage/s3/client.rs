//! The connection to a server: credentials, region, trust, patience.
//!
//! It is made when it is first needed: a configuration is read and jobs are planned without a look at any secret.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::imds::region::ImdsRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::provider_config::ProviderConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::interceptors::{
    BeforeDeserializationInterceptorContextRef, InterceptorContext,
};
use aws_sdk_s3::config::retry::{ClassifyRetry, RetryAction, RetryConfig};
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Config, ConfigBag, Credentials, Intercept, ProvideCredentials as _, Region,
    RequestChecksumCalculation, ResponseChecksumValidation, RuntimeComponents,
    SharedCredentialsProvider, SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::BoxError;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::error::{Break, Told, chain, kind_of_break};
use crate::config::{FileRef, S3Config, S3Credentials, SecretError};
use crate::storage::{Error, Problem};

/// How often a request is made before it has failed.
const ATTEMPTS: u32 = 6;

/// What a later attempt waits at first, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(20));

const CONNECT: Duration = Duration::from_secs(10);

/// How long the beginning of an answer may be waited for, where little is sent.
const ANSWER: Duration = Duration::from_secs(30);

/// The region that a server of one's own is given, where nobody names one.
const FALLBACK_REGION: &str = "us-east-1";

/// A server, ready to be asked.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    /// For what is asked and answered in few bytes.
    pub(super) client: Client,
    /// For what is large or takes long: without a limit of its own for a request.
    pub(super) bulk: Client,
    /// The region that requests are signed for.
    pub(super) region: String,
}

/// What keeps it from being made. The store puts its name to it.
pub(super) fn refuse(problem: Problem, store: &str, why: impl Into<String>) -> Error {
    Error::new(problem, store, "be opened").because(Told(why.into()))
}

/// Makes the connection; nothing is asked of the server yet.
pub(super) async fn connect(config: &S3Config, store: &str) -> Result<Connection, Error> {
    let http = http_client(config, store)?;
    let region = region(config, &http, store).await?;
    let credentials = match &config.credentials {
        Some(keys) => fixed(keys, store)?,
        None => found(&http, &region, store).await?,
    };
    let path_style = config.path_style.unwrap_or(config.endpoint.is_some());
    let mut builder = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http)
        .region(Region::new(region.clone()))
        .credentials_provider(credentials)
        .force_path_style(path_style)
        .retry_config(
            RetryConfig::standard()
                .with_max_attempts(ATTEMPTS)
                .with_initial_backoff(BACKOFF.0)
                .with_max_backoff(BACKOFF.1),
        )
        .retry_classifier(WorthAnother)
        // What is sent carries our own checksums, and what comes back is checked against our own digests.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        // Whether bodies move is watched here.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    builder.set_endpoint_url(config.endpoint.clone());
    let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT);
    let bulk = builder.clone().timeout_config(timeouts.clone().build());
    let small = builder.timeout_config(timeouts.read_timeout(ANSWER).build());
    Ok(Connection {
        client: Client::from_conf(small.build()),
        bulk: Client::from_conf(bulk.build()),
        region,
    })
}

fn fixed(keys: &S3Credentials, store: &str) -> Result<SharedCredentialsProvider, Error> {
    let read = |key: &'static str, source: &crate::config::SecretSource| {
        source.read().map_err(|error| no_secret(store, key, &error))
    };
    let id = read("access_key_id", &keys.access_key_id)?;
    let secret = read("secret_access_key", &keys.secret_access_key)?;
    let token = keys.session_token.as_ref();
    let token = token
        .map(|token| read("session_token", token))
        .transpose()?;
    Ok(SharedCredentialsProvider::new(Credentials::new(
        id.expose(),
        secret.expose(),
        token.map(|token| token.expose().to_owned()),
        None,
        "configuration",
    )))
}

fn no_secret(store: &str, key: &str, error: &SecretError) -> Error {
    refuse(
        Problem::Denied,
        store,
        format!("`{key}`: {}", chain(error).join(": ")),
    )
    .hint("a relative path is looked for in $CREDENTIALS_DIRECTORY, then beside the configuration; the user that rdbkeeper runs as must be able to read it")
}

/// Credentials where AWS's own tools look for them. They are asked for once, here, for the clearest error.
async fn found(
    http: &SharedHttpClient,
    region: &str,
    store: &str,
) -> Result<SharedCredentialsProvider, Error> {
    let loaded = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http.clone())
        .region(Region::new(region.to_owned()))
        .load()
        .await;
    let hint = "they are looked for in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, in the profile of ~/.aws (AWS_PROFILE), in a web identity token, and in the services of ECS, EKS and EC2; or set `access_key_id` and `secret_access_key_file`";
    let provider = loaded
        .credentials_provider()
        .ok_or_else(|| refuse(Problem::Denied, store, "no credentials were found").hint(hint))?;
    match provider.provide_credentials().await {
        Ok(_) => Ok(provider),
        Err(error) => {
            let causes = chain(&error).join(": ");
            let why = format!("no credentials were found: {causes}");
            Err(refuse(Problem::Denied, store, why).hint(hint))
        }
    }
}

async fn region(config: &S3Config, http: &SharedHttpClient, store: &str) -> Result<String, Error> {
    if let Some(region) = &config.region {
        return Ok(region.clone());
    }
    let chain = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
        .or_else(ProfileFileRegionProvider::new());
    if config.endpoint.is_some() {
        // Nobody waits for EC2's answer where the server is one's own.
        let found = chain.region().await;
        return Ok(found.map_or_else(|| FALLBACK_REGION.to_owned(), |region| region.to_string()));
    }
    // The library's own chain asks EC2 by a client of its own, which is not built in here.
    let asking = ProviderConfig::without_region().with_http_client(http.clone());
    let instance = ImdsRegionProvider::builder().configure(&asking).build();
    let found = chain.or_else(instance).region().await;
    found.map(|region| region.to_string()).ok_or_else(|| {
        refuse(Problem::Misplaced, store, "no region is configured").hint(
            "write `region = \"eu-central-1\"`, the bucket's own, into the storage, or set AWS_REGION",
        )
    })
}

fn http_client(config: &S3Config, store: &str) -> Result<SharedHttpClient, Error> {
    let encrypted = config
        .endpoint
        .as_ref()
        .is_none_or(|endpoint| endpoint.starts_with("https://"));
    let trust = match &config.ca_file {
        Some(file) => TrustStore::empty().with_pem_certificate(read_ca(file, store)?),
        // The library panics over none at all in debug builds; without any the handshake says what is wrong.
        None if encrypted && !rustls_native_certs::load_native_certs().certs.is_empty() => {
            TrustStore::default()
        }
        None => TrustStore::empty(),
    };
    let context = TlsContext::builder()
        .with_trust_store(trust)
        .build()
        .map_err(|error| refuse(Problem::Other, store, error.to_string()))?;
    let client = Builder::new().build_with_connector_fn(move |settings, components| {
        let mut builder = Connector::builder().proxy_config(ProxyConfig::from_env());
        builder.set_connector_settings(settings.cloned());
        if let Some(components) = components {
            builder.set_sleep_impl(components.sleep_impl());
        }
        builder
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .tls_context(context.clone())
            .build()
    });
    Ok(client)
}

/// The authorities in a file, each proven to be one: the library panics over others.
fn read_ca(file: &FileRef, store: &str) -> Result<Vec<u8>, Error> {
    let refused = |why: String| {
        refuse(Problem::Misplaced, store, format!("`ca_file`: {why}"))
            .hint("it is a PEM file with the certificate of the authority that signed the server's")
    };
    let path = file
        .find()
        .map_err(|error| refused(chain(&error).join(": ")))?;
    let named = |why: String| refused(format!("{}: {why}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| named(error.to_string()))?;
    let mut roots = rustls::RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(&bytes) {
        let cert = cert.map_err(|error| named(error.to_string()))?;
        roots.add(cert).map_err(|error| named(error.to_string()))?;
    }
    match roots.is_empty() {
        true => Err(named("it holds no certificate".to_owned())),
        false => Ok(bytes),
    }
}

/// What the library does not know of trying again. Its own rules are for AWS: other servers answer 429 to who asks too
/// much; and no later attempt finds another certificate.
#[derive(Debug)]
struct WorthAnother;

impl ClassifyRetry for WorthAnother {
    fn name(&self) -> &'static str {
        "WorthAnother"
    }

    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        if let Some(answer) = context.response()
            && answer.status().as_u16() == 429
        {
            return RetryAction::throttling_error();
        }
        let broken = match context.output_or_error() {
            Some(Err(error)) => error.as_connector_error().map(|error| kind_of_break(error)),
            _ => None,
        };
        match broken {
            Some(Break::UnknownAuthority | Break::WrongName | Break::Expired) => {
                RetryAction::RetryForbidden
            }
            _ => RetryAction::NoActionIndicated,
        }
    }
}

/// Takes the time from the answer to one request.
#[derive(Clone, Debug, Default)]
pub(super) struct DateTaker(Arc<Mutex<Option<Timestamp>>>);

impl DateTaker {
    pub(super) fn taken(&self) -> Option<Timestamp> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intercept for DateTaker {
    fn name(&self) -> &'static str {
        "DateTaker"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context
            .response()
            .headers()
            .get("date")
            .and_then(parse_date);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = date;
        Ok(())
    }
}

/// The time in a `Date` header.
pub(super) fn parse_date(text: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_of_an_answer_is_understood() {
        let expected = "2026-11-23T09:44:08Z".parse().ok();
        assert!(expected.is_some());
        assert_eq!(parse_date("Mon, 23 Nov 2026 09:44:08 GMT"), expected);
        assert_eq!(parse_date("yesterday"), None);
    }
}
