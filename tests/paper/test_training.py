"""Training against the paper's formulas in float64, and what a run promises about itself."""

import json
import math
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, distributions

from aevb.data import ImageSet, fixed_draw
from aevb.files import InputError
from aevb.likelihoods import LIKELIHOODS
from aevb.model import VAE
from aevb.plumbing.checkpoints import Checkpoint, Interrupted
from aevb.plumbing.params import Train
from aevb.training import HISTORY, Training, learning_rate

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


def after_each_batch(run: Training, act: Callable[[Tensor, Tensor], None]) -> None:
    """Call `act` with the images and the noise of each step, before the step."""
    batch = run.batch

    def acted(index: np.ndarray) -> tuple[Tensor, Tensor]:
        x, eps = batch(index)
        act(x, eps)
        return x, eps

    run.batch = acted


# The learning rate.


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        (0.0, [0.8, 0.8, 0.8, 0.8, 0.8, 0.8]),
        (0.25, [0.8, 0.8, 0.8, 0.8, 0.4, 0.0]),
        (0.5, [0.8, 0.8, 0.8, 0.4, 0.2, 0.0]),
        (1.0, [0.8, 0.6, 0.4, 0.2, 0.1, 0.0]),
    ],
)
def test_learning_rate(decay, expected):
    settings = Train(learning_rate=0.8, decay=decay)
    progress = [0, 0.25, 0.5, 0.75, 0.875, 1 - 1e-12]
    rates = [learning_rate(share, settings) for share in progress]
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
    ("optimiser", "likelihood", "binarisation", "mc_samples"),
    [
        ("adam", "bernoulli", "dynamic", 1),
        ("adam", "bernoulli", "static", 3),
        ("adam", "continuous_bernoulli", "none", 1),
        ("adam", "gaussian", "none", 2),
        ("adagrad", "bernoulli", "dynamic", 1),
    ],
)
def test_steps_are_the_optimisers_on_the_elbo(
    small_sets, optimiser, likelihood, binarisation, mc_samples
):
    """Two epochs of three steps, the last one of a smaller batch, repeated in float64."""
    run = training(
        small_sets,
        (60, 0),
        optimiser=optimiser,
        likelihood=likelihood,
        binarisation=binarisation,
        mc_samples=mc_samples,
        decay=0.5,
    )
    start = {name: value.clone() for name, value in run.model.state_dict().items()}
    seen: list[tuple[Tensor, Tensor]] = []

    def remember(x: Tensor, eps: Tensor) -> None:
        assert eps.shape == (mc_samples, len(x), 2)
        seen.append((x.double(), eps.double()))

    after_each_batch(run, remember)
    run.run()
    assert [len(x) for x, _ in seen] == [25, 25, 10] * 2

    w = {name: value.double().requires_grad_() for name, value in start.items()}
    reference = {
        "adam": partial(torch.optim.Adam, betas=(0.9, 0.999), eps=1e-8),
        "adagrad": partial(torch.optim.Adagrad, eps=1e-10),
    }[optimiser](w.values())
    sums = []
    for (x, eps), share in zip(seen, [1, 1, 1, 1, 2 / 3, 1 / 3], strict=True):
        reference.param_groups[0]["lr"] = 0.01 * share
        log_px_given_z, kl = reference_terms(w, x, eps, likelihood)
        bound = log_px_given_z.mean(0) - kl
        reference.zero_grad()
        (-bound.mean()).backward()
        reference.step()
        terms = (bound.sum(), log_px_given_z.mean(0).sum(), kl.sum())
        sums.append([float(term.detach()) for term in terms])

    curve = history(run)
    for epoch in (0, 1):
        expected = np.array(sums[3 * epoch : 3 * epoch + 3]).sum(0) / 60
        names = ("train_elbo", "train_log_px_given_z", "train_kl")
        actual = [curve[name][epoch] for name in names]
        assert actual == pytest.approx(expected.tolist(), rel=1e-4)
    assert curve["learning_rate"].tolist() == pytest.approx([0.01, 0.01 / 3])
    for name, value in run.model.state_dict().items():
        # Both divide the gradient by its size, so one that is nearly 0 shows its rounding.
        error = (value - w[name].detach()).abs() / 0.01
        assert float((value - start[name]).abs().max()) > 0.01, name
        assert float(error.quantile(0.99)) < 1e-2, name


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 3e-2)])
def test_gradient_of_a_step_is_that_of_the_formulas(small_sets, precision, tolerance):
    """Against autograd through the written-out formulas, in float64."""
    run = training(small_sets, (25, 0), max_epochs=1, precision=precision)
    w = {name: value.detach().double() for name, value in run.model.named_parameters()}
    gradients: list[Tensor] = []
    seen: list[tuple[Tensor, Tensor]] = []

    def remember(x: Tensor, eps: Tensor) -> None:
        seen.append((x.double(), eps.double()))

    after_each_batch(run, remember)
    run.optimiser.step = lambda _: gradients.extend(w.grad for w in run.model.parameters())
    run.run()
    for value in w.values():
        value.requires_grad_()
    (x, eps) = seen[0]
    log_px_given_z, kl = reference_terms(w, x, eps, "bernoulli")
    (kl - log_px_given_z[0]).mean().backward()
    exact = torch.cat([value.grad.flatten() for value in w.values()])
    actual = torch.cat([value.flatten() for value in gradients]).double()
    assert 0 < (actual - exact).norm() / exact.norm() < tolerance


