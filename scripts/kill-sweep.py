#!/usr/bin/env python3
"""Kills a derikey command at system call after system call, and looks at what is left.

    scripts/kill-sweep.py [--derikey PATH] [--points N] [--calls LIST] [--before CMD]...
                          -- COMMAND ARGS...

COMMAND is any command that works on one key at an exchange, such as

    scripts/kill-sweep.py -- provision bot --scope trade:read --ip 127.0.0.1
    scripts/kill-sweep.py --before 'generate bot' -- register bot --scope trade:read
    scripts/kill-sweep.py --before 'provision bot --scope trade:read' -- rotate bot
    scripts/kill-sweep.py --before 'provision bot --scope trade:read' -- remove bot --yes

Each point has a keystore and an exchange of its own. `--before` commands run first, unharmed;
the flags that name the exchange, its administrator and the passphrase are added to all commands
that take them. After the kill
of a command that registers a key:

  - no private key lies in clear anywhere (invariant 4),
  - an exchange that has the key is matched by a journal entry or an active key (invariant 7),
  - `resume` ends with 0; where nothing had been announced, the command itself does (invariant 5),
  - then there is exactly one key at the exchange, its private half is ours, and it logs in
    (invariants 1 and 2),
  - `status` is empty, a second `resume` has nothing to do, every line of audit.jsonl is chained.

After the kill of any other command, which works on keys that `--before` registered:

  - no private key lies in clear anywhere (invariant 4),
  - the key logs in, before `resume` as well as after it (invariant 3); not asked of `remove`,
  - `resume` ends with 0; where it had nothing to do, the command itself does (invariant 5),
  - every asymmetric key at the exchange has its private half in the keystore (invariant 1), at
    most one of a label is enabled (invariant 2), and scope, whitelist, label, features and state
    of all are what a run without a kill makes of them,
  - the records say of each key whether it is enabled, as the exchange does (invariant 7),
  - `status` is empty, a second `resume` has nothing to do, every line of audit.jsonl is chained.

Needs strace. Prints the points tried and failed; exits 1 if one failed. Standard library only.
"""

import argparse
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import urllib.request

CALLS = "openat,write,fsync,rename,renameat2,symlink,mkdir,unlink,link,flock,connect,sendto,recvfrom"
SECRET = "correct horse battery staple"
ADMIN = {"provision", "register", "resume", "rotate", "rollback", "edit", "disable", "enable", "remove"}
PLACE = ADMIN | {"adopt", "auth"}
SEALED = PLACE | {"generate", "import"}
REGISTERING = {"provision", "register"}


class Failed(Exception):
    pass


def expect(truth, what):
    if not truth:
        raise Failed(what)


