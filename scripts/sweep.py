#!/usr/bin/env python3
"""Fails a derikey command at point after point, and looks at what is left.

    scripts/sweep.py [--how kill|disk|exchange] [--derikey PATH] [--points N] [--calls LIST] [--jobs N]
                     [--before CMD]... -- COMMAND ARGS...
    scripts/sweep.py --all

COMMAND is any command that works on one key at an exchange, or on a fleet, such as

    scripts/sweep.py -- provision bot --scope trade:read --ip 127.0.0.1
    scripts/sweep.py --before 'generate bot' -- register bot --scope trade:read
    scripts/sweep.py --how disk --before 'provision bot --scope trade:read' -- rotate bot
    scripts/sweep.py --how exchange --before 'provision bot --scope trade:read' -- remove bot --yes
    scripts/sweep.py --before 'provision bot --scope trade:read_write' -- apply -f fleet.toml --yes

kill      the command dies of SIGKILL at the n-th system call of a kind
disk      that call fails with ENOSPC or EIO, or is acknowledged and was not carried out
exchange  the n-th call of a method, or every one, fails in each way that the sandbox knows

Each point has a keystore and an exchange of its own. `--before` commands run first, unharmed;
the flags that name the exchange, its administrator and the passphrase are added to all commands
that take them; fleet.toml declares the key `bot`, with less than it had, and another. Then the harm is over. Of a command that registers a key:

  - no private key lies in clear anywhere (invariant 4),
  - an exchange that has the key is matched by a journal entry or an active key (invariant 7),
  - `resume` ends with 0; where nothing had been announced, the command itself does (invariant 5),
  - then there is exactly one key at the exchange, its private half is ours, and it logs in
    (invariants 1 and 2),
  - `status` is empty, a second `resume` has nothing to do, every line of audit.jsonl is chained.

Of any other command, which works on keys that `--before` registered:

  - no private key lies in clear anywhere (invariant 4),
  - the key logs in, before `resume` as well as after it (invariant 3); not asked of `remove`,
  - `resume` ends with 0; where it had nothing to do, and after any `apply`, the command itself
    does (invariant 5),
  - every asymmetric key at the exchange has its private half in the keystore (invariant 1), at
    most one of a label is enabled (invariant 2), and scope, whitelist, label, features and state
    of all are what an unharmed run makes of them,
  - the records say of each key whether it is enabled, as the exchange does (invariant 7),
  - `status` is empty, a second `resume` has nothing to do, every line of audit.jsonl is chained.

A command that says 0 although its disk or its exchange failed must have done all that without
`resume`; one that does not must end by itself, with an exit code of its own and no panic.

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
from concurrent.futures import ThreadPoolExecutor

CALLS = "openat,write,fsync,rename,renameat2,symlink,mkdir,unlink,link,flock,connect,sendto,writev,recvfrom,close,fdatasync"
SECRET = "correct horse battery staple"
ADMIN = {"provision", "register", "resume", "rotate", "rollback", "edit", "disable", "enable", "remove", "apply"}
PLACE = ADMIN | {"adopt", "auth"}
SEALED = PLACE | {"generate", "import"}
FLEET = '''[defaults]
ip = ["127.0.0.1"]

[keys.bot]
scope = "trade:read"

[keys.other]
scope = "account:read"
label = "desk_2"
'''
REGISTERING = {"provision", "register"}
DISK = [("write", "error=ENOSPC"), ("write", "error=EIO"), ("write", "lost"), ("fsync", "error=EIO"),
        ("fsync", "retval=0"), ("openat", "error=ENOSPC"), ("rename", "error=EIO"), ("rename", "retval=0"),
        ("renameat2", "error=EIO"), ("renameat2", "retval=0"), ("mkdir", "error=ENOSPC"), ("symlink", "error=EIO"),
        ("unlink", "error=EIO"), ("link", "error=EIO")]
FAULTS = ("drop-before drop-after truncate 500 after-500 502 garbage slow drip huge redirect clock-skew rate-limit "
          "maintenance unauthorized echo both webauthn-only wrong-fingerprint wrong-key wrong-name wrong-scope "
          "hmac-secret wrong-testnet wrong-id").split()
BEFORE = ["provision bot --scope trade:read_write"]
EVERYTHING = [([], "provision bot --scope trade:read --ip 127.0.0.1"), (BEFORE, "edit bot --scope trade:read --ip 127.0.0.1"),
              (BEFORE, "rotate bot"), (BEFORE, "remove bot --yes"), (BEFORE + ["rotate bot"], "remove bot --yes"),
              (BEFORE + ["rotate bot"], "rollback bot"), (BEFORE, "apply -f fleet.toml --yes")]


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
        with open(os.path.join(directory, "fleet.toml"), "w") as file:
            file.write(FLEET)
        self.env = {"PATH": os.environ["PATH"], "HOME": directory}
        self.open("127.0.0.1:0")

    def open(self, address, *faults):
        exchange = os.path.join(self.dir, "exchange")
        flags = [word for fault in faults for word in ("--fault", fault)]
        self.server = subprocess.Popen(
            [self.derikey, "--home", exchange, "sandbox", "--json", "--listen", address, *flags],
            stdout=subprocess.PIPE, env=self.env, cwd=self.dir)
        said = json.loads(self.server.stdout.readline())
        self.endpoint, self.admin = said["endpoint"], said["admin_client_id"]
        self.secret_file = said["admin_secret_file"]

    def close(self):
        self.server.kill()
        self.server.wait()
        self.server.stdout.close()

    def again(self, *faults):
        """The same exchange at the same address, with other faults."""
        self.close()
        self.open(re.search(r"//([^/]+)/", self.endpoint).group(1), *faults)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

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


def picture(keys, fields=("name", "enabled", "max_scope", "ip_whitelist", "enabled_features")):
    """What an account comes to, whatever its keys' ids are."""
    return sorted(json.dumps({field: key.get(field) for field in fields}) for key in keys)


