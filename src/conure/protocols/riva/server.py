"""The gRPC server: Riva's service, health and reflection on one port.

Health follows `/ready`, and needs no key; nor does reflection, which tells what is public.
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
from conure.protocols.riva.models import models_of
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
from conure.protocols.riva.rpc import Context, answering, parsed, response_metadata
from conure.protocols.riva.streaming_recognize import stream
from conure.protocols.services import Services
from conure.service.access import Caller
from conure.service.shared_ports import port_in_use
from conure.service.status import Status

__all__ = ["LONGEST_MESSAGE", "SERVICE", "RivaServer", "serve_riva"]

SERVICE = DESCRIPTOR.services_by_name["RivaSpeechRecognition"].full_name
LONGEST_MESSAGE = 2**29
"""Bytes, at most: a recording is one message, which is in memory."""
LOOK = 0.2
LAST_WORDS = 1.0
"""Seconds for calls to be ended in good order."""
KEEPALIVE = {
    "grpc.keepalive_time_ms": 20_000,
    "grpc.keepalive_timeout_ms": 20_000,
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.http2.max_pings_without_data": 0,
    "grpc.http2.min_ping_interval_without_data_ms": 5_000,
}
"""A client whose machine is gone is noticed, and clients may look after us as often."""

PATIENCE = {
    "grpc.server_handshake_timeout_ms": round(1000 * HANDSHAKE_SECONDS),
    "grpc.max_connection_idle_ms": 1000 * KEEP_ALIVE_SECONDS,
    "grpc.max_concurrent_streams": 1_000,
}
"""For TLS and the first frames of HTTP/2 together, and for a connection without calls, whose client connects again
without being asked; and how many calls one may carry."""


class RivaServer:
    def __init__(self, server: grpc.aio.Server, port: int, beside: Sequence[asyncio.Task[None]]) -> None:
        self.port = port
        self._server = server
        self._beside = beside

    async def close(self) -> None:
        """No new calls; those that are open have a second to hear how they end."""
        for task in self._beside:
            task.cancel()
        await self._server.stop(LAST_WORDS)


async def serve_riva(
    behind: Services, host: str, port: int, *, shared: bool = False, tls: tuple[Path, Path] | None = None
) -> RivaServer:
    """Several processes may share the port. `tls`: certificate and key. Raises BadOption for what cannot be used."""
    longest = min(behind.uploads.max_bytes, LONGEST_MESSAGE)
    room = behind.connections.capacity
    peers, most = Peers(room), {"grpc.max_allowed_incoming_connections": room.grpc_accepted}
    options = (
        KEEPALIVE | PATIENCE | most | {"grpc.so_reuseport": int(shared), "grpc.max_receive_message_length": longest}
    )
    credentials = _credentials(*tls) if tls else None
    server = grpc.aio.server(options=list(options.items()))
    server.add_generic_rpc_handlers((_riva(behind, peers),))
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    except RuntimeError:
        await server.stop(None)
        raise port_in_use("grpc_port", port) from None
    await _tell_health(servicer, behind.status)
    await server.start()
    health_too = start_restarting_task(lambda: _follow(servicer, behind.status), "telling gRPC's health")
    return RivaServer(
        server, bound, [health_too, start_restarting_task(lambda: peers.watch(bound), "looking at gRPC's connections")]
    )


def _riva(behind: Services, peers: Peers) -> grpc.GenericRpcHandler[bytes, Message]:
    """Messages come as bytes: who may not come in is told before they are read, and what is no message is refused."""

    async def recognized(requests: AsyncIterator[bytes], context: Context, caller: Caller) -> RecognizeResponse:
        with behind.uploads.reserve():
            response, notes = await recognize(behind, parsed(RecognizeRequest, await _only(requests)), caller)
        context.set_trailing_metadata(response_metadata(**notes))
        return response

    async def streamed(requests: AsyncIterator[bytes], context: Context, caller: Caller) -> None:
        await stream(behind, requests, context, caller)

    async def configured(
        requests: AsyncIterator[bytes], context: Context, caller: Caller
    ) -> RivaSpeechRecognitionConfigResponse:
        request = parsed(RivaSpeechRecognitionConfigRequest, await _only(requests))
        return models_of(behind.live.engine.cards, request.model_name)

    def unary(call: Any, response: Any) -> grpc.RpcMethodHandler[bytes, Message]:
        return grpc.stream_unary_rpc_method_handler(
            answering(behind, peers, call), response_serializer=response.SerializeToString
        )

    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            "Recognize": unary(recognized, RecognizeResponse),
            "GetRivaSpeechRecognitionConfig": unary(configured, RivaSpeechRecognitionConfigResponse),
            "StreamingRecognize": grpc.stream_stream_rpc_method_handler(
                answering(behind, peers, streamed), response_serializer=StreamingRecognizeResponse.SerializeToString
            ),
        },
    )


async def _only(requests: AsyncIterator[bytes]) -> bytes:
    async for message in requests:
        return message
    raise BadRequest("the call has no message", "send one")


def _credentials(certificate: Path, key: Path) -> grpc.ServerCredentials:
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
        return grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    except (OSError, ssl.SSLError) as error:
        raise BadOption(
            f"{certificate} and {key} are no certificate and its key: {error}",
            "both are PEM files, the key without a password",
        ) from None


async def _follow(servicer: health.aio.HealthServicer, status: Status) -> None:
    while True:
        await asyncio.sleep(LOOK)
        await _tell_health(servicer, status)


async def _tell_health(servicer: health.aio.HealthServicer, status: Status) -> None:
    kinds = health_pb2.HealthCheckResponse
    now = kinds.SERVING if status.is_ready else kinds.NOT_SERVING
    for name in ("", SERVICE):
        await servicer.set(name, now)