class Stage:
    """A keystore and an exchange in a directory of their own."""

    def __init__(self, derikey, directory):
        self.derikey, self.dir = derikey, directory
        self.home = os.path.join(directory, "store")
        self.passphrase = os.path.join(directory, "passphrase")
        with open(os.open(self.passphrase, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(SECRET)
        self.env = {"PATH": os.environ["PATH"], "HOME": directory}
        exchange = os.path.join(directory, "exchange")
        self.server = subprocess.Popen(
            [derikey, "--home", exchange, "sandbox", "--json"],
            stdout=subprocess.PIPE, env=self.env, cwd=directory)
        said = json.loads(self.server.stdout.readline())
        self.endpoint, self.admin = said["endpoint"], said["admin_client_id"]
        self.secret_file = said["admin_secret_file"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.kill()
        self.server.wait()
        self.server.stdout.close()

    def command(self, args):
        flags = ["--home", self.home, "--no-input", "--json"]
        if args[0] in PLACE:
            flags += ["--network", "custom", "--endpoint", self.endpoint]
        words = list(args)
        if args[0] in ADMIN:
            words += ["--admin-client-id", self.admin, "--admin-secret-file", self.secret_file]
        if args[0] in SEALED:
            words += ["--passphrase-file", self.passphrase]
        return [self.derikey, *flags, *words]

    def run(self, args, prefix=()):
        return subprocess.run([*prefix, *self.command(args)], env=self.env, cwd=self.dir,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)

    def call(self, method, params, token=None):
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = "Bearer " + token
        request = urllib.request.Request(f"{self.endpoint}/{method}", json.dumps(body).encode(), headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=20) as answer:
            return json.load(answer)["result"]

    def account(self):
        """The asymmetric keys of the account, asked without the program."""
        with open(self.secret_file) as file:
            secret = file.read().strip()
        login = {"grant_type": "client_credentials", "client_id": self.admin, "client_secret": secret}
        token = self.call("public/auth", login)["access_token"]
        keys = self.call("private/list_api_keys", {}, token)
        return [key for key in keys if key.get("public_key")]

    def public(self, name):
        try:
            with open(os.path.join(self.home, "keys", name, "current", "public.pem")) as file:
                return "".join(file.read().split("-----")[2].split())
        except FileNotFoundError:
            return None

    def state(self, name):
        try:
            with open(os.path.join(self.home, "keys", name, "current", "key.toml")) as file:
                return re.search(r'^state = "(\w+)"', file.read(), re.M).group(1)
        except FileNotFoundError:
            return None


def no_plaintext(stage):
    for where, _, names in os.walk(stage.home):
        for name in names:
            path = os.path.join(where, name)
            if os.path.islink(path):
                continue
            with open(path, "rb") as file:
                content = file.read()
            clear = b"BEGIN PRIVATE KEY" in content or b"MC4CAQAwBQYDK2Vw" in content
            expect(not clear and SECRET.encode() not in content, f"{path} holds a secret in clear")


def chained(stage):
    path = os.path.join(stage.home, "audit.jsonl")
    if not os.path.exists(path):
        return
    with open(path, "rb") as file:
        lines = file.read().splitlines()
    prev = "0" * 64
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None  # torn by a kill; the chain runs through it
        expect(entry is None or entry["prev"] == prev, f"audit.jsonl is not chained at {line!r}")
        prev = hashlib.sha256(line).hexdigest()


def at_rest(stage):
    expect(json.loads(stage.run(["status"]).stdout)["pending"] == [], "something is still under way")
    idle = stage.run(["resume"])
    expect(idle.returncode == 0 and json.loads(idle.stdout)["resumed"] == [], f"resume again: {idle.stdout}{idle.stderr}")
    chained(stage)


def logs_in(stage, name, when):
    login = stage.run(["auth", name])
    expect(login.returncode == 0, f"auth {when}: {login.returncode} {login.stderr}")


def body_of(pem):
    return "".join(pem.split("-----")[2].split())


def picture(keys):
    """What an account comes to, whatever its keys are called."""
    fields = ("name", "enabled", "max_scope", "ip_whitelist", "enabled_features")
    return sorted(json.dumps([key.get(field) for field in fields]) for key in keys)


def halves(stage):
    """The generations in the keystore that have a private half: public half, and the record."""
    found = {}
    for where, _, names in os.walk(os.path.join(stage.home, "keys")):
        if {"private.pem", "public.pem", "key.toml"} <= set(names):
            with open(os.path.join(where, "public.pem")) as public, open(os.path.join(where, "key.toml")) as record:
                found[body_of(public.read())] = record.read()
    return found


def changes(stage, command, unharmed):
    name = command[1]
    no_plaintext(stage)
    gone = command[0] == "remove"
    if not gone:
        logs_in(stage, name, "after the kill")
    resumed = stage.run(["resume"])
    expect(resumed.returncode == 0, f"resume: {resumed.returncode} {resumed.stderr}")
    idle = json.loads(resumed.stdout)["resumed"] == []
    if idle and not (gone and stage.public(name) is None):
        again = stage.run(command)
        expect(again.returncode == 0, f"again: {again.returncode} {again.stderr}")
    no_plaintext(stage)
    keys, ours = stage.account(), halves(stage)
    for key in keys:
        record = ours.get(body_of(key["public_key"]))
        expect(record is not None, f"no private half of {key['client_id']}")
        said = "enabled = true" in record
        expect(said == key["enabled"], f"enabled is {key['enabled']} at the exchange, {said} in the record")
    enabled = [key["name"] for key in keys if key["enabled"]]
    expect(len(enabled) == len(set(enabled)), f"enabled: {enabled}")
    expect(picture(keys) == unharmed, f"{picture(keys)} instead of {unharmed}")
    if not gone:
        logs_in(stage, name, "in the end")
    at_rest(stage)


def registers(stage, command):
    name = command[1]
    no_plaintext(stage)
    there = stage.account()
    expect(len(there) <= 1, f"{len(there)} keys after the kill")
    pending = json.loads(stage.run(["status"]).stdout)["pending"]
    if there and stage.state(name) != "active":
        expect(pending, "the exchange has a key that the journal does not know")
    resumed = stage.run(["resume"])
    expect(resumed.returncode == 0, f"resume: {resumed.returncode} {resumed.stderr}")
    if stage.state(name) != "active":
        again = stage.run(command)
        expect(again.returncode == 0, f"again: {again.returncode} {again.stderr}")
    no_plaintext(stage)
    keys, ours = stage.account(), stage.public(name)
    expect(len(keys) == 1, f"{len(keys)} keys in the end")
    theirs = "".join(keys[0]["public_key"].split("-----")[2].split())
    expect(theirs == ours, "the exchange has another key than we have")
    login = stage.run(["auth", name])
    expect(login.returncode == 0, f"auth: {login.returncode} {login.stderr}")
    at_rest(stage)


def recovers(stage, command, unharmed):
    if command[0] in REGISTERING:
        registers(stage, command)
    else:
        changes(stage, command, unharmed)


def prepare(stage, before):
    for line in before:
        done = stage.run(shlex.split(line))
        expect(done.returncode == 0, f"{line}: {done.stderr}")


def count(options, command):
    """Returns how often the command makes each system call when nothing goes wrong, and what the
    account comes to."""
    with tempfile.TemporaryDirectory() as directory, Stage(options.derikey, directory) as stage:
        prepare(stage, options.before)
        log = os.path.join(directory, "strace.log")
        done = stage.run(command, ["strace", "-f", "-o", log, "-e", f"trace={options.calls}"])
        expect(done.returncode == 0, f"unharmed: {done.returncode} {done.stderr}")
        counts = {}
        with open(log) as file:
            for line in file:
                made = re.match(r"(\d+)\s+(\w+)\(", line)
                if made:
                    # strace counts for each thread by itself.
                    counts.setdefault(made.group(2), {}).setdefault(made.group(1), 0)
                    counts[made.group(2)][made.group(1)] += 1
        return {call: max(threads.values()) for call, threads in counts.items()}, picture(stage.account())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--derikey", default="target/debug/derikey", help="the program [%(default)s]")
    parser.add_argument("--points", type=int, help="how many points to try, evenly spread [all]")
    parser.add_argument("--calls", default=CALLS, help="system calls to die at [%(default)s]")
    parser.add_argument("--before", action="append", default=[], help="a command to run first, unharmed")
    parser.add_argument("command", nargs="+", help="the command to kill, after --")
    options = parser.parse_args()
    options.derikey = os.path.abspath(options.derikey)
    command = options.command

    counts, unharmed = count(options, command)
    points = [(call, nth) for call, times in counts.items() for nth in range(1, times + 1)]
    total = len(points)
    if options.points and options.points < total:
        points = [points[at * total // options.points] for at in range(options.points)]
    failed = survived = 0
    for call, nth in points:
        with tempfile.TemporaryDirectory() as directory, Stage(options.derikey, directory) as stage:
            prepare(stage, options.before)
            inject = f"inject={call}:signal=SIGKILL:when={nth}"
            killed = stage.run(command, ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject])
            survived += killed.returncode == 0
            try:
                recovers(stage, command, unharmed)
            except Failed as why:
                failed += 1
                print(f"FAILED {call} {nth}: {why}", flush=True)
    print(f"{shlex.join(command)}: {total} points, {len(points)} points tried, {failed} failed, "
          f"{survived} where the kill came too late")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
