//! `agent`: opens keys once, and holds them for other programs.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    os::unix::net::{UnixDatagram, UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
};

use listenfd::ListenFd;
use serde_json::json;

use super::{
    answer,
    args::AgentArgs,
    books::Books,
    clients,
    connect::{Connection, runtime},
    context::{Context, rng},
    failure::Failure,
    manage, memory, signers,
    stamper::SystemStamper,
    terminal,
};
use crate::{
    agent::{
        Agent, Bound, Code, Denial, Granted, Held, Identity, Limits, Logins, Operation, Policy,
        SocketError, bind, serve,
    },
    exchange::{LoginScope, Scope},
    key::KeyName,
    provision::{self, Operator},
    signer::{LocalSigner, Signer},
    store::{Record, Registration},
};

pub(super) fn agent(mut context: Context, args: &AgentArgs) -> Result<(), Failure> {
    if let Some(order) = args.order() {
        return clients::order(&context, args, order);
    }
    // Before a program for the passphrase could inherit it.
    let handed = handed_over()?;
    let path = match (&handed, &args.socket) {
        (Some(_), Some(_)) => {
            return Err(
                Failure::usage("a socket was handed over and --socket names another")
                    .hint("leave --socket out; the service manager chose the path"),
            );
        }
        (Some(_), None) => None,
        (None, Some(path)) => Some(absolute(path)?),
        (None, None) => Some(clients::default_path().ok_or_else(|| {
            Failure::configuration("there is no place for the socket: XDG_RUNTIME_DIR is not set")
                .hint("name a path with --socket, in a directory of your own with mode 0700")
        })?),
    };
    if context.global.dry_run {
        return rehearse(&context, args, path.as_deref());
    }
    let limits = context.config.agent.limits();
    let mut keys = Vec::new();
    let mut accounts = BTreeMap::new();
    for name in &args.names {
        let name: KeyName = name.parse()?;
        let (held, account) = open(&context, &name, args)?;
        if accounts.insert(name.clone(), account).is_some() {
            return Err(named_twice(&name));
        }
        keys.push(held);
    }
    if keys.iter().any(|held| !held.signer.waits()) {
        memory::check(&context)?;
    }
    context.forget_secrets();
    let context = Arc::new(context);
    let stop = terminal::signals_to_come()?;
    let socket = match (handed, path) {
        (Some(listener), _) => Socket::Handed(listener),
        (None, Some(path)) => Socket::Ours(bind(&path)?),
        (None, None) => return Err(Failure::unexpected("there is no socket")),
    };
    let books = Arc::new(Books::open(&context)?);
    let mut salt = [0; 32];
    rand_core::Rng::fill_bytes(&mut rng(), &mut salt);
    let logins = Accounts {
        context: Arc::clone(&context),
        accounts,
    };
    let agent = Agent::new(keys, Box::new(logins), Box::new(Arc::clone(&books)), salt);
    let served = listen(&context, &socket, Arc::new(agent), limits, &stop);
    drop(socket);
    books.close();
    let outcome = match &served {
        Ok(()) => "done".into(),
        Err(failure) => format!("failed: {}", failure.kind()),
    };
    let ended = crate::store::Entry::new(super::context::now(), "agent stop", &outcome);
    // Why it ended matters more than a log that cannot be written.
    served.and(context.store.audit(ended).map_err(Failure::from))
}

fn named_twice(name: &KeyName) -> Failure {
    Failure::usage(format!("{name} is named twice"))
}

/// Says what would be held, and where.
fn rehearse(context: &Context, args: &AgentArgs, path: Option<&Path>) -> Result<(), Failure> {
    let (mut steps, mut named) = (Vec::new(), BTreeSet::new());
    for name in &args.names {
        let name: KeyName = name.parse()?;
        let Settled { known, .. } = settle(context, &name, args)?;
        steps.push(format!("would open {name} ({})", known.client_id));
        if let Some(twice) = named.replace(name) {
            return Err(named_twice(&twice));
        }
    }
    if let Some(path) = path.filter(|path| UnixStream::connect(path).is_ok()) {
        return Err(SocketError::InUse { path: path.into() }.into());
    }
    let place = path.map_or("the socket that was handed over".into(), |path| {
        path.display().to_string()
    });
    steps.push(format!("would sign for programs that ask at {place}"));
    answer::plan(context, &steps)
}

