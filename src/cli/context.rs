//! What was meant: the keystore and the network behind what was typed.

use std::{
    env,
    path::PathBuf,
    sync::Mutex,
    time::{Duration, SystemTime},
};

use etcetera::BaseStrategy;
use getrandom::{SysRng, rand_core::UnwrapErr};
use zeroize::Zeroizing;

use super::{
    args::Global, config::Config, failure::Failure, inputs::Source, report::Output, second_factor,
    terminal::Terminal,
};
use crate::{
    exchange::{Endpoint, Network, Session},
    key::KeyName,
    store::{self, Moment, Store, Trust},
};

mod passphrases;

pub(super) use passphrases::{wants_one, wants_plain};

/// How long to wait for another process that works on the same key.
const PATIENCE: Duration = Duration::from_secs(30);

/// Everything that a command starts from.
pub(super) struct Context {
    pub(super) store: Store,
    pub(super) output: Output,
    pub(super) global: Global,
    pub(super) config: Config,
    /// What has been given away of one-time codes.
    pub(super) codes: Mutex<second_factor::Memory>,
    /// A descriptor can be read once, a program asks its user each time, and one command may need
    /// a secret twice. What lies in a file is read again instead of being kept.
    kept: Mutex<Vec<(Source, Zeroizing<String>)>>,
}

impl Context {
    /// Opens the keystore and reads the configuration.
    pub(super) fn open(global: Global) -> Result<Self, Failure> {
        let output = Output::of(&global);
        let store = Store::open(&home(&global)?)?;
        let config = Config::read(&store)?;
        let named = global.network.map(|name| name.as_str().to_owned());
        let named = named
            .or_else(network_variable)
            .or_else(|| config.network.clone());
        if named.is_none_or(|name| name != "custom")
            && (global.endpoint.is_some() || global.ca_file.is_some())
        {
            return Err(
                Failure::usage("--endpoint and --ca-file go with --network custom only")
                    .hint("add --network custom"),
            );
        }
        Ok(Self {
            store,
            output,
            global,
            config,
            codes: Mutex::default(),
            kept: Mutex::default(),
        })
    }

    /// Returns the time that one call may take.
    pub(super) fn deadline(&self) -> Duration {
        let seconds = self.global.timeout.or(self.config.timeout).unwrap_or(30);
        Duration::from_secs(seconds)
    }

    /// Returns the network that was typed or is set in the environment; not the configured one.
    fn stated_network(&self) -> Result<Option<Network>, Failure> {
        let name = match self.global.network {
            Some(name) => name.as_str().to_owned(),
            None => match network_variable() {
                Some(name) => name,
                None => return Ok(None),
            },
        };
        self.network_of(&name).map(Some)
    }

    /// Returns the network of a name; flags and configuration say where a custom one is.
    pub(super) fn network_of(&self, name: &str) -> Result<Network, Failure> {
        let endpoint = match (name, &self.global.endpoint, &self.config.endpoint) {
            ("custom", Some(typed), _) => Some(typed.parse::<Endpoint>()?),
            ("custom", None, Some(configured)) => {
                Some(configured.parse::<Endpoint>().map_err(|error| {
                    Failure::configuration(format!("endpoint in config.toml: {error}"))
                        .hint("it is https://HOST/api/v2, or http:// to this host")
                })?)
            }
            ("custom", None, None) => {
                return Err(Failure::configuration("a custom network needs an endpoint")
                    .hint("add --endpoint https://HOST/api/v2"));
            }
            _ => None,
        };
        Network::from_parts(name, endpoint).map_err(|_| {
            Failure::configuration(format!("there is no network {name:?}"))
                .hint("there are sandbox, test, prod and custom")
        })
    }

    /// Returns the network for something new; there is no default.
    pub(super) fn network(&self) -> Result<Network, Failure> {
        if let Some(network) = self.stated_network()? {
            return Ok(network);
        }
        match &self.config.network {
            Some(name) => self.network_of(name),
            None => Err(Failure::configuration("which exchange is meant? no network was named").hint(
                "add --network sandbox (no account needed), test, prod, or custom with --endpoint; \
                 or set DERIKEY_NETWORK or network in config.toml",
            )),
        }
    }

    /// Returns the network that was named, else the one that the key belongs to, if it is there.
    pub(super) fn network_for(&self, name: &KeyName) -> Result<Network, Failure> {
        let own = || {
            let known = self.store.record(name).ok()?.registration?;
            Some(known.network)
        };
        match self.stated_network()? {
            Some(stated) => Ok(stated),
            None => own().map_or_else(|| self.network(), Ok),
        }
    }

