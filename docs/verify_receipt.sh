#!/usr/bin/env bash
# Check a receipt with nothing but bash, sed and OpenSSL 3: who does not trust our program need not.
#   verify_receipt.sh RECEIPT.json ANCHORS.json
# Checks (1) the bus's ES256 signature, (2) the log's Ed25519 signature of the checkpoint, (3) that the entry lies under
# the checkpoint's root (RFC 9162 §2.1.3.2). Prints one line for each; exit 1 at the first that does not hold.
set -euo pipefail
receipt=$1 anchors=$2 work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

member() { sed -n 's/.*"'"$1"'": *"\(\([^"\\]\|\\.\)*\)".*/\1/p' "$2" | head -n 1; }       # a string, still escaped
number() { sed -n 's/.*"'"$1"'": *\([0-9]*\).*/\1/p' "$2"; }
plain() { printf %b "$(sed 's/\\"/"/g')."; }                            # JSON escapes undone; the dot keeps the last newline
octets() { printf "$(sed 's/../\\x&/g' <<<"$1")"; }                                              # hex to octets
hex() { od -An -v -tx1 | tr -d ' \n'; }
digest() { openssl dgst -sha256 -r | cut -d ' ' -f 1; }
decode64() { openssl base64 -d -A; }
decode64url() { local text; text=$(tr -- '-_' '+/'); printf %s "$text$(printf '%*s' $(((4 - ${#text} % 4) % 4)) '' | tr ' ' =)" | decode64; }
fails() { echo "DOES NOT HOLD: $1"; exit 1; }

# (1) ES256: raw r || s, which OpenSSL wants as DER
member receipt_certificates "$anchors" >/dev/null
sed -n '/BEGIN CERTIFICATE/,$p' "$anchors" | tr -d '\n' | sed 's/.*\(-----BEGIN.*END CERTIFICATE-----\).*/\1/; s/\\n/\n/g' >"$work/answer.pem"
openssl x509 -in "$work/answer.pem" -noout -pubkey >"$work/answer.pub"
printf %s "$(member protected "$receipt").$(member payload "$receipt")" >"$work/signed"
raw=$(member signature "$receipt" | tr -d '\n' | decode64url | hex)
printf 'asn1=SEQUENCE:s\n[s]\nr=INTEGER:0x%s\ns=INTEGER:0x%s\n' "${raw:0:64}" "${raw:64}" >"$work/der.conf"
openssl asn1parse -genconf "$work/der.conf" -noout -out "$work/signature"
openssl dgst -sha256 -verify "$work/answer.pub" -signature "$work/signature" "$work/signed" >/dev/null 2>&1 || fails signature
echo "signature holds"

# (2) the checkpoint: origin, size, root, an empty line, the signature line (C2SP signed note)
member payload "$receipt" | tr -d '\n' | decode64url >"$work/document"
note=$(member checkpoint "$work/document" | plain)
printf '%s\n' "${note%%$'\n\n'*}" >"$work/note"
sed -n 's/^— [^ ]* //p' <<<"$note" | head -n 1 | tr -d '.' | decode64 | tail -c 64 >"$work/note.sig"
{ octets 302a300506032b6570032100; octets "$(member log_key "$anchors")"; } | openssl pkey -pubin -inform DER -out "$work/log.pub"
openssl pkeyutl -verify -pubin -inkey "$work/log.pub" -rawin -in "$work/note" -sigfile "$work/note.sig" >/dev/null 2>&1 || fails checkpoint
[ "$(sed -n 1p "$work/note")" = "$(member origin "$anchors")" ] || fails origin
size=$(sed -n 2p "$work/note") root=$(sed -n 3p "$work/note" | decode64 | hex)
echo "checkpoint holds: $size entries"

# (3) leaf hash, then up: 0x00 before a leaf, 0x01 before a node
leaf=$(member leaf "$work/document" | plain)
hash=$({ octets 00; printf %s "${leaf%.}"; } | digest)
fn=$(number index "$work/document") sn=$((size - 1))
for node in $(sed -n 's/.*"proof":\[\([^]]*\)\].*/\1/p' "$work/document" | tr -d '"' | tr , ' '); do
  [ "$sn" -gt 0 ] || fails inclusion
  if ((fn % 2 == 1 || fn == sn)); then
    hash=$({ octets 01; octets "$node"; octets "$hash"; } | digest)
    while ((fn % 2 == 0 && fn != 0)); do ((fn >>= 1, sn >>= 1)) || true; done
  else
    hash=$({ octets 01; octets "$hash"; octets "$node"; } | digest)
  fi
  ((fn >>= 1, sn >>= 1)) || true
done
[ "$sn" -eq 0 ] && [ "$hash" = "$root" ] || fails inclusion
echo "entry $(number index "$work/document") lies under it"
