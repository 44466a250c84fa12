#!/usr/bin/env python3
"""Times whole processes, ours and a peer's in turn, and prints medians and ratios as one table.

    benches/peers.sh builds the release binary and runs this.

The two of a row run alternately, so that whatever else the machine does hits both. Standard library
only; a peer that is not installed is left out.
"""

import argparse
import datetime
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

MESSAGE = b"1576074319000\n1iqt2wls0000000000000000\n" + b"x" * 36 + b"\n"
PASSPHRASE = "correct horse battery staple"
RSA = ("rsa-2048", "rsa-3072", "rsa-4096")
SIGN_IN_PYTHON = """
import sys
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
key = serialization.load_pem_private_key(open(sys.argv[1], "rb").read(), None)
message = open(sys.argv[2], "rb").read()
sys.stdout.buffer.write(key.sign(message, padding.PKCS1v15(), hashes.SHA256()) if hasattr(key, "private_numbers") else key.sign(message))
"""


class Bench:
    def __init__(self, derikey, directory):
        self.derikey, self.dir = derikey, directory
        self.env = {"PATH": os.environ["PATH"], "HOME": directory, "DERIKEY_HOME": self.path("store")}
        self.count = 0
        os.umask(0o077)
        os.chdir(directory)
        for name, content in (("message", MESSAGE), ("passphrase", PASSPHRASE.encode())):
            with open(self.path(name), "wb") as file:
                file.write(content)

    def path(self, name):
        return os.path.join(self.dir, name)

    def time(self, argv):
        """Runs a program to its end and returns the milliseconds that took."""
        null = os.open(os.devnull, os.O_RDWR)
        streams = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1, 2)]
        began = time.perf_counter()
        child = os.posix_spawnp(argv[0], argv, self.env, file_actions=streams)
        _, status = os.waitpid(child, 0)
        took = time.perf_counter() - began
        os.close(null)
        if status:
            sys.exit(f"{' '.join(argv)}: status {status}")
        return took * 1000

    def fresh(self):
        self.count += 1
        return f"k{self.count}"

    def setup(self):
        plain = ["--no-passphrase", "--insecure"]
        for algorithm in ("ed25519", *RSA):
            name = algorithm.replace("-", "_")
            self.time([self.derikey, "generate", name, "--algorithm", algorithm, *plain])
        sealed = ["--passphrase-file", "passphrase"]
        self.time([self.derikey, "generate", "scrypt", *sealed])
        self.time([self.derikey, "generate", "pbkdf2", "--kdf", "pbkdf2", *sealed])

    def pem(self, name):
        return self.path(f"store/keys/{name}/current/private.pem")

    def sign(self, name, *more):
        return lambda: [self.derikey, "sign", "auth", name, "--client-id", "x", *more]

    def rows(self):
        """What is done, our command, the peer and its command, the budget."""
        ours, plain = self.derikey, ["--no-passphrase", "--insecure"]
        openssl, python = shutil.which("openssl"), shutil.which("python3")
        if python and subprocess.run([python, "-c", "import cryptography"], capture_output=True).returncode:
            python = None
        rows = [("start", lambda: [ours, "--help"], "openssl version", lambda: [openssl, "version"], 0.6)]
        for algorithm in ("ed25519", *RSA):
            kind, _, bits = algorithm.partition("-")
            options = ["-algorithm", kind.upper(), *(["-pkeyopt", f"rsa_keygen_bits:{bits}"] if bits else [])]
            rows.append((f"generate {algorithm}", lambda a=algorithm: [ours, "generate", self.fresh(), "--algorithm", a, *plain],
                         "openssl genpkey", lambda o=options: [openssl, "genpkey", *o, "-out", self.path("key.pem")],
                         0.45 if bits else 0.35))
        for name in ("ed25519", "rsa_2048", "rsa_3072", "rsa_4096"):
            digest = [] if name == "ed25519" else ["-digest", "sha256"]
            sign = [openssl, "pkeyutl", "-sign", "-inkey", self.pem(name), "-rawin", "-in", self.path("message"), "-out", self.path("sig"), *digest]
            rows.append((f"sign {name}", self.sign(name), "openssl pkeyutl -sign", lambda s=sign: s, 0.45 if digest else 0.35))
        for kdf in ("scrypt", "pbkdf2"):
            unlock = [openssl, "pkey", "-in", self.pem(kdf), "-passin", "file:" + self.path("passphrase"), "-noout"]
            rows.append((f"unlock {kdf}", self.sign(kdf, "--passphrase-file", "passphrase"), "openssl pkey",
                         lambda u=unlock: u, 0.65))
        if not openssl:
            rows = []
        if python:
            for name in ("ed25519", "rsa_2048"):
                rows.append((f"sign {name}", self.sign(name), "Python cryptography",
                             lambda n=name: [python, "-c", SIGN_IN_PYTHON, self.pem(n), self.path("message")], None))
        return rows


def extras(bench, rounds):
    """What has no peer: the size of the program, and what a provision takes beside the key derivation."""
    print("\n| what | is | budget |\n|---|---|---|")
    print(f"| the program, MiB | {os.path.getsize(bench.derikey) / 2**20:.2f} | 8 |")
    if shutil.which("time"):
        command = ["time", "-f", "%M", *bench.sign("ed25519")()]
        # The program `time` is small, so that what it starts is not taken for as large as this.
        runs = [subprocess.run(command, env=bench.env, capture_output=True, text=True).stderr for _ in range(9)]
        kib = statistics.median(int(said.split()[-1]) for said in runs)
        print(f"| the most memory that `sign auth` Ed25519 has, MiB, shared libraries and its own file included | {kib / 1024:.1f} | 5 |")
    sealed = ["--passphrase-file", "passphrase"]
    made = [bench.time([bench.derikey, "provision", bench.fresh(), "--network", "sandbox", "--scope", "trade:read",
                        "--home", bench.path(f"home{n}"), *sealed]) for n in range(rounds)]
    opened = [bench.time(bench.sign("scrypt", *sealed)()) for _ in range(rounds)]
    more = statistics.median(made) - statistics.median(opened)
    print(f"| `provision` against the sandbox, ms more than opening a sealed key | {more:.0f} | 50 |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--derikey", default="target/release/derikey", help="the program [%(default)s]")
    parser.add_argument("--rounds", type=int, default=60, help="how often each runs [%(default)s]")
    parser.add_argument("--quick", action="store_true", help="three rounds, to see that it works")
    options = parser.parse_args()
    rounds = 3 if options.quick else options.rounds
    versions = [subprocess.run(argv, capture_output=True, text=True).stdout.split("\n")[0]
                for argv in ([options.derikey, "--version"], ["openssl", "version"])]
    print(f"{datetime.date.today()}, {os.cpu_count()} cores, {', '.join(versions)}, medians of {rounds}, in turn\n")
    print("| what | derikey, ms | peer | peer, ms | ratio | budget |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(os.path.abspath(options.derikey), directory)
        bench.setup()
        for what, ours, peer, theirs, budget in bench.rows():
            pairs = [(bench.time(ours()), bench.time(theirs())) for _ in range(rounds)]
            mine, other = (statistics.median(times) for times in zip(*pairs))
            limit = f"{budget:.2f}" if budget else ""
            print(f"| {what} | {mine:.1f} | {peer} | {other:.1f} | {mine / other:.2f} | {limit} |", flush=True)
        extras(bench, min(rounds, 20))


if __name__ == "__main__":
    main()
