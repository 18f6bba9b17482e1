"""Which recipe and network the words name, and what a run is held against."""

from __future__ import annotations

from typing import Any

import pytest

from alexkit.choices import MODELS, Ablate, RecipeName
from alexkit.errors import UsageError
from alexkit.models.specs import find_spec
from alexkit.recipes.options import TrainOptions, from_values
from alexkit.recipes.receipts import ABLATED, RECIPES, recipe_of, watcher
from alexkit.recipes.train import choose


def chosen(**words: Any) -> tuple[str, str]:
    return choose(from_values(TrainOptions, words))


def test_every_word_has_its_recipe_and_every_network_one() -> None:
    assert {word.value for word in RecipeName} == set(RECIPES)
    assert {word.value for word in Ablate} == {*ABLATED, "no-color"}
    for recipe in RECIPES.values():
        assert all(find_spec(model) for model in recipe.models)
        assert recipe.schedule(recipe.lr, recipe.epochs).lr(recipe.epochs / 2) > 0
    assert [recipe_of(m) for m in MODELS] == ["paper", "owt", "bn60", "caffe", "caffe"]


def test_the_words_together() -> None:
    assert chosen() == ("paper", "alexnet")
    assert chosen(recipe="code-145") == ("code-145", "alexnet-code-145")
    assert chosen(recipe="code-145", model="alexnet") == ("code-145", "alexnet-code-145")
    assert chosen(ablate="half") == ("paper", "alexnet-half")
    assert chosen(ablate="no-color") == ("paper", "alexnet")
    assert chosen(recipe="fast", head="gap") == ("fast", "alexnet-bn-gap")
    assert chosen(model="caffenet") == ("caffe", "caffenet")


@pytest.mark.parametrize(
    "words",
    [
        {"recipe": "bn60", "model": "alexnet"},
        {"recipe": "paper", "head": "gap"},
        {"ablate": "tanh", "model": "caffenet"},
        {"ablate": "no-lrn", "recipe": "code-145"},
        {"recipe": "owt", "ablate": "half"},
    ],
)
def test_words_that_do_not_go_together(words: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="is not for"):
        chosen(**words)


def test_the_released_schedule() -> None:
    code = RECIPES["code-145"]
    schedule = code.schedule(code.lr, code.epochs)
    rates = [schedule.lr(epoch) for epoch in (0, 24.9, 25.1, 50.9, 51.1, 78.9, 79.1)]
    assert rates == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4, 1e-5])


def test_a_stuck_run_and_a_poor_end_are_told_on_imagenet_only() -> None:
    watch = watcher(RECIPES["owt"], 1000, 90)
    stuck = {"epoch": 5, "loss": 6.9, "top1": 0.001}
    assert "stuck" in (watch(stuck) or "")
    assert watch(stuck | {"loss": 5.5}) is None
    assert watch(stuck | {"epoch": 6}) is None
    end = {"epoch": 90, "loss": 2.0, "top1": 0.54}
    assert "56.5% was to be expected" in (watch(end) or "")
    assert watch(end | {"top1": 0.56}) is None
    other = watcher(RECIPES["owt"], 10, 90)
    assert other(stuck) is None
    assert other(end) is None
