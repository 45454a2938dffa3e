//! RDB becomes keys on a live server, or a file.
