<?php
namespace App\Services;

/** JSON Web Tokens with HS256. In Laravel this is what signs your API's tokens already (firebase/php-jwt and the like). */
final class Token
{
    public static function sign(string $user): string
    {
        $claims = ['sub' => $user, 'iat' => time(), 'exp' => time() + 3600];
        $input = self::encode(json_encode(['alg' => 'HS256', 'typ' => 'JWT'])) . '.' . self::encode(json_encode($claims));
        return "$input." . self::mac($input);
    }

    /** Who is signed in, by the request's header; null for nobody. */
    public static function user(): ?string
    {
        $token = preg_replace('/^Bearer /', '', $_SERVER['HTTP_AUTHORIZATION'] ?? '');
        [$header, $claims, $mac] = array_pad(explode('.', $token, 3), 3, '');
        if (!hash_equals(self::mac("$header.$claims"), $mac)) {
            return null;
        }
        $claims = json_decode(base64_decode(strtr($claims, '-_', '+/')), true);
        return $claims['exp'] > time() ? $claims['sub'] : null;
    }

    private static function mac(string $input): string
    {
        return self::encode(hash_hmac('sha256', $input, getenv('JWT_SECRET'), true));
    }

    private static function encode(string $bytes): string
    {
        return rtrim(strtr(base64_encode($bytes), '+/', '-_'), '=');
    }
}
