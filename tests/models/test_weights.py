"""Weight files: every name, a round trip, then damage."""

from __future__ import annotations

import errno
import json
import os
import pickle
import stat
from collections import OrderedDict
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from alexkit.errors import DamagedFile, DataError, OutOfSpace, WeightsMismatch
from alexkit.models.specs import SPECS
from alexkit.models.weights import (
    canonical_name,
    file_sha256,
    fit_state,
    read_state,
    state_sha256,
    write_weights,
)

CPU = torch.device("cpu")


def small_state() -> dict[str, Tensor]:
    """A few tensors under canonical names, of several types and layouts."""
    generator = torch.Generator().manual_seed(0)
    conv = torch.randn(4, 3, 5, 5, generator=generator)
    return {
        "conv1.weight": conv.to(memory_format=torch.channels_last),
        "conv1.bias": torch.randn(4, generator=generator),
        "conv1.bn.num_batches_tracked": torch.tensor(12),
        "fc8.weight": torch.randn(6, 4, generator=generator).T,
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("features.0.weight", "conv1.weight"),
        ("features.10.bias", "conv5.bias"),
        ("classifier.1.weight", "fc6.weight"),
        ("classifier.6.bias", "fc8.bias"),
        ("module.features.3.weight", "conv2.weight"),
        ("features.module.8.weight", "conv4.weight"),
        ("_orig_mod.module.classifier.4.bias", "fc7.bias"),
        ("conv4_w_0", "conv4.weight"),
        ("fc6_b_0", "fc6.bias"),
        ("conv3_w", "conv3.weight"),
        ("conv1.bn.running_mean", "conv1.bn.running_mean"),
        ("features.1.weight", "features.1.weight"),
        ("layer4.1.conv2.weight", "layer4.1.conv2.weight"),
    ],
)
def test_canonical_names(name: str, expected: str) -> None:
    assert canonical_name(name) == expected


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "w.safetensors"
    state = small_state()
    metadata = {"model": "alexnet", "classes": json.dumps(["fjord", "ärla", "木"])}
    digest = write_weights(path, state, metadata)
    got, said = read_state(path)
    assert said == metadata
    assert got.keys() == state.keys()
    assert all(torch.equal(got[name], tensor) for name, tensor in state.items())
    assert digest == file_sha256(path)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    state["conv1.bias"] += 1
    assert write_weights(path, state, metadata) != digest
    assert torch.equal(read_state(path)[0]["conv1.bias"], state["conv1.bias"])


