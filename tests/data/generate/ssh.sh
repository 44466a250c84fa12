#!/bin/sh
# Made the *.ssh.* files of tests/data/keys (OpenSSH 9.2p1); need not be run again.
# Usage: ssh.sh DIRECTORY (without such keys). Every run makes new keys, so index.json and signatures.json change with it.
set -eu
umask 022
cd "${1:?usage: ssh.sh DIRECTORY}"

passphrase='correct horse'

make_key() { # NAME SSH-KEYGEN-ARGUMENTS...
    name=$1
    shift
    ssh-keygen -q -N '' -C 'derikey test' -f "$name.ssh.pem" "$@"
}

rewrite() { # NAME SUFFIX PASSPHRASE SSH-KEYGEN-ARGUMENTS...: the same key in another wrapping
    name=$1
    suffix=$2
    new=$3
    shift 3
    rm -f "$name.ssh.$suffix"
    cp -p "$name.ssh.pem" "$name.ssh.$suffix"
    ssh-keygen -q -p -P '' -N "$new" -f "$name.ssh.$suffix" "$@" >/dev/null
}

make_key ed25519 -t ed25519
make_key rsa2048 -t rsa -b 2048
make_key rsa3072 -t rsa -b 3072
make_key rsa4096 -t rsa -b 4096

for cipher in aes256-ctr aes128-ctr aes256-cbc; do
    rewrite ed25519 "$cipher.pem" "$passphrase" -a 4 -Z "$cipher"
done
rewrite ed25519 aes256-gcm.pem "$passphrase" -a 4 -Z aes256-gcm@openssh.com
rewrite ed25519 chacha20-poly1305.pem "$passphrase" -a 4 -Z chacha20-poly1305@openssh.com
for name in rsa2048 rsa3072 rsa4096; do
    rewrite "$name" aes256-ctr.pem "$passphrase" -a 4 -Z aes256-ctr
done
rewrite rsa2048 pkcs1.pem '' -m PEM
rewrite rsa2048 pkcs8.pem '' -m PKCS8
rewrite rsa2048 pbes2.pem "$passphrase" -m PKCS8

awk '{ printf "%s\r\n", $0 }' ed25519.ssh.pem > ed25519.ssh.crlf.pem
awk '{ printf "%s\\n", $0 }' ed25519.ssh.pem > ed25519.ssh.one-line.pem

# SubjectPublicKeyInfo: ssh-keygen writes it for RSA; for Ed25519 it is a fixed prefix and the last 32 bytes of the blob.
for name in rsa2048 rsa3072 rsa4096; do
    ssh-keygen -e -m PKCS8 -f "$name.ssh.pem.pub" > "$name.ssh.pub.pem"
done
{
    printf '\060\052\060\005\006\003\053\145\160\003\041\000'
    cut -d ' ' -f 2 ed25519.ssh.pem.pub | openssl base64 -d -A | tail -c 32
} | openssl pkey -pubin -inform DER -pubout -out ed25519.ssh.pub.pem
rm -f -- *.ssh.pem.pub
chmod 644 -- *.ssh.*
