# make demo    the whole study on the films of samples/, with report (about 15 minutes on 2 cores)
# make check   builds and runs every test, and all but the slowest again under sanitizers
# make parity  models against PyTorch on random configurations, PYTHON=.venv/bin/python
# make         builds build/equipoise
RUN ?= runs/demo
PYTHON ?= python3

.PHONY: all build demo check parity clean
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
	ctest --test-dir build --output-on-failure
	cmake -S . -B build-asan -G Ninja -DCMAKE_BUILD_TYPE=Release -DEQ_SANITIZE=ON
	ninja -C build-asan
	ctest --test-dir build-asan --output-on-failure -LE plain

parity: build
	$(PYTHON) tests/parity/run.py

clean:
	rm -rf build build-asan build.log

.PHONY: setup
