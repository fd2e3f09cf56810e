"""A python-socketio client that prints what happens, one JSON list a line.
Arguments: URL, token, transports, and optionally the namespace and where the token is sent: auth, header or query."""
import json
import sys
import threading

import socketio

url, token, transports = sys.argv[1:4]
namespace = sys.argv[4] if len(sys.argv) > 4 else "/"
where = sys.argv[5] if len(sys.argv) > 5 else "auth"
client = socketio.Client(reconnection=False)
ended = threading.Event()
printing = threading.Lock()


def report(*parts):
    with printing:
        print(json.dumps([part.hex() if isinstance(part, bytes) else part for part in parts]), flush=True)


@client.on("connect", namespace=namespace)
def connect():
    report("connected")


@client.on("news", namespace=namespace)
def news(*args):
    report("news", *args)


@client.on("file", namespace=namespace)
def file(*args):
    report("file", *args)


@client.on("welcome", namespace=namespace)
def welcome(*args):
    report("welcome", *args)


@client.on("refused", namespace=namespace)
def refused(*args):
    report("error", *args)


@client.on("end", namespace=namespace)
def end(*_):
    ended.set()


def call(event, data):
    return client.call(event, data, namespace=namespace, timeout=30)


how = {
    "auth": {"auth": {"token": token}},
    "header": {"headers": {"Authorization": f"Bearer {token}"}},
    "query": {},
}[where]
try:
    client.connect(
        url + (f"?token={token}" if where == "query" else ""),
        transports=transports.split(","), namespaces=[namespace], wait_timeout=30, **how,
    )
except socketio.exceptions.ConnectionError as error:
    report("refused", str(error))
    sys.exit(3)
report("joined", call("join", "a"))
report("not joined", call("sneak", "a"))
report("echo", *call("echo", (1, "é", {"a": None})))
report("binary echo", call("echo", b"\x00\xff"))
client.emit("say", ("a", {"hello": 1}), namespace=namespace)
if not ended.wait(60):
    sys.exit(4)
client.disconnect()
