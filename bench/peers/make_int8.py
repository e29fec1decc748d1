"""Quantizes the ONNX models of `make_nemo` to int8 in each project's own way. Runs in an environment with onnxruntime.

    python -m bench.peers.make_int8 FOLDER

onnx-asr: the defaults of quantize_dynamic (int8), which also quantize convolutions, and a more accurate variant that
quantizes only matrix products, per column (int8-matmul). sherpa-onnx: uint8 weights in the encoder, as in its export
scripts; its fp32 files are deleted.
"""

import json
import sys
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic


def main() -> None:
    folder = Path(sys.argv[1])
    for name in ("encoder", "decoder_joint"):
        path = folder / "onnx-asr" / f"{name}-model.onnx"
        quantize_dynamic(path, path.with_suffix(".int8.onnx"))
        products = {"op_types_to_quantize": ["MatMul", "Gemm", "LSTM"], "per_channel": True}
        quantize_dynamic(path, path.with_suffix(".int8-matmul.onnx"), **products)
    for name in ("encoder", "decoder", "joiner"):
        path = folder / "sherpa-onnx" / f"{name}.onnx"
        quantize_dynamic(
            path, path.with_suffix(".int8.onnx"), weight_type=QuantType.QUInt8 if name == "encoder" else QuantType.QInt8
        )
    add_metadata(folder / "sherpa-onnx")
    for path in (folder / "sherpa-onnx").iterdir():
        if not path.name.endswith((".int8.onnx", ".txt", ".json")):
            path.unlink()


def add_metadata(folder: Path) -> None:
    """Adds the metadata that sherpa-onnx reads from the encoder."""
    graph = onnx.load(folder / "encoder.int8.onnx")
    facts = json.loads((folder / "metadata.json").read_text())
    onnx.helper.set_model_props(graph, {key: str(value) for key, value in facts.items()})
    onnx.save(graph, folder / "encoder.int8.onnx")


if __name__ == "__main__":
    main()
