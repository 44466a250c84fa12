//! What README.md, SECURITY.md, the documents and the help tell people to type can be typed, and
//! what they tell people to write into a file can be read.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{ffi::OsString, fs, path::Path};

use clap::error::ErrorKind;

use super::{super::config::Config, Cli};
use crate::fleet::Fleet;

const DOCUMENTS: [&str; 4] = [
    "README.md",
    "SECURITY.md",
    "docs/deployment.md",
    "docs/agent-protocol.md",
];

fn text(document: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    fs::read_to_string(path).unwrap()
}

/// The blocks of a document in a language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("\n```{language}\n");
    let begun = text.split(fence.as_str()).skip(1);
    begun
        .map(|rest| rest.split("\n```").next().unwrap())
        .collect()
}

/// The program's words in a line of a shell, from its name to what ends a command there.
fn typed(line: &str) -> Option<Vec<OsString>> {
    // It knows comments.
    let words = shlex::split(line).unwrap_or_else(|| panic!("no line of a shell: {line}"));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let is_setting = |word: &&&str| {
        let name = word.split_once('=').map(|(name, _)| name);
        name.is_some_and(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
    };
    let settings = words.iter().take_while(is_setting).count();
    let rest = match words.get(settings..)? {
        ["derikey", rest @ ..] | ["cargo", "run", "--release", "--", rest @ ..] => rest,
        // Another program starts it.
        other => {
            let at = other.windows(2).position(|two| two == ["--", "derikey"])?;
            other.get(at..)?.get(2..)?
        }
    };
    let ends = |word: &&&str| !matches!(**word, "|" | "||" | "&&" | "&" | ";" | ">" | "<");
    let words = ["derikey"].iter().chain(rest.iter().take_while(ends));
    Some(words.map(OsString::from).collect())
}

/// What the program says to a line, if it cannot be typed.
fn mistyped(words: &[OsString]) -> Option<clap::Error> {
    let matches = Cli::description_for(words).try_get_matches_from(words);
    let error = matches
        .and_then(|mut matches| Cli::from_matches(&mut matches))
        .err()?;
    let told = [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion];
    (!told.contains(&error.kind())).then_some(error)
}

#[test]
fn each_line_of_a_shell_in_the_documents_can_be_typed() {
    for (document, least) in [("README.md", 18), ("docs/deployment.md", 2)] {
        let text = text(document);
        let blocks = blocks(&text, "sh").join("\n").replace("\\\n", " ");
        let lines = blocks.lines().filter_map(|line| Some((line, typed(line)?)));
        let lines: Vec<_> = lines.collect();
        assert!(lines.len() >= least, "{document}: {lines:#?}");
        for (line, words) in lines {
            let error = mistyped(&words).map(|error| error.to_string());
            assert_eq!(error, None, "{document}: {line}");
        }
    }
}

/// In the middle of a sentence, what a command cannot do without may be left out.
#[test]
fn each_command_in_the_prose_of_the_documents_is_one() {
    for document in DOCUMENTS {
        let text = text(document);
        let prose: Vec<&str> = text.split("```").step_by(2).collect();
        let prose = prose.join(" ");
        let quoted = prose.split('`').skip(1).step_by(2);
        let lines = quoted.filter(|line| line.starts_with("derikey ") && !line.contains("COMMAND"));
        for line in lines {
            let words = typed(line).unwrap();
            let error = mistyped(&words).filter(|error| {
                let part = ErrorKind::MissingRequiredArgument;
                error.kind() != part && error.kind() != ErrorKind::MissingSubcommand
            });
            let error = error.map(|error| error.to_string());
            assert_eq!(error, None, "{document}: {line}");
        }
    }
}

#[test]
fn each_example_in_the_help_can_be_typed() {
    let mut waiting = vec![Cli::description()];
    let mut number = 0;
    while let Some(command) = waiting.pop() {
        let help = command.get_after_long_help().map(ToString::to_string);
        let help = help.unwrap_or_default().replace("\\\n", " ");
        for line in help.lines().filter(|line| line.starts_with("  ")) {
            let Some(words) = typed(line) else { continue };
            let error = mistyped(&words).map(|error| error.to_string());
            assert_eq!(error, None, "{}: {line}", command.get_name());
            number += 1;
        }
        waiting.extend(command.get_subcommands().cloned());
    }
    assert!(number >= 9, "{number}");
}

#[test]
fn each_file_in_the_documents_can_be_read() {
    let (mut fleets, mut configurations) = (0, 0);
    for document in DOCUMENTS {
        for block in blocks(&text(document), "toml") {
            if block.contains("[agent") {
                Config::parse(block.as_bytes())
                    .unwrap_or_else(|error| panic!("{document}: {error}"));
                configurations += 1;
            } else {
                Fleet::parse(block).unwrap_or_else(|error| panic!("{document}: {error}"));
                fleets += 1;
            }
        }
    }
    assert!(fleets > 0 && configurations > 0);
}
