//! How a value gets to a server: as it is, in a plainer layout, by plain commands, or not at all. Pure decisions.

use super::commands::Dialect;
use crate::rdb::payload::footer_version_for;
use crate::rdb::value::{FieldsExpire, plain_type};
use crate::rdb::{Family, FileVersion, KeyHead, LogicalType, ModuleId, ValueType};

/// The first RDB version of Redis that knows key metadata.
const METADATA_SINCE: u16 = 13;

/// Hashes whose fields expire, in either family.
const FIELD_EXPIRY_TYPES: std::ops::RangeInclusive<u8> = 22..=25;

/// How values are written: `--mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Each in the best way that the target takes.
    #[default]
    Auto,
    /// By RESTORE of the payload as it is, or not at all.
    Restore,
    /// By plain commands, where there are any.
    Commands,
}

impl Mode {
    /// The word on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Auto => "auto",
            Mode::Restore => "restore",
            Mode::Commands => "commands",
        }
    }
}

/// Whether the target can do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum May {
    /// It can.
    Yes,
    /// It can't.
    No,
}

/// What of a target decides about ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// How values are to be written.
    pub mode: Mode,
    /// The family and the RDB version that it speaks.
    pub rdb: FileVersion,
    /// Its commands.
    pub dialect: Dialect,
    /// Whether this user may RESTORE there.
    pub restore: May,
}

/// How a value gets there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// RESTORE of the payload as it is.
    AsIs,
    /// RESTORE of the value in a plainer layout: this one.
    Recoded(ValueType),
    /// Plain commands.
    Commands,
    /// It can't be held.
    Never(Unheld),
}

/// What can't be held, of a key or the whole of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unheld {
    /// The target does not know the type.
    Type(ValueType),
    /// The target does not know key metadata, or there is no command for it: the rest of the key can be held.
    Metadata,
    /// The value is longer than the target takes at once.
    Size,
    /// No module of the target knows the value; without the version of its encoding.
    Module(ModuleId),
    /// The expiries of single fields: the fields can be held.
    FieldExpiry,
    /// Single elements that are longer than the target takes: the others can be held.
    Element,
    /// Pending entries of a stream that there is no command for: the rest can be held.
    Pending,
}

impl Unheld {
    /// A word: the type's name, `key-metadata`, `too-large`, `module`, `field-expiry`, `element-too-large`,
    /// `pending-entries`.
    pub fn name(self) -> &'static str {
        match self {
            Unheld::Type(value_type) => value_type.name(),
            Unheld::Metadata => "key-metadata",
            Unheld::Size => "too-large",
            Unheld::Module(_) => "module",
            Unheld::FieldExpiry => "field-expiry",
            Unheld::Element => "element-too-large",
            Unheld::Pending => "pending-entries",
        }
    }

    /// The module's name for its type.
    pub fn module(self) -> Option<String> {
        match self {
            Unheld::Module(id) => Some(id.name()),
            _ => None,
        }
    }

    /// Whether the key itself can be held, without this.
    pub fn is_partial(self) -> bool {
        match self {
            Unheld::Type(_) | Unheld::Size | Unheld::Module(_) => false,
            Unheld::Metadata | Unheld::FieldExpiry | Unheld::Element | Unheld::Pending => true,
        }
    }
}

impl Abilities {
    /// How a value of this type gets there, by its type alone: its size, a module's name and what is in it may say otherwise.
    pub fn way(&self, value_type: ValueType) -> Way {
        let Abilities { mode, rdb, .. } = *self;
        let known = footer_version_for(value_type, rdb.family, rdb.number).is_some();
        let never = Way::Never(Unheld::Type(value_type));
        let restore = self.restore == May::Yes;
        let logical = value_type.logical();
        // A module's value has no commands.
        if mode == Mode::Restore || logical == LogicalType::Module {
            return if known && restore { Way::AsIs } else { never };
        }
        if logical == LogicalType::Stream && !self.dialect.streams {
            return never;
        }
        if mode == Mode::Commands || !restore {
            return Way::Commands;
        }
        if known {
            return Way::AsIs;
        }
        let plain = |expiries| plain_type(logical, expiries, rdb.family, rdb.number);
        // A server that knows no expiry of fields gets the fields.
        let expire = match has_field_expiries(value_type) {
            true => FieldsExpire::Yes,
            false => FieldsExpire::No,
        };
        match plain(expire).or_else(|| plain(FieldsExpire::No)) {
            Some(plain) => Way::Recoded(plain),
            None => Way::Commands,
        }
    }

