"""Without its port, the gRPC server's libraries are not imported."""

from __future__ import annotations

import subprocess
import sys


def test_grpc_is_imported_only_when_its_port_is_open() -> None:
    modules = "conure.server, conure.processes.server_process"
    program = f"import sys, {modules}; assert not {{'grpc', 'google.protobuf'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
