use super::MAX_INPUT;

/// What can be wrong with a key, a name, or a text to sign.
///
/// Nothing secret is ever part of an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is nothing to read.
    #[error("the input is empty")]
    Empty,
    /// No key is this long.
    #[error("the input has more than {MAX_INPUT} bytes")]
    TooLarge,
    /// Neither a key nor anything else that is known by sight.
    #[error("not a key in any format that is known here")]
    Unrecognised,
    /// The right kind of thing, but its contents do not parse.
    #[error("damaged or malformed {what}")]
    Malformed {
        /// The structure that does not parse.
        what: &'static str,
    },
    /// More than one key or certificate in one input.
    #[error("the input holds more than one key")]
    Several,
    /// A public key, where a private one is meant.
    #[error("this is a public key, not a private one")]
    Public,
    /// A private key, where a public one is meant.
    #[error("this is a private key, not a public one")]
    Private,
    /// A certificate or a request for one.
    #[error("this is a certificate, not a key")]
    Certificate,
    /// A key or text of another family of tools.
    #[error("this is {format}, which is not supported")]
    Foreign {
        /// What the input is.
        format: &'static str,
    },
    /// A key of another algorithm than Ed25519 and RSA.
    #[error("{algorithm} keys are not supported; Deribit takes Ed25519 and RSA keys")]
    Unsupported {
        /// Its name, else its object identifier.
        algorithm: String,
    },
    /// An SSH key whose private half stays in a security key (FIDO).
    #[error("the private half of this SSH key is in a hardware security key")]
    HardwareKey,
    /// PEM encryption from before PKCS#8 (`Proc-Type: 4,ENCRYPTED`).
    #[error(
        "legacy PEM encryption (Proc-Type: 4,ENCRYPTED) is not supported; \
         convert with \"openssl pkcs8 -topk8 -v2 aes-256-cbc\""
    )]
    LegacyEncryption,
    /// Sealed, and no passphrase was given.
    #[error("the key is sealed with a passphrase")]
    Sealed,
    /// The passphrase does not open the key. The formats cannot tell this from damage.
    #[error("wrong passphrase, or the key is damaged")]
    WrongPassphrase,
    /// An empty passphrase protects nothing.
    #[error("the passphrase is empty")]
    EmptyPassphrase,
    /// Sealed in a way other than PBES2 with PBKDF2 or scrypt and AES-CBC, or OpenSSH's.
    #[error("the key is sealed with a method that is not supported")]
    UnsupportedSealing,
    /// Opening it would take more time or memory than any honest file asks for.
    #[error("the key derivation asks for too much: {what}")]
    Costly {
        /// The parameter and its bound.
        what: &'static str,
    },
    /// An RSA modulus of a size that is not made here.
    #[error("the RSA key has {bits} bits; supported are 2048, 3072 and 4096")]
    RsaSize {
        /// Its size.
        bits: usize,
    },
    /// An RSA public exponent that is even, below 65537 or above 33 bits.
    #[error("the public exponent of the RSA key is even, below 65537 or above 33 bits")]
    RsaExponent,
    /// The public key beside a private key is another one's.
    #[error("the embedded public key does not belong to the private key")]
    Mismatch,
    /// Parses, but its numbers are not those of a key.
    #[error("the numbers of this {algorithm} key do not make a valid key")]
    Invalid {
        /// The kind of key.
        algorithm: &'static str,
    },
    /// Not the name of an algorithm.
    #[error("no such algorithm: {0:?}; there are ed25519, rsa-2048, rsa-3072 and rsa-4096")]
    Algorithm(String),
    /// Not the name of a key derivation function.
    #[error("no such key derivation function: {0:?}; there are scrypt and pbkdf2")]
    Kdf(String),
    /// Not sixteen pairs of hexadecimal digits.
    #[error("not a fingerprint: sixteen pairs of hexadecimal digits, joined by colons")]
    Fingerprint,
    /// Not a name.
    #[error("a key name has 1 to 16 letters, digits or underscores, not {0:?}")]
    Name(String),
    /// Not a nonce.
    #[error("a nonce has 1 to 64 visible ASCII characters without comma and quotes")]
    Nonce,
    /// A control character, with which one text could pass for another.
    #[error("{what} must not contain control characters")]
    Control {
        /// The field.
        what: &'static str,
    },
    /// Not an HTTP method.
    #[error("a method has 1 to 16 capital letters")]
    Method,
    /// Not the path of a request.
    #[error("a path begins with \"/\" and has visible ASCII characters only, without \"#\"")]
    Uri,
    /// Not base64url without padding, or of a length that no signature has.
    #[error("not a signature in base64url without padding")]
    Signature,
    /// The signature is not this key's signature of this message.
    #[error("the signature does not verify")]
    Forged,
    /// The cryptographic library failed.
    #[error("the cryptographic library failed while {doing}")]
    Library {
        /// What it was asked to do.
        doing: &'static str,
    },
}
