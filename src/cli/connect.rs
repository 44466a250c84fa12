//! From a network's name to somebody who answers, and from flags to an administrator.

use std::{path::PathBuf, str::FromStr};

use tokio::runtime::Runtime;

use super::{
    args::{AdminArgs, PassphraseArgs},
    context::Context,
    failure::Failure,
    inputs::{self, Source},
    memory,
    second_factor::Codes,
    signers,
    stamper::SystemStamper,
    terminal,
};
use crate::{
    exchange::{ClientId, Endpoint, Exchange, Https, Network},
    key::KeyName,
    provision::{Desk, Operator},
    sandbox,
    secret::ClientSecret,
    signer::Signer,
};

/// An exchange that answers; for the sandbox, with the sandbox itself.
pub(super) struct Connection {
    pub(super) exchange: Exchange<Https>,
    sandbox: Option<sandbox::Sandbox>,
}

/// Returns a runtime for talking to an exchange: from now on something may be under way.
pub(super) fn runtime_for(context: &Context) -> Result<Runtime, Failure> {
    terminal::answer_signals(context.output.json);
    runtime()
}

/// Returns a runtime of one thread. Built when a command needs the network, and not before.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::unexpected(format!("the network runtime cannot be started: {error}"))
        })
}

impl Connection {
    /// Prepares to speak to a network; starts the sandbox if it is the one. Nothing is sent yet.
    pub(super) async fn open(context: &Context, network: &Network) -> Result<Self, Failure> {
        let (endpoint, sandbox) = match network.endpoint() {
            Some(endpoint) => (endpoint, None),
            None => {
                let sandbox = sandbox::Sandbox::start(sandbox::Options {
                    state_dir: context.store.subdir("sandbox")?,
                    listen: ([127, 0, 0, 1], 0).into(),
                    faults: Vec::new(),
                    totp_seed: None,
                })
                .await?;
                (Endpoint::from_str(sandbox.endpoint())?, Some(sandbox))
            }
        };
        context
            .output
            .detail(format!("speaking to {network} at {endpoint}"));
        let authorities = context.authorities(network)?;
        let transport = Https::new(
            endpoint,
            authorities.as_ref().map(|pem| pem.as_slice()),
            context.deadline(),
        )?;
        Ok(Self {
            exchange: Exchange::new(transport, network.clone()),
            sandbox,
        })
    }
}

impl From<sandbox::Error> for Failure {
    fn from(error: sandbox::Error) -> Self {
        let message = format!("the sandbox: {error}");
        match error {
            sandbox::Error::NotLoopback { .. } | sandbox::Error::Fault(_) => Self::usage(message),
            _ => Self::unexpected(message),
        }
    }
}

/// Tells whether a name is that of a key which is registered on a network.
fn is_of(context: &Context, name: Option<&str>, network: &Network) -> bool {
    let name = name.and_then(|name| name.parse::<KeyName>().ok());
    let record = name.and_then(|name| context.store.record(&name).ok());
    let known = record.and_then(|record| record.registration);
    known.is_some_and(|known| known.network == *network)
}

/// Who manages the account's keys.
pub(super) enum Admin {
    Key {
        client_id: ClientId,
        signer: Box<dyn Signer>,
    },
    Secret {
        client_id: ClientId,
        secret: ClientSecret,
    },
}

impl Admin {
    /// Finds out who was named, and opens the key or reads the secret.
    ///
    /// A key is opened with its own passphrase if one was named, else with `passphrase`.
    pub(super) fn find(
        context: &Context,
        args: &AdminArgs,
        passphrase: &PassphraseArgs,
        connection: &Connection,
    ) -> Result<Self, Failure> {
        let config = &context.config;
        let typed = args.admin.is_some() || args.admin_client_id.is_some();
        let network = connection.exchange.network();
        let (name, client_id) = if typed {
            (&args.admin, &args.admin_client_id)
        } else if connection.sandbox.is_some() && !is_of(context, config.admin.as_deref(), network)
        {
            // What is configured for an exchange is nobody in the sandbox, which has its own.
            (&None, &None)
        } else {
            (&config.admin, &config.admin_client_id)
        };
        match (name, client_id, &connection.sandbox) {
            (Some(name), _, _) => Self::key(context, args, passphrase, name, network),
            (None, Some(client_id), _) => Self::secret(context, args, client_id),
            (None, None, Some(sandbox)) => {
                let path = sandbox.admin_secret_file().to_path_buf();
                let secret = Source::Kept(path).read_line("the sandbox administrator's secret")?;
                Ok(Self::Secret {
                    client_id: sandbox.admin_client_id().parse()?,
                    secret: ClientSecret::new(secret.to_string()),
                })
            }
            (None, None, None) => Err(Failure::configuration("who manages the account's keys? nobody was named").hint(
                "add --admin NAME for a key in the keystore (the first one of an account comes from \"derikey adopt\"), \
                 or --admin-client-id ID with --admin-secret-file, -fd or -command",
            )),
        }
    }

