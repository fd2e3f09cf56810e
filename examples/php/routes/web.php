<?php
// Method, path, and what answers it with [status, body].
use App\Http\Controllers\ChatController;
use App\Http\Controllers\RoomcastController;
use App\Http\Controllers\SessionController;

return [
    ['GET', '#^/$#', [new ChatController(), 'page']],
    ['POST', '#^/session$#', [new SessionController(), 'store']],
    ['GET', '#^/chats/(\w+)/messages$#', [new ChatController(), 'index']],
    ['POST', '#^/chats/(\w+)/messages$#', [new ChatController(), 'store']],
    ['POST', '#^/roomcast$#', new RoomcastController()],
];
