"""Stands in for livenessprobe, whose module cannot be had everywhere: answers HTTP with the driver's Probe."""

import argparse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc

from csi_core._proto import csi_pb2 as pb
from csi_core._proto import csi_pb2_grpc as rpc

parser = argparse.ArgumentParser()
parser.add_argument("--csi-address", required=True)
parser.add_argument("--probe-timeout", required=True, help="as Go writes it: 3s")
parser.add_argument("--http-endpoint", required=True)
parser.add_argument("--v")
given = parser.parse_args()
timeout_s = float(given.probe_timeout.removesuffix("s"))
identity = rpc.IdentityStub(grpc.insecure_channel(f"unix://{given.csi_address}"))


class Health(BaseHTTPRequestHandler):
    """GET of any path: 200 where the driver is ready, else 500 and why."""

    def do_GET(self) -> None:
        try:
            answer = identity.Probe(pb.ProbeRequest(), timeout=timeout_s)
            healthy, text = not answer.HasField("ready") or answer.ready.value, "not ready"
        except grpc.RpcError as error:
            healthy, text = False, str(error)
        self.send_response(200 if healthy else 500)
        self.end_headers()
        self.wfile.write(b"ok" if healthy else text.encode())


ThreadingHTTPServer(("", int(given.http_endpoint.rpartition(":")[2])), Health).serve_forever()
