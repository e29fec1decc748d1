#!/usr/bin/env bash
# Make the two environments that write references: NeMo's and transformers'. Neither is needed to run Conure or its
# tests. About 2.5 GB together; torch is installed first, in its CPU build, so that nothing pulls in CUDA.
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
