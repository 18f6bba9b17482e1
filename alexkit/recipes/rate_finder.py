"""A learning rate from the loss's own behaviour, before the run."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator

from alexkit.events import silent
from alexkit.images.batches import Batch, epoch_order
from alexkit.recipes.ledger import Ledger
from alexkit.recipes.plan import Plan
from alexkit.training.loop import fit
from alexkit.training.optim import load_optimizer_state, optimizer_state

STEPS = 60
FROM, TO = 1e-6, 1.0
"""Rates that are tried, each a constant factor above the one before."""
SMOOTH = 0.8
"""Share of the loss so far in its running mean, which is corrected for its start."""
LOST = 4.0
"""The loss has risen for good at so many times its lowest."""
SAFE = 10
"""The rate is so many times below that of the lowest loss (Smith 2017, arXiv:1506.01186, and
fastai's ``lr_find``, which names this point "minimum")."""


def find_rate(plan: Plan) -> tuple[float, str]:
    """Trains for some steps at rates that rise until the loss does, then forgets it.

    Weights, running statistics and momentum are as before.

    Returns:
        The rate, and one sentence that says how it was found.
    """
    kept = copy.deepcopy(plan.net.state_dict())
    buffers, rates = optimizer_state(plan.optimizer, plan.net)
    buffers = {name: buffer.clone() for name, buffer in buffers.items()}
    feed = plan.feed(plan, Ledger(None, strict=False, report=silent))

    def batches() -> Iterator[Batch]:
        for epoch in itertools.count():
            order = epoch_order(plan.holdout.train, seed=plan.seed, epoch=epoch)
            yield from feed.learning(order, epoch)[0]

    def rate(step: int) -> float:
        return float(FROM * (TO / FROM) ** (step / (STEPS - 1)))

    mean, best, at, rose = 0.0, math.inf, FROM, TO
    steps = fit(
        plan.net,
        itertools.islice(batches(), STEPS),
        plan.optimizer,
        prepare=feed.learning(plan.holdout.train[:1], 0)[1],
        loss_fn=plan.loss(),
        lr=rate,
        seed=plan.seed,
    )
    for done in steps:
        mean = SMOOTH * mean + (1 - SMOOTH) * done.loss
        loss = mean / (1 - SMOOTH ** (done.step + 1))
        if not done.applied or loss > LOST * best:
            rose = done.lr
            break
        if loss < best:
            best, at = loss, done.lr
    plan.net.load_state_dict(kept)
    load_optimizer_state(plan.optimizer, plan.net, buffers, rates)
    found = float(f"{at / SAFE:.1g}")
    return found, (
        f"learning rate {found:g}: in {STEPS} trial steps the loss was lowest at {at:.1g} and"
        f" got lost at {rose:.1g}; a {SAFE}th of the first is safe"
    )
