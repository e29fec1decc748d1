"""The configs that NVIDIA published with each model of the catalog: every key, as far as they are public.

Settings beyond the architecture (training data, optimizers, losses, artifacts) are included, because a reader has to
ignore them. Sizes are those of the real models; `publishing` writes small tensors with them.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FOLDERS", "MODELS", "PROMPTS", "Folder", "Published", "nemo_config"]

_PROMPTS = """
af-ZA:54 am-ET:49 ar:7 ar-AR:7 auto:101 ay-BO:81 az-AZ:66 bg:30 bg-BG:30 bn-IN:36 cs:22 cs-CZ:22 da:25 da-DK:25 de:9
de-DE:9 el:21 el-GR:21 en:0 en-GB:1 en-US:0 enGB:1 es:3 es-ES:2 es-US:3 esES:2 et:60 et-EE:60 fa-IR:38 fi:26
fi-FI:26 fr:8 fr-CA:100 fr-FR:8 gn-PY:82 gu-IN:42 ha-NG:50 haw-US:97 he-IL:64 hi:6 hi-HI:6 hi-IN:6 hr:29 hr-HR:29
hu:23 hu-HU:23 hy-AM:68 id-ID:34 ig-NG:53 it:15 it-IT:15 ja-JA:10 ja-JP:10 ka-GE:67 km-KH:47 kn-IN:43 ko:14 ko-KO:14
ko-KR:14 ku-TR:65 ky-KG:71 ln-CD:58 lt:31 lt-LT:31 lv:61 lv-LV:61 mi-NZ:96 ml-IN:44 mr-IN:41 ms-MY:35 mt-MT:102
nah-MX:83 nb:103 nb-NO:103 ne-NP:46 nl:16 nl-NL:16 nn:104 nn-NO:104 no:27 no-NO:27 ny-MW:57 or-KE:59 pl:17 pl-PL:17
pt:13 pt-BR:12 pt-PT:13 qu-PE:80 ro:20 ro-RO:20 ru:11 ru-RU:11 rw-RW:55 si-LK:45 sk:28 sk-SK:28 sl:62 sl-SI:62
sm-WS:98 so-SO:56 sv:24 sv-SE:24 sw-KE:48 ta-IN:39 te-IN:40 tg-TJ:70 th-TH:32 to-TO:99 tr:18 tr-TR:18 uk:19 uk-UA:19
ur-PK:37 uz-UZ:69 vi-VN:33 yo-NG:52 zh-CN:4 zh-TW:5 zh-ZH:4 zu-ZA:51
"""
PROMPTS = {name: int(slot) for name, slot in re.findall(r"(\S+):(\d+)", _PROMPTS)}
"""The language dictionary of nemotron-3.5: 121 names, among them aliases that sort before what they stand for."""

MODULES = "nemo.collections.asr.modules."
DURATIONS = [0, 1, 2, 3, 4]
RNNT, HYBRID, CTC = (
    "nemo.collections.asr.models." + name
    for name in (
        "rnnt_bpe_models.EncDecRNNTBPEModel",
        "hybrid_rnnt_ctc_bpe_models.EncDecHybridRNNTCTCBPEModel",
        "ctc_bpe_models.EncDecCTCModelBPE",
    )
)
PROMPTED = "nemo.collections.asr.models.rnnt_bpe_models_prompt.EncDecRNNTBPEModelWithPrompt"
MULTITALKER = "nemo.collections.asr.models.multitalker_asr_models.EncDecMultiTalkerRNNTBPEModel"
STREAMING = {
    "use_bias": False,
    "causal_downsampling": True,
    "att_context_style": "chunked_limited",
    "conv_norm_type": "layer_norm",
    "conv_context_size": "causal",
}
LOOKAHEADS = [[70, 13], [70, 6], [70, 1], [70, 0]]
LONG_FORM = {
    "self_attention_model": "rel_pos_local_attn",
    "att_context_size": [128, 128],
    "global_tokens": 1,
    "global_tokens_spacing": 1,
    "global_attn_separate": False,
}


@dataclass(frozen=True)
class Published:
    name: str
    target: str
    version: str
    layers: int = 24
    width: int = 1024
    mels: int = 80
    vocabulary: int = 1024
    tdt: bool = False
    lstms: int = 2
    xscaling: bool = False
    encoder: dict[str, Any] = field(default_factory=dict)
    """Beside what all have."""
    more: dict[str, Any] = field(default_factory=dict)
    """Of the whole model."""
    tensors: int | None = None
    """In the published archive, where that is known."""

    @property
    def streaming(self) -> bool:
        return bool(self.encoder.get("causal_downsampling"))

    @property
    def hybrid(self) -> bool:
        return self.target == HYBRID


UNBIASED = {"use_bias": False}
UNIFIED = {
    "att_context_style": "chunked_limited_with_rc",
    "att_chunk_context_size": [[70], [1, 2, 7, 13], [0, 1, 2, 3, 4, 7, 13]],
    "conv_context_style": "dcc",
}
PROMPT = {"initialize_prompt_feature": True, "num_prompts": 128}
SPEAKERS = {
    "spk_kernel_type": "ff",
    "spk_kernel_layers": [0],
    "add_bg_spk_kernel": True,
    "freeze_diar": True,
    "spk_supervision_strategy": "diar",
    "diar_model_path": None,
    "num_mel_frame_per_asr_frame": 8,
}
# fmt: off
MODELS = {model.name: model for model in (
    Published("parakeet-tdt-0.6b-v3", RNNT, "2.4.0rc0", mels=128, vocabulary=8192, tdt=True, encoder=UNBIASED),
    Published("parakeet-tdt-0.6b-v2", RNNT, "2.3.0rc0", mels=128, tdt=True, encoder=UNBIASED),
    Published("parakeet-tdt-1.1b", RNNT, "1.23.0rc0", layers=42, tdt=True),
    Published("parakeet-tdt_ctc-110m", HYBRID, "2.0.0rc1", layers=17, width=512, tdt=True, lstms=1, tensors=707),
    Published("parakeet-tdt_ctc-1.1b", HYBRID, "2.0.0rc0", layers=42, tdt=True, encoder=LONG_FORM),
    Published("parakeet-rnnt-0.6b", RNNT, "1.22.0rc0", xscaling=True),
    Published("parakeet-rnnt-1.1b", RNNT, "1.22.0rc0", layers=42, xscaling=True),
    Published("parakeet-ctc-0.6b", CTC, "1.22.0rc0", xscaling=True),
    Published("parakeet-ctc-1.1b", CTC, "1.22.0rc0", layers=42, xscaling=True),
    Published("parakeet-unified-en-0.6b", RNNT, "2.7.0rc0", mels=128, xscaling=True, encoder=UNIFIED, tensors=989),
    Published("parakeet_realtime_eou_120m-v1", RNNT.replace("rnnt_bpe_models.", ""), "2.6.0rc0", layers=17, width=512,
              mels=128, vocabulary=1026, lstms=1, encoder=STREAMING | {"att_context_size": [70, 1]}),
    Published("nemotron-speech-streaming-en-0.6b", RNNT, "2.6.0rc0", mels=128,
              encoder=STREAMING | {"att_context_size": LOOKAHEADS, "att_context_probs": None}),
    Published("nemotron-3.5-asr-streaming-0.6b", PROMPTED, "2.8.0rc0", mels=128, vocabulary=13087, more=PROMPT,
              encoder=STREAMING | {"att_context_size": [[56, 3], [56, 0], [56, 6], [56, 13]],
                                   "att_context_probs": None}, tensors=657),
    Published("multitalker-parakeet-streaming-0.6b-v1", MULTITALKER, "2.6.0rc0", mels=128, more=SPEAKERS,
              encoder=STREAMING | {"att_context_size": LOOKAHEADS, "att_context_probs": None}),
    # Not in the catalog, opened by path.
    Published("parakeet-tdt_ctc-0.6b-ja", HYBRID, "2.1.0rc0", vocabulary=3072, tdt=True, xscaling=True),
    Published("stt_en_fastconformer_hybrid_large_streaming_multi", HYBRID, "1.21.0rc0", layers=17, width=512, lstms=1,
              xscaling=True, encoder={key: value for key, value in STREAMING.items() if key != "use_bias"}
              | {"att_context_size": LOOKAHEADS, "att_context_probs": [0.25, 0.25, 0.25, 0.25]}),
    Published("stt_en_fastconformer_hybrid_large_pc", HYBRID, "1.20.0rc0", layers=17, width=512, lstms=1,
              xscaling=True),
    Published("parakeet-tdt_ctc-1.1b, without global steps", HYBRID, "2.0.0rc0", layers=42, tdt=True,
              encoder=LONG_FORM | {"global_tokens": 0}),
)}
# fmt: on


def nemo_config(model: Published, labels: list[str]) -> dict[str, Any]:
    """The complete model_config.yaml."""
    data = {"manifest_filepath": None, "sample_rate": 16_000, "batch_size": 16, "shuffle": True, "num_workers": 8}
    data |= {"pin_memory": True, "max_duration": 20, "min_duration": 0.1, "is_tarred": False, "shuffle_n": 2048}
    prompt = {"prompt_dictionary": PROMPTS, "num_prompts": 128} if model.target == PROMPTED else {}
    hidden = {"enc_hidden": model.width, "pred_hidden": 640, "joint_hidden": 640}
    durations = {"tdt_durations": DURATIONS, "num_tdt_durations": 5} if model.tdt else {}
    settings = {
        "sample_rate": 16_000,
        "compute_eval_loss": False,
        "log_prediction": True,
        "skip_nan_grad": False,
        "model_defaults": hidden | durations | prompt,
        "train_ds": data | {"bucketing_strategy": "fully_randomized", "bucketing_batch_size": None} | prompt,
        "validation_ds": data | {"shuffle": False, "use_start_end_token": False},
        "test_ds": data | {"shuffle": False},
        "tokenizer": _tokenizer(model),
        "preprocessor": _preprocessor(model),
        "spec_augment": {"_target_": MODULES + "SpectrogramAugmentation", "freq_masks": 2, "time_masks": 10},
        "encoder": _encoder(model),
    }
    settings |= _ctc(model, labels) if model.target == CTC else _transducer(model, labels)
    if model.hybrid or prompt:
        settings["aux_ctc"] = {"ctc_loss_weight": 0.3, "use_cer": False, "ctc_reduction": "mean_batch"}
        settings["aux_ctc"] |= {"decoder": _ctc(model, labels)["decoder"], "decoding": {"strategy": "greedy"}}
    schedule = {"name": "CosineAnnealing", "warmup_steps": 3000, "warmup_ratio": None, "min_lr": 5e-06}
    settings |= model.more | {"optim": {"name": "adamw", "lr": 1e-4, "betas": [0.9, 0.98], "sched": schedule}}
    return settings | {"labels": labels, "target": model.target, "nemo_version": model.version}


def artifact(model: Published, name: str) -> str:
    """Name that NeMo gives to a packed file."""
    return hashlib.md5(f"{name} {model.vocabulary}".encode()).hexdigest() + "_" + name


def _tokenizer(model: Published) -> dict[str, Any]:
    paths = {"model_path": "tokenizer.model", "vocab_path": "vocab.txt", "spe_tokenizer_vocab": "tokenizer.vocab"}
    settings = {key: "nemo:" + artifact(model, name) for key, name in paths.items()}
    return {"dir": f"/tokenizers/tokenizer_spe_bpe_v{model.vocabulary}", "type": "bpe"} | settings


def _preprocessor(model: Published) -> dict[str, Any]:
    return {
        "_target_": MODULES + "AudioToMelSpectrogramPreprocessor",
        "sample_rate": 16_000,
        "normalize": "NA" if model.streaming else "per_feature",
        "window_size": 0.025,
        "window_stride": 0.01,
        "window": "hann",
        "features": model.mels,
        "n_fft": 512,
        "log": True,
        "frame_splicing": 1,
        "dither": 1e-05,
        "pad_to": 0,
        "pad_value": 0.0,
    }


def _encoder(model: Published) -> dict[str, Any]:
    settings = {
        "_target_": MODULES + "ConformerEncoder",
        "feat_in": model.mels,
        "feat_out": -1,
        "n_layers": model.layers,
    }
    settings |= {"d_model": model.width, "subsampling": "dw_striding", "subsampling_factor": 8}
    settings |= {"subsampling_conv_channels": 256, "causal_downsampling": False, "reduction": None}
    settings |= {"reduction_position": None, "reduction_factor": 1, "ff_expansion_factor": 4}
    settings |= {"self_attention_model": "rel_pos", "n_heads": 8, "att_context_size": [-1, -1]}
    settings |= {
        "att_context_style": "regular",
        "xscaling": model.xscaling,
        "untie_biases": True,
        "pos_emb_max_len": 5000,
    }
    settings |= {"conv_kernel_size": 9, "conv_norm_type": "batch_norm", "conv_context_size": None, "dropout": 0.1}
    settings |= {"dropout_pre_encoder": 0.1, "dropout_emb": 0.0, "dropout_att": 0.1, "stochastic_depth_drop_prob": 0.0}
    return settings | {"stochastic_depth_mode": "linear", "stochastic_depth_start_layer": 1} | model.encoder


def _ctc(model: Published, labels: list[str]) -> dict[str, Any]:
    head = {"_target_": MODULES + "ConvASRDecoder", "feat_in": None, "num_classes": model.vocabulary}
    settings = {"decoder": head | {"vocabulary": labels}, "ctc_reduction": "mean_volume"}
    return settings | {"interctc": {"loss_weights": [], "apply_at_layers": []}, "decoding": {"strategy": "greedy"}}


def _transducer(model: Published, labels: list[str]) -> dict[str, Any]:
    predictor = {"pred_hidden": 640, "pred_rnn_layers": model.lstms, "t_max": None, "dropout": 0.2}
    joint = {"joint_hidden": 640, "activation": "relu", "dropout": 0.2, "encoder_hidden": model.width}
    settings: dict[str, Any] = {
        "decoder": {
            "_target_": MODULES + "RNNTDecoder",
            "normalization_mode": None,
            "random_state_sampling": False,
            "blank_as_pad": True,
            "prednet": predictor,
            "vocab_size": model.vocabulary,
        },
        "joint": {
            "_target_": MODULES + "RNNTJoint",
            "log_softmax": None,
            "preserve_memory": False,
            "fuse_loss_wer": True,
            "fused_batch_size": 4,
            "jointnet": joint | {"pred_hidden": 640},
            "num_classes": model.vocabulary,
            "vocabulary": labels,
        },
        "decoding": {"strategy": "greedy_batch", "greedy": {"max_symbols": 10}, "beam": {"beam_size": 2}},
        "loss": {"loss_name": "default", "warprnnt_numba_kwargs": {"fastemit_lambda": 0.0, "clamp": -1.0}},
    }
    if model.tdt:
        settings["joint"]["num_extra_outputs"] = 5
        settings["decoding"] |= {"model_type": "tdt", "durations": DURATIONS}
        settings["loss"] = {"loss_name": "tdt", "tdt_kwargs": {"durations": DURATIONS, "sigma": 0.02, "omega": 0.1}}
    return settings


@dataclass(frozen=True)
class Folder:
    """JSON files of a folder of transformers."""

    name: str
    config: dict[str, Any]
    processor: dict[str, Any] | None = None
    preprocessor: dict[str, Any] | None = None
    tensors: int | None = None


_ENCODER = {
    "activation_dropout": 0.1,
    "attention_bias": False,
    "attention_dropout": 0.1,
    "conv_kernel_size": 9,
    "convolution_bias": False,
    "dropout": 0.1,
    "dropout_positions": 0.0,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "initializer_range": 0.02,
    "intermediate_size": 4096,
    "layerdrop": 0.1,
    "max_position_embeddings": 5000,
    "model_type": "parakeet_encoder",
    "num_attention_heads": 8,
    "num_hidden_layers": 24,
    "num_key_value_heads": 8,
    "num_mel_bins": 128,
    "scale_input": False,
    "subsampling_conv_channels": 256,
    "subsampling_conv_kernel_size": 3,
    "subsampling_conv_stride": 2,
    "subsampling_factor": 8,
}
_LIVE = _ENCODER | {"model_type": "nemotron_asr_streaming_encoder"}
_HEAD = {"decoder_hidden_size": 640, "dtype": "float32", "hidden_act": "relu", "initializer_range": 0.02}
_HEAD |= {"is_encoder_decoder": True, "max_symbols_per_step": 10, "num_decoder_layers": 2}
_FRONT = {"feature_extractor_type": "ParakeetFeatureExtractor", "feature_size": 128, "hop_length": 160, "n_fft": 512}
_FRONT |= {"padding_side": "right", "padding_value": 0.0, "preemphasis": 0.97, "return_attention_mask": True}
_FRONT |= {"sampling_rate": 16_000, "win_length": 400}
_LIVE_FRONT = _FRONT | {"feature_extractor_type": "NemotronAsrStreamingFeatureExtractor"}


def _transducer_folder(
    kind: str, architecture: str, encoder: dict[str, Any], vocabulary: int, pad: int
) -> dict[str, Any]:
    settings = {"architectures": [architecture], "model_type": kind, "encoder_config": encoder, "pad_token_id": pad}
    return settings | _HEAD | {"blank_token_id": vocabulary, "vocab_size": vocabulary + 1, "durations": []}


# fmt: off
FOLDERS = {folder.name: folder for folder in (
    Folder("parakeet-tdt-0.6b-v3",
           _transducer_folder("parakeet_tdt", "ParakeetForTDT", _ENCODER, 8192, 2) | {"durations": DURATIONS},
           {"blank_token": "<blank>", "feature_extractor": _FRONT, "processor_class": "ParakeetProcessor"},
           tensors=723),
    Folder("nemotron-speech-streaming-en-0.6b",
           _transducer_folder("nemotron_asr_streaming", "NemotronAsrStreamingForRNNT",
                              _LIVE | {"sliding_window": 71, "default_num_lookahead_tokens": 13}, 1024, 0),
           {"blank_token": "<blank>", "feature_extractor": _LIVE_FRONT,
            "processor_class": "NemotronAsrStreamingProcessor"}),
    Folder("nemotron-3.5-asr-streaming-0.6b",
           _transducer_folder("nemotron3_5_asr", "Nemotron3_5AsrForRNNT",
                              _LIVE | {"sliding_window": 57, "default_num_lookahead_tokens": 3,
                                       "supported_num_lookahead_tokens": [3, 0, 6, 13]}, 13087, 0)
           | {"default_prompt_id": 101, "num_prompts": 128, "prompt_intermediate_size": 2048},
           {"blank_token": "<blank>", "default_num_lookahead_tokens": 3, "feature_extractor": _LIVE_FRONT,
            "num_prompts": 128, "processor_class": "Nemotron3_5AsrProcessor", "prompt_dictionary": PROMPTS,
            "supported_num_lookahead_tokens": [3, 0, 6, 13]},
           tensors=655),
    Folder("parakeet-ctc-1.1b",
           {"architectures": ["ParakeetForCTC"], "ctc_loss_reduction": "mean", "ctc_zero_infinity": True,
            "dtype": "bfloat16", "initializer_range": 0.02, "model_type": "parakeet_ctc", "pad_token_id": 1024,
            "transformers_version": "4.57.0.dev0", "vocab_size": 1025,
            "encoder_config": {key: value for key, value in _ENCODER.items() if key != "convolution_bias"}
            | {"attention_bias": True, "num_hidden_layers": 42, "num_mel_bins": 80, "scale_input": True}},
           preprocessor=_FRONT | {"feature_size": 80, "processor_class": "ParakeetProcessor"}, tensors=1694),
)}
# fmt: on
