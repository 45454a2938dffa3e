//! A plain RDB file as a backup, for tests of the restore journey alone.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use rdbkeeper::failure::{Failure, Kind};
use rdbkeeper::rdb::{Handler, Report, ScanError, Scanner};
use rdbkeeper::restore::Backup;

/// A file that any server wrote.
#[derive(Clone, Debug)]
pub struct PlainFile(pub PathBuf);

impl Backup for PlainFile {
    fn read<H>(&self, mut handler: H) -> Result<(H, Report), Failure>
    where
        H: Handler<Error = Failure> + Send + 'static,
    {
        let io = |error: std::io::Error| Failure::new(Kind::Storage, error.to_string());
        let told = |error: ScanError<Failure>| match error {
            ScanError::File(error) => error.into(),
            ScanError::Handler(failure) => failure,
        };
        let mut file = File::open(&self.0).map_err(io)?;
        let mut scanner = Scanner::new();
        let mut block = vec![0; 256 << 10];
        loop {
            let count = file.read(&mut block).map_err(io)?;
            if count == 0 {
                break;
            }
            scanner.feed(&block[..count], &mut handler).map_err(told)?;
        }
        let report = scanner.finish(&mut handler).map_err(told)?;
        Ok((handler, report))
    }
}
