#!/usr/bin/env python3
"""Made tests/data/index.json; run it again when a file of keys/ or refused/ changes.

Usage: index.py TESTS-DATA. Opens every key of keys/ (with cryptography, or with ssh-keygen where a passphrase of
OpenSSH is asked for) and compares it with its public file before it writes a line about it.
"""

import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile

from cryptography.hazmat.primitives import serialization as s

import der
import refused

PASSPHRASE = "correct horse"


def spki(public):
    return public.public_bytes(s.Encoding.DER, s.PublicFormat.SubjectPublicKeyInfo)


def algorithm(public):
    return f"rsa{public.key_size}" if hasattr(public, "key_size") else "ed25519"


def describe(public):
    data = spki(public)
    return {"algorithm": algorithm(public), "md5": hashlib.md5(data).digest().hex(":"), "sha256": hashlib.sha256(data).hexdigest()}


def shape(name, data):
    """How the file is wrapped: (format, encoding, sealed)."""
    if name.endswith(".der"):
        label = "RSA PRIVATE KEY" if ".pkcs1." in name else "ENCRYPTED PRIVATE KEY" if ".pbes2" in name else "PRIVATE KEY"
        encoding = "der"
    else:
        label = data.split(b"-----")[1].decode().removeprefix("BEGIN ")
        encoding = "pem-crlf" if b"\r\n" in data else "pem-one-line" if b"\\n" in data else "pem"
    kind = {"RSA PRIVATE KEY": "pkcs1", "OPENSSH PRIVATE KEY": "openssh"}.get(label, "pkcs8")
    if ".pkcs8-v2." in name:
        kind = "pkcs8-v2"
    # In an OpenSSH file the name of the cipher comes first, 19 bytes in; "none" is bm9uZQ.
    sealed = label == "ENCRYPTED PRIVATE KEY" or kind == "openssh" and b"bm9uZQ" not in data[:90]
    return kind, encoding, sealed


def open_key(data, kind, encoding, sealed):
    """The public half, taken from the private file."""
    if encoding == "pem-one-line":
        data = data.replace(b"\\n", b"\n")
    if kind == "openssh" and sealed:
        with tempfile.TemporaryDirectory() as scratch:
            path = pathlib.Path(scratch, "key")
            path.touch(0o600)
            path.write_bytes(data)
            line = subprocess.run(["ssh-keygen", "-y", "-P", PASSPHRASE, "-f", path], capture_output=True, check=True)
        return s.load_ssh_public_key(line.stdout)
    password = PASSPHRASE.encode() if sealed else None
    if kind == "pkcs8-v2":
        # Few readers know version 2; the seed stands at a fixed place.
        raw = data if encoding == "der" else refused.unpem(data)
        private = s.load_der_private_key(der.ed25519_v1(raw[16:48]), None)
        assert raw == der.ed25519_v2(raw[16:48], private.public_key().public_bytes_raw())
    elif encoding == "der":
        private = s.load_der_private_key(data, password)
    elif kind == "openssh":
        private = s.load_ssh_private_key(data, password)
    else:
        private = s.load_pem_private_key(data, password)
    return private.public_key()


def main(root):
    public, keys = [], []
    for path in sorted((root / "keys").glob("*.pub.pem")):
        public.append({"file": f"keys/{path.name}", **describe(s.load_pem_public_key(path.read_bytes()))})
    for path in sorted((root / "keys").iterdir()):
        if path.name.endswith(".pub.pem"):
            continue
        kind, encoding, sealed = shape(path.name, path.read_bytes())
        entry = {"file": f"keys/{path.name}", "format": kind, "encoding": encoding, "sealed": sealed}
        if sealed:
            entry["passphrase"] = PASSPHRASE
        entry |= describe(open_key(path.read_bytes(), kind, encoding, sealed))
        entry["public"] = "keys/" + ".".join(path.name.split(".")[:2]) + ".pub.pem"
        (known,) = (p for p in public if p["file"] == entry["public"])
        assert all(entry[field] == known[field] for field in ("algorithm", "md5", "sha256")), entry
        keys.append(entry)
    rejected = []
    present = {path.name for path in (root / "refused").iterdir()}
    assert present == refused.REFUSED.keys(), present ^ refused.REFUSED.keys()
    for name, (why, note, sealed) in refused.REFUSED.items():
        entry = {"file": f"refused/{name}", "why": why, "note": note, "sealed": sealed}
        if sealed:
            entry["passphrase"] = PASSPHRASE
        rejected.append(entry)

    tables = {"keys": keys, "public": public, "refused": rejected}
    lines = []
    for name, rows in tables.items():
        lines.append(f'"{name}": [\n' + ",\n".join("  " + json.dumps(row) for row in rows) + "\n]")
    (root / "index.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: index.py TESTS-DATA")
    main(pathlib.Path(sys.argv[1]))
