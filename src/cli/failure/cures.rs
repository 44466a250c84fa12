//! What each error is to whoever ran the command: an exit code, and what to do about it.

use std::{io, path::Path};

use super::Failure;
use crate::{
    Error,
    exchange::{self, Kind, Refusal},
    fleet, key, signer,
    store::{self, Stage},
};

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Key(error) => error.into(),
            Error::Store(error) => error.into(),
            Error::Signer(error) => error.into(),
            Error::Exchange(error) => error.into(),
            Error::ScopeDiffers { .. } => Self::verification(message)
                .hint("the key is not marked as working; look at it in the web form, and disable it if it has too much"),
            Error::ForeignKey { .. } => Self::verification(message).hint(
                "the key is not marked as working; look at the account's keys in the web form, \
                 then run \"derikey resume\" to look again",
            ),
            Error::NoSuchApiKey { .. } => Self::refused(message)
                .hint("it may have been removed in the web form; \"derikey list --remote\" shows the account's keys"),
            Error::ForeignId { .. } => Self::verification(message)
                .hint("nothing was changed; is the administrator of the same account?"),
            Error::Hook { .. } => Self::unexpected(message).hint("mend the program and rotate again"),
            Error::SuccessorUnusable { .. } => Self::refused(message)
                .hint("\"derikey list --remote\" shows it; \"derikey enable\" lets it log in again, and \"derikey rollback\" \
                       puts the key before back in use, from where \"derikey rotate\" makes a new one"),
            Error::Undecided { .. } => Self::verification(message)
                .hint("look at it in the web form; if it is another key, rename it there"),
            Error::ChangedMeanwhile { .. } => Self::refused(message)
                .hint("\"derikey list --remote\" shows how; give this up with --abandon, and edit it anew"),
            Error::Disabled { name } => Self::refused(message).hint(format!(
                "nothing was enabled, and no other key disabled; \"derikey status\" shows its client ids: \
                 \"derikey enable {name}\" if it is to work, or disable those that are to stop as well"
            )),
            Error::SettingDiffers { .. } => {
                Self::verification(message).hint("run \"derikey resume\" to send it once more, or look at the key in the web form")
            }
            Error::Skew { source, .. } => {
                let mut failure = Self::rejected(message)
                    .hint("set the clock (chronyd, systemd-timesyncd); a signature is good for 60 seconds");
                if let exchange::Error::Refused(refusal) = &source {
                    failure = failure.with_exchange(refusal);
                }
                failure.everywhere = true;
                failure
            }
            Error::Unfinished { name, stage, source, .. } => unfinished(message, name.as_str(), stage, *source),
        }
    }
}

/// What stopped in the middle keeps the exit code of a cause that a person can mend.
fn unfinished(message: String, name: &str, stage: Stage, source: Error) -> Failure {
    let cause = Failure::from(source);
    let known = if stage == Stage::Creating {
        "the exchange may have the key already; it will be looked for, not made twice"
    } else {
        "nothing is lost"
    };
    let hopeless = matches!(cause.exit, 8 | 11);
    let or_not = if hopeless {
        ", or add --abandon to give it up"
    } else {
        ""
    };
    let again = format!("{known}: run \"derikey resume {name}\"{or_not}");
    let mended = match cause.hint {
        Some(hint) if cause.exit != 5 => format!("{hint}; then: {again}"),
        _ => again,
    };
    let (kind, exit) = match cause.exit {
        4 | 6 | 7 | 11 | 75 | 130 => (cause.kind, cause.exit),
        _ => ("unfinished", 9),
    };
    Failure {
        kind,
        exit,
        message,
        hint: Some(mended),
        exchange: cause.exchange,
        everywhere: cause.everywhere,
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        use store::Error as E;
        let message = error.to_string();
        match error {
            E::Io { source, .. } => match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                    Self::configuration(message).hint("check the path")
                }
                io::ErrorKind::PermissionDenied => Self::key(message).hint("check who owns it and its permissions"),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    Self::unexpected(message).hint("make room and try again; nothing half-written is left behind")
                }
                _ => Self::unexpected(message),
            },
            E::Exposed { path, mode } => {
                let right = if path.is_dir() { "700" } else { "600" };
                let hint = if mode & 0o002 != 0 && path.is_dir() {
                    "everybody can put another file in its place; use a directory of your own".into()
                } else if path == Path::new("/dev/stdin") {
                    "close the file that standard input comes from to others, if nobody has read it".into()
                } else {
                    format!("if nobody has read it: chmod {right} '{}'", path.display())
                };
                Self::key(message).hint(hint)
            }
            E::Foreign { .. } => Self::key(message).hint("use a file or directory of your own"),
            E::NotAFile { .. } | E::NotADirectory { .. } => {
                Self::key(message).hint("links, pipes and devices are not followed; move it away if you did not put it there")
            }
            E::TooLarge { .. } => Self::key(message).hint("is it the right file?"),
            E::Overlong { .. } => Self::refused(message).hint("nothing was changed; give it fewer addresses, or a shorter hook"),
            E::Exists { .. } => Self::refused(message).hint("nothing is overwritten; choose another name"),
            E::NotWritten { .. } => Self::unexpected(message).hint("check the disk; nothing was changed"),
            E::Unreadable { path, .. } => {
                // Of a key, and as bad for it as a private file that is damaged.
                let of_a_key = path.ends_with("key.toml") || path.ends_with("current");
                let failure = if of_a_key { Self::key(message) } else { Self::configuration(message) };
                failure.hint("restore it from a backup, or move it away")
            }
            E::KeyExists { .. } => {
                Self::refused(message).hint("choose another name, or move it to the trash with \"derikey delete\"")
            }
            E::NoSuchKey { name } => Self::configuration(message).hint(format!(
                "\"derikey list\" shows the keys there are; for a file of that name write ./{name}"
            )),
            E::Busy { .. } => Self::try_again(message).hint("wait until it has finished"),
            E::Mismatch { .. } => {
                Self::key(message).hint("one of the two files was exchanged or damaged; restore both from a backup")
            }
            E::Key { source, .. } => {
                let cause = Self::from(source);
                Self { message, ..cause }
            }
        }
    }
}

