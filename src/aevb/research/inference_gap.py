"""Estimate log p(x), and take the gap between it and the ELBO apart.

With q* the best Gaussian with diagonal covariance for an image (Cremer et al. 2018,
arXiv:1801.03558), log p(x) − ELBO is the sum of

- the approximation gap, log p(x) − ELBO(q*), and
- the amortisation gap, ELBO(q*) − ELBO, which is due to the encoder.
"""

import math
from dataclasses import dataclass

from aevb.bounds import LatentVariableModel, elbo, encoded_terms, iwae_bound
from aevb.evaluation import DRAWS, evaluate, noise
from aevb.exact import exact
from aevb.intervals import mean_and_se, means_with_errors
from aevb.optimiser import Optimiser
from aevb.plumbing.params import InferenceGap, TrainSet
from aevb.research import ais, qmc, scoring
from aevb.rng import Doubles, Floats, Random

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

RATE = 0.03
"""Initial learning rate of Adam for mu and log sigma² of q*; it decays linearly to 0."""


class Files(scoring.Scored):
    """The files of this stage."""

    train: TrainSet


@dataclass
class Optimised:
    """A model whose q(z|x) is optimised for each image, from the encoder's output.

    Adam maximises the ELBO in `steps` steps with DRAWS fresh samples of z each. The noise of an
    image depends on its place in the block of images only.
    """

    model: LatentVariableModel
    steps: int
    seed: int

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """mu and log sigma² of q*, each [B, k]."""
        with torch.inference_mode(False), torch.enable_grad():
            x = x.clone()
            mu, log_var = (Parameter(code.clone()) for code in self.model.encode(x))
            adam = Optimiser("adam", [mu, log_var], exact=True)
            draws = noise(mu, self.steps * DRAWS, Random("optimise q", self.seed))
            for step, eps in enumerate(draws):
                loss = -elbo(encoded_terms(self.model, x, mu, log_var, eps)).sum()
                loss.backward()
                adam.step(RATE * (1 - step / self.steps))
        return mu.detach(), log_var.detach()

    def log_px_given_z(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z), [R, B]."""
        return self.model.log_px_given_z(x, z)


def shuffled(x: Floats, count: int, seed: int, name: str) -> tuple[Floats, Floats]:
    """`count` of the images [N, D], drawn at random, and the others.

    The first half of MNIST's test set is easier than the second one.
    """
    scoring.require(count <= len(x), f"--images {count}: the {name} set has {len(x)} images")
    x = x[Random(f"inference gap {name}", seed).permutation(len(x))]
    return x[:count], x[count:]


def sample_counts(samples: int) -> list[int]:
    """The values of K: the powers of ten below `samples`, then `samples`."""
    return [10**power for power in range(len(str(samples - 1))) if 10**power < samples] + [samples]


def groups(log_weights: Tensor, k: int) -> Tensor:
    """Log weights [R, B] as disjoint groups of K draws, [K, R // K, B]; a rest is left out.

    So every draw is used for every K, and bounds with small K have little noise.
    """
    count = len(log_weights) // k
    return log_weights[: count * k].reshape(count, k, -1).transpose(0, 1)


def bounds_against_k(
    model: LatentVariableModel, x: Floats, samples: int, seed: int
) -> dict[str, Doubles]:
    """The ELBO and, for each K of `sample_counts(samples)`, the IWAE bound, for images [N, D].

    Returns:
        Per image, float64 [N]: `elbo` and `iwae_K`.
    """

    def against_k(log_weights: Tensor) -> dict[str, Tensor]:
        counts = sample_counts(samples)
        return {f"iwae_{k}": iwae_bound(groups(log_weights, k)).mean(0) for k in counts}

    terms = evaluate(model, x, samples, seed, bounds=against_k)
    return {name: terms[name].astype(np.float64) for name in terms if name[:4] in ("elbo", "iwae")}


def main(files: Files, settings: InferenceGap) -> None:
    """Estimate log p(x) of test and training images in several ways, and take the gap apart.

    `log_px` is quasi-Monte Carlo for up to three latent dimensions and a likelihood that is linear
    in x. Otherwise it is the IWAE bound with q*, which is on average too low, and so are its gap
    and the approximation gap. q* itself may miss the best Gaussian: then the approximation gap is
    too high and the amortisation gap too low. `overfitting` is the amortisation gap on test less
    that on training images. The prefix `train_` is for training images, and `optimised_` for q*.
    """
    inputs = scoring.read_inputs("inference_gap", files.model, files.test)
    model, count, seed = inputs.model, settings.images, settings.seed
    x, others = shuffled(inputs.x, count, seed, "test")
    x_train, _ = shuffled(inputs.training_images(files.train), count, seed, "train")
    both, optimised = np.concatenate([x, x_train]), Optimised(model, settings.steps, seed)
    with exact():
        bounds, best = (
            bounds_against_k(q, both, settings.samples, seed) for q in (model, optimised)
        )
    metrics: dict[str, float] = {"images": count, "is_log_likelihood": inputs.is_log_likelihood()}
    elbo, best_elbo, log_px = bounds["elbo"], best["elbo"], best[f"iwae_{settings.samples}"]
    terms: dict[str, Doubles] = {}
    if model.latent_dim <= qmc.LARGEST and model.likelihood.outputs == 1:
        with exact():
            score = qmc.bernoulli_score(model, torch.from_numpy(both))
            estimates = qmc.log_means(score, model.latent_dim, settings.points, seed)
            log_px = qmc.summarise(estimates)[0].numpy()
            _, metrics["qmc_error"], metrics["qmc_doubling"] = qmc.summarise(estimates[:, :count])
        terms["qmc_minus_elbo"] = (log_px - elbo)[:count]
    with exact():
        annealed, simulated, metrics["acceptance"] = ais.bounds(
            model, x, others, settings.temperatures, settings.leapfrog, seed
        )
    terms["ais_minus_elbo"] = annealed - elbo[:count]
    terms["ais_minus_log_px"] = annealed - log_px[:count]
    for prefix, found in (("", bounds), ("optimised_", best)):
        for k in sample_counts(settings.samples):
            terms[f"{prefix}iwae_{k}_minus_elbo"] = (found[f"iwae_{k}"] - elbo)[:count]
    for name, values in {
        "elbo": elbo,
        "log_px": log_px,
        "gap": log_px - elbo,
        "approximation_gap": log_px - best_elbo,
        "amortisation_gap": best_elbo - elbo,
    }.items():
        terms |= {name: values[:count], f"train_{name}": values[count:]}
    terms |= simulated
    metrics |= means_with_errors(terms)
    (test, test_se), (train, train_se) = (
        mean_and_se((best_elbo - elbo)[part]) for part in (slice(count), slice(count, None))
    )
    metrics |= {"overfitting": test - train, "overfitting_se": math.sqrt(test_se**2 + train_se**2)}
    summary = "log p(x) {log_px:.2f} nats per image, {gap:.2f} ± {gap_se:.2f} above the ELBO"
    inputs.write(files, terms, metrics, summary)
