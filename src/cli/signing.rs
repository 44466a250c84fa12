//! `sign`: logins and requests, signed without touching the network.

use std::path::Path;

use serde_json::json;

use super::{
    args::{AgentUse, MomentArgs, PassphraseArgs, Sign, SignAuth, SignRequest, SignerArgs},
    clients::Remote,
    context::Context,
    failure::Failure,
    inputs::or_stdin,
    manage, report, signers,
    stamper::SystemStamper,
};
use crate::{
    exchange::{self, ClientId, Login, LoginScope, Scope},
    key::{KeyName, Message, Nonce, Purpose, Stamp, Timestamp},
    signer::{self, LocalSigner, Signer, Stamper},
    store::{self, Record, Trust},
};

mod verify;

pub(super) use verify::verify;

pub(super) fn sign(context: &Context, what: &Sign) -> Result<(), Failure> {
    match what {
        Sign::Auth(args) => sign_auth(context, args),
        Sign::Request(args) => sign_request(context, args),
    }
}

fn sign_auth(context: &Context, args: &SignAuth) -> Result<(), Failure> {
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

fn sign_request(context: &Context, args: &SignRequest) -> Result<(), Failure> {
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
            let bytes = store::read(or_stdin(file), 32_000, Trust::Public)?;
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
    // Not needed where an agent holds the key.
    let record = context.store.record(&name);
    if let Ok(Record {
        registration: Some(known),
        ..
    }) = &record
    {
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
    let record = record?;
    let client_id = match typed {
        Some(client_id) => client_id,
        None => manage::registered(&name, record.registration.as_ref())
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
