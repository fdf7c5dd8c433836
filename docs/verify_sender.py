"""Check the senders' own signatures in an evidence bundle without Yongtong, by what by_openssl.py asks of OpenSSL 3.

    python3 verify_sender.py BUNDLE      exit 0: each holds; 1: one does not; 2: one is of a form not read here

Read: SOAP envelopes with inline content, signed over exclusive canonical XML without prefix lists; JWS, packed or not.
"""

import hashlib
import json
import sys
import xml.etree.ElementTree as ET
import zipfile

from by_openssl import check, holds, key_of, openssl, sha256, unb64

YT = "{urn:yongtong:v1}"
DS = "{http://www.w3.org/2000/09/xmldsig#}"
PACKAGE = b"yongtong-package/1\n"


class Part:
    """Writes the canonical form of the one element that is wanted, whatever stands round it."""

    def __init__(self, wanted):
        self.wanted, self.octets, self.writer, self.depth, self.scopes, self.new = wanted, [], None, 0, [{}], {}

    def start_ns(self, prefix, uri):
        self.new[prefix] = uri

    def start(self, tag, attributes):
        self.scopes.append({**self.scopes[-1], **self.new})
        if self.depth == 0 and self.wanted(tag, attributes):
            check(self.writer is None, "two elements of one id")
            self.writer, self.new = ET.C14NWriterTarget(self.octets.append), self.scopes[-1]
        if self.depth or self.wanted(tag, attributes):
            for prefix, uri in self.new.items():
                self.writer.start_ns(prefix, uri)
            self.writer.start(tag, attributes)
            self.depth += 1
        self.new = {}

    def data(self, text):
        if self.depth:
            self.writer.data(text)

    def end(self, tag):
        self.scopes.pop()
        if self.depth:
            self.writer.end(tag)
            self.depth -= 1

    def close(self):
        return "".join(self.octets).encode()


def canonical(octets, wanted):
    return ET.fromstring(octets, ET.XMLParser(target=Part(wanted)))


def soap(octets, key, said):
    signed = canonical(octets, lambda tag, _: tag == f"{DS}SignedInfo")
    envelope = ET.fromstring(octets)
    check(holds(key, unb64(envelope.find(f".//{DS}SignatureValue").text), signed), "its signature does not hold")
    for reference in ET.fromstring(signed).iter(f"{DS}Reference"):
        of, method = reference.get("URI")[1:], reference.find(f"{DS}DigestMethod").get("Algorithm")
        digest = hashlib.new("sha256" if method.endswith("#sha256") else "sm3")
        digest.update(canonical(octets, lambda _, attributes, of=of: of in attributes.values()))
        check(digest.digest() == unb64(reference.find(f"{DS}DigestValue").text), f"#{of} was altered")
    body = next(element for element in envelope if element.tag.endswith("}Body"))
    ids = {reference.get("URI")[1:] for reference in ET.fromstring(signed).iter(f"{DS}Reference")}
    check(ids & set(body.attrib.values()), "its Body is not signed")
    check(body.find(f".//{YT}MessageId").text == said["message_id"], "it has another number")
    return unb64("".join(body.find(f".//{YT}Content").text.split()))


def jws(octets, key, said):
    it = json.loads(octets)
    signed = f"{it['protected']}.{it['payload']}".encode()
    header = json.loads(unb64(it["protected"]))
    check(holds(key, unb64(it["signature"]), signed, header["alg"]), "its signature does not hold")
    check(header["mid"] == said["message_id"], "it has another number")
    return unb64(it["payload"])


def package(octets, key, said):
    begin = len(PACKAGE) + 12
    end = begin + int.from_bytes(octets[len(PACKAGE) : len(PACKAGE) + 4], "big")
    check(jws(octets[begin:end], key, said) == b"", "it has two contents")
    stated = json.loads(unb64(json.loads(octets[begin:end])["protected"]))["dig"]
    check(stated == f"SHA-256:{sha256(octets[end:]).hex()}", "its content is another than was signed")
    return octets[end:]


with zipfile.ZipFile(sys.argv[1]) as file:
    parts = {name: file.read(name) for name in file.namelist()}
worst = 0
for name in sorted(name for name in parts if name.endswith("/envelope")):
    entry = json.loads(parts[f"entries/{name.split('/')[1]}.json"])
    said, leaf = json.loads(entry["detail"]), json.loads(entry["leaf"])
    form = said["form"]
    of_xml = parts[name] if form == "inline" else b""
    if (
        form not in ("inline", "jws", "package")
        or (form == "package" and parts[name][len(PACKAGE) + 12 :][:1] != b"{")  # its envelope is a CMS
        or b"InclusiveNamespaces" in of_xml
        or b"STR-Transform" in of_xml
    ):
        print(f"not read here: {name}: {form}")
        worst = worst or 2
        continue
    try:
        check(b"<!" not in of_xml, "it declares a document type")  # before any XML is read
        pem = parts[f"certificates/{leaf['signer']}.pem"]
        der = openssl("x509", "-in", "pem", "-outform", "DER", pem=pem).stdout
        check(sha256(der).hex() == leaf["signer"], "the certificate is another")
        content = {"inline": soap, "jws": jws, "package": package}[form](parts[name], key_of(pem), said)
        check(sha256(content).hex() == said["content_digest"], "its content is not what the entry says")
        print(
            f"holds: {name}: {leaf['sender']} {said['message_id']}, {len(content)} octets, signed by {leaf['signer']}"
        )
    except Exception as problem:
        print(f"broken: {name}: {problem}")
        worst = 1
sys.exit(worst)
