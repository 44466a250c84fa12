//! Makes, registers, rotates and uses self-generated API keys for the Deribit exchange.
#[cfg(feature = "sandbox")]
pub mod sandbox;
pub mod secret;
