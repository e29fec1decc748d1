#!/usr/bin/env bash
# Makes the environments of NeMo and transformers that write references. Conure and its tests do not need them. About
# 2.5 GB together; torch's CPU build is installed first, so that no package installs CUDA.
#
#   tools/parity/setup.sh FOLDER            makes FOLDER/nemo and FOLDER/hf
set -euo pipefail

folder=${1:?usage: setup.sh FOLDER}
python=${PYTHON:-python3}
index=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
torch=torch==2.13.0+cpu

make_environment() { # name packages...
    local place=$folder/$1
    shift
    "$python" -m venv "$place"
    "$place/bin/pip" install --quiet --extra-index-url "$index" "$torch"
    echo "$torch" > "$place/constraints.txt"
    "$place/bin/pip" install --quiet --extra-index-url "$index" --constraint "$place/constraints.txt" "$@"
}

mkdir -p "$folder"
make_environment nemo 'nemo_toolkit[asr]==3.0.0'
make_environment hf 'transformers>=5.23,<6' sentencepiece protobuf safetensors soundfile
echo "$folder/nemo and $folder/hf are ready"
