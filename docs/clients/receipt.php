<?php
// Check a receipt's signature with ext-openssl. That the entry lies in the log: ../verify_receipt.sh, `yongtong verify`.
// 用 ext-openssl 核验回执签名。条目是否在日志中，由 ../verify_receipt.sh 或 yongtong verify 核验。
declare(strict_types=1);

/** What the receipt says, if the bus signed it, alone or together with others. TLS alone would prove that to nobody else. */
function said(string $receipt, string $anchorsFile): array
{
    $jws = json_decode($receipt, true, 8, JSON_THROW_ON_ERROR);
    $octets = fn (string $part) => base64_decode(strtr($jws[$part], '-_', '+/'), true);
    $members = fn (string $part) => json_decode($octets($part), true, 512, JSON_THROW_ON_ERROR);
    ['alg' => $algorithm, 'typ' => $kind] = $members('protected');
    $signature = $algorithm === 'ES256' ? der_of_raw($octets('signature')) : $octets('signature');
    $signed = $jws['protected'] . '.' . $jws['payload'];
    foreach (json_decode(file_get_contents($anchorsFile), true)['receipt_certificates'] as $pem) {
        if (openssl_verify($signed, $signature, $pem, OPENSSL_ALGO_SHA256) !== 1) {
            continue;
        }
        if ($kind === 'yt-receipt+jws') {
            return $members('payload');
        }
        if ($kind === 'yt-receipts+jws' && is_under($jws['index'], $jws['path'], $octets('document'), $members('payload'))) {
            return $members('document');
        }
    }
    throw new RuntimeException('no certificate of the bus signed this receipt');
}

/** Whether a document stands under the root that was signed for several (RFC 9162 §2.1.3.2). */
function is_under(int $node, array $path, string $document, array $signed): bool
{
    $last = $signed['size'] - 1;
    if ($node < 0 || $node > $last) {
        return false;
    }
    $current = hash('sha256', "\0" . $document, true);
    foreach (array_map('hex2bin', $path) as $sibling) {
        if ($last === 0) {
            return false;
        }
        if ($node % 2 === 1 || $node === $last) {
            $current = hash('sha256', "\1" . $sibling . $current, true);
            while ($node % 2 === 0 && $node !== 0) {
                [$node, $last] = [$node >> 1, $last >> 1];
            }
        } else {
            $current = hash('sha256', "\1" . $current . $sibling, true);
        }
        [$node, $last] = [$node >> 1, $last >> 1];
    }
    return $last === 0 && bin2hex($current) === $signed['root'];
}

/** Two numbers as DER, which OpenSSL reads; a number is signed there, so a high first bit gets a zero before it. */
function der_of_raw(string $raw): string
{
    $numbers = '';
    foreach (str_split($raw, 32) as $number) {
        $number = ltrim($number, "\0");
        $number = (ord($number) > 127 ? "\0" : '') . $number;
        $numbers .= "\x02" . chr(strlen($number)) . $number;
    }
    return "\x30" . chr(strlen($numbers)) . $numbers;
}
