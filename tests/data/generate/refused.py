#!/usr/bin/env python3
"""Made tests/data/refused (OpenSSL 3.0.19, OpenSSH 9.2p1, cryptography 48); need not be run again.

Usage: refused.py DIRECTORY. Every run makes new keys. What each file is stands in the table REFUSED, which index.py reads.
"""

import base64
import os
import pathlib
import re
import struct
import subprocess
import sys
import tempfile

from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

import der

PASSPHRASE = "correct horse"

# file: (why in one word, why in a sentence, sealed)
REFUSED = {
    "rsa1024.pem": ("rsa-size", "RSA of 1024 bits, PKCS#8", False),
    "rsa1024.pkcs1.pem": ("rsa-size", "RSA of 1024 bits, PKCS#1", False),
    "rsa1024.ssh.pem": ("rsa-size", "RSA of 1024 bits, OpenSSH", False),
    "rsa2560.pem": ("rsa-size", "RSA of 2560 bits: neither 2048, 3072 nor 4096", False),
    "rsa2048.e3.pem": ("rsa-exponent", "RSA of 2048 bits with the public exponent 3", False),
    "rsa2048.three-primes.pem": ("rsa-primes", "RSA of 2048 bits with three primes", False),
    "rsa2048.wrong-crt.pem": ("inconsistent", "RSA of 2048 bits whose d mod (p-1) is off by two", False),
    "rsa2048.wrong-modulus.pem": ("inconsistent", "RSA of 2048 bits whose modulus is not the product of its primes", False),
    "rsa-pss2048.pem": ("algorithm", "RSASSA-PSS key: its OID forbids PKCS#1 v1.5", False),
    "ec-p256.pem": ("algorithm", "ECDSA P-256, PKCS#8", False),
    "ec-p256.sec1.pem": ("algorithm", "ECDSA P-256, SEC1 (EC PRIVATE KEY)", False),
    "ec-p256.ssh.pem": ("algorithm", "ECDSA P-256, OpenSSH", False),
    "dsa2048.pem": ("algorithm", "DSA of 2048 bits, PKCS#8", False),
    "x25519.pem": ("algorithm", "X25519: key agreement, not signing", False),
    "ed448.pem": ("algorithm", "Ed448", False),
    "certificate.pem": ("not-private", "a self-signed X.509 certificate", False),
    "public.pem": ("not-private", "a public key, SubjectPublicKeyInfo", False),
    "public.ssh": ("not-private", "a public key, one line of OpenSSH", False),
    "legacy-encrypted.pem": ("legacy-encryption", "PKCS#1 with Proc-Type and DEK-Info headers: one round of MD5", True),
    "pbes2-des-ede3.pem": ("cipher", "PBES2 with triple DES", True),
    "pbe-sha1-3des.pem": ("cipher", "PKCS#12 password encryption with SHA-1 and triple DES", True),
    "pbes2-iterations.pem": ("cost", "PBKDF2 with 2^31-1 iterations; the ciphertext is random", True),
    "pbes2-iterations.der": ("cost", "the same as DER", True),
    "scrypt-cost.pem": ("cost", "scrypt with N = 2^30, r = 8: a TiB of memory; the ciphertext is random", True),
    "scrypt-cost.der": ("cost", "the same as DER", True),
    "openssh-rounds.pem": ("cost", "OpenSSH with 2^32-1 rounds of bcrypt", True),
    "pkcs8-v2-wrong-public.pem": ("inconsistent", "PKCS#8 v2, Ed25519, whose public key is another key's", False),
    "pkcs8-v2-wrong-public.der": ("inconsistent", "the same as DER", False),
    "openssh-wrong-public.pem": ("inconsistent", "OpenSSH, Ed25519, whose public key (all three copies) is another key's", False),
    "short-seed.pem": ("malformed", "Ed25519 with a seed of 31 bytes", False),
    "two-keys.pem": ("two-keys", "two Ed25519 keys in one file", False),
    "empty.pem": ("empty", "no byte at all", False),
    "truncated.pem": ("malformed", "PEM that stops before its end line", False),
    "truncated-der.pem": ("malformed", "well-formed PEM around DER whose last 8 bytes are missing", False),
    "trailing-der.pem": ("malformed", "well-formed PEM around DER with 4 bytes too many", False),
    "labels.pem": ("malformed", "begins as PRIVATE KEY, ends as PUBLIC KEY", False),
    "garbage.pem": ("malformed", "the right lines around characters that are not base64", False),
    "utf16.pem": ("malformed", "an Ed25519 key in UTF-16LE with a byte order mark, as a shell of Windows redirects it", False),
}


