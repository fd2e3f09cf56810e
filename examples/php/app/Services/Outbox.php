<?php
namespace App\Services;

/** Events that were saved with what they announce, until roomcast has taken them. */
final class Outbox
{
    public static function add(\PDO $database, string $room, string $event, mixed $data): void
    {
        $database->prepare('INSERT INTO outbox (id, room, event, data) VALUES (?, ?, ?, ?)')
            ->execute([bin2hex(random_bytes(16)), $room, $event, json_encode($data, JSON_THROW_ON_ERROR)]);
    }

    /** Publishes the oldest first, and stops at the first that roomcast does not take: the next request goes on there. */
    public static function drain(): void
    {
        $database = Database::get();
        try {
            while ($entry = $database->query('SELECT * FROM outbox ORDER BY position LIMIT 1')->fetch()) {
                // Two requests may publish the same event; its id makes the second one a repeat, which is not sent again.
                \Roomcast::publish($entry['room'], $entry['event'], json_decode($entry['data'], true), $entry['id']);
                $database->prepare('DELETE FROM outbox WHERE position = ?')->execute([$entry['position']]);
            }
        } catch (\RuntimeException $error) {
            error_log($error->getMessage());
        }
    }
}
