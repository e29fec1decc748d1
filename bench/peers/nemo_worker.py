"""NeMo's transcribe(); long clips with local attention, as its documentation advises."""

import logging
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import harness
import nemo
import nemo.collections.asr as nemo_asr
import numpy as np
import torch
from nemo.utils import logging as nemo_logging


def load(task: dict) -> tuple[harness.Transcribe, str]:
    nemo_logging.setLevel(logging.ERROR)
    torch.set_num_threads(task["threads"])
    model = nemo_asr.models.ASRModel.restore_from(task["model"], map_location="cpu").eval()
    state = {"local": False}

    def transcribe(paths: list, clips: list[np.ndarray]) -> int:
        if max(map(len, clips)) > harness.LONG_SECONDS * 16_000 and not state["local"]:
            model.change_attention_model("rel_pos_local_attn", [128, 128])
            state["local"] = True
        found = model.transcribe(clips, batch_size=len(clips), num_workers=0, verbose=False)
        return sum(len(one.y_sequence) for one in found)

    return transcribe, f"nemo_toolkit {nemo.__version__}, torch {torch.__version__}"


if __name__ == "__main__":
    harness.serve(load)
