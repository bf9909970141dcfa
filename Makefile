# The two commands: `make demo` shows it, `make test` checks it. Everything goes into .venv, .kafka and demo-output of this
# checkout.

PIP = .venv/bin/pip install -q --disable-pip-version-check

.PHONY: install demo test test-image image-requirements trust fuzz lint bench clean

install: .venv/.installed

demo: .venv/.demo
	.venv/bin/python -m deploy.demo.demo

# Side by side: tests with brokers wait more than they compute.
test: .venv/.dev
	.venv/bin/pytest -n 3 --dist loadfile --no-loadscope-reorder

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

trust: .venv/.dev
	.venv/bin/python -m tests.trust.run --minutes $(MINUTES)

fuzz: .venv/.dev
	.venv/bin/python -m tests.fuzz.run --minutes $(MINUTES)

lint: .venv/.dev
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

bench: .venv/.bench
	.venv/bin/python benchmarks/all.py

clean:
	rm -rf .venv .kafka .cache demo-output build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/bin/python:
	deploy/make_venv.sh

.venv/.installed: pyproject.toml | .venv/bin/python
	$(PIP) -e '.[import]'
	touch $@

.venv/.demo .venv/.dev .venv/.bench: .venv/.%: pyproject.toml | .venv/bin/python
	$(PIP) -e '.[$*]'
	touch $@
