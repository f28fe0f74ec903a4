# make demo    the whole study on the films of samples/, with report (about 15 minutes on 2 cores)
# make check   builds and runs every test, and most of those without CUDA again under sanitizers
# make parity  models against PyTorch on random configurations, PYTHON=.venv/bin/python
# make fuzz    FUZZ_SECONDS=60 of each fuzz target under sanitizers
# make check-slurm   studies under a real Slurm of two nodes on this machine (as root)
# make check-container   the Dockerfile's image, built and used (docker, or buildah and podman)
# make         builds build/equipoise
RUN ?= runs/demo
PYTHON ?= python3
FUZZ_SECONDS ?= 60
JOBS ?= $(shell nproc)
FUZZ_TARGETS := $(patsubst tests/fuzz/%.c,fuzz_%,$(filter-out %/driver.c,$(wildcard tests/fuzz/*.c)))

.PHONY: all build demo check check-slurm check-container parity fuzz clean
all: build

setup:
	@.ci/setup

build: setup
	@cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release >build.log 2>&1 || { cat build.log; exit 1; }
	@ninja -C build equipoise

demo: build
	build/equipoise study configs/demo.ini --run $(RUN) --resume
	@echo "Report: $(RUN)/report.html"

check: setup
	cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release
	ninja -C build
	ctest --test-dir build -j $(JOBS) --output-on-failure
	cmake -S . -B build-asan -G Ninja -DCMAKE_BUILD_TYPE=Release -DEQ_SANITIZE=ON -DEQ_CUDA=OFF
	ninja -C build-asan
	ctest --test-dir build-asan -j $(JOBS) --output-on-failure -LE plain

parity: build
	@ninja -C build test_tokenizer
	$(PYTHON) tests/parity/run.py

fuzz: setup
	cmake -S . -B build-asan -G Ninja -DCMAKE_BUILD_TYPE=Release -DEQ_SANITIZE=ON -DEQ_CUDA=OFF
	ninja -C build-asan $(FUZZ_TARGETS)
	for t in $(FUZZ_TARGETS); do FUZZ_SECONDS=$(FUZZ_SECONDS) build-asan/$$t || exit 1; done

check-slurm: build
	tests/slurm/check.sh

check-container:
	tests/container/check.sh

clean:
	rm -rf build build-asan build.log

.PHONY: setup
