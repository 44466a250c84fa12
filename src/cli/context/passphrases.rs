//! Passphrases: where they lie, who is asked for them, and what they open.

use std::{
    env,
    path::Path,
    sync::{Arc, PoisonError},
};

use zeroize::Zeroizing;

use super::{Context, rng};
use crate::{
    cli::{
        args::{PassphraseArgs, Plain},
        failure::Failure,
        inputs::{self, Source},
        signers,
    },
    exchange::Network,
    key::{KeyName, Nonce, PrivateKey},
    secret::Passphrase,
    store::Record,
};

impl Context {
    /// Returns the passphrase of a key that is there.
    pub(in crate::cli) fn passphrase(
        &self,
        name: &dyn std::fmt::Display,
        args: &PassphraseArgs,
        network: Option<&Network>,
    ) -> Result<Arc<Passphrase>, Failure> {
        if let Some(passphrase) = self.passphrase_from(args, network == Some(&Network::Sandbox))? {
            return Ok(passphrase);
        }
        let Some(terminal) = self.terminal() else {
            return Err(no_passphrase(&format!(
                "the passphrase of {name} is needed, and nobody can be asked"
            )));
        };
        let typed = terminal.ask_secret(&format!("Passphrase of {name}: "))?;
        Ok(Arc::new(Passphrase::new(typed.to_string())))
    }

    /// Returns a passphrase that can be had without asking anybody, or making one up.
    pub(in crate::cli) fn passphrase_at_hand(
        &self,
        args: &PassphraseArgs,
        network: Option<&Network>,
    ) -> Result<Option<Arc<Passphrase>>, Failure> {
        let kept = self.store.root().join("sandbox").join("passphrase");
        let sandbox = network == Some(&Network::Sandbox) && kept.is_file();
        self.passphrase_from(args, sandbox)
    }

    /// Returns the passphrase for a new file; nothing where it is to be in clear.
    pub(in crate::cli) fn new_passphrase(
        &self,
        name: &dyn std::fmt::Display,
        args: &PassphraseArgs,
        plain: &Plain,
        network: Option<&Network>,
    ) -> Result<Option<Arc<Passphrase>>, Failure> {
        if wants_plain(plain)? {
            return Ok(None);
        }
        if let Some(passphrase) = self.passphrase_from(args, network == Some(&Network::Sandbox))? {
            return Ok(Some(passphrase));
        }
        self.ask_new_passphrase(name).map(Some)
    }

    /// Asks for a new passphrase, twice.
    pub(in crate::cli) fn ask_new_passphrase(
        &self,
        name: &dyn std::fmt::Display,
    ) -> Result<Arc<Passphrase>, Failure> {
        let Some(terminal) = self.terminal() else {
            return Err(no_passphrase(&format!(
                "a passphrase for {name} is needed, and nobody can be asked"
            )));
        };
        let typed = terminal.ask_secret(&format!("New passphrase for {name}: "))?;
        if typed.is_empty() {
            return Err(Failure::key("the passphrase is empty")
                .hint("a key without a passphrase needs --no-passphrase and --insecure together"));
        }
        if *typed != *terminal.ask_secret("The same again: ")? {
            return Err(
                Failure::key("the two passphrases differ").hint("nothing was written; try again")
            );
        }
        Ok(Arc::new(Passphrase::new(typed.to_string())))
    }

    /// Opens a key of the keystore.
    pub(in crate::cli) fn unlock(
        &self,
        name: &KeyName,
        record: &Record,
        args: &PassphraseArgs,
    ) -> Result<PrivateKey, Failure> {
        match &record.registration {
            Some(known) => self.open_key(name, record, Some(&known.network), args),
            // A key made for the sandbox belongs nowhere yet; its network is the one named.
            None => self.open_key(name, record, self.network_if_named()?.as_ref(), args),
        }
    }

