//! What it takes to get from the account as it is to the fleet as it is declared.

use std::fmt;

use super::Declared;
use crate::{
    exchange::{ApiKey, ClientId, Network},
    key::{Algorithm, PublicKey},
    provision::{Difference, Survey},
    store::{Intent, Operation, Record, Registration},
};

/// How many keys an account holds (Deribit, "Connection management").
pub const KEYS_OF_AN_ACCOUNT: usize = 8;

/// A declared key as it is on this machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Local {
    /// What is recorded of it, if it is here.
    pub record: Option<Record>,
    /// Its public half.
    pub public: Option<PublicKey>,
    /// What is under way with it.
    pub pending: Option<Intent>,
}

impl Local {
    pub(super) fn known(&self) -> Option<&Registration> {
        self.record.as_ref()?.registration.as_ref()
    }
}

/// A declared key, and what is to be done about it.
#[derive(Debug)]
pub struct Row<'a> {
    /// What is declared.
    pub declared: &'a Declared,
    /// What the account has of it.
    pub key: Option<&'a ApiKey>,
    /// How that is not what is declared.
    pub differences: Vec<Difference>,
    /// What comes of it.
    pub verdict: Verdict,
}

impl Row<'_> {
    /// Returns what is to be done, in this order.
    pub fn steps(&self) -> &[Step] {
        match &self.verdict {
            Verdict::Steps(steps) => steps,
            Verdict::Settled(_) | Verdict::Blocked(_) => &[],
        }
    }
}

/// What comes of holding a key against what is declared of it.
#[derive(Debug)]
pub enum Verdict {
    /// Nothing.
    Settled(Settled),
    /// This is done.
    Steps(Vec<Step>),
    /// Something has to be settled by hand first.
    Blocked(Block),
}

/// Why nothing is to be done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Settled {
    /// It is as it is declared.
    AsDeclared,
    /// It is not there, and is not to be enabled.
    NotThere,
    /// It is as it is declared, and something else is done with it.
    UnderWay(Operation),
}

/// One step towards what is declared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Step {
    /// What is done.
    pub action: Action,
    /// What it does to the rights in the account.
    pub reach: Reach,
}

/// What is done to a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// It is made, registered and proven.
    Create,
    /// It is here; it is registered and proven.
    Register,
    /// Its settings are changed.
    Edit,
    /// It may log in.
    Enable,
    /// It may not log in any more.
    Disable,
}

impl Action {
    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Register => "register",
            Self::Edit => "edit",
            Self::Enable => "enable",
            Self::Disable => "disable",
        }
    }
}

/// What a step does to the rights in the account; steps are taken in this order.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Reach {
    /// It finishes what is under way, which stands in the way of everything else.
    Finishes,
    /// It takes rights away.
    Less,
    /// It makes a key, which nobody uses yet.
    New,
    /// It gives rights.
    More,
}

/// What must be settled by hand before anything can be done about a key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Block {
    /// Something else is under way.
    Pending(Operation),
    /// It is of another algorithm, which no key can change.
    Algorithm {
        /// What it is.
        is: Algorithm,
        /// What it is declared to be.
        declared: Algorithm,
    },
    /// It belongs to another network, for ever.
    OtherNetwork(Network),
    /// It is recorded as registered, and the account does not have it.
    Missing(ClientId),
    /// The account has another public key under its client id.
    OtherKey(ClientId),
    /// The account knows it under another client id than is recorded.
    OtherId {
        /// What is recorded.
        recorded: ClientId,
        /// What the account says.
        there: ClientId,
    },
    /// The account has it, and nothing is recorded of that.
    Unbound(ClientId),
    /// A key of that label, which is not here, may log in.
    Label(ClientId),
    /// It would lock its owner out.
    LockOut(String),
    /// What is here cannot be read.
    Unreadable {
        /// What is wrong with it.
        problem: String,
        /// What to do about it.
        cure: String,
    },
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending(operation) => {
                write!(
                    f,
                    "{} of it was interrupted or is under way",
                    operation.as_str()
                )
            }
            Self::Algorithm { is, declared } => write!(f, "it is {is}, and declared as {declared}"),
            Self::OtherNetwork(network) => write!(f, "it belongs to the {network} network"),
            Self::Missing(id) => write!(f, "it is registered as {id}, which the account has not"),
            Self::OtherKey(id) => write!(f, "the account has another public key under {id}"),
            Self::OtherId { recorded, there } => write!(
                f,
                "it is recorded as {recorded}, and the account knows its public key as {there}"
            ),
            Self::Unbound(id) => write!(
                f,
                "the account has its public key as {id}, and nothing is recorded of that here"
            ),
            Self::Label(id) => write!(
                f,
                "the account has an enabled key of that label, {id}, which is not this one"
            ),
            Self::LockOut(why) => write!(f, "that would lock you out: {why}"),
            Self::Unreadable { problem, .. } => f.write_str(problem),
        }
    }
}

/// Returns all steps in the order in which they are taken, each with the row that it is of.
pub fn order(rows: &[Row<'_>]) -> Vec<(usize, Step)> {
    let steps = rows.iter().enumerate();
    let mut steps: Vec<(usize, Step)> = steps
        .flat_map(|(row, of)| of.steps().iter().map(move |step| (row, *step)))
        .collect();
    // Stable, so that the steps of one key stay in their order.
    steps.sort_by_key(|(_, step)| step.reach);
    steps
}

/// Returns how many keys the account would hold in the end.
pub fn held(rows: &[Row<'_>], survey: &Survey) -> usize {
    let makes = |row: &&Row<'_>| {
        let mut steps = row.steps().iter();
        let makes = steps.any(|step| matches!(step.action, Action::Create | Action::Register));
        makes && row.key.is_none()
    };
    survey.0.len() + rows.iter().filter(makes).count()
}
