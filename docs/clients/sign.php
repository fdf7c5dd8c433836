<?php
// Sign what PHP's SoapClient is about to send, as Yongtong asks for it (docs/profile.md, "SOAP"): WS-Security with the
// certificate in the message, a Timestamp of five minutes, and one signature over Body and Timestamp. PHP has no
// WS-Security of its own; these lines, with ext-dom and ext-openssl, are all that it lacks. RSA and P-256 keys.
// 为 SoapClient 即将发出的请求签名：报文携带证书，时间戳五分钟有效，一个签名同时覆盖 Body 与 Timestamp。
declare(strict_types=1);

const DSIG = 'http://www.w3.org/2000/09/xmldsig#';
const EXCLUSIVE = 'http://www.w3.org/2001/10/xml-exc-c14n#';
const SHA256 = 'http://www.w3.org/2001/04/xmlenc#sha256';
const OASIS = 'http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-';
const WSSE = OASIS . 'wssecurity-secext-1.0.xsd';
const WSU = OASIS . 'wssecurity-utility-1.0.xsd';
const X509V3 = OASIS . 'x509-token-profile-1.0#X509v3';

/** The request with a Security header, signed. keyFile, certificateFile: PEM, of the bureau's signing key. */
function signed(string $request, string $keyFile, string $certificateFile): string
{
    $document = new DOMDocument();
    $document->loadXML($request, LIBXML_NONET);
    $envelope = $document->documentElement;
    $soap = $envelope->namespaceURI;
    $body = $envelope->getElementsByTagNameNS($soap, 'Body')[0];
    $body->setAttributeNS(WSU, 'wsu:Id', 'body');
    $header = $envelope->getElementsByTagNameNS($soap, 'Header')[0]
        ?? $envelope->insertBefore($document->createElementNS($soap, $envelope->prefix . ':Header'), $body);
    $key = openssl_pkey_get_private('file://' . $keyFile);
    $elliptic = openssl_pkey_get_details($key)['type'] === OPENSSL_KEYTYPE_EC;
    $suite = 'http://www.w3.org/2001/04/xmldsig-more#' . ($elliptic ? 'ecdsa-sha256' : 'rsa-sha256');
    $certificate = preg_replace('/-----[^-]+-----|\s/', '', file_get_contents($certificateFile));
    [$created, $expires] = [gmdate('Y-m-d\TH:i:s\Z'), gmdate('Y-m-d\TH:i:s\Z', time() + 300)];

    $security = appended($header, '<wsse:Security xmlns:wsse="' . WSSE . "\" xmlns:s=\"$soap\" s:mustUnderstand=\"1\">"
        . '<wsse:BinarySecurityToken EncodingType="' . OASIS . 'soap-message-security-1.0#Base64Binary" ValueType="'
        . X509V3 . '" xmlns:wsu="' . WSU . "\" wsu:Id=\"token\">$certificate</wsse:BinarySecurityToken></wsse:Security>");
    $timestamp = appended($security, '<wsu:Timestamp xmlns:wsu="' . WSU . '" wsu:Id="timestamp">'
        . "<wsu:Created>$created</wsu:Created><wsu:Expires>$expires</wsu:Expires></wsu:Timestamp>");
    $references = '';
    foreach (['timestamp' => $timestamp, 'body' => $body] as $id => $part) {
        $digest = base64_encode(hash('sha256', $part->C14N(true, false), true));
        $references .= "<Reference URI=\"#$id\"><Transforms><Transform Algorithm=\"" . EXCLUSIVE . '"/></Transforms>'
            . '<DigestMethod Algorithm="' . SHA256 . "\"/><DigestValue>$digest</DigestValue></Reference>";
    }
    $signature = appended($security, '<Signature xmlns="' . DSIG . '"><SignedInfo><CanonicalizationMethod Algorithm="'
        . EXCLUSIVE . "\"/><SignatureMethod Algorithm=\"$suite\"/>$references</SignedInfo></Signature>");
    openssl_sign($signature->firstChild->C14N(true, false), $octets, $key, OPENSSL_ALGO_SHA256);
    $value = base64_encode($elliptic ? raw_of_der($octets) : $octets);
    appended($signature, '<SignatureValue xmlns="' . DSIG . "\">$value</SignatureValue>");
    appended($signature, '<KeyInfo xmlns="' . DSIG . '"><wsse:SecurityTokenReference xmlns:wsse="' . WSSE
        . '"><wsse:Reference URI="#token" ValueType="' . X509V3 . '"/></wsse:SecurityTokenReference></KeyInfo>');
    return $document->saveXML();
}

/** The element that a text is, as the parent's last child. */
function appended(DOMNode $parent, string $xml): DOMNode
{
    $fragment = $parent->ownerDocument->createDocumentFragment();
    $fragment->appendXML($xml);
    return $parent->appendChild($fragment);
}

/** r and s, 32 octets each: OpenSSL writes an ECDSA signature as DER, XML Signature wants them side by side. */
function raw_of_der(string $der): string
{
    $first = ord($der[3]); // 30 length 02 length-of-r r 02 length-of-s s; a P-256 signature is never longer than 72
    $numbers = [substr($der, 4, $first), substr($der, 6 + $first)];
    return implode('', array_map(fn ($n) => str_pad(ltrim($n, "\0"), 32, "\0", STR_PAD_LEFT), $numbers));
}
