//! The other end of the agent: commands that use a running one, and what else is said to it.

use std::{
    env,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process,
    time::{Duration, SystemTime},
};

use zeroize::Zeroizing;

use super::{
    answer,
    args::{AgentArgs, AgentUse, Exec, Order},
    context::Context,
    failure::Failure,
};
use crate::{
    agent::{AgentSigner, Client, ClientError, Code, HeldKey},
    key::{KeyName, PublicKey},
    store,
};

const VARIABLE: &str = "DERIKEY_AGENT_SOCK";

/// Returns where an agent listens if nothing else was said.
pub(super) fn default_path() -> Option<PathBuf> {
    let dir = env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty())?;
    let dir = PathBuf::from(dir);
    dir.is_absolute().then(|| dir.join("derikey/agent.sock"))
}

/// Where an agent is looked for, and whether somebody said so.
struct Address {
    path: PathBuf,
    named: bool,
}

fn address() -> Option<Address> {
    if let Some(path) = env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        return Some(Address {
            path: path.into(),
            named: true,
        });
    }
    default_path().map(|path| Address { path, named: false })
}

fn connect(context: &Context, path: &Path) -> Result<Client, ClientError> {
    // The agent may have to ask the exchange first.
    Client::connect(path, context.deadline() + Duration::from_secs(5))
}

fn silent(path: &Path, error: &ClientError) -> Failure {
    let cause = match error {
        ClientError::Unreachable(source) => format!("{error}: {source}"),
        _ => error.to_string(),
    };
    Failure::network(format!("{}: {cause}", path.display())).hint(format!(
        "start one with \"derikey agent NAME\", unset {VARIABLE}, or add --no-agent"
    ))
}

/// A key in an agent.
pub(super) struct Remote {
    pub(super) held: HeldKey,
    pub(super) signer: AgentSigner,
    path: PathBuf,
}

