# The two commands: `make demo` shows it, `make test` checks it. Everything goes into .venv, .kafka and demo-output of this
# checkout.

PIP = .venv/bin/pip install -q --disable-pip-version-check

.PHONY: backtest-through-kafka bench bench-cuda check-ptx clean demo fuzz image-requirements install lint soak test test-charts test-cuda test-dashboards test-deploy test-image test-kernels-long test-monitoring test-systemd trust

install: .venv/.installed

demo: .venv/.demo
	.venv/bin/python -m deploy.demo.demo

# Side by side: tests with brokers wait more than they compute.
test: .venv/.dev
	.venv/bin/pytest -n 3 --dist loadfile --no-loadscope-reorder

docs/metrics.md: .venv/.dev streamlstm/service/metrics.py deploy/prometheus/metrics_document.py
	.venv/bin/python -m deploy.prometheus.metrics_document

test-charts: .venv/.dev
	tests/charts/install_tools.sh
	.venv/bin/pytest tests/charts/check_*.py

test-deploy: test-image test-charts

test-systemd: .venv/.dev
	.venv/bin/python -m tests.systemd.check_systemd

# The container image, built and run, and the compose file (root on Linux; docs/image.md).
test-image: .venv/.dev
	.venv/bin/python -m tests.image.run
	.venv/bin/python -m tests.image.compose

# Newer versions into the image, within what pyproject.toml allows.
image-requirements: .venv/.dev
	$(PIP) uv
	.venv/bin/uv -q pip compile --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command 'make image-requirements' -o deploy/image/requirements.txt pyproject.toml

MINUTES = 10

test-monitoring: .venv/.dev
	.venv/bin/python -m tests.monitoring.run --calm-minutes $(MINUTES)

trust: .venv/.dev
	.venv/bin/python -m tests.trust.run --minutes $(MINUTES)

soak: MINUTES = 30
soak: .venv/.dev
	.venv/bin/python -m tests.soak.run --minutes $(MINUTES)

fuzz: .venv/.dev
	.venv/bin/python -m tests.fuzz.run --minutes $(MINUTES)

# A backtest against the daemon, byte by byte, on the CSV files of a folder.
DATA = deploy/demo/data

backtest-through-kafka: .venv/.dev
	.venv/bin/python -m tests.backtest.run $(DATA)

# The queries of deploy/grafana/dashboards, by a real Prometheus; PREVIEWS=--previews draws docs/images anew.
test-dashboards: .venv/.dev
	.venv/bin/python -m tests.dashboards.run $(PREVIEWS)

lint: .venv/.dev
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

bench: .venv/.bench
	.venv/bin/python benchmarks/all.py

# On a machine with an NVIDIA GPU. Neither installs anything: they say what is missing and fail. CUDA_PYTHON may name
# another Python that has the extras [cuda] and [dev].
CUDA_PYTHON = .venv/bin/python

test-cuda:
	$(CUDA_PYTHON) -m tests.cuda.device
	$(CUDA_PYTHON) -m pytest -p no:cacheprovider tests/cuda/check_step.py tests/cuda/check_forecaster.py
	STREAMLSTM_TEST_BACKEND=cuda $(CUDA_PYTHON) -m pytest -p no:cacheprovider tests/engine

# Needs the extra [cuda], but no GPU.
check-ptx: .venv/.dev .venv/.cuda
	.venv/bin/python -m tests.cuda.ptx

bench-cuda:
	$(CUDA_PYTHON) benchmarks/cuda_step.py

CONFIGURATIONS = 10000

test-kernels-long: .venv/.dev
	.venv/bin/python -m tests.kernels.sweep --configurations $(CONFIGURATIONS)

clean:
	rm -rf .venv .kafka .cache demo-output build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/bin/python:
	deploy/make_venv.sh

.venv/.installed: pyproject.toml | .venv/bin/python
	$(PIP) -e '.[import]'
	touch $@

.venv/.demo .venv/.dev .venv/.bench .venv/.cuda: .venv/.%: pyproject.toml | .venv/bin/python
	$(PIP) -e '.[$*]'
	touch $@
