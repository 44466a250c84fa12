//! What can go wrong: the rooms' errors, and those that exist only between rooms.

use crate::{
    exchange::{self, Scope},
    key::{self, Fingerprint, KeyName},
    signer,
    store::{self, Stage},
};

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A key or a text to sign.
    #[error(transparent)]
    Key(#[from] key::Error),
    /// The disk.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The signer.
    #[error(transparent)]
    Signer(#[from] signer::Error),
    /// The exchange.
    #[error(transparent)]
    Exchange(#[from] exchange::Error),
    /// More or less than was asked for.
    #[error("the exchange granted {granted:?}, not the {asked:?} that was asked for", granted = .granted.to_string(), asked = .asked.to_string())]
    ScopeDiffers {
        /// What was asked for.
        asked: Scope,
        /// What was granted.
        granted: Scope,
    },
    /// The exchange answered with another key than ours.
    #[error("the exchange has another key than {ours}: {problem}")]
    ForeignKey {
        /// Our key.
        ours: Fingerprint,
        /// What gave it away.
        problem: &'static str,
    },
    /// The exchange did not take over a setting.
    #[error("the exchange did not take over the {what} that was sent")]
    SettingDiffers {
        /// Which.
        what: &'static str,
    },
    /// The account has no such key (any more).
    #[error("the account has no key with id {id}")]
    NoSuchApiKey {
        /// The id.
        id: exchange::KeyId,
    },
    /// The id is another key's: the administrator is of another account, or the key was replaced.
    #[error("the account's key with id {id} is not {ours}")]
    ForeignId {
        /// The id.
        id: exchange::KeyId,
        /// The key it should be.
        ours: exchange::ClientId,
    },
    /// The program that was told of a new key did not want it; everything is as it was before.
    #[error("the deploy hook {problem}; the new key was taken back and the old one is in use")]
    Hook {
        /// What it did.
        problem: String,
    },
    /// The key to be used from now on does not work, so that the other is not taken out of use.
    #[error("the key {client_id} is {problem}; the one that it takes the place of stays as it is")]
    SuccessorUnusable {
        /// The key that was to be used.
        client_id: exchange::ClientId,
        /// What has become of it.
        problem: &'static str,
    },
    /// The account has a key that may be ours and does not show enough of it to tell.
    #[error(
        "the account has a key labelled {label:?} and shows neither its public key nor its fingerprint: it may be this one"
    )]
    Undecided {
        /// Its label.
        label: String,
    },
    /// A login failed and the clocks disagree.
    #[error("this clock is {skew}, and {source}")]
    Skew {
        /// By how much.
        skew: exchange::Skew,
        /// The refusal of the login.
        source: exchange::Error,
    },
    /// Somebody has changed the key since an edit was begun, and the edit would give it more again.
    #[error(
        "{client_id} was changed in the meantime, and going on would give it more than it has now"
    )]
    ChangedMeanwhile {
        /// The key.
        client_id: exchange::ClientId,
    },
    /// Going on would enable a key that was disabled meanwhile, or leave none that works.
    #[error("{name} was disabled in the meantime")]
    Disabled {
        /// The key.
        name: KeyName,
    },
    /// An operation stopped where it can be taken up again.
    #[error("{operation} of {name} stopped at {stage}: {source}", stage = .stage.as_str())]
    Unfinished {
        /// The key.
        name: KeyName,
        /// What was being done.
        operation: &'static str,
        /// How far it had come.
        stage: Stage,
        /// What stopped it.
        source: Box<Self>,
    },
}
