<?php
namespace App\Http\Controllers;

/** What roomcast asks: may this user join? Yours is the place to look the membership up. */
final class RoomcastController
{
    public function __invoke(): array
    {
        return \Roomcast::answer(
            $_SERVER['HTTP_X_ROOMCAST_SIGNATURE'] ?? '',
            file_get_contents('php://input'),
            fn (array $call): bool => is_string($call['user']) && str_starts_with($call['room'], 'chat:'),
        );
    }
}