    /// Whether a key's metadata can't go with it on this way.
    pub fn loses_metadata(&self, head: &KeyHead<'_>, way: Way) -> bool {
        let known = self.rdb.family == Family::Redis && self.rdb.number >= METADATA_SINCE;
        !head.meta.is_empty() && !(known && way == Way::AsIs)
    }

    /// Whether hashes come without the expiries of their fields.
    pub fn loses_field_expiries(&self, way: Way) -> bool {
        match way {
            Way::Recoded(plain) => !has_field_expiries(plain),
            Way::Commands => !self.dialect.field_expiry,
            Way::AsIs | Way::Never(_) => false,
        }
    }

    /// Whether a value whose payload has so many bytes goes by commands, though its type would not need it.
    pub fn overflows(&self, payload_bytes: u64) -> bool {
        self.mode == Mode::Auto && payload_bytes > self.dialect.max_bulk
    }
}

/// Whether it is a hash whose fields may expire.
pub fn has_field_expiries(value_type: ValueType) -> bool {
    FIELD_EXPIRY_TYPES.contains(&value_type.code())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn abilities(mode: Mode, family: Family, number: u16) -> Abilities {
        let rdb = FileVersion { family, number };
        Abilities {
            mode,
            rdb,
            dialect: Dialect::of_rdb(rdb),
            restore: May::Yes,
        }
    }

    fn of(code: u8, family: Family) -> ValueType {
        ValueType::new(code, family).unwrap()
    }

    #[test]
    fn in_auto_a_value_goes_as_it_is_where_its_type_is_known_and_plainer_where_not() {
        let redis_6 = abilities(Mode::Auto, Family::Redis, 9);
        let listpack = of(16, Family::Redis);
        assert_eq!(redis_6.way(of(0, Family::Redis)), Way::AsIs);
        assert!(matches!(redis_6.way(listpack), Way::Recoded(plain) if plain.code() == 4));
        assert_eq!(
            abilities(Mode::Auto, Family::Redis, 10).way(listpack),
            Way::AsIs
        );
        let valkey_9 = abilities(Mode::Auto, Family::Valkey, 80);
        let theirs = valkey_9.way(of(25, Family::Redis));
        assert_eq!(theirs, Way::Recoded(of(22, Family::Valkey)));
        assert!(!valkey_9.loses_field_expiries(theirs));
        let without = redis_6.way(of(24, Family::Redis));
        assert!(redis_6.loses_field_expiries(without), "{without:?}");
    }

    #[test]
    fn restore_takes_nothing_that_is_not_known_and_commands_only_what_they_can_make() {
        let listpack = of(16, Family::Redis);
        let redis_6 = abilities(Mode::Restore, Family::Redis, 9);
        assert_eq!(redis_6.way(listpack), Way::Never(Unheld::Type(listpack)));
        let commands = abilities(Mode::Commands, Family::Redis, 9);
        assert_eq!(commands.way(of(0, Family::Redis)), Way::Commands);
        assert_eq!(commands.way(of(7, Family::Redis)), Way::AsIs);
        let old = abilities(Mode::Commands, Family::Redis, 8);
        let stream = of(15, Family::Redis);
        assert_eq!(old.way(stream), Way::Never(Unheld::Type(stream)));
    }

    #[test]
    fn without_the_right_to_restore_all_goes_by_commands_but_modules() {
        let mut auto = abilities(Mode::Auto, Family::Redis, 10);
        auto.restore = May::No;
        assert_eq!(auto.way(of(0, Family::Redis)), Way::Commands);
        let module = of(7, Family::Redis);
        assert_eq!(auto.way(module), Way::Never(Unheld::Type(module)));
    }

    #[test]
    fn what_is_longer_than_an_argument_goes_by_commands_in_auto_alone() {
        let limit = 512 << 20;
        let auto = abilities(Mode::Auto, Family::Redis, 10);
        assert!(!auto.overflows(limit) && auto.overflows(limit + 1));
        assert!(!abilities(Mode::Restore, Family::Redis, 10).overflows(limit + 1));
    }
}
