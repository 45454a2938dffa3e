//! The compressing stages as a backup and its reading have them: blocks of 2 MiB on two threads, digests included.

use std::convert::Infallible;

use bytes::Bytes;
use rdbkeeper::pipeline::inbound::unpack;
use rdbkeeper::pipeline::outbound::{PackedFacts, Packer, Settings};
use rdbkeeper::pipeline::{Compression, Keys};
use rdbkeeper::pool::Pool;
use tokio::sync::mpsc;

const PIECE: usize = 1 << 20;

/// Packs it, and gives each part away.
pub fn pack(
    plain: &[u8],
    compression: Compression,
    mut take: impl FnMut(Bytes) + Send,
) -> PackedFacts {
    let (sender, mut parts) = mpsc::channel(2);
    let settings = Settings {
        compression,
        threads: 2,
        seal: None,
    };
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while let Some(part) = parts.blocking_recv() {
                take(part);
            }
        });
        let mut packer = Packer::start(settings, Pool::new(PIECE), sender).unwrap();
        for piece in plain.chunks(PIECE) {
            packer.write(piece).unwrap();
        }
        packer.finish().unwrap()
    })
}

/// What is stored, in pieces that cost nothing to hand over.
pub fn packed(plain: &[u8], compression: Compression) -> Vec<Bytes> {
    let mut parts = Vec::new();
    pack(plain, compression, |part| {
        parts.push(Bytes::copy_from_slice(&part))
    });
    parts
}

/// Reads what [`packed`] gave, to its end; answers how many plain bytes it was.
pub fn read(parts: &[Bytes]) -> u64 {
    let (sender, stored) = mpsc::channel(2);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for part in parts {
                sender.blocking_send(Ok(part.clone())).unwrap();
            }
        });
        unpack(stored, None, &Keys::default(), |_| Ok::<(), Infallible>(()))
            .unwrap()
            .plain_bytes
    })
}