def test_training_starts_at_the_mean_image(small_sets):
    run = training(small_sets, learning_rate=1e-9, max_epochs=1)
    mean = small_sets[0].images[:60].reshape(60, 784).mean(0) / 255
    x = run.model.mean(torch.zeros(1, 2))[0].detach().numpy()
    assert np.abs(x - mean).max() < 0.3  # the random weights add to it
    assert np.corrcoef(x, mean)[0, 1] > 0.95


def test_more_samples_estimate_the_same_bound_with_less_noise(small_sets):
    """The variance of the reported reconstruction term falls as 1 / r; its mean does not change."""
    still = {"binarisation": "static", "learning_rate": 1e-9, "max_epochs": 80}
    spread, mean = {}, {}
    for mc_samples in (1, 16):
        run = training(small_sets, (25, 0), mc_samples=mc_samples, **still)
        # A decoder that depends more on z, so that the noise in z shows.
        run.model.decoder.output.weight.data.mul_(4)
        run.run()
        values = history(run)["train_log_px_given_z"]
        spread[mc_samples], mean[mc_samples] = values.var(ddof=1), values.mean()
    # F-test: the ratio of variances is 16.
    low, high = 16 * stats.f(79, 79).ppf([1e-4, 1 - 1e-4])
    assert low < spread[1] / spread[16] < high
    assert abs(mean[1] - mean[16]) < 4 * math.sqrt((spread[1] + spread[16]) / 80)


def test_bfloat16_gives_the_same_terms_to_its_precision(small_sets):
    elbos = []
    for precision in ("float32", "bfloat16"):
        run = training(small_sets, precision=precision, learning_rate=1e-9, max_epochs=1)
        run.run()
        elbos.append(history(run)["train_elbo"][0])
        assert all(value.dtype == torch.float32 for value in run.model.state_dict().values())
    assert elbos[1] == pytest.approx(elbos[0], rel=0.02)
    assert elbos[1] != elbos[0]


# A whole run.


def test_the_elbo_rises(small_sets):
    run = training(small_sets, (300, 100), max_epochs=6, batch_size=50)
    run.run()
    curve = history(run)
    for name in ("train_elbo", "validation_elbo"):
        assert curve[name][-1] > curve[name][0] + 10
    assert (curve["train_kl"] >= 0).all()
    for part in ("train", "validation"):
        np.testing.assert_allclose(
            curve[f"{part}_elbo"], curve[f"{part}_log_px_given_z"] - curve[f"{part}_kl"]
        )
    assert curve["epoch"].tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(("likelihood", "binarisation"), list(product(LIKELIHOODS, BINARISATIONS)))
