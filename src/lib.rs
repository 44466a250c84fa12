//! Makes, registers, rotates and uses self-generated API keys for the Deribit exchange.
pub mod key;
pub mod secret;
pub mod signer;
