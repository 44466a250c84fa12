//! The fleet file: TOML, read field by field, so that every mistake has a name and a line.

use std::str::FromStr;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Declared, Error, Fleet, Site};
use crate::{
    exchange::{Endpoint, Feature, Network, Scope, Whitelisted},
    key::{Algorithm, KeyName},
    provision::must_fit,
};

mod table;

use table::{Lines, Table, shown};

/// The fields of the file itself.
const TOP: &[&str] = &["defaults", "keys", "elsewhere"];
/// The fields of one key.
const KEY: &[&str] = &[
    "network",
    "endpoint",
    "admin",
    "scope",
    "algorithm",
    "ip",
    "unchecked_ip",
    "features",
    "enabled",
    "label",
];
/// The fields that can hold for all keys: those of one without its label, which is its own.
const DEFAULTS: &[&str] = match KEY {
    [shared @ .., _label] => shared,
    [] => KEY,
};

/// Reads a fleet file.
pub(super) fn read(text: &str) -> Result<Fleet, Error> {
    let lines = Lines(text);
    let parsed = DeTable::parse(text).map_err(|error| Error::Syntax {
        line: lines.of(error.span().unwrap_or_default().start),
        problem: error.message().escape_default().to_string(),
    })?;
    let top = Table::new(lines, "", parsed.get_ref(), TOP)?;
    let nothing = DeTable::new();
    let defaults = match top.get("defaults") {
        Some(value) => top.table("defaults", value)?,
        None => &nothing,
    };
    let defaults = Table::new(lines, "defaults", defaults, DEFAULTS)?;
    // They are read even if no key falls back on them.
    settings(&defaults, None)?;
    site(&defaults, None)?;
    let mut keys = Vec::new();
    if let Some(value) = top.get("keys") {
        for (name, value) in top.table("keys", value)?.iter() {
            keys.push(key(lines, name, value, &defaults)?);
        }
    }
    if keys.is_empty() {
        return Err(Error::Nothing);
    }
    keys.sort_by(|a: &Declared, b| a.name.cmp(&b.name));
    Ok(Fleet {
        keys,
        elsewhere: top.words("elsewhere")?.unwrap_or_default(),
    })
}

fn key(
    lines: Lines<'_>,
    name: &Spanned<std::borrow::Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
    defaults: &Table<'_, '_>,
) -> Result<Declared, Error> {
    let line = lines.of(name.span().start);
    let shown = shown(name.get_ref());
    let place = format!("keys.{shown}");
    let DeValue::Table(table) = value.get_ref() else {
        return Err(Error::Kind {
            line,
            field: place,
            wanted: "a table of settings",
        });
    };
    let name: KeyName = name.get_ref().parse().map_err(|_| Error::Value {
        line,
        field: "keys".into(),
        problem: format!("{shown} is no name: 1 to 16 letters, digits or underscores"),
    })?;
    let table = Table::new(lines, &place, table, KEY)?;
    let settings = settings(&table, Some(defaults))?;
    let declared = Declared {
        line,
        site: site(&table, Some(defaults))?,
        admin: either(&table, defaults, |t| t.word("admin"))?,
        label: table.word("label")?.unwrap_or_else(|| name.clone()),
        scope: settings.scope.ok_or_else(|| Error::NoScope {
            line,
            name: name.clone(),
        })?,
        whitelist: settings.whitelist,
        features: settings.features,
        algorithm: either(&table, defaults, |t| t.word("algorithm"))?,
        enabled: either(&table, defaults, |t| t.flag("enabled"))?.unwrap_or(true),
        name,
    };
    let spec = declared.specification(Algorithm::Ed25519);
    must_fit(&spec).map_err(|error| Error::Value {
        line,
        field: place,
        problem: error.to_string(),
    })?;
    Ok(declared)
}

/// What a table says of a key's rights, or its defaults do.
struct Settings {
    scope: Option<Scope>,
    whitelist: Vec<Whitelisted>,
    features: Vec<Feature>,
}

fn settings(table: &Table<'_, '_>, defaults: Option<&Table<'_, '_>>) -> Result<Settings, Error> {
    let defaults = defaults.unwrap_or(table);
    // What does not come from here is still checked where it stands.
    table.word::<KeyName>("admin")?;
    table.word::<Algorithm>("algorithm")?;
    table.flag("enabled")?;
    let whitelist = match table.get("ip") {
        Some(_) => {
            let unchecked = either(table, defaults, |t| t.flag("unchecked_ip"))?;
            table.addresses(unchecked.unwrap_or(false))?
        }
        None => {
            let unchecked = defaults.flag("unchecked_ip")?;
            table.flag("unchecked_ip")?;
            defaults.addresses(unchecked.unwrap_or(false))?
        }
    };
    let mut features: Vec<Feature> =
        either(table, defaults, |t| t.words("features"))?.unwrap_or_default();
    features.sort_unstable();
    features.dedup();
    if let Some(line) = table.line("features").filter(|_| is_none(&features)) {
        return Err(Error::Value {
            line,
            field: table.path("features"),
            problem: "no feature is an empty list".into(),
        });
    }
    Ok(Settings {
        scope: either(table, defaults, |t| t.word("scope"))?,
        whitelist,
        features,
    })
}

/// Tells whether the word for no feature stands for one, as on the command line.
fn is_none(features: &[Feature]) -> bool {
    features.iter().any(|feature| feature.as_str() == "none")
}

/// Returns where a key lives: network and endpoint go together.
fn site(table: &Table<'_, '_>, defaults: Option<&Table<'_, '_>>) -> Result<Site, Error> {
    let own: Option<Name> = table.word("network")?;
    let inherited = match (&own, defaults) {
        (None, Some(defaults)) => Some(defaults),
        _ => None,
    };
    let mut name = own;
    let mut endpoint: Option<Endpoint> = table.word("endpoint")?;
    let mut at = table.line("endpoint").or_else(|| table.line("network"));
    if let Some(defaults) = inherited {
        name = defaults.word("network")?;
        if endpoint.is_none() {
            endpoint = defaults.word("endpoint")?;
            at = at.or_else(|| defaults.line("endpoint"));
        }
    }
    match (name, endpoint) {
        (None, None) => Ok(Site::Unsaid),
        (Some(Name(name)), None) if name == "custom" => Ok(Site::Custom),
        (Some(Name(name)), endpoint) => {
            let network = Network::from_parts(&name, endpoint);
            let network = network.map_err(|error| Error::Value {
                line: at.unwrap_or(1),
                field: table.path("network"),
                problem: error.to_string(),
            })?;
            Ok(Site::On(network))
        }
        (None, Some(_)) => Err(Error::Value {
            line: at.unwrap_or(1),
            field: table.path("endpoint"),
            problem: "an endpoint goes with network = \"custom\"".into(),
        }),
    }
}

/// The name of a network that there is.
struct Name(String);

impl FromStr for Name {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        if ["sandbox", "test", "prod", "custom"].contains(&text) {
            Ok(Self(text.into()))
        } else {
            Err("there are sandbox, test, prod and custom")
        }
    }
}

fn either<T>(
    table: &Table<'_, '_>,
    defaults: &Table<'_, '_>,
    read: impl Fn(&Table<'_, '_>) -> Result<Option<T>, Error>,
) -> Result<Option<T>, Error> {
    match read(table)? {
        Some(value) => Ok(Some(value)),
        None => read(defaults),
    }
}
