// Asks Node about files that derikey wrote, and makes files for derikey to read.
//
//   check.js version                                   prints the version of Node
//   check.js read FILE [PASSPHRASE-FILE]               opens a private key (PEM); prints "SHA256-OF-SPKI ALGORITHM"
//   check.js verify PUBLIC.pem MESSAGE-FILE SIGNATURE  verifies a signature in base64url without padding
//   check.js sign FILE MESSAGE-FILE                    signs with a plain private key; prints base64url without padding
//   check.js make ALGORITHM [PASSPHRASE-FILE]          prints a new private key (PKCS#8 PEM; sealed: PBKDF2, AES-256-CBC)
//
// Exit: 0 yes, 1 no (the reason on standard error), 2 wrong usage.
"use strict";
const crypto = require("crypto");
const fs = require("fs");

const words = (file) => (file === undefined ? undefined : fs.readFileSync(file, "utf8").replace(/\r?\n$/, ""));
const digest = (key) => (key.asymmetricKeyType === "rsa" ? "sha256" : null);

function read(file, passphrase) {
  const key = crypto.createPrivateKey({ key: fs.readFileSync(file), passphrase: words(passphrase) });
  const spki = crypto.createPublicKey(key).export({ type: "spki", format: "der" });
  const bits = key.asymmetricKeyType === "rsa" ? key.asymmetricKeyDetails.modulusLength : "";
  return `${crypto.createHash("sha256").update(spki).digest("hex")} ${key.asymmetricKeyType}${bits}`;
}

function verify(file, message, signature) {
  const key = crypto.createPublicKey(fs.readFileSync(file));
  if (!crypto.verify(digest(key), fs.readFileSync(message), key, Buffer.from(signature, "base64url"))) {
    throw new Error("the signature does not verify");
  }
  return "good";
}

function sign(file, message) {
  const key = crypto.createPrivateKey(fs.readFileSync(file));
  return crypto.sign(digest(key), fs.readFileSync(message), key).toString("base64url");
}

function make(algorithm, passphrase) {
  const [kind, bits] = algorithm.split("-");
  const { privateKey } = crypto.generateKeyPairSync(kind, bits ? { modulusLength: Number(bits) } : {});
  const sealing = passphrase === undefined ? {} : { cipher: "aes-256-cbc", passphrase: words(passphrase) };
  return privateKey.export({ type: "pkcs8", format: "pem", ...sealing }).trimEnd();
}

const [command, ...rest] = process.argv.slice(2);
const commands = { read, verify, sign, make, version: () => process.version };
if (!(command in commands)) {
  console.error("check.js version | read | verify | sign | make");
  process.exit(2);
}
try {
  console.log(commands[command](...rest));
} catch (error) {
  console.error(`check.js: ${error.message}`);
  process.exit(1);
}
