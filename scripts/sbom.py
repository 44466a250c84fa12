#!/usr/bin/env python3
"""Writes the bill of materials of the release build: CycloneDX 1.5, JSON.

    scripts/sbom.py [--out FILE] [--target TRIPLE] [--check]
    scripts/sbom.py --weights [--gone CRATE]...

Every crate that cargo compiles for the program, with version, licence, checksum and source; the C
library inside aws-lc-sys as a component of its own, so that its advisories find it. What only helps
to build (macros, build scripts) has the scope "excluded". The same tree makes the same file.

Why a script: tools that read `cargo metadata` list the tests' dependencies' features too, and weigh
two hundred crates. This asks `cargo tree`, which resolves as the build does.

--check holds the list against what `cargo build --release` says that it compiled, which costs
nothing where that build is there, against `cargo metadata`, and against the number of crates that we
allow ourselves.

--weights writes nothing: for each row of the direct dependencies in docs/dependencies.md it prints how
many crates would go with it alone, and how many thousands of lines of Rust it and those have, without
comments, blank lines and what a program wrote, but with what their features leave out. --gone thinks a crate away
beforehand. Standard library only. Exit: 0 written, and right where asked; 1 not.
"""

import argparse
import datetime
import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib
import uuid

ROOT = pathlib.Path(__file__).resolve().parent.parent
# derikey itself among them.
MOST_CRATES = 190
LINE = re.compile(r"(\d+)(\S+) v(\S+)")


def cargo(*words):
    command = [os.environ.get("CARGO", "cargo"), *words]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def host():
    return re.search(r"host: (\S+)", cargo("version", "--verbose")).group(1)


def tree(edges, target):
    """Each crate as (name, version), and those it needs; the first is derikey itself."""
    needs, path = {}, []
    for line in cargo("tree", "--locked", "--edges", edges, "--target", target, "--prefix", "depth").splitlines():
        if not (found := LINE.match(line)):
            continue
        depth, crate = int(found[1]), (found[2], found[3])
        needs.setdefault(crate, set())
        del path[depth:]
        if path:
            needs[path[-1]].add(crate)
        path.append(crate)
    return needs


def purl(crate):
    # A plus in a version is written out.
    return f"pkg:cargo/{crate[0]}@{crate[1].replace('+', '%2B')}"


def licence(package):
    return [{"expression": package["license"].replace("/", " OR ")}] if package["license"] else []


def aws_lc(package):
    """The C library that aws-lc-sys is a shell of."""
    header = pathlib.Path(package["manifest_path"]).parent / "aws-lc/include/openssl/base.h"
    version = re.search(r'AWSLC_VERSION_NUMBER_STRING "([^"]+)"', header.read_text())[1]
    return {
        "type": "library",
        "bom-ref": f"pkg:github/aws/aws-lc@v{version}",
        "name": "aws-lc",
        "version": version,
        "purl": f"pkg:github/aws/aws-lc@v{version}",
        "cpe": f"cpe:2.3:a:amazon:aws-lc:{version}:*:*:*:*:*:*:*",
        "licenses": licence(package),
        "scope": "required",
    }


def component(crate, package, checksum, scope):
    made = {
        "type": "library",
        "bom-ref": purl(crate),
        "name": crate[0],
        "version": crate[1],
        "purl": purl(crate),
        "licenses": licence(package),
        "scope": scope,
    }
    if checksum:
        made["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package["repository"]:
        made["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return made


def moment():
    """SOURCE_DATE_EPOCH, else the commit's, else none: never the clock's."""
    seconds = os.environ.get("SOURCE_DATE_EPOCH")
    if not seconds:
        log = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True)
        seconds = log.stdout.strip()
    if not seconds:
        return {}
    time = datetime.datetime.fromtimestamp(int(seconds), datetime.timezone.utc)
    return {"timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ")}


def bill(target, packages, needs, linked):
    root = next(iter(needs))
    with open(ROOT / "Cargo.lock", "rb") as lock:
        checksums = {(p["name"], p["version"]): p.get("checksum") for p in tomllib.load(lock)["package"]}
    components, edges = [], []
    for crate in sorted(needs):
        refs = sorted(purl(needed) for needed in needs[crate])
        if crate != root:
            scope = "required" if crate in linked else "excluded"
            components.append(component(crate, packages[crate], checksums.get(crate), scope))
        if crate[0] == "aws-lc-sys":
            inner = aws_lc(packages[crate])
            components.append(inner)
            edges.append({"ref": inner["bom-ref"], "dependsOn": []})
            refs.append(inner["bom-ref"])
        edges.append({"ref": purl(crate), "dependsOn": refs})
    made = {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            **moment(),
            "tools": {"components": [{"type": "application", "name": "scripts/sbom.py", "version": root[1]}]},
            "component": {
                "type": "application",
                "bom-ref": purl(root),
                "name": root[0],
                "version": root[1],
                "purl": purl(root),
                "licenses": licence(packages[root]),
            },
            "properties": [{"name": "cargo:target", "value": target}],
        },
        "components": components,
        "dependencies": edges,
    }
    name = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(made, sort_keys=True))
    return {**made, "serialNumber": f"urn:uuid:{name}"}


