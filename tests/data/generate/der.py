"""Just enough DER to write key files by hand."""

import base64
import textwrap


def tlv(tag, *parts):
    body = b"".join(parts)
    if len(body) < 0x80:
        return bytes([tag, len(body)]) + body
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body


def sequence(*parts):
    return tlv(0x30, *parts)


def integer(value):
    return tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def octets(data):
    return tlv(0x04, data)


def null():
    return tlv(0x05)


def oid(text):
    first, second, *rest = (int(n) for n in text.split("."))
    body = bytearray([first * 40 + second])
    for n in rest:
        group = [n & 0x7F]
        while n := n >> 7:
            group.append(0x80 | n & 0x7F)
        body += bytes(reversed(group))
    return tlv(0x06, bytes(body))


def pem(label, der):
    body = "\n".join(textwrap.wrap(base64.b64encode(der).decode(), 64))
    return f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n".encode()


ED25519 = sequence(oid("1.3.101.112"))
RSA = sequence(oid("1.2.840.113549.1.1.1"), null())


def ed25519_v1(seed):
    """PrivateKeyInfo of RFC 5208 / RFC 8410."""
    return sequence(integer(0), ED25519, octets(octets(seed)))


def ed25519_v2(seed, public):
    """OneAsymmetricKey of RFC 5958: the same and the public key in [1]."""
    return sequence(integer(1), ED25519, octets(octets(seed)), tlv(0x81, b"\0" + public))


def rsa_v1(n, e, d, p, q, dp, dq, qinv):
    key = sequence(*(integer(x) for x in (0, n, e, d, p, q, dp, dq, qinv)))
    return sequence(integer(0), RSA, octets(key))


def pbes2(kdf, iv, ciphertext):
    """EncryptedPrivateKeyInfo of RFC 8018 with AES-256-CBC."""
    cipher = sequence(oid("2.16.840.1.101.3.4.1.42"), octets(iv))
    return sequence(sequence(oid("1.2.840.113549.1.5.13"), sequence(kdf, cipher)), octets(ciphertext))


def pbkdf2_sha256(salt, iterations, key_length=None):
    length = [] if key_length is None else [integer(key_length)]
    prf = sequence(oid("1.2.840.113549.2.9"), null())
    return sequence(oid("1.2.840.113549.1.5.12"), sequence(octets(salt), integer(iterations), *length, prf))


def scrypt(salt, n, r, p):
    return sequence(oid("1.3.6.1.4.1.11591.4.11"), sequence(octets(salt), integer(n), integer(r), integer(p)))
