<?php
// roomcast from a Laravel (or any PHP 8) backend, written by `roomcast init --laravel`. Move it to app/Services, and
// route POST /roomcast, without CSRF protection, to a function that returns Roomcast::answer(...) as JSON.

final class Roomcast
{
    /** Sends an event to everybody in a room. A repeat with the same id is sent once. Throws where roomcast is away. */
    public static function publish(string $room, string $event, mixed $data, ?string $id = null): ?string
    {
        $url = getenv('ROOMCAST_URL') ?: 'http://127.0.0.1:8080';
        $key = explode(',', (string) getenv('ROOMCAST_PUBLISH__KEYS'))[0];
        $body = json_encode(
            ['room' => $room, 'event' => $event, 'data' => $data, 'id' => $id ?? bin2hex(random_bytes(16))],
            JSON_THROW_ON_ERROR
        );
        $context = stream_context_create(['http' => [
            'method' => 'POST',
            'header' => "Authorization: Bearer $key\r\nContent-Type: application/json\r\n",
            'content' => $body,
            'timeout' => 5,
            'ignore_errors' => true,
        ]]);
        $answer = @file_get_contents("$url/publish", false, $context);
        if ($answer === false || !str_contains($http_response_header[0] ?? '', ' 200')) {
            throw new RuntimeException('roomcast did not take the event: ' . ($answer ?: 'no answer'));
        }
        return json_decode($answer, true, flags: JSON_THROW_ON_ERROR)['offset'];
    }

    /**
     * What roomcast asks. $body is the raw request body, $mayJoin(array $call): bool is your rule.
     * Returns [status, answer].
     */
    public static function answer(string $signature, string $body, callable $mayJoin): array
    {
        if (!self::isSigned($signature, $body)) {
            return [401, ['error' => 'the signature is missing or wrong']];
        }
        $call = json_decode($body, true, flags: JSON_THROW_ON_ERROR);
        if ($call['type'] === 'join') {
            return [200, ['allow' => (bool) $mayJoin($call)]];
        }
        return [200, new stdClass()];
    }

    private static function isSigned(string $signature, string $body): bool
    {
        $secret = (string) getenv('ROOMCAST_BACKEND__SECRET');
        if ($secret === '' || !preg_match('/^t=(\d+),v1=([0-9a-f]{64})$/D', $signature, $parts)) {
            return false;
        }
        $expected = hash_hmac('sha256', "$parts[1].$body", $secret);
        return abs(time() - (int) $parts[1]) <= 300 && hash_equals($expected, $parts[2]);
    }
}
