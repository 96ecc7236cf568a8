#!/usr/bin/env bash
# Run a Python script as another processor would, in emulation.
#
#   emulation.sh MODEL PYTHON SCRIPT...   MODEL as in `qemu-x86_64 -cpu help`, or arm64
#
# Needs qemu-user and, once, for arm64, root and the network: it unpacks Debian's Python and
# PyTorch's wheel for ARM under $EMULATION. That is version 2.8.0, the last without CUDA's libraries.
set -euo pipefail
model=$1 python=$2
shift 2
if [ "$model" != arm64 ]; then exec qemu-x86_64 -cpu "$model" "$python" "$@"; fi

tree=$EMULATION
if [ ! -e "$tree/ready" ]; then
	mkdir -p "$tree"/{root,debs,lists/partial,cache/archives/partial,site,wheels}
	apt="apt-get -q -o Dir::State::Lists=$tree/lists -o Dir::Cache=$tree/cache -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o APT::Sandbox::User=root"
	$apt update >/dev/null
	(cd "$tree/debs" && for package in libc6 libgcc-s1 libstdc++6 python3.11-minimal \
		libpython3.11-minimal libpython3.11-stdlib zlib1g libexpat1 libssl3 libffi8 liblzma5 \
		libbz2-1.0 libcrypt1 libuuid1 libsqlite3-0; do $apt download "$package:arm64" >/dev/null; done)
	for package in "$tree"/debs/*.deb; do dpkg -x "$package" "$tree/root"; done
	"$python" -m pip download -q --no-deps --only-binary=:all: --platform manylinux_2_28_aarch64 \
		--platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 --python-version 3.11 \
		--implementation cp --abi cp311 -d "$tree/wheels" torch==2.8.0 numpy==2.4.6
	for wheel in "$tree"/wheels/*.whl; do "$python" -m zipfile -e "$wheel" "$tree/site"; done
	packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
	for module in typing_extensions.py sympy networkx jinja2 filelock fsspec mpmath; do
		ln -sfn "$packages/$module" "$tree/site/$module"
	done
	touch "$tree/ready"
fi
exec qemu-aarch64 -L "$tree/root" -E PYTHONPATH="$tree/site" -E PYTHONDONTWRITEBYTECODE=1 \
	-cpu max "$tree/root/usr/bin/python3.11" "$@"
