//! What `doctor` asks an exchange: the time, and whether the account's keys are as they should be.

use super::{
    args::Doctor,
    connect::{Connection, Office},
    context::Context,
    failure::Failure,
    health::Findings,
    manage, remote,
    stamper::SystemStamper,
};
use crate::{
    Error,
    exchange::{self, Authority, ClientId, GetAccessLog, Network, Outcome, Whitelisted},
    key::KeyName,
    provision,
    signer::{LocalSigner, Stamper},
    store::{Registration, State},
};

/// What a check ended with before its end: what kind of thing is wrong, and the failure.
type Stopped = (&'static str, Failure);

/// Asks an exchange what time it is and, in whoever's name that is possible, about the keys.
pub(super) async fn ask(
    context: &Context,
    args: &Doctor,
    network: &Network,
    findings: &mut Findings,
) -> Result<(), Stopped> {
    let unprepared = |failure| ("configuration", failure);
    let connection = Connection::open(context, network).await;
    let connection = connection.map_err(unprepared)?;
    clock(network, &connection, findings).await?;
    let named = args.admin.admin.is_some() || args.admin.admin_client_id.is_some();
    let configured = context.config.admin.is_some() || context.config.admin_client_id.is_some();
    if named || configured || *network == Network::Sandbox {
        drop(connection);
        return account(context, args, network, findings).await;
    }
    findings.good(format!(
        "the account on {network} was not looked at: no administrator was named"
    ));
    for (name, known) in of_network(context, network) {
        by_itself(context, args, &connection, &name, &known, findings).await?;
    }
    Ok(())
}

/// Compares the clocks, which also shows whether the other end is the network that is meant.
async fn clock(
    network: &Network,
    connection: &Connection,
    findings: &mut Findings,
) -> Result<(), Stopped> {
    let ours = SystemStamper.stamp().map_err(|e| stopped(e.into()))?;
    let skew = provision::clock_skew(&connection.exchange, ours.timestamp.0).await;
    let check = format!("the clock, by the {network} network");
    match skew.map_err(stopped)? {
        Some(skew) if skew.is_notable() => findings.found(
            "clock_skew",
            None,
            check,
            format!("it is {skew}; at 60 s signatures are refused"),
            "set it: chronyd, systemd-timesyncd",
        ),
        _ => findings.good(check),
    }
    Ok(())
}

/// Sorts what can go wrong on the way.
fn stopped(error: Error) -> Stopped {
    use exchange::Error as E;
    let kind = match &error {
        Error::Exchange(E::WrongNetwork { .. } | E::ForeignChallenge { .. }) => "wrong_network",
        Error::Exchange(
            E::Unreachable { .. } | E::Broken { .. } | E::TimedOut { .. } | E::Malformed { .. },
        ) => "network",
        Error::Skew { .. } => "clock_skew",
        Error::ScopeDiffers { .. } => "drift",
        Error::Exchange(error) if error.is_credentials() => "credentials",
        Error::Exchange(
            E::NoSecondFactor { .. } | E::SecondFactorRefused { .. } | E::HardwareKeyOnly { .. },
        ) => "second_factor",
        _ => "exchange",
    };
    let failure = Failure::from(error);
    if kind == "wrong_network" {
        let cure = "this is another exchange than the keys belong to: check --network, --endpoint \
                    and who answers there; no key was used";
        return (kind, failure.hint(cure));
    }
    (kind, failure)
}

/// Looks at the account in the administrator's name.
async fn account(
    context: &Context,
    args: &Doctor,
    network: &Network,
    findings: &mut Findings,
) -> Result<(), Stopped> {
    let office = Office::open(context, network, &args.admin, &args.passphrase).await;
    let mut office = office.map_err(|failure| ("configuration", failure))?;
    let mut work = manage::work_of(context, &mut office);
    let survey = work.survey().await.map_err(stopped)?;
    let operator = work.desk.operator().client_id().clone();
    let address = address(&work.desk, &operator).await;
    let rows = remote::compare(context, network, &survey, &operator);
    for row in rows.map_err(|failure| ("unreadable", failure))? {
        let Some(name) = &row.name else {
            continue;
        };
        let check = match row.generation {
            None => format!("{name} at the exchange"),
            Some(generation) => format!("{name} at the exchange, generation {generation}"),
        };
        let mut is_good = row.faults.is_empty();
        // What cannot be read was found when the files were looked at.
        for fault in row.faults.iter().filter(|fault| fault.kind != "unreadable") {
            findings.found(fault.kind, Some(name), &check, &fault.problem, &fault.cure);
        }
        let known = row.known.filter(|_| is_good);
        if let (Some(known), Some(address)) = (known, &address)
            && known.enabled
            && !known.whitelist.is_empty()
            && !known.whitelist.iter().any(|ip| ip.as_str() == address)
        {
            is_good = false;
            let problem = format!(
                "the exchange sees this host as {address}, and its whitelist is {}",
                listed(&known.whitelist)
            );
            not_whitelisted(findings, name, check.clone(), problem, Some(address));
        }
        if is_good {
            findings.good(check);
        }
    }
    Ok(())
}

fn listed(whitelist: &[Whitelisted]) -> String {
    let words: Vec<&str> = whitelist.iter().map(Whitelisted::as_str).collect();
    words.join(" ")
}

fn not_whitelisted(
    findings: &mut Findings,
    name: &KeyName,
    check: String,
    problem: String,
    address: Option<&str>,
) {
    let cure = format!(
        "if it is to be used from here: derikey edit {name} --add-ip {}; if not, all is well: \
         look from the host that uses it",
        address.unwrap_or("ADDR")
    );
    findings.found("ip_not_whitelisted", Some(name), check, problem, cure);
}

/// Returns how the exchange sees this host: from where the operator has just logged in.
async fn address<T: exchange::Transport>(
    desk: &provision::Desk<'_, T>,
    operator: &ClientId,
) -> Option<String> {
    let session = desk.session()?;
    let who = Authority::Bearer(&session.access_token);
    let events = GetAccessLog {
        offset: 0,
        count: 100,
    };
    // A convenience: what is refused or wants a code is done without.
    let Ok(Outcome::Done(log)) = desk.exchange().call(who, &events).await else {
        return None;
    };
    let is_login = |event: &&exchange::AccessEvent| {
        event.result == "success" && event.data.as_str() == Some(operator.as_str())
    };
    let newest = log
        .events()
        .iter()
        .filter(is_login)
        .max_by_key(|e| e.timestamp)?;
    let address: std::net::IpAddr = newest.ip.parse().ok()?;
    Some(address.to_canonical().to_string())
}

/// The keys in use that belong to a network and should be able to log in.
fn of_network(context: &Context, network: &Network) -> Vec<(KeyName, Registration)> {
    let names = context.store.names().unwrap_or_default();
    let known = |name: KeyName| {
        let record = context.store.record(&name).ok()?;
        let usable = matches!(record.state(), State::Active | State::Registered);
        let known = record
            .registration
            .filter(|known| known.network == *network)?;
        usable.then_some((name, known))
    };
    names.into_iter().filter_map(known).collect()
}

/// Lets a key log in that can be opened without asking anybody, and says what a refusal may mean.
async fn by_itself(
    context: &Context,
    args: &Doctor,
    connection: &Connection,
    name: &KeyName,
    known: &Registration,
    findings: &mut Findings,
) -> Result<(), Stopped> {
    let opened = context.store.load::<_, Failure>(name, || {
        let network = Some(&known.network);
        let passphrase = context.passphrase_at_hand(&args.passphrase, network)?;
        passphrase.ok_or_else(|| Failure::key("nobody was to be asked"))
    });
    let Ok(key) = opened else {
        return Ok(());
    };
    let signer = LocalSigner::new(key, SystemStamper);
    let proven = provision::prove(
        &connection.exchange,
        &known.client_id,
        &signer,
        &known.scope,
    )
    .await;
    let check = format!("{name} at the exchange");
    let Err(error) = proven else {
        findings.good(check);
        return Ok(());
    };
    let Error::Exchange(exchange::Error::Refused(refusal)) = &error else {
        let (kind, failure) = stopped(error);
        // It would be the same with the next key.
        if matches!(kind, "network" | "wrong_network" | "clock_skew") {
            return Err((kind, failure));
        }
        findings.failed(kind, Some(name), check, &failure);
        return Ok(());
    };
    match refusal.reason.as_deref() {
        Some("ip_not_allowed") => {
            let problem = format!(
                "its login from here was refused, and its whitelist is {}",
                listed(&known.whitelist)
            );
            not_whitelisted(findings, name, check, problem, None);
        }
        Some("api_key_disabled") => findings.found(
            "disabled_key",
            Some(name),
            check,
            "it was disabled there",
            format!("find out who did; then derikey enable {name}"),
        ),
        Some("invalid_signature" | "unknown_client") => findings.found(
            "wrong_key",
            Some(name),
            check,
            format!("the exchange does not know it as {}", known.client_id),
            "name an administrator (--admin) to see which key the account has instead",
        ),
        // The documentation promises no reason.
        _ => {
            let (kind, failure) = stopped(error);
            let hint = if known.whitelist.is_empty() {
                "it may be disabled, or another key's client id; name an administrator (--admin) to see which"
            } else {
                "this host may not be on its whitelist, or it is disabled, or another key's client id; \
                 name an administrator (--admin) to see which"
            };
            findings.failed(kind, Some(name), check, &failure.hint(hint));
        }
    }
    Ok(())
}
