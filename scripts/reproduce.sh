#!/usr/bin/env bash
# Builds the program twice from scratch, in two directories, with two names for cargo's home, and
# compares. What comes out holds no path of the machine that built it.
#
#     scripts/reproduce.sh [--quick]       two builds: same bytes, no path, hardened
#     scripts/reproduce.sh --check FILE    only whether a program that is there is hardened
#
# --quick optimizes little: it answers whether anything differs, not what the release is. The program
# is left in target/reproduced. Somebody else gets the same bytes with the same compiler (rustc and
# cc), the same commit and this script; both are printed. Needs binutils, Linux.
set -euo pipefail
cd "$(dirname "$0")/.."

# Whether a program is position-independent, its relocations read-only from the start, no page of it
# writable and executable, no names of functions in it, and its libraries only the system's.
hardened() {
    local head segments sections dynamic bad=0
    head=$(readelf -hW "$1")
    segments=$(readelf -lW "$1")
    sections=$(readelf -SW "$1")
    dynamic=$(readelf -dW "$1")
    says() { # what, where, pattern
        if ! grep -qE -- "$3" <<<"$2"; then
            echo "$1 is missing" >&2
            bad=1
        fi
    }
    never() {
        if grep -E -- "$3" <<<"$2" >&2; then
            echo "$1: not wanted" >&2
            bad=1
        fi
    }
    says "PIE" "$head" 'Type: +DYN'
    says "PIE" "$dynamic" 'FLAGS_1.*\bPIE\b'
    says "RELRO" "$segments" '^ +GNU_RELRO '
    says "BIND_NOW (full RELRO)" "$dynamic" 'BIND_NOW|FLAGS_1.*\bNOW\b'
    says "a stack that is not executable" "$segments" '^ +GNU_STACK .* RW +0'
    never "a segment that is writable and executable" "$segments" '^ +[A-Z_]+ .* RWE +0'
    never "a table of symbols (a tenth of the program)" "$sections" ' \.symtab '
    never "RPATH" "$dynamic" 'RPATH|RUNPATH'
    never "a relocation in code" "$dynamic" 'TEXTREL'
    never "a library beyond the system's" \
        "$(grep NEEDED <<<"$dynamic" | grep -vE '\[(libc|libm|libgcc_s)\.so\.[0-9]+\]|\[ld-linux[a-z0-9_-]*\.so\.[0-9]+\]')" .
    [ "$bad" = 0 ] && echo "$1: PIE, full RELRO, no executable stack, no RPATH, no symbols"
    return "$bad"
}

quick=false
case "${1:-}" in
--check)
    hardened "${2:?--check wants a file}"
    exit
    ;;
--quick) quick=true ;;
"") ;;
*)
    sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac

cargo_home=${CARGO_HOME:-$HOME/.cargo}
rustup_home=${RUSTUP_HOME:-$HOME/.rustup}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cargo fetch --locked --quiet
# Nothing of the caller's reaches the compilers.
for name in $(compgen -e | grep -E '^(CARGO_(BUILD|PROFILE|ENCODED|TARGET)_|CARGO_INCREMENTAL$|RUSTFLAGS$|RUSTC|(HOST|TARGET)_CC|C(XX)?FLAGS|LDFLAGS$|CPATH$|LIBRARY_PATH$)'); do
    unset "$name"
done
unset CARGO_TARGET_DIR
if $quick; then
    export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
fi
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH

# Builds what git knows of this tree, as it lies here, in a directory and under a cargo home.
build() {
    local tree=$1 home=$2 zone=$3 rust c sources
    mkdir -p "$tree" "$home"
    git ls-files -z | tar --null --files-from=- --create | tar --extract --directory "$tree"
    ln -s "$cargo_home/registry" "$home/registry"
    # The longer prefix comes last: the last that fits counts, for rustc and for cc.
    rust="--remap-path-prefix=$home=/cargo --remap-path-prefix=$tree=/derikey"
    c="-ffile-prefix-map=$home=/cargo -ffile-prefix-map=$tree=/derikey"
    for sources in "$home"/registry/src/*; do
        rust="$rust --remap-path-prefix=$sources=/crates"
        c="$c -ffile-prefix-map=$sources=/crates"
    done
    (
        cd "$tree"
        export CARGO_HOME="$home" RUSTUP_HOME="$rustup_home" TZ="$zone" RUSTFLAGS="$rust" CFLAGS="$c"
        cargo build --release --locked --offline --quiet
    )
}

first=$work/one
second=$work/somewhere-else/with/a-longer-name
echo "$(rustc --version); $(cc --version | head -n 1); $(git describe --always --dirty --abbrev=40)"
build "$first" "$work/home" UTC
build "$second" "$work/another-home-of-cargo" Asia/Tokyo
one=$first/target/release/derikey
two=$second/target/release/derikey
sha256sum "$one" "$two" | sed "s|$work/||"
if ! cmp "$one" "$two"; then
    echo "the two builds differ" >&2
    exit 1
fi
for path in "$work" "$PWD" "$cargo_home" "$rustup_home" "$HOME/"; do
    if strings -a "$one" | grep -F -m 5 -- "$path" >&2; then
        echo "the program names $path" >&2
        exit 1
    fi
done
hardened "$one"
mkdir -p target/reproduced
cp "$one" target/reproduced/derikey
echo "two builds, the same bytes, no path of this machine: target/reproduced/derikey"
