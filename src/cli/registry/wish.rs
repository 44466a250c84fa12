//! What a key is to be: what was typed, read and thought over.

use crate::{
    cli::{args::Wish, context::Context, failure::Failure},
    exchange::{Area, Feature, Level, Network, Scope, Whitelisted},
    key::{Algorithm, KeyName},
    provision,
    store::{Intent, Operation, Specification},
};

/// Turns what was typed into what the key is to be.
pub(super) fn specification(
    wish: &Wish,
    name: &KeyName,
    algorithm: Algorithm,
) -> Result<Specification, Failure> {
    let label = match &wish.label {
        Some(label) => label.parse::<KeyName>()?,
        None => name.clone(),
    };
    let spec = Specification {
        algorithm,
        label: label.to_string(),
        scope: wish.scope.parse()?,
        whitelist: addresses(&wish.ip, wish.unchecked_ip)?,
        features: features(&wish.feature)?.unwrap_or_default(),
    };
    provision::must_fit(&spec)?;
    Ok(spec)
}

/// Reads features; `none` is the word for a key without any, and nothing where none was typed.
pub(in crate::cli) fn features(typed: &[String]) -> Result<Option<Vec<Feature>>, Failure> {
    if typed.iter().any(|feature| feature == "none") {
        return if typed.len() == 1 {
            Ok(Some(Vec::new()))
        } else {
            Err(Failure::usage("--feature none goes with no other feature")
                .hint("leave out the one or the other"))
        };
    }
    let mut features: Vec<Feature> = Vec::new();
    for feature in typed {
        let feature = feature.parse()?;
        if !features.contains(&feature) {
            features.push(feature);
        }
    }
    Ok(Some(features).filter(|features| !features.is_empty()))
}

/// Reads addresses for a whitelist: IPv4, unless that is waived.
pub(in crate::cli) fn addresses(
    typed: &[String],
    unchecked: bool,
) -> Result<Vec<Whitelisted>, Failure> {
    let mut whitelist = Vec::new();
    for address in typed {
        let plain = Whitelisted::ipv4(address);
        if plain.is_none() && !unchecked {
            return Err(Failure::usage(format!("{address:?} is not an IPv4 address")).hint(
                "the exchange documents nothing else; --unchecked-ip passes it through as it is",
            ));
        }
        let address = plain.map_or_else(|| address.parse(), Ok)?;
        if !whitelist.contains(&address) {
            whitelist.push(address);
        }
    }
    Ok(whitelist)
}

/// Rights with which a thief needs no second step.
const POWERS: [(Area, &str); 3] = [
    (Area::Wallet, "wallet:read_write lets the key withdraw"),
    (
        Area::Custody,
        "custody:read_write lets the key move funds in custody",
    ),
    (
        Area::Account,
        "account:read_write lets the key manage keys, its own rights among them",
    ),
];

/// Returns the powers that a scope gives, and what each of them means.
pub(in crate::cli) fn powers(scope: &Scope) -> Vec<(Area, &'static str)> {
    let given = |(area, _): &(Area, _)| scope.level(area) == Level::ReadWrite;
    POWERS.into_iter().filter(given).collect()
}

/// Rights with which a thief needs no second step are given with a second thought.
pub(super) fn confirm_rights(context: &Context, scope: &Scope) -> Result<(), Failure> {
    for (area, why) in powers(scope) {
        context.confirm(why, area.as_str())?;
    }
    Ok(())
}

/// Tells whether an interrupted operation is the one that is now asked for.
pub(super) fn same_wish(
    intent: &Intent,
    operation: Operation,
    network: &Network,
    spec: &Specification,
) -> Result<bool, Failure> {
    Ok(
        intent.operation == operation
            && intent.place.network()? == *network
            && intent.spec == *spec,
    )
}

/// Returns the steps of a registration.
pub(super) fn plan(
    name: &KeyName,
    network: &Network,
    spec: &Specification,
    make: &str,
) -> Vec<String> {
    let mut steps = vec![
        format!("would {make} the {} key {name}", spec.algorithm),
        format!("would register it on {network} as {}", spec.label),
    ];
    if spec.whitelist.is_empty() {
        steps.push(format!(
            "would give it {} at once, usable from any address",
            spec.scope
        ));
        steps.push("would prove it by a signed login".into());
    } else {
        let list: Vec<&str> = spec.whitelist.iter().map(Whitelisted::as_str).collect();
        steps.push("would prove it by a signed login while it has no rights".into());
        steps.push(format!(
            "would give it {} and the whitelist {} in one edit",
            spec.scope,
            list.join(" ")
        ));
    }
    steps
}
