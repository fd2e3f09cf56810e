"""An OTLP/HTTP receiver that reads requests with opentelemetry-proto, the package that OpenTelemetry publishes.

Prints one JSON line for the port, then one for each request. `python otlp_receiver.py [STATUS]` answers with STATUS.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

KINDS = {"/v1/traces": ExportTraceServiceRequest, "/v1/metrics": ExportMetricsServiceRequest}
STATUS = int(sys.argv[1]) if len(sys.argv) > 1 else 200
# Each connection has a thread, and `print` writes the end of the line by itself.
printing = threading.Lock()


def has_unknown(message):
    """Whether a message, or one in it, has bytes that its schema does not know."""
    from google.protobuf.unknown_fields import UnknownFieldSet

    if len(UnknownFieldSet(message)) > 0:
        return True
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        inner = [value] if hasattr(value, "ListFields") else value
        if any(has_unknown(one) for one in inner):
            return True
    return False


def tell(**line):
    with printing:
        print(json.dumps(line), flush=True)


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        message = KINDS[self.path].FromString(body)
        tell(
            path=self.path,
            headers={name.lower(): value for name, value in self.headers.items()},
            unknown=has_unknown(message),
            message=MessageToDict(message),
        )
        self.send_response(STATUS)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
tell(port=server.server_port)
server.serve_forever()