def unlabelled(pictures):
    return [re.sub(r'"name": "\w+", ', "", text) for text in pictures]


def halves(stage):
    """The generations in the keystore that have a private half: public half, and the record."""
    found = {}
    for where, _, names in os.walk(os.path.join(stage.home, "keys")):
        if {"private.pem", "public.pem", "key.toml"} <= set(names):
            with open(os.path.join(where, "public.pem")) as public, open(os.path.join(where, "key.toml")) as record:
                found[body_of(public.read())] = record.read()
    return found


def changes(stage, command, unharmed, done, lied_to):
    fleet = command[0] == "apply"
    name = "bot" if fleet else command[1]
    no_plaintext(stage)
    gone = command[0] == "remove"
    if not gone:
        logs_in(stage, name, "before resume")
    resumed = stage.run(["resume"])
    expect(resumed.returncode == 0, f"resume: {resumed.returncode} {resumed.stderr}")
    idle = json.loads(resumed.stdout)["resumed"] == []
    if (idle or fleet) and not done and not (gone and stage.public(name) is None):
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
    seen = picture(keys)
    if lied_to:
        seen, unharmed = unlabelled(seen), unlabelled(unharmed)
    expect(seen == unharmed, f"{seen} instead of {unharmed}")
    if not gone:
        logs_in(stage, name, "in the end")
    at_rest(stage)


def registers(stage, command, done):
    name = command[1]
    no_plaintext(stage)
    there = stage.account()
    expect(len(there) <= 1, f"{len(there)} keys after the kill")
    pending = json.loads(stage.run(["status"]).stdout)["pending"]
    if there and stage.state(name) != "active":
        expect(pending, "the exchange has a key that the journal does not know")
    resumed = stage.run(["resume"])
    expect(resumed.returncode == 0, f"resume: {resumed.returncode} {resumed.stderr}")
    expect(stage.state(name) == "active" or not done, "it said that it had made the key")
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


def recovers(stage, command, unharmed, done, lied_to):
    if command[0] in REGISTERING:
        registers(stage, command, done)
    else:
        changes(stage, command, unharmed, done, lied_to)


def prepare(stage, before):
    for line in before:
        done = stage.run(shlex.split(line))
        expect(done.returncode == 0, f"{line}: {done.stderr}")


