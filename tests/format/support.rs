//! What the modules share: recording handlers and files made by hand.

use std::path::PathBuf;

use rdbkeeper::rdb::{
    DbFilter, DbIndex, Event, FileError, Handler, Report, ScanError, Scanner, Summary, from_fn,
    scan_bytes,
};

/// Every `.rdb` file of the corpus with its path below `tests/corpus/rdb`, in order.
pub fn corpus() -> Vec<(String, Vec<u8>)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/rdb");
    let mut files = Vec::new();
    for folder in ["librdb", "redis"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|ext| ext == "rdb") {
                let name = format!("{folder}/{}", path.file_stem().unwrap().to_str().unwrap());
                files.push((name, std::fs::read(&path).unwrap()));
            }
        }
    }
    files.sort();
    assert!(files.len() > 40, "the corpus is not where it should be");
    files
}

pub fn corpus_file(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/corpus/rdb/{name}.rdb", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).unwrap()
}

/// Writes down every event as text, the fragments of one value or one opaque rest joined: what must
/// be the same however the input is split. Keeps all raw bytes.
#[derive(Default)]
pub struct Recorder {
    pub events: Vec<String>,
    pub raw: Vec<u8>,
    run: Vec<u8>,
    kind: &'static str,
}

impl Recorder {
    fn close(&mut self) {
        if !self.kind.is_empty() {
            let run = std::mem::take(&mut self.run);
            self.events.push(format!("{} {run:?}", self.kind));
            self.kind = "";
        }
    }

    fn fragment(&mut self, kind: &'static str, bytes: &[u8]) {
        assert!(!bytes.is_empty(), "an empty fragment");
        if self.kind != kind {
            self.close();
            self.kind = kind;
        }
        self.run.extend_from_slice(bytes);
    }
}

impl Handler for Recorder {
    type Error = std::convert::Infallible;

    fn event(&mut self, event: Event<'_>) -> Result<(), Self::Error> {
        self.raw.extend_from_slice(event.raw());
        match event {
            Event::Value(bytes) => self.fragment("value", bytes),
            Event::ModuleAuxData(bytes) => self.fragment("module data", bytes),
            Event::OpaqueBytes(bytes) => self.fragment("opaque", bytes),
            _ => {
                self.close();
                let text = match event {
                    Event::Key(head) => format!(
                        "key {} {} {:?} {:?} {:?} {:?} {:?} {:?}",
                        head.db,
                        head.value_type,
                        head.key.raw(),
                        head.expire_at_ms,
                        head.idle_s,
                        head.freq,
                        head.meta,
                        head.raw
                    ),
                    Event::Aux { key, value, .. } => {
                        format!("aux {:?} {:?}", key.decode(), value.decode())
                    }
                    other => format!("{other:?}"),
                };
                self.events.push(text);
            }
        }
        Ok(())
    }
}

/// The outcome of a scan in comparable form.
pub type Outcome = Result<Report, FileError>;

pub fn plain<T>(result: Result<T, ScanError<std::convert::Infallible>>) -> Result<T, FileError> {
    result.map_err(|error| match error {
        ScanError::File(error) => error,
        ScanError::Handler(never) => match never {},
    })
}

pub fn record(bytes: &[u8]) -> (Outcome, Recorder) {
    record_pieces(bytes.chunks(bytes.len().max(1)))
}

/// Scans a file that comes in these pieces.
pub fn record_pieces<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Outcome, Recorder) {
    let mut recorder = Recorder::default();
    let mut scanner = Scanner::new();
    for piece in pieces {
        if let Err(error) = plain(scanner.feed(piece, &mut recorder)) {
            recorder.close();
            return (Err(error), recorder);
        }
    }
    let outcome = plain(scanner.finish(&mut recorder));
    recorder.close();
    (outcome, recorder)
}

pub fn summary(bytes: &[u8]) -> (Outcome, Summary) {
    let mut summary = Summary::new();
    let outcome = plain(scan_bytes(bytes, &mut summary));
    (outcome, summary)
}

/// The file that is left when only these databases stay.
pub fn filtered(bytes: &[u8], databases: &[u32]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut filter = DbFilter::new(databases.iter().map(|db| DbIndex(*db)));
    let mut take = |block: &[u8]| out.extend_from_slice(block);
    let result = scan_bytes(bytes, &mut from_fn(|event| filter.event(&event, &mut take)));
    result.unwrap();
    out
}