def test_every_likelihood_trains_with_every_binarisation(small_sets, likelihood, binarisation):
    run = training(small_sets, likelihood=likelihood, binarisation=binarisation, mc_samples=2)
    run.run()
    assert np.isfinite(run.state.history).all()
    assert all(value.isfinite().all() for value in run.model.state_dict().values())
    assert all(value.dtype == torch.float32 for value in run.model.state_dict().values())


@pytest.mark.parametrize("binarisation", BINARISATIONS)
def test_the_seed_determines_the_bytes(small_sets, binarisation):
    runs = [training(small_sets, seed=seed, binarisation=binarisation) for seed in (3, 3, 4)]
    starts = [weights(run) for run in runs]
    assert starts[0] == starts[1] != starts[2]
    for run in runs:
        run.run()
    assert weights(runs[0]) == weights(runs[1]) != weights(runs[2])
    assert runs[0].state.history == runs[1].state.history != runs[2].state.history


def test_every_epoch_shows_each_image_once_in_a_new_order(small_sets):
    run = training(small_sets, binarisation="none", max_epochs=3)
    batches: list[Tensor] = []
    after_each_batch(run, lambda x, _: batches.append(x))
    run.run()
    original = cut(small_sets[0], 60).images.reshape(60, 784).astype(np.float32) / 255
    orders = []
    for epoch in range(3):
        shown = torch.cat(batches[3 * epoch : 3 * epoch + 3]).numpy()
        same = (shown[:, None] == original[None]).all(-1)
        assert (same.sum(0) == 1).all()
        assert (same.sum(1) == 1).all()
        orders.append(tuple(same.argmax(1)))
    assert len({*orders, tuple(range(60))}) == 4


# The best weights, patience.


def test_the_best_weights_are_restored(small_sets):
    """The validation ELBO of 15 images falls again after some epochs."""
    settings = {"max_epochs": 40, "patience": 1000, "learning_rate": 0.03, "decay": 0.0}
    run = training(small_sets, (15, 60), binarisation="static", seed=1, **settings)
    after: list[dict[str, bytes]] = []
    run.run(callback=lambda _: after.append(weights(run)))
    values = history(run)["validation_elbo"]
    best = int(values.argmax())
    assert len(values) == 40
    assert 0 < best < 35
    assert weights(run) == after[best]
    assert run.state.best_epoch == best + 1
    # The value in the history is the ELBO of these weights on the validation images, which are
    # their one static draw.
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
    after: list[dict[str, bytes]] = []
    run.run(callback=lambda _: after.append(weights(run)))
    assert (len(after), run.state.epoch, run.state.best_epoch) == (epochs, epochs, best)
    assert weights(run) == after[best - 1]
    assert history(run)["validation_elbo"].tolist() == values[:epochs]


def test_without_validation_images_the_last_weights_are_kept(small_sets):
    run = training(small_sets, (60, 0), max_epochs=3, patience=1, learning_rate=0.05)
    after: list[dict[str, bytes]] = []
    run.run(callback=lambda _: after.append(weights(run)))
    assert len(after) == 3
    assert weights(run) == after[-1] != after[-2]
    curve = history(run)
    for name in HISTORY:
        assert np.isnan(curve[name]).all() == name.startswith("validation")
    with_validation = training(small_sets, (60, 40), max_epochs=3, learning_rate=0.05)
    with_validation.run()
    # Validation takes nothing from the stream of random numbers.
    np.testing.assert_array_equal(history(with_validation)["train_elbo"], curve["train_elbo"])


# Binarisation.


