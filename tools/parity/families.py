"""NeMo configurations of all model families, as differences from a common one.

`SMALL` sizes keep all files together at a few megabytes (two heads of 16, three layers); `FULL` has the size of the
published 0.6B models.
"""

from dataclasses import dataclass, field
from typing import Any

DURATIONS = [0, 1, 2, 3, 4]
MODULES = "nemo.collections.asr.modules"


@dataclass(frozen=True)
class Size:
    """The dimensions of a checkpoint."""

    layers: int
    width: int
    heads: int
    subsampling_channels: int
    hidden: int
    vocab: int


SMALL = Size(layers=3, width=32, heads=2, subsampling_channels=16, hidden=32, vocab=64)
FULL = Size(layers=24, width=1024, heads=8, subsampling_channels=256, hidden=640, vocab=1024)


@dataclass(frozen=True)
class Family:
    """One kind of checkpoint: its class in NeMo and how its configuration differs from the plain offline RNNT."""

    name: str
    model_class: str
    head: str  # "ctc", "rnnt" or "tdt"
    mels: int = 80
    streaming: bool = False
    use_bias: bool | None = None  # None leaves the key out, as the older configurations do
    xscaling: bool = True
    lstm_layers: int = 2
    joint_dropout: float = 0.2
    hybrid: bool = False
    contexts: list[list[int]] = field(default_factory=lambda: [[-1, -1]])
    encoder: dict[str, Any] = field(default_factory=dict)
    extra_tokens: tuple[str, ...] = ()
    model: dict[str, Any] = field(default_factory=dict)


# `no` is Norwegian; a yaml reader of version 1.1 takes the bare word for false.
PROMPT_DICTIONARY = {"en-US": 0, "en": 0, "de-DE": 9, "de": 9, "no-NO": 27, "no": 27, "nb-NO": 103, "auto": 101}
NEMOTRON_CONTEXTS = [[70, 13], [70, 6], [70, 1], [70, 0]]

FAMILIES = [
    Family("tdt", "EncDecRNNTBPEModel", "tdt", mels=128, use_bias=False, xscaling=False),
    Family(
        "nemotron",
        "EncDecRNNTBPEModel",
        "rnnt",
        mels=128,
        streaming=True,
        use_bias=False,
        xscaling=False,
        contexts=NEMOTRON_CONTEXTS,
    ),
    Family("ctc", "EncDecCTCModelBPE", "ctc", use_bias=True),
    Family("tdt_bias", "EncDecRNNTBPEModel", "tdt"),
    Family("tdt_ctc", "EncDecHybridRNNTCTCBPEModel", "tdt", use_bias=True, xscaling=False, lstm_layers=1, hybrid=True),
    Family(
        "tdt_ctc_local",
        "EncDecHybridRNNTCTCBPEModel",
        "tdt",
        use_bias=True,
        hybrid=True,
        contexts=[[8, 8]],
        encoder={"self_attention_model": "rel_pos_local_attn"},
    ),
    Family(
        "tdt_ctc_global",
        "EncDecHybridRNNTCTCBPEModel",
        "tdt",
        xscaling=False,
        hybrid=True,
        contexts=[[8, 8]],
        encoder={"self_attention_model": "rel_pos_local_attn", "global_tokens": 1},
    ),
    Family(
        "tdt_ctc_globals",
        "EncDecHybridRNNTCTCBPEModel",
        "tdt",
        use_bias=False,
        hybrid=True,
        contexts=[[8, 8]],
        encoder={
            "self_attention_model": "rel_pos_local_attn",
            "global_tokens": 3,
            "global_tokens_spacing": 5,
            "global_attn_separate": True,
        },
    ),
    Family("rnnt", "EncDecRNNTBPEModel", "rnnt", use_bias=True, joint_dropout=0.0),
    Family(
        "unified",
        "EncDecRNNTBPEModel",
        "rnnt",
        mels=128,
        encoder={
            "att_context_style": "chunked_limited_with_rc",
            "att_chunk_context_size": [[70], [1, 2, 7, 13], [0, 1, 2, 3, 4, 7, 13]],
            "conv_context_style": "dcc",
        },
    ),
    Family(
        "eou",
        "EncDecRNNTBPEEOUModel",
        "rnnt",
        mels=128,
        streaming=True,
        lstm_layers=1,
        contexts=[[70, 1]],
        extra_tokens=("<EOU>", "<EOB>"),
    ),
    Family(
        "nemotron_prompt",
        "EncDecRNNTBPEModelWithPrompt",
        "rnnt",
        mels=128,
        streaming=True,
        use_bias=False,
        xscaling=False,
        contexts=[[56, 3], [56, 0], [56, 6], [56, 13]],
        extra_tokens=("<en-US>", "<de-DE>"),
        model={
            "model_defaults": {
                "initialize_prompt_feature": True,
                "num_prompts": 128,
                "prompt_dictionary": PROMPT_DICTIONARY,
            }
        },
    ),
    Family(
        "multitalker",
        "EncDecMultiTalkerRNNTBPEModel",
        "rnnt",
        mels=128,
        streaming=True,
        use_bias=False,
        xscaling=False,
        contexts=NEMOTRON_CONTEXTS,
        model={"spk_kernel_type": "ff", "spk_kernel_layers": [0], "add_bg_spk_kernel": True},
    ),
]


