//! Getting in: passwords, ACL users with the smallest rights, TLS, unix sockets, and each way to be kept out.

use std::time::Duration;

use rdbkeeper::server::error::TlsProblem;
use rdbkeeper::server::tls::TlsFiles;
use rdbkeeper::server::{Code, Endpoint, Error, Secret};
use rdbkeeper::source::{self, Choice, Method, Request, plan};

use super::dumping::{block_on, by, endpoint, fail, take, verified};
use crate::cmd;
use crate::support::data;
use crate::support::servers::{self, NOBODY, Options, Server};

fn with_password(mut endpoint: Endpoint, user: Option<&str>, password: &str) -> Endpoint {
    endpoint.username = user.map(str::to_owned);
    endpoint.password = Some(Secret::new(password));
    endpoint
}

fn all_methods(endpoint: &Endpoint, keys: u64, what: &str) {
    for method in Method::ALL {
        let mut request = Request::new(endpoint.clone());
        request.choice = Choice::Only(method);
        let taken = take(request);
        assert_eq!(verified(&taken.bytes).keys(), keys, "{what} by {method}");
    }
}

#[test]
fn a_password_and_a_unix_socket_work_for_every_method() {
    servers::each(|kind| {
        let server = Server::with(kind, Options::new().password("s3cret").unix_socket());
        server.client().run_all(data::sessions(200));
        for url in [server.url(), server.unix_url()] {
            let endpoint = with_password(endpoint(&url), None, "s3cret");
            all_methods(&endpoint, 200, &url);
        }
    });
}

#[test]
fn tls_with_a_client_certificate_works_for_every_method() {
    for kind in servers::available().iter().filter(|kind| kind.tls) {
        let server = Server::with(kind, Options::new().tls_with_client_certificate());
        server.client().run_all(data::sessions(5000));
        let certificates = server.certificates();
        let mut endpoint = endpoint(&server.tls_url());
        endpoint.tls = TlsFiles {
            ca_file: Some(certificates.ca.clone()),
            cert_file: Some(certificates.client.0.clone()),
            key_file: Some(certificates.client.1.clone()),
        };
        all_methods(&endpoint, 5000, &format!("{kind} over TLS"));
    }
}

fn refused(endpoint: &Endpoint) -> Error {
    match block_on(endpoint.wire()) {
        Ok(_) => panic!("the connection should have failed"),
        Err(error) => error,
    }
}

