//! What no holder of a secret can do, as code that must not compile; for `cargo test --doc` only.
//!
//! `compile_fail` is content with any mistake. So each forbidden example names the error that is
//! meant, and has a twin without the one line that is at fault, which compiles. That error is
//! compared by rustdoc on nightly only; on stable it is the twin that leaves no other mistake.

macro_rules! forbidden {
    ($($name:ident: $secret:literal),* $(,)?) => { $(
        // What cannot be cloned cannot be copied either.
        forbidden!(@each $name, $secret,
            "Clone", "std::fmt::Display", "serde::Serialize", "PartialEq", "std::ops::Deref");
    )* };
    (@each $name:ident, $secret:literal, $($trait:literal),*) => {
        $(
            #[doc = concat!("```\n", forbidden!(@shared $secret, $trait), "}\n```")]
            #[doc = concat!(
                "```compile_fail,E0277\n", forbidden!(@shared $secret, $trait),
                "    can::<Secret>();\n}\n```"
            )]
        )*
        pub mod $name {}
    };
    // What is forbidden here is what a box of text can do.
    (@shared $secret:literal, $trait:literal) => {
        concat!(
            "type Secret = ", $secret, ";\n",
            "fn can<T: ", $trait, ">() {}\n",
            "fn holds(secret: Secret) {\n    drop(secret);\n    can::<Box<str>>();\n",
        )
    };
}

forbidden! {
    secret: "derikey::secret::Secret<Vec<u8>>",
    passphrase: "derikey::secret::Passphrase",
    access_token: "derikey::secret::AccessToken",
    refresh_token: "derikey::secret::RefreshToken",
    client_secret: "derikey::secret::ClientSecret",
    one_time_code: "derikey::secret::OneTimeCode",
    totp_seed: "derikey::secret::TotpSeed",
    private_key: "derikey::key::PrivateKey",
    symmetric_key: "derikey::key::SymmetricKey",
    totp: "derikey::exchange::Totp",
    session: "derikey::exchange::Session",
    outgoing: "derikey::exchange::Outgoing",
    incoming: "derikey::exchange::Incoming",
    local_signer: "derikey::signer::LocalSigner<()>",
}
