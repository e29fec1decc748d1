"""Renaming of tensors, and configs inferred from their shapes."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conure.errors import BadCheckpoint
from conure.models.config import AttentionContext, NetworkConfig
from conure.models.nemo_config import NemoConfig
from conure.models.nemo_file import NemoFile, read_nemo
from conure.models.weights import (
    Renamed,
    check_tensors,
    declared_by,
    from_hugging_face,
    from_nemo,
    infer_config,
    network_tensors,
)
from tests.models.networks import OFFLINE, STREAMING, network

DATA = Path(__file__).parents[1] / "data" / "parity"


@cache
def archive(name: str) -> NemoFile:
    return read_nemo(DATA / f"{name}.nemo")


def infer(name: str, tensors: dict[str, Tensor] | None = None, **settings: Any) -> NetworkConfig:
    """The config of a checkpoint whose yaml was changed: settings are dotted paths with __ for dots."""
    raw = archive(name)
    config = copy.deepcopy(raw.config)
    for path, value in settings.items():
        *parents, last = path.split("__")
        part = config
        for key in parents:
            part = part.setdefault(key, {})
        part.pop(last, None) if value is ... else part.__setitem__(last, value)
    renamed = from_nemo(raw.tensors if tensors is None else tensors)
    inferred = infer_config(renamed, NemoConfig(config).declared())
    check_tensors(inferred, renamed.tensors)
    return inferred


def parts(config: NetworkConfig) -> Renamed:
    return Renamed({name: torch.zeros(shape) for name, shape in network_tensors(config).items()}, None, None)


@pytest.mark.parametrize("encoder", [OFFLINE, STREAMING, replace(OFFLINE, speaker_layers=(0, 2))])
@pytest.mark.parametrize(
    "heads",
    [
        {"ctc": True},
        {"predictor_width": 16, "predictor_layers": 1, "joint_width": 24},
        {"predictor_width": 16, "predictor_layers": 2, "joint_width": 24, "durations": (0, 1, 2), "ctc": True},
        {"predictor_width": 16, "predictor_layers": 2, "joint_width": 24, "prompts": 5, "prompt_ids": (("en", 4),)},
    ],
)
def test_a_config_is_inferred_from_its_tensors(encoder: Any, heads: dict[str, Any]) -> None:
    config = network(encoder, **heads).config
    assert infer_config(parts(config), declared_by(config)) == config


def test_tensors_take_precedence_over_the_config() -> None:
    lies = {"encoder__n_layers": 99, "encoder__d_model": 7, "encoder__n_heads": 3, "encoder__conv_kernel_size": 31}
    assert infer("tdt", **lies, preprocessor__features=64, encoder__feat_in=64) == infer("tdt")


def test_trap_5_batch_norm_may_be_a_layer_norm() -> None:
    assert infer("nemotron").encoder.norm == "layer_norm"
    assert infer("nemotron", encoder__conv_norm_type="batch_norm").encoder.norm == "layer_norm"
    assert infer("tdt", encoder__conv_norm_type="layer_norm").encoder.norm == "batch_norm"


def test_trap_6_the_last_joint_layer_has_index_1_without_dropout() -> None:
    assert "joint.joint_net.1.weight" in archive("rnnt").tensors
    assert "joint.joint_net.2.weight" in archive("tdt").tensors
    for name in ("rnnt", "tdt"):
        assert "joint.head.weight" in from_nemo(archive(name).tensors).tensors


def test_trap_7_biases_and_predictor_are_inferred_and_scaling_defaults_to_true() -> None:
    assert "use_bias" not in archive("tdt_bias").config["encoder"]
    assert infer("tdt_bias").encoder.bias
    assert infer("tdt_bias", encoder__xscaling=...).encoder.scale_input
    assert not infer("tdt", encoder__use_bias=...).encoder.bias
    inferred = infer("rnnt", decoder__prednet={}, joint__jointnet={})
    assert (inferred.predictor_layers, inferred.predictor_width, inferred.joint_width) == (2, 32, 32)
    assert infer("tdt_ctc").predictor_layers == 1


def test_trap_8_norms_and_subsampling_keep_their_biases_without_use_bias() -> None:
    names = network_tensors(infer("tdt"))
    assert {"encoder.layers.0.norm_out.bias", "encoder.pre_encode.out.bias", "encoder.pre_encode.conv.0.bias"} <= {
        *names
    }
    assert not any(".self_attn.linear_q.bias" in name or ".depthwise_conv.bias" in name for name in names)


def test_trap_9_the_row_of_the_blank_is_kept_as_loaded() -> None:
    loaded = {"decoder.embedding.weight": torch.ones(4, 3)}
    assert from_hugging_face(loaded).tensors["predictor.embedding.weight"][-1].tolist() == [1, 1, 1]
    assert from_nemo(archive("tdt").tensors).tensors["predictor.embedding.weight"][-1].abs().max() == 0


@pytest.mark.parametrize("sizes", [[70, 12], [[70, 13], [70, 3]], [[71, 1]]])
def test_trap_11_a_past_that_is_no_multiple_of_the_chunk_is_refused(sizes: list[Any]) -> None:
    with pytest.raises(BadCheckpoint, match="not a multiple of the chunk"):
        infer("nemotron", encoder__att_context_size=sizes)


def test_trap_16_the_ctc_head_of_a_hybrid_has_another_name() -> None:
    assert "ctc_decoder.decoder_layers.0.weight" in archive("tdt_ctc").tensors
    assert "decoder.decoder_layers.0.weight" in archive("ctc").tensors
    hybrid, pure = infer("tdt_ctc"), infer("ctc")
    assert hybrid.ctc
    assert hybrid.durations == (0, 1, 2, 3, 4)
    assert pure.ctc
    assert not pure.predictor_width


def test_trap_17_local_attention_is_read_from_the_config() -> None:
    encoder = infer("tdt_ctc_local").encoder
    assert encoder.local
    assert encoder.contexts == (AttentionContext(8, 8),)
    assert not infer("tdt_ctc").encoder.local


def test_global_steps_are_read_if_attention_is_local() -> None:
    one, some = infer("tdt_ctc_global").encoder, infer("tdt_ctc_globals").encoder
    assert (one.global_tokens, one.global_spacing, one.global_separate) == (1, 1, False)
    assert (some.global_tokens, some.global_spacing, some.global_separate) == (3, 5, True)
    # NeMo ignores them with full attention.
    assert infer("tdt", encoder__global_tokens=1).encoder == infer("tdt").encoder


def test_a_convolution_over_one_step_becomes_a_linear_layer() -> None:
    raw = archive("ctc").tensors
    tensors = from_nemo(raw).tensors
    assert raw["encoder.layers.0.conv.pointwise_conv1.weight"].shape == (64, 32, 1)
    assert tensors["encoder.layers.0.conv.pointwise_conv1.weight"].shape == (64, 32)
    assert tensors["ctc_head.weight"].shape == (65, 32)
    assert tensors["encoder.layers.0.conv.depthwise_conv.weight"].dim() == 3


def test_window_and_filterbank_come_from_the_checkpoint() -> None:
    renamed = from_nemo(archive("tdt").tensors)
    assert renamed.window is not None
    assert renamed.filterbank is not None
    assert renamed.window.shape == (400,)
    assert renamed.filterbank.shape == (128, 257)


def test_mel_bands_and_causality_follow_from_the_subsampling() -> None:
    for encoder in (replace(OFFLINE, features=80), replace(OFFLINE, features=128), replace(STREAMING, features=128)):
        config = network(encoder, ctc=True).config
        lying = replace(
            declared_by(config), mel=replace(config.mel, features=64), causal_subsampling=not encoder.causal_subsampling
        )
        bank = torch.zeros(encoder.features, 257)
        inferred = infer_config(replace(parts(config), filterbank=bank), lying).encoder
        assert (inferred.features, inferred.causal_subsampling) == (encoder.features, encoder.causal_subsampling)
        honest = replace(lying, causal_subsampling=encoder.causal_subsampling)
        assert infer_config(parts(config), honest).encoder.features == encoder.features


def test_a_filterbank_that_does_not_fit_is_refused() -> None:
    config = network(OFFLINE, ctc=True).config
    with pytest.raises(BadCheckpoint, match="mel bands"):
        infer_config(replace(parts(config), filterbank=torch.zeros(64, 257)), declared_by(config))


def test_contexts_of_every_style() -> None:
    assert infer("tdt").encoder.contexts == (AttentionContext(-1, -1),)
    assert infer("tdt", encoder__att_context_size=None).encoder.contexts == (AttentionContext(-1, -1),)
    assert infer("nemotron").encoder.contexts == tuple(AttentionContext(70, right) for right in (13, 6, 1, 0))
    assert infer("eou").encoder.contexts == (AttentionContext(70, 1),)
    unified = infer("unified").encoder.contexts
    assert unified[0] == AttentionContext()
    assert AttentionContext(70, 7, 13) in unified
    assert len(unified) == 1 + 4 * 7


@pytest.mark.parametrize(("size", "causal"), [("causal", True), ([8, 0], True), (None, False), ([4, 4], False)])
def test_causal_convolutions_by_any_name(size: Any, causal: bool) -> None:
    assert infer("tdt", encoder__conv_context_size=size).encoder.causal_convolution is causal


def test_prompt_slots_and_their_languages() -> None:
    names = {"en-US": 0, "no": 20, "auto": 101}
    config = infer("nemotron_prompt", model_defaults__prompt_dictionary=names)
    assert config.prompts == 128
    assert dict(config.prompt_ids) == names
    assert infer("nemotron", model_defaults__prompt_dictionary={"en": 0}).prompt_ids == ()
    with pytest.raises(BadCheckpoint, match="128 slots"):
        infer("nemotron_prompt", model_defaults__prompt_dictionary={"en": 128})


def test_speaker_kernels() -> None:
    assert infer("multitalker").encoder.speaker_layers == (0,)
    assert "encoder.background_kernels.0.linear2.weight" in from_nemo(archive("multitalker").tensors).tensors


def test_durations_are_found_at_any_path() -> None:
    assert infer("tdt", decoding={}).durations == (0, 1, 2, 3, 4)
    assert infer("tdt", decoding={}, model_defaults={}).durations == (0, 1, 2, 3, 4)
    with pytest.raises(BadCheckpoint, match="scores 5 durations and the config names 0"):
        infer("tdt", decoding={}, model_defaults={}, loss={})
    assert infer("rnnt", model_defaults__tdt_durations=[0, 1]).durations == ()


@pytest.mark.parametrize(("greedy", "limit"), [({"max_symbols": 5}, 5), ({}, 10), ({"max_symbols": None}, 10)])
def test_the_limit_of_tokens_per_step(greedy: dict[str, Any], limit: int) -> None:
    assert infer("tdt", decoding__greedy=greedy).max_symbols == limit


def test_references_within_the_config_are_followed() -> None:
    assert infer("tdt", encoder__xscaling="${model_defaults.scale}", model_defaults__scale=True).encoder.scale_input
    with pytest.raises(BadCheckpoint, match="refers to itself"):
        infer("tdt", encoder__xscaling="${encoder.xscaling}")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("encoder__subsampling", "striding"),
        ("encoder__subsampling_factor", 4),
        ("encoder__self_attention_model", "abs_pos"),
        ("encoder__conv_norm_type", "group_norm"),
        ("encoder__conv_context_size", [6, 2]),
        ("encoder__att_context_size", "all"),
        ("encoder__att_context_size", [[1, 2, 3]]),
        ("joint__jointnet__activation", "tanh"),
        ("decoder__normalization_mode", "layer"),
        ("decoding__big_blank_durations", [2, 4]),
        ("preprocessor__sample_rate", 8000),
        ("preprocessor__window_stride", 0.02),
        ("preprocessor__mag_power", 1.0),
        ("preprocessor__log_zero_guard_type", "clamp"),
        ("preprocessor__normalize", {"fixed_mean": [0]}),
        ("preprocessor__n_fft", 256),
    ],
)
def test_settings_with_other_results_are_refused_by_name(setting: str, value: Any) -> None:
    if setting == "preprocessor__n_fft":  # the filterbank takes precedence
        assert infer("tdt", **{setting: value}).mel.fft == 512
        return
    with pytest.raises(BadCheckpoint, match=setting.rpartition("__")[2]):
        infer("tdt", **{setting: value})


@pytest.mark.parametrize(
    ("target", "meaning"),
    [
        ("nemo.collections.asr.models.sortformer_diar_models.SortformerEncLabelModel", "diarization"),
        ("nemo.collections.speechlm2.models.SALM", "language model"),
        ("nemo.collections.asr.models.aed_multitask_models.EncDecMultiTaskModel", "Canary"),
        ("nemo.collections.asr.models.label_models.EncDecSpeakerLabelModel", "classifier"),
    ],
)
def test_other_families_are_refused_by_name(target: str, meaning: str) -> None:
    with pytest.raises(BadCheckpoint, match=meaning):
        NemoConfig({"target": target}).check_family()


def test_other_encoders_and_heads_are_refused() -> None:
    for part, kind in (("encoder", "ConvASREncoder"), ("decoder", "StatelessTransducerDecoder"), ("joint", "HATJoint")):
        with pytest.raises(BadCheckpoint, match=kind):
            NemoConfig({part: {"_target_": f"nemo.modules.{kind}"}}).check_family()


def test_a_missing_tensor_is_named() -> None:
    tensors = dict(archive("tdt").tensors)
    del tensors["encoder.layers.1.norm_conv.weight"], tensors["joint.enc.bias"]
    with pytest.raises(
        BadCheckpoint, match=r"lacks 2 tensors: encoder\.layers\.1\.norm_conv\.weight, joint\.enc\.bias"
    ):
        infer("tdt", tensors)


def test_a_surplus_tensor_is_named() -> None:
    with pytest.raises(BadCheckpoint, match=r"has 1 surplus tensors: encoder\.extra"):
        infer("tdt", archive("tdt").tensors | {"encoder.extra": torch.ones(1)})


def test_a_tensor_of_another_shape_is_named() -> None:
    name = "encoder.layers.2.self_attn.linear_k.weight"
    with pytest.raises(BadCheckpoint, match=r"linear_k\.weight \[32, 31\] instead of \[32, 32\]"):
        infer("tdt", archive("tdt").tensors | {name: torch.ones(32, 31)})


def test_only_tensors_that_were_not_learned_are_dropped() -> None:
    extra = ["encoder.pos_enc.pe", "encoder.layers.0.conv.batch_norm.num_batches_tracked", "loss.weight", "wer.total"]
    tensors = archive("tdt").tensors | {name: torch.tensor(1) for name in extra}
    assert infer("tdt", tensors) == infer("tdt")


def test_two_tensors_with_one_name_are_refused() -> None:
    head = archive("rnnt").tensors["joint.joint_net.1.weight"]
    with pytest.raises(BadCheckpoint, match="two tensors"):
        from_nemo(archive("rnnt").tensors | {"joint.joint_net.2.weight": head})


@pytest.mark.parametrize("kind", [torch.int8, torch.float8_e4m3fn, torch.complex64, torch.bool])
def test_numbers_of_another_type_are_refused(kind: torch.dtype) -> None:
    with pytest.raises(BadCheckpoint, match=r"joint\.enc\.bias is stored as"):
        from_nemo({"joint.enc.bias": torch.zeros(3).to(kind)})


@pytest.mark.parametrize("tensors", [{}, {"a": torch.ones(1)}, {"encoder.pre_encode.out.weight": torch.ones(3)}])
def test_other_architectures_are_refused(tensors: dict[str, Tensor]) -> None:
    with pytest.raises(BadCheckpoint):
        infer("tdt", tensors)


def test_no_network_is_built_for_absurd_claims() -> None:
    layers = {f"encoder.layers.{index}.norm_out.weight": torch.ones(1) for index in range(600)}
    with pytest.raises(BadCheckpoint, match="the limit is"):
        infer("tdt", archive("tdt").tensors | layers)
    thin = {"encoder.pre_encode.out.weight": torch.ones(10**6, 1).expand(10**6, 256)}
    with pytest.raises(BadCheckpoint):
        infer("tdt", archive("tdt").tensors | thin)
