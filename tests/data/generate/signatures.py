#!/usr/bin/env python3
"""Made tests/data/signatures.json (signatures by OpenSSL 3.0.19); run it again when a plain key of keys/ changes.

Usage: signatures.py TESTS-DATA. All of these signatures are deterministic: Ed25519, and RSA PKCS#1 v1.5 with SHA-256.
"""

import base64
import hashlib
import hmac
import json
import pathlib
import subprocess
import sys
import tempfile

from cryptography.hazmat.primitives.serialization import load_der_private_key

import der

STAMP = {"timestamp": 1576074319000, "nonce": "1iqt2wls"}
RENAME = '{"jsonrpc":"2.0","id":2453,"method":"private/change_api_key_name","params":{"name":"KeyName3","id":3}}'
SUMMARY = {"purpose": "request", **STAMP, "method": "GET", "uri": "/api/v2/private/get_account_summary?currency=BTC", "body": ""}
LOGIN = {"purpose": "login", **STAMP, "data": ""}
MESSAGES = [
    LOGIN,
    {"purpose": "login", **STAMP, "data": "hello"},
    {"purpose": "login", **STAMP, "data": "gr\u00fc\u00dfe \u2603"},
    {"purpose": "login", "timestamp": 1735689600000, "nonce": "k3v9q0zr7xw1m5t8b2n6c4y0h9d7s3fa", "data": ""},
    SUMMARY,
    {"purpose": "request", **STAMP, "method": "POST", "uri": "/api/v2/private/change_api_key_name", "body": RENAME},
]
KEYS = ["ed25519.rfc8032"] + [f"{a}.{t}" for t in ("openssl", "python") for a in ("ed25519", "rsa2048", "rsa3072", "rsa4096")]

# Own vectors over the seed of RFC 8032, test 1, made before and apart from this file.
KNOWN = [
    "ct_usiNBEI4biVO3qsPw4ACmmZR-NEhJpA6sX9nUXU3mak75LAiccV35TNtZM8-OdvjW0i77cJKvX1IFhz1PAg",
    "vn9cjm9CJXR5qhpXuJWPutn5YR1N21xIrhOCoP60G6qSBBy_dKGiSP6sA3RHi7MvqETvdsVGH7XdxqvQ34owDA",
    "hFqbTTh9oOtaYeEHUVORHIn0dr1h3adFjcUSlxSd6XkT7S_LtJn6mABNU-Ltxy_SUkkfAZbRv-cLaO9qtgTkBQ",
]
# Deribit's documentation, "Authentication": client id AMANDA, client secret AMANDASECRECT
HMAC_SECRET = "AMANDASECRECT"
HMAC_KNOWN = [
    (LOGIN, "56590594f97921b09b18f166befe0d1319b198bbcdad7ca73382de2f88fe9aa1"),
    (SUMMARY, "9bfbc51a2bc372d72cc396cf1a213dc78d42eb74cb7dc272351833ad0de276ab"),
]
# RFC 8032, section 7.1: seed, public key, message, signature
RFC8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]
# RFC 6238, appendix B, SHA-1
TOTP_SECRET = b"12345678901234567890"
TOTP = [
    (59, "94287082"),
    (1111111109, "07081804"),
    (1111111111, "14050471"),
    (1234567890, "89005924"),
    (2000000000, "69279037"),
    (20000000000, "65353130"),
]


def text(m):
    head = f"{m['timestamp']}\n{m['nonce']}\n"
    return head + (m["data"] if m["purpose"] == "login" else f"{m['method']}\n{m['uri']}\n{m['body']}\n")


def sign(key, message):
    with tempfile.NamedTemporaryFile() as file:
        file.write(message)
        file.flush()
        command = ["openssl", "pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", file.name]
        signature = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
        if "rsa" in key.name:
            command = ["openssl", "dgst", "-sha256", "-sign", key, file.name]
            assert signature == subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    return base64.urlsafe_b64encode(signature).rstrip(b"=").decode()


def totp(time, digits):
    code = hmac.digest(TOTP_SECRET, (time // 30).to_bytes(8, "big"), "sha1")
    at = code[-1] & 15
    return f"{(int.from_bytes(code[at : at + 4], 'big') & 0x7FFFFFFF) % 10**digits:0{digits}}"


def main(root):
    index = {row["file"]: row for row in json.loads((root / "index.json").read_text())["keys"]}
    keys = []
    for name in KEYS:
        row = index[f"keys/{name}.pem"]
        entry = {field: row[field] for field in ("file", "public", "algorithm", "md5")}
        entry["signatures"] = []
        for message in MESSAGES:
            signed = text(message)
            signature = sign(root / row["file"], signed.encode())
            entry["signatures"].append({**message, "message": signed, "signature": signature})
        keys.append(entry)
    own = [keys[0]["signatures"][i]["signature"] for i in (0, 1, 4)]
    assert own == KNOWN, own

    hmacs = []
    for message, expected in HMAC_KNOWN:
        signed = text(message)
        assert hmac.new(HMAC_SECRET.encode(), signed.encode(), hashlib.sha256).hexdigest() == expected
        hmacs.append({"client_id": "AMANDA", "client_secret": HMAC_SECRET, **message, "message": signed, "signature": expected})

    rfc8032 = []
    for number, (seed, public, message, signature) in enumerate(RFC8032, 1):
        key = load_der_private_key(der.ed25519_v1(bytes.fromhex(seed)), None)
        assert key.public_key().public_bytes_raw().hex() == public
        assert key.sign(bytes.fromhex(message)).hex() == signature
        rfc8032.append({"test": number, "seed": seed, "public": public, "message": message, "signature": signature})

    codes = []
    for time, eight in TOTP:
        assert totp(time, 8) == eight
        codes.append({"time": time, "digits8": eight, "digits6": totp(time, 6)})
    rfc6238 = {
        "algorithm": "SHA1",
        "step": 30,
        "secret_ascii": TOTP_SECRET.decode(),
        "secret_base32": base64.b32encode(TOTP_SECRET).decode(),
        "codes": codes,
    }

    tables = {"keys": keys, "hmac": hmacs, "rfc8032": rfc8032, "rfc6238": rfc6238}
    (root / "signatures.json").write_text(json.dumps(tables, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: signatures.py TESTS-DATA")
    main(pathlib.Path(sys.argv[1]))
