//! Trying every configured server and storage.
