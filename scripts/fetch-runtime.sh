#!/bin/sh
# Brings the ONNX Runtime library (MIT licence) into a folder, from PyPI alone: FOLDER/libonnxruntime.so.
#
# usage: scripts/fetch-runtime.sh FOLDER
#
# Needs Python 3 with pip and a PyPI index; the library is pinned by its hash on x86-64. It needs glibc 2.28.
set -eu
[ $# -eq 1 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 1; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
machine=$(uname -m)
case $machine in
    x86_64) pin=fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3 ;;
    *) pin= ;;
esac
"${PYTHON:-python3}" -m pip --disable-pip-version-check download -q --no-deps --only-binary=:all: --python-version 3.12 \
    --platform "manylinux_2_28_$machine" -d "$work" onnxruntime==1.31.1
"${PYTHON:-python3}" - "$work" "$folder" "$pin" <<'PYTHON'
import glob, hashlib, os, sys, zipfile

work, folder, pin = sys.argv[1:]


def put(name, content):
    with open(f"{folder}/.tmp-{name}", "wb") as file:
        file.write(content)
    os.replace(f"{folder}/.tmp-{name}", f"{folder}/{name}")


with zipfile.ZipFile(glob.glob(f"{work}/onnxruntime-*.whl")[0]) as wheel:
    for name in wheel.namelist():
        content = wheel.read(name) if "/capi/libonnxruntime.so" in name else b""
        if content and pin and hashlib.sha256(content).hexdigest() != pin:
            sys.exit("fetch-runtime.sh: the library is not the one expected")
        if content:
            put("libonnxruntime.so", content)
        elif name in ("onnxruntime/LICENSE", "onnxruntime/ThirdPartyNotices.txt"):
            put("onnxruntime-" + os.path.basename(name), wheel.read(name))
PYTHON
echo "$folder/libonnxruntime.so"
