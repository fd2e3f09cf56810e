"""Builds the wheel for PyPI: the binary as a script, and no Python.

    packaging/wheel.py VERSION ARCHITECTURE BINARY OUTPUT_DIRECTORY

The binary is static, so one wheel fits glibc and musl. Its files are described in
https://packaging.python.org/en/latest/specifications/binary-distribution-format/
"""

import base64
import hashlib
import os
import pathlib
import sys
import time
import zipfile

version, architecture, binary, output = sys.argv[1:]
tags = [f"py3-none-{system}_{architecture}" for system in ("manylinux2014", "manylinux_2_17", "musllinux_1_1")]
name = f"roomcast-{version}"
# The date of a file in a ZIP archive is not before 1980.
moment = time.gmtime(max(int(os.environ["SOURCE_DATE_EPOCH"]), 315532800))[:6]
record = []


def add(archive, path, content, mode):
    entry = zipfile.ZipInfo(path, moment)
    entry.external_attr = (0o100000 | mode) << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, content)
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    record.append(f"{path},sha256={digest},{len(content)}")


metadata = f"""Metadata-Version: 2.1
Name: roomcast
Version: {version}
Summary: A realtime server that sits beside an existing backend: Socket.IO, WebSocket and SSE clients in rooms
License: MIT
Keywords: realtime,websocket,socket.io,sse
Classifier: Operating System :: POSIX :: Linux
Requires-Python: >=3.8
Description-Content-Type: text/markdown

{pathlib.Path("packages/roomcast/README.md").read_text()}"""
wheel = "\n".join(["Wheel-Version: 1.0", "Generator: packaging/wheel.py", "Root-Is-Purelib: false", *(f"Tag: {tag}" for tag in tags)])
platform = ".".join(tag.removeprefix("py3-none-") for tag in tags)
with zipfile.ZipFile(pathlib.Path(output) / f"{name}-py3-none-{platform}.whl", "w") as archive:
    add(archive, f"{name}.data/scripts/roomcast", pathlib.Path(binary).read_bytes(), 0o755)
    add(archive, f"{name}.dist-info/METADATA", metadata.encode(), 0o644)
    add(archive, f"{name}.dist-info/WHEEL", f"{wheel}\n".encode(), 0o644)
    add(archive, f"{name}.dist-info/licenses/LICENSE", pathlib.Path("LICENSE").read_bytes(), 0o644)
    lines = [*record, f"{name}.dist-info/RECORD,,", ""]
    add(archive, f"{name}.dist-info/RECORD", "\n".join(lines).encode(), 0o644)
