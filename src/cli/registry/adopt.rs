//! `adopt`: binds a key whose public half was pasted into the web form.

use serde_json::{Value, json};

use super::Done;
use crate::{
    cli::{
        answer,
        args::Adopt,
        audit,
        connect::{Connection, runtime_for},
        context::{Context, now},
        failure::Failure,
        manage,
        second_factor::Codes,
        signers,
    },
    exchange::{self, ClientId, Network},
    key::{KeyName, PublicKey},
    provision::{self, Adopted, Unseen},
    store::{Record, Registration},
};

pub(in crate::cli) fn adopt(context: &Context, args: &Adopt) -> Result<(), Failure> {
    let name: KeyName = args.name.name.parse()?;
    let network = context.network_for(&name)?;
    let named: Option<ClientId> = args.client_id.as_deref().map(str::parse).transpose()?;
    let (public, record) = signers::enrol(context, &name, &args.held)?;
    if let Some(known) = &record.registration {
        refuse_another(&name, known, named.as_ref(), &network)?;
    }
    let client_id = match named {
        Some(id) => id,
        None => match paste(context, &name, &network, &public)? {
            Some(typed) => typed.parse()?,
            None => return Ok(()),
        },
    };
    let _lock = if context.global.dry_run {
        None
    } else {
        Some(context.lock(&name)?)
    };
    manage::refuse_pending(context, &name)?;
    let record = context.store.record(&name).unwrap_or(record);
    if let Some(known) = &record.registration {
        refuse_another(&name, known, Some(&client_id), &network)?;
    }
    if context.global.dry_run {
        return answer::plan(
            context,
            &[format!(
                "would log in on {network} as {client_id} with {name} and bind it"
            )],
        );
    }
    let mut codes = Codes::open(context, &args.second, &network, &client_id)?;
    let signer = signers::signer_on(context, &name, Some(&network), &args.passphrase)?;
    let result = runtime_for(context)?.block_on(async {
        let connection = Connection::open(context, &network).await?;
        let exchange = &connection.exchange;
        let adopted = provision::adopt(exchange, &client_id, &*signer, &mut codes, now()).await;
        adopted.map_err(Failure::from)
    });
    audit::outcome(context, "adopt", &name, &network, Some(&public), &result)?;
    let Adopted {
        mut outcomes,
        unseen,
    } = result?;
    if let Some(known) = &record.registration {
        // What was known and could not be seen this time stays known.
        let seen = &mut outcomes.registration;
        if seen.key_id.is_none() {
            let proven = seen.proven;
            *seen = Registration {
                proven,
                ..known.clone()
            };
        }
    }
    let seen = &outcomes.registration;
    let changed = record.registration.as_ref().is_none_or(|known| {
        let proven = seen.proven;
        *seen
            != Registration {
                proven,
                ..known.clone()
            }
    });
    let registration = Some(outcomes.registration.clone());
    context.store.write_record(
        &name,
        context.store.current(&name)?,
        &Record {
            registration,
            ..record
        },
    )?;
    let incomplete = outcomes.registration.key_id.is_none();
    let done = Done {
        name,
        public,
        outcomes,
        changed,
    };
    let mut value = done.value(context);
    if let Some(unseen) = unseen.filter(|_| incomplete) {
        answer::merge(&mut value, missing(context, &done.name, &unseen));
    }
    context.output.result(&value, || answer::lines(&value))
}

/// Refuses what would bind a key that is bound to something else, or have its public half pasted
/// once more.
fn refuse_another(
    name: &KeyName,
    known: &Registration,
    client_id: Option<&ClientId>,
    network: &Network,
) -> Result<(), Failure> {
    let is_here = known.network == *network;
    if is_here && client_id == Some(&known.client_id) {
        return Ok(());
    }
    let (id, place) = (&known.client_id, &known.network);
    let hint = if is_here && client_id.is_none() {
        format!(
            "\"derikey auth {name}\" proves that it works, \"derikey adopt {name} --client-id {id}\" looks at it again"
        )
    } else {
        "a key belongs to one network and one client id for ever; make another with \"derikey generate\"".into()
    };
    Err(Failure::refused(format!("{name} is {id} on {place} already")).hint(hint))
}

/// Says what is not known of an adopted key, why, and how that is made good.
fn missing(context: &Context, name: &KeyName, unseen: &Unseen) -> Value {
    let (why, cure) = match unseen {
        Unseen::NoRight => (
            "it may not look at the account's keys".into(),
            "give it account:read in the web form, and adopt it again",
        ),
        Unseen::NotListed => (
            "the account does not list it".into(),
            "look at the account's keys in the web form",
        ),
        Unseen::Refused(error @ exchange::Error::NoSecondFactor { .. }) => (
            error.to_string(),
            "adopt it again with --totp-fd, --totp-command or --totp-seed-file, or on a terminal",
        ),
        Unseen::Refused(error) => (error.to_string(), "adopt it again later"),
    };
    context.output.remark(format!(
        "warning: {name} is bound, but not all is known of it: {why}"
    ));
    json!({
        "not_known": ["key_id", "label", "ip_whitelist", "enabled_features"],
        "next": format!("what changes a key needs its id; {cure}"),
    })
}

/// Says what to paste where; a person at the terminal is asked for what the form shows then.
fn paste(
    context: &Context,
    name: &KeyName,
    network: &Network,
    public: &PublicKey,
) -> Result<Option<String>, Failure> {
    let pem = public.to_pem();
    let steps = match network.endpoint() {
        Some(endpoint) => format!(
            "open {}, then Account, API, Add new key, Self-generated key; paste the public key; \
             choose the rights; then run \"derikey adopt {name} --network {}{} --client-id ID\" with the client id \
             shown",
            endpoint.as_str().trim_end_matches("/api/v2"),
            network.name(),
            match network {
                Network::Custom(endpoint) => format!(" --endpoint {endpoint}"),
                _ => String::new(),
            }
        ),
        None => format!(
            "the sandbox has no web form to paste this into, and its administrator is at hand: \
             run \"derikey register {name} --scope SCOPE --network sandbox\" instead"
        ),
    };
    let value = json!({"name": name, "fingerprint": public.fingerprint(), "public_key": pem, "next": steps});
    context.output.result(&value, || format!("{pem}{steps}"))?;
    if context.output.json || *network == Network::Sandbox {
        return Ok(None);
    }
    let Some(terminal) = context.terminal() else {
        return Ok(None);
    };
    let typed = terminal.ask("Client id (empty to do it later): ")?;
    Ok(Some(typed.trim().to_owned()).filter(|typed| !typed.is_empty()))
}