def preprocessor_config(family: Family) -> dict[str, Any]:
    """The mel front-end: streaming models take features as they are, offline ones normalise each utterance."""
    return {
        "_target_": f"{MODULES}.AudioToMelSpectrogramPreprocessor",
        "sample_rate": 16000,
        "normalize": "NA" if family.streaming else "per_feature",
        "window_size": 0.025,
        "window_stride": 0.01,
        "window": "hann",
        "features": family.mels,
        "n_fft": 512,
        "log": True,
        "frame_splicing": 1,
        "dither": 1e-05,
        "pad_to": 0,
        "pad_value": 0.0,
    }


def encoder_config(family: Family, size: Size) -> dict[str, Any]:
    """The FastConformer encoder."""
    config = {
        "_target_": f"{MODULES}.ConformerEncoder",
        "feat_in": family.mels,
        "feat_out": -1,
        "n_layers": size.layers,
        "d_model": size.width,
        "subsampling": "dw_striding",
        "subsampling_factor": 8,
        "subsampling_conv_channels": size.subsampling_channels,
        "causal_downsampling": family.streaming,
        "ff_expansion_factor": 4,
        "self_attention_model": "rel_pos",
        "n_heads": size.heads,
        "att_context_size": family.contexts if len(family.contexts) > 1 else family.contexts[0],
        "att_context_style": "chunked_limited" if family.streaming else "regular",
        "xscaling": family.xscaling,
        "untie_biases": True,
        "pos_emb_max_len": 5000,
        "conv_kernel_size": 9,
        "conv_norm_type": "layer_norm" if family.streaming else "batch_norm",
        "conv_context_size": "causal" if family.streaming else None,
        "dropout": 0.1,
        "dropout_pre_encoder": 0.1,
        "dropout_emb": 0.0,
        "dropout_att": 0.1,
    }
    if family.use_bias is not None:
        config["use_bias"] = family.use_bias
    return config | family.encoder


def ctc_decoder_config(size: Size) -> dict[str, Any]:
    """A linear CTC head."""
    return {
        "_target_": f"{MODULES}.ConvASRDecoder",
        "feat_in": size.width,
        "num_classes": -1,
        "vocabulary": [],
    }


def transducer_config(family: Family, size: Size) -> dict[str, Any]:
    """Prediction network, joint network, loss and decoding of RNNT and TDT."""
    is_tdt = family.head == "tdt"
    defaults: dict[str, Any] = {"enc_hidden": size.width, "pred_hidden": size.hidden, "joint_hidden": size.hidden}
    joint: dict[str, Any] = {
        "_target_": f"{MODULES}.RNNTJoint",
        "log_softmax": None,
        "preserve_memory": False,
        "fuse_loss_wer": False,
        "fused_batch_size": -1,
        "jointnet": {
            "joint_hidden": size.hidden,
            "activation": "relu",
            "dropout": family.joint_dropout,
            "encoder_hidden": size.width,
            "pred_hidden": size.hidden,
        },
    }
    decoding: dict[str, Any] = {"strategy": "greedy_batch", "greedy": {"max_symbols": 10}}
    loss: dict[str, Any] = {"loss_name": "default"}
    if is_tdt:
        defaults |= {"tdt_durations": DURATIONS, "num_tdt_durations": len(DURATIONS)}
        joint["num_extra_outputs"] = len(DURATIONS)
        decoding |= {"model_type": "tdt", "durations": DURATIONS}
        loss = {"loss_name": "tdt", "tdt_kwargs": {"durations": DURATIONS, "sigma": 0.02, "omega": 0.1}}
    return {
        "model_defaults": defaults,
        "decoder": {
            "_target_": f"{MODULES}.RNNTDecoder",
            "normalization_mode": None,
            "random_state_sampling": False,
            "blank_as_pad": True,
            "prednet": {
                "pred_hidden": size.hidden,
                "pred_rnn_layers": family.lstm_layers,
                "t_max": None,
                "dropout": 0.0,
            },
        },
        "joint": joint,
        "decoding": decoding,
        "loss": loss,
    }


def model_config(family: Family, size: Size, tokenizer_folder: str) -> dict[str, Any]:
    """The whole configuration of one checkpoint."""
    config: dict[str, Any] = {
        "sample_rate": 16000,
        "compute_eval_loss": False,
        "log_prediction": False,
        "tokenizer": {"dir": tokenizer_folder, "type": "bpe"},
        "preprocessor": preprocessor_config(family),
        "encoder": encoder_config(family, size),
        "optim": {"name": "adamw", "lr": 1e-3},
    }
    if family.head == "ctc":
        config["decoder"] = ctc_decoder_config(size)
    else:
        config |= transducer_config(family, size)
    if family.hybrid:
        config["aux_ctc"] = {"ctc_loss_weight": 0.3, "decoder": ctc_decoder_config(size)}
    for key, value in family.model.items():
        config[key] = config.get(key, {}) | value if isinstance(value, dict) else value
    return config
