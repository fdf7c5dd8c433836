<?php
// Check a receipt's signature with ext-openssl. That the entry lies in the log: ../verify_receipt.sh, `yongtong verify`.
// 用 ext-openssl 核验回执签名。条目是否在日志中，由 ../verify_receipt.sh 或 yongtong verify 核验。
declare(strict_types=1);

/** What the receipt says, if the bus signed it. TLS alone would prove that to nobody else. */
function said(string $receipt, string $anchorsFile): array
{
    $jws = json_decode($receipt, true, 8, JSON_THROW_ON_ERROR);
    $octets = fn (string $part) => base64_decode(strtr($jws[$part], '-_', '+/'), true);
    ['alg' => $algorithm, 'typ' => $kind] = json_decode($octets('protected'), true, 8, JSON_THROW_ON_ERROR);
    $signature = $algorithm === 'ES256' ? der_of_raw($octets('signature')) : $octets('signature');
    foreach (json_decode(file_get_contents($anchorsFile), true)['receipt_certificates'] as $pem) {
        $signed = $jws['protected'] . '.' . $jws['payload'];
        if ($kind === 'yt-receipt+jws' && openssl_verify($signed, $signature, $pem, OPENSSL_ALGO_SHA256) === 1) {
            return json_decode($octets('payload'), true, 512, JSON_THROW_ON_ERROR);
        }
    }
    throw new RuntimeException('no certificate of the bus signed this receipt');
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