#[test]
fn each_fault_of_tls_is_told_apart() {
    let Some(kind) = servers::available().iter().find(|kind| kind.tls) else {
        return;
    };
    let server = Server::with(kind, Options::new().tls_with_client_certificate());
    let certificates = server.certificates().clone();
    let mut good = endpoint(&server.tls_url());
    good.tls = TlsFiles {
        ca_file: Some(certificates.ca.clone()),
        cert_file: Some(certificates.client.0.clone()),
        key_file: Some(certificates.client.1.clone()),
    };
    good.connect_timeout = Duration::from_secs(2);
    block_on(good.wire()).unwrap();
    let problem = |endpoint: &Endpoint| match refused(endpoint) {
        Error::Tls { problem, .. } => problem,
        other => panic!("{other:?}"),
    };

    let mut no_ca = good.clone();
    no_ca.tls.ca_file = None;
    assert_eq!(problem(&no_ca), TlsProblem::UnknownCa);

    let mut no_cert = good.clone();
    (no_cert.tls.cert_file, no_cert.tls.key_file) = (None, None);
    assert_eq!(problem(&no_cert), TlsProblem::ClientCertificate);

    let other = Server::with(kind, Options::new().tls());
    let mut foreign_cert = good.clone();
    foreign_cert.tls.cert_file = Some(other.certificates().client.0.clone());
    foreign_cert.tls.key_file = Some(other.certificates().client.1.clone());
    assert_eq!(problem(&foreign_cert), TlsProblem::ClientCertificate);

    let mut wrong_name = good.clone();
    wrong_name.address = format!("rediss://127.0.0.2:{}", server.tls_port())
        .parse()
        .unwrap();
    // The server listens on 127.0.0.1 alone, so the name is tried through a second server.
    let wide = Server::with(
        kind,
        Options::new().tls().config("bind 127.0.0.1 127.0.0.2"),
    );
    wrong_name.address = format!("rediss://127.0.0.2:{}", wide.tls_port())
        .parse()
        .unwrap();
    wrong_name.tls.ca_file = Some(wide.certificates().ca.clone());
    (wrong_name.tls.cert_file, wrong_name.tls.key_file) = (None, None);
    assert!(matches!(problem(&wrong_name), TlsProblem::WrongName(name) if name == "127.0.0.2"));

    let mut plain = good.clone();
    plain.address = format!("rediss://localhost:{}", server.port())
        .parse()
        .unwrap();
    assert_eq!(problem(&plain), TlsProblem::PlainText);

    // The other way round: plain text to a TLS port ends, and does not hang.
    let mut to_tls = good.clone();
    to_tls.address = format!("redis://localhost:{}", server.tls_port())
        .parse()
        .unwrap();
    assert!(matches!(
        refused(&to_tls),
        Error::Closed | Error::Io(_) | Error::ConnectTimeout { .. }
    ));

    let mut no_file = good.clone();
    no_file.tls.ca_file = Some("/nonexistent/ca.pem".into());
    assert!(matches!(refused(&no_file), Error::TlsFile { .. }));
    let mut no_key = good;
    no_key.tls.key_file = None;
    assert!(matches!(refused(&no_key), Error::TlsFile { .. }));
}

#[test]
fn each_way_to_be_kept_out_is_told_apart() {
    servers::each(|kind| {
        let server = Server::with(kind, Options::new().password("right"));
        let plain = endpoint(&server.url());
        let code = |error: Error| match error {
            Error::Login { reply, .. } => reply.code,
            other => panic!("{other:?}"),
        };
        assert_eq!(code(refused(&plain)), Code::NoAuth);
        let wrong = with_password(plain.clone(), None, "hunter2");
        let error = refused(&wrong);
        assert!(!format!("{error:?} {error} {wrong:?}").contains("hunter2"));
        assert_eq!(code(error), Code::WrongPass);
        let unknown = with_password(plain.clone(), Some("nobody"), "right");
        assert_eq!(code(refused(&unknown)), Code::WrongPass);
        block_on(with_password(plain, None, "right").wire()).unwrap();

        // A password where none is asked for is a mistake worth telling.
        let open = Server::start(kind);
        let needless = with_password(endpoint(&open.url()), None, "x");
        assert_eq!(code(refused(&needless)), Code::Err);

        let full = Server::with(kind, Options::new().config("maxclients 4"));
        let mut clients = Vec::new();
        while clients.len() < 4 {
            // A connection of the harness may still be on its way out.
            let mut client = full.client();
            if client
                .attempt(cmd!["PING"])
                .is_ok_and(|reply| reply.error().is_none())
            {
                clients.push(client);
            }
        }
        match refused(&endpoint(&full.url())) {
            Error::TurnedAway { reply, .. } => assert_eq!(reply.code, Code::Err),
            other => panic!("{other:?}"),
        }
    });

    let nobody = endpoint(&format!("redis://127.0.0.1:{NOBODY}"));
    assert!(matches!(refused(&nobody), Error::Refused { .. }));
    assert!(matches!(
        refused(&endpoint("redis://no-such-host.invalid")),
        Error::Dns { .. }
    ));
    assert!(matches!(
        refused(&endpoint("redis+unix:///nonexistent/redis.sock")),
        Error::NoSocket { .. }
    ));
    // It takes connections and never says a word.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut endpoint = endpoint(&format!("redis://{}", silent.local_addr().unwrap()));
    endpoint.connect_timeout = Duration::from_millis(300);
    assert!(matches!(refused(&endpoint), Error::ConnectTimeout { .. }));
}

