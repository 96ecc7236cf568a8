"""Training against the paper's formulas in float64, and the properties of a whole run."""

import json
import math
import signal
from dataclasses import replace
from itertools import count
from pathlib import Path

from aevb.bounds import bound_terms
from aevb.data import ImageSet, fixed_draw
from aevb.files import InputError
from aevb.model import VAE
from aevb.plumbing.checkpoints import Checkpoint, Interrupted
from aevb.plumbing.params import Train
from aevb.training import HISTORY, Training

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, distributions

torch.set_num_threads(1)

Sets = tuple[ImageSet, ImageSet, ImageSet]
BINARISATIONS = ("dynamic", "static", "none")


def cut(images: ImageSet, count: int) -> ImageSet:
    """The first images of a set."""
    binary = None if images.binary is None else images.binary[:count]
    arrays = {name: getattr(images, name)[:count] for name in ("images", "labels", "index")}
    return replace(images, **arrays, binary=binary)


def training(
    sets: Sets,
    counts: tuple[int, int] = (60, 40),
    *,
    likelihood: str = "bernoulli",
    seed: int = 0,
    precision: str = "float32",
    **settings,
) -> Training:
    """A small training on the first images of the sets."""
    settings = {"batch_size": 25, "max_epochs": 2, "learning_rate": 0.01} | settings
    train, validation = (cut(*pair) for pair in zip(sets, counts, strict=False))
    vae = VAE(2, 8, likelihood)
    return Training(vae, train, validation, Train(**settings), seed, "cpu", precision)


def weights(run: Training) -> dict[str, bytes]:
    """The weights that a training holds, byte by byte."""
    return {name: value.numpy().tobytes() for name, value in run.model.state_dict().items()}


def history(run: Training) -> dict[str, np.ndarray]:
    """The learning curve, column by column."""
    return dict(zip(HISTORY, np.array(run.state.history).T, strict=True))


def weights_after_each_epoch(run: Training) -> list[dict[str, bytes]]:
    """Run a training and return its weights at the end of each epoch."""
    after: list[dict[str, bytes]] = []
    run.run(callback=lambda _: after.append(weights(run)))
    return after


@pytest.fixture
def steps(monkeypatch) -> list[tuple[Tensor, Tensor]]:
    """The images and the noise of every training step, in the order of the steps."""
    seen: list[tuple[Tensor, Tensor]] = []

    def recorded(model, x, eps):
        if torch.is_grad_enabled():  # otherwise it is the validation
            seen.append((x.clone(), eps.clone()))
        return bound_terms(model, x, eps)

    monkeypatch.setattr("aevb.training.bound_terms", recorded)
    return seen


# The learning rate.


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        (0.0, [0.8, 0.8, 0.8, 0.8, 0.8, 0.8]),
        (0.5, [0.8, 0.8, 0.8, 0.4, 0.2, 0.0]),
        (1.0, [0.8, 0.6, 0.4, 0.2, 0.1, 0.0]),
    ],
)
def test_learning_rate(small_sets, decay, expected):
    run = training(small_sets, learning_rate=0.8, decay=decay, max_epochs=8, batch_size=3)
    rates = []
    for run.state.epoch in (0, 2, 4, 6, 7, 8):
        rates.append(run.learning_rate(0))
    assert rates == pytest.approx(expected, abs=1e-9)


# One update, and several, against the formulas.


def reference_terms(w: dict[str, Tensor], x: Tensor, eps: Tensor, likelihood: str):
    """Equation 10 and appendices B and C, written out: log p(x|z) [R, B] and KL [B]."""
    h = torch.tanh(x @ w["encoder.hidden.weight"].T + w["encoder.hidden.bias"])
    mu, log_var = (h @ w["encoder.output.weight"].T + w["encoder.output.bias"]).chunk(2, -1)
    z = mu + torch.sqrt(torch.exp(log_var)) * eps
    h = torch.tanh(z @ w["decoder.hidden.weight"].T + w["decoder.hidden.bias"])
    raw = h @ w["decoder.output.weight"].T + w["decoder.output.bias"]
    if likelihood == "gaussian":
        mean, scale = torch.sigmoid(raw[..., :784]), raw[..., 784:].exp().add(1).log() + 1 / 255
        log_px_given_z = distributions.Normal(mean, scale).log_prob(x)
    else:
        probability = torch.sigmoid(raw)
        log_px_given_z = x * probability.log() + (1 - x) * (1 - probability).log()
        if likelihood == "continuous_bernoulli":
            reference = distributions.ContinuousBernoulli(logits=raw, validate_args=False)
            log_px_given_z = reference.log_prob(x)
    kl = -(1 + log_var - mu**2 - log_var.exp()).sum(-1) / 2
    return log_px_given_z.sum(-1), kl


