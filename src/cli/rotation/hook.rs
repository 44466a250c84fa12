//! The deploy hook: a program that is told of a new key, and may refuse it.

use std::{
    io::Write,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    cli::{args::HookArgs, context::Context, failure::Failure},
    exchange::Network,
    store::{Intent, Issued},
};

/// How many seconds a deploy hook may take, unless something else was named.
const HOOK_TIME: u64 = 60;

/// Reads the program and its arguments; none where none was named.
pub(super) fn words(args: &HookArgs) -> Result<Vec<String>, Failure> {
    match &args.deploy_hook {
        None => Ok(Vec::new()),
        Some(line) => shlex::split(line)
            .filter(|words| !words.is_empty())
            .ok_or_else(|| {
                Failure::usage("--deploy-hook is no command line")
                    .hint("it is run without a shell; quote its words as for one")
            }),
    }
}

/// Tells a program of a new key: JSON on its standard input, names in its environment.
pub(super) fn run(context: &Context, intent: &Intent, issued: &Issued) -> Result<(), String> {
    let succession = intent.succession.as_ref();
    let Some((program, arguments)) = succession.and_then(|s| s.hook.split_first()) else {
        return Ok(());
    };
    let network = intent.place.network().map_err(|e| e.to_string())?;
    let path = |file| {
        context
            .store
            .path(&intent.name, intent.generation, file)
            .map_err(|e| e.to_string())
    };
    let event = json!({
        "event": "deploy",
        "operation": intent.operation,
        "name": intent.name,
        "generation": intent.generation,
        "network": network.name(),
        "endpoint": match &network {
            Network::Custom(endpoint) => Some(endpoint),
            _ => None,
        },
        "client_id": issued.client_id,
        "key_id": issued.key_id,
        "fingerprint": intent.fingerprint,
        "private_key_path": path("private.pem")?,
        "public_key_path": path("public.pem")?,
        "old_client_id": succession.map(|s| &s.client_id),
    });
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(std::io::stderr());
    // Under names that mean the same to a derikey that the program runs.
    let fields = event.as_object().into_iter().flatten();
    for (field, value) in fields.filter(|(_, value)| !value.is_null()) {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        command.env(format!("DERIKEY_{}", field.to_uppercase()), text);
    }
    let mut child = command
        .spawn()
        .map_err(|error| format!("cannot be started: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook that does not read its input is free not to.
        let _ = writeln!(stdin, "{event}");
    }
    let time = succession.and_then(|s| s.hook_timeout).unwrap_or(HOOK_TIME);
    let deadline = Instant::now() + Duration::from_secs(time);
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("failed ({status})")),
            Ok(None) if Instant::now() >= deadline => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("took longer than {time} s"));
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(20)),
            Err(error) => return Err(format!("was lost: {error}")),
        }
    }
}
