//! A server becomes RDB bytes: by BGSAVE, by replication, or key by key.
