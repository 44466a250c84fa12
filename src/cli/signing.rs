//! Commands that use a key: log in, hand out a token, sign, verify.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    answer,
    args::{
        AgentUse, Auth, MomentArgs, PassphraseArgs, SignAuth, SignRequest, SignerArgs, Token,
        TokenFormat, Verify,
    },
    clients::Remote,
    connect::{Connection, runtime},
    context::{Context, SystemStamper},
    keys,
    report::{self, Failure},
    signers,
};
use crate::{
    exchange::{self, ClientId, Login, LoginScope, Method, Scope, Session, SessionName},
    key::{self, KeyName, Message, Nonce, Purpose, Signature, Stamp, Timestamp},
    provision::{self, Operator},
    signer::{self, LocalSigner, Signer, Stamper},
    store::{self, Moment, Record, Registration, Trust},
};

pub(super) fn auth(context: &Context, args: &Auth) -> Result<(), Failure> {
    let (known, session) = log_in(context, args)?;
    let value = json!({
        "client_id": known.client_id,
        "granted_scope": session.scope,
        "expires_in": session.expires_in,
    });
    context.output.result(&value, || answer::lines(&value))
}

pub(super) fn token(context: &Context, args: &Token) -> Result<(), Failure> {
    let name: KeyName = args.auth.name.name.parse()?;
    // A session of one's own is had by a login of one's own.
    if args.auth.session.is_none()
        && let Some(remote) = Remote::find(context, &name, &args.auth.agent)?
    {
        return token_of(context, args, &name, &remote);
    }
    let (_, session) = log_in(context, &args.auth)?;
    let expires_at = Moment(
        SystemTime::now() + Duration::from_secs(session.expires_in.min(u64::from(u32::MAX))),
    );
    let value = json!({
        "access_token": session.access_token.expose(),
        "token_type": "bearer",
        "expires_in": session.expires_in,
        "expires_at": expires_at,
        "scope": session.scope,
    });
    print_token(context, args.format, session.access_token.expose(), &value)
}

/// Prints a token that the agent gets and keeps fresh.
fn token_of(
    context: &Context,
    args: &Token,
    name: &KeyName,
    remote: &Remote,
) -> Result<(), Failure> {
    let asked: Option<Scope> = args.auth.scope.as_deref().map(str::parse).transpose()?;
    if let Ok(record) = context.store.record(name)
        && let Some(known) = &record.registration
    {
        context.check_network(name, &known.network)?;
    }
    let words = asked.as_ref().map(Scope::to_string);
    let token = remote.signer.client().token(name, words.as_deref())?;
    let granted = Scope::from_wire(&token.scope);
    if let Some(asked) = asked
        && granted != asked
    {
        return Err(crate::Error::ScopeDiffers { asked, granted }.into());
    }
    let value = json!({
        "access_token": token.access_token.expose(),
        "token_type": "bearer",
        "expires_in": token.expires_in,
        "expires_at": token.expires_at,
        "scope": granted,
    });
    print_token(context, args.format, token.access_token.expose(), &value)
}

/// The one command whose business it is to print a token.
fn print_token(
    context: &Context,
    format: TokenFormat,
    token: &str,
    value: &Value,
) -> Result<(), Failure> {
    let text = match format {
        TokenFormat::Header if !context.output.json => format!("Authorization: Bearer {token}\n"),
        TokenFormat::Env if !context.output.json => format!("DERIBIT_ACCESS_TOKEN={token}\n"),
        _ => format!("{value}\n"),
    };
    report::write_out(text.as_bytes())
}

