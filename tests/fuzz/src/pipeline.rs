//! What the manifest names of the pipeline.

pub use crate::config::Compression;

/// The SHA-256 of some bytes, as 64 hex digits.
pub fn sha256(data: &[u8]) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(data);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As the real one.
pub mod inbound {
    /// What a manifest says of an archive's bytes.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Expected {
        /// Size of the stored object.
        pub bytes: u64,
        /// SHA-256 of the stored object.
        pub sha256: String,
        /// Size of the plain RDB file.
        pub plain_bytes: u64,
        /// SHA-256 of the plain RDB file.
        pub plain_sha256: String,
    }
}
