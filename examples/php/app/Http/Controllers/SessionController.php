<?php
namespace App\Http\Controllers;

use App\Services\Token;

final class SessionController
{
    /** One token for this API and for roomcast. */
    public function store(): array
    {
        $name = trim((string) (json_decode(file_get_contents('php://input'), true)['name'] ?? ''));
        return $name === '' || strlen($name) > 160 ? [422, ['error' => 'a name is missing']] : [200, ['token' => Token::sign($name)]];
    }
}
