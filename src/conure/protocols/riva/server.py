"""The gRPC server: Riva's service, health and reflection on one port.

Health follows `/ready`. Health and reflection need no key, as they reveal public information only.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from conure.background import start_restarting_task
from conure.errors import BadOption, BadRequest
from conure.protocols.http.connection_limits import HANDSHAKE_SECONDS, KEEP_ALIVE_SECONDS
from conure.protocols.riva.models import list_models
from conure.protocols.riva.peers import Peers
from conure.protocols.riva.recognize import recognize
from conure.protocols.riva.riva_asr_pb2 import (
    DESCRIPTOR,
    RecognizeRequest,
    RecognizeResponse,
    RivaSpeechRecognitionConfigRequest,
    RivaSpeechRecognitionConfigResponse,
    StreamingRecognizeResponse,
)
from conure.protocols.riva.rpc import Context, parse_request, response_metadata, with_errors
from conure.protocols.riva.streaming_recognize import stream
from conure.protocols.services import Services
from conure.service.access import Caller
from conure.service.shared_ports import port_in_use
from conure.service.status import Status

__all__ = ["MAX_MESSAGE_BYTES", "SERVICE", "RivaServer", "serve_riva"]

SERVICE = DESCRIPTOR.services_by_name["RivaSpeechRecognition"].full_name
MAX_MESSAGE_BYTES = 2**29
"""Maximum bytes of a message. A recording is one message and is held in memory."""
HEALTH_INTERVAL = 0.2
GRACE_SECONDS = 1.0
"""Grace period in seconds for open calls."""
KEEPALIVE = {
    "grpc.keepalive_time_ms": 20_000,
    "grpc.keepalive_timeout_ms": 20_000,
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.http2.max_pings_without_data": 0,
    "grpc.http2.min_ping_interval_without_data_ms": 5_000,
}
"""Detects dead peers; clients may send keep-alive pings at the same rate."""

CONNECTION_LIMITS = {
    "grpc.server_handshake_timeout_ms": round(1000 * HANDSHAKE_SECONDS),
    "grpc.max_connection_idle_ms": 1000 * KEEP_ALIVE_SECONDS,
    "grpc.max_concurrent_streams": 1_000,
}
"""Time limits for the TLS and HTTP/2 handshake and for connections without calls (clients reconnect by themselves);
and the maximum number of calls per connection."""


class RivaServer:
    def __init__(self, server: grpc.aio.Server, port: int, background_tasks: Sequence[asyncio.Task[None]]) -> None:
        self.port = port
        self._server = server
        self._background_tasks = background_tasks

    async def close(self) -> None:
        """Rejects new calls and gives open calls a second to finish."""
        for task in self._background_tasks:
            task.cancel()
        await self._server.stop(GRACE_SECONDS)


async def serve_riva(
    services: Services, host: str, port: int, *, shared: bool = False, tls: tuple[Path, Path] | None = None
) -> RivaServer:
    """`shared`: several processes share the port. `tls`: certificate and key. Raises BadOption if they are invalid."""
    max_message_bytes = min(services.uploads.max_bytes, MAX_MESSAGE_BYTES)
    capacity = services.connections.capacity
    peers = Peers(capacity)
    options = (
        KEEPALIVE
        | CONNECTION_LIMITS
        | {
            "grpc.max_allowed_incoming_connections": capacity.grpc_accepted,
            "grpc.so_reuseport": int(shared),
            "grpc.max_receive_message_length": max_message_bytes,
        }
    )
    credentials = _credentials(*tls) if tls else None
    server = grpc.aio.server(options=list(options.items()))
    server.add_generic_rpc_handlers((_riva_handler(services, peers),))
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    service_names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(service_names, server)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    except RuntimeError:
        await server.stop(None)
        raise port_in_use("grpc_port", port) from None
    await _update_health(servicer, services.status)
    await server.start()
    health_task = start_restarting_task(lambda: _follow_status(servicer, services.status), "gRPC health updates")
    watch_task = start_restarting_task(lambda: peers.watch(bound), "gRPC connection checks")
    return RivaServer(server, bound, [health_task, watch_task])


def _riva_handler(services: Services, peers: Peers) -> grpc.GenericRpcHandler[bytes, Message]:
    """Messages arrive as bytes, so that authentication precedes parsing and parse errors are reported."""

    async def handle_recognize(requests: AsyncIterator[bytes], context: Context, caller: Caller) -> RecognizeResponse:
        with services.uploads.reserve():
            request = parse_request(RecognizeRequest, await _single_message(requests))
            response, notes = await recognize(services, request, caller)
        context.set_trailing_metadata(response_metadata(**notes))
        return response

    async def handle_streaming(requests: AsyncIterator[bytes], context: Context, caller: Caller) -> None:
        await stream(services, requests, context, caller)

    async def handle_config(
        requests: AsyncIterator[bytes], context: Context, caller: Caller
    ) -> RivaSpeechRecognitionConfigResponse:
        request = parse_request(RivaSpeechRecognitionConfigRequest, await _single_message(requests))
        return list_models(services.live.engine.model_infos, request.model_name)

    def unary(call: Any, response: Any) -> grpc.RpcMethodHandler[bytes, Message]:
        return grpc.stream_unary_rpc_method_handler(
            with_errors(services, peers, call), response_serializer=response.SerializeToString
        )

    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            "Recognize": unary(handle_recognize, RecognizeResponse),
            "GetRivaSpeechRecognitionConfig": unary(handle_config, RivaSpeechRecognitionConfigResponse),
            "StreamingRecognize": grpc.stream_stream_rpc_method_handler(
                with_errors(services, peers, handle_streaming),
                response_serializer=StreamingRecognizeResponse.SerializeToString,
            ),
        },
    )


async def _single_message(requests: AsyncIterator[bytes]) -> bytes:
    async for message in requests:
        return message
    raise BadRequest("the call has no message", "send one message")


def _credentials(certificate: Path, key: Path) -> grpc.ServerCredentials:
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
        return grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    except (OSError, ssl.SSLError) as error:
        raise BadOption(
            f"{certificate} and {key} are not a certificate and its key: {error}",
            "both must be PEM files, the key without a password",
        ) from None


async def _follow_status(servicer: health.aio.HealthServicer, status: Status) -> None:
    while True:
        await asyncio.sleep(HEALTH_INTERVAL)
        await _update_health(servicer, status)


async def _update_health(servicer: health.aio.HealthServicer, status: Status) -> None:
    states = health_pb2.HealthCheckResponse
    state = states.SERVING if status.is_ready else states.NOT_SERVING
    for name in ("", SERVICE):
        await servicer.set(name, state)
