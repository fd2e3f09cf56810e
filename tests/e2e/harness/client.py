"""A python-socketio client that tells what happens to it, one JSON list a line. Arguments: URL, token, transports."""
import json
import sys
import threading

import socketio

url, token, transports = sys.argv[1:4]
client = socketio.Client(reconnection=False)
ended = threading.Event()


def tell(*parts):
    print(json.dumps([part.hex() if isinstance(part, bytes) else part for part in parts]), flush=True)


@client.event
def connect():
    tell("connected")


@client.on("news")
def news(*args):
    tell("news", *args)


@client.on("file")
def file(*args):
    tell("file", *args)


@client.on("end")
def end(*_):
    ended.set()


try:
    client.connect(url, auth={"token": token}, transports=transports.split(","), wait_timeout=10)
except socketio.exceptions.ConnectionError as error:
    tell("refused", str(error))
    sys.exit(3)
tell("joined", client.call("join", "a", timeout=10))
tell("echo", *client.call("echo", (1, "é", {"a": None}), timeout=10))
tell("binary echo", client.call("echo", b"\x00\xff", timeout=10))
if not ended.wait(30):
    sys.exit(4)
client.disconnect()