@pytest.mark.parametrize(
    ("likelihood", "settings"),
    [
        ("bernoulli", {}),
        ("bernoulli", {"binarisation": "static", "mc_samples": 3}),
        ("continuous_bernoulli", {"binarisation": "none"}),
        ("gaussian", {"binarisation": "none", "mc_samples": 2}),
        ("bernoulli", {"optimiser": "adagrad", "weight_decay": 100, "initialisation": "paper"}),
    ],
)
def test_steps_are_the_optimisers_on_the_elbo(small_sets, steps, likelihood, settings):
    """Two epochs of three steps, the last one of a smaller batch, repeated in float64."""
    run = training(small_sets, (60, 0), likelihood=likelihood, decay=0.5, **settings)
    start = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.run()
    assert [len(x) for x, _ in steps] == [25, 25, 10] * 2
    noise = torch.cat([eps.flatten() for _, eps in steps])
    assert len(noise) == 2 * 60 * 2 * settings.get("mc_samples", 1)
    assert len(noise.unique()) > 0.99 * len(noise)
    assert stats.kstest(noise.numpy(), "norm").pvalue > 1e-3

    w = {name: value.double().requires_grad_() for name, value in start.items()}
    adagrad = settings.get("optimiser") == "adagrad"
    reference = (torch.optim.Adagrad if adagrad else torch.optim.Adam)(w.values())
    sums = []
    for (x, eps), share in zip(steps, [1, 1, 1, 1, 2 / 3, 1 / 3], strict=True):
        reference.param_groups[0]["lr"] = 0.01 * share
        log_px_given_z, kl = reference_terms(w, x.double(), eps.double(), likelihood)
        bound = log_px_given_z.mean(0) - kl
        reference.zero_grad()
        squares = sum(value.square().sum() for name, value in w.items() if "decoder" in name)
        prior = settings.get("weight_decay", 0) * squares / 2
        (prior / 60 - bound.mean()).backward()
        reference.step()
        terms = (bound.sum(), log_px_given_z.mean(0).sum(), kl.sum())
        sums.append([float(term.detach()) for term in terms])

    curve = history(run)
    names = ("train_elbo", "train_log_px_given_z", "train_kl")
    expected = np.array(sums).reshape(2, 3, 3).sum(1) / 60
    actual = np.transpose([curve[name] for name in names])
    np.testing.assert_allclose(actual, expected, rtol=1e-4)
    assert curve["learning_rate"].tolist() == pytest.approx([0.01, 0.01 / 3])
    for name, value in run.model.state_dict().items():
        # Both divide the gradient by its size, so one that is nearly 0 shows its rounding.
        error = (value - w[name].detach()).abs() / 0.01
        assert float((value - start[name]).abs().max()) > 0.01, name
        assert float(error.quantile(0.99)) < 1e-2, name


@pytest.mark.parametrize(
    ("precision", "low", "high"), [("float32", 0, 1e-5), ("bfloat16", 1e-4, 3e-2)]
)
def test_gradient_of_a_step_is_that_of_the_formulas(small_sets, steps, precision, low, high):
    """The optimisers hide most of the gradient's scale, so it is compared before their step."""
    run = training(small_sets, (25, 0), max_epochs=1, precision=precision)
    w = {name: value.detach().clone() for name, value in run.model.named_parameters()}
    w = {name: value.double().requires_grad_() for name, value in w.items()}
    gradients: list[Tensor] = []
    run.optimiser.step = lambda _: gradients.extend(w.grad for w in run.model.parameters())
    run.run()
    ((x, eps),) = steps
    log_px_given_z, kl = reference_terms(w, x.double(), eps.double(), "bernoulli")
    (kl - log_px_given_z[0]).mean().backward()
    exact = torch.cat([value.grad.flatten() for value in w.values()])
    assert {value.dtype for value in gradients} == {torch.float32}
    actual = torch.cat([value.flatten() for value in gradients]).double()
    assert low < (actual - exact).norm() / exact.norm() < high


@pytest.mark.parametrize("precision", ["float32", "exact"])
def test_weight_decay_adds_the_gradient_of_the_prior(small_sets, precision):
    """That of −log N(θ; 0, 1/λ) / N is λ θ / N, and one product and one sum have exact bits."""
    found = []
    for decay in (0.0, 3.0):
        run = training(small_sets, (25, 0), max_epochs=1, precision=precision, weight_decay=decay)
        run.optimiser.step = lambda _, run=run: found.append(
            {name: weight.grad.numpy() for name, weight in run.model.named_parameters()}
        )
        run.run()
    for name, weight in run.model.named_parameters():
        added = weight.detach().numpy() * np.float32(3 / 25) if "decoder" in name else 0
        np.testing.assert_array_equal(found[1][name], found[0][name] + added)


