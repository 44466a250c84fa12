#!/usr/bin/env python3
"""Made the *.python.* and *.rfc8032.* files of tests/data/keys (cryptography 48); need not be run again.

Usage: python.py DIRECTORY. Every run makes new keys, so index.json and signatures.json change with it.
"""

import hashlib
import os
import pathlib
import sys

from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

import der

PASSPHRASE = b"correct horse"
SEALED = BestAvailableEncryption(PASSPHRASE)
PKCS8, PKCS1, OPENSSH = PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL, PrivateFormat.OpenSSH
PEM, DER = Encoding.PEM, Encoding.DER

# RFC 8032, section 7.1, test 1
RFC8032_SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
# The public key of the example of private/create_api_key in Deribit's documentation
DERIBIT_PUBLIC = """-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAM7FWhKquNqLmTOV4hfYT5r3AjrYiORTT6Tn5HIfFNV8=
-----END PUBLIC KEY-----
"""


def main(directory):
    def write(name, data):
        (directory / name).write_bytes(data)

    keys = {"ed25519": ed25519.Ed25519PrivateKey.generate()}
    for bits in 2048, 3072, 4096:
        keys[f"rsa{bits}"] = rsa.generate_private_key(65537, bits)

    for name, key in keys.items():
        public = key.public_key().public_bytes(PEM, PublicFormat.SubjectPublicKeyInfo)
        write(f"{name}.python.pub.pem", public)
        write(f"{name}.python.pem", key.private_bytes(PEM, PKCS8, NoEncryption()))
        write(f"{name}.python.pbes2.pem", key.private_bytes(PEM, PKCS8, SEALED))
        if name in ("rsa3072", "rsa4096"):
            continue
        write(f"{name}.python.der", key.private_bytes(DER, PKCS8, NoEncryption()))
        write(f"{name}.python.pbes2.der", key.private_bytes(DER, PKCS8, SEALED))
        write(f"{name}.python.openssh.pem", key.private_bytes(PEM, OPENSSH, NoEncryption()))
    write("rsa2048.python.pkcs1.pem", keys["rsa2048"].private_bytes(PEM, PKCS1, NoEncryption()))
    write("rsa2048.python.pkcs1.der", keys["rsa2048"].private_bytes(DER, PKCS1, NoEncryption()))

    # By hand: what cryptography does not write.
    seed = keys["ed25519"].private_bytes_raw()
    two = der.ed25519_v2(seed, keys["ed25519"].public_key().public_bytes_raw())
    write("ed25519.python.pkcs8-v2.der", two)
    write("ed25519.python.pkcs8-v2.pem", der.pem("PRIVATE KEY", two))

    salt, iv = os.urandom(16), os.urandom(16)
    derived = hashlib.pbkdf2_hmac("sha256", PASSPHRASE, salt, 2048, 32)
    pad = padding.PKCS7(128).padder()
    cipher = Cipher(algorithms.AES(derived), modes.CBC(iv)).encryptor()
    ciphertext = cipher.update(pad.update(der.ed25519_v1(seed)) + pad.finalize()) + cipher.finalize()
    with_length = der.pbes2(der.pbkdf2_sha256(salt, 2048, key_length=32), iv, ciphertext)
    write("ed25519.python.pbes2-key-length.pem", der.pem("ENCRYPTED PRIVATE KEY", with_length))

    known = ed25519.Ed25519PrivateKey.from_private_bytes(RFC8032_SEED)
    write("ed25519.rfc8032.pem", known.private_bytes(PEM, PKCS8, NoEncryption()))
    write("ed25519.rfc8032.pub.pem", known.public_key().public_bytes(PEM, PublicFormat.SubjectPublicKeyInfo))
    write("ed25519.deribit.pub.pem", DERIBIT_PUBLIC.encode())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python.py DIRECTORY")
    main(pathlib.Path(sys.argv[1]))
