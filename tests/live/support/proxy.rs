//! A network and a server that misbehave: a proxy between the program and an S3 server, which applies rules to requests.
//!
//! It reads each request whole and each answer whole, so faults come at exact bytes; it forwards over a connection of its
//! own for each request.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::weed::runtime;

/// What happens to a request that a rule is for.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It is answered with a status and the document of an S3 error of this code, and not forwarded.
    Answer(u16, &'static str),
    /// As `Answer`, with one header more.
    AnswerWith(u16, &'static str, String),
    /// The connection is reset when so many bytes of its body were read, and it is not forwarded.
    ResetInRequest(usize),
    /// It is forwarded, and the connection is reset when so many bytes of the answer's body were sent.
    ResetInAnswer(usize),
    /// It is forwarded; of the answer nothing comes back, the connection is reset.
    LoseAnswer,
    /// It is read, and that is all that ever happens.
    Stall,
    /// It is forwarded, and of the answer's body comes so much and then nothing.
    StallInAnswer(usize),
    /// It is forwarded, and the answer comes back with one bit changed at this byte of its body.
    Flip(usize),
    /// It is forwarded without this header (its name in lower case).
    Strip(&'static str),
    /// It is forwarded with one bit changed at this byte of its body.
    FlipInRequest(usize),
    /// It is forwarded, and the answer's `Date` is this one.
    Dated(String),
    /// It is forwarded, and in the answer's body texts are replaced by others of the same length.
    Replace(Vec<(String, String)>),
    /// Nothing: no later rule is for it.
    Spare,
    /// It passes, at so many bytes a second in each direction.
    Slow(usize),
}

/// Which requests a fault is for, how often, and how often it was.
#[derive(Debug)]
pub struct Rule {
    method: &'static str,
    part: String,
    header: &'static str,
    skip: usize,
    times: usize,
    fault: Fault,
    seen: AtomicUsize,
}

impl Rule {
    /// A fault for every request of this method (empty: any) whose target, path and query, has this part.
    pub fn new(method: &'static str, part: impl Into<String>, fault: Fault) -> Rule {
        Rule {
            method,
            part: part.into(),
            header: "",
            skip: 0,
            times: usize::MAX,
            fault,
            seen: AtomicUsize::new(0),
        }
    }

    /// Only those that have a header whose name begins so, in lower case.
    #[must_use]
    pub fn with_header(mut self, begin: &'static str) -> Rule {
        self.header = begin;
        self
    }

    /// The first of those pass.
    #[must_use]
    pub fn after(mut self, skip: usize) -> Rule {
        self.skip = skip;
        self
    }

    /// Only so many are hit.
    #[must_use]
    pub fn times(mut self, times: usize) -> Rule {
        self.times = times;
        self
    }

    /// How many requests it hit.
    pub fn hits(&self) -> usize {
        let seen = self.seen.load(Ordering::SeqCst);
        seen.saturating_sub(self.skip).min(self.times)
    }

    fn hit(&self, request: &Message) -> Option<Fault> {
        let (method, target) = request.request_line();
        let has = |line: &str| line.to_ascii_lowercase().starts_with(self.header);
        let meant = (self.method.is_empty() || self.method == method)
            && target.contains(&self.part)
            && (self.header.is_empty() || request.head.lines().skip(1).any(has));
        if !meant {
            return None;
        }
        let before = self.seen.fetch_add(1, Ordering::SeqCst);
        (before >= self.skip && before - self.skip < self.times).then(|| self.fault.clone())
    }
}

/// A running proxy. Dropping it ends it.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    to: SocketAddr,
    rules: Mutex<Vec<Arc<Rule>>>,
    log: Mutex<Vec<String>>,
}

impl Proxy {
    /// A proxy without rules in front of this port.
    pub fn to(port: u16) -> Proxy {
        let shared = Arc::new(Shared {
            to: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            rules: Mutex::default(),
            log: Mutex::default(),
        });
        let listener = runtime()
            .block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .unwrap();
        Proxy {
            port: listener.local_addr().unwrap().port(),
            task: runtime().spawn(accept(listener, Arc::clone(&shared))),
            shared,
        }
    }

    /// Adds a rule; of several that are for a request the one that was added first counts.
    pub fn rule(&self, rule: Rule) -> Arc<Rule> {
        let rule = Arc::new(rule);
        self.shared.rules.lock().unwrap().push(Arc::clone(&rule));
        rule
    }

    /// Takes all rules away.
    pub fn heal(&self) {
        self.shared.rules.lock().unwrap().clear();
    }

    /// `http://127.0.0.1:PORT`
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Every request so far, `METHOD target`, in the order of their arrival.
    pub fn log(&self) -> Vec<String> {
        self.shared.log.lock().unwrap().clone()
    }

    /// How many requests of this method had this part in their target.
    pub fn count(&self, method: &str, part: &str) -> usize {
        self.log()
            .iter()
            .filter_map(|line| line.split_once(' '))
            .filter(|(found, target)| *found == method && target.contains(part))
            .count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        if std::thread::panicking() {
            eprintln!("the last requests of the proxy on port {}:", self.port);
            let log = self.log();
            for line in &log[log.len().saturating_sub(40)..] {
                eprintln!("    {line}");
            }
        }
    }
}

/// Passes bytes from a port of `address` on to a port of 127.0.0.1, and back; gives that port. It goes on until the end.
pub fn relay(address: Ipv4Addr, to: u16) -> u16 {
    let listener = runtime().block_on(TcpListener::bind((address, 0))).unwrap();
    let port = listener.local_addr().unwrap().port();
    runtime().spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await {
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
    });
    port
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Dropping the set ends the connections with the proxy.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        connections.spawn(serve(client, Arc::clone(&shared)));
        while connections.try_join_next().is_some() {}
    }
}