def run(*command, stdin=None):
    return subprocess.run(command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout


def openssl(*arguments, stdin=None):
    return run("openssl", *arguments, stdin=stdin)


def genpkey(algorithm, *options):
    return openssl("genpkey", "-algorithm", algorithm, *(x for o in options for x in ("-pkeyopt", o)))


def ssh_key(directory, name, *arguments, passphrase=""):
    path = os.path.join(directory, name)
    run("ssh-keygen", "-q", "-N", passphrase, "-C", "derikey test", "-f", path, *arguments)
    return pathlib.Path(path).read_bytes(), pathlib.Path(path + ".pub").read_bytes()


def unpem(data):
    return base64.b64decode(re.sub(rb"-----[^-]+-----|\s", b"", data))


def numbers(key):
    n = key.private_numbers()
    return [n.public_numbers.n, n.public_numbers.e, n.d, n.p, n.q, n.dmp1, n.dmq1, n.iqmp]


def make(scratch):
    files = {}

    files["rsa1024.pem"] = small = genpkey("RSA", "rsa_keygen_bits:1024")
    files["rsa1024.pkcs1.pem"] = openssl("rsa", "-traditional", stdin=small)
    files["rsa1024.ssh.pem"], _ = ssh_key(scratch, "rsa1024", "-t", "rsa", "-b", "1024")
    files["rsa2560.pem"] = genpkey("RSA", "rsa_keygen_bits:2560")
    files["rsa2048.e3.pem"] = genpkey("RSA", "rsa_keygen_bits:2048", "rsa_keygen_pubexp:3")
    files["rsa2048.three-primes.pem"] = genpkey("RSA", "rsa_keygen_bits:2048", "rsa_keygen_primes:3")
    parts = numbers(rsa.generate_private_key(65537, 2048))
    files["rsa2048.wrong-crt.pem"] = der.pem("PRIVATE KEY", der.rsa_v1(*parts[:5], parts[5] + 2, *parts[6:]))
    files["rsa2048.wrong-modulus.pem"] = der.pem("PRIVATE KEY", der.rsa_v1(parts[0] - 2, *parts[1:]))

    files["rsa-pss2048.pem"] = genpkey("RSA-PSS", "rsa_keygen_bits:2048")
    files["ec-p256.pem"] = elliptic = genpkey("EC", "ec_paramgen_curve:P-256", "ec_param_enc:named_curve")
    files["ec-p256.sec1.pem"] = openssl("ec", stdin=elliptic)
    files["ec-p256.ssh.pem"], _ = ssh_key(scratch, "ecdsa", "-t", "ecdsa", "-b", "256")
    parameters = os.path.join(scratch, "dsa")
    openssl("dsaparam", "-out", parameters, "2048")
    files["dsa2048.pem"] = openssl("pkey", stdin=openssl("gendsa", parameters))
    files["x25519.pem"] = genpkey("X25519")
    files["ed448.pem"] = genpkey("ED448")

    one, two = genpkey("ED25519"), genpkey("ED25519")
    key_file = os.path.join(scratch, "one")
    pathlib.Path(key_file).write_bytes(one)
    files["certificate.pem"] = openssl("req", "-x509", "-new", "-key", key_file, "-subj", "/CN=derikey test", "-days", "3650")
    files["public.pem"] = openssl("pkey", "-pubout", stdin=one)
    plain_ssh, files["public.ssh"] = ssh_key(scratch, "plain", "-t", "ed25519")

    password = "pass:" + PASSPHRASE
    large = genpkey("RSA", "rsa_keygen_bits:2048")
    files["legacy-encrypted.pem"] = openssl("rsa", "-traditional", "-aes256", "-passout", password, stdin=large)
    files["pbes2-des-ede3.pem"] = openssl("pkcs8", "-topk8", "-v2", "des3", "-passout", password, stdin=one)
    files["pbe-sha1-3des.pem"] = openssl("pkcs8", "-topk8", "-v1", "PBE-SHA1-3DES", "-passout", password, stdin=one)

    for name, kdf in (
        ("pbes2-iterations", der.pbkdf2_sha256(os.urandom(16), 2**31 - 1)),
        ("scrypt-cost", der.scrypt(os.urandom(16), 2**30, 8, 1)),
    ):
        costly = der.pbes2(kdf, os.urandom(16), os.urandom(64))
        files[name + ".der"] = costly
        files[name + ".pem"] = der.pem("ENCRYPTED PRIVATE KEY", costly)
    sealed_ssh, _ = ssh_key(scratch, "sealed", "-t", "ed25519", "-a", "4", passphrase=PASSPHRASE)
    # kdf options: a string of 16 bytes of salt, then the rounds
    blob = re.sub(rb"(\0\0\0\x10.{16})\0\0\0\x04", lambda m: m[1] + b"\xff" * 4, unpem(sealed_ssh), count=1, flags=re.S)
    files["openssh-rounds.pem"] = der.pem("OPENSSH PRIVATE KEY", blob)

    seed = os.urandom(32)
    other = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    wrong = der.ed25519_v2(seed, other)
    files["pkcs8-v2-wrong-public.der"] = wrong
    files["pkcs8-v2-wrong-public.pem"] = der.pem("PRIVATE KEY", wrong)
    blob = unpem(plain_ssh)
    at = blob.index(struct.pack(">I", 11) + b"ssh-ed25519" + struct.pack(">I", 32)) + 19
    files["openssh-wrong-public.pem"] = der.pem("OPENSSH PRIVATE KEY", blob.replace(blob[at : at + 32], other))

    good = unpem(one)
    files["short-seed.pem"] = der.pem("PRIVATE KEY", der.ed25519_v1(seed[:31]))
    files["two-keys.pem"] = one + two
    files["empty.pem"] = b""
    files["truncated.pem"] = one[: one.index(b"-----END")]
    files["truncated-der.pem"] = der.pem("PRIVATE KEY", good[:-8])
    files["trailing-der.pem"] = der.pem("PRIVATE KEY", good + b"\0\0\0\0")
    files["labels.pem"] = one.replace(b"END PRIVATE", b"END PUBLIC")
    files["garbage.pem"] = b"-----BEGIN PRIVATE KEY-----\n!!!! this is not base64 ????\n-----END PRIVATE KEY-----\n"
    files["utf16.pem"] = b"\xff\xfe" + one.decode().encode("utf-16-le")
    return files


def main(directory):
    with tempfile.TemporaryDirectory() as scratch:
        files = make(scratch)
    assert files.keys() == REFUSED.keys(), files.keys() ^ REFUSED.keys()
    for name, data in files.items():
        (directory / name).write_bytes(data)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: refused.py DIRECTORY")
    main(pathlib.Path(sys.argv[1]))
