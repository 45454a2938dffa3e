//! Of the configuration, what the readers name.

#[path = "../../../src/config/choices.rs"]
mod choices;

pub use self::choices::Compression;

/// As the real one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionStore {
    Pyramid,
    PyramidSessionRedis,
    Django,
    Flask,
    Express,
    Php,
    Rack,
    Laravel,
    Spring,
    Celery,
    Opaque,
}

impl SessionStore {
    /// In the same order.
    pub const ALL: [SessionStore; 11] = [
        SessionStore::Pyramid,
        SessionStore::PyramidSessionRedis,
        SessionStore::Django,
        SessionStore::Flask,
        SessionStore::Express,
        SessionStore::Php,
        SessionStore::Rack,
        SessionStore::Laravel,
        SessionStore::Spring,
        SessionStore::Celery,
        SessionStore::Opaque,
    ];
}
