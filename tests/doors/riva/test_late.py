"""A server without this door needs none of its libraries."""

from __future__ import annotations

import subprocess
import sys


def test_nothing_of_grpc_is_loaded_before_its_port_is_opened() -> None:
    program = (
        "import sys, conure.server, conure.processes.door; assert not {'grpc', 'google.protobuf'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
