//! Reading an object, on from where it was when the connection breaks.

use std::ops::Range;
use std::time::Duration;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;

use super::S3Store;
use super::error::{Break, Fault};
use crate::storage::{Error, ObjectKey, Problem, Reader};

/// About how much is given at a time.
const CHUNK: usize = 512 << 10;

/// How often in a row the reading is taken up again without a byte.
const TRIES: u32 = 6;

const BACKOFF: Duration = Duration::from_millis(250);

/// The right that reading needs.
const RIGHT: &str = "s3:GetObject";

pub(super) struct S3Reader {
    store: S3Store,
    key: ObjectKey,
    /// Which object it is, so that another one under the same key is not taken for the rest.
    etag: Option<String>,
    total: u64,
    at: u64,
    body: Option<ByteStream>,
}

impl S3Reader {
    pub(super) async fn open(store: &S3Store, key: &ObjectKey) -> Result<S3Reader, Error> {
        let action = format!("open {key}");
        let answer = get(store, key, None, None)
            .await?
            .map_err(|fault| store.told(fault, &action, RIGHT))?;
        let total = answer
            .content_length()
            .and_then(|bytes| u64::try_from(bytes).ok());
        Ok(S3Reader {
            store: store.clone(),
            key: key.clone(),
            total: total
                .ok_or_else(|| store.error(Problem::Other, &action, "the server tells no size"))?,
            etag: answer.e_tag,
            at: 0,
            body: Some(answer.body),
        })
    }

    /// The next bytes as they come; `None` when the connection broke.
    async fn receive(&mut self) -> Result<Option<Bytes>, Error> {
        if self.body.is_none() {
            let range = format!("bytes={}-", self.at);
            let again = get(&self.store, &self.key, Some(range), self.etag.clone()).await?;
            match again {
                Ok(answer) => self.body = Some(self.rest_of(answer)?),
                Err(fault) if fault.status() == 412 => {
                    return Err(self.error("another object took its place meanwhile"));
                }
                Err(fault) => {
                    let action = format!("read {}", self.key);
                    return Err(self.store.told(fault, &action, RIGHT));
                }
            }
        }
        let Some(body) = &mut self.body else {
            return Ok(None);
        };
        let limit = self.store.inner.patience.receiving;
        match tokio::time::timeout(limit, body.next()).await {
            Ok(Some(Ok(bytes))) if !bytes.is_empty() => Ok(Some(bytes)),
            Ok(Some(Ok(_))) => Ok(Some(Bytes::new())),
            // Too short, broken, or it stands still.
            Ok(None | Some(Err(_))) | Err(_) => {
                self.body = None;
                Ok(None)
            }
        }
    }

    /// The body of an answer that goes on where we were. A server that does not know ranges begins anew.
    fn rest_of(&self, answer: GetObjectOutput) -> Result<ByteStream, Error> {
        let left = answer
            .content_length()
            .and_then(|bytes| u64::try_from(bytes).ok());
        match left {
            Some(left) if left == self.total - self.at => Ok(answer.body),
            _ => Err(self.error("the server does not go on where the connection broke")),
        }
    }

    fn error(&self, why: &str) -> Error {
        let action = format!("read {}", self.key);
        self.store.error(Problem::Other, &action, why)
    }

    async fn chunk(&mut self) -> Result<Bytes, Error> {
        let mut chunk = BytesMut::new();
        let mut tries = 0;
        while self.at < self.total && chunk.len() < CHUNK {
            match self.receive().await? {
                Some(bytes) => {
                    if bytes.len() as u64 > self.total - self.at {
                        return Err(self.error("the server sends more than it said"));
                    }
                    self.at += bytes.len() as u64;
                    if !bytes.is_empty() {
                        tries = 0;
                    }
                    if chunk.is_empty() && bytes.len() >= CHUNK / 2 {
                        return Ok(bytes);
                    }
                    chunk.extend_from_slice(&bytes);
                }
                None => {
                    tries += 1;
                    if tries >= TRIES {
                        let action = format!("read {}", self.key);
                        let fault = Fault::Broken(Break::Connection);
                        return Err(self.store.told(fault, &action, RIGHT));
                    }
                    if tries > 1 {
                        tokio::time::sleep(BACKOFF * (1 << tries)).await;
                    }
                }
            }
        }
        Ok(chunk.freeze())
    }
}

impl Reader for S3Reader {
    fn bytes(&self) -> u64 {
        self.total
    }

    fn next(&mut self) -> BoxFuture<'_, Result<Bytes, Error>> {
        Box::pin(self.chunk())
    }
}

async fn get(
    store: &S3Store,
    key: &ObjectKey,
    range: Option<String>,
    etag: Option<String>,
) -> Result<Result<GetObjectOutput, Fault>, Error> {
    let got = store
        .connection()
        .await?
        .client
        .get_object()
        .bucket(&store.config().bucket)
        .key(store.full(key.as_str()))
        .set_range(range)
        .set_if_match(etag)
        .send()
        .await;
    Ok(got.map_err(Fault::from))
}

/// Some bytes of an object, as many as it has of them.
pub(super) async fn range(
    store: &S3Store,
    key: &ObjectKey,
    range: Range<u64>,
) -> Result<Bytes, Error> {
    let action = format!("read {key}");
    if range.is_empty() {
        // Whether it is there has to be known all the same.
        S3Reader::open(store, key).await?;
        return Ok(Bytes::new());
    }
    let wanted = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    let mut tries = 0;
    loop {
        let asked = format!("bytes={}-{}", range.start, range.end - 1);
        let answer = match get(store, key, Some(asked), None).await? {
            Ok(answer) => answer,
            Err(fault) if fault.status() == 416 => return Ok(Bytes::new()),
            Err(fault) => return Err(store.told(fault, &action, RIGHT)),
        };
        let promised = answer
            .content_length()
            .and_then(|bytes| usize::try_from(bytes).ok());
        if promised.is_none_or(|promised| promised > wanted) {
            return Err(store.error(Problem::Other, &action, "the server does not know ranges"));
        }
        let limit = store.inner.patience.receiving;
        let body = tokio::time::timeout(limit, answer.body.collect()).await;
        if let Ok(Ok(body)) = body {
            let bytes = body.into_bytes();
            if Some(bytes.len()) == promised {
                return Ok(bytes);
            }
        }
        tries += 1;
        if tries >= TRIES {
            return Err(store.told(Fault::Broken(Break::Connection), &action, RIGHT));
        }
        tokio::time::sleep(BACKOFF * (1 << tries)).await;
    }
}
