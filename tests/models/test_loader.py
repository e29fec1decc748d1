"""Loading of checkpoints by name and path, and networks built from them."""

from __future__ import annotations

import shutil
import tarfile
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch

from conure.errors import BadCheckpoint, ModelNotFound, UnknownModel
from conure.models import conure_file, hub
from conure.models.hub_repository import HubRepository
from conure.models.loader import build_network, describe, load_checkpoint, read_checkpoint

DATA = Path(__file__).parents[1] / "data" / "parity"
FAMILIES = {
    "tdt.nemo": ("parakeet-tdt", ("tdt",)),
    "tdt_bias.nemo": ("parakeet-tdt", ("tdt",)),
    "tdt_ctc.nemo": ("parakeet-tdt-ctc", ("tdt", "ctc")),
    "tdt_ctc_local.nemo": ("parakeet-tdt-ctc", ("tdt", "ctc")),
    "tdt_ctc_global.nemo": ("parakeet-tdt-ctc", ("tdt", "ctc")),
    "tdt_ctc_globals.nemo": ("parakeet-tdt-ctc", ("tdt", "ctc")),
    "rnnt.nemo": ("parakeet-rnnt", ("rnnt",)),
    "ctc.nemo": ("parakeet-ctc", ("ctc",)),
    "unified.nemo": ("parakeet-unified", ("rnnt",)),
    "eou.nemo": ("parakeet-eou", ("rnnt",)),
    "nemotron.nemo": ("nemotron-streaming", ("rnnt",)),
    "nemotron_prompt.nemo": ("nemotron-multilingual", ("rnnt",)),
    "multitalker.nemo": ("multitalker", ("rnnt",)),
    "hf_parakeet_ctc": ("parakeet-ctc", ("ctc",)),
    "hf_parakeet_rnnt": ("parakeet-rnnt", ("rnnt",)),
    "hf_parakeet_tdt": ("parakeet-tdt", ("tdt",)),
    "hf_nemotron_asr_streaming": ("nemotron-streaming", ("rnnt",)),
    "hf_nemotron3_5_asr": ("nemotron-multilingual", ("rnnt",)),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_loads_strictly_and_runs(name: str) -> None:
    checkpoint = load_checkpoint(DATA / name)
    family, heads = FAMILIES[name]
    assert checkpoint.family == family
    assert checkpoint.default_head == heads[0]
    described = describe(checkpoint)
    assert tuple(described["heads"]) == heads
    assert described["parameters"] > 50_000
    assert described["live"] is (
        family in ("parakeet-eou", "nemotron-streaming", "nemotron-multilingual", "multitalker")
    )
    network, front = build_network(checkpoint)
    assert not network.training
    with torch.inference_mode():
        encoded, counts = network.encode(*front(torch.randn(2, 16_000), torch.tensor([16_000, 9_000])))
    assert encoded.shape == (2, int(counts.max()), 32)
    assert encoded.isfinite().all()


@pytest.mark.parametrize(
    ("nemo", "folder"), [("tdt.nemo", "hf_parakeet_tdt"), ("nemotron.nemo", "hf_nemotron_asr_streaming")]
)
def test_one_model_in_two_formats_has_the_same_outputs(nemo: str, folder: str) -> None:
    samples, lengths = torch.randn(1, 20_000), torch.tensor([20_000])
    outputs = []
    for name in (nemo, folder):
        network, front = build_network(load_checkpoint(DATA / name))
        with torch.inference_mode():
            outputs.append(network.encode(*front(samples, lengths))[0])
    assert torch.allclose(*outputs, atol=2e-5)


def test_each_prompt_slot_has_one_language() -> None:
    for name in ("nemotron_prompt.nemo", "hf_nemotron3_5_asr"):
        checkpoint = load_checkpoint(DATA / name)
        slots = dict(checkpoint.config.prompt_ids)
        assert {"en", "no", "auto"} <= slots.keys()
        assert len({slots[language] for language in checkpoint.languages}) == len(checkpoint.languages)
        assert "en-US" in checkpoint.languages
        assert not {"en", "auto"} & {*checkpoint.languages}
    assert load_checkpoint(DATA / "tdt.nemo").languages == ()


def test_trap_21_tokens_of_utterance_ends_and_languages_are_special() -> None:
    eou = load_checkpoint(DATA / "eou.nemo").tokenizer
    assert {eou.pieces[index] for index in eou.special} == {"<EOU>", "<EOB>", "<unk>"}
    tags = load_checkpoint(DATA / "nemotron_prompt.nemo").tokenizer
    assert {"<en-US>", "<de-DE>"} <= {tags.pieces[index] for index in tags.special}


def test_weights_are_used_without_a_copy() -> None:
    checkpoint = load_checkpoint(DATA / "tdt.nemo")
    network, _ = build_network(checkpoint)
    name = "encoder.layers.0.feed_forward1.linear1.weight"
    assert network.get_parameter(name).data_ptr() == checkpoint.tensors[name].data_ptr()


def test_a_network_may_be_built_in_half_precision() -> None:
    network, front = build_network(load_checkpoint(DATA / "tdt.nemo"), torch.bfloat16)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.bfloat16}
    assert front.filterbank.dtype == torch.float32


