# Every command of the project. `make` alone lists them.
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.stamp
# .venv holds what the last command needed: only serving for demo and serve, everything for the rest.
# Python files are compiled at installation. Otherwise each of Ray's dozen processes would compile what
# it imports, and every time if PYTHONDONTWRITEBYTECODE is set.
INSTALL = $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python
# For the tests of the alerts: from the PATH, or from Debian. Without either they are skipped.
PROMTOOL := $(if $(shell command -v promtool),,$(if $(shell command -v apt-get),$(BIN)/promtool))
# For tests of metadata, in addition to Pillow and tifffile: likewise from the PATH or Debian.
EXIFTOOL := $(if $(shell command -v exiftool),,$(if $(shell command -v apt-get),.venv/exiftool/exiftool))

.DEFAULT_GOAL := help
.PHONY: help dev demo serve test lint bench test-faults test-batch test-hosts soak fuzz loadtest openloop peers capacity chart images train evaluate export plan gpu-check k8s lock docs stubs clean

help: ## list the commands
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

dev: $(STAMP)-dev ## set up .venv with everything: serving, training, tests

demo: $(STAMP)-serve ## colorize the sample photographs with the whole system, into demo/
	$(BIN)/python clients/demo.py

serve: $(STAMP)-serve ## start everything on this machine, in the foreground
	@exec $(BIN)/rehue serve

# Unit tests share nothing and spend half of their time waiting, so two processes run them. Other tests
# share servers.
PARALLEL = $(if $(filter unit,$(ARGS)),-n 2 --dist loadfile)

test: $(STAMP)-dev $(PROMTOOL) $(EXIFTOOL) .venv/checkov/.stamp .venv/helm/.stamp ## run the tests: ARGS="-m unit" for those without a server
	$(BIN)/python -m pytest --cov --cov-report= $(PARALLEL) $(ARGS)
	@echo "coverage of the packages by these tests, without their subprocesses: $$($(BIN)/coverage report --format=total) %"

lint: $(STAMP)-dev ## check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy clients/demo.py
	$(BIN)/lint-imports

bench: $(STAMP)-dev ## measure the bare model, Triton and the full chain in one run
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m loadtest.bench $(ARGS)

# Failures of parts, overload, restarts under load; slow callers, early answers, large messages.
FAULTS := faults nodes client_restart callers reading receiving too_large haproxy

SHAPE ?= ramp
loadtest: $(STAMP)-dev ## load a running server: make loadtest SHAPE=steps ARGS="--host http://HOST:8000"
	@mkdir -p results/loadtest
	$(BIN)/python -m locust -f loadtest/locustfile.py --headless --only-summary --shape $(SHAPE) \
	  --csv results/loadtest/locust --html results/loadtest/locust.html $(ARGS)

openloop: $(STAMP)-dev ## find the highest rate that a running server can handle: make openloop ARGS="--limit 500"
	$(BIN)/python -m loadtest.openloop $(ARGS)

peers: $(STAMP)-dev .venv-peers/.stamp ## compare Rehue with other servers of the same model
	$(BIN)/python -m loadtest.peers $(ARGS)

capacity: $(STAMP)-dev ## compute the size and cost of a cluster, and check one prediction
	$(BIN)/python -m loadtest.capacity $(ARGS)

test-faults: $(STAMP)-dev ## faults under load, the long form: Tritons, replicas, nodes, callers
	$(BIN)/python -m pytest $(addprefix tests/system/test_,$(FAULTS:=.py)) --long -s $(ARGS)

test-batch: $(STAMP)-dev ## bulk jobs, the long form: 20,000 photographs on S3, killed twice
	$(BIN)/python -m pytest tests/system/test_batch.py --long -s $(ARGS)

test-hosts: $(STAMP)-dev .venv/helm/.stamp ## replace the head of a cluster of three hosts under load: as root, with iproute2, dnsmasq and redis-server
	$(BIN)/python -m pytest tests/k8s/test_k8s_hosts.py --long -s $(ARGS)

soak: $(STAMP)-dev ## good and bad photographs at 80 % load for 20 minutes; shorter: ARGS=--soak-seconds=480
	$(BIN)/python -m pytest tests/system/test_soak.py --soak-seconds=1200 -s $(ARGS)

fuzz: $(STAMP)-dev ## tens of thousands of malformed inputs and early answers, over HTTP, gRPC and raw sockets
	$(BIN)/python -m pytest tests/system/test_fuzz.py tests/system/test_fuzz_early.py --long -s $(ARGS)

train: $(STAMP)-dev ## train: make train CONFIG=training/configs/yours.py ARGS="--data photos"
	$(BIN)/rehue train $(CONFIG) $(ARGS)

evaluate: $(STAMP)-dev ## measure the models: make evaluate ARGS="--data photos"
	$(BIN)/rehue evaluate $(ARGS)

export: $(STAMP)-dev ## write a trained network into the model repository
	$(BIN)/rehue export $(ARGS)

plan: $(STAMP)-dev ## build the TensorRT plans for this machine's GPU
	$(BIN)/rehue plan $(ARGS)

gpu-check: $(STAMP)-dev ## build, compare and measure the plans on this machine's GPU
	$(BIN)/rehue gpu-check $(ARGS)

