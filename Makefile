# A thin front for CMake + Ninja; one object tree per mode under build/.
#   make             release build: build/release/baton
#   make test        everything CI runs; last line "N passed, N failed"
#   make quick       debug build and its tests only
#   make quickstart  build, fetch a small real model, run the PD cluster
#                    (MODEL=path serves another one, ONCE=1 stops after it)
#   make check       layers, headers alone, format
#   make wheel       Python packages, x86-64 and aarch64: build/wheel/*.whl
#   make fuzz T=name fresh fuzzing of tests/fuzz/name.c, S seconds (60)
#   make golden      write tests/golden/ again (3 GB of Python packages, once)
#   make chaos       release tests with threads that sleep at bad moments, N
#                    seeds (3) of R (a regular expression of test names)
#   make amx         tests of the AMX kernels on an emulated processor: Bochs
#   make numa        tests of nodes of memory on an emulated machine: QEMU
#   make bench       engine benchmark on the quickstart model
#   make interop     SGLang's routers and transfer classes, vllm-ascend's connector, on ours
#   make format      clang-format in place
MODE ?= release
MODES := release asan tsan

all: build/$(MODE)/build.ninja
	@ninja -C build/$(MODE) $(NINJA_QUIET)

build/%/build.ninja: CMakeLists.txt | deps
	@cmake -S . -B build/$* -G Ninja -DBATON_MODE=$* --log-level=WARNING

deps:
	@tools/install-deps

deps-test:
	@tools/install-deps test

check: deps-test
	@tools/check-layers && tools/check-headers && tools/check-format
	@echo "check: layers, headers, format are fine"

format: deps-test
	@git ls-files -co --exclude-standard '*.c' '*.h' '*.cu' '*.cuh' | \
		xargs -r tools/clang-format -i

test: check aarch64
	@for m in $(MODES); do $(MAKE) --no-print-directory MODE=$$m all || exit 1; done
	@tools/run-tests $(MODES:%=build/%) build/aarch64

# For 64-bit Arm: libbaton-xfer and the tensor layer, whose tests run under
# qemu-user.
aarch64: deps-test
	@cmake -S . -B build/aarch64 -G Ninja -DBATON_MODE=release \
		-DBATON_XFER_ONLY=ON --log-level=WARNING \
		-DCMAKE_TOOLCHAIN_FILE=cmake/aarch64.cmake >/dev/null
	@ninja -C build/aarch64 $(NINJA_QUIET)

wheel: aarch64
	@$(MAKE) --no-print-directory MODE=release all
	@tools/make-wheel build/wheel build/release/lib build/aarch64/lib

quick: check
	@$(MAKE) --no-print-directory MODE=debug all
	@tools/run-tests build/debug

quickstart: deps
	@tools/quickstart

S ?= 60
fuzz: deps-test
	@CC=clang-14 cmake -S . -B build/fuzz -G Ninja -DBATON_MODE=fuzz --log-level=WARNING
	@ninja -C build/fuzz $(T)
	@mkdir -p build/fuzz/corpus/$(T)
	@build/fuzz/tests/$(T) -max_total_time=$(S) -timeout=10 \
		build/fuzz/corpus/$(T) tests/fuzz/corpus/$(T)

# Every vector of tests/golden/ from nothing, with packages from PyPI.
golden: deps-test
	@tools/golden/all

bench: all
	@tools/quickstart --bench

interop: all deps-test
	@python3 tools/interop/stock_router.py
	@python3 tools/interop/stock_peer.py
	@python3 tools/interop/stock_connectors.py
	@python3 tools/interop/stock_vllm_ascend.py

# Sanitizers want to be loaded first, so the release tree; not in CI.
N ?= 3
R ?= ^(base|engine|pd|serve|http|router|xfer|dropin|e2e)/
chaos: deps-test
	@$(MAKE) --no-print-directory MODE=release all
	@ninja -C build/release chaos $(NINJA_QUIET)
	@tools/chaos build/release -n $(N) -R '$(R)'

# Boot a kernel in an emulator (amx fetches and builds it); not in CI.
amx numa: deps-test
	@tools/emulated/$@

clean:
	rm -rf build

.PHONY: all aarch64 wheel deps deps-test check format test quick quickstart fuzz golden bench interop chaos amx numa clean
