"""Compiles every kernel for an H200, without a GPU: python -m tests.fused.compiling prints the resources of each.

A separate program, because Triton decides at the definition of a kernel whether to compile or to interpret it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from conure.fused import clip_attention_kernel as clip
from conure.fused import filter_step_kernel as step
from conure.fused import joint_step_kernel as joint
from conure.fused import label_step_kernel as label
from conure.fused import lstm_step_kernel as lstm
from conure.fused import ring_attention_kernel as ring
from conure.fused import token_scores_kernel as scores

H200 = GPUTarget("cuda", 90, 32)
OPTIONS = ("num_warps", "num_stages")
HALF = "*bf16"
INTEGERS = dict.fromkeys(("slots", "write_slots", "ages", "counts", "ids", "times", "duration"), "*i64")
FLOATS = dict.fromkeys(("tops", "sums", "powers", "log_probabilities", "confidences"), "*fp32") | {"best": "*i32"}


def strides(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "i32")


LABELS = (
    INTEGERS
    | dict.fromkeys(("durations", "decoded", "repeats", "tokens"), "*i64")
    | dict.fromkeys((f"token_{name}" for name in ("ids", "steps", "durations", "counts")), "*i64")
    | dict.fromkeys(("log_probabilities", "token_log_probabilities", "confidences", "token_confidences"), "*fp32")
    | {"emits": "*i1"}
    | strides("rows", "columns", "blank")
)
HEADS = dict.fromkeys(("steps", "predicted", "weight", "bias", "hidden", "cell"), "*fp32")
GATES = dict.fromkeys(("inputs", "recurrent", "input_bias", "recurrent_bias"), "*fp32")

SCORES = (
    FLOATS
    | {"hidden": "*fp32", "weight": "*fp32", "bias": "*fp32", "alpha": "fp32"}
    | strides("rows", "tokens", "share", "hidden_stride", "weight_stride")
)

KERNELS: dict[str, tuple[Any, dict[str, Any], dict[str, str]]] = {
    "ring attention, 80 ms": (
        ring.attend_ring_kernel,
        ring.meta(heads=8, chunk=1, past=70, width=128),
        INTEGERS
        | strides(
            "row_stride",
            "step_stride",
            "head_stride",
            "position_head_stride",
            "position_step_stride",
            "position_bias_head_stride",
        ),
    ),
    "ring attention, 1,120 ms": (
        ring.attend_ring_kernel,
        ring.meta(heads=8, chunk=14, past=70, width=128),
        INTEGERS
        | strides(
            "row_stride",
            "step_stride",
            "head_stride",
            "position_head_stride",
            "position_step_stride",
            "position_bias_head_stride",
        ),
    ),
    "clip attention": (
        clip.attend_clip_kernel,
        clip.meta(heads=8, width=128),
        INTEGERS
        | {"key_bias": "*fp32", "position_bias": "*fp32"}
        | strides("steps", "batch_stride", "step_stride", "head_stride", "position_head", "position_stride"),
    ),
    "clip attention's biases": (
        clip.multiply_rows_kernel,
        clip.rows_meta(heads=8, width=128),
        {"out": "*fp32"} | strides("count", "batch_stride", "head_stride", "row_stride"),
    ),
    "token scores of one row": (
        scores.best_tokens_kernel,
        scores.meta(rows=1, width=640) | {"PRECISION": "tf32"},
        SCORES,
    ),
    "token scores of many rows": (
        scores.best_tokens_kernel,
        scores.meta(rows=2000, width=640) | {"PRECISION": "tf32"},
        SCORES,
    ),
    "exact token scores of many rows": (
        scores.best_tokens_kernel,
        scores.meta(rows=2000, width=640) | {"PRECISION": "ieee"},
        SCORES,
    ),
    "token scores' shares": (
        scores.join_shares_kernel,
        scores.join_meta(shares=129),
        FLOATS | {"ids": "*i64", "alpha": "fp32", "largest": "fp32"} | strides("rows", "tokens", "shares"),
    ),
    "filter step, 160 ms": (
        step.filter_step_kernel,
        step.meta(chunk=2, width=1024, taps=9),
        INTEGERS | {"epsilon": "fp32"},
    ),
    "label step": (label.label_step_kernel, label.meta(window=4, max_symbols=10), LABELS),
    "joint step": (
        joint.joint_step_kernel,
        joint.meta(width=640, durations=5),
        INTEGERS | HEADS | strides("length"),
    ),
    "lstm step": (
        lstm.lstm_step_kernel,
        lstm.meta(rows=256, width=640),
        HEADS | GATES | {"active": "*i1"} | strides("rows"),
    ),
}


def compile_kernel(kernel: Any, meta: dict[str, Any], types: dict[str, str]) -> dict[str, int | bool]:
    """Compiles as at the first call, with pointers and strides that are multiples of 16."""
    constants = {name: value for name, value in meta.items() if name not in OPTIONS}
    signature = {name: "constexpr" if name in constants else types.get(name, HALF) for name in kernel.arg_names}
    aligned = [
        (param.num,)
        for param in kernel.params
        if signature[param.name].startswith("*") or (signature[param.name] == "i32" and not param.do_not_specialize)
    ]
    source = ASTSource(kernel, signature, constants, {place: [["tt.divisibility", 16]] for place in aligned})
    options = {name: meta[name] for name in OPTIONS if name in meta}
    compiled = triton.compile(source, target=H200, options=options)
    ptx = compiled.asm["ptx"]
    return {
        **resources(compiled.asm["cubin"]),
        "shared": compiled.metadata.shared,
        "threads": 32 * compiled.metadata.num_warps,
        "tensor cores": "mma" in ptx,
        "wide loads": re.search(r"ld\.global\.\S*v[24]\.b32|cp\.async\.cg", ptx) is not None,
    }


def resources(cubin: bytes) -> dict[str, int]:
    """Registers per thread, and bytes that it spills to local memory."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(cubin)
        output = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    (found,) = re.findall(r"REG:(\d+) STACK:(\d+)", output)
    return dict(zip(("registers", "spilled"), map(int, found), strict=True))


if __name__ == "__main__":
    json.dump({name: compile_kernel(*kernel) for name, kernel in KERNELS.items()}, sys.stdout, indent=2)
