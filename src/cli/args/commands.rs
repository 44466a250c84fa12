//! Which commands there are, and what clap is told of each.

use clap::{ArgMatches, Args, FromArgMatches, error::ErrorKind};

use super::{
    Adopt, AgentArgs, ApplyArgs, Auth, Doctor, DriftArgs, Edit, Exec, Export, FingerprintOf,
    Generate, Import, List, Name, Pages, Panic, Passwd, PlanArgs, Provision, Register, Resume,
    Rollback, Rotate, SandboxArgs, ScopeArgs, Script, SignArgs, Target, Token, Verify, Which,
};

/// Makes of a list what clap derives from an enum, but so that each command can be described alone.
macro_rules! commands {
    ($(#[doc = $about:literal] $name:literal => $variant:ident $(($arguments:ty))?,)+) => {
        #[derive(Debug)]
        pub(in crate::cli) enum Command {
            $(#[doc = $about] $variant $(($arguments))?,)+
        }

        impl Command {
            /// What each is called, and what it does.
            pub(super) const ALL: &[(&str, &str)] = &[$(($name, $about.trim_ascii())),+];

            /// Describes a command with its arguments.
            pub(super) fn describe(name: &str) -> Option<clap::Command> {
                match name {
                    $($name => {
                        let command = clap::Command::new($name);
                        $(let command = <$arguments as Args>::augment_args(command);)?
                        // The arguments have said what they are about.
                        Some(command.about($about.trim_ascii()).long_about(None))
                    })+
                    _ => None,
                }
            }

            /// Takes from what clap has read which command it is, and its arguments.
            pub(super) fn from_matches(matches: &mut ArgMatches) -> Result<Self, clap::Error> {
                let Some((name, mut arguments)) = matches.remove_subcommand() else {
                    let what = "there is no command";
                    return Err(clap::Error::raw(ErrorKind::MissingSubcommand, what));
                };
                match name.as_str() {
                    $($name => Ok(Self::$variant $((
                        <$arguments>::from_arg_matches_mut(&mut arguments)?
                    ))?),)+
                    _ => Err(clap::Error::raw(ErrorKind::InvalidSubcommand, name)),
                }
            }
        }
    };
}

commands! {
    /// Make, register and prove a key: the main job, in one command
    "provision" => Provision(Provision),
    /// Make a key pair in the keystore
    "generate" => Generate(Generate),
    /// Take a key made elsewhere into the keystore
    "import" => Import(Import),
    /// Print the public half as PEM
    "public" => Public(Which),
    /// Print the fingerprint by which the exchange names the key
    "fingerprint" => Fingerprint(FingerprintOf),
    /// Show what is known of a key
    "show" => Show(Which),
    /// Change the passphrase of a key
    "passwd" => Passwd(Passwd),
    /// Print the private key as PKCS#8, sealed
    "export" => Export(Export),
    /// Move a key to the trash
    "delete" => Delete(Name),
    /// Register a key that is in the keystore
    "register" => Register(Register),
    /// Bind a key whose public half was pasted into the web form
    "adopt" => Adopt(Adopt),
    /// List the keys
    "list" => List(List),
    /// Change rights, label, whitelist or features at the exchange
    "edit" => Edit(Edit),
    /// Let a key log in again
    "enable" => Enable(Target),
    /// Stop a key from logging in
    "disable" => Disable(Target),
    /// Take a key away at the exchange, for good; its files here go to the trash
    "remove" => Remove(Target),
    /// Put a new key in the place of the one in use
    "rotate" => Rotate(Rotate),
    /// Put the key before back in its place
    "rollback" => Rollback(Rollback),
    /// Disable every key that matches, at once
    "panic" => Panic(Panic),
    /// Show what it takes to have the account as a fleet file declares it
    "plan" => Plan(PlanArgs),
    /// Have the account as a fleet file declares it
    "apply" => Apply(ApplyArgs),
    /// Find what is not as a fleet file declares it; exit with 10 if anything is
    "drift" => Drift(DriftArgs),
    /// Find what is wrong, and say how to mend it
    "doctor" => Doctor(Doctor),
    /// Show the audit log and verify its chain
    "audit" => Audit,
    /// Rights in words
    "scope" => Scope(ScopeArgs),
    /// Prove that a key works: log in and print what was granted
    "auth" => Auth(Auth),
    /// Print an access token for a bot
    "token" => Token(Token),
    /// Sign a login or a request, without touching the network
    "sign" => Sign(SignArgs),
    /// Check a signed login or request, read from standard input
    "verify" => Verify(Verify),
    /// Finish what was interrupted
    "resume" => Resume(Resume),
    /// Show what was interrupted
    "status" => Status,
    /// Hold keys for other programs, which ask for logins, tokens and requests
    "agent" => Agent(AgentArgs),
    /// Run a program that finds the agent and its key in its environment
    "exec" => Exec(Exec),
    /// Serve the local exchange over HTTP
    "sandbox" => Sandbox(SandboxArgs),
    /// Print a completion script
    "completions" => Completions(Script),
    /// Write manual pages
    "man" => Man(Pages),
}