def test_anyone_may_read_what_was_written(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    write_weights(tmp_path / "w.safetensors", small_state(), {})
    modes = {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()}
    assert modes == {stat.S_IMODE(plain.stat().st_mode)}, "as any other file made here"


def test_the_hash_of_tensors_is_of_all_that_they_are() -> None:
    state = small_state()
    digest = state_sha256(state)
    reordered = {name: state[name].clone().contiguous() for name in reversed(state)}
    assert state_sha256(reordered) == digest
    changes = {
        "conv1.bias": state["conv1.bias"] + 1e-6,
        "fc8.weight": state["fc8.weight"].reshape(6, 4),
        "conv1.bn.num_batches_tracked": torch.tensor(12, dtype=torch.int32),
        "another": torch.zeros(0),
    }
    assert digest not in {state_sha256({**state, n: t}) for n, t in changes.items()}


@pytest.mark.parametrize("nested", [None, "state_dict", "model"])
@pytest.mark.parametrize("old_format", [False, True])
def test_torch_files(tmp_path: Path, nested: str | None, old_format: bool) -> None:
    state = OrderedDict((f"module.{n}", t) for n, t in small_state().items())
    saved = {"epoch": 3, nested: state} if nested else state
    torch.save(saved, tmp_path / "w.pth", _use_new_zipfile_serialization=not old_format)
    got, metadata = read_state(tmp_path / "w.pth")
    assert metadata == {}
    assert all(torch.equal(got[name], tensor) for name, tensor in small_state().items())


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    write_weights(tmp_path / "w.pth", small_state(), {"a": "b"})
    assert read_state(tmp_path / "w.pth")[1] == {"a": "b"}
    torch.save(small_state(), tmp_path / "w.safetensors")
    assert read_state(tmp_path / "w.safetensors")[0].keys() == small_state().keys()


class Payload:
    """Unpickling this touches a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("how", ["zip", "old torch", "plain pickle"])
def test_a_pickle_is_never_executed(tmp_path: Path, how: str) -> None:
    path, target = tmp_path / "w.pth", tmp_path / "executed"
    bait = {"features.0.weight": torch.zeros(1), "x": Payload(target)}
    if how == "plain pickle":
        path.write_bytes(pickle.dumps({"x": Payload(target)}))
    else:
        torch.save(bait, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(DamagedFile, match="nothing in it was run") as caught:
        read_state(path)
    assert not target.exists()
    assert caught.value.exit_status == 4
    pickle.loads(pickle.dumps(Payload(target)))
    assert target.exists(), "the bait must be a working one"


@pytest.mark.parametrize(
    "thing",
    [
        torch.zeros(3),
        [torch.zeros(3)],
        {},
        {"conv1.weight": 3.0},
        {1: torch.zeros(2)},
        {"conv1.weight": torch.zeros(2, 2).to_sparse()},
        {"state_dict": {"conv1.weight": [1, 2]}},
        "text",
    ],
    ids=["tensor", "list", "empty", "number", "int key", "sparse", "nested list", "text"],
)
def test_torch_files_that_are_no_state_dict(tmp_path: Path, thing: object) -> None:
    torch.save(thing, tmp_path / "w.pth")
    with pytest.raises(DamagedFile, match="no state dict"):
        read_state(tmp_path / "w.pth")


@pytest.mark.parametrize("kind", ["safetensors", "zip", "old torch"])
def test_truncated_anywhere(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "w"
    if kind == "safetensors":
        write_weights(path, small_state(), {"model": "alexnet"})
    else:
        torch.save(small_state(), path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    assert read_state(path)
    for length in [0, 1, 7, 8, 9, 40, len(whole) // 2, len(whole) - 20, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedFile):
            read_state(path)


def test_bytes_of_anything_else(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    for content in (b"\xff" * 100, b"(^.^)" * 999, (2**60).to_bytes(8, "little") + b"{}"):
        path.write_bytes(content)
        with pytest.raises(DamagedFile):
            read_state(path)


def test_the_same_tensor_twice(tmp_path: Path) -> None:
    state = {"conv1.weight": torch.zeros(1), "features.0.weight": torch.ones(1)}
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(DamagedFile, match=r"conv1\.weight twice"):
        read_state(tmp_path / "w.safetensors")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.pth", tmp_path):
        with pytest.raises(DataError, match="cannot be read"):
            read_state(path)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.safetensors"
    digest = write_weights(path, small_state(), {})

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutOfSpace, match="No space left"):
        write_weights(path, {"conv1.bias": torch.zeros(9)}, {})
    assert file_sha256(path) == digest
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.fixture(scope="module")
def whole_state(make_net) -> dict[str, Tensor]:
    return make_net("alexnet-owt").canonical_state_dict()


def test_weights_that_fit(whole_state) -> None:
    net = SPECS["alexnet-owt"].empty().to_empty(device=CPU)
    half = {name: t.half() for name, t in whole_state.items()}
    assert fit_state(net, half) == ()
    assert all(torch.equal(t, half[n].float()) for n, t in net.canonical_state_dict().items())


@pytest.mark.parametrize("first", ["fc6", "fc7", "fc8"])
def test_weights_without_the_classifier_or_its_end(whole_state, first: str) -> None:
    net = SPECS["alexnet-owt"].empty().to_empty(device=CPU)
    cut = ["fc6", "fc7", "fc8"][["fc6", "fc7", "fc8"].index(first) :]
    partial = {n: t for n, t in whole_state.items() if n.split(".")[0] not in cut}
    missing = [f"{layer}.{kind}" for layer in cut for kind in ("weight", "bias")]
    assert fit_state(net, partial) == tuple(missing)
    assert net.canonical_state_dict().keys() == partial.keys()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda s: s.pop("conv3.bias"), r"missing conv3\.bias"),
        (lambda s: s.pop("fc7.bias"), r"missing fc7\.bias"),
        (lambda s: [s.pop(n) for n in list(s) if n.startswith("fc6")], r"missing fc6\.weight"),
        (
            lambda s: [s.pop(n) for n in list(s) if n > "conv2"],
            r"missing conv2\.weight.* and 6 more",
        ),
        (lambda s: s.update(extra=torch.zeros(1)), "unexpected extra"),
        (
            lambda s: s.update({"conv1.weight": torch.zeros(96, 3, 11, 11)}),
            r"\(96, 3, 11, 11\)",
        ),
        (lambda s: s.update({"fc8.bias": torch.zeros(7)}), r"fc8\.bias \(7,\) where \(1000,\)"),
        (lambda s: s.update({"fc8.bias": torch.zeros(1000, dtype=torch.int32)}), "int32"),
        (lambda s: s.clear(), r"missing conv1\.weight.* and 8 more"),
    ],
    ids=["conv", "fc7 bias", "fc6", "many", "extra", "shape", "classes", "integers", "all"],
)
def test_weights_that_do_not_fit(whole_state, spoil, said: str) -> None:
    net = SPECS["alexnet-owt"].empty()
    state = dict(whole_state)
    spoil(state)
    with pytest.raises(WeightsMismatch, match=said) as caught:
        fit_state(net, state, what="w.pth does not fit alexnet-owt")
    assert caught.value.message.startswith("w.pth does not fit alexnet-owt: ")
    assert caught.value.exit_status == 4
    assert net.fc6 is not None, "the network is as it was"