fn log_in(context: &Context, args: &Auth) -> Result<(Registration, Session), Failure> {
    let name: KeyName = args.name.name.parse()?;
    let asked: Option<Scope> = args.scope.as_deref().map(str::parse).transpose()?;
    let session: SessionName = match &args.session {
        Some(name) => name.parse()?,
        None => SessionName::ours(),
    };
    let record = context.store.record(&name)?;
    let known = registered(&name, &record)?.clone();
    context.check_network(&name, &known.network)?;
    let remote = match &args.held.signer {
        Some(_) => None,
        None => Remote::find(context, &name, &args.agent)?,
    };
    let signer: Box<dyn Signer> = match remote {
        Some(remote) => Box::new(remote.signer),
        None => match &args.held.signer {
            Some(held) => Box::new(signers::elsewhere(context, &name, held, SystemStamper)?),
            None => signers::signer(context, &name, &record, &args.passphrase)?,
        },
    };
    let scope = LoginScope {
        areas: asked.as_ref(),
        session: Some(&session),
    };
    let session = runtime()?.block_on(async {
        let connection = Connection::open(context, &known.network).await?;
        let operator = Operator::Key {
            client_id: known.client_id.clone(),
            signer: &*signer,
        };
        let session = provision::log_in(&connection.exchange, &operator, &scope).await;
        session.map_err(Failure::from)
    })?;
    context.warn_about_clock(&session);
    match asked {
        Some(asked) if session.scope != asked => {
            let narrower = session.scope.is_within(&asked);
            let failure = Failure::from(crate::Error::ScopeDiffers {
                asked,
                granted: session.scope,
            });
            Err(if narrower {
                failure.hint(format!("ask for no more than the key has: {}", known.scope))
            } else {
                failure
            })
        }
        // More than anybody here knows of is not handed out.
        None if !session.scope.is_within(&known.scope) => Err(crate::Error::ScopeDiffers {
            asked: known.scope.clone(),
            granted: session.scope,
        }
        .into()),
        None if session.scope != known.scope => {
            context.output.remark(format!(
                "warning: the key was granted {}, and is recorded with {}",
                session.scope, known.scope
            ));
            Ok((known, session))
        }
        _ => Ok((known, session)),
    }
}

pub(super) fn registered<'a>(
    name: &KeyName,
    record: &'a Record,
) -> Result<&'a Registration, Failure> {
    record.registration.as_ref().ok_or_else(|| {
        Failure::refused(format!("{name} is not registered at an exchange")).hint(format!(
            "register it with \"derikey register {name}\", or bind it with \"derikey adopt {name}\""
        ))
    })
}

pub(super) fn sign_auth(context: &Context, args: &SignAuth) -> Result<(), Failure> {
    let scope: Option<Scope> = args.scope.as_deref().map(str::parse).transpose()?;
    let (client_id, signer) = open(
        context,
        &args.name.name,
        args.client_id.as_deref(),
        &args.moment,
        // What the caller chooses is signed by no agent.
        (args.data.is_empty()).then_some(&args.agent),
        &args.held,
        &args.passphrase,
    )?;
    let scope = LoginScope {
        areas: scope.as_ref(),
        session: None,
    };
    let login = Login::signed_by(&*signer, &client_id, args.data.clone(), scope)?;
    let mut request = exchange::encode(1, &login)?;
    request.push(b'\n');
    report::write_out(&request)
}

pub(super) fn sign_request(context: &Context, args: &SignRequest) -> Result<(), Failure> {
    check_path(&args.request.path)?;
    let purpose = request(
        &args.request.method,
        &args.request.path,
        args.request.body.as_deref(),
    )?;
    let (client_id, signer) = open(
        context,
        &args.name.name,
        args.client_id.as_deref(),
        &args.moment,
        Some(&args.agent),
        &args.held,
        &args.passphrase,
    )?;
    let signed = signer.sign(&purpose)?;
    let authorization = exchange::authorization(&client_id, &signed);
    let value = json!({
        "authorization": authorization,
        "timestamp": signed.stamp.timestamp,
        "nonce": signed.stamp.nonce,
    });
    context
        .output
        .result(&value, || format!("Authorization: {authorization}"))
}

/// Refuses paths that no method of the exchange has.
fn check_path(path: &str) -> Result<(), Failure> {
    let (path, _) = path.split_once('?').unwrap_or((path, ""));
    // Some clients post to the base itself, with the method in the body.
    let within = match path.strip_prefix("/api/v2") {
        Some("" | "/") => true,
        Some(rest) => {
            let plain = |part: &str| {
                !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            };
            rest.strip_prefix('/')
                .is_some_and(|method| method.split('/').all(plain))
        }
        None => false,
    };
    if within {
        Ok(())
    } else {
        Err(Failure::usage(format!(
            "{path:?} is no path of a method: it must lie in /api/v2/"
        ))
        .hint("such as /api/v2/private/get_positions?currency=BTC; nothing was signed"))
    }
}

