#!/bin/sh
# Install the servers that the load test compares Kingpole with, each in an environment of its
# own below .cache/peers. Safe to run again: what is ready is left alone.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
peers="$root/.cache/peers"
python=${PYTHON:-python3}
# The same ONNX Runtime for everyone: the version this project runs, else the newest.
runtime=$("$python" -c 'import importlib.metadata as m; print("onnxruntime==" + m.version("onnxruntime"))' 2>/dev/null || echo onnxruntime)

say() { printf 'peers: %s\n' "$*"; }
stop() { say "$*" >&2; exit 1; }

"$python" -c 'import ensurepip, venv' 2>/dev/null || stop "no venv module; run: apt-get install python3-venv"

environment() { # name requirement...
    name=$1
    shift
    say "$name: installing $*"
    rm -rf "$peers/$name"
    mkdir -p "$peers/$name"
    "$python" -m venv "$peers/$name/venv"
    "$peers/$name/venv/bin/pip" install --quiet --disable-pip-version-check "$@"
}

if [ -e "$peers/mosec/ready" ]; then
    say "mosec: ready"
else
    environment mosec "mosec==0.9.8" "$runtime" numpy
    touch "$peers/mosec/ready"
fi

if [ -e "$peers/triton/ready" ]; then
    say "triton: ready"
else
    # Triton's Python stub was built against numpy 1. pytriton itself is not used, only its files.
    environment triton "numpy<2" "$runtime"
    "$peers/triton/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps "nvidia-pytriton==0.7.0"
    site=$("$peers/triton/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    minor=$("$peers/triton/venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    stub="$site/pytriton/tritonserver/python_backend_stubs/$minor/triton_python_backend_stub"
    [ -e "$stub" ] || stop "triton: the wheel has no stub for Python $minor; set PYTHON to one of 3.8 to 3.13"
    cp -r "$site/pytriton/tritonserver" "$peers/triton/tritonserver"
    cp "$stub" "$peers/triton/tritonserver/backends/python/triton_python_backend_stub"
    chmod +x "$peers/triton/tritonserver/bin/tritonserver" \
        "$peers/triton/tritonserver/backends/python/triton_python_backend_stub"
    library=$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))')
    printf '%s\n' "$site/nvidia_pytriton.libs:$library" > "$peers/triton/library_path"
    missing=$(LD_LIBRARY_PATH="$site/nvidia_pytriton.libs:$library" \
        ldd "$peers/triton/tritonserver/backends/python/triton_python_backend_stub" | grep 'not found' || true)
    [ -z "$missing" ] || stop "triton: its stub needs a shared libpython (apt-get install libpython$minor): $missing"
    touch "$peers/triton/ready"
fi
