"""A Wasserstein GAN: five updates of the critic for each of the generator, in one step.

The generator learns to draw digits of 8 x 8 pixels. The step is itself a generator: each `yield`
ends a phase, which has a series of metrics of its own and is a place to pause at.

WGAN: Arjovsky et al. 2017, https://arxiv.org/abs/1701.07875; the gradient penalty: Gulrajani et
al. 2017, https://arxiv.org/abs/1704.00028.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import pairwise

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from rdev.loop import Callback, Loop, State, log

N_CRITIC = 5
BATCH = 64
NOISE = 16
PENALTY = 1.0
PIXELS = 64


def step(state: State) -> Iterator[tuple[str, Tensor]]:
    """One logical step: as many critic updates as `data` gave batches, then the generator's."""
    critic, generator = state.critic, state.generator
    for real in state.batch:
        fake = generator(torch.randn(len(real), NOISE)).detach()
        distance = critic(real).mean() - critic(fake).mean()
        update(state.critic_optimizer, PENALTY * slope(critic, real, fake) - distance)
        yield "critic", distance  # estimates how far the samples are from the digits
    loss = -critic(generator(torch.randn(BATCH, NOISE))).mean()
    update(state.generator_optimizer, loss)
    yield "generator", loss


def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Descends once."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def slope(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """How far the critic's slope is from 1, between real and drawn samples."""
    mix = torch.rand(len(real), 1)
    points = (mix * real + (1 - mix) * fake).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
    return ((gradient.norm(dim=1) - 1) ** 2).mean()


class Groups:
    """The data of an epoch: groups of N_CRITIC batches of shape (BATCH, PIXELS)."""

    def __init__(self, digits: Tensor) -> None:
        self.digits = digits

    def __call__(self, _state: State) -> Iterator[tuple[Tensor, ...]]:
        """Shuffles anew each epoch; what is left over comes in another."""
        order = torch.randperm(len(self.digits))
        batches = self.digits[order].split(BATCH)
        for first in range(0, len(batches) - N_CRITIC, N_CRITIC):
            yield batches[first : first + N_CRITIC]


class Quality(Callback):
    """Compares what is drawn with digits that nobody trained with."""

    def __init__(self, unseen: Tensor, every: int = 10) -> None:
        super().__init__()
        self.unseen = unseen
        self.every = every

    def epoch_end(self, state: State) -> None:
        """Logs `frechet`, the lower the better."""
        if state.epoch % self.every == 0:
            frechet = distance_to(self.unseen, state.generator)
            log(frechet=frechet)
            print(f"step {state.step}: Frechet distance {frechet:.3f}", flush=True)


@torch.no_grad()
def distance_to(unseen: Tensor, generator: nn.Module) -> float:
    """The Frechet distance of 2,000 samples to digits that nobody trained with."""
    return frechet_distance(generator(torch.randn(2000, NOISE)), unseen)


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Between Gaussians fitted to two sets of samples, (N, D) and (M, D): 0 if they are alike.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)): what FID measures, but in the space of pixels.
    """
    covariances = torch.cov(first.double().T), torch.cov(second.double().T)
    roots = torch.linalg.eigvals(covariances[0] @ covariances[1]).real.clamp(min=0).sqrt()
    apart = ((first.mean(0) - second.mean(0)) ** 2).sum()
    return float(apart + covariances[0].trace() + covariances[1].trace() - 2 * roots.sum())


def network(*widths: int, last: nn.Module) -> nn.Sequential:
    """A perceptron through these widths."""
    layers: list[nn.Module] = []
    for inside, outside in pairwise(widths):
        layers += [nn.Linear(inside, outside), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1], last)


def main() -> None:
    """Trains, and compares the samples with digits from before and after."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    digits = torch.tensor(load_digits().data, dtype=torch.float32) / 16
    digits = digits[torch.randperm(len(digits))]
    train, unseen = digits[:1300], digits[1300:]
    critic = network(PIXELS, 128, 128, 1, last=nn.Identity())
    generator = network(NOISE, 128, 128, PIXELS, last=nn.Sigmoid())
    before = distance_to(unseen, generator)
    state = Loop(
        step,
        Groups(train),
        epochs=options.epochs,
        callbacks=[Quality(unseen)],
        critic=critic,
        generator=generator,
        critic_optimizer=torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.5, 0.9)),
        generator_optimizer=torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.9)),
    ).run()
    print(
        f"Frechet distance {before:.2f} before, {distance_to(unseen, generator):.2f} after "
        f"{state.step} steps, {frechet_distance(train, unseen):.2f} between real digits"
    )


if __name__ == "__main__":
    main()
