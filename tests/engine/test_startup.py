"""An engine stays within the free memory, and logs how it is divided. The GPU is simulated by its device name."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from conure.audio.features import LogMel
from conure.engine import startup
from conure.engine.backends.registry import OpenedModel
from conure.engine.backends.torch_eager.clip_runner import TorchClipRunner
from conure.engine.backends.torch_eager.stream_runner import TorchStreamRunner
from conure.engine.lanes.clip_lane import ClipLane
from conure.engine.memory.needs import model_need
from conure.engine.plan import Plan
from conure.engine.startup import Lanes, build_lanes
from conure.errors import OutOfMemory
from conure.models.network import Network
from tests.engine.live_model import save_live_model, talking_network
from tests.models.networks import OFFLINE, checkpoint_of, network

CPU, CARD = torch.device("cpu"), torch.device("cuda")
PLAN = Plan(live_models=("live",), clip_models=("live", "whole"), device="cuda", runner="torch")


@pytest.fixture(scope="module")
def net() -> Network:
    return talking_network()


@pytest.fixture
def models(net: Network) -> dict[str, OpenedModel]:
    """As on a GPU."""
    front, whole = LogMel(net.config.mel), network(OFFLINE, ctc=True)
    clips, streams = TorchClipRunner(net, front, CPU), TorchStreamRunner(net, front, CPU)
    live = OpenedModel(replace(checkpoint_of(net), name="live"), CARD, clips, streams)
    other = TorchClipRunner(whole, LogMel(whole.config.mel), CPU)
    return {"live": live, "whole": OpenedModel(replace(checkpoint_of(whole), name="whole"), CARD, other)}


@pytest.fixture
def held(models: dict[str, OpenedModel], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The limit set for torch, on a GPU with 200 MB."""
    limits: list[int] = []
    monkeypatch.setattr(startup, "choose_device", lambda *_: CARD)
    monkeypatch.setattr(startup, "free_bytes", lambda _: 200_000_000)
    monkeypatch.setattr(startup, "limit_gpu_memory", lambda _, size: limits.append(size))
    monkeypatch.setattr(startup, "open_model", lambda name, *_, **__: models[name])
    return limits


def taken(lanes: Lanes, models: dict[str, OpenedModel], plan: Plan) -> int:
    """Bytes of the lanes and their steps, as planned."""
    total = 0
    for name, opened in models.items():
        need = model_need(opened, name, plan)
        total += need.weights
        if need.streams:
            total += need.streams.bytes(lanes.live[name].capacity)
        if need.clips:
            lane = lanes.clips[name]
            total += need.clips.bytes(int(lane.batch_seconds) // 30, 30)
    return total


@pytest.mark.parametrize(("part", "expected"), [(None, []), (0.5, [100_000_000])])
def test_the_memory_of_a_gpu_is_divided(
    models: dict[str, OpenedModel],
    held: list[int],
    caplog: pytest.LogCaptureFixture,
    part: float | None,
    expected: list[int],
) -> None:
    plan = replace(PLAN, device_memory=part)
    with caplog.at_level(logging.INFO, "conure"):
        lanes = build_lanes(plan)
    assert held == expected
    budget = (part or 0.9) * 200_000_000
    assert 0.3 * budget < taken(lanes, models, plan) <= budget
    assert lanes.live["live"].capacity > 10
    assert lanes.model_infos[0].max_streams == lanes.live["live"].capacity
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("memory: ")]
    assert [line.split(":")[1] for line in lines[:2]] == [" live", " whole"]
    assert f"{lanes.live['live'].capacity} slots" in lines[0]
    assert lines[2].endswith(f"of {budget / 1e6:.1f} MB are spare")


def test_a_clip_too_long_for_the_gpu_is_refused(models: dict[str, OpenedModel], held: list[int]) -> None:
    lane = build_lanes(PLAN).clips["whole"]
    assert isinstance(lane, ClipLane)
    assert lane._max_rows
    longest = max(seconds for seconds in range(1, 10_000) if lane._max_rows(seconds))
    need = model_need(models["whole"], "whole", PLAN)
    assert need.clips
    assert need.clips.bytes(1, longest) < 180_000_000 < need.clips.bytes(8, longest)


def test_a_gpu_that_is_too_small_raises(held: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "free_bytes", lambda _: 20_000_000)
    with pytest.raises(OutOfMemory, match="bytes of memory are missing for the work of live"):
        build_lanes(PLAN)
    monkeypatch.setattr(startup, "free_bytes", lambda _: 200_000_000)
    with pytest.raises(OutOfMemory) as refused:
        build_lanes(replace(PLAN, max_streams=10_000))
    assert refused.value.hint
    assert "fewer slots than 10000" in refused.value.hint


def test_weights_that_do_not_fit_raise(held: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nAdvice")

    monkeypatch.setattr(startup, "open_model", full)
    with pytest.raises(OutOfMemory, match=r"the weights of live do not fit .* Tried to allocate 2\.00 GiB\.$"):
        build_lanes(PLAN)


@pytest.mark.parametrize("runner", ["torch", "onnx-fp32"])
def test_a_quarter_of_the_memory_is_for_slots_on_a_cpu(
    net: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runner: str
) -> None:
    folder = str(save_live_model(net, tmp_path / "small"))
    plan = Plan(live_models=(folder,), clip_models=(folder,), device="cpu", runner=runner, cache_folder=tmp_path)  # type: ignore[arg-type]
    monkeypatch.setattr(startup, "free_bytes", lambda _: 10_000_000)
    lanes = build_lanes(plan)
    (lane,) = lanes.live.values()
    row = lane.runner.allocate(1).encoder.bytes  # type: ignore[attr-defined]
    assert lane.capacity == 2_500_000 // row
    (clips,) = lanes.clips.values()
    assert (clips.batch_seconds, clips._max_rows) == (240.0, None)
    assert next(iter(build_lanes(replace(plan, max_streams=200)).live.values())).capacity == 200
    monkeypatch.setattr(startup, "free_bytes", lambda _: 10**12)
    assert next(iter(build_lanes(plan).live.values())).capacity == 1024