def every_gray_level(count: int) -> ImageSet:
    """Copies of one image whose pixels run through all gray levels."""
    image = np.linspace(0, 255, 784).round().astype(np.uint8).reshape(28, 28)
    index = np.arange(count)
    images = np.repeat(image[None], count, 0)
    return ImageSet(images, index.astype(np.uint8) % 10, index, None, {"name": "mnist", "seed": 0})


def batches_of(images: ImageSet, binarisation: str, epochs: int) -> list[np.ndarray]:
    """The batches of each epoch."""
    empty = cut(replace(images, binary=images.images), 0)
    settings = Train(binarisation=binarisation, batch_size=300, max_epochs=epochs)
    run = Training(VAE(1, 1, "bernoulli"), images, empty, settings, 0, "cpu", "float32")
    batches: list[Tensor] = []
    after_each_batch(run, lambda x, _: batches.append(x))
    run.run()
    shown = torch.cat(batches).numpy().reshape(epochs, len(images), 784)
    assert shown.dtype == np.float32
    return list(shown)


def assert_drawn_from_gray_levels(draws: np.ndarray) -> None:
    """Zeros and ones [N, 784] whose mean is pixel / 255, to their sampling noise."""
    p = every_gray_level(1).images.reshape(784) / 255
    assert set(np.unique(draws)) == {0, 1}
    assert not draws[:, p == 0].any()
    assert draws[:, p == 1].all()
    inside = (p > 0) & (p < 1)
    p, draws = p[inside], draws[:, inside].astype(float)
    error = np.sqrt(p * (1 - p) / len(draws))
    z = (draws.mean(0) - p) / error
    assert abs(z).max() < 5
    low, high = stats.chi2(len(z)).ppf([1e-4, 1 - 1e-4])
    assert low < (z**2).sum() < high
    # All pixels together resolve pixel / 255 from pixel / 256.
    together = (draws.mean(0) - p).sum() / np.sqrt((error**2).sum())
    assert abs(together) < 4 < 0.5 / 256 * len(p) / np.sqrt((error**2).sum())
    # Neither pixels nor images share their draw.
    counts = ((draws - p) / np.sqrt(p * (1 - p))).sum(1) / math.sqrt(len(p))
    low, high = stats.chi2(len(counts)).ppf([1e-4, 1 - 1e-4])
    assert low < (counts**2).sum() < high


def test_dynamic_binarisation_draws_anew_with_the_gray_level_as_probability():
    epochs = batches_of(every_gray_level(1500), "dynamic", 4)
    assert_drawn_from_gray_levels(np.concatenate(epochs))
    assert len(np.unique(np.concatenate(epochs), axis=0)) == 6000


def test_static_binarisation_is_one_draw_for_all_epochs():
    images = every_gray_level(3000)
    first, second = (
        np.sort(epoch.astype(np.uint8), 0) for epoch in batches_of(images, "static", 2)
    )
    drawn = batches_of(images, "static", 1)[0]
    assert_drawn_from_gray_levels(drawn)
    np.testing.assert_array_equal(first, second)
    expected = fixed_draw(images.images, "train", 0).reshape(-1, 784)
    assert {row.tobytes() for row in drawn.astype(np.uint8)} == {row.tobytes() for row in expected}


def test_gray_levels_are_not_changed():
    images = every_gray_level(5)
    for epoch in batches_of(images, "none", 2):
        np.testing.assert_array_equal(
            epoch, images.images.reshape(5, 784).astype(np.float32) / np.float32(255)
        )


# Divergence.