#[test]
fn a_password_that_stands_where_a_user_does_is_not_shown() {
    let server = Server::with(servers::usual(), Options::new().password("hunter2"));
    let url = server.url().replace("://", "://hunter2@");
    let endpoint = endpoint(&url);
    assert!(!format!("{endpoint:?} {}", endpoint.address).contains("hunter2"));
    let error = fail(Request::new(endpoint.clone()));
    let failure = rdbkeeper::failure::Failure::from(error);
    assert_eq!(failure.kind, rdbkeeper::failure::Kind::Auth);
    assert!(!format!("{failure:?}").contains("hunter2"), "{failure:?}");
    let hint = failure.hint.unwrap();
    assert!(hint.contains("redis://:PASSWORD@host"), "{hint}");
    // A replica's may come from its master's URL.
    let mut replica = self::endpoint(&server.url());
    replica.username = Some("hunter2".to_owned());
    let shown = format!("{replica:?} {:?}", refused(&replica));
    assert!(!shown.contains("hunter2"), "{shown}");
    // With a password from elsewhere it is a user, and worth being named.
    let with = with_password(endpoint, Some("hunter2"), "pw");
    assert!(format!("{:?}", refused(&with)).contains("hunter2"));
}

#[test]
fn what_is_in_the_way_of_a_connection_is_said_once() {
    let nobody = format!("127.0.0.1:{NOBODY}");
    let request = Request::new(endpoint(&format!("redis://{nobody}")));
    let failure = rdbkeeper::failure::Failure::from(fail(request));
    assert_eq!(failure.message, format!("nothing listens at {nobody}"));
    assert!(failure.causes.is_empty(), "{failure:?}");
    assert_eq!(failure.kind, rdbkeeper::failure::Kind::Unreachable);

    let server = Server::with(servers::usual(), Options::new().password("right"));
    let wrong = with_password(endpoint(&server.url()), None, "wrong");
    let failure = rdbkeeper::failure::Failure::from(fail(Request::new(wrong)));
    assert!(failure.message.contains("login refused"), "{failure:?}");
    assert_eq!(failure.causes.len(), 1, "{failure:?}");
}

#[test]
fn the_acl_line_that_is_printed_is_enough_for_its_method_and_no_other() {
    servers::each(|kind| {
        let server = Server::start(kind);
        data::fill(&mut server.client(), kind);
        for databases in [None, Some([1, 3].into())] {
            let mut request = Request::new(endpoint(&server.url()));
            request.databases = databases;
            let plan_of_all = block_on(plan(&request)).unwrap();
            assert_eq!(plan_of_all.chosen, Some(Method::Bgsave));
            for method in &plan_of_all.methods {
                assert!(method.works(), "{kind} {:?}", method);
                assert!(method.acl.contains(" rdbkeeper "), "{}", method.acl);
                let mut client = server.client();
                client.run(cmd!["ACL", "LOG", "RESET"]);
                let line = method.acl.replace("PASSWORD", "pw");
                client.run(
                    line.split(' ')
                        .map(|word| word.as_bytes().to_vec())
                        .collect(),
                );

                let mut request = request.clone();
                request.endpoint = with_password(request.endpoint.clone(), Some("rdbkeeper"), "pw");
                request.choice = Choice::Only(method.method);
                // Ask for sizes as well, which a larger server would need.
                request.scan.max_value = 400_000;
                let taken = take(request.clone());
                verified(&taken.bytes);
                assert!(
                    taken.pumped.warnings.is_empty(),
                    "{:?}",
                    taken.pumped.warnings
                );
                let log = client.run(cmd!["ACL", "LOG"]);
                assert!(log.array().is_empty(), "{kind} {}: {log:?}", method.method);

                // As this user, the plan finds exactly what the user may.
                let seen = block_on(plan(&request)).unwrap();
                for other in seen.methods {
                    assert_eq!(
                        other.works(),
                        other.method == method.method,
                        "{kind} as the user for {}: {other:?}",
                        method.method
                    );
                }
                // And auto finds it too.
                request.choice = Choice::Auto;
                assert_eq!(take(request).method, method.method);
            }
        }
    });
}

