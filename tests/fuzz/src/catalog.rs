//! Of the catalog, the manifest.

#[path = "../../../src/catalog/id.rs"]
mod id;
#[path = "../../../src/catalog/manifest.rs"]
pub mod manifest;

pub use self::id::BackupId;
