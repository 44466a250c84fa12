#!/usr/bin/env python3
"""Tries derikey on the key files and Ed25519 signatures that Python's cryptography is tested with.

    scripts/vectors.py [--derikey PATH] [--wheel FILE] [--write]

pip fetches the package cryptography_vectors, in the version below, into a directory that goes
afterwards; --wheel takes a file that is there already. Then

  - the 1,024 Ed25519 vectors (Daniel J. Bernstein's sign.input) are signed and verified by the unit
    test that is ignored otherwise, and the program derives the public half of each seed,
  - every key file is imported, or read as a public key, and what came of it is held against
    tests/data/vectors-table.tsv: accepted or refused, with which exit code, for which reason,
  - where cryptography is installed, a key that both accept must be the same key to both.

--write writes the table anew, with what cryptography thinks of each file for comparison. A line that
changes is to be understood before it is committed. Exit: 0 as in the table, 1 otherwise.
"""

import argparse
import base64
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import warnings
import zipfile

VERSION = "50.0.2"
ROOT = pathlib.Path(__file__).resolve().parent.parent
TABLE = ROOT / "tests/data/vectors-table.tsv"
INSIDE = "cryptography_vectors/"
SUFFIXES = (".pem", ".der", ".key", ".pub")
# The passphrases of the sealed files, from cryptography's own tests.
PASSPHRASES = ("password", "123456", "foobar", "baz", "hunter42", "Passw0rd!", "asdfasdf", "aesgcm", "a123456", "PolarSSLTest")


def fetch(directory):
    package = f"cryptography_vectors=={VERSION}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", directory, package]
    subprocess.run(command, check=True)
    return next(pathlib.Path(directory).glob("cryptography_vectors-*.whl"))


def key_files(wheel):
    """The files that hold, or look as if they held, a key; certificates are not among them."""
    for name in sorted(wheel.namelist()):
        content = wheel.read(name)
        short = name.removeprefix(INSIDE)
        alone = short.startswith("asymmetric/") and name.endswith(SUFFIXES)
        marked = b"KEY-----" in content and len(content) < 64 * 1024
        if (alone or marked) and name.endswith(SUFFIXES):
            yield short, content


class Derikey:
    def __init__(self, program, directory):
        self.program, self.directory = program, pathlib.Path(directory)
        self.count = 0

    def run(self, *args):
        environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(self.directory)}
        command = [self.program, "--home", str(self.directory / "home"), "--no-input", "--json", *args]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    def file(self, content):
        path = self.directory / "input"
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(content)
        return str(path)

    def words(self, text):
        path = self.directory / f"words-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(text)
        return str(path)

    def reads(self, content):
        """How a file is read, the exit code, the reason, and the SHA-256 of the public half."""
        path = self.file(content)
        self.count += 1
        name = f"k{self.count}"
        keep = ["import", name, path, "--no-passphrase", "--insecure"]
        how = "private"
        run = self.run(*keep)
        if "sealed with a passphrase" in run.stderr or "passphrase for" in run.stderr:
            for words in PASSPHRASES:
                run = self.run(*keep, "--input-passphrase-file", self.words(words))
                if run.returncode == 0 or "wrong passphrase" not in run.stderr:
                    break
        print_of = [name]
        if run.returncode != 0 and "this is a public key" in run.stderr:
            how, run, print_of = "public", self.run("public", path), [path]
        if "panicked" in run.stderr or run.returncode < 0:
            sys.exit(f"the program died: {run}")
        if run.returncode != 0:
            message = json.loads(run.stderr.splitlines()[-1])["error"]["message"]
            return how, run.returncode, message.removeprefix(path + ": ").replace(path, "FILE"), None
        said = json.loads(self.run("fingerprint", *print_of, "--hash", "sha256").stdout)
        fingerprint = next(v for k, v in said.items() if "fingerprint" in k).replace(":", "").lower()
        return how, 0, said.get("algorithm", ""), fingerprint


