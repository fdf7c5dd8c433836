<?php
// Push a file to Yongtong with PHP's SoapClient, check the receipt, wait for the report.
// 用 PHP 的 SoapClient 报送文件，核验回执，等待处理报告。
// php push.php URL PARTNER_FOLDER ORIGIN FEED 11|12 FILE MESSAGE_ID
// Prints one JSON document: `receipt`, `index` and `report`; or `refused` with the code and sentences, and then exits 1.
// Needs ext-soap, ext-dom, ext-openssl. PARTNER_FOLDER is what `yongtong bureau enrol` gave the bureau.
declare(strict_types=1);
require __DIR__ . '/sign.php';
require __DIR__ . '/receipt.php';

[, $url, $folder, $origin, $feed, $version, $file, $messageId] = $argv;

/** SoapClient, but that it shows the bureau's connection certificate and signs with the bureau's signing key. */
final class Bus extends SoapClient
{
    public function __construct(string $wsdl, private string $folder, string $version)
    {
        parent::__construct($wsdl, [
            'soap_version' => $version === '12' ? SOAP_1_2 : SOAP_1_1,
            'cache_wsdl' => WSDL_CACHE_NONE,
            'stream_context' => stream_context_create(['ssl' => [
                'local_cert' => "$folder/connection.pem", 'local_pk' => "$folder/connection.key", 'cafile' => "$folder/ca.pem",
            ]]),
        ]);
    }

    public function __doRequest(string $request, string $location, string $action, int $version, bool $oneWay = false): ?string
    {
        $signed = signed($request, "$this->folder/signing.key", "$this->folder/signing.pem");
        return parent::__doRequest($signed, $location, $action, $version, $oneWay);
    }
}

$names = fn (string $id) => ['Sender' => basename($folder), 'Recipient' => $origin, 'MessageId' => $id];
$asked = fn () => $names('read-' . bin2hex(random_bytes(8))) + ['Purpose' => '报送', 'DeliveryMessageId' => $messageId];
try {
    $bus = new Bus("$url/soap/feeds?wsdl", $folder, $version);
    $content = file_get_contents($file);
    $receipt = $bus->SubmitDelivery($names($messageId) + [
        'Feed' => $feed, 'ContentType' => 'text/csv', // octets as they are: SoapClient writes them as base64 and hex
        'Content' => $content, 'ContentDigest' => ['_' => hash('sha256', $content, true), 'algorithm' => 'SHA-256'],
    ])->Receipt;
    $document = said($receipt, "$folder/anchors.json");
    if ([$document['message_id'], $document['content_digest']] !== [$messageId, hash('sha256', $content)]) {
        throw new RuntimeException('the receipt is for something else');
    }
    if ($bus->GetReceipt($asked())->Receipt !== $receipt) {
        throw new RuntimeException('asked again, the bus gave another receipt');
    }
    while (($reported = $bus->GetReport($asked()))->Status === 'waiting') {
        usleep(200_000);
    }
    $told = ['receipt' => $receipt, 'index' => $document['index'], 'status' => $reported->Status, 'report' => $reported->Report];
} catch (SoapFault $fault) {
    $refusal = $fault->detail->Refusal ?? throw $fault;
    $told = ['refused' => (array) $refusal];
}
echo json_encode($told, JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES | JSON_PRETTY_PRINT), "\n";
exit(isset($told['refused']) ? 1 : 0);
