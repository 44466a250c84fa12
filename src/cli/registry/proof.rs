//! A key that is registered as it is wished is proven again.

use super::Done;
use crate::{
    cli::{
        args::PassphraseArgs,
        audit,
        connect::{Connection, runtime_for},
        context::{Context, now},
        events::tell,
        failure::Failure,
        signers,
    },
    exchange::Network,
    key::KeyName,
    provision::{self, Event, Outcomes},
    store::{Record, Registration, Specification},
};

/// Makes sure that a key is registered as it should be; else says what differs.
pub(super) fn as_wished<'a>(
    name: &KeyName,
    record: &'a Record,
    network: &Network,
    spec: &Specification,
) -> Result<&'a Registration, Failure> {
    let Some(known) = &record.registration else {
        return Err(Failure::refused(format!(
            "there is already a key named {name}, which is not registered"
        ))
        .hint(format!(
            "register it with \"derikey register {name} --scope SCOPE\", or choose another name"
        )));
    };
    let differences = provision::differences(known, record.algorithm, network, spec);
    if !differences.is_empty() {
        let differences: Vec<String> = differences
            .iter()
            .map(|d| format!("{} is {}, asked for {}", d.field, d.actual, d.wanted))
            .collect();
        return Err(Failure::refused(format!(
            "{name} is registered otherwise: {}",
            differences.join("; ")
        ))
        .hint(format!(
            "nothing was changed; change it with \"derikey edit {name}\" and what is to be different, or choose \
             another name"
        )));
    }
    Ok(known)
}

/// Proves a key that is registered as it should be.
pub(super) fn prove_again(
    context: &Context,
    name: &KeyName,
    network: &Network,
    spec: &Specification,
    passphrase: &PassphraseArgs,
) -> Result<(), Failure> {
    let record = context.store.record(name)?;
    let known = as_wished(name, &record, network, spec)?;
    let signer = signers::signer(context, name, &record, passphrase)?;
    let public = signer.public_key().clone();
    let result = runtime_for(context)?.block_on(async {
        let connection = Connection::open(context, network).await?;
        match provision::prove(
            &connection.exchange,
            &known.client_id,
            &*signer,
            &spec.scope,
        )
        .await
        {
            Ok((_, proven)) => Ok(Some(proven.granted().clone())),
            // Its whitelist need not hold this host.
            Err(crate::Error::Exchange(error))
                if error.is_credentials() && !known.whitelist.is_empty() && known.enabled =>
            {
                tell(context, &Event::NotFromHere);
                Ok(None)
            }
            Err(error) => Err(Failure::from(error)),
        }
    });
    audit::outcome(context, "prove", name, network, Some(&public), &result)?;
    let granted = result?;
    let registration = Registration {
        proven: if granted.is_some() {
            Some(now())
        } else {
            known.proven
        },
        ..known.clone()
    };
    context.store.write_record(
        name,
        context.store.current(name)?,
        &Record {
            registration: Some(registration.clone()),
            ..record.clone()
        },
    )?;
    let how = if granted.is_some() {
        "; proved it again"
    } else {
        ""
    };
    context
        .output
        .remark(format!("{name} is registered like that already{how}"));
    Done {
        name: name.clone(),
        public,
        outcomes: Outcomes {
            registration,
            granted,
        },
        changed: false,
    }
    .print(context)
}
