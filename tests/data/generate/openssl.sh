#!/bin/sh
# Made the *.openssl.* files of tests/data/keys (OpenSSL 3.0.19); need not be run again.
# Usage: openssl.sh DIRECTORY (without such keys). Every run makes new keys, so index.json and signatures.json change with it.
set -eu
umask 022
cd "${1:?usage: openssl.sh DIRECTORY}"

passphrase='correct horse'

make_key() { # NAME GENPKEY-ARGUMENTS...
    name=$1
    shift
    openssl genpkey "$@" -out "$name.openssl.pem" 2>/dev/null
    openssl pkey -in "$name.openssl.pem" -pubout -out "$name.openssl.pub.pem"
}

seal() { # NAME SUFFIX PKCS8-ARGUMENTS...
    name=$1
    suffix=$2
    shift 2
    openssl pkcs8 -topk8 -in "$name.openssl.pem" -passout "pass:$passphrase" -out "$name.openssl.$suffix" "$@"
}

crlf() { # FROM TO
    awk '{ printf "%s\r\n", $0 }' "$1" > "$2"
}

one_line() { # FROM TO: line breaks written out as a backslash and an n, as in an environment file
    awk '{ printf "%s\\n", $0 }' "$1" > "$2"
}

make_key ed25519 -algorithm ed25519
make_key rsa2048 -algorithm RSA -pkeyopt rsa_keygen_bits:2048
make_key rsa3072 -algorithm RSA -pkeyopt rsa_keygen_bits:3072
make_key rsa4096 -algorithm RSA -pkeyopt rsa_keygen_bits:4096

for name in ed25519 rsa2048; do
    openssl pkcs8 -topk8 -nocrypt -in "$name.openssl.pem" -outform DER -out "$name.openssl.der"
    for prf in 1 256 512; do
        for bits in 128 192 256; do
            seal "$name" "pbes2-sha$prf-aes$bits.pem" -v2 "aes-$bits-cbc" -v2prf "hmacWithSHA$prf"
        done
    done
    seal "$name" pbes2-sha256-aes256.der -v2 aes-256-cbc -v2prf hmacWithSHA256 -outform DER
    seal "$name" scrypt.pem -scrypt
    for stem in "$name.openssl" "$name.openssl.pbes2-sha256-aes256"; do
        crlf "$stem.pem" "$stem.crlf.pem"
        one_line "$stem.pem" "$stem.one-line.pem"
    done
done

# The costs that derikey itself uses.
seal ed25519 pbes2-sha256-aes256-600k.pem -v2 aes-256-cbc -v2prf hmacWithSHA256 -iter 600000
seal ed25519 scrypt-p5.pem -scrypt -scrypt_N 16384 -scrypt_r 8 -scrypt_p 5

printf '%s' "$(cat ed25519.openssl.pem)" > ed25519.openssl.no-final-newline.pem

openssl rsa -in rsa2048.openssl.pem -traditional -out rsa2048.openssl.pkcs1.pem 2>/dev/null
openssl rsa -in rsa2048.openssl.pem -traditional -outform DER -out rsa2048.openssl.pkcs1.der 2>/dev/null

for name in rsa3072 rsa4096; do
    seal "$name" pbes2-sha256-aes256.pem -v2 aes-256-cbc -v2prf hmacWithSHA256
done
