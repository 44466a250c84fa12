//! `auth` and `token`: a key logs in, and a bot gets what came of it.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::{
    answer,
    args::{Auth, Token, TokenFormat},
    clients::Remote,
    connect::{Connection, runtime_for},
    context::Context,
    failure::Failure,
    manage, report, signers,
    stamper::SystemStamper,
};
use crate::{
    exchange::{LoginScope, Scope, Session, SessionName},
    key::KeyName,
    provision::{self, Operator},
    signer::Signer,
    store::{Moment, Record, Registration},
};

pub(super) fn auth(context: &Context, args: &Auth) -> Result<(), Failure> {
    if context.global.dry_run {
        return rehearse(context, args, "");
    }
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
    if context.global.dry_run {
        return rehearse(context, &args.auth, " and print an access token");
    }
    let (_, session) = log_in(context, &args.auth)?;
    let expires_at = Moment(
        SystemTime::now() + Duration::from_secs(session.expires_in.min(u64::from(u32::MAX))),
    );
    let token = Printed {
        access_token: session.access_token.expose(),
        token_type: "bearer",
        expires_in: session.expires_in,
        expires_at: &expires_at.to_string(),
        scope: &session.scope,
    };
    token.print(context, args.format)
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
    if context.global.dry_run {
        let (network, id) = (&remote.held.network, &remote.held.client_id);
        let step = format!("would print an access token of the agent for {id} on {network}");
        return answer::plan(context, &[step]);
    }
    let words = asked.as_ref().map(Scope::to_string);
    let token = remote.signer.client().token(name, words.as_deref())?;
    let granted = Scope::from_wire(&token.scope);
    if let Some(asked) = asked
        && granted != asked
    {
        return Err(crate::Error::ScopeDiffers { asked, granted }.into());
    }
    let token = Printed {
        access_token: token.access_token.expose(),
        token_type: "bearer",
        expires_in: token.expires_in,
        expires_at: &token.expires_at,
        scope: &granted,
    };
    token.print(context, args.format)
}

/// What is printed of a token.
#[derive(Serialize)]
struct Printed<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: u64,
    expires_at: &'a str,
    scope: &'a Scope,
}

impl Printed<'_> {
    /// The one command whose business it is to print a token.
    fn print(&self, context: &Context, format: TokenFormat) -> Result<(), Failure> {
        let token = self.access_token;
        let line = match format {
            TokenFormat::Header if !context.output.json => "Authorization: Bearer ",
            TokenFormat::Env if !context.output.json => "DERIBIT_ACCESS_TOKEN=",
            _ => return report::write_secret(self, token.len()),
        };
        let mut text = Zeroizing::new(String::with_capacity(line.len() + token.len() + 1));
        text.extend([line, token, "\n"]);
        report::write_out(text.as_bytes())
    }
}

/// What was asked for, read and looked up, before anybody logs in.
struct Wanted {
    name: KeyName,
    scope: Option<Scope>,
    session: SessionName,
    record: Record,
    known: Registration,
}

impl Wanted {
    fn parse(context: &Context, args: &Auth) -> Result<Self, Failure> {
        let name: KeyName = args.name.name.parse()?;
        let scope = args.scope.as_deref().map(str::parse).transpose()?;
        let session = match &args.session {
            Some(name) => name.parse()?,
            None => SessionName::ours(),
        };
        let record = context.store.record(&name)?;
        let known = manage::registered(&name, record.registration.as_ref())?.clone();
        context.check_network(&name, &known.network)?;
        Ok(Self {
            name,
            scope,
            session,
            record,
            known,
        })
    }
}

/// Says what a login would be.
fn rehearse(context: &Context, args: &Auth, then: &str) -> Result<(), Failure> {
    let Wanted { known, .. } = Wanted::parse(context, args)?;
    let (network, id) = (&known.network, &known.client_id);
    let step = format!("would log in on {network} as {id}{then}");
    answer::plan(context, &[step])
}

fn log_in(context: &Context, args: &Auth) -> Result<(Registration, Session), Failure> {
    let Wanted {
        name,
        scope: asked,
        session,
        record,
        known,
    } = Wanted::parse(context, args)?;
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
    let session = runtime_for(context)?.block_on(async {
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
