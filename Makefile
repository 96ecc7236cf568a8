# make        the environment, then the whole experiment
# make help   every target

PYTHON ?= python3
ready := .venv/.ready
export PATH := $(CURDIR)/.venv/bin:$(PATH)

# The committed documents are compared with the committed results, not with those in results/.
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

results: $(ready)  ## set up .venv and run the experiment: snakemake --cores all
	snakemake --cores all

report: results  ## report.html: tables, figures and the workflow in one file
	snakemake --report report.html

handin: $(ready)  ## the answers to the exercises with the present numbers
	snakemake --cores all handin

$(ready): requirements.lock
	$(PYTHON) -m venv .venv
	pip install --quiet --require-hashes -r requirements.lock
	touch $@

test: $(ready)  ## the tests, a few minutes
	pytest

slow-test: $(ready)  ## the tests that take longer
	pytest -m slow

full-test: $(ready)  ## reproduce the published results byte by byte, in twenty minutes
	pytest -m full

slurm: $(ready)  ## what `snakemake --workflow-profile workflow/profiles/slurm` needs
	pip install --quiet --require-hashes -r requirements-slurm.lock

slurm-test: slurm  ## the tests on a one-node SLURM that they start; needs root, Debian
	pytest -m slurm -rs

lint: $(ready)  ## check formatting, types, rules and generated files
	ruff check
	ruff format --check
	mypy
	snakefmt --check Snakefile workflow/rules
	python src/params.py schema | diff workflow/schemas/params.schema.json -
	python src/params.py markdown | diff docs/parameters.md -
	python src/params.py dvc | diff dvc.yaml -
	$(committed_documents)

check: $(ready)  ## check params.yaml and report a mistake in one line
	python src/params.py check

repro: check  ## run the experiment with DVC: dvc repro, after a check of params.yaml
	dvc repro

verify: $(ready)  ## check that the results belong together, compare them with the last commit
	python src/custody.py
	python src/verify.py

bench: $(ready)  ## time to a given ELBO compared with textbook loops, 10 minutes
	python benchmarks/bench.py $(if $(EXAMPLES),--examples $(EXAMPLES))

generated: $(ready)  ## write all files generated from the code; resets params.yaml
	python src/params.py schema > workflow/schemas/params.schema.json
	python src/params.py markdown > docs/parameters.md
	python src/params.py yaml > params.yaml
	python src/params.py dvc > .dvc.yaml.tmp && mv .dvc.yaml.tmp dvc.yaml

documents: $(ready)  ## write the present results into README.md and docs/
	for page in README.md docs/*.md; do \
		python src/document.py --document $$page --markdown $$page || exit 1; \
	done

lock: $(ready)  ## update the lock files from pyproject.toml; needs uv
	uv pip compile --quiet --universal --generate-hashes --group dev pyproject.toml \
		--custom-compile-command "make lock" -o requirements.lock
	uv pip compile --quiet --universal --generate-hashes --group slurm \
		--constraint requirements.lock --custom-compile-command "make lock" \
		-o requirements-slurm.lock

clean:  ## remove all results of the workflow
	snakemake --cores 1 --delete-all-output

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*##/\1\t/p' Makefile | expand -t 12
