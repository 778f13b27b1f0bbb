# The commands of this project. `make` alone lists them.
#
# MPI=NAME chooses the MPI: system (default: what MPICC or PATH gives), openmpi-4.1, mpich-5, ... (scripts/mpi-names.sh).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MPI ?= system
PROFILE ?= default
TESTS ?= all()
SECONDS ?= 300
WITH_MPI := scripts/with-mpi.sh $(MPI)

.PHONY: help setup build run test spawns matrix lint client soak fuzz mutants bench peers clean

help: ## List these commands
	@echo 'make TARGET [MPI=system|openmpi-4.1|openmpi-5.0|mpich-5|mpich-4.3|intel-2021|abi|abi-intel]'
	@sed -nE 's/^([a-z]+):.*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

setup: ## Install what is missing: MPI, libclang, cargo-nextest
	@scripts/setup.sh $(MPI)

build: ## Build the library and the command
	@scripts/setup.sh --build-only $(MPI)
	$(WITH_MPI) cargo build --release

run: ## Run examples/jobs.txt, some real work, on workers that the command grows
	@scripts/setup.sh --build-only $(MPI)
	$(WITH_MPI) cargo run --release --bin offshoot -- run examples/jobs.txt

test: setup ## Run all tests, those on real MPI too, and the examples in the documentation; TESTS=FILTER: fewer
	$(WITH_MPI) cargo nextest run --profile $(PROFILE) -E '$(TESTS)'
	$(WITH_MPI) cargo test --doc

spawns: setup ## Run the spawns under difficulties only (tests/mpi_spawn.rs), and the doctor
	$(WITH_MPI) cargo nextest run --profile $(PROFILE) --test mpi_spawn --test mpi_doctor

matrix: ## Try those, and the doctor, on all MPIs, and print a table
	@scripts/matrix.sh

lint: setup ## Check format, clippy and rustdoc, warnings denied
	cargo fmt --check
	$(WITH_MPI) cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(WITH_MPI) cargo doc --no-deps

client: setup ## Build a host without MPI, as on a machine that has none, and run it
	$(WITH_MPI) scripts/client.sh

soak: setup ## Have 1,200 workers come and go, and put a pool under fire for ten minutes
	$(WITH_MPI) cargo nextest run --no-fail-fast --run-ignored only -E 'binary(mpi_soak)' --success-output final
	$(WITH_MPI) cargo run --release --bin offshoot -- chaos --seconds 600 --mpi-info

fuzz: ## Give each decoder what a fuzzer makes up, for SECONDS (300) in all
	@scripts/setup.sh --fuzz $(MPI)
	$(WITH_MPI) scripts/fuzz.sh $(SECONDS)

mutants: setup ## Prove that each oracle of the core kills its mutant
	$(WITH_MPI) scripts/mutants.sh

bench: setup ## Measure everything beside the raw MPI, in three minutes or so
	$(WITH_MPI) cargo run --release --bin offshoot -- bench

peers: ## Measure the same work on mpi4py, Dask, Ray, Parsl, xargs and GNU parallel, into docs/
	@scripts/setup.sh --for-peers $(MPI)
	$(WITH_MPI) cargo build --release --bin offshoot --example peer_offshoot
	$(WITH_MPI) python3 benches/peers/run.py
	$(WITH_MPI) cargo run --release --bin offshoot -- bench run

clean: ## Remove what was built and the MPIs and peers that were installed here
	rm -rf target .mpi .peers
