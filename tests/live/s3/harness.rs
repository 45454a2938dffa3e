//! The S3 server of the tests: what it hands to the other tests has to be what it says.

use aws_sdk_s3::error::ProvideErrorMetadata as _;

use crate::support::proxy::{Fault, Proxy, Rule};
use crate::support::weed::{self, Options, Weed, wait};

#[test]
fn the_shared_server_gives_each_test_a_bucket_of_its_own() {
    let Some(weed) = weed::shared() else { return };
    let (one, other) = (weed.bucket(), weed.bucket());
    one.put("folder/key", "text");
    assert_eq!(one.objects(), [("folder/key".to_owned(), 4)]);
    assert_eq!(one.get("folder/key"), b"text");
    assert_eq!(other.objects(), []);
    one.vanish();
}

#[test]
fn a_server_that_was_killed_comes_back_with_what_it_had() {
    let Some(mut weed) = Weed::with(Options::new().tls().kms()) else {
        return;
    };
    let bucket = weed.bucket();
    bucket.put("key", vec![7; 100_000]);
    weed.kill();
    assert!(std::net::TcpStream::connect(("127.0.0.1", weed.port())).is_err());
    weed.restart();
    assert_eq!(bucket.get("key"), vec![7; 100_000]);
    std::net::TcpStream::connect(("127.0.0.1", weed.tls_port())).unwrap();
    assert!(weed.certificates().ca.exists());
}

#[test]
fn an_open_server_lets_everybody_in() {
    let Some(weed) = weed::shared_open() else {
        return;
    };
    let bucket = weed.locking_bucket();
    bucket.put("key", "text");
    assert_eq!(bucket.keys(), ["key"]);
}

#[test]
fn the_proxy_passes_what_no_rule_is_for_and_does_what_the_rules_say() {
    let Some(weed) = weed::shared_open() else {
        return;
    };
    let bucket = weed.bucket();
    let proxy = Proxy::to(weed.port());
    let client = weed::client(&proxy.endpoint());
    let put = |key: &str| {
        let request = client.put_object().bucket(bucket.name()).key(key);
        wait(
            request
                .if_none_match("*")
                .body(vec![1; 200_000].into())
                .send(),
        )
        .map(drop)
        .map_err(|error| error.code().unwrap_or("no answer").to_owned())
    };
    let get = |key: &str| {
        wait(async {
            let request = client.get_object().bucket(bucket.name()).key(key);
            let object = request.send().await.map_err(|error| error.to_string())?;
            let body = object.body.collect().await;
            body.map(|body| body.to_vec())
                .map_err(|error| error.to_string())
        })
    };
    assert_eq!(put("one"), Ok(()));
    assert_eq!(get("one"), Ok(vec![1; 200_000]));
    assert_eq!(put("one"), Err("PreconditionFailed".to_owned()));
    assert!(proxy.count("PUT", "/one") >= 2, "{:?}", proxy.log());

    let strip = proxy.rule(Rule::new("PUT", "/one", Fault::Strip("if-none-match")));
    assert_eq!(put("one"), Ok(()));
    assert_eq!(strip.hits(), 1);
    proxy.heal();

    let refused = proxy.rule(Rule::new("PUT", "/two", Fault::Answer(403, "AccessDenied")).times(1));
    assert_eq!(put("two"), Err("AccessDenied".to_owned()));
    assert_eq!((put("two"), refused.hits()), (Ok(()), 1));

    let lost = proxy.rule(Rule::new("PUT", "/three", Fault::LoseAnswer).times(1));
    assert_eq!(put("three"), Err("PreconditionFailed".to_owned()));
    assert_eq!(lost.hits(), 1);
    assert!(bucket.keys().contains(&"three".to_owned()));

    let cut = proxy.rule(Rule::new("PUT", "/four", Fault::ResetInRequest(100_000)).times(1));
    assert_eq!((put("four"), cut.hits()), (Ok(()), 1));

    proxy.rule(Rule::new("GET", "/two", Fault::ResetInAnswer(1000)).times(1));
    assert!(get("two").is_err());
    proxy.rule(Rule::new("GET", "/two", Fault::Slow(1_000_000)).times(1));
    assert_eq!(get("two"), Ok(vec![1; 200_000]));
    proxy.rule(Rule::new("GET", "/three", Fault::Flip(1000)));
    let flipped = get("three");
    assert!(flipped.is_err() || flipped.is_ok_and(|data| data[1000] == 0));
}
