//! The floor plan, as a test: which room may open which door, and what it must never contain.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

struct Room {
    name: &'static str,
    may_enter: &'static [&'static str],
    must_not_say: &'static [&'static str],
}

const PRINTING: &[&str] = &["println!", "print!(", "eprintln!", "eprint!(", "dbg!"];

const ROOMS: &[Room] = &[
    Room {
        name: "secret",
        may_enter: &[],
        must_not_say: &[
            "std::fs",
            "std::net",
            "std::env",
            "tokio",
            "reqwest",
            "clap",
            "impl Serialize",
            "impl fmt::Display",
        ],
    },
    Room {
        name: "key",
        may_enter: &["secret"],
        must_not_say: &[
            "std::fs",
            "std::net",
            "std::env",
            "std::time",
            "tokio",
            "reqwest",
            "clap",
            "SysRng",
        ],
    },
    Room {
        name: "signer",
        may_enter: &["key"],
        must_not_say: &[
            "std::fs",
            "std::net",
            "std::env",
            "std::time",
            "tokio",
            "reqwest",
            "clap",
        ],
    },
    Room {
        name: "exchange",
        may_enter: &["secret", "key", "signer"],
        must_not_say: &["std::fs", "std::env", "clap", "SystemTime"],
    },
    Room {
        name: "store",
        may_enter: &["secret", "key", "exchange"],
        must_not_say: &["std::net", "tokio", "reqwest", "clap", "SystemTime::now"],
    },
    Room {
        name: "provision",
        may_enter: &["secret", "key", "signer", "exchange", "store", "Error"],
        must_not_say: &[
            "std::fs",
            "std::net",
            "std::env",
            "reqwest",
            "clap",
            "SystemTime",
        ],
    },
    Room {
        name: "fleet",
        may_enter: &["key", "exchange", "store", "provision"],
        must_not_say: &[
            "std::fs",
            "std::net",
            "std::env",
            "SystemTime",
            "tokio",
            "reqwest",
            "clap",
            "SysRng",
        ],
    },
    Room {
        name: "agent",
        may_enter: &["secret", "key", "signer"],
        must_not_say: &[
            "std::env",
            "tokio",
            "reqwest",
            "clap",
            "to_plain_pem",
            "PrivateKey",
        ],
    },
    Room {
        name: "cli",
        may_enter: &[
            "agent",
            "secret",
            "key",
            "signer",
            "exchange",
            "store",
            "provision",
            "fleet",
            "sandbox",
            "Error",
        ],
        must_not_say: &["aws_lc_rs", "ed25519_dalek", "rsa::", "reqwest", "jsonrpc"],
    },
    Room {
        name: "sandbox",
        may_enter: &[],
        must_not_say: &["clap", "aws_lc_rs", "reqwest", "std::env"],
    },
];

#[test]
fn every_room_keeps_to_its_doors() {
    for room in ROOMS {
        for file in files_of(room.name) {
            let code = code_of(&file);
            for word in room.must_not_say.iter().chain(PRINTING) {
                assert!(!code.contains(word), "{} says {word}", file.display());
            }
            for entered in entered_from(&code) {
                let allowed = entered == room.name || room.may_enter.contains(&entered.as_str());
                assert!(
                    allowed,
                    "{}: {} opens a door to {entered}",
                    file.display(),
                    room.name
                );
            }
        }
    }
}

#[test]
fn every_file_has_a_room() {
    let known: Vec<PathBuf> = ROOMS.iter().flat_map(|room| files_of(room.name)).collect();
    for file in files_under(&src()) {
        let outside = ["lib.rs", "main.rs", "error.rs"]
            .iter()
            .any(|name| file == src().join(name));
        assert!(
            outside || known.contains(&file),
            "{} is in no room",
            file.display()
        );
    }
}

#[test]
fn only_one_file_speaks_to_reqwest() {
    let speakers: Vec<PathBuf> = files_under(&src())
        .into_iter()
        .filter(|f| code_of(f).contains("reqwest::"))
        .collect();
    assert_eq!(speakers, [src().join("exchange/https.rs")]);
}

