//! The command line: the only room with a terminal, a clock and an environment.

use std::{ffi::OsString, mem::ManuallyDrop, process::ExitCode};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use rustix::{
    fs::Mode,
    process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit, umask},
};

mod answer;
mod args;
mod audit;
mod books;
mod checkup;
mod clients;
mod config;
mod connect;
mod context;
mod defect;
mod events;
mod failure;
mod fleet;
mod health;
mod holding;
mod inputs;
mod keys;
mod login;
mod manage;
mod memory;
mod panic;
mod pending;
mod registry;
mod remote;
mod report;
mod rotation;
mod scopes;
mod second_factor;
mod serve;
mod signers;
mod signing;
mod stamper;
mod terminal;

#[doc(hidden)]
pub use config::Config;

use args::{Cli, Command};
use context::Context;
use failure::Failure;

use crate::{secret::shelter_keys, store::Operation};

/// Runs the program and returns its exit code.
pub fn run() -> ExitCode {
    harden();
    // Nothing has used aws-lc yet. Where it cannot be, `status` and `doctor` tell.
    shelter_keys();
    defect::contain(program)
}

/// Reads what was typed.
fn typed() -> Result<Cli, clap::Error> {
    let words: Vec<_> = std::env::args_os().collect();
    // The operating system takes it apart faster.
    let mut command = ManuallyDrop::new(Cli::description_for(&words));
    let matches = command.try_get_matches_from_mut(words);
    let mut matches = matches.map_err(|error| error.format(&mut command))?;
    Cli::from_matches(&mut matches).map_err(|error| error.format(&mut command))
}

fn program() -> ExitCode {
    let cli = match typed() {
        Ok(cli) => cli,
        Err(error) => return mistyped(&error),
    };
    // Until there is something to put right, a signal ends it as it ends any program.
    terminal::obey_signals();
    let json = cli.global.json;
    match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json),
    }
}

/// Keeps other processes of the same user, and core files, away from this one's memory.
///
/// Before the first secret is read. Where the system refuses, the program is as safe as any other.
fn harden() {
    #[cfg(target_os = "linux")]
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _ = setrlimit(Resource::Core, none);
    // What would be hidden from its own owner could never be opened again.
    let before = umask(Mode::RWXU.complement());
    let _ = umask(before.difference(Mode::RWXU));
}

fn dispatch(cli: Cli) -> Result<(), Failure> {
    // These need no state.
    match cli.command {
        Command::Completions(args) => return serve::completions(args.shell),
        Command::Man(args) => return serve::man(&cli.global, &args.dir),
        _ => {}
    }
    let context = Context::open(cli.global)?;
    // These tell what is wrong with the memory, among other things.
    if !matches!(cli.command, Command::Doctor(_) | Command::Status) {
        memory::insist(&context)?;
    }
    match cli.command {
        Command::Generate(args) => keys::generate(&context, &args),
        Command::Import(args) => keys::import(&context, &args),
        Command::Public(args) => keys::public(&context, &args),
        Command::Fingerprint(args) => keys::fingerprint(&context, &args),
        Command::Show(args) => keys::show(&context, &args),
        Command::Passwd(args) => keys::passwd(&context, &args),
        Command::Export(args) => keys::export(&context, &args),
        Command::Delete(args) => keys::delete(&context, &args),
        Command::List(args) if args.remote => remote::list(&context, &args),
        Command::List(_) => keys::list(&context),
        Command::Edit(args) => manage::edit(&context, &args),
        Command::Enable(args) => manage::set(&context, &args, Operation::Enable),
        Command::Disable(args) => manage::set(&context, &args, Operation::Disable),
        Command::Remove(args) => manage::set(&context, &args, Operation::Remove),
        Command::Rotate(args) => rotation::rotate(&context, &args),
        Command::Rollback(args) => rotation::rollback(&context, &args),
        Command::Panic(args) => panic::panic(&context, &args),
        Command::Plan(args) => fleet::plan(&context, &args),
        Command::Apply(args) => fleet::apply(&context, &args),
        Command::Drift(args) => fleet::drift(&context, &args),
        Command::Doctor(args) => health::doctor(&context, &args),
        Command::Audit => audit::show(&context),
        Command::Scope(args) => scopes::scope(&context, &args.what),
        Command::Provision(args) => registry::provision(&context, &args),
        Command::Register(args) => registry::register(&context, &args),
        Command::Adopt(args) => registry::adopt(&context, &args),
        Command::Resume(args) => pending::resume(&context, &args),
        Command::Status => pending::status(&context),
        Command::Auth(args) => login::auth(&context, &args),
        Command::Token(args) => login::token(&context, &args),
        Command::Sign(args) => signing::sign(&context, &args.what),
        Command::Verify(args) => signing::verify(&context, &args),
        Command::Agent(args) => holding::agent(context, &args),
        Command::Exec(args) => clients::exec(&context, &args),
        Command::Sandbox(args) => serve::sandbox(&context, &args),
        Command::Completions(_) | Command::Man(_) => Ok(()),
    }
}

/// Reports that a command was left out, of the program or of one of its commands.
fn incomplete(error: &clap::Error, json: bool) -> ExitCode {
    let mut program = Cli::description();
    program.build();
    let typed: Vec<OsString> = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(path)) => path.split(' ').map(OsString::from).collect(),
        // It shows the help without saying of what, and only where nothing follows.
        _ => std::env::args_os().collect(),
    };
    // From the end: before it may stand the value of an option that is the name of a command.
    let group = typed.iter().skip(1).rev().find_map(|word| {
        let command = program.find_subcommand(word);
        command.filter(|c| c.has_subcommands()).cloned()
    });
    let mut command = group.unwrap_or(program);
    if !json {
        let help = command.render_help();
        let _ = std::io::Write::write_all(&mut std::io::stderr(), help.to_string().as_bytes());
        return ExitCode::from(2);
    }
    let name = command.get_bin_name().unwrap_or("derikey").to_owned();
    let commands = command.get_subcommands().map(clap::Command::get_name);
    let names: Vec<&str> = commands.filter(|name| *name != "help").collect();
    Failure::usage(format!("{name} needs a command"))
        .hint(format!("one of {}; see {name} --help", names.join(", ")))
        .report(json)
}

/// Reports what clap has to say: help on standard output, a mistake as a failure.
fn mistyped(error: &clap::Error) -> ExitCode {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        return match report::write_out(error.to_string().as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => failure.report(false),
        };
    }
    let json = std::env::args_os().any(|arg| arg == "--json");
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand
    ) {
        return incomplete(error, json);
    }
    let text = error.to_string();
    let mut paragraphs = text
        .split("\n\n")
        .map(|p| p.split_whitespace().collect::<Vec<_>>().join(" "));
    let cause = paragraphs.next().unwrap_or_default();
    let cause = cause.strip_prefix("error: ").unwrap_or(&cause).to_owned();
    let mut cures: Vec<String> = paragraphs
        .filter(|p| !p.is_empty() && !p.starts_with("For more information"))
        .map(|p| {
            p.strip_prefix("tip: ")
                .map_or_else(|| p.clone(), str::to_owned)
        })
        .collect();
    cures.push("see --help".into());
    Failure::usage(cause).hint(cures.join("; ")).report(json)
}
