<?php
// The front controller. In Laravel this is the framework's; routes, controllers and services are as there.
declare(strict_types=1);

spl_autoload_register(function (string $class): void {
    $name = str_replace('\\', '/', preg_replace('/^App\\\\/', '', $class));
    foreach (["/../app/$name.php", "/../app/Services/$name.php"] as $file) {
        if (is_file(__DIR__ . $file)) {
            require __DIR__ . $file;
        }
    }
});

$method = $_SERVER['REQUEST_METHOD'];
$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
foreach (require __DIR__ . '/../routes/web.php' as [$verb, $pattern, $action]) {
    if ($verb === $method && preg_match($pattern, $path, $parts)) {
        [$status, $body] = $action(...array_slice($parts, 1));
        http_response_code($status);
        header('Content-Type: ' . (is_string($body) ? 'text/html; charset=utf-8' : 'application/json'));
        echo is_string($body) ? $body : json_encode($body, JSON_THROW_ON_ERROR);
        return;
    }
}
http_response_code(404);
