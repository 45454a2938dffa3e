//! What is sent, in small slices, so that it can be seen whether it moves.
//!
//! The trap: a body that is handed over as one piece is gone at once, and a connection that stalls then looks just
//! like one that works. Slices are taken as the connection has room for them; each is a sign of life.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

/// What is taken at a time.
const SLICE: usize = 64 << 10;

/// Bytes to be sent, in as many pieces as they came in.
#[derive(Clone, Debug, Default)]
pub(super) struct Parcel {
    pieces: Arc<[Bytes]>,
    bytes: u64,
}

impl Parcel {
    pub(super) fn new(pieces: Vec<Bytes>) -> Parcel {
        Parcel {
            bytes: pieces.iter().map(|piece| piece.len() as u64).sum(),
            pieces: pieces.into(),
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The CRC32 as the header wants it.
    pub(super) fn crc32(&self) -> String {
        let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32IsoHdlc);
        for piece in self.pieces.iter() {
            digest.update(piece);
        }
        let bytes = digest.finalize().to_be_bytes();
        base64(&bytes[4..])
    }

    /// A body of these bytes, which can be sent again and each time tells `pulse` of what it gives.
    pub(super) fn body(&self, pulse: &Pulse) -> ByteStream {
        let (parcel, pulse) = (self.clone(), pulse.clone());
        ByteStream::new(SdkBody::retryable(move || {
            pulse.beat(Phase::Sending);
            SdkBody::from_body_1_x(Slices {
                left: parcel.bytes,
                parcel: parcel.clone(),
                piece: 0,
                at: 0,
                pulse: pulse.clone(),
            })
        }))
    }
}

/// The usual alphabet with padding, for the few bytes of a checksum.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let mut three = [0u8; 4];
        three[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(three);
        for at in 0..4 {
            if at <= group.len() {
                let six = (bits >> (18 - 6 * at)) & 63;
                text.push(char::from(ALPHABET[six as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

struct Slices {
    parcel: Parcel,
    piece: usize,
    at: usize,
    left: u64,
    pulse: Pulse,
}

impl Body for Slices {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        loop {
            let Some(piece) = self.parcel.pieces.get(self.piece) else {
                self.pulse.beat(Phase::Waiting);
                return Poll::Ready(None);
            };
            if self.at == piece.len() {
                self.piece += 1;
                self.at = 0;
                continue;
            }
            let end = piece.len().min(self.at + SLICE);
            let slice = piece.slice(self.at..end);
            self.at = end;
            self.left -= slice.len() as u64;
            self.pulse.beat(match self.left {
                0 => Phase::Waiting,
                _ => Phase::Sending,
            });
            return Poll::Ready(Some(Ok(Frame::data(slice))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// How long a request may stand still.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// While there is more to send.
    pub sending: Duration,
    /// After the last byte, which the system may still hold: for the answer.
    pub waiting: Duration,
    /// Before the next bytes of an answer.
    pub receiving: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            sending: Duration::from_secs(30),
            waiting: Duration::from_secs(90),
            receiving: Duration::from_secs(30),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Sending,
    Waiting,
}

/// When a request last moved.
#[derive(Clone, Debug)]
pub(super) struct Pulse {
    begun: Instant,
    /// Milliseconds since then, doubled; odd while an answer is waited for.
    last: Arc<AtomicU64>,
}

/// A request stood still for too long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stalled;

impl Pulse {
    pub(super) fn new() -> Pulse {
        Pulse {
            begun: Instant::now(),
            last: Arc::default(),
        }
    }

    fn beat(&self, phase: Phase) {
        let millis = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX / 2);
        let waiting = u64::from(phase == Phase::Waiting);
        self.last.store(millis * 2 + waiting, Ordering::Relaxed);
    }

    /// Does the work, unless it stands still for longer than it may.
    pub(super) async fn watch<T>(
        &self,
        patience: Patience,
        work: impl Future<Output = T>,
    ) -> Result<T, Stalled> {
        let still = async {
            loop {
                let last = self.last.load(Ordering::Relaxed);
                let limit = match last % 2 {
                    0 => patience.sending,
                    _ => patience.waiting,
                };
                let over = self.begun + Duration::from_millis(last / 2) + limit;
                if Instant::now() >= over {
                    return;
                }
                tokio::time::sleep_until(over).await;
            }
        };
        tokio::select! {
            done = work => Ok(done),
            () = still => Err(Stalled),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_checksum_is_written_as_the_header_wants_it() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"foob", "Zm9vYg=="),
        ] {
            assert_eq!(base64(bytes), text);
        }
        // The check value of CRC-32, cbf43926.
        let parcel = Parcel::new(vec![
            Bytes::from_static(b"1234"),
            Bytes::from_static(b"56789"),
        ]);
        assert_eq!(parcel.crc32(), "y/Q5Jg==");
    }

    #[tokio::test]
    async fn a_body_gives_its_bytes_in_slices_as_often_as_it_is_asked() {
        let first = Bytes::from(vec![1u8; SLICE + 1]);
        let parcel = Parcel::new(vec![first, Bytes::new(), Bytes::from_static(b"end")]);
        let body = parcel.body(&Pulse::new()).into_inner();
        let again = body.try_clone().unwrap();
        for body in [body, again] {
            assert_eq!(body.content_length(), Some(parcel.bytes()));
            assert!(body.bytes().is_none(), "sent as one piece");
            let all = ByteStream::new(body).collect().await.unwrap().into_bytes();
            assert_eq!(all.len() as u64, parcel.bytes());
            assert!(all.ends_with(b"\x01end"));
        }
    }

    #[tokio::test]
    async fn what_stands_still_is_given_up_and_what_moves_is_not() {
        let patience = Patience {
            sending: Duration::from_millis(1500),
            waiting: Duration::from_millis(10),
            ..Patience::default()
        };
        let pulse = Pulse::new();
        let begun = Instant::now();
        let moves = async {
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                pulse.beat(Phase::Sending);
            }
            pulse.beat(Phase::Waiting);
            std::future::pending::<()>().await;
        };
        assert!(pulse.watch(patience, moves).await.is_err());
        assert!(begun.elapsed() >= Duration::from_secs(2));
    }
}