#[test]
fn a_method_that_the_user_may_not_use_is_an_error_that_names_the_command() {
    servers::each(|kind| {
        let server = Server::with(
            kind,
            Options::new().user("little on >pw ~* +ping +info +scan"),
        );
        for (method, command) in [
            (Method::Bgsave, "CONFIG GET"),
            (Method::Replication, "REPLCONF"),
            (Method::Scan, "TIME"),
        ] {
            let mut request = by(method, &server);
            request.endpoint = with_password(request.endpoint, Some("little"), "pw");
            let error = fail(request);
            assert!(error.is_incapacity());
            let failure = rdbkeeper::failure::Failure::from(error);
            assert_eq!(failure.kind, rdbkeeper::failure::Kind::Forbidden);
            let text = format!("{} {:?}", failure.message, failure.causes);
            assert!(text.contains(command), "{kind} {method}: {text}");
            assert!(failure.hint.is_some());
        }
        let mut request =
            Request::new(with_password(endpoint(&server.url()), Some("little"), "pw"));
        request.choice = Choice::Auto;
        let source::Error::NoMethod { reasons, .. } = fail(request) else {
            panic!("some method worked");
        };
        assert_eq!(reasons.len(), 3);
    });
}

/// Run by [`a_file_that_may_not_be_read_names_the_right_and_the_group`] as a user without rights.
#[test]
#[ignore = "a part of another test, in a process of its own"]
fn as_nobody() {
    let mut request = Request::new(endpoint(&std::env::var("RDBKEEPER_TEST_URL").unwrap()));
    request.choice = Choice::Only(Method::Bgsave);
    let plan = block_on(plan(&request)).unwrap();
    assert_eq!(plan.methods[0].obstacles.len(), 1, "{:?}", plan.methods[0]);
    let failure = rdbkeeper::failure::Failure::from(fail(request.clone()));
    assert_eq!(failure.kind, rdbkeeper::failure::Kind::Forbidden);
    eprintln!(
        "message: {}\nhint: {}",
        failure.message,
        failure.hint.unwrap()
    );
    request.choice = Choice::Auto;
    assert_eq!(take(request).method, Method::Replication);
}

#[test]
fn a_file_that_may_not_be_read_names_the_right_and_the_group() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;

    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can start a process as somebody else");
        return;
    }
    let server = Server::start(servers::usual());
    server.client().run(cmd!["SET", "k", "v"]);
    server.save();
    let folder = server.folder().display().to_string();
    let set = |folder_mode, file_mode| {
        let mode = std::fs::Permissions::from_mode;
        std::fs::set_permissions(server.dump_file(), mode(file_mode)).unwrap();
        std::fs::set_permissions(server.folder(), mode(folder_mode)).unwrap();
    };
    for (folder_mode, file_mode, expected) in [
        (
            0o700,
            0o644,
            format!("the folder {folder} lacks the search right (x) for this user (mode 0700)"),
        ),
        (0o750, 0o644, "to the group `root`".to_owned()),
        (
            0o755,
            0o640,
            "the file lacks the read right (r) for this user (mode 0640)".to_owned(),
        ),
    ] {
        set(folder_mode, file_mode);
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "sources::access::as_nobody",
                "--ignored",
                "--nocapture",
            ])
            .env("RDBKEEPER_TEST_URL", server.url())
            .current_dir("/")
            .uid(65534)
            .gid(65534)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(
            output.status.success() && text.contains(&expected),
            "{expected}: {text}"
        );
    }
}
