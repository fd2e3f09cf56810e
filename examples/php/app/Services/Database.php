<?php
namespace App\Services;

final class Database
{
    private const SCHEMA = '
        CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY, chat TEXT NOT NULL, author TEXT NOT NULL, text TEXT NOT NULL);
        CREATE TABLE IF NOT EXISTS outbox (position INTEGER PRIMARY KEY, id TEXT NOT NULL, room TEXT NOT NULL, event TEXT NOT NULL, data TEXT NOT NULL);';

    public static function get(): \PDO
    {
        static $database = null;
        if ($database === null) {
            $database = new \PDO('sqlite:' . (getenv('DATABASE') ?: __DIR__ . '/../../chat.sqlite'));
            $database->setAttribute(\PDO::ATTR_DEFAULT_FETCH_MODE, \PDO::FETCH_ASSOC);
            $database->exec('PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL;');
            $database->exec(self::SCHEMA);
        }
        return $database;
    }

    public static function transaction(callable $work): mixed
    {
        $database = self::get();
        $database->exec('BEGIN IMMEDIATE');
        try {
            $result = $work($database);
            $database->exec('COMMIT');
            return $result;
        } catch (\Throwable $error) {
            $database->exec('ROLLBACK');
            throw $error;
        }
    }
}