def python_reads(how, content):
    """What cryptography makes of a file: the SHA-256 of the public half, or why there is none."""
    from cryptography.hazmat.primitives import serialization as s

    warnings.simplefilter("ignore")  # of keys that nobody should use any more
    if how == "private":
        loaders = (s.load_pem_private_key, s.load_der_private_key, s.load_ssh_private_key)
        tries = [(load, (words,)) for load in loaders for words in (None, *(p.encode() for p in PASSPHRASES))]
    else:
        tries = [(load, ()) for load in (s.load_pem_public_key, s.load_der_public_key, s.load_ssh_public_key)]
    for load, more in tries:
        try:
            key = load(content, *more)
            public = key.public_key() if how == "private" else key
            spki = public.public_bytes(s.Encoding.DER, s.PublicFormat.SubjectPublicKeyInfo)
            return hashlib.sha256(spki).hexdigest()
        except Exception:  # noqa: BLE001: whatever it says, it does not take the file
            continue
    return None


def has_cryptography():
    try:
        import cryptography  # noqa: F401
    except ImportError:
        return False
    return True


def table(wheel, derikey):
    rows, wrong = [], []
    compare = has_cryptography()
    if not compare:
        print("cryptography is not installed: no key is compared with what it reads")
    for name, content in key_files(wheel):
        how, code, reason, ours = derikey.reads(content)
        theirs = python_reads(how, content) if compare else None
        if ours and theirs and ours != theirs:
            wrong.append(f"{name}: {ours} here, {theirs} in Python")
        verdict = "accepted" if code == 0 else "refused"
        rows.append((name, how, verdict, str(code), reason, "reads it" if theirs else "does not"))
    return rows, wrong


def sign_input(wheel, derikey, directory):
    text = wheel.read(INSIDE + "asymmetric/Ed25519/sign.input")
    path = pathlib.Path(directory) / "sign.input"
    path.write_bytes(text)
    environment = dict(os.environ, DERIKEY_SIGN_INPUT=str(path))
    test = "ed25519_signatures_are_those_of_the_reference"
    command = ["cargo", "test", "--quiet", "--lib", "--", "--ignored", test]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    wrong = []
    if run.returncode != 0 or "1 passed" not in run.stdout:
        wrong.append(f"the unit test of the 1,024 signatures failed:\n{run.stdout}{run.stderr}")
    lines = text.decode().splitlines()
    for line in lines:
        secret, public = (bytes.fromhex(field) for field in line.split(":")[:2])
        key = bytes.fromhex("302e020100300506032b657004220420") + secret[:32]
        spki = bytes.fromhex("302a300506032b6570032100") + public
        said = derikey.run("fingerprint", derikey.file(key), "--hash", "sha256")
        if hashlib.sha256(spki).hexdigest() not in said.stdout.replace(":", "").lower():
            wrong.append(f"another public half: {line[:64]}")
    print(f"{len(lines)} Ed25519 vectors")
    return wrong


HEAD = """\
# What derikey makes of the key files of cryptography_vectors {version}: scripts/vectors.py
# The reason is the program's own; of an accepted key it is the algorithm. "Python" is what cryptography
# did with the same file: it has uses for keys that Deribit has none for (DSA, EC, X25519, old sealings).
file\tread as\tverdict\texit\treason\tPython
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--derikey", default=str(ROOT / "target/debug/derikey"))
    parser.add_argument("--wheel")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o700)
        path = options.wheel or fetch(directory)
        derikey = Derikey(str(pathlib.Path(options.derikey).resolve()), directory)
        with zipfile.ZipFile(path) as wheel:
            wrong = sign_input(wheel, derikey, directory)
            rows, different = table(wheel, derikey)
            wrong += different
    accepted = sum(row[2] == "accepted" for row in rows)
    print(f"{len(rows)} key files: {accepted} accepted, {len(rows) - accepted} refused")
    if options.write:
        TABLE.write_text(HEAD.format(version=VERSION) + "".join("\t".join(row) + "\n" for row in rows))
    known = [line.split("\t")[:5] for line in TABLE.read_text().splitlines() if not line.startswith("#")][1:]
    known, found = ({row[0]: tuple(row[1:5]) for row in all} for all in (known, rows))
    for name in sorted(known.keys() | found.keys()):
        if known.get(name) != found.get(name):
            wrong.append(f"{name}: {found.get(name)}, in the table {known.get(name)}")
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
