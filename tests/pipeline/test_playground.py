"""The page to play with: what it computes in a browser, compared with the models in Python."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

from aevb.data import read_set
from aevb.files import InputError
from aevb.model import VAE, write_model
from graph import ROOT, run
from stages import run_or_raise

import numpy as np
import pytest
import torch

DEFAULTS = {3: ("bernoulli", "dynamic"), 20: ("bernoulli", "dynamic")}
OTHERS = {1: ("gaussian", "none"), 2: ("continuous_bernoulli", "none")}
KINDS = ("models", "evaluation")
CHROMIUM = (
    "chromium --headless --no-sandbox --disable-gpu --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update"
)
IN_BROWSER = """
<script>
const press = (id, key) => element(id).dispatchEvent(new KeyboardEvent("keydown", {key}));
const answers = page.runs.map((run, n) => {
  choose(run);
  show(0);
  const answer = {mu: [...q.mu], sigma: [...q.sigma], noise: [...run.noise],
                  terms: elboTerms(run, x, q), pixels: CODES[n].map(z => [...decode(run, z)])};
  const reconstructions = Array.from({length: images.length / PIXELS}, (_, image) => {
    show(image);
    return {x: [...x], mean: [...decode(run, q.mu)]};
  });
  z = new Float64Array(run.k);
  for (const key of ["ArrowRight", "ArrowUp", "ArrowUp"]) press("map", key);
  const shown = element("mean").getContext("2d").getImageData(0, 0, SIDE, SIDE).data;
  return {...answer, reconstructions, axes, moved: [...z],
          shown: [...shown].filter((_, i) => i % 4 === 0)};
});
show(null);
for (const key of [" ", ...Array(5).fill("ArrowDown"), "ArrowRight"]) press("pad", key);
const drawn = {strokes: strokes.map(stroke => stroke.slice(2)), gray: [...pixelsOf(strokes)]};
document.documentElement.textContent = JSON.stringify({answers, drawn});
</script>
"""


def write_page(folder: Path, test: Path, models: dict[int, VAE], binarisation: str) -> Path:
    """Write models, evaluate them and write their page."""
    page, template = folder / "page.html", ROOT / "src/aevb/report/playground.html"
    for k, model in models.items():
        path, evaluation = (folder / kind / f"k{k}-seed7.safetensors" for kind in KINDS)
        data = read_set(test, "test").metadata
        write_model(path, model, {"seed": 7, "binarisation": binarisation, "data": data})
        words = ["--metrics", folder / "metrics.json", "--terms", folder / "terms"]
        words += ["--evaluation", evaluation, "--iwae_k", 2]
        run_or_raise("evaluate", "--test", test, "--model", path, *words)
    words = ["--template", template, "--output", page, "--latent_dims", *models, "--seeds", 7, 8]
    run_or_raise("playground", "--results", folder, "--test", test, *words)
    return page


@pytest.fixture(scope="module")
def pages(tmp_path_factory, untrained, set_files) -> list[SimpleNamespace]:
    """The page of two models of the default size, and one of models with other likelihoods.

    Their weights are several times larger than initial weights, as large as after training.
    """
    made = []
    for kinds in (DEFAULTS, OTHERS):
        hidden = 500 if kinds is DEFAULTS else 50
        models = {k: untrained(k, hidden, likelihood) for k, (likelihood, _) in kinds.items()}
        for model in models.values():
            model.encoder.hidden.weight.mul_(12)
            model.decoder.output.weight.mul_(8)
        binarisation = next(iter(kinds.values()))[1]
        folder = tmp_path_factory.mktemp("playground")
        page = write_page(folder, set_files / "test", models, binarisation)
        made.append(SimpleNamespace(page=page, models=models, binarisation=binarisation))
    return made


def test_the_page_is_one_small_file(pages):
    content = pages[0].page.read_text(encoding="utf-8")
    assert len(content.encode()) < 3_000_000
    assert not re.search(r"""\b(src|href)=|https?:|@import|url\(|fetch\(""", content)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_file_is_named_and_nothing_written(kind, pages, tmp_path, set_files):
    folder = shutil.copytree(pages[1].page.parent, tmp_path / "results")
    (folder / "page.html").unlink()
    (folder / kind / "k2-seed7.safetensors").unlink()
    words = ["--template", ROOT / "src/aevb/report/playground.html", "--latent_dims", 1, 2]
    with pytest.raises(InputError, match=rf"{kind}/k2-seed7.safetensors: no such file"):
        run_or_raise("playground", "--results", folder, "--test", set_files / "test", "--seeds", 7,
                     "--output", folder / "page.html", *words)  # fmt: skip
    assert not (folder / "page.html").exists()


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
@pytest.mark.parametrize("number", [0, 1], ids=["defaults", "others"])
def test_a_browser_computes_what_the_models_compute(pages, number, set_files, tmp_path):
    made = pages[number]
    images = read_set(set_files / "test", "test").images.reshape(-1, 784) / 255
    codes = [torch.randn(20, k, generator=torch.manual_seed(k)) for k in made.models]
    script = IN_BROWSER.replace("CODES", json.dumps([z.tolist() for z in codes]))
    page = tmp_path / "page.html"
    page.write_text(made.page.read_text(encoding="utf-8") + script, encoding="utf-8")
    output = run(f"{CHROMIUM} --user-data-dir={tmp_path}/profile --dump-dom {page}", tmp_path)
    result = json.loads(output[output.index(">{") + 1 : output.rindex("}") + 1])

    for model, z, answer in zip(made.models.values(), codes, result["answers"], strict=True):
        x, means = (
            torch.tensor([found[name] for found in answer["reconstructions"]])
            for name in ("x", "mean")
        )
        # What the model sees of the test images.
        gray = images[: len(x)]
        if made.binarisation == "none":
            np.testing.assert_allclose(x, gray, atol=1e-6)
        else:
            assert set(x.unique().tolist()) == {0, 1}
            assert (x[gray == 0] == 0).all()
            assert (x[gray == 1] == 1).all()
        # The decoder, the encoder with the decoder, the terms of the ELBO for the same noise.
        np.testing.assert_allclose(answer["pixels"], model.mean(z), atol=0.01)
        np.testing.assert_allclose(means, model.mean(model.encode(x.float())[0]), atol=0.01)
        x, (encoded, log_var) = x[:1].float(), model.encode(x[:1].float())
        mu, sigma = (torch.tensor(answer[name]) for name in ("mu", "sigma"))
        np.testing.assert_allclose(mu, encoded[0], atol=0.01)
        np.testing.assert_allclose(sigma, (log_var[0] / 2).exp(), rtol=0.01)
        noise = torch.tensor(answer["noise"]).reshape(-1, 1, model.latent_dim)
        terms = answer["terms"]
        reconstruction = model.log_px_given_z(x, mu + sigma * noise).mean().item()
        kl = torch.distributions.kl_divergence(
            torch.distributions.Normal(mu, sigma), torch.distributions.Normal(0, 1)
        )
        assert terms["log_px_given_z"] == pytest.approx(reconstruction, rel=0.01)
        assert terms["kl"] == pytest.approx(kl.sum().item(), rel=1e-4)
        assert terms["elbo"] == pytest.approx(terms["log_px_given_z"] - terms["kl"])
        # The keys of the map move the point, and the page shows its image.
        if model.latent_dim > 1:
            right, up = answer["axes"]
            expected = torch.zeros(model.latent_dim)
            expected[right], expected[up] = 0.1, 0.2
            np.testing.assert_allclose(answer["moved"], expected, atol=1e-6)
        shown = 255 * (1 - model.mean(torch.tensor(answer["moved"])))
        np.testing.assert_allclose(answer["shown"], shown, atol=0.01 * 255 + 1)

    # A drawing of five steps down and one to the right, scaled and centred.
    down = [[140, y] for y in range(90, 140, 10)]
    assert result["drawn"]["strokes"] == [[*down, [150, 130]]]
    gray = np.array(result["drawn"]["gray"]).reshape(28, 28)
    rows, columns = (np.flatnonzero(gray.max(axis) > 0.1) for axis in (1, 0))
    assert len(rows) in (20, 21)
    assert 6 <= len(columns) <= 8
    place = np.arange(28) + 0.5
    for axis in (0, 1):
        assert (gray.sum(axis) * place).sum() / gray.sum() == pytest.approx(14, abs=0.1)