impl From<fleet::Error> for Failure {
    fn from(error: fleet::Error) -> Self {
        use fleet::Error as E;
        let message = error.to_string();
        let hint = match error {
            E::Unknown { known, .. } => format!("there are {}", known.join(", ")),
            E::Secret { .. } => {
                "passphrases, codes and secrets come from flags such as --passphrase-file; take it \
                                 out, and count it as leaked if others have seen the file"
                    .into()
            }
            E::NoScope { .. } => {
                "add scope = \"AREA:LEVEL ...\" or a preset to it or to [defaults]".into()
            }
            E::SameLabel { .. } => "give one of the two another label".into(),
            E::Nothing => "declare one: a table [keys.NAME] with a scope".into(),
            E::Syntax { .. } => {
                "texts stand in quotes, and each table and field is there once".into()
            }
            _ => "\"derikey help plan\" shows what such a file looks like".into(),
        };
        Self::configuration(message).hint(hint)
    }
}

impl From<signer::Error> for Failure {
    fn from(error: signer::Error) -> Self {
        let message = error.to_string();
        match error {
            signer::Error::Key(error) => error.into(),
            signer::Error::Clock => Self::unexpected(message).hint("set the clock"),
            signer::Error::Unreachable(_) => Self::network(message)
                .hint("is the agent still there? where the key is here too, --no-agent uses it"),
            signer::Error::Refused { .. } => Self::refused(message).hint(
                "of an ssh-agent \"ssh-add -l\" shows what it holds; of ours agent.keys in config.toml says what is \
                 allowed, and --no-agent uses the key itself",
            ),
        }
    }
}

impl From<key::Error> for Failure {
    fn from(error: key::Error) -> Self {
        use key::Error as E;
        let message = error.to_string();
        let hint = match &error {
            E::Name(_) => return Self::usage(message).hint("such as my_bot or bot7"),
            E::Algorithm(_) | E::Kdf(_) | E::Fingerprint => return Self::usage(message),
            E::Nonce | E::Control { .. } | E::Method | E::Uri => {
                return Self::usage(message).hint("nothing was signed");
            }
            E::Forged | E::Signature => return Self::verification(message),
            E::Library { .. } => return Self::unexpected(message),
            E::Empty => "is it the right file?",
            E::Sealed => {
                "give the passphrase with --passphrase-file, -fd or -command, or on a terminal"
            }
            E::WrongPassphrase => "check the passphrase; a line break at its end does not count",
            E::EmptyPassphrase => {
                "a key without a passphrase needs --no-passphrase and --insecure together"
            }
            E::Public => {
                "the private half begins with BEGIN PRIVATE KEY or BEGIN ENCRYPTED PRIVATE KEY"
            }
            E::Costly { .. } => {
                "seal it again with usual parameters, such as \"openssl pkcs8 -topk8 -v2 aes-256-cbc\""
            }
            E::RsaSize { .. } => "make a new one with \"derikey generate\"; Ed25519 is recommended",
            E::Unsupported { .. } | E::RsaExponent => "make a new one with \"derikey generate\"",
            E::HardwareKey => "such a key cannot be imported; make one with \"derikey generate\"",
            _ => "known are PKCS#8, PKCS#1 and OpenSSH private keys, Ed25519 or RSA, as PEM or DER",
        };
        Self::key(message).hint(hint)
    }
}