fn listen(
    context: &Context,
    socket: &Socket,
    agent: Arc<Agent>,
    limits: Limits,
    stop: &UnixStream,
) -> Result<(), Failure> {
    let path = socket.path();
    context
        .output
        .result(&json!({"socket": path}), || path.clone())?;
    notify("READY=1");
    let served = serve(socket.listener(), &agent, limits, stop);
    notify("STOPPING=1");
    served.map_err(|error| Failure::unexpected(format!("the socket cannot be served: {error}")))
}

enum Socket {
    Ours(Bound),
    /// The service manager made it, and takes care of its file.
    Handed(UnixListener),
}

impl Socket {
    fn listener(&self) -> &UnixListener {
        match self {
            Self::Ours(bound) => bound.listener(),
            Self::Handed(listener) => listener,
        }
    }

    fn path(&self) -> String {
        match self {
            Self::Ours(bound) => bound.path().display().to_string(),
            Self::Handed(listener) => {
                let address = listener.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                path.map_or_else(String::new, |path| path.display().to_string())
            }
        }
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::usage(format!("--socket {}: {error}", path.display())))
}

/// Takes over the socket that a service manager hands down (sd_listen_fds(3)).
fn handed_over() -> Result<Option<UnixListener>, Failure> {
    // Meant for us, or for somebody we were started by?
    let pid = env::var("LISTEN_PID").ok().and_then(|pid| pid.parse().ok());
    if pid != Some(std::process::id()) {
        return Ok(None);
    }
    let mut handed = ListenFd::from_env();
    if handed.len() > 1 {
        return Err(
            Failure::configuration("more than one socket was handed over")
                .hint("the agent listens at one; give the unit one ListenStream="),
        );
    }
    handed.take_unix_listener(0).map_err(|error| {
        Failure::configuration(format!(
            "the socket that was handed over is of no use: {error}"
        ))
        .hint("the unit needs ListenStream= with a path")
    })
}

/// Tells the service manager, if there is one (sd_notify(3)).
fn notify(state: &str) {
    let Some(path) = env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
        return;
    };
    let Ok(socket) = UnixDatagram::unbound() else {
        return;
    };
    // A service manager that does not listen misses it; that is no reason to end.
    #[cfg(target_os = "linux")]
    {
        use std::os::{
            linux::net::SocketAddrExt, unix::ffi::OsStrExt, unix::net::SocketAddr as Address,
        };
        if let Some(name) = path.as_bytes().strip_prefix(b"@") {
            let address = Address::from_abstract_name(name);
            let _ = address.and_then(|address| socket.send_to_addr(state.as_bytes(), &address));
            return;
        }
    }
    let _ = socket.send_to(state.as_bytes(), Path::new(&path));
}

/// A key that is not open yet, and what may be done with it.
struct Settled {
    record: Record,
    known: Registration,
    policy: Policy,
    most: Scope,
}

/// Settles what may be done with a key.
fn settle(context: &Context, name: &KeyName, args: &AgentArgs) -> Result<Settled, Failure> {
    let record = context.store.record(name)?;
    let known = manage::registered(name, record.registration.as_ref())?.clone();
    context.check_network(name, &known.network)?;
    let mut policy = context
        .config
        .agent
        .keys
        .get(name)
        .cloned()
        .unwrap_or_default();
    if let Some(lifetime) = args.lifetime {
        policy.lifetime = Some(
            policy
                .lifetime
                .map_or(lifetime, |known| known.min(lifetime)),
        );
    }
    let most = match &policy.scope {
        Some(scope) => scope.parse::<Scope>().map_err(|error| {
            Failure::configuration(format!("config.toml: agent.keys.{name}.scope: {error}"))
        })?,
        None => known.scope.without_power(),
    };
    if policy.operations.is_none() && known.scope != known.scope.without_power() {
        restrict(&mut policy);
        context.output.remark(format!(
            "{name} can move funds or manage keys, and a signed login has all its rights: \
             auth is off unless config.toml lists it in agent.keys.{name}.operations"
        ));
    }
    Ok(Settled {
        record,
        known,
        policy,
        most,
    })
}

/// Opens a key for what may be done with it.
fn open(context: &Context, name: &KeyName, args: &AgentArgs) -> Result<(Held, Account), Failure> {
    let Settled {
        record,
        known,
        policy,
        most,
    } = settle(context, name, args)?;
    let signer: Arc<dyn Signer> = match &record.signer {
        Some(held) => Arc::new(signers::elsewhere(context, name, held, SystemStamper)?),
        None => {
            let key = context.unlock(name, &record, &args.passphrase)?;
            Arc::new(LocalSigner::new(key, SystemStamper))
        }
    };
    let endpoint = match &known.network {
        crate::exchange::Network::Custom(endpoint) => Some(endpoint.as_str().to_owned()),
        _ => None,
    };
    let held = Held {
        identity: Identity {
            name: name.clone(),
            client_id: known.client_id.to_string(),
            network: known.network.name().to_owned(),
            endpoint,
        },
        signer,
        policy,
    };
    Ok((held, Account { known, most }))
}

