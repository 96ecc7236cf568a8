# make        the environment, then the whole experiment
# make help   every target

PYTHON ?= python3
ready := .venv/.ready
export PATH := $(CURDIR)/.venv/bin:$(PATH)

# After Ctrl-C the last line says how to continue; make itself then prints nothing.
stopped := trap 'echo "Stopped. Run the same command to continue."; exit 0' INT;

# An environment in which a small program does not start is broken and is made again.
$(if $(wildcard $(ready)),$(shell .venv/bin/tqdm --version > /dev/null 2>&1 || rm -f $(ready)))

# The committed documents are compared with the committed results, not with those in results/.
define committed_documents
rm -rf .lint && mkdir .lint
git archive HEAD README.md docs results | tar -x -C .lint
cd .lint && for page in README.md docs/*.md; do \
	python ../src/document.py --document $$page && \
	git diff --no-index --exit-code ../$$page $$page || exit 1; \
done
rm -rf .lint
endef

.PHONY: results report handin playground test slow-test full-test slurm slurm-test lint check repro experiments verify diff bench generated documents lock clean help

results: $(ready)  ## set up .venv and run the experiment
	@$(stopped) snakemake
	@echo && cat results/comparison/table.md && echo
	@echo "Figures: results/comparison/*.png"
	@echo "Next: docs/answers.md discusses the results; change params.yaml and run make again"

report: results  ## report.html: tables, figures and the workflow in one file
	@$(stopped) snakemake --report report.html
	@echo "Open report.html in a browser."

handin: results  ## the answers to the exercises with the present numbers, as HTML and PDF
	@python src/document.py --document docs/answers.md \
		--html results/handin/answers.html --pdf results/handin/answers.pdf
	@echo "Open results/handin/answers.html or results/handin/answers.pdf."

playground: $(ready)  ## a page on which you draw digits and move through the latent space
	@$(stopped) snakemake playground
	@echo "Open results/playground.html in a browser."

# PATH without .venv, so that a broken environment does not make itself.
$(ready): requirements.lock
	@PATH="$${PATH#*:}"; version=$$($(PYTHON) --version 2>&1 | sed 's/^Python \([0-9]*\.[0-9]*\).*/\1/'); \
	case "$$version" in \
		3.1[1-9] | 3.[2-9][0-9]) ;; \
		*) echo "needs Python 3.11 or newer, $(PYTHON) is $$version: make PYTHON=python3.12" >&2; \
			exit 1 ;; \
	esac; \
	echo "Installing Python packages into .venv: about 3.6 GB, a few minutes"; \
	[ -e $@ ] || $(PYTHON) -m venv --clear .venv
	@$(stopped) .venv/bin/python -m pip install --require-hashes -r requirements.lock
	@touch $@

test: $(ready)  ## the tests, a few minutes
	pytest -n 2 --dist loadfile

slow-test: $(ready)  ## the tests that take longer
	pytest -m slow -n 2 --dist loadfile

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
	bash -c "diff <(grep -o '#.*' params.yaml) <(python src/params.py yaml | grep -o '#.*')"
	python src/params.py dvc | diff dvc.yaml -
	$(committed_documents)

check: $(ready)  ## check params.yaml and report a mistake in one line
	python src/params.py check

repro: check  ## run the experiment with DVC: dvc repro, after a check of params.yaml
	@python src/repair.py
	@$(stopped) dvc repro

experiments: $(ready)  ## run the queued DVC experiments in one graph of Snakemake
	python src/experiments.py

verify: $(ready)  ## check that the results belong together, compare them with the last commit
	python src/custody.py
	python src/verify.py

diff: $(ready)  ## is a change real? make diff AGAINST=main~3 EXPERIMENT=rate-2
	python src/verify.py $(if $(AGAINST),--against '$(AGAINST)') \
		$(if $(EXPERIMENT),--experiment '$(EXPERIMENT)')

bench: $(ready)  ## time to a given ELBO compared with textbook loops, 10 minutes
	python benchmarks/bench.py $(if $(EXAMPLES),--examples $(EXAMPLES))

generated: $(ready)  ## write the files generated from the code, but not params.yaml
	python src/params.py schema > workflow/schemas/params.schema.json
	python src/params.py dvc > .dvc.yaml.tmp && mv .dvc.yaml.tmp dvc.yaml

documents: $(ready)  ## write the present results into README.md and docs/
	for page in README.md docs/*.md; do \
		python src/document.py --document $$page || exit 1; \
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
