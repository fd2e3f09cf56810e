<?php
namespace App\Http\Controllers;

use App\Services\Database;
use App\Services\Outbox;
use App\Services\Token;

final class ChatController
{
    public function page(): array
    {
        $page = file_get_contents(__DIR__ . '/../../../resources/chat.html');
        return [200, str_replace('{{roomcast}}', getenv('ROOMCAST_PUBLIC_URL'), $page)];
    }

    public function index(string $chat): array
    {
        if (Token::user() === null) {
            return [401, ['error' => 'sign in first']];
        }
        $query = Database::get()->prepare('SELECT * FROM messages WHERE chat = ? ORDER BY id DESC LIMIT 50');
        $query->execute([$chat]);
        return [200, array_reverse($query->fetchAll())];
    }

    /** The message and its event are saved together; the event is published after the answer. */
    public function store(string $chat): array
    {
        $author = Token::user();
        if ($author === null) {
            return [401, ['error' => 'sign in first']];
        }
        $text = json_decode(file_get_contents('php://input'), true)['text'] ?? null;
        if (!is_string($text) || $text === '' || strlen($text) > 8000) {
            return [422, ['error' => 'a text is missing, or too long']];
        }
        $message = Database::transaction(function (\PDO $database) use ($chat, $author, $text): array {
            $insert = $database->prepare('INSERT INTO messages (chat, author, text) VALUES (?, ?, ?) RETURNING *');
            $insert->execute([$chat, $author, $text]);
            $message = $insert->fetch();
            $insert->closeCursor();
            Outbox::add($database, "chat:$chat", 'new_message', $message);
            return $message;
        });
        register_shutdown_function([Outbox::class, 'drain']);   // in Laravel: dispatch(fn () => Outbox::drain())->afterResponse()
        return [201, $message];
    }
}
