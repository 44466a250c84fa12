//! A table of the file: its fields by name and kind, its mistakes by name and line.

use std::str::FromStr;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::Error;
use crate::exchange::Whitelisted;

/// Parts of names that somebody would give to the place of a secret.
const SECRETIVE: [&str; 9] = [
    "secret", "pass", "private", "seed", "token", "totp", "otp", "code", "pem",
];
/// The longest text that is shown in an error, or taken for a value.
const LONGEST: usize = 512;

/// The text, to count lines in.
#[derive(Clone, Copy)]
pub(super) struct Lines<'a>(pub(super) &'a str);

impl Lines<'_> {
    pub(super) fn of(self, at: usize) -> usize {
        let before = self.0.as_bytes().get(..at).unwrap_or_default();
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }
}

/// A table whose fields are all known.
pub(super) struct Table<'a, 'i> {
    lines: Lines<'a>,
    name: &'a str,
    fields: &'a DeTable<'i>,
}

/// A text, and the value that it is of.
type Placed<'a, 'i> = (&'a Spanned<DeValue<'i>>, &'a str);

impl<'a, 'i> Table<'a, 'i> {
    pub(super) fn new(
        lines: Lines<'a>,
        name: &'a str,
        fields: &'a DeTable<'i>,
        known: &'static [&'static str],
    ) -> Result<Self, Error> {
        let strange = fields
            .iter()
            .map(|(field, _)| field)
            .filter(|field| !known.contains(&field.get_ref().as_ref()))
            .min_by_key(|field| field.span().start);
        let Some(field) = strange else {
            return Ok(Self {
                lines,
                name,
                fields,
            });
        };
        let line = lines.of(field.span().start);
        let place = if name.is_empty() {
            String::new()
        } else {
            format!(" in {name}")
        };
        let lower = field.get_ref().to_ascii_lowercase();
        let field = shown(field.get_ref());
        if SECRETIVE.iter().any(|part| lower.contains(part)) {
            return Err(Error::Secret { line, field, place });
        }
        Err(Error::Unknown {
            line,
            field,
            place,
            known,
        })
    }

    pub(super) fn get(&self, field: &str) -> Option<&'a Spanned<DeValue<'i>>> {
        self.fields.get(field)
    }

    pub(super) fn line(&self, field: &str) -> Option<usize> {
        Some(self.lines.of(self.get(field)?.span().start))
    }

    pub(super) fn path(&self, field: &str) -> String {
        if self.name.is_empty() {
            field.into()
        } else {
            format!("{}.{field}", self.name)
        }
    }

    fn kind(&self, field: &str, value: &Spanned<DeValue<'_>>, wanted: &'static str) -> Error {
        Error::Kind {
            line: self.lines.of(value.span().start),
            field: self.path(field),
            wanted,
        }
    }

    pub(super) fn table(
        &self,
        field: &str,
        value: &'a Spanned<DeValue<'i>>,
    ) -> Result<&'a DeTable<'i>, Error> {
        match value.get_ref() {
            DeValue::Table(table) => Ok(table),
            _ => Err(self.kind(field, value, "a table")),
        }
    }

    pub(super) fn flag(&self, field: &str) -> Result<Option<bool>, Error> {
        match self.get(field).map(|value| (value, value.get_ref())) {
            None => Ok(None),
            Some((_, DeValue::Boolean(yes))) => Ok(Some(*yes)),
            Some((value, _)) => Err(self.kind(field, value, "true or false")),
        }
    }

    pub(super) fn word<T: FromStr<Err: ToString>>(&self, field: &str) -> Result<Option<T>, Error> {
        let Some(value) = self.get(field) else {
            return Ok(None);
        };
        let DeValue::String(text) = value.get_ref() else {
            return Err(self.kind(field, value, "a text in quotes"));
        };
        self.parsed(field, value, text).map(Some)
    }

    pub(super) fn words<T: FromStr<Err: ToString>>(
        &self,
        field: &str,
    ) -> Result<Option<Vec<T>>, Error> {
        let texts = self.texts(field)?;
        let parse = |(value, text): Placed<'a, 'i>| self.parsed(field, value, text);
        let words: Option<Result<Vec<T>, Error>> =
            texts.map(|texts| texts.into_iter().map(parse).collect());
        words.transpose()
    }

    pub(super) fn addresses(&self, unchecked: bool) -> Result<Vec<Whitelisted>, Error> {
        let mut whitelist = Vec::new();
        for (value, text) in self.texts("ip")?.unwrap_or_default() {
            let address = match Whitelisted::ipv4(text) {
                Some(address) => address,
                None if unchecked => self.parsed("ip", value, text)?,
                None => {
                    return Err(self.wrong(
                        "ip",
                        value,
                        "it is not an IPv4 address; unchecked_ip = true lets others through",
                    ));
                }
            };
            whitelist.push(address);
        }
        whitelist.sort_unstable();
        whitelist.dedup();
        Ok(whitelist)
    }

    fn texts(&self, field: &str) -> Result<Option<Vec<Placed<'a, 'i>>>, Error> {
        let Some(value) = self.get(field) else {
            return Ok(None);
        };
        let wanted = "a list of texts in quotes";
        let DeValue::Array(items) = value.get_ref() else {
            return Err(self.kind(field, value, wanted));
        };
        let mut texts = Vec::new();
        for item in items {
            let DeValue::String(text) = item.get_ref() else {
                return Err(self.kind(field, item, wanted));
            };
            texts.push((item, text.as_ref()));
        }
        Ok(Some(texts))
    }

    fn parsed<T: FromStr<Err: ToString>>(
        &self,
        field: &str,
        value: &Spanned<DeValue<'_>>,
        text: &str,
    ) -> Result<T, Error> {
        if text.len() > LONGEST {
            return Err(self.wrong(field, value, &format!("it is longer than {LONGEST} bytes")));
        }
        // What somebody put there is quoted of a scope only: it could be anything.
        let problem = |error: T::Err| match field {
            "label" | "admin" => "it is not 1 to 16 letters, digits or underscores".into(),
            "algorithm" => "there are ed25519, rsa-2048, rsa-3072 and rsa-4096".into(),
            _ => error.to_string(),
        };
        let parsed = text.parse::<T>();
        parsed.map_err(|error| self.wrong(field, value, &problem(error)))
    }

    fn wrong(&self, field: &str, value: &Spanned<DeValue<'_>>, problem: &str) -> Error {
        Error::Value {
            line: self.lines.of(value.span().start),
            field: self.path(field),
            problem: problem.into(),
        }
    }
}

/// Returns a name from the file, fit to be shown.
pub(super) fn shown(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if (1..=40).contains(&name.len()) && name.bytes().all(plain) {
        return name.into();
    }
    let short: String = name.chars().take(40).collect();
    let rest = if short.len() < name.len() { "..." } else { "" };
    format!("\"{}{rest}\"", short.escape_default())
}