class Trace:
    """What the command does when nothing goes wrong."""

    def __init__(self, options, command):
        with tempfile.TemporaryDirectory() as directory, Stage(options.derikey, directory) as stage:
            prepare(stage, options.before)
            log = os.path.join(directory, "strace.log")
            calls = options.calls + ",sendto,writev,write"
            done = stage.run(command, ["strace", "-f", "-y", "-s", "120", "-o", log, "-e", f"trace={calls}"])
            expect(done.returncode == 0, f"unharmed: {done.returncode} {done.stderr}")
            self.unharmed = picture(stage.account())
            self.calls, self.methods = {}, []
            with open(log) as file:
                for line in file:
                    # strace counts for each thread by itself.
                    if made := re.match(r"(\d+)\s+(\w+)\(", line):
                        answer = re.search(r"= (-?\d+)", line)
                        threads = self.calls.setdefault(made.group(2), {})
                        on_disk = stage.home in line
                        threads.setdefault(made.group(1), []).append((int(answer.group(1)) if answer else 0, on_disk))
                    if post := re.search(r'"POST /api/v2/\w+/(\w+) ', line):
                        self.methods.append(post.group(1))
        self.calls = {call: max(threads.values(), key=len) for call, threads in self.calls.items()}

    def points(self, how, calls):
        if how == "exchange":
            nths = [f"{method}:{{}}:{self.methods[:at].count(method) + 1}" for at, method in enumerate(self.methods)]
            always = [f"{method}:{{}}" for method in dict.fromkeys(self.methods)]
            return [place.format(fault) for place in nths + always for fault in FAULTS]
        if how == "kill":
            harms = [(call, "signal=SIGKILL") for call in calls.split(",")]
        else:
            harms = DISK
        found = []
        for call, harm in harms:
            for nth, (answer, on_disk) in enumerate(self.calls.get(call, []), 1):
                if how == "disk" and not on_disk:
                    continue
                # A write that is lost is answered with its own length.
                what = f"retval={answer}" if harm == "lost" else harm
                found.append(f"{call}:{what}:when={nth}")
        return found


def harmed(stage, command, how, point):
    """Runs the command with one harm done to it."""
    if how == "exchange":
        stage.again(point)
        done = stage.run([*command, "--timeout", "2"])
        stage.again()
        return done
    call = point.split(":")[0]
    return stage.run(command, ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={point}"])


def strike(options, command, trace, point):
    """Fails the command at one point. Returns whether it said that all is well, and what is not."""
    with tempfile.TemporaryDirectory() as directory, Stage(options.derikey, directory) as stage:
        prepare(stage, options.before)
        end = harmed(stage, command, options.how, point)
        done = end.returncode == 0
        try:
            if options.how != "kill":
                expect(0 <= end.returncode != 101, f"exit {end.returncode}: {end.stderr}")
            # Whoever is shown another label keeps that one, as it was not told to change it.
            lied_to = point.startswith("list_api_keys:wrong-name")
            recovers(stage, command, trace.unharmed, done, lied_to)
        except Failed as why:
            return done, str(why)
        return done, None


def sweep(options, command):
    trace = Trace(options, command)
    points = trace.points(options.how, options.calls)
    total = len(points)
    if options.points and options.points < total:
        points = [points[at * total // options.points] for at in range(options.points)]
    failed = unfelt = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for point, (done, problem) in zip(points, pool.map(lambda point: strike(options, command, trace, point), points)):
            unfelt += done
            if problem:
                failed += 1
                print(f"FAILED {point}: {problem}", flush=True)
    row = f"| {options.how} | `{shlex.join(command)}`"
    row += f" after `{options.before[-1]}`" if options.before else ""
    print(f"{row} | {total} | {len(points)} | {unfelt} | {failed} |", flush=True)
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--derikey", default="target/debug/derikey", help="the program [%(default)s]")
    parser.add_argument("--how", choices=["kill", "disk", "exchange"], default="kill", help="what is done to it [%(default)s]")
    parser.add_argument("--all", action="store_true", help="everything in docs/sweep.md, which takes an hour")
    parser.add_argument("--points", type=int, help="how many points to try, evenly spread [all]")
    parser.add_argument("--jobs", type=int, default=2 * os.cpu_count(), help="points at a time [%(default)s]")
    parser.add_argument("--calls", default=CALLS, help="system calls to die at [%(default)s]")
    parser.add_argument("--before", action="append", default=[], help="a command to run first, unharmed")
    parser.add_argument("command", nargs="*", help="the command to harm, after --")
    options = parser.parse_args()
    options.derikey = os.path.abspath(options.derikey)
    print("| how | command | points | tried | ended well by itself | failed |\n|---|---|---|---|---|---|", flush=True)
    if not options.all:
        sys.exit(1 if sweep(options, options.command) else 0)
    failed = 0
    for options.how in ("kill", "disk", "exchange"):
        for options.before, command in EVERYTHING:
            failed += sweep(options, shlex.split(command))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