/// The scope of a signed login is not signed: whoever has one has all that the key can.
fn restrict(policy: &mut Policy) {
    let mut operations = vec![Operation::Token];
    if policy.allows(Operation::Rest) {
        operations.push(Operation::Rest);
    }
    policy.operations = Some(operations);
}

/// A key as the exchange knows it, and the most that its tokens may allow.
#[derive(Debug)]
struct Account {
    known: Registration,
    most: Scope,
}

/// Logs in for the agent.
struct Accounts {
    context: Arc<Context>,
    accounts: BTreeMap<KeyName, Account>,
}

impl std::fmt::Debug for Accounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.accounts.fmt(f)
    }
}

impl Accounts {
    fn account(&self, key: &KeyName) -> Result<&Account, Denial> {
        let account = self.accounts.get(key);
        account.ok_or_else(|| Denial::new(Code::UnknownKey, "there is no such key"))
    }
}

impl Logins for Accounts {
    fn scope(&self, key: &KeyName, asked: Option<&str>) -> Result<String, Denial> {
        let most = &self.account(key)?.most;
        let Some(asked) = asked else {
            return Ok(most.written_out().to_string());
        };
        let asked: Scope = asked
            .parse()
            .map_err(|_| Denial::new(Code::Malformed, "that is no scope"))?;
        if !asked.is_within(most) {
            return Err(Denial::new(
                Code::Denied,
                format!("the policy of this key allows no more than {most}"),
            ));
        }
        Ok(asked.written_out().to_string())
    }

    fn log_in(
        &self,
        key: &KeyName,
        signer: &dyn Signer,
        scope: &str,
        session: &str,
    ) -> Result<Granted, Denial> {
        let account = self.account(key)?;
        log_in(&self.context, account, signer, scope, session)
            .map_err(|failure| Denial::new(Code::Login, failure.message()).because(failure.kind()))
    }
}

fn log_in(
    context: &Context,
    account: &Account,
    signer: &dyn Signer,
    scope: &str,
    session: &str,
) -> Result<Granted, Failure> {
    let (asked, session): (Scope, _) = (scope.parse()?, session.parse()?);
    let session = runtime()?.block_on(async {
        let connection = Connection::open(context, &account.known.network).await?;
        let operator = Operator::Key {
            client_id: account.known.client_id.clone(),
            signer,
        };
        let scope = LoginScope {
            areas: Some(&asked),
            session: Some(&session),
        };
        let session = provision::log_in(&connection.exchange, &operator, &scope).await;
        session.map_err(Failure::from)
    })?;
    if !session.scope.is_within(&asked) {
        return Err(crate::Error::ScopeDiffers {
            asked,
            granted: session.scope,
        }
        .into());
    }
    Ok(Granted {
        access_token: session.access_token,
        expires_in: std::time::Duration::from_secs(session.expires_in.min(u64::from(u32::MAX))),
        scope: session.scope.to_string(),
    })
}

impl From<SocketError> for Failure {
    fn from(error: SocketError) -> Self {
        let message = error.to_string();
        match error {
            // A directory that is meant for everybody (its sticky bit is set) is left as it is.
            SocketError::Exposed { mode, .. } if mode & 0o1000 != 0 => Self::key(message)
                .hint("name a path with --socket, in a directory of your own with mode 0700"),
            SocketError::Exposed { path, .. } => Self::key(message).hint(format!(
                "whoever gets into it could take the agent's place; chmod 700 '{}', or name another with --socket",
                path.display()
            )),
            SocketError::NotOurs { .. } => {
                Self::key(message).hint("name a path with --socket, in a directory of your own with mode 0700")
            }
            SocketError::InUse { .. } => Self::refused(message)
                .hint("use it, stop it with \"derikey agent --stop\", or name another path with --socket"),
            SocketError::Foreign { .. } => {
                Self::refused(message).hint("nothing was touched; move it away, or name another path with --socket")
            }
            _ => Self::configuration(message).hint("name another path with --socket; a path is 107 bytes long at most"),
        }
    }
}