def compiled(target, packages):
    """What a release build compiles, by its own account."""
    by_id = {package["id"]: crate for crate, package in packages.items()}
    # Naming the host as a target would build everything anew, elsewhere.
    foreign = [] if target == host() else ["--target", target]
    words = ["build", "--release", "--locked", "--quiet", "--message-format=json", *foreign]
    messages = map(json.loads, cargo(*words).splitlines())
    return {by_id[m["package_id"]] for m in messages if m["reason"] == "compiler-artifact"}


def faults(made, needs, built, packages):
    listed = {(c["name"], c["version"]) for c in made["components"]}
    listed.add((made["metadata"]["component"]["name"], made["metadata"]["component"]["version"]))
    for crate in sorted(built - listed):
        yield f"{crate[0]} {crate[1]} is compiled and not listed"
    for crate in sorted(set(needs) - built):
        yield f"{crate[0]} {crate[1]} is listed and not compiled"
    for crate in sorted(set(needs) - set(packages)):
        yield f"{crate[0]} {crate[1]} is unknown to cargo metadata"
    if len(needs) > MOST_CRATES:
        yield f"{len(needs)} crates are more than {MOST_CRATES}"
    for c in made["components"]:
        if not c["licenses"] or not (c.get("hashes") or c["purl"].startswith("pkg:github/")):
            yield f"{c['name']} {c['version']} has no licence or no checksum"


def rows():
    """The crates of each row of the direct dependencies."""
    text = (ROOT / "docs/dependencies.md").read_text()
    section = text.split("\n## Direct dependencies\n")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return [re.findall(r"`([^`]+)`", cell) for cell in cells]


def reached(needs, cut, gone):
    """What derikey reaches without needing some crates itself, in a tree without some others."""
    root = next(iter(needs))
    seen, todo = set(), [root]
    while todo:
        crate = todo.pop()
        if crate in seen or crate[0] in gone:
            continue
        seen.add(crate)
        todo += [needed for needed in needs[crate] if crate != root or needed[0] not in cut]
    return seen


def lines_of(package):
    """Lines of Rust that somebody wrote for the crate itself."""
    count = 0
    for file in (pathlib.Path(package["manifest_path"]).parent / "src").rglob("*.rs"):
        text = file.read_text(errors="replace")
        if "generated by rust-bindgen" in text[:200]:
            continue
        text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
        bare = map(str.strip, text.splitlines())
        count += sum(1 for line in bare if line and not line.startswith("//"))
    return count


def weights(packages, needs, gone):
    there = reached(needs, [], gone)
    for row in rows():
        goes = there - reached(needs, row, gone)
        whole = goes | {crate for crate in there if crate[0] in row}
        lines = sum(lines_of(packages[crate]) for crate in whole) / 1000
        others = sorted(crate[0] for crate in goes if crate[0] not in row)
        print(f"{', '.join(row)}: {len(goes) or '-'}, {lines:.1f}", *([f"({', '.join(others)})"] if others else []))


def main():
    words = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    words.add_argument("--out", type=pathlib.Path, default=ROOT / target / "derikey.cdx.json")
    words.add_argument("--target", default=host())
    words.add_argument("--check", action="store_true")
    words.add_argument("--weights", action="store_true")
    words.add_argument("--gone", metavar="CRATE", action="append", default=[])
    said = words.parse_args()
    metadata = json.loads(cargo("metadata", "--locked", "--format-version=1", "--filter-platform", said.target))
    packages = {(p["name"], p["version"]): p for p in metadata["packages"]}
    needs = tree("normal,build", said.target)
    if said.weights:
        weights(packages, needs, said.gone)
        return 0
    linked = set(tree("normal,no-proc-macro", said.target))
    made = bill(said.target, packages, needs, linked)
    said.out.parent.mkdir(parents=True, exist_ok=True)
    said.out.write_text(json.dumps(made, indent=2) + "\n")
    total = len(made["components"])
    print(f"{said.out}: {total} components, {sum(c['scope'] == 'required' for c in made['components'])} of them in the program")
    if not said.check:
        return 0
    found = list(faults(made, needs, compiled(said.target, packages), packages))
    for fault in found:
        print(f"sbom: {fault}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