/// Builds what is signed of a REST request, and refuses what no request can be.
fn request(method: &str, path: &str, body: Option<&Path>) -> Result<Purpose, Failure> {
    let body = match body {
        None => String::new(),
        Some(file) => {
            let stdin = Path::new("/dev/stdin");
            let file = if file == Path::new("-") { stdin } else { file };
            let bytes = store::read(file, 32_000, Trust::Public)?;
            String::from_utf8(bytes.to_vec())
                .map_err(|_| Failure::usage("the body is not UTF-8").hint("nothing was signed"))?
        }
    };
    let purpose = Purpose::Request {
        method: method.into(),
        uri: path.into(),
        body,
    };
    let probe = Stamp {
        timestamp: Timestamp(0),
        nonce: "probe".parse()?,
    };
    Message::new(&probe, &purpose)?;
    Ok(purpose)
}

/// Opens a key for signing at a moment that was given, or now.
fn open(
    context: &Context,
    name: &str,
    client_id: Option<&str>,
    moment: &MomentArgs,
    agent: Option<&AgentUse>,
    held: &SignerArgs,
    passphrase: &PassphraseArgs,
) -> Result<(ClientId, Box<dyn Signer>), Failure> {
    let name: KeyName = name.parse()?;
    let stamper = Given {
        timestamp: moment.timestamp.map(Timestamp),
        nonce: moment.nonce.as_deref().map(str::parse).transpose()?,
    };
    let typed: Option<ClientId> = client_id.map(str::parse).transpose()?;
    let ours = moment.timestamp.is_none() && moment.nonce.is_none();
    let registration = context
        .store
        .record(&name)
        .ok()
        .and_then(|r| r.registration);
    if let Some(known) = &registration {
        context.check_network(&name, &known.network)?;
    }
    if let Some(agent) = agent.filter(|_| ours && held.signer.is_none())
        && let Some(remote) = Remote::find(context, &name, agent)?
    {
        let client_id = match typed {
            Some(client_id) => client_id,
            None => remote.held.client_id.parse()?,
        };
        return Ok((client_id, Box::new(remote.signer)));
    }
    if let (Some(client_id), Some(held)) = (&typed, &held.signer) {
        // All that is needed was named: the key need not be here.
        let signer = signers::elsewhere(context, &name, held, stamper)?;
        return Ok((client_id.clone(), Box::new(signer)));
    }
    let record = context.store.record(&name)?;
    let client_id = match typed {
        Some(client_id) => client_id,
        None => registered(&name, &record)
            .map_err(|failure| {
                failure.hint("name the client id with --client-id, or register the key first")
            })?
            .client_id
            .clone(),
    };
    if let Some(held) = held.signer.as_ref().or(record.signer.as_ref()) {
        let signer = signers::elsewhere(context, &name, held, stamper)?;
        return Ok((client_id, Box::new(signer)));
    }
    let key = context.unlock(&name, &record, passphrase)?;
    Ok((client_id, Box::new(LocalSigner::new(key, stamper))))
}

/// A moment and a nonce that were given, where they were.
#[derive(Debug)]
struct Given {
    timestamp: Option<Timestamp>,
    nonce: Option<Nonce>,
}

impl Stamper for Given {
    fn stamp(&self) -> Result<Stamp, signer::Error> {
        let now = SystemStamper.stamp()?;
        Ok(Stamp {
            timestamp: self.timestamp.unwrap_or(now.timestamp),
            nonce: self.nonce.clone().unwrap_or(now.nonce),
        })
    }
}

