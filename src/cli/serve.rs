//! Commands that serve: the sandbox, completions, manual pages.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::Path,
};

use serde_json::json;

use super::{
    answer,
    args::{Cli, Global, SandboxArgs},
    connect::runtime,
    context::Context,
    failure::Failure,
    inputs::Source,
    report::{self, Output},
};
use crate::{
    exchange::Totp,
    sandbox::{Fault, Options, Sandbox},
    secret::TotpSeed,
    store,
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
    if context.global.dry_run {
        let step = format!("would be an exchange at {}", args.listen);
        return answer::plan(context, &[step]);
    }
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
        context.output.result(&value, || answer::lines(&value))?;
        Ok(sandbox.run().await?)
    })
}

pub(super) fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::description(), "derikey", &mut script);
    report::write_out(&script)
}

pub(super) fn man(global: &Global, dir: &Path) -> Result<(), Failure> {
    if global.dry_run {
        if fs::metadata(dir).is_ok_and(|there| !there.is_dir()) {
            return Err(at(dir)(io::ErrorKind::NotADirectory.into()));
        }
        let step = format!("would write manual pages to {}", dir.display());
        return answer::plan_on(Output::of(global), &[step]);
    }
    fs::create_dir_all(dir).map_err(at(dir))?;
    let mut command = Cli::description().disable_help_subcommand(true);
    command.build();
    man_pages(dir, &command)
}

fn man_pages(dir: &Path, command: &clap::Command) -> Result<(), Failure> {
    for subcommand in command.get_subcommands() {
        man_pages(dir, subcommand)?;
    }
    let page = clap_mangen::Man::new(command.clone());
    let path = dir.join(page.get_filename());
    let mut text = Vec::new();
    page.render(&mut text).map_err(at(&path))?;
    // A page of an earlier version makes way; what a link leads to is not written.
    match fs::symlink_metadata(&path) {
        Ok(there) if there.is_file() && there.nlink() == 1 => fs::remove_file(&path),
        Ok(_) => return Err(store::Error::NotAFile { path }.into()),
        Err(_) => Ok(()),
    }
    .and_then(|()| fs::File::create_new(&path)?.write_all(&text))
    .map_err(at(&path))
}

fn at(path: &Path) -> impl Fn(io::Error) -> Failure + '_ {
    move |source| {
        let path = path.into();
        store::Error::Io { path, source }.into()
    }
}
