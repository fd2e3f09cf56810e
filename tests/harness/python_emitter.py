"""python-socketio's write-only manager: emits one event for each JSON line of arguments on stdin."""
import json
import sys

import socketio

manager = socketio.RedisManager(sys.argv[1], channel=sys.argv[2], write_only=True)
for line in sys.stdin:
    event, data, options = json.loads(line)
    if data == "bytes":
        data = b"\x00\xff"
    if data == "tuple":
        data = (1, "two")
    manager.emit(event, data, **options)