impl Remote {
    /// Finds the agent that holds a key; none if there is none, or it holds another.
    pub(super) fn find(
        context: &Context,
        name: &KeyName,
        wanted: &AgentUse,
    ) -> Result<Option<Self>, Failure> {
        if wanted.no_agent {
            return Ok(None);
        }
        let Some(address) = address() else {
            return Ok(None);
        };
        let found = connect(context, &address.path)
            .and_then(|client| client.key(name).map(|held| (client, held)));
        let (client, held) = match found {
            Ok((client, Some(held))) => (client, held),
            Ok((_, None)) => {
                let path = address.path.display();
                let detail = format!("the agent at {path} does not hold {name}");
                context.output.detail(detail);
                return Ok(None);
            }
            Err(error @ ClientError::Refused { .. }) => return Err(error.into()),
            Err(error) if address.named => return Err(silent(&address.path, &error)),
            Err(_) => return Ok(None),
        };
        let theirs = PublicKey::read(held.public_key.as_bytes())?;
        match context.store.public(name) {
            Ok(ours) if ours != theirs => {
                context.output.remark(format!(
                    "the agent at {} holds another key named {name}; the one here is used",
                    address.path.display()
                ));
                return Ok(None);
            }
            // Without a key of that name here, the agent's is the one that is meant.
            Ok(_) | Err(store::Error::NoSuchKey { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        context
            .output
            .detail(format!("asking the agent at {}", address.path.display()));
        Ok(Some(Self {
            held,
            signer: AgentSigner::new(client, name.clone(), theirs, milliseconds),
            path: address.path,
        }))
    }
}

fn milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let since = since.ok().and_then(|t| u64::try_from(t.as_millis()).ok());
    since.unwrap_or_default()
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        match error {
            ClientError::Refused { code, reason, .. } => {
                let failure = match (code, reason.as_deref()) {
                    (Code::Login, Some("rejected")) => Self::rejected(message),
                    (Code::Login, Some("network")) => Self::network(message),
                    (Code::Login, Some("verification")) => Self::verification(message),
                    (Code::Login, Some("try_again"))
                    | (Code::Rate | Code::Busy | Code::Timeout, _) => Self::try_again(message),
                    (Code::WrongPassphrase, _) => Self::key(message),
                    _ => Self::refused(message),
                };
                failure.hint(match code {
                    Code::Locked => "\"derikey agent --unlock\" opens it; --no-agent uses the key itself",
                    Code::Denied => {
                        "agent.keys in the agent's config.toml says what is allowed; --no-agent uses the key itself"
                    }
                    Code::Rate | Code::Busy | Code::Timeout => "wait a moment, then try again",
                    Code::WrongPassphrase | Code::NotLocked => "nothing was changed",
                    _ => "--no-agent uses the key itself",
                })
            }
            _ => Self::network(message).hint("--no-agent uses the key itself"),
        }
    }
}

/// Tells a running agent something.
pub(super) fn order(context: &Context, args: &AgentArgs, order: Order) -> Result<(), Failure> {
    let path = args
        .socket
        .clone()
        .or_else(|| address().map(|address| address.path))
        .ok_or_else(|| {
            Failure::configuration("no agent was named, and XDG_RUNTIME_DIR is not set")
                .hint(format!("name its socket with --socket or {VARIABLE}"))
        })?;
    let failed = |error| match error {
        ClientError::Refused { .. } => Failure::from(error),
        _ => silent(&path, &error),
    };
    if order != Order::Status && context.global.dry_run {
        let asked = connect(context, &path).and_then(|client| client.status());
        asked.map_err(failed)?;
        let step = format!("would {} the agent at {}", order.as_str(), path.display());
        return answer::plan(context, &[step]);
    }
    let asked = connect(context, &path).and_then(|client| {
        Ok(match order {
            Order::Status => Ok(client.status()?),
            Order::Stop => Ok(client
                .shutdown()
                .map(|()| serde_json::json!({"stopped": true}))?),
            Order::Lock | Order::Unlock => Err(client),
        })
    });
    let result = match asked.map_err(failed)? {
        Ok(result) => result,
        Err(client) => {
            let passphrase = passphrase(context, args, order)?;
            let locked = order == Order::Lock;
            if locked {
                client.lock(&passphrase)?;
            } else {
                client.unlock(&passphrase)?;
            }
            serde_json::json!({"locked": locked})
        }
    };
    context.output.result(&result, || answer::lines(&result))
}

/// The passphrase of the lock, which is none of the keys'.
fn passphrase(
    context: &Context,
    args: &AgentArgs,
    order: Order,
) -> Result<Zeroizing<String>, Failure> {
    let what = "the passphrase of the lock";
    let passphrase = match args.passphrase.source() {
        Some(source) => source.read_line(what)?,
        None => {
            let Some(terminal) = context.terminal() else {
                return Err(
                    Failure::key(format!("{what} is needed, and nobody can be asked")).hint(
                        "give it with --passphrase-file, --passphrase-fd or --passphrase-command",
                    ),
                );
            };
            let typed = terminal.ask_secret("Passphrase of the lock: ")?;
            if order == Order::Lock && *typed != *terminal.ask_secret("The same again: ")? {
                return Err(Failure::key("the two passphrases differ")
                    .hint("nothing was changed; try again"));
            }
            typed
        }
    };
    if passphrase.is_empty() {
        return Err(Failure::key(format!("{what} is empty")));
    }
    if passphrase.contains(|c: char| c.is_control() || matches!(c, '"' | '\\')) {
        return Err(
            Failure::usage(format!("{what} has a quote or a backslash in it"))
                .hint("any other characters will do"),
        );
    }
    Ok(passphrase)
}

/// Becomes another program, which finds the agent and whose key it is to ask for.
pub(super) fn exec(context: &Context, args: &Exec) -> Result<(), Failure> {
    let name: KeyName = args.name.name.parse()?;
    let wanted = AgentUse { no_agent: false };
    let Some(remote) = Remote::find(context, &name, &wanted)? else {
        return Err(
            Failure::refused(format!("no agent holds {name}")).hint(format!(
                "start one with \"derikey agent {name}\", or set {VARIABLE}"
            )),
        );
    };
    let (program, arguments) = args
        .command
        .split_first()
        .ok_or_else(|| Failure::usage("there is no program to run"))?;
    if context.global.dry_run {
        let step = format!("would run {program:?}, which finds {name} in the agent");
        return answer::plan(context, &[step]);
    }
    let path = std::path::absolute(&remote.path)
        .map_err(|error| Failure::unexpected(format!("{}: {error}", remote.path.display())))?;
    let mut command = process::Command::new(program);
    command
        .args(arguments)
        .env(VARIABLE, path)
        .env("DERIKEY_KEY", name.as_str())
        .env("DERIBIT_CLIENT_ID", &remote.held.client_id)
        .env("DERIBIT_NETWORK", &remote.held.network);
    match &remote.held.endpoint {
        Some(endpoint) => command.env("DERIBIT_ENDPOINT", endpoint),
        None => command.env_remove("DERIBIT_ENDPOINT"),
    };
    let error = command.exec();
    let program = Path::new(program).display();
    Err(
        Failure::configuration(format!("{program} cannot be run: {error}"))
            .hint("check its path; it is run without a shell"),
    )
}
