#!/usr/bin/env python3
"""Holds the exceptions of deny.toml to their dates.

    scripts/exceptions.py [--on YYYY-MM-DD]

Each advisory that is ignored and each duplicate that is put up with gives a reason that ends in
"expires YYYY-MM-DD". After that day this fails, thirty days before it warns: then look whether the
reason still holds, and say so with a new date, or mend it. `cargo audit` must ignore the same
advisories (.cargo/audit.toml) and no others. Standard library only. Exit: 0 all in date, 1 not.
"""

import argparse
import datetime
import pathlib
import re
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
WARNING = datetime.timedelta(days=30)


def read(name):
    with open(ROOT / name, "rb") as file:
        return tomllib.load(file)


def exceptions(deny):
    """Every exception as what it is for, and its reason."""
    bans, licenses = deny.get("bans", {}), deny.get("licenses", {})
    found = [*deny["advisories"].get("ignore", []), *bans.get("skip", []), *bans.get("skip-tree", [])]
    found += licenses.get("exceptions", [])
    for entry in found:
        table = entry if isinstance(entry, dict) else {"id": entry}
        yield table.get("id") or table.get("crate") or str(table), table.get("reason", "")


def main():
    words = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    words.add_argument("--on", type=datetime.date.fromisoformat, default=datetime.date.today())
    today = words.parse_args().on
    deny, bad = read("deny.toml"), False
    for name, reason in exceptions(deny):
        dated = re.fullmatch(r"(.{20,})[;,] expires (\d{4}-\d\d-\d\d)", reason)
        if not dated:
            bad = True
            print(f'{name}: its reason does not end in "; expires YYYY-MM-DD"')
            continue
        until = datetime.date.fromisoformat(dated[2])
        late = today > until
        bad = bad or late
        word = "EXPIRED" if late else "SOON" if until - today < WARNING else "in date"
        print(f"{name}: {word}, until {until}: {dated[1]}")
    ignored = sorted(e["id"] if isinstance(e, dict) else e for e in deny["advisories"].get("ignore", []))
    audited = sorted(read(".cargo/audit.toml")["advisories"]["ignore"])
    if ignored != audited:
        bad = True
        print(f".cargo/audit.toml ignores {audited}, deny.toml {ignored}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
