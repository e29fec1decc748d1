#!/usr/bin/env bash
# Makes the random checkpoint of the real size in the formats of all engines; existing files are kept. About 12 GB and
# 20 minutes for 24 layers.
#
#   bench/make_models.sh FOLDER ENVIRONMENTS [VOCABULARY] [LAYERS]
set -euo pipefail

folder=${1:?usage: make_models.sh FOLDER ENVIRONMENTS [VOCABULARY] [LAYERS]}
environments=${2:?usage: make_models.sh FOLDER ENVIRONMENTS [VOCABULARY] [LAYERS]}
vocabulary=${3:-8192}
layers=${4:-24}
python=${PYTHON:-python}

cd "$(dirname "$0")/.."
[ -e "$folder/conure/config.json" ] ||
    "$python" -m bench.random_model --out "$folder/conure" --vocabulary "$vocabulary" --layers "$layers"
[ -e "$folder/sherpa-onnx/metadata.json" ] ||
    "$environments/nemo/bin/python" -m bench.peers.make_nemo --model "$folder/conure" --out "$folder"
[ -e "$folder/sherpa-onnx/joiner.int8.onnx" ] ||
    "$environments/onnx-asr/bin/python" -m bench.peers.make_int8 "$folder"
[ -e "$folder/transformers/model.safetensors" ] ||
    "$environments/transformers/bin/python" -m bench.peers.make_transformers "$folder"
