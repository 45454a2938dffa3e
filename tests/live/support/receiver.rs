//! A small HTTP server that hears notices, and answers them well or badly.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::poll::until;

/// What one request gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// This status.
    Status(u16),
    /// Nothing, and the connection stays open.
    Silence,
    /// The connection is closed.
    Close,
}

/// A request that was heard.
#[derive(Clone, Debug)]
pub struct Heard {
    /// `POST`.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The header lines, lower case.
    pub headers: String,
    /// The body.
    pub body: String,
}

impl Heard {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// The server. It ends when it is dropped.
pub struct Receiver {
    port: u16,
    heard: Arc<Mutex<Vec<Heard>>>,
    ended: Arc<AtomicBool>,
}

impl Receiver {
    /// One that answers the first request with the first answer, and so on; the last answer holds for all that follow.
    pub fn start(answers: &'static [Answer]) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
        let ended = Arc::new(AtomicBool::new(false));
        let (all, over) = (Arc::clone(&heard), Arc::clone(&ended));
        std::thread::spawn(move || {
            // Those that get no answer stay open.
            let mut open = Vec::new();
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(mut stream) = stream else { continue };
                let Some(request) = hear(&stream) else {
                    continue;
                };
                let number = {
                    let mut all = all.lock().unwrap();
                    all.push(request);
                    all.len() - 1
                };
                match answers.get(number).or(answers.last()) {
                    Some(Answer::Status(status)) => {
                        let text = format!(
                            "HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                        );
                        let _ = stream.write_all(text.as_bytes());
                    }
                    Some(Answer::Silence) => open.push(stream),
                    Some(Answer::Close) | None => {}
                }
            }
        });
        Receiver { port, heard, ended }
    }

    /// A URL of it.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// What it has heard so far.
    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    /// Waits until it has heard so many requests.
    #[track_caller]
    pub fn hears(&self, count: usize) -> Vec<Heard> {
        until(&format!("{count} notices"), || {
            let heard = self.heard();
            (heard.len() >= count).then_some(heard)
        })
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn hear(stream: &TcpStream) -> Option<Heard> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut words = first.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = String::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        headers.push_str(&line.to_ascii_lowercase());
    }
    let length = headers
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    Some(Heard {
        method,
        path,
        headers,
        body: String::from_utf8(body).unwrap(),
    })
}
