# `make help` lists the targets.

TESTBED := tests/testbed/testbed
RELEASE := target/x86_64-unknown-linux-gnu/release/bundle

.DEFAULT_GOAL := help

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## The static executable, in $(RELEASE)
	cargo build --release

.PHONY: check
check: ## Format and lints
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

.PHONY: test
test: check ## All tests, on the test bed too; as root it installs the Debian packages that it needs
	$(TESTBED) install
	cargo test -- --include-ignored
	cargo test --test closed_ports another_way -- --include-ignored

.PHONY: test-long
test-long: ## What strikes in server rooms, on the test bed: half an hour more
	$(TESTBED) install
	cargo test --test faults --test healing --test closed_ports -- --include-ignored

.PHONY: test-vllm
test-vllm: ## A real vLLM on two nodes of the test bed; 25 GB, and a quarter of an hour at first
	$(TESTBED) install
	cargo test --test vllm -- --include-ignored

.PHONY: demo
demo: ## The whole job on this machine, in a few minutes
	tests/demo

.PHONY: bench
bench: ## Speed and size, as ratios
	cargo bench

.PHONY: bench-net
bench-net: ## Distribution on the test bed, against scp, rsync and a swarm
	$(TESTBED) install
	apt-get install -q -y --no-install-recommends bc curl perl rsync
	benches/network/run

.PHONY: testbed-down
testbed-down: ## Removes what a crashed test left behind
	$(TESTBED) down
