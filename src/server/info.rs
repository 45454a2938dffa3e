//! What a server says of itself in INFO, parsed without a connection.
//!
//! INFO is text with a line a field; versions add fields and never promise one, so every fact
//! has a sensible absence. The trap: Valkey calls itself Redis 7.2.4 in `redis_version` and says
//! who it is in `valkey_version`.

use std::collections::BTreeMap;
use std::fmt;

/// Which program it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Product {
    /// Redis, and whatever calls itself so.
    Redis,
    /// Valkey.
    Valkey,
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Product::Redis => "redis",
            Product::Valkey => "valkey",
        })
    }
}

/// A version such as 7.0.15. A part that is not a number counts as 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    fn parse(text: &str) -> Version {
        let mut parts = text.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
        let mut next = || parts.next().unwrap_or(0);
        Version(next(), next(), next())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// What a server is to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It has no master.
    Master,
    /// It follows a master.
    Replica,
}

impl Role {
    /// `master` or `slave`, INFO's own words, which manifests keep.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Master => "master",
            Role::Replica => "slave",
        }
    }
}

/// Keys of one database, as the server counts them: expired ones that were not removed yet included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keyspace {
    /// Keys.
    pub keys: u64,
    /// Keys with an expiry.
    pub expires: u64,
}

/// INFO, parsed.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Redis or Valkey.
    pub product: Product,
    /// The product's own version.
    pub version: Version,
    /// New at every start of the server.
    pub run_id: String,
    /// The server's process, in its own PID namespace.
    pub process_id: u32,
    /// Master or replica.
    pub role: Role,
    /// The replication ID.
    pub replid: Option<String>,
    /// The replication offset.
    pub offset: Option<i64>,
    /// Of a replica: the link to its master is up. True for a master.
    pub master_link_up: bool,
    /// The data set is being loaded.
    pub loading: bool,
    /// A cluster node.
    pub cluster_enabled: bool,
    /// Databases with keys.
    pub keyspace: BTreeMap<u32, Keyspace>,
    /// Bytes allocated.
    pub used_memory: u64,
    /// The limit in bytes; 0 is none.
    pub maxmemory: u64,
    /// A BGSAVE runs (a diskless transfer to a replica counts).
    pub bgsave_in_progress: bool,
    /// The last BGSAVE succeeded, or there was none.
    pub last_bgsave_ok: bool,
    /// Unix time of the last successful save, in seconds.
    pub last_save_s: i64,
    /// RDB saves since the start; from Redis 7.0, and in every Valkey.
    pub rdb_saves: Option<u64>,
    /// An AOF rewrite runs.
    pub aof_rewrite_in_progress: bool,
    /// Replicas connected.
    pub connected_replicas: u64,
    fields: BTreeMap<String, String>,
}

impl Facts {
    /// Reads INFO's text. What is missing gets its neutral value.
    pub fn parse(text: &str) -> Facts {
        let fields: BTreeMap<String, String> = text
            .lines()
            .filter_map(|line| line.trim_end().split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let get = |name: &str| fields.get(name).map(String::as_str);
        let number = |name: &str| get(name).and_then(|v| v.parse::<u64>().ok());
        let flag = |name: &str| number(name).is_some_and(|v| v != 0);
        let (product, version) = match get("valkey_version") {
            Some(version) => (Product::Valkey, version),
            None => (Product::Redis, get("redis_version").unwrap_or_default()),
        };
        Facts {
            product,
            version: Version::parse(version),
            run_id: get("run_id").unwrap_or_default().to_owned(),
            process_id: number("process_id").unwrap_or(0) as u32,
            role: match get("role") {
                Some("slave" | "replica") => Role::Replica,
                _ => Role::Master,
            },
            replid: get("master_replid").map(str::to_owned),
            offset: get("master_repl_offset").and_then(|v| v.parse().ok()),
            master_link_up: get("master_link_status").is_none_or(|status| status == "up"),
            loading: flag("loading") || flag("async_loading"),
            cluster_enabled: flag("cluster_enabled"),
            keyspace: fields
                .iter()
                .filter_map(|(name, value)| {
                    let db = name.strip_prefix("db")?.parse().ok()?;
                    Some((db, parse_keyspace(value)))
                })
                .collect(),
            used_memory: number("used_memory").unwrap_or(0),
            maxmemory: number("maxmemory").unwrap_or(0),
            bgsave_in_progress: flag("rdb_bgsave_in_progress"),
            last_bgsave_ok: get("rdb_last_bgsave_status").is_none_or(|status| status == "ok"),
            last_save_s: get("rdb_last_save_time")
                .and_then(|v| v.parse().ok())
                .unwrap_or(0),
            rdb_saves: number("rdb_saves"),
            aof_rewrite_in_progress: flag("aof_rewrite_in_progress")
                || flag("aof_rewrite_scheduled"),
            connected_replicas: number("connected_slaves").unwrap_or(0),
            fields,
        }
    }

    /// Any other field, as it stands.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    /// `redis 7.0.15`, as manifests name it.
    pub fn server(&self) -> String {
        format!("{} {}", self.product, self.version)
    }

    /// Whether it is at least this Redis, or this Valkey. Valkey began as Redis 7.2, and counts on from there.
    pub fn is_at_least(&self, redis: Version, valkey: Version) -> bool {
        self.version
            >= match self.product {
                Product::Redis => redis,
                Product::Valkey => valkey,
            }
    }

    /// Keys in all databases.
    pub fn keys(&self) -> u64 {
        self.keyspace.values().map(|db| db.keys).sum()
    }

    /// The RDB version that a server of this version writes, by the table of released versions.
    /// A server newer than the table gets the newest known: its own answer is better
    /// (see [`super::wire::rdb_version`]).
    pub fn rdb_version(&self) -> u16 {
        let Version(major, minor, _) = self.version;
        match (self.product, major, minor) {
            (Product::Valkey, 0..=8, _) => 11,
            (Product::Valkey, 9, 0..=1) => 80,
            (Product::Valkey, _, _) => 81,
            (Product::Redis, 0..=2, 0..=5) => 2,
            (Product::Redis, 0..=2, _) | (Product::Redis, 3, 0..=1) => 6,
            (Product::Redis, 3, _) => 7,
            (Product::Redis, 4, _) => 8,
            (Product::Redis, 5..=6, _) => 9,
            (Product::Redis, 7, 0..=1) => 10,
            (Product::Redis, 7, 2..=3) => 11,
            (Product::Redis, 7, _) | (Product::Redis, 8, 0..=5) => 12,
            (Product::Redis, 8, 6..=7) => 13,
            (Product::Redis, 8, 8..=9) => 14,
            (Product::Redis, _, _) => 15,
        }
    }
}

fn parse_keyspace(value: &str) -> Keyspace {
    let mut keyspace = Keyspace::default();
    for pair in value.split(',') {
        match pair.split_once('=') {
            Some(("keys", n)) => keyspace.keys = n.parse().unwrap_or(0),
            Some(("expires", n)) => keyspace.expires = n.parse().unwrap_or(0),
            _ => {}
        }
    }
    keyspace
}

#[cfg(test)]
mod tests {
    use super::*;

