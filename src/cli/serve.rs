//! Commands that serve: the sandbox, completions, manual pages.

use std::{fs, path::Path};

use clap::CommandFactory;
use serde_json::json;

use super::{
    args::{Cli, SandboxArgs},
    connect::runtime,
    context::Context,
    inputs::Source,
    keys, report,
    report::Failure,
};
use crate::{
    exchange::Totp,
    sandbox::{Fault, Options, Sandbox},
    secret::TotpSeed,
};

pub(super) fn sandbox(context: &Context, args: &SandboxArgs) -> Result<(), Failure> {
    if !args.listen.ip().is_loopback() {
        let address = args.listen;
        return Err(crate::sandbox::Error::NotLoopback { address }.into());
    }
    let faults: Result<Vec<Fault>, _> = args.fault.iter().map(|fault| fault.parse()).collect();
    let faults = faults?;
    let totp_seed = match &args.totp_seed_file {
        Some(path) => {
            let line = Source::File(path.clone()).read_line("the TOTP seed")?;
            Totp::new(&TotpSeed::new(line.to_string()))?;
            Some(line.to_string())
        }
        None => None,
    };
    let options = Options {
        state_dir: context.store.subdir("sandbox")?,
        listen: args.listen,
        faults,
        totp_seed,
    };
    runtime()?.block_on(async {
        let sandbox = Sandbox::start(options).await?;
        let value = json!({
            "endpoint": sandbox.endpoint(),
            "admin_client_id": sandbox.admin_client_id(),
            "admin_secret_file": sandbox.admin_secret_file(),
        });
        context.output.result(&value, || keys::lines(&value))?;
        Ok(sandbox.run().await?)
    })
}

pub(super) fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "derikey", &mut script);
    report::write_out(&script)
}

pub(super) fn man(dir: &Path) -> Result<(), Failure> {
    let failed = |error| Failure::unexpected(format!("{}: {error}", dir.display()));
    fs::create_dir_all(dir).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), dir).map_err(failed)
}