def test_initial_weights_of_the_paper(small_sets):
    """All from N(0, 0.01), which has a standard deviation of 0.1."""
    run = training(small_sets, initialisation="paper")
    for name, value in run.model.named_parameters():
        assert stats.kstest(value.detach().flatten() / 0.1, "norm").pvalue > 1e-4, name


def test_training_starts_at_the_mean_image(small_sets):
    run = training(small_sets, learning_rate=1e-9, max_epochs=1)
    mean = small_sets[0].images[:60].reshape(60, 784).mean(0) / 255
    x = run.model.mean(torch.zeros(1, 2))[0].detach().numpy()
    assert np.abs(x - mean).max() < 0.3  # the random weights add to it
    assert np.corrcoef(x, mean)[0, 1] > 0.95


# A whole run.


@pytest.mark.parametrize("binarisation", BINARISATIONS)
def test_the_seed_determines_the_bytes(small_sets, binarisation):
    runs = [training(small_sets, seed=seed, binarisation=binarisation) for seed in (3, 3, 4)]
    for trained in (False, True):
        assert weights(runs[0]) == weights(runs[1]) != weights(runs[2])
        for run in runs if not trained else ():
            run.run()
    assert runs[0].state.history == runs[1].state.history != runs[2].state.history


@pytest.mark.parametrize("binarisation", ["static", "none"])
def test_every_epoch_shows_each_image_once_in_a_new_order(small_sets, steps, binarisation):
    """With static binarisation the images are the one fixed draw."""
    training(small_sets, binarisation=binarisation, max_epochs=3).run()
    expected = small_sets[0].images[:60] / np.float32(255)
    if binarisation == "static":
        expected = fixed_draw(small_sets[0].images[:60], "train", 0)
    shown = torch.cat([x for x, _ in steps]).numpy().reshape(3, 60, 1, 784)
    same = (shown == expected.reshape(60, 784)).all(-1)
    assert (same.sum(1) == 1).all()
    assert (same.sum(2) == 1).all()
    assert len({*map(tuple, same.argmax(2)), tuple(range(60))}) == 4


def test_dynamic_binarisation_draws_anew_with_the_gray_level_as_probability(steps):
    """Four epochs of copies of one image, whose pixels run through all gray levels."""
    image = np.linspace(0, 255, 784).round().astype(np.uint8)
    images = np.tile(image, (1500, 1)).reshape(-1, 28, 28)
    labels = np.zeros(1500, np.uint8)
    copies = ImageSet(images, labels, np.arange(1500), images, {"name": "mnist", "seed": 0})
    training((copies, copies), (1500, 0), batch_size=300, max_epochs=4).run()
    draws = torch.cat([x for x, _ in steps]).numpy()
    assert set(np.unique(draws)) == {0, 1}
    assert len(np.unique(draws, axis=0)) == 6000
    inside = (image > 0) & (image < 255)
    np.testing.assert_array_equal(draws[:, ~inside], np.tile(image[~inside] / 255, (6000, 1)))
    p = image[inside] / 255
    # Neither the draws of a pixel nor those of an image depend on each other.
    standard = (draws[:, inside] - p) / np.sqrt(p * (1 - p))
    for axis in (0, 1):
        z = standard.sum(axis) / math.sqrt(standard.shape[axis])
        low, high = stats.chi2(len(z)).ppf([1e-4, 1 - 1e-4])
        assert low < (z**2).sum() < high


# The best weights, patience.


def test_the_best_weights_are_restored(small_sets):
    """The validation ELBO of 15 images falls again after some epochs."""
    settings = {"max_epochs": 40, "patience": 1000, "learning_rate": 0.03, "decay": 0.0}
    run = training(small_sets, (15, 60), binarisation="static", seed=1, **settings)
    after = weights_after_each_epoch(run)
    values = history(run)["validation_elbo"]
    best = int(values.argmax())
    assert len(values) == 40
    assert 0 < best < 35
    assert weights(run) == after[best]
    assert run.state.best_epoch == best + 1
    # The history has the ELBO of these weights on the fixed draw of the validation images.
    x = torch.from_numpy(small_sets[1].binary[:60].reshape(60, 784)).double()
    w = {name: value.double() for name, value in run.model.state_dict().items()}
    eps = torch.randn((200, 60, 2), generator=torch.Generator().manual_seed(0)).double()
    log_px_given_z, kl = reference_terms(w, x, eps, "bernoulli")
    expected = float((log_px_given_z.mean(0) - kl).mean())
    noise = math.sqrt(float(log_px_given_z.var(0).sum())) / 60
    assert abs(values[best] - expected) < 4 * noise < abs(values[-1] - expected)
    assert history(run)["validation_kl"][best] == pytest.approx(float(kl.mean()), rel=1e-5)


def scripted(run: Training, values: list[float]) -> Training:
    """A training whose validation ELBO is, epoch by epoch, what the test says."""
    run.validate = lambda: (values[run.state.epoch], 0.0)
    return run