/// Serves one client's connection; an error of either side ends it.
async fn serve(mut client: TcpStream, shared: Arc<Shared>) {
    let mut rest = Vec::new();
    while let Some(true) = exchange(&mut client, &mut rest, &shared).await {}
}

/// One request and its answer: whether the connection goes on.
async fn exchange(client: &mut TcpStream, rest: &mut Vec<u8>, shared: &Shared) -> Option<bool> {
    let mut request = Message::head(client, rest).await?;
    let (method, target) = request.request_line();
    let is_head = method == "HEAD";
    shared
        .log
        .lock()
        .unwrap()
        .push(format!("{method} {target}"));
    let fault = {
        let rules = shared.rules.lock().unwrap().clone();
        rules.iter().find_map(|rule| rule.hit(&request))
    };
    if request.take("expect").is_some() {
        client
            .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
            .await
            .ok()?;
    }
    let pace = match fault {
        Some(Fault::Slow(bytes)) => Some(bytes),
        _ => None,
    };
    let limit = match fault {
        Some(Fault::ResetInRequest(bytes)) => Some(bytes),
        _ => None,
    };
    request.read_body(client, rest, true, limit, pace).await?;
    match &fault {
        Some(Fault::Answer(status, code)) => {
            return answer(client, *status, code, "", is_head).await;
        }
        Some(Fault::AnswerWith(status, code, header)) => {
            return answer(client, *status, code, header, is_head).await;
        }
        Some(Fault::ResetInRequest(_)) => return reset(client),
        Some(Fault::Stall) => return stall(client).await,
        Some(Fault::Strip(header)) => {
            request.take(header);
        }
        Some(Fault::FlipInRequest(byte)) => {
            if let Some(byte) = request.body.get_mut(*byte) {
                *byte ^= 1;
            }
        }
        _ => {}
    }
    let mut server = TcpStream::connect(shared.to).await.ok();
    let answered = match &mut server {
        Some(server) => forward(server, &request, is_head).await,
        None => None,
    };
    // A server that is gone looks as it would without the proxy.
    let Some(mut answered) = answered else {
        return reset(client);
    };
    match fault {
        Some(Fault::LoseAnswer) => return reset(client),
        Some(Fault::ResetInAnswer(bytes)) => {
            answered.send(client, Some(bytes), None).await?;
            return reset(client);
        }
        Some(Fault::StallInAnswer(bytes)) => {
            answered.send(client, Some(bytes), None).await?;
            return stall(client).await;
        }
        Some(Fault::Dated(date)) => {
            answered.take("date");
            answered.head.truncate(answered.head.len() - 2);
            answered.head.push_str(&format!("Date: {date}\r\n\r\n"));
        }
        Some(Fault::Replace(texts)) => {
            for (from, to) in texts {
                replace(&mut answered.body, from.as_bytes(), to.as_bytes());
            }
        }
        Some(Fault::Flip(byte)) => {
            if let Some(byte) = answered.body.get_mut(byte) {
                *byte ^= 1;
            }
        }
        _ => {}
    }
    answered.send(client, None, pace).await?;
    Some(true)
}