def test_window_and_filterbank_are_those_of_the_checkpoint() -> None:
    checkpoint = load_checkpoint(DATA / "tdt.nemo")
    front = build_network(checkpoint)[1]
    assert checkpoint.filterbank is not None
    assert torch.equal(front.filterbank, checkpoint.filterbank)


def test_a_folder_with_one_archive(tmp_path: Path) -> None:
    shutil.copy(DATA / "ctc.nemo", tmp_path)
    assert load_checkpoint(str(tmp_path)).family == "parakeet-ctc"
    shutil.copy(DATA / "tdt.nemo", tmp_path)
    with pytest.raises(BadCheckpoint, match=r"several checkpoints: ctc\.nemo, tdt\.nemo") as caught:
        load_checkpoint(tmp_path)
    assert str(tmp_path / "ctc.nemo") in (caught.value.hint or "")
    shutil.copy(DATA / "tdt.nemo", tmp_path / f"{tmp_path.name}.nemo")
    assert load_checkpoint(tmp_path).family == "parakeet-tdt"
    assert load_checkpoint(tmp_path / "ctc.nemo").family == "parakeet-ctc"


def test_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="no checkpoint"):
        load_checkpoint(tmp_path)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mixed.nemo"
    with tarfile.open(DATA / "tdt.nemo") as source, tarfile.open(path, "w:") as target:
        for entry in source:
            if not entry.name.endswith("_tokenizer.model"):
                target.addfile(entry, source.extractfile(entry))
    with pytest.raises(BadCheckpoint, match=r"mixed\.nemo: the archive has no tokenizer"):
        load_checkpoint(path)


@pytest.mark.parametrize("name", ["missing.nemo", "./missing", "/no/where.nemo", "~/missing-model"])
def test_a_missing_path(name: str) -> None:
    with pytest.raises(UnknownModel, match="no such model file or folder"):
        load_checkpoint(name)


def test_an_unknown_name() -> None:
    with pytest.raises(UnknownModel, match="parakeeet") as caught:
        load_checkpoint("parakeeet")
    assert "parakeet" in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["parakeet", "nvidia/parakeet-tdt-0.6b-v3", "someone/something"])
def test_the_hint_without_weights_and_network(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound) as caught:
        load_checkpoint(name, cache=tmp_path, offline=True)
    assert "--model tiny" in (caught.value.hint or "")


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[HubRepository]:
    """A hub that has one file for every request."""
    wishes: list[HubRepository] = []

    def fetch(repository: HubRepository, progress: Any = None) -> Path:
        wishes.append(repository)
        return DATA / "tdt.nemo"

    monkeypatch.setattr(hub, "fetch", fetch)
    return wishes


def test_languages_come_from_the_catalog(fetched: list[HubRepository]) -> None:
    checkpoint = load_checkpoint("whisper-1")
    assert (checkpoint.name, len(checkpoint.languages)) == ("parakeet-tdt-0.6b-v3", 25)
    assert fetched == [HubRepository("nvidia/parakeet-tdt-0.6b-v3")]


def test_a_hub_id_of_the_catalog_has_its_name(fetched: list[HubRepository]) -> None:
    assert load_checkpoint("nvidia/parakeet-tdt-0.6b-v2").name == "parakeet-tdt-0.6b-v2"
    assert load_checkpoint("someone/else").name == "someone/else"


@pytest.mark.parametrize(("name", "revision"), [("parakeet@v1", None), ("nvidia/parakeet-tdt-0.6b-v3", "v1")])
def test_a_revision_is_pinned_in_the_name_or_by_argument(
    fetched: list[HubRepository], name: str, revision: str | None
) -> None:
    load_checkpoint(name, revision=revision)
    assert fetched[0].revision == "v1"


def test_tiny_is_read_from_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conure_file.save(read_checkpoint(DATA / "tdt_ctc.nemo"), tmp_path / "data" / "tiny")
    monkeypatch.setattr(resources, "files", lambda _: tmp_path)
    checkpoint = load_checkpoint("tiny")
    assert (checkpoint.name, checkpoint.languages) == ("tiny", ("en",))
    with pytest.raises(UnknownModel, match="no revision"):
        load_checkpoint("tiny@v2")


def test_an_installation_without_tiny_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "files", lambda _: tmp_path)
    with pytest.raises(ModelNotFound, match="tiny"):
        load_checkpoint("tiny")