@pytest.mark.parametrize(
    ("values", "patience", "epochs", "best"),
    [
        ([1, 2, 3, 4, 5, 6], 1, 6, 6),
        ([1, 3, 2, 9, 9, 9], 1, 3, 2),
        ([1, 3, 2, 2.5, 4, 0], 3, 6, 5),
        ([1, 3, 2, 2.5, 2.9, 9], 3, 5, 2),
        ([3, 3, 3, 9, 9, 9], 2, 3, 1),  # as good is not better
        ([-9, -8, -9, -9, -9, -9], 9, 6, 2),
    ],
)
def test_when_patience_is_over(small_sets, values, patience, epochs, best):
    run = scripted(training(small_sets, (25, 1), max_epochs=6, patience=patience), values)
    after = weights_after_each_epoch(run)
    assert (len(after), run.state.epoch, run.state.best_epoch) == (epochs, epochs, best)
    assert weights(run) == after[best - 1]
    assert history(run)["validation_elbo"].tolist() == values[:epochs]


def test_snapshots_are_the_weights_after_their_epochs(small_sets):
    run = training(small_sets, (60, 0), decay=0, max_epochs=4, snapshots=[1, 3])
    run.run()
    for row, epoch in enumerate((1, 3)):
        shorter = training(small_sets, (60, 0), decay=0, max_epochs=epoch)
        shorter.run()
        snapshot = {name: rows[row].numpy().tobytes() for name, rows in run.snapshots.items()}
        assert snapshot == weights(shorter)


def test_without_validation_images_the_last_weights_are_kept(small_sets):
    settings = {"max_epochs": 3, "patience": 1, "learning_rate": 0.05}
    run = training(small_sets, (60, 0), **settings)
    after = weights_after_each_epoch(run)
    assert weights(run) == after[2] != after[1]
    curve = history(run)
    for name in HISTORY:
        assert np.isnan(curve[name]).all() == name.startswith("validation")
    validated = training(small_sets, (60, 40), **settings | {"patience": 9})
    validated.run()
    # Validation takes nothing from the stream of random numbers.
    np.testing.assert_array_equal(history(validated)["train_elbo"], curve["train_elbo"])


# Divergence.


@pytest.mark.parametrize("validation", [0, 40])
@pytest.mark.parametrize(("update", "epoch", "step"), [(1, 1, 1), (5, 2, 2), (6, 2, 3)])
def test_divergence_is_reported_with_its_place_and_rate(
    small_sets, update, epoch, step, validation
):
    run = training(small_sets, (60, validation), learning_rate=0.3, decay=1.0)
    batch, number = run.batch, count(1)

    def break_one(index: Tensor) -> Tensor:
        if next(number) == update:
            run.model.decoder.output.bias.data[7] = math.nan
        return batch(index)

    run.batch = break_one
    rate = 0.3 * (1 - (update - 1) / 6)
    place = f"epoch {epoch}, step {step}, at learning rate {rate:.3g}:"
    with pytest.raises(InputError, match=rf"^[^\n]*{place}[^\n]*$"):
        run.run()
    assert len(run.state.history) == epoch - 1


# Checkpoints.


class StopsAt(Checkpoint):
    """A checkpoint that is due after so many steps and then asks to stop, as a signal would."""

    def __init__(self, folder: Path, step: int) -> None:
        super().__init__(folder, "model", "key", math.inf)
        self.left = step

    def due(self) -> bool:
        self.left -= 1
        self.signal = None if self.left else signal.SIGTERM
        return not self.left


def resumable(sets: Sets, binarisation: str) -> Training:
    """Six epochs of three steps, of which the second is the best."""
    settings = {"max_epochs": 6, "decay": 0.5, "mc_samples": 2, "patience": 4}
    run = training(sets, (60, 40), binarisation=binarisation, **settings)
    return scripted(run, [-300, -200, -250, -260, -240, -230])


@pytest.mark.parametrize("binarisation", BINARISATIONS)
@pytest.mark.parametrize("stops", [[5, 6], [1] * 18], ids=["twice", "after each step"])
def test_a_resumed_run_gives_the_same_bytes(small_sets, tmp_path, stops, binarisation):
    whole = resumable(small_sets, binarisation)
    whole.run()
    for step in [*stops, 0]:
        run = resumable(small_sets, binarisation)
        checkpoint = StopsAt(tmp_path, step)
        if saved := checkpoint.load():
            run.load_state_dict(*saved)
        if step:
            with pytest.raises(Interrupted) as stopped:
                run.run(checkpoint)
            assert stopped.value.number == signal.SIGTERM
    run.run()
    assert weights(run) == weights(whole)
    assert json.dumps(run.state.history) == json.dumps(whole.state.history)
    assert (run.state.epoch, run.state.best_epoch) == (6, 2)
