//! What happens at the exchange, told in words while it happens.

use super::{context::Context, keys::purge};
use crate::{exchange::Whitelisted, provision::Event};

pub(super) fn tell(context: &Context, event: &Event<'_>) {
    let output = context.output;
    match event {
        Event::OperatorLoggedIn => output.remark("the administrator has logged in"),
        Event::Creating(scope) => {
            output.remark(format!("registering the public half with scope {scope}"))
        }
        Event::Searching => output.remark("looking for the key among the account's keys"),
        Event::Registered(key) => output.remark(format!(
            "the exchange has it as {} (id {})",
            key.client_id, key.id
        )),
        Event::LabelDiffers(label) => {
            output.remark(format!("warning: the exchange labels it {label:?}"))
        }
        Event::FingerprintDiffers => {
            output.remark("warning: the exchange names this RSA key by another fingerprint; its public key is ours");
        }
        Event::Proven(scope) => {
            let granted = if scope.allowed().next().is_none() {
                "no right yet".into()
            } else {
                scope.to_string()
            };
            output.remark(format!(
                "proved it by a signed login, which was granted {granted}"
            ));
        }
        Event::Granted(scope, whitelist) => {
            let list: Vec<&str> = whitelist.iter().map(Whitelisted::as_str).collect();
            output.remark(format!(
                "gave it scope {scope} and whitelist {} in one edit",
                list.join(" ")
            ));
        }
        Event::Switched(generation) => output.remark(format!("generation {generation} is in use")),
        Event::Withheld(others) => output.remark(format!(
            "warning: {others} of the account's keys cannot be read, and are not looked at"
        )),
        Event::Illegible(generation, error) => output.remark(format!(
            "warning: generation {generation} cannot be read and is left as it is: {error}"
        )),
        Event::Clearing(generation) => output.remark(format!(
            "removing generation {generation}, which was superseded before"
        )),
        Event::Buried(grave) => output.remark(format!(
            "its files are in {}; to purge them: {}",
            grave.display(),
            purge(grave)
        )),
        Event::Disabled(client_id) => output.remark(format!("disabled the old key {client_id}")),
        Event::Swept(key, None) => {
            output.remark(format!("disabled {} ({})", key.client_id, key.name))
        }
        Event::Swept(key, Some(why)) => {
            output.remark(format!("{} ({}): {why}", key.client_id, key.name))
        }
        Event::OneByOne(count) => output.remark(format!(
            "{count} more are asked for one after another: they want a code each, or patience"
        )),
        Event::NotFromHere => {
            output.remark("this host is not on its whitelist: the key works from there only, which was not tried");
        }
    }
}
