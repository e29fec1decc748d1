#!/usr/bin/env bash
# Makes an environment for each of the other projects, whose dependencies conflict. About 5 GB.
#
#   bench/environments/setup.sh FOLDER [NAME ...]
set -euo pipefail

folder=${1:?usage: setup.sh FOLDER [NAME ...]}
shift
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
index=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}

[ $# -gt 0 ] || set -- nemo transformers onnx-asr sherpa-onnx
for name in "$@"; do
    "$python" -m venv "$folder/$name"
    "$folder/$name/bin/pip" install --quiet --extra-index-url "$index" --requirement "$here/$name.txt"
done