    fn key(
        context: &Context,
        args: &AdminArgs,
        passphrase: &PassphraseArgs,
        name: &str,
        network: &Network,
    ) -> Result<Self, Failure> {
        let name: KeyName = name.parse()?;
        let record = context.store.record(&name)?;
        let Some(known) = &record.registration else {
            return Err(Failure::refused(format!(
                "{name} is not registered, so it cannot manage keys"
            ))
            .hint("register it first, or bind it with \"derikey adopt\""));
        };
        if known.network != *network {
            return Err(Failure::refused(format!(
                "{name} belongs to the {} network, and this is for {network}",
                known.network
            )));
        }
        if !known.scope.manages_keys() {
            return Err(Failure::refused(format!(
                "{name} may not manage keys: its scope is {}",
                known.scope
            ))
            .hint(
                "an administrator's key needs account:read_write and every right that it hands out",
            ));
        }
        let client_id = known.client_id.clone();
        let signer: Box<dyn Signer> = match args.passphrase.source() {
            Some(source) if record.signer.is_none() => {
                let what = "the administrator's passphrase";
                let passphrase = inputs::passphrase(&context.read_once(&source, what)?, what)?;
                let key = context.store.load::<_, Failure>(&name, || Ok(passphrase))?;
                Box::new(memory::hold(context, key)?)
            }
            _ => signers::signer(context, &name, &record, passphrase)?,
        };
        Ok(Self::Key { client_id, signer })
    }

    fn secret(context: &Context, args: &AdminArgs, client_id: &str) -> Result<Self, Failure> {
        let config = &context.config;
        let file = |path: &PathBuf| Source::File(path.clone());
        let configured = config.admin_secret_file.as_ref().map(file);
        let configured =
            configured.or_else(|| config.admin_secret_command.clone().map(Source::Command));
        let client_id = client_id.parse()?;
        let Some(source) = args.secret.source().or(configured) else {
            let Some(terminal) = context.terminal() else {
                return Err(Failure::configuration(
                    "the administrator's secret is needed, and nobody can be asked",
                )
                .hint("add --admin-secret-file, --admin-secret-fd or --admin-secret-command"));
            };
            let typed = terminal.ask_secret(&format!("Secret of {client_id}: "))?;
            return Ok(Self::Secret {
                client_id,
                secret: ClientSecret::new(typed.to_string()),
            });
        };
        let line = context.read_once(&source, "the administrator's secret")?;
        if line.is_empty() {
            return Err(Failure::configuration(
                "the administrator's secret is empty",
            ));
        }
        Ok(Self::Secret {
            client_id,
            secret: ClientSecret::new(line.to_string()),
        })
    }

    /// Returns the one who logs in.
    pub(super) fn operator(&self) -> Operator<'_> {
        match self {
            Self::Key { client_id, signer } => Operator::Key {
                client_id: client_id.clone(),
                signer: &**signer,
            },
            Self::Secret { client_id, secret } => Operator::Secret {
                client_id: client_id.clone(),
                secret,
                stamper: &SystemStamper,
            },
        }
    }
}

/// Everything that managing an account's keys takes: somebody who answers, the administrator, and
/// the codes.
pub(super) struct Office<'c> {
    pub(super) connection: Connection,
    admin: Admin,
    codes: Codes<'c>,
}

impl<'c> Office<'c> {
    /// Opens the office of a network; nothing is sent yet.
    pub(super) async fn open(
        context: &'c Context,
        network: &Network,
        admin: &AdminArgs,
        passphrase: &PassphraseArgs,
    ) -> Result<Self, Failure> {
        let connection = Connection::open(context, network).await?;
        let who = Admin::find(context, admin, passphrase, &connection)?;
        let codes = Codes::open(context, &admin.second, network, who.operator().client_id())?;
        Ok(Self {
            admin: who,
            codes,
            connection,
        })
    }

    /// Returns the desk in it.
    pub(super) fn desk(&mut self) -> Desk<'_, Https> {
        Desk::new(
            &self.connection.exchange,
            self.admin.operator(),
            &mut self.codes,
        )
    }
}