@pytest.mark.parametrize(("update", "epoch", "step"), [(1, 1, 1), (5, 2, 2), (6, 2, 3)])
@pytest.mark.parametrize("validation", [0, 40])
def test_divergence_is_reported_with_its_place_and_rate(
    small_sets, update, epoch, step, validation
):
    run = training(small_sets, (60, validation), learning_rate=0.3, decay=1.0)
    count = 0

    def break_one(*_: Tensor) -> None:
        nonlocal count
        count += 1
        if count == update:
            run.model.decoder.output.bias.data[7] = math.nan

    after_each_batch(run, break_one)
    with pytest.raises(InputError) as caught:
        run.run()
    rate = 0.3 * (1 - (update - 1) / 6)
    message = str(caught.value)
    assert f"epoch {epoch}, step {step}, at learning rate {rate:.3g}:" in message
    assert "\n" not in message
    assert len(run.state.history) == epoch - 1


# Checkpoints.


class StopsAt(Checkpoint):
    """A checkpoint that is due after some steps and then asks to stop, as a signal would."""

    def __init__(self, folder: Path, steps: set[int], stop: bool = True) -> None:
        super().__init__(folder, "key", math.inf)
        self.steps, self.stop, self.count = steps, stop, 0

    def due(self) -> bool:
        self.count += 1
        if self.count not in self.steps:
            return False
        self.signal = signal.SIGTERM if self.stop else None
        return True


def resumable(sets: Sets, binarisation: str) -> Training:
    """Six epochs of three steps, of which the second is the best."""
    settings = {"max_epochs": 6, "decay": 0.5, "mc_samples": 2, "patience": 4}
    run = training(sets, (60, 40), binarisation=binarisation, **settings)
    return scripted(run, [-300, -200, -250, -260, -240, -230])


@pytest.mark.parametrize("binarisation", BINARISATIONS)
@pytest.mark.parametrize(
    "stops",
    [[1], [3], [4], [17], [2, 5, 2], [1] * 18],
    ids=["first", "end of epoch", "new epoch", "late", "thrice", "each"],
)
def test_a_resumed_run_gives_the_same_bytes(small_sets, tmp_path, stops, binarisation):
    whole = resumable(small_sets, binarisation)
    whole.run()
    for steps in stops:
        run = resumable(small_sets, binarisation)
        checkpoint = StopsAt(tmp_path, {steps})
        if saved := checkpoint.load():
            run.load_state_dict(*saved)
        with pytest.raises(Interrupted) as stopped:
            run.run(checkpoint)
        assert stopped.value.number == signal.SIGTERM
    run = resumable(small_sets, binarisation)
    run.load_state_dict(*StopsAt(tmp_path, set()).load())
    run.run()
    assert weights(run) == weights(whole)
    assert json.dumps(run.state.history) == json.dumps(whole.state.history)
    assert (run.state.epoch, run.state.best_epoch) == (6, 2)


def test_writing_checkpoints_changes_nothing(small_sets, tmp_path):
    plain, watched = (resumable(small_sets, "dynamic") for _ in range(2))
    plain.run()
    watched.run(StopsAt(tmp_path, set(range(1, 19)), stop=False))
    assert weights(watched) == weights(plain)
    assert watched.state.history == plain.state.history


def test_no_checkpoint_holds_a_diverged_training(small_sets, tmp_path):
    run = training(small_sets)
    run.model.decoder.output.bias.data[7] = math.nan
    with pytest.raises(InputError, match="epoch 1, step 1,"):
        run.run(StopsAt(tmp_path, {2}))
    assert not list(tmp_path.iterdir())


def test_an_unusable_checkpoint_is_ignored(small_sets, tmp_path, caplog):
    with pytest.raises(Interrupted):
        training(small_sets).run(StopsAt(tmp_path, {1}))
    checkpoint = Checkpoint(tmp_path, "key", math.inf)
    assert checkpoint.load() is not None
    content = checkpoint.path.read_bytes()
    other = Checkpoint(tmp_path, "other", math.inf)
    assert other.load() is None
    other.path.write_bytes(content)
    assert other.load() is None
    assert "another run" in caplog.text
    checkpoint.path.write_bytes(content[: len(content) // 2])
    assert checkpoint.load() is None
    assert "training starts anew" in caplog.text
