#!/usr/bin/env python3
"""Asks Python's cryptography about files that derikey wrote.

  check.py version                                       prints the version of cryptography
  check.py read FILE [PASSPHRASE-FILE]                    opens a private key (PEM); prints "SHA256-OF-SPKI ALGORITHM"
  check.py verify PUBLIC.pem MESSAGE-FILE SIGNATURE       verifies a signature in base64url without padding

Exit: 0 yes, 1 no (the reason on standard error), 2 wrong usage or no cryptography. The whole content of PASSPHRASE-FILE
is the passphrase, less one line break at its end. A sealed key without PASSPHRASE-FILE is a "no", and so is a plain key
with one.
"""

import base64
import hashlib
import re
import sys


def contents(path):
    with open(path, "rb") as file:
        return file.read()


def read(path, passphrase_path=None):
    password = None
    if passphrase_path is not None:
        password = re.sub(rb"\r?\n\Z", b"", contents(passphrase_path))
    data = contents(path)
    load = serialization.load_ssh_private_key if b"BEGIN OPENSSH" in data else serialization.load_pem_private_key
    public = load(data, password).public_key()
    if isinstance(public, ed25519.Ed25519PublicKey):
        algorithm = "ed25519"
    elif isinstance(public, rsa.RSAPublicKey):
        algorithm = f"rsa{public.key_size}"
    else:
        raise ValueError("neither Ed25519 nor RSA")
    spki = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    print(hashlib.sha256(spki).hexdigest(), algorithm)


def verify(public_path, message_path, signature):
    if not re.fullmatch(r"[A-Za-z0-9_-]+", signature):
        raise ValueError("not base64url without padding")
    raw = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != signature:
        raise ValueError("base64url with stray bits")
    public = serialization.load_pem_public_key(contents(public_path))
    message = contents(message_path)
    if isinstance(public, ed25519.Ed25519PublicKey):
        public.verify(raw, message)
    elif isinstance(public, rsa.RSAPublicKey):
        public.verify(raw, message, padding.PKCS1v15(), hashes.SHA256())
    else:
        raise ValueError("neither Ed25519 nor RSA")
    print("good")


def main(arguments):
    command, rest = (arguments or [""])[0], arguments[1:]
    if command == "version" and not rest:
        print(cryptography.__version__)
    elif command == "read" and len(rest) in (1, 2):
        read(*rest)
    elif command == "verify" and len(rest) == 3:
        verify(*rest)
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    try:
        import cryptography
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
    except ImportError as error:
        print(f"check.py: {error}", file=sys.stderr)
        sys.exit(2)
    try:
        sys.exit(main(sys.argv[1:]))
    except Exception as error:
        print(f"check.py: {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
