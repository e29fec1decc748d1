"""transformers' ParakeetForTDT; `dtype` is float32 or bfloat16."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import harness
import numpy as np
import torch
import transformers


def load(task: dict) -> tuple[harness.Transcribe, str]:
    torch.set_num_threads(task["threads"])
    transformers.utils.logging.set_verbosity_error()
    dtype = getattr(torch, task.get("dtype", "float32"))
    processor = transformers.AutoProcessor.from_pretrained(task["model"])
    model = transformers.ParakeetForTDT.from_pretrained(task["model"], dtype=dtype).eval()

    @torch.inference_mode()
    def transcribe(paths: list, clips: list[np.ndarray]) -> int:
        inputs = processor(clips, sampling_rate=16_000)
        features = {"input_features": inputs["input_features"].to(dtype), "attention_mask": inputs["attention_mask"]}
        sequences = model.generate(**features).sequences
        return int((sequences != model.config.blank_token_id).sum())

    return transcribe, f"transformers {transformers.__version__}, torch {torch.__version__}, {dtype}"


if __name__ == "__main__":
    harness.serve(load)
