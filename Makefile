# make        the environment, then the whole experiment
# make help   every target

PYTHON ?= python3
ready := .venv/.ready
export PATH := $(CURDIR)/.venv/bin:$(PATH)

# The committed documents show the committed results, whatever results/ holds at the moment.
define committed_documents
rm -rf .lint && mkdir .lint
git archive HEAD README.md docs results | tar -x -C .lint
cd .lint && for page in README.md docs/*.md; do \
	python ../src/document.py --document $$page --markdown $$page && \
	git diff --no-index --exit-code ../$$page $$page || exit 1; \
done
rm -rf .lint
endef

.PHONY: results report handin test slow-test full-test slurm slurm-test lint check repro verify bench generated documents lock clean help

results: $(ready)  ## the experiment: set up .venv, then snakemake --cores all
	snakemake --cores all

report: results  ## report.html: tables, figures and how they were made, in one file to pass on
	snakemake --report report.html

handin: $(ready)  ## the exercises answered with the present numbers, in one page, and model cards
	snakemake --cores all handin

$(ready): requirements.lock
	$(PYTHON) -m venv .venv
	pip install --quiet --require-hashes -r requirements.lock
	touch $@

test: $(ready)  ## the tests, a few minutes
	pytest

slow-test: $(ready)  ## the tests that take longer
	pytest -m slow

full-test: $(ready)  ## the published results again to the byte, in twenty minutes
	pytest -m full

slurm: $(ready)  ## what `snakemake --workflow-profile workflow/profiles/slurm` needs
	pip install --quiet --require-hashes -r requirements-slurm.lock

slurm-test: slurm  ## the tests on a SLURM of one node, which they bring up; needs root, Debian
	pytest -m slurm -rs

lint: $(ready)  ## formatting, types, both engines' linters, generated files
	ruff check
	ruff format --check
	mypy
	snakefmt --check Snakefile workflow/rules
	snakemake --lint
	python src/params.py schema | diff workflow/schemas/params.schema.json -
	python src/params.py markdown | diff docs/parameters.md -
	python src/params.py dvc | diff dvc.yaml -
	$(committed_documents)

check: $(ready)  ## say in one line what is wrong with params.yaml
	python src/params.py check

repro: check  ## the experiment by DVC: check params.yaml, then dvc repro
	dvc repro

verify: $(ready)  ## are these results the published ones, those of the last commit?
	python src/verify.py

bench: $(ready)  ## time to a given ELBO against textbook loops; on an idle machine, 10 minutes
	python benchmarks/bench.py $(if $(EXAMPLES),--examples $(EXAMPLES))
	snakemake --cores 1 data/split/validation.safetensors
	python benchmarks/step.py data/split/validation.safetensors

generated: $(ready)  ## write the files that follow from src/aevb/plumbing/params.py; resets params.yaml
	python src/params.py schema > workflow/schemas/params.schema.json
	python src/params.py markdown > docs/parameters.md
	python src/params.py yaml > params.yaml
	python src/params.py dvc > .dvc.yaml.tmp && mv .dvc.yaml.tmp dvc.yaml

documents: $(ready)  ## put the present results into README.md and docs/
	for page in README.md docs/*.md; do \
		python src/document.py --document $$page --markdown $$page || exit 1; \
	done

lock: $(ready)  ## renew the lock files from pyproject.toml (needs uv)
	uv pip compile --quiet --universal --generate-hashes --group dev pyproject.toml \
		--custom-compile-command "make lock" -o requirements.lock
	uv pip compile --quiet --universal --generate-hashes --group slurm \
		--constraint requirements.lock --custom-compile-command "make lock" \
		-o requirements-slurm.lock

clean:  ## remove what the pipeline made
	snakemake --cores 1 --delete-all-output

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*##/\1\t/p' Makefile | expand -t 12
