"""sherpa-onnx: one stream a clip, decoded together."""

from pathlib import Path

import harness
import numpy as np
import sherpa_onnx


def load(task: dict) -> tuple[harness.Transcribe, str]:
    folder = Path(task["model"])
    recognizer = sherpa_onnx.OfflineRecognizer.from_transducer(
        encoder=str(folder / "encoder.int8.onnx"),
        decoder=str(folder / "decoder.int8.onnx"),
        joiner=str(folder / "joiner.int8.onnx"),
        tokens=str(folder / "tokens.txt"),
        num_threads=task["threads"],
        feature_dim=128,
        model_type="nemo_transducer",
    )

    def transcribe(paths: list, clips: list[np.ndarray]) -> int:
        streams = []
        for clip in clips:
            stream = recognizer.create_stream()
            stream.accept_waveform(16_000, clip)
            streams.append(stream)
        recognizer.decode_streams(streams)
        return sum(len(stream.result.tokens) for stream in streams)

    return transcribe, f"sherpa-onnx {sherpa_onnx.__version__}"


if __name__ == "__main__":
    harness.serve(load)