    const REDIS: &str = "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\nprocess_id:42\r\n\r\n\
        # Persistence\r\nloading:0\r\nasync_loading:0\r\nrdb_bgsave_in_progress:0\r\nrdb_last_save_time:1700000000\r\n\
        rdb_last_bgsave_status:err\r\nrdb_saves:3\r\naof_rewrite_in_progress:1\r\n# Memory\r\nused_memory:1000\r\n\
        # Replication\r\nrole:slave\r\nmaster_link_status:down\r\nmaster_replid:ff\r\nmaster_repl_offset:12\r\n\
        # Keyspace\r\ndb0:keys=5,expires=2,avg_ttl=0\r\ndb13:keys=1,expires=0,avg_ttl=0,subexpiry=0\r\n";

    #[test]
    fn facts_are_read_from_info() {
        let facts = Facts::parse(REDIS);
        assert_eq!(facts.server(), "redis 7.0.15");
        assert_eq!((facts.role, facts.master_link_up), (Role::Replica, false));
        assert_eq!((facts.loading, facts.last_bgsave_ok), (false, false));
        assert_eq!(
            (facts.rdb_saves, facts.last_save_s),
            (Some(3), 1_700_000_000)
        );
        assert!(facts.aof_rewrite_in_progress);
        assert_eq!(
            (facts.replid.as_deref(), facts.offset),
            (Some("ff"), Some(12))
        );
        assert_eq!(facts.keyspace[&13].keys, 1);
        assert_eq!((facts.keys(), facts.keyspace.len()), (6, 2));
        assert_eq!(facts.get("run_id"), Some("abc"));
    }

    #[test]
    fn valkey_is_known_by_its_own_version_field() {
        let facts =
            Facts::parse("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2\r\n");
        assert_eq!(facts.server(), "valkey 9.1.2");
        assert!(facts.is_at_least(Version(99, 0, 0), Version(9, 0, 0)));
        assert_eq!(facts.rdb_version(), 80);
    }

    #[test]
    fn the_rdb_version_follows_the_table() {
        let of = |v: &str| Facts::parse(&format!("redis_version:{v}")).rdb_version();
        for (version, rdb) in [
            ("2.8.24", 6),
            ("3.0.7", 6),
            ("3.2.13", 7),
            ("4.0.14", 8),
            ("5.0.14", 9),
            ("6.2.5", 9),
            ("7.0.15", 10),
            ("7.2.4", 11),
            ("7.4.0", 12),
            ("8.0.2", 12),
            ("8.4.0", 12),
            ("8.6.1", 13),
            ("8.8.0", 14),
            ("8.10.0", 15),
        ] {
            assert_eq!(of(version), rdb, "{version}");
        }
        let valkey = |v: &str| Facts::parse(&format!("valkey_version:{v}")).rdb_version();
        assert_eq!(
            (valkey("8.1.1"), valkey("9.0.0"), valkey("9.2.0")),
            (11, 80, 81)
        );
    }

    #[test]
    fn nonsense_is_neutral() {
        let facts = Facts::parse("\u{0}:::\nredis_version:x.y\ndb:1\ndbx:keys=3\n");
        assert_eq!(facts.version, Version(0, 0, 0));
        assert!(facts.keyspace.is_empty() && facts.master_link_up);
    }
}