async fn forward(server: &mut TcpStream, request: &Message, is_head: bool) -> Option<Message> {
    server.set_nodelay(true).ok()?;
    // The server may answer, and close, before it has read all.
    let (mut reading, mut writing) = server.split();
    let sending = async {
        let _ = writing.write_all(request.head.as_bytes()).await;
        let _ = writing.write_all(&request.body).await;
        std::future::pending::<()>().await;
    };
    let receiving = async {
        let mut rest = Vec::new();
        loop {
            let mut answer = Message::head(&mut reading, &mut rest).await?;
            let status = answer.status();
            if (100..200).contains(&status) {
                continue;
            }
            if !is_head && status != 204 && status != 304 {
                answer
                    .read_body(&mut reading, &mut rest, false, None, None)
                    .await?;
            }
            return Some(answer);
        }
    };
    tokio::select! {
        answer = receiving => answer,
        () = sending => None,
    }
}

async fn answer(
    client: &mut TcpStream,
    status: u16,
    code: &str,
    header: &str,
    is_head: bool,
) -> Option<bool> {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>As the test wants it.</Message><RequestId>1</RequestId></Error>"
    );
    let header = if header.is_empty() {
        String::new()
    } else {
        format!("{header}\r\n")
    };
    let head = format!(
        "HTTP/1.1 {status} As wanted\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n{header}\r\n",
        body.len()
    );
    let text = if is_head { head } else { head + &body };
    client.write_all(text.as_bytes()).await.ok()?;
    Some(true)
}

fn reset(client: &TcpStream) -> Option<bool> {
    // Closing with data unsent and no linger sends a reset.
    rustix::net::sockopt::set_socket_linger(client, Some(Duration::ZERO)).ok()?;
    None
}

/// Holds the connection until the client leaves it.
async fn stall(client: &mut TcpStream) -> Option<bool> {
    let mut buffer = [0; 1024];
    while client.read(&mut buffer).await.ok()? > 0 {}
    None
}

/// A request or an answer: its head as text, with the empty line, and its body as it is on the wire.
struct Message {
    head: String,
    body: Vec<u8>,
}