#[test]
fn no_rsa_private_key_meets_the_rsa_crate() {
    for file in files_under(&src()) {
        // pkcs1's RsaPrivateKeyRef looks at the encoding and computes nothing.
        let code = code_of(&file).replace("RsaPrivateKeyRef", "");
        for word in ["RsaPrivateKey", "pkcs1v15::SigningKey", "rsa::hazmat"] {
            assert!(!code.contains(word), "{} says {word}", file.display());
        }
    }
}

#[test]
fn one_file_has_unsafe_code() {
    let mut all = files_under(&src());
    all.extend(
        files_under(&src())
            .iter()
            .map(|file| file.with_extension(""))
            .flat_map(|dir| {
                // Unit tests keep to it as well.
                let tests = dir.join("tests.rs");
                tests.exists().then_some(tests)
            }),
    );
    let with: Vec<PathBuf> = all
        .into_iter()
        .filter(|file| {
            ["unsafe ", "unsafe{"]
                .iter()
                .any(|word| code_of(file).contains(word))
        })
        .collect();
    assert_eq!(with, [src().join("secret/locked.rs")]);
    let lines = fs::read_to_string(&with[0]).unwrap().lines().count();
    assert!(
        lines <= 375,
        "{lines} lines can no longer be read at one go"
    );
}

/// A new secret type is forbidden what the others are.
#[test]
fn every_secret_type_has_its_forbidden_examples() {
    let secret = fs::read_to_string(src().join("secret.rs")).unwrap();
    let (_, list) = secret.split_once("secret_text!(").unwrap();
    let texts = list
        .lines()
        .filter_map(|line| line.trim().strip_suffix(','));
    let mut types: Vec<String> = texts.map(str::to_owned).collect();
    assert!(types.contains(&"Passphrase".into()), "{types:?}");
    // Whatever else says that it keeps quiet, but for the sandbox: nothing of its is worth a secret.
    let sandbox = files_of("sandbox");
    for file in files_under(&src()) {
        if sandbox.contains(&file) {
            continue;
        }
        let code = code_of(&file);
        for part in code.split("\nimpl").skip(1) {
            let (head, body) = part.split_once('{').unwrap();
            let body = body.split("\n}").next().unwrap();
            if head.contains("fmt::Debug for") && body.contains("[redacted]") {
                types.push(word(head.split(" for ").last().unwrap()));
            }
        }
    }
    let forbidden = fs::read_to_string(src().join("secret/forbidden.rs")).unwrap();
    for name in types {
        let ends = [format!("::{name}\""), format!("::{name}<")];
        assert!(ends.iter().any(|end| forbidden.contains(end)), "{name}");
    }
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files_of(room: &str) -> Vec<PathBuf> {
    let mut files = vec![src().join(format!("{room}.rs"))];
    files.extend(files_under(&src().join(room)));
    files
}

fn files_under(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        let tests = |name: &OsStr| name == "tests" || name == "tests.rs";
        if path.file_name().is_none_or(tests) {
            continue;
        }
        if path.is_dir() {
            files.extend(files_under(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The code without its unit tests and comments.
fn code_of(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let code = text.split("#[cfg(test)]").next().unwrap();
    code.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The names that follow `crate::`, one by one or in braces.
fn entered_from(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        // `$crate::` belongs to a macro, `x_crate::` to somebody else.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => names.extend(first_words(list)),
            None => names.push(word(rest)),
        }
    }
    names
}

/// The first word of each item of a list in braces, whatever is nested inside.
fn first_words(list: &str) -> Vec<String> {
    let (mut depth, mut item, mut items) = (0, String::new(), Vec::new());
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => items.push(std::mem::take(&mut item)),
            _ if depth == 0 => item.push(c),
            _ => {}
        }
    }
    items.push(item);
    items
        .iter()
        .map(|item| word(item.trim_start()))
        .filter(|word| !word.is_empty())
        .collect()
}

fn word(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}