pub(super) fn verify(context: &Context, args: &Verify) -> Result<(), Failure> {
    let key = keys::public_of(context, &args.which)?;
    let input = store::read(Path::new("/dev/stdin"), key::MAX_INPUT, Trust::Public)?;
    let text = std::str::from_utf8(&input).map_err(|_| unreadable("it is not UTF-8"))?;
    let claim = match (&args.method, &args.path) {
        (Some(method), Some(path)) => Claim::request(text, method, path, args.body.as_ref())?,
        _ => Claim::login(text)?,
    };
    let message = Message::new(&claim.stamp, &claim.purpose)?;
    key.verify(&message, &claim.signature)?;
    let value = json!({
        "verified": true,
        "fingerprint": key.fingerprint(),
        "client_id": claim.client_id,
        "timestamp": claim.stamp.timestamp,
        "nonce": claim.stamp.nonce,
    });
    context.output.result(&value, || {
        format!("the signature is that of {}", key.fingerprint())
    })
}

/// What somebody says to have signed.
struct Claim {
    client_id: String,
    stamp: Stamp,
    purpose: Purpose,
    signature: Signature,
}

impl Claim {
    /// Reads the JSON-RPC request of a login.
    fn login(text: &str) -> Result<Self, Failure> {
        #[derive(Deserialize)]
        struct Request {
            method: String,
            params: Params,
        }
        #[derive(Deserialize)]
        struct Params {
            grant_type: String,
            client_id: String,
            timestamp: Value,
            nonce: String,
            signature: String,
            #[serde(default)]
            data: String,
        }
        let request: Request = serde_json::from_str(text).map_err(|_| {
            unreadable("it is no JSON-RPC request with a signature").hint(
                "for a login give the JSON of \"derikey sign auth\"; for a REST request add --method and --path",
            )
        })?;
        let Params {
            grant_type,
            client_id,
            timestamp,
            nonce,
            signature,
            data,
        } = request.params;
        if request.method != Login::NAME || grant_type != "client_signature" {
            return Err(unreadable("it is no public/auth with a client signature"));
        }
        Ok(Self {
            client_id: plain(&client_id)?,
            stamp: stamp(&timestamp.to_string(), &nonce)?,
            purpose: Purpose::Login { data },
            signature: signature.parse()?,
        })
    }

    /// Reads the `Authorization` header of a REST request, or the JSON that holds it.
    fn request(
        text: &str,
        method: &str,
        path: &str,
        body: Option<&PathBuf>,
    ) -> Result<Self, Failure> {
        #[derive(Deserialize)]
        struct Signed {
            authorization: String,
        }
        let header = serde_json::from_str(text)
            .map_or_else(|_| text.to_owned(), |s: Signed| s.authorization);
        let header = header.trim();
        let value = match header.split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => value.trim(),
            _ => header,
        };
        let (scheme, fields) = value
            .split_once(' ')
            .ok_or_else(|| unreadable("it is no Authorization header"))?;
        if !scheme.eq_ignore_ascii_case("deri-hmac-sha256") {
            return Err(unreadable("its scheme is not deri-hmac-sha256"));
        }
        let field = |wanted: &str| {
            let mut pairs = fields
                .split(',')
                .filter_map(|pair| pair.trim().split_once('='));
            let found = pairs
                .find(|(name, _)| *name == wanted)
                .map(|(_, value)| value.to_owned());
            found.ok_or_else(|| unreadable("it lacks one of id, ts, nonce and sig"))
        };
        Ok(Self {
            client_id: plain(&field("id")?)?,
            stamp: stamp(&field("ts")?, &field("nonce")?)?,
            purpose: request(method, path, body.map(PathBuf::as_path))?,
            signature: field("sig")?.parse()?,
        })
    }
}

fn unreadable(problem: &str) -> Failure {
    Failure::verification(format!("what was given cannot be verified: {problem}"))
}

fn plain(client_id: &str) -> Result<String, Failure> {
    let id: ClientId = client_id
        .parse()
        .map_err(|_| unreadable("its client id is none"))?;
    Ok(id.to_string())
}

/// Timestamps come as a number, and as a string from some clients.
fn stamp(timestamp: &str, nonce: &str) -> Result<Stamp, Failure> {
    let millis = timestamp
        .trim_matches('"')
        .parse()
        .map_err(|_| unreadable("its timestamp is none"))?;
    Ok(Stamp {
        timestamp: Timestamp(millis),
        nonce: nonce.parse().map_err(|_| unreadable("its nonce is none"))?,
    })
}
