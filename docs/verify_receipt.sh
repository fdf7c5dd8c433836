#!/usr/bin/env bash
# Check a receipt with nothing but bash, sed and OpenSSL 3: who does not trust our program need not.
#   verify_receipt.sh RECEIPT.json ANCHORS.json
# Checks (1) the bus's signature, by ES256, EdDSA, RS256, PS256 or SM2, over the receipt, or over the root of the small
# tree in which it was signed with others, (2) the log's signature of the checkpoint, by Ed25519 or SM2, (3) that the
# entry lies under the checkpoint's root. Trees: RFC 9162 §2.1.3.2. Prints one line for each; exit 1 at the first that
# does not hold. Receipts of the epoch that is open; of a former one, yongtong verify and verify_bundle.py.
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

# holds KEY SIGNATURE FILE: by the key's own kind, whatever the receipt says. ECDSA and SM2 are raw r || s here, and
# OpenSSL wants DER; SM2's user id is 1234567812345678, and OpenSSL would take an empty one.
holds() {
  local how
  case $(openssl pkey -pubin -in "$1" -noout -text) in
    *prime256v1*) how=-sha256 ;;
    *SM2*) how="-sm3 -sigopt distid:1234567812345678" ;;
    ED25519*) openssl pkeyutl -verify -pubin -inkey "$1" -rawin -in "$3" -sigfile "$2" >/dev/null 2>&1; return ;;
    *) [ "${alg:-}" = PS256 ] && how="-sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32"
       openssl dgst -sha256 ${how:-} -verify "$1" -signature "$2" "$3" >/dev/null 2>&1; return ;;
  esac
  local raw; raw=$(hex <"$2")
  [ ${#raw} -eq 128 ] || return 1
  printf 'asn1=SEQUENCE:s\n[s]\nr=INTEGER:0x%s\ns=INTEGER:0x%s\n' "${raw:0:64}" "${raw:64}" >"$work/der.conf"
  openssl asn1parse -genconf "$work/der.conf" -noout -out "$work/der"
  openssl dgst $how -verify "$1" -signature "$work/der" "$3" >/dev/null 2>&1
}

# under HASH INDEX SIZE ROOT NODE...: whether the leaf hash stands there. 0x00 goes before a leaf, 0x01 before a node.
under() {
  local hash=$1 fn=$2 sn=$(($3 - 1)) root=$4 node
  shift 4
  [ "$fn" -le "$sn" ] || return 1
  for node; do
    [ "$sn" -gt 0 ] || return 1
    if ((fn % 2 == 1 || fn == sn)); then
      hash=$({ octets 01; octets "$node"; octets "$hash"; } | digest)
      while ((fn % 2 == 0 && fn != 0)); do ((fn >>= 1, sn >>= 1)) || true; done
    else
      hash=$({ octets 01; octets "$hash"; octets "$node"; } | digest)
    fi
    ((fn >>= 1, sn >>= 1)) || true
  done
  [ "$sn" -eq 0 ] && [ "$hash" = "$root" ]
}
nodes() { sed -n 's/.*"'"$1"'":\[\([^]]*\)\].*/\1/p' "$2" | tr -d '"' | tr , ' '; }

# (1) the bus's signature, by the certificate among the anchors that the receipt names
member protected "$receipt" | tr -d '\n' | decode64url >"$work/header"
alg=$(member alg "$work/header") typ=$(member typ "$work/header") kid=$(member kid "$work/header") found=
while read -r pem; do
  printf %b "$pem" >"$work/answer.pem"
  [ "$(openssl x509 -in "$work/answer.pem" -outform DER | digest)" != "$kid" ] || { found=yes; break; }
done < <(tr -d '\n' <"$anchors" | sed 's/"former_epochs".*//; s/.*"receipt_certificates": *\[\([^]]*\)\].*/\1/; s/" *, *"/\n/g; s/"//g; s/$/\n/')
[ "$found" ] || fails signature
openssl x509 -in "$work/answer.pem" -noout -pubkey >"$work/answer.pub"
printf %s "$(member protected "$receipt").$(member payload "$receipt")" >"$work/signed"
member signature "$receipt" | tr -d '\n' | decode64url >"$work/signature"
holds "$work/answer.pub" "$work/signature" "$work/signed" || fails signature
member payload "$receipt" | tr -d '\n' | decode64url >"$work/payload"
case $typ in
  yt-receipt+jws | yt-report+jws) cp "$work/payload" "$work/document" ;;
  yt-receipts+jws | yt-reports+jws)
    member document "$receipt" | tr -d '\n' | decode64url >"$work/document"
    hash=$({ octets 00; cat "$work/document"; } | digest)
    under "$hash" "$(number index "$receipt")" "$(number size "$work/payload")" "$(member root "$work/payload")" \
      $(nodes path "$receipt") || fails signature ;;
  *) fails kind ;;
esac
echo "signature holds"

# (2) the checkpoint: origin, size, root, an empty line, the signature line (C2SP signed note)
note=$(member checkpoint "$work/document" | plain)
printf '%s\n' "${note%%$'\n\n'*}" >"$work/note"
sed -n 's/^— [^ ]* //p' <<<"$note" | head -n 1 | tr -d '.' | decode64 | tail -c 64 >"$work/note.sig"
ed25519=302a300506032b6570032100 sm2=3059301306072a8648ce3d020106082a811ccf5501822d03420004     # before the key itself
[ "$(member log_key_kind "$anchors")" = SM2 ] && before=$sm2 || before=$ed25519
{ octets $before; octets "$(member log_key "$anchors")"; } | openssl pkey -pubin -inform DER -out "$work/log.pub"
holds "$work/log.pub" "$work/note.sig" "$work/note" || fails checkpoint
log=$(member log "$anchors")
[ "$(sed -n 1p "$work/note")" = "${log:-$(member origin "$anchors")}" ] || fails origin
size=$(sed -n 2p "$work/note") root=$(sed -n 3p "$work/note" | decode64 | hex)
echo "checkpoint holds: $size entries"

# (3) the entry
leaf=$(member leaf "$work/document" | plain)
hash=$({ octets 00; printf %s "${leaf%.}"; } | digest)
under "$hash" "$(number index "$work/document")" "$size" "$root" $(nodes proof "$work/document") || fails inclusion
echo "entry $(number index "$work/document") lies under it"
