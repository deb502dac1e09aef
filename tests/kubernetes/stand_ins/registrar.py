"""Stands in for node-driver-registrar, whose module cannot be had everywhere: tells kubelet about a driver."""

import argparse
import signal
import sys
import time
from pathlib import Path

import grpc
from registration import Registrar

RETRY_S = 1.0

parser = argparse.ArgumentParser()
parser.add_argument("--csi-address", type=Path, required=True)
parser.add_argument("--kubelet-registration-path", required=True)
parser.add_argument("--v")
given = parser.parse_args()
registrar = Registrar(given.csi_address, Path("/registration"), given.kubelet_registration_path)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
while True:
    try:
        with registrar.serving():
            while True:
                time.sleep(RETRY_S)
                if any(not registered for registered, _ in registrar.statuses):
                    sys.exit(f"kubelet refuses the driver: {registrar.statuses}")
    except grpc.RpcError as error:
        sys.stderr.write(f"the driver does not answer yet: {error}\n")
        time.sleep(RETRY_S)