    /// Returns the network for something new if one was named, however it was.
    pub(super) fn network_if_named(&self) -> Result<Option<Network>, Failure> {
        match (&self.config.network, self.stated_network()?) {
            (_, Some(network)) => Ok(Some(network)),
            (Some(name), None) => self.network_of(name).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// Refuses to use a key anywhere but on its own network.
    pub(super) fn check_network(&self, name: &KeyName, home: &Network) -> Result<(), Failure> {
        let other = |stated: &dyn std::fmt::Display| {
            Err(Failure::refused(format!(
                "{name} belongs to the {home} network, and {stated} was named"
            ))
            .hint("a key belongs to one network for ever; leave --network and DERIKEY_NETWORK out"))
        };
        let named = self.global.network.map(|name| name.as_str().to_owned());
        let endpoint = self.global.endpoint.is_some() || self.config.endpoint.is_some();
        if !endpoint
            && named
                .or_else(network_variable)
                .is_some_and(|n| n == "custom")
        {
            // A custom key knows its own endpoint.
            return match home {
                Network::Custom(_) => Ok(()),
                _ => other(&"custom"),
            };
        }
        match self.stated_network()? {
            Some(stated) if stated != *home => other(&stated),
            _ => Ok(()),
        }
    }

    /// Returns the certificates to trust instead of the built-in ones.
    pub(super) fn authorities(
        &self,
        network: &Network,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
        let path = self
            .global
            .ca_file
            .as_ref()
            .or(self.config.ca_file.as_ref());
        match (network, path) {
            (Network::Custom(_), Some(path)) => {
                Ok(Some(store::read(path, 1024 * 1024, Trust::Public)?))
            }
            _ => Ok(None),
        }
    }

    /// Returns the person at the terminal, if one may be asked.
    pub(super) fn terminal(&self) -> Option<Terminal> {
        if self.global.no_input {
            None
        } else {
            Terminal::open()
        }
    }

    /// Keeps others away from a key while it is worked on.
    pub(super) fn lock(&self, name: &KeyName) -> Result<store::Lock, Failure> {
        Ok(self.store.lock(name, PATIENCE)?)
    }

    /// Says so when the clock is on its way to making logins fail, which it does at 60 seconds.
    pub(super) fn warn_about_clock(&self, session: &Session) {
        if let Some(skew) = session.skew.filter(|skew| skew.is_notable()) {
            self.output.remark(format!(
                "warning: this clock is {skew}; at 60 s its signatures are refused"
            ));
        }
    }

    /// Asks a yes-or-no question whose yes has consequences.
    pub(super) fn confirm(&self, why: &str, word: &str) -> Result<(), Failure> {
        self.confirm_shown("", why, word)
    }

    /// Asks such a question after showing whoever is asked what it is about.
    pub(super) fn confirm_shown(&self, shown: &str, why: &str, word: &str) -> Result<(), Failure> {
        let terminal = if self.global.yes {
            None
        } else {
            self.terminal()
        };
        let refused =
            || Failure::refused(why.to_owned()).hint("if that is what you want, add --yes");
        let Some(terminal) = terminal else {
            for line in shown.lines() {
                self.output.remark(line);
            }
            return if self.global.yes {
                Ok(())
            } else {
                Err(refused())
            };
        };
        let typed = terminal.ask(&format!("{shown}{why}.\nType {word} to go on: "))?;
        if *typed == *word {
            Ok(())
        } else {
            Err(refused())
        }
    }
}

fn network_variable() -> Option<String> {
    // One that is no text is none that there is, and not unset.
    env::var_os("DERIKEY_NETWORK")
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| !name.is_empty())
}

fn home(global: &Global) -> Result<PathBuf, Failure> {
    let set = || {
        env::var_os("DERIKEY_HOME")
            .filter(|home| !home.is_empty())
            .map(PathBuf::from)
    };
    let home = match global.home.clone().or_else(set) {
        Some(home) => home,
        None => etcetera::choose_base_strategy()
            .map(|dirs| dirs.data_dir().join("derikey"))
            .map_err(|_| {
                Failure::configuration("there is no home directory")
                    .hint("add --home DIR or set DERIKEY_HOME")
            })?,
    };
    if home.as_os_str().is_empty() {
        return Err(Failure::usage("--home is empty"));
    }
    // Without a slash at its end, which would follow a link.
    let home: PathBuf = home.components().collect();
    let home = std::path::absolute(&home)
        .map_err(|error| Failure::configuration(format!("{}: {error}", home.display())))?;
    // Paths stand in answers and in what hooks are told, both JSON.
    if home.to_str().is_none() {
        let shown = home.display();
        return Err(Failure::usage(format!("{shown} is not UTF-8"))
            .hint("choose a directory whose name is text"));
    }
    Ok(home)
}

/// The operating system's generator.
pub(super) fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

/// Now, for records.
pub(super) fn now() -> Moment {
    Moment(SystemTime::now())
}
