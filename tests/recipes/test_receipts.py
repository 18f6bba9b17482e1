"""Which recipe and network the words name, and what a run is held against."""

from __future__ import annotations

from typing import Any

import pytest

from alexkit.choices import MODELS, Ablate, RecipeName
from alexkit.errors import UsageError
from alexkit.models.specs import find_spec
from alexkit.recipes.options import TrainOptions, from_values
from alexkit.recipes.receipts import (
    ABLATED,
    RECIPES,
    bands,
    recipe_for,
    recipe_of,
    told_bands,
    watcher,
)
from alexkit.recipes.train import choose, chosen_recipe


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


def test_a_run_outside_its_band_is_told_on_imagenet_only() -> None:
    watch = watcher(RECIPES["owt"], 1000, 90)
    stuck = {"epoch": 5, "loss": 6.9, "top1": 0.001}
    assert "stuck" in (watch(stuck) or "")
    slow = {"epoch": 5, "loss": 5.5, "top1": 0.02}
    assert "learns less than it should" in (watch(slow) or "")
    assert watch(slow | {"top1": 0.25}) is None
    assert watch(slow | {"epoch": 6}) is None
    quarter = {"epoch": 23, "loss": 2.6, "top1": 0.44}
    assert watch(quarter) is None
    assert "after epoch 23 is 70.0%" in (watch(quarter | {"top1": 0.7}) or "")
    assert "held-out images among" in (watch(quarter | {"top1": 0.7}) or "")
    end = {"epoch": 90, "loss": 2.0, "top1": 0.54}
    assert "expected was 55.5% to 59.5%" in (watch(end) or "")
    assert watch(end | {"top1": 0.56}) is None
    short = watcher(RECIPES["owt"], 1000, 5)
    assert short(end | {"epoch": 5, "top1": 0.3}) is None
    assert "stuck" in (short(stuck | {"epoch": 1}) or "")
    other = watcher(RECIPES["owt"], 10, 90)
    assert other(stuck) is None
    assert other(end) is None


@pytest.mark.parametrize("name", RECIPES)
def test_the_bands_are_told_in_the_order_of_the_run(name: str) -> None:
    recipe = RECIPES[name]
    told = bands(recipe, recipe.epochs)
    assert list(told) == sorted(told)
    assert len(told) == 3
    assert list(told)[-1] == recipe.epochs
    lows, highs = zip(*told.values(), strict=True)
    assert list(lows) == sorted(lows)
    assert list(highs) == sorted(highs)
    for figure in (recipe.figure, recipe.ten_view):
        if figure:
            assert figure.band[0] < figure.top1 < figure.band[1] < figure.top5
    assert f"after epoch {recipe.epochs}" in told_bands(recipe, recipe.epochs)


def test_figures_are_of_the_network_that_is_trained() -> None:
    assert recipe_for("caffe", "bvlc-alexnet").figure != recipe_for("caffe", "caffenet").figure
    assert recipe_for("bn60", "alexnet-bn-gap").figure is None
    whole, without = (
        recipe_for("paper", model).ten_view for model in ("alexnet", "alexnet-no-lrn")
    )
    assert whole is not None
    assert without is not None
    # NIPS 2012 §3.3: normalisation takes 1.4 points of error away.
    assert whole.top1 - without.top1 == pytest.approx(0.014, abs=1e-3)
    colorless = from_values(TrainOptions, {"ablate": "no-color"})
    assert chosen_recipe(colorless)[2].ten_view is None