    /// Opens a key that belongs to a network, or soon will.
    pub(in crate::cli) fn unlock_on(
        &self,
        name: &KeyName,
        network: Option<&Network>,
        args: &PassphraseArgs,
    ) -> Result<PrivateKey, Failure> {
        self.open_key(name, &self.store.record(name)?, network, args)
    }

    fn open_key(
        &self,
        name: &KeyName,
        record: &Record,
        network: Option<&Network>,
        args: &PassphraseArgs,
    ) -> Result<PrivateKey, Failure> {
        signers::refuse_elsewhere(name, record)?;
        self.store
            .load(name, || self.passphrase(name, args, network))
    }

    /// Returns the passphrase from where it lies, or nothing where a person must be asked.
    fn passphrase_from(
        &self,
        args: &PassphraseArgs,
        sandbox: bool,
    ) -> Result<Option<Arc<Passphrase>>, Failure> {
        let configured = || {
            let file = self.config.passphrase_file.clone().map(Source::File);
            file.or_else(|| self.config.passphrase_command.clone().map(Source::Command))
        };
        if let Some(source) = args.source().or_else(credential).or_else(configured) {
            let what = "the passphrase";
            let passphrase = inputs::passphrase(&self.read_once(&source, what)?, what)?;
            return Ok(Some(Arc::new(passphrase)));
        }
        if !sandbox {
            return Ok(None);
        }
        // Its keys are worth nothing, so that trying things out asks nothing.
        let kept = self.store.sandbox_text("passphrase", || {
            Zeroizing::new(Nonce::random(&mut rng()).to_string())
        })?;
        let text = std::str::from_utf8(&kept).unwrap_or_default().trim_end();
        if text.is_empty() {
            return Err(Failure::configuration(
                "the sandbox's passphrase file is empty",
            ));
        }
        Ok(Some(Arc::new(Passphrase::new(text.to_owned()))))
    }

    /// Reads the line that lies somewhere, and keeps it where it could not be read again.
    pub(in crate::cli) fn read_once(
        &self,
        source: &Source,
        what: &str,
    ) -> Result<Zeroizing<String>, Failure> {
        if source.can_be_read_again() {
            return source.read_line(what);
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, line)) = kept.iter().find(|(from, _)| from == source) {
            return Ok(line.clone());
        }
        let line = source.read_line(what)?;
        kept.push((source.clone(), line.clone()));
        Ok(line)
    }

    /// Forgets the secrets that were given: the keys are open.
    pub(in crate::cli) fn forget_secrets(&mut self) {
        self.kept
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

/// Tells whether a private key is to be written in clear, which takes two words to say.
pub(in crate::cli) fn wants_plain(plain: &Plain) -> Result<bool, Failure> {
    match (plain.no_passphrase, plain.insecure) {
        (false, false) => Ok(false),
        (true, true) => Ok(true),
        _ => Err(Failure::usage("--no-passphrase and --insecure go together")
            .hint("with both, the private key is written in clear; with neither, it is sealed")),
    }
}

/// As [`wants_plain`], where a passphrase that is named is for the new file and nothing else.
pub(in crate::cli) fn wants_one(plain: &Plain, named: Option<&Source>) -> Result<bool, Failure> {
    match (wants_plain(plain)?, named) {
        (true, Some(_)) => Err(Failure::usage(
            "a passphrase is named for the file, and --no-passphrase as well",
        )
        .hint("leave one of them out; nothing was written")),
        (wants, _) => Ok(wants),
    }
}

fn no_passphrase(message: &str) -> Failure {
    Failure::key(message)
        .hint("give it with --passphrase-file, --passphrase-fd or --passphrase-command")
}

/// A passphrase that systemd hands to a service (`LoadCredentialEncrypted=`).
fn credential() -> Option<Source> {
    let dir = env::var_os("CREDENTIALS_DIRECTORY").filter(|dir| !dir.is_empty())?;
    let path = Path::new(&dir).join("derikey.passphrase");
    path.exists().then_some(Source::Credential(path))
}
