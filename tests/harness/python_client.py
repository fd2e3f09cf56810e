"""A python-socketio client that tells what happens to it, one JSON list a line.
Arguments: URL, token, transports, and optionally the namespace and where the token goes: auth, header or query."""
import json
import sys
import threading

import socketio

url, token, transports = sys.argv[1:4]
namespace = sys.argv[4] if len(sys.argv) > 4 else "/"
where = sys.argv[5] if len(sys.argv) > 5 else "auth"
client = socketio.Client(reconnection=False)
ended = threading.Event()
telling = threading.Lock()


def tell(*parts):
    with telling:
        print(json.dumps([part.hex() if isinstance(part, bytes) else part for part in parts]), flush=True)


@client.on("connect", namespace=namespace)
def connect():
    tell("connected")


@client.on("news", namespace=namespace)
def news(*args):
    tell("news", *args)


@client.on("file", namespace=namespace)
def file(*args):
    tell("file", *args)


@client.on("welcome", namespace=namespace)
def welcome(*args):
    tell("welcome", *args)


@client.on("refused", namespace=namespace)
def refused(*args):
    tell("error", *args)


@client.on("end", namespace=namespace)
def end(*_):
    ended.set()


def call(event, data):
    return client.call(event, data, namespace=namespace, timeout=10)


how = {
    "auth": {"auth": {"token": token}},
    "header": {"headers": {"Authorization": f"Bearer {token}"}},
    "query": {},
}[where]
try:
    client.connect(
        url + (f"?token={token}" if where == "query" else ""),
        transports=transports.split(","), namespaces=[namespace], wait_timeout=10, **how,
    )
except socketio.exceptions.ConnectionError as error:
    tell("refused", str(error))
    sys.exit(3)
tell("joined", call("join", "a"))
tell("not joined", call("sneak", "a"))
tell("echo", *call("echo", (1, "é", {"a": None})))
tell("binary echo", call("echo", b"\x00\xff"))
client.emit("say", ("a", {"hello": 1}), namespace=namespace)
if not ended.wait(30):
    sys.exit(4)
client.disconnect()