k8s: $(STAMP)-dev $(PROMTOOL) .venv/checkov/.stamp .venv/helm/.stamp ## render the Kubernetes manifests and check them
	$(BIN)/python -m pytest tests/k8s $(ARGS)

IMAGES ?= serve triton-cpu training triton
images: $(STAMP)-dev .venv/helm/.stamp ## build the images with buildah, list their software, run one: BASE=debian make images
	@SBOM=results/sbom CYCLONEDX=.venv/helm/bin/cyclonedx-py k8s/build-images $(IMAGES)
	$(BIN)/python -m pytest tests/k8s/test_k8s_containers.py --long $(ARGS)

chart: $(STAMP)-dev .venv/helm/.stamp ## pack the Helm chart, into results/chart
	@KUBECTL=$(BIN)/kubectl PYTHON=.venv/helm/bin/python k8s/build-chart results/chart

lock: $(STAMP)-dev ## resolve all versions again and lock them with hashes
	@for extra in dev serve training client; do \
	  $(BIN)/uv pip compile $$([ $$extra = client ] && echo clients/pyproject.toml || echo pyproject.toml --extra $$extra) \
	    $$([ $$extra = dev ] || echo --constraint requirements/dev.lock) \
	    --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate \
	    --quiet --output-file requirements/$$extra.lock || exit 1; done
	@$(BIN)/uv pip compile loadtest/peer_servers/requirements.in --constraint requirements/dev.lock \
	  --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate \
	  --quiet --output-file loadtest/peer_servers/requirements.lock
	@$(BIN)/uv pip compile k8s/triton-cpu/requirements.in --constraint requirements/dev.lock \
	  --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate \
	  --quiet --output-file k8s/triton-cpu/requirements.lock
	@$(BIN)/uv pip compile k8s/triton/requirements.in --constraint requirements/dev.lock \
	  --python-version 3.12 --python-platform x86_64-manylinux_2_28 --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate --quiet \
	  --output-file k8s/triton/requirements.lock
	@$(BIN)/uv pip compile requirements/c2pa.in --no-deps --constraint requirements/dev.lock \
	  --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate \
	  --quiet --output-file requirements/c2pa.lock
	@for tool in checkov helm; do \
	  $(BIN)/uv pip compile requirements/$$tool.in --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-header --no-annotate --quiet \
	    --output-file requirements/$$tool.lock || exit 1; done

docs: $(STAMP)-dev ## build the documentation site into results/site
	$(BIN)/mkdocs build --quiet
	@echo "open results/site/index.html"

stubs: $(STAMP)-dev ## generate the gRPC stubs from the proto
	cd clients && ../$(BIN)/python -m grpc_tools.protoc -I. \
	  --python_out=. --pyi_out=. --grpc_python_out=. rehue_client/v1/rehue.proto

clean: ## remove everything that these commands made
	rm -rf .venv .venv-peers .coverage demo results .mypy_cache .ruff_cache .pytest_cache

.venv-peers/.stamp: loadtest/peer_servers/requirements.lock $(BIN)/uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-peers
	$(BIN)/uv pip install --quiet --python .venv-peers/bin/python --require-hashes -r $<
	@touch $@

$(BIN)/uv: requirements/uv.lock
	$(PYTHON) -m venv .venv || { echo "This needs Python 3.11 with venv: apt-get install python3.11-venv, or PYTHON=/path/to/python3.11 make"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

# Unpacked, not installed: no root is needed, and Prometheus would start a server.
define UNPACK_FROM_DEBIAN
at=$$(mktemp -d) && apt="apt-get -qq -o APT::Sandbox::User=root -o Dir::State::Lists=$$at -o Dir::Cache=$$at" \
  && $$apt update && (cd $$at && $$apt download $(1) && dpkg-deb -x $(1)_*.deb .) \
  && $(2); rc=$$?; rm -rf $$at; exit $$rc
endef

$(BIN)/promtool: | $(BIN)/uv
	@$(call UNPACK_FROM_DEBIAN,prometheus,cp $$at/usr/bin/promtool $@)

.venv/exiftool/exiftool: | $(BIN)/uv
	@$(call UNPACK_FROM_DEBIAN,libimage-exiftool-perl,mkdir -p $(@D) \
	  && cp -r $$at/usr/share/perl5 $(@D)/lib && cp $$at/usr/bin/exiftool $@)

# Separate environments: checkov's dependencies would hold back the project's, and Helm takes 75 MB.
.venv/checkov/.stamp .venv/helm/.stamp: .venv/%/.stamp: requirements/%.lock $(BIN)/uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv/$*
	$(BIN)/uv pip install --quiet --python .venv/$*/bin/python --require-hashes -r $<
	@touch $@

$(STAMP)-%: requirements/%.lock pyproject.toml $(BIN)/uv
	@echo "setting up .venv for $*: a few minutes the first time"
	$(INSTALL) --require-hashes -r $<
	$(if $(filter dev,$*),$(INSTALL) --no-deps --require-hashes -r requirements/lpips.lock)
	$(INSTALL) --no-deps --editable .
	@touch $@ $(if $(filter dev,$*),$(STAMP)-serve)
