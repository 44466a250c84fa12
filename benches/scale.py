#!/usr/bin/env python3
"""Measures what grows with the number of keys: an agent's memory, and the time of `list` and `plan`.

    benches/scale.py [--derikey PATH] [--rounds N]

The exchange has room for eight keys in an account, so the rest are copies of the one that is
registered with key pairs of their own: the agent and the keystore cannot tell. Standard library only.
"""

import argparse
import datetime
import os
import shutil
import statistics
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PLAIN = ["--no-passphrase", "--insecure"]


class Keystore:
    def __init__(self, derikey, directory, algorithm="ed25519"):
        self.derikey, self.dir = derikey, directory
        self.store, self.algorithm = os.path.join(directory, "store"), algorithm
        self.env = {"PATH": os.environ["PATH"], "HOME": directory}
        self.names = ["key_0"]
        self.run("provision", "key_0", "--network", "sandbox", "--scope", "trade:read", "--algorithm", algorithm, *PLAIN)

    def command(self, *args):
        return [self.derikey, "--home", self.store, "--no-input", *args]

    def run(self, *args, expect=(0,)):
        done = subprocess.run(self.command(*args), env=self.env, capture_output=True, text=True)
        if done.returncode not in expect:
            raise SystemExit(f"{' '.join(args)}: {done.returncode}\n{done.stderr}")
        return done.stdout

    def grow(self, count):
        """Has so many keys, each registered as the first one is."""
        path = os.path.join(self.store, "keys", "{}", "1", "key.toml")
        with open(path.format("key_0")) as file:
            pattern = file.read()
        old = self.run("fingerprint", "key_0").split()[0]
        for number in range(len(self.names), count):
            name = f"key_{number}"
            self.run("generate", name, "--algorithm", self.algorithm, *PLAIN)
            fingerprint = self.run("fingerprint", name).split()[0]
            with open(path.format(name), "w") as file:
                file.write(pattern.replace(old, fingerprint))
            self.names.append(name)

    def memory(self):
        """KiB that an agent with all keys has resident, and those that are its own."""
        socket = os.path.join(self.dir, "run", "agent.sock")
        os.makedirs(os.path.dirname(socket), mode=0o700, exist_ok=True)
        agent = subprocess.Popen(
            self.command("agent", *self.names, "--socket", socket), env=self.env, stdout=subprocess.PIPE, text=True
        )
        try:
            assert agent.stdout.readline(), "the agent did not start"
            with open(f"/proc/{agent.pid}/status") as file:
                status = dict(line.split(":", 1) for line in file)
            kib = {field: int(status[field].split()[0]) for field in ("VmRSS", "RssAnon", "RssShmem", "VmLck")}
            return kib["VmRSS"], kib["RssAnon"] + kib["RssShmem"], kib["VmLck"]
        finally:
            agent.terminate()
            agent.wait()

    def time(self, rounds, *args, expect=(0,)):
        """The median of so many runs, in milliseconds."""
        took = []
        for _ in range(rounds):
            began = time.perf_counter()
            self.run(*args, expect=expect)
            took.append((time.perf_counter() - began) * 1000)
        return statistics.median(took)


def memory_table(derikey, counts):
    print("| keys in an agent | resident, MiB | its own, MiB | locked, KiB |\n|---|---|---|---|")
    for algorithm, counts in (("ed25519", counts), ("rsa-2048", counts[:2])):
        with tempfile.TemporaryDirectory() as directory:
            keystore = Keystore(derikey, directory, algorithm)
            for count in counts:
                keystore.grow(count)
                resident, own, locked = keystore.memory()
                print(f"| {count} {algorithm} | {resident / 1024:.1f} | {own / 1024:.1f} | {locked} |")
    print()


def time_table(derikey, counts, rounds):
    print("| keys | `list`, ms | `plan`, ms |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as directory:
        keystore = Keystore(derikey, directory)
        fleet = os.path.join(directory, "fleet.toml")
        for count in counts:
            keystore.grow(count)
            with open(fleet, "w") as file:
                file.write('[defaults]\nnetwork = "sandbox"\nscope = "trade:read"\n')
                file.writelines(f"[keys.{name}]\n" for name in keystore.names)
            os.chmod(fleet, 0o600)
            listed = keystore.time(rounds, "list")
            planned = keystore.time(rounds, "plan", "-f", fleet)
            print(f"| {count} | {listed:.1f} | {planned:.1f} |")
    print()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--derikey", default=os.path.join(ROOT, "target", "release", "derikey"))
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--quick", action="store_true", help="few keys, to see whether it works")
    args = parser.parse_args()
    derikey = shutil.which(args.derikey) or parser.error(f"there is no {args.derikey}: cargo build --release")
    print(f"{datetime.date.today()}, benches/scale.py\n")
    memory_table(derikey, (1, 4) if args.quick else (1, 100, 1000))
    time_table(derikey, (1, 4) if args.quick else (1, 8, 200), args.rounds)


if __name__ == "__main__":
    main()