impl Message {
    /// Reads a head; what was read beyond it stays in `rest`.
    async fn head(from: &mut (impl AsyncRead + Unpin), rest: &mut Vec<u8>) -> Option<Message> {
        loop {
            if let Some(end) = rest.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = rest.drain(..end + 4).collect();
                return Some(Message {
                    head: String::from_utf8(head).ok()?,
                    body: Vec::new(),
                });
            }
            more(from, rest).await?;
        }
    }

    /// Reads its body, or no more than `limit` bytes of it.
    async fn read_body(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        rest: &mut Vec<u8>,
        is_request: bool,
        limit: Option<usize>,
        pace: Option<usize>,
    ) -> Option<()> {
        let limit = limit.unwrap_or(usize::MAX);
        let chunked = self
            .value("transfer-encoding")
            .is_some_and(|value| value.contains("chunked"));
        let length = self
            .value("content-length")
            .and_then(|text| text.parse::<usize>().ok());
        let mut from_chunk = 0;
        loop {
            let wanted = if chunked {
                whole_chunks(rest, &mut from_chunk)
            } else if let Some(length) = length {
                (rest.len() >= length).then_some(length)
            } else if is_request {
                Some(0)
            } else {
                None
            };
            if wanted.is_none() && rest.len() >= limit {
                return Some(());
            }
            if let Some(wanted) = wanted {
                self.body = rest.drain(..wanted).collect();
                return Some(());
            }
            let before = rest.len();
            if more(from, rest).await.is_none() {
                // Without a length the end of the stream is the end of the body.
                if !chunked && length.is_none() {
                    self.body = std::mem::take(rest);
                    return Some(());
                }
                return None;
            }
            breathe(rest.len() - before, pace).await;
        }
    }

    /// Sends it, or no more than `limit` bytes of its body.
    async fn send(
        &mut self,
        to: &mut TcpStream,
        limit: Option<usize>,
        pace: Option<usize>,
    ) -> Option<()> {
        to.set_nodelay(true).ok()?;
        if self.value("content-length").is_none()
            && self.value("transfer-encoding").is_none()
            && !self.body.is_empty()
        {
            let length = format!("Content-Length: {}\r\n\r\n", self.body.len());
            self.head.truncate(self.head.len() - 2);
            self.head.push_str(&length);
        }
        self.take("connection");
        to.write_all(self.head.as_bytes()).await.ok()?;
        let bytes = limit.unwrap_or(usize::MAX).min(self.body.len());
        for piece in self.body[..bytes].chunks(pace.map_or(1 << 20, |pace| pace.div_ceil(20))) {
            to.write_all(piece).await.ok()?;
            breathe(piece.len(), pace).await;
        }
        to.flush().await.ok()
    }

    fn request_line(&self) -> (&str, &str) {
        let mut words = self.head.split(' ');
        (words.next().unwrap_or(""), words.next().unwrap_or(""))
    }

    fn status(&self) -> u16 {
        self.head
            .split(' ')
            .nth(1)
            .and_then(|word| word.parse().ok())
            .unwrap_or(0)
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Takes a header away.
    fn take(&mut self, name: &str) -> Option<String> {
        let value = self.value(name)?.to_owned();
        let kept: Vec<&str> = self
            .head
            .split("\r\n")
            .filter(|line| {
                line.split_once(':')
                    .is_none_or(|(found, _)| !found.eq_ignore_ascii_case(name))
            })
            .collect();
        self.head = kept.join("\r\n");
        Some(value)
    }
}

fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    assert_eq!(from.len(), to.len());
    let mut at = 0;
    while let Some(found) = bytes[at..]
        .windows(from.len())
        .position(|some| some == from)
    {
        at += found;
        bytes[at..at + to.len()].copy_from_slice(to);
    }
}

/// How many bytes at the start are a whole chunked body, if they are; `from` remembers the last chunk that was seen.
fn whole_chunks(bytes: &[u8], from: &mut usize) -> Option<usize> {
    loop {
        let line = bytes
            .get(*from..)?
            .windows(2)
            .position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[*from..*from + line]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            // Trailers, and an empty line.
            let trailers = &bytes[*from + line..];
            let end = trailers.windows(4).position(|four| four == b"\r\n\r\n")?;
            return Some(*from + line + end + 4);
        }
        let next = *from + line + 2 + size + 2;
        if next > bytes.len() {
            return None;
        }
        *from = next;
    }
}

async fn more(from: &mut (impl AsyncRead + Unpin), rest: &mut Vec<u8>) -> Option<()> {
    rest.reserve(64 << 10);
    (from.read_buf(rest).await.ok()? > 0).then_some(())
}

async fn breathe(bytes: usize, pace: Option<usize>) {
    if let Some(pace) = pace {
        tokio::time::sleep(Duration::from_micros((bytes * 1_000_000 / pace) as u64)).await;
    }
}
