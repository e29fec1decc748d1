"""The gRPC port: health, reflection, certificates, and sharing by several processes."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from conure import metrics
from conure.engine import messages as engine
from conure.errors import BadOption
from conure.protocols.http.connection_limits import Capacity
from conure.protocols.riva import peers
from conure.protocols.riva.riva_asr_pb2 import (
    RivaSpeechRecognitionConfigRequest,
)
from conure.protocols.riva.server import SERVICE, serve_riva
from tests.protocols.riva.calling import Riva, configured
from tests.protocols.riva.scripted_server import (
    CONFIG,
    ONE_SECOND,
    WITH_KEY,
    ScriptedServer,
    expect_error,
    run_scenario,
    until,
    wait_for_end,
)
from tests.waiting import PATIENCE


def test_no_new_streams_during_shutdown() -> None:
    async def scenario(server: ScriptedServer) -> None:
        call = await server.open_stream()
        stub = health_pb2_grpc.HealthStub(server.channel)
        for name in ("", SERVICE):
            response = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert response.status == health_pb2.HealthCheckResponse.SERVING
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=""))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        draining = asyncio.create_task(server.live.drain(20.0))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
        rejected_call = server.riva.stream(iter([configured(CONFIG), ONE_SECOND]), **WITH_KEY)
        trailing = await expect_error(rejected_call, grpc.StatusCode.RESOURCE_EXHAUSTED, "draining")
        assert trailing["retry-after"]
        server.emit_tokens("ab", 0.2)
        assert (await call.read()).results
        await call.done_writing()
        await until(lambda: server.engine.of(engine.Close))
        server.engine.say(engine.Finished(server.number))
        await wait_for_end(call)
        assert await call.code() is grpc.StatusCode.OK
        await draining

    run_scenario(scenario)


def test_health_follows_the_engine() -> None:
    async def scenario(server: ScriptedServer) -> None:
        stub = health_pb2_grpc.HealthStub(server.channel)
        for is_ready in (True, False, True):
            server.engine.is_ready = is_ready
            status = health_pb2.HealthCheckResponse.SERVING if is_ready else health_pb2.HealthCheckResponse.NOT_SERVING
            async with asyncio.timeout(PATIENCE):
                while (await stub.Check(health_pb2.HealthCheckRequest(service=SERVICE))).status != status:
                    pass

    run_scenario(scenario)


def test_connections_over_the_limit_are_rejected(caplog: pytest.LogCaptureFixture) -> None:
    """Only the call is rejected: the connection stays open for health checks and later calls."""

    async def scenario(server: ScriptedServer) -> None:
        first = await server.open_stream()
        same = server.riva.models(RivaSpeechRecognitionConfigRequest(), **WITH_KEY)
        assert (await same).model_config
        async with server.new_channel() as channel:
            other_client = Riva(channel)
            count_before = rejected_connections()
            for call in (
                other_client.models(RivaSpeechRecognitionConfigRequest(), **WITH_KEY),
                other_client.stream(iter([configured(CONFIG), ONE_SECOND]), **WITH_KEY),
            ):
                trailing = await expect_error(call, grpc.StatusCode.RESOURCE_EXHAUSTED, "max_connections", "ulimit -n")
                assert trailing["retry-after"]
            assert rejected_connections() == count_before + 2
            response = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=SERVICE))
            assert response.status == health_pb2.HealthCheckResponse.SERVING
            first.cancel()
            await until(lambda: not server.engine.receivers)
            assert (await other_client.models(RivaSpeechRecognitionConfigRequest(), **WITH_KEY)).model_config

    run_scenario(scenario, capacity=Capacity(grpc=1, grpc_accepted=8))
    assert "rejecting calls of a gRPC connection: 1 connections have open calls; raise max_connections" in caplog.text
    assert caplog.text.count("rejecting calls") == 1


def test_connections_closed_by_grpc_are_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "CHECK_INTERVAL", 0.05)

    async def scenario(server: ScriptedServer) -> None:
        check = health_pb2.HealthCheckRequest(service=SERVICE)
        async with server.new_channel() as second, server.new_channel() as third:
            for channel in (server.channel, second):
                await health_pb2_grpc.HealthStub(channel).Check(check)
            await expect_error(health_pb2_grpc.HealthStub(third).Check(check), grpc.StatusCode.UNAVAILABLE)
            await until(lambda: "gRPC has 2 connections and closes all others without an error" in caplog.text)

    run_scenario(scenario, capacity=Capacity(grpc=1, grpc_accepted=2))


def rejected_connections() -> float:
    labels = {"port": "grpc", "why": "refused"}
    return metrics.REGISTRY.get_sample_value("conure_connections_ended_total", labels) or 0.0


def test_reflection_lists_the_services() -> None:
    async def scenario(server: ScriptedServer) -> None:
        stub = reflection_pb2_grpc.ServerReflectionStub(server.channel)
        request = reflection_pb2.ServerReflectionRequest
        call = stub.ServerReflectionInfo(iter([request(list_services=""), request(file_containing_symbol=SERVICE)]))
        names = {service.name for service in (await call.read()).list_services_response.service}
        assert {SERVICE, "grpc.health.v1.Health"} <= names
        assert (await call.read()).file_descriptor_response.file_descriptor_proto

    run_scenario(scenario)


def test_port_in_use() -> None:
    async def run() -> None:
        server = await serve_riva(ScriptedServer().services, "127.0.0.1", 0)
        with pytest.raises(BadOption, match=f"port {server.port} is taken"):
            await serve_riva(ScriptedServer().services, "127.0.0.1", server.port)
        await server.close()

    asyncio.run(run())


def test_processes_can_share_a_port() -> None:
    async def run() -> None:
        first = await serve_riva(ScriptedServer().services, "127.0.0.1", 0, shared=True)
        second = await serve_riva(ScriptedServer().services, "127.0.0.1", first.port, shared=True)
        assert first.port == second.port
        await first.close()
        await second.close()

    asyncio.run(run())


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def test_tls(pair: tuple[Path, Path]) -> None:
    async def scenario(server: ScriptedServer) -> None:
        call = server.riva.models(RivaSpeechRecognitionConfigRequest(), **WITH_KEY)
        await expect_error(call, grpc.StatusCode.UNAVAILABLE)

    run_scenario(scenario, tls=pair)

    async def run() -> None:
        server = await serve_riva(ScriptedServer().services, "127.0.0.1", 0, tls=pair)
        trusted = grpc.ssl_channel_credentials(pair[0].read_bytes())
        async with grpc.aio.secure_channel(f"127.0.0.1:{server.port}", trusted) as channel:
            response = await Riva(channel).models(RivaSpeechRecognitionConfigRequest(), **WITH_KEY)
        assert [config.model_name for config in response.model_config] == ["live", "clips"]
        assert [config.parameters["type"] for config in response.model_config] == ["online", "offline"]
        await server.close()

    asyncio.run(run())


@pytest.mark.parametrize("wrong", ["missing", "not PEM", "another's key"])
def test_invalid_certificate(pair: tuple[Path, Path], tmp_path: Path, wrong: str) -> None:
    certificate, key = pair
    if wrong == "another's key":
        subprocess.run(["openssl", "genrsa", "-out", str(tmp_path / "key"), "2048"], check=True, capture_output=True)
        key = tmp_path / "key"
    else:
        certificate = tmp_path / "certificate"
        if wrong == "not PEM":
            certificate.write_text("certificate")
    with pytest.raises(BadOption, match="certificate"):
        asyncio.run(serve_riva(ScriptedServer().services, "127.0.0.1", 0, tls=(certificate, key)))
