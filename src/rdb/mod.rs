//! The RDB file format, and nothing else: no tokio, no network, no files.
