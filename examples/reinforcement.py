"""Reinforcement learning: rollouts are the data, and updates are the steps.

A policy learns to balance a pole on a cart, by PPO (Schulman et al. 2017,
https://arxiv.org/abs/1707.06347). The data of an epoch is a function of the state: it plays with
the policy as it is by then, and gives what it saw in batches.

The cart is that of Barto, Sutton and Anderson 1983, with the constants that
it has had everywhere since.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributions import Categorical

from rdev.loop import Loop, State, log

CARTS = 16  # that are played with at once
LENGTH = 128  # steps of a rollout
REPEATS = 6  # updates with each sample
BATCH = 512
LIMIT = 500  # an episode is over after so many steps, as well as when the pole falls
GAMMA, LAMBDA, CLIP = 0.99, 0.95, 0.2

Floats = NDArray[np.float64]


def step(state: State) -> dict[str, Tensor]:
    """One update of PPO: the policy moves no further than the rollout can be trusted."""
    seen, actions, chances, advantages, returns = state.batch
    policy = Categorical(logits=state.actor(seen))
    ratio = (policy.log_prob(actions) - chances).exp()
    gain = torch.minimum(ratio * advantages, ratio.clamp(1 - CLIP, 1 + CLIP) * advantages).mean()
    error = (state.critic(seen).squeeze(1) - returns).square().mean()
    loss = error / 2 - gain - 0.01 * policy.entropy().mean()
    state.optimizer.zero_grad()
    loss.backward()
    state.optimizer.step()
    return {"loss": loss, "critic": error}


class Rollouts:
    """The data: each epoch plays LENGTH steps of all carts, and cuts what was seen into batches."""

    def __init__(self, seed: int) -> None:
        self.carts = Carts(seed)

    def __call__(self, state: State) -> Iterator[tuple[Tensor, ...]]:
        """Batches of observations, actions, their log-probabilities, advantages and returns."""
        samples = self.play(state)
        log(episode=self.carts.recent())
        for _ in range(REPEATS):
            for chosen in torch.randperm(CARTS * LENGTH).split(BATCH):
                yield tuple(part[chosen] for part in samples)

    @torch.no_grad()
    def play(self, state: State) -> tuple[Tensor, ...]:
        """One rollout, its first two axes, time and carts, made one."""
        seen = torch.zeros(LENGTH + 1, CARTS, 4)
        actions = torch.zeros(LENGTH, CARTS, dtype=torch.long)
        chances, over = torch.zeros(LENGTH, CARTS), torch.zeros(LENGTH, CARTS)
        for at in range(LENGTH):
            seen[at] = torch.from_numpy(self.carts.seen)
            policy = Categorical(logits=state.actor(seen[at]), validate_args=False)
            actions[at] = policy.sample()
            chances[at] = policy.log_prob(actions[at])
            over[at] = torch.from_numpy(self.carts.move(actions[at].numpy()))
        seen[LENGTH] = torch.from_numpy(self.carts.seen)
        values = state.critic(seen).squeeze(2)
        advantages = estimate(values, over)
        returns = advantages + values[:-1]
        advantages = (advantages - advantages.mean()) / advantages.std()
        parts = (seen[:-1], actions, chances, advantages, returns)
        return tuple(part.flatten(0, 1) for part in parts)


def estimate(values: Tensor, over: Tensor) -> Tensor:
    """Generalized advantages: values (LENGTH + 1, CARTS), and where episodes ended; reward 1."""
    advantages, ahead = torch.zeros_like(over), torch.zeros(over.shape[1])
    for at in reversed(range(len(over))):
        surprise = 1 + GAMMA * values[at + 1] * (1 - over[at]) - values[at]
        ahead = surprise + GAMMA * LAMBDA * (1 - over[at]) * ahead
        advantages[at] = ahead
    return advantages


class Carts:
    """CARTS carts with a pole each, which begin anew when it falls.

    Attributes:
        seen: Position (m), speed (m/s), angle (rad) and its speed (rad/s) of each: (CARTS, 4).
    """

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.seen = self.begins(CARTS)
        self.ages = np.zeros(CARTS)
        self.finished: list[float] = []

    def begins(self, count: int) -> Floats:
        """Nearly upright, nearly at rest."""
        return self.random.uniform(-0.05, 0.05, (count, 4))

    def move(self, actions: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Pushes each to the left (0) or right (1) for 20 ms; which episodes are over then."""
        self.seen = physics(self.seen, 20.0 * actions - 10.0)
        self.ages += 1
        over = (abs(self.seen[:, 0]) > 2.4) | (abs(self.seen[:, 2]) > np.radians(12))
        over |= self.ages >= LIMIT
        self.finished += self.ages[over].tolist()
        self.seen[over] = self.begins(int(over.sum()))
        self.ages[over] = 0
        return over

    def recent(self) -> float:
        """Mean return of the last 20 episodes."""
        return float(np.mean(self.finished[-20:] or [0.0]))


def physics(seen: Floats, force: Floats) -> Floats:
    """One Euler step of 20 ms: a cart of 1 kg, a pole of 0.1 kg and 1 m; force in newtons."""
    _, speed, angle, turn = seen.T
    sine, cosine = np.sin(angle), np.cos(angle)
    pushed = (force + 0.05 * turn**2 * sine) / 1.1
    twist = (9.8 * sine - cosine * pushed) / (0.5 * (4 / 3 - 0.1 * cosine**2 / 1.1))
    push = pushed - 0.05 * twist * cosine / 1.1
    return seen + 0.02 * np.stack([speed, push, turn, twist], axis=1)


def balance(actor: nn.Module, seed: int) -> float:
    """Mean return of the policy at its best guess, over an episode of each of CARTS carts."""
    carts, playing, steps = Carts(seed), np.ones(CARTS, dtype=bool), np.zeros(CARTS)
    for _ in range(LIMIT):
        with torch.no_grad():
            actions = actor(torch.tensor(carts.seen, dtype=torch.float32)).argmax(1).numpy()
        steps += playing
        playing &= ~carts.move(actions)
    return float(steps.mean())


def main() -> None:
    """Trains, and plays with fresh carts before and after."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    actor = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 2))
    critic = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 1))
    before = balance(actor, options.seed + 1)
    state = Loop(
        step,
        Rollouts(options.seed),
        epochs=options.epochs,
        actor=actor,
        critic=critic,
        optimizer=torch.optim.Adam([*actor.parameters(), *critic.parameters()], lr=5e-3),
    ).run()
    after = balance(actor, options.seed + 1)
    print(f"mean return {before:.1f} before, {after:.1f} after {state.step} updates, of {LIMIT}")


if __name__ == "__main__":
    main()
