//! Makes, registers, rotates and uses self-generated API keys for the Deribit exchange.
pub mod secret;
