"""What the scripts beside it ask of OpenSSL 3 and of SHA-256. Python's own library, and nothing of Yongtong."""

import base64
import hashlib
import os
import subprocess
import tempfile

# What stands before the bare octets of a public key to make it one that OpenSSL reads.
BEFORE = {"EdDSA": "302a300506032b6570032100", "SM2": "3059301306072a8648ce3d020106082a811ccf5501822d03420004"}


def check(holds, otherwise):
    if not holds:
        raise ValueError(otherwise)


def sha256(*octets):
    return hashlib.sha256(b"".join(octets)).digest()


def unb64(text):
    return base64.b64decode(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4))


def openssl(*words, **files):
    """Runs openssl; a word that names one of the files stands for its path."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: os.path.join(folder, name) for name in files}
        for name, octets in files.items():
            with open(paths[name], "wb") as file:
                file.write(octets)
        return subprocess.run(["openssl", *(paths.get(word, word) for word in words)], capture_output=True, check=False)


def key_of(certificate):
    """The public key of a certificate (PEM)."""
    return openssl("x509", "-in", "pem", "-noout", "-pubkey", pem=certificate).stdout


def bare_key(octets, kind="EdDSA"):
    """The public key of the log or of a witness, which stand in the anchors as hex."""
    return openssl("pkey", "-pubin", "-inform", "DER", "-in", "der", der=bytes.fromhex(BEFORE[kind] + octets)).stdout


def holds(key, signature, octets, alg=""):
    """By the key's own kind. ECDSA and SM2 are r || s here where OpenSSL wants DER; SM2's user id is said to it."""
    kind = openssl("pkey", "-pubin", "-in", "key", "-noout", "-text", key=key).stdout
    how = ["-sha256"]
    if b"prime256v1" in kind or b"SM2" in kind:
        pair = f"asn1=SEQUENCE:s\n[s]\nr=INTEGER:0x{signature[:32].hex()}\ns=INTEGER:0x{signature[32:].hex()}\n"
        signature = openssl("asn1parse", "-genconf", "pair", "-noout", "-out", "/dev/stdout", pair=pair.encode()).stdout
    if b"SM2" in kind:
        how = ["-sm3", "-sigopt", "distid:1234567812345678"]
    elif alg == "PS256":
        how += ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32"]
    words = ["dgst", *how, "-verify", "key", "-signature", "said", "it"]
    if kind.startswith(b"ED25519"):
        words = ["pkeyutl", "-verify", "-pubin", "-inkey", "key", "-rawin", "-sigfile", "said", "-in", "it"]
    return openssl(*words, key=key, said=signature, it=octets).returncode == 0


def stamped(response, octets, roots):
    """Whether an authority under one of these roots (PEM) gave octets a time (RFC 3161)."""
    files = {"tsr": response, "it": octets, "roots": "\n".join(roots).encode()}
    return openssl("ts", "-verify", "-in", "tsr", "-data", "it", "-CAfile", "roots", **files).returncode == 0


def without_witnesses(note):
    """The octets of a head that are stamped: its text, the empty line, the lines of the log itself."""
    text, _, lines = note.rpartition("\n\n")
    own = [f"{line}\n" for line in lines.splitlines() if line.split(" ")[1] == note.partition("\n")[0]]
    return f"{text}\n\n{''.join(own)}".encode()


def climb(fn, sn, old, new, nodes):
    """RFC 9162 2.1.3.2 and 2.1.4.2: from a leaf, or from an old root, up to the roots."""
    for node in map(bytes.fromhex, nodes):
        check(sn > 0, "the proof is too long")
        left = fn % 2 == 1 or fn == sn
        old, new = (sha256(b"\1", node, old), sha256(b"\1", node, new)) if left else (old, sha256(b"\1", new, node))
        while left and fn % 2 == 0 and fn:
            fn, sn = fn // 2, sn // 2
        fn, sn = fn // 2, sn // 2
    check(sn == 0, "the proof is too short")
    return old, new