impl From<exchange::Error> for Failure {
    fn from(error: exchange::Error) -> Self {
        let everywhere = is_everywhere(&error);
        Self {
            everywhere,
            ..cure(error)
        }
    }
}

/// The HTTP status that comes without an answer where there are more than 32 connections from one
/// address (Deribit, "Connection management").
const TOO_MANY_REQUESTS: u16 = 429;

/// Tells whether an error says something of the way, of who asks or of the second factor, rather
/// than of the key that was asked about.
fn is_everywhere(error: &exchange::Error) -> bool {
    use exchange::Error as E;
    match error {
        E::Refused(refusal) => !matches!(
            refusal.kind(),
            Kind::ScopeExceeded | Kind::Invalid | Kind::Other
        ),
        E::TooLarge { .. }
        | E::Scope { .. }
        | E::Endpoint { .. }
        | E::Identifier { .. }
        | E::Authorities { .. }
        | E::Signer(_)
        | E::Key(_) => false,
        _ => true,
    }
}

fn cure(error: exchange::Error) -> Failure {
    use exchange::Error as E;
    let message = error.to_string();
    match error {
        E::Refused(refusal) => refused(message, &refusal),
        E::Unreachable { .. } => {
            Failure::network(message).hint("check the network and the endpoint; nothing was sent")
        }
        E::Broken { .. } | E::TimedOut { .. } => {
            Failure::network(message).hint("the call may have been carried out; --timeout allows more time")
        }
        E::Malformed { status: TOO_MANY_REQUESTS, .. } => Failure::try_again(message)
            .hint("too many connections from here, most likely: wait a while, then try again"),
        E::Malformed { .. } => Failure::network(message).hint("is this the exchange? a proxy or a captive portal answers like this"),
        E::WrongNetwork { .. } => Failure::verification(message).hint("check --network and --endpoint"),
        E::ForeignChallenge { .. } => {
            Failure::verification(message).hint("somebody may be after your codes; check --network and --endpoint")
        }
        E::NoSecondFactor { .. } => {
            Failure::second_factor(message).hint("give --totp-fd, --totp-command or --totp-seed-file, or run it on a terminal")
        }
        E::SecondFactorRefused { .. } => {
            Failure::second_factor(message).hint("check the clock and the seed; wait for the next code before trying again")
        }
        E::HardwareKeyOnly { .. } => {
            Failure::second_factor(message).hint("add a TOTP app to the account's security keys")
        }
        E::TooLarge { .. } => Failure::usage(message).hint("nothing was changed; give it fewer addresses or features"),
        E::Scope { .. } => Failure::usage(message)
            .hint("areas are account, trade, wallet, block_trade, block_rfq, custody; for example \"account:read trade:read_write\""),
        E::Endpoint { .. } => Failure::usage(message).hint("for example https://gateway.example/api/v2"),
        E::Identifier { .. } => Failure::usage(message),
        E::Authorities { .. } => Failure::configuration(message).hint("--ca-file takes PEM certificates"),
        E::Interrupted => Failure::interrupted(),
        E::Signer(error) => error.into(),
        E::Key(error) => error.into(),
    }
}

/// What to do about each refusal that the exchange documents.
fn refused(message: String, refusal: &Refusal) -> Failure {
    let wait = refusal
        .wait
        .map_or_else(|| "a while".into(), |wait| format!("{wait} s"));
    let failure = match refusal.kind() {
        Kind::Credentials => Failure::rejected(message).hint(
            "the key may be disabled, its whitelist may leave this host out, or the client id may be another key's; \
             check the network too",
        ),
        Kind::Permission => Failure::rejected(message).hint("these credentials may not do this; the account or sub-account decides"),
        Kind::ScopeExceeded => Failure::rejected(message)
            .hint("the administrator's key needs account:read_write and every right that it hands out"),
        Kind::SecondFactor => Failure::second_factor(message).hint("try again with a fresh code"),
        Kind::SecondFactorSetup => {
            Failure::second_factor(message).hint("finish setting up the second factor in the web form first")
        }
        Kind::SecondFactorLocked => {
            Failure::second_factor(message).hint(format!("too many codes failed; wait {wait}, then try again"))
        }
        Kind::RateLimit | Kind::Transient => Failure::try_again(message).hint(format!("wait {wait}, then try again")),
        Kind::Invalid => Failure::unexpected(message).hint("the exchange does not take a value that was sent; its param says which"),
        Kind::NoSuchMethod => Failure::network(message).hint("is this the exchange? check --endpoint"),
        Kind::Other if refusal.method == "private/create_api_key" => Failure::unexpected(message)
            .hint("an account holds eight keys at most; is there room, and is this public key not there already?"),
        Kind::Other => Failure::unexpected(message)
            .hint("the exchange's list of error codes may say more; look at the account before trying again"),
    };
    failure.with_exchange(refusal)
}
