"""Devices as typed: what is there is taken, what is not is an error, nothing is replaced."""

from __future__ import annotations

import pytest
import torch

from alexkit.errors import DeviceMissing, UsageError
from alexkit.events import Chosen, Event, silent
from alexkit.models.specs import find_spec
from alexkit.recipes.devices import (
    decode_threads,
    devices_of_rank,
    one_device,
    place,
    resolve_devices,
)

CPU = torch.device("cpu")
GPUS = torch.cuda.device_count() if torch.cuda.is_available() else 0


def test_auto_is_said_and_takes_no_more_than_can_be_used() -> None:
    told: list[Event] = []
    for most in (1, 2):
        devices = resolve_devices("auto", told.append, most=most)
        assert len(devices) == max(1, min(GPUS, most))
        assert devices[0].type == ("cuda" if GPUS else "cpu")
    assert all(isinstance(event, Chosen) and event.name == "device" for event in told)


@pytest.mark.parametrize("text", ["", "gpu", "cuda:", "cuda:a", "cuda:0,", "cuda:0,0", "CPU"])
def test_other_words_are_no_device(text: str) -> None:
    with pytest.raises(UsageError):
        resolve_devices(text, silent)


def test_a_gpu_that_is_not_there_is_never_replaced() -> None:
    with pytest.raises(DeviceMissing, match=f"cuda:{GPUS} is not there"):
        resolve_devices(f"cuda:{GPUS}", silent)


def test_work_on_one_device_takes_one() -> None:
    assert one_device("cpu", silent) == CPU


def test_devices_and_cores_are_dealt_among_the_ranks_of_a_machine() -> None:
    for rank in range(3):  # more ranks than devices
        assert devices_of_rank("cpu", rank, 3, silent) == (CPU,)
    cores = decode_threads(None)
    assert decode_threads(None, 2) == max(1, cores // 2)
    assert decode_threads(None, 1000) == 1
    assert decode_threads(5, 2) == 5


@pytest.mark.skipif(GPUS < 1, reason="no GPU")
def test_auto_is_one_gpu_a_rank() -> None:
    dealt = [devices_of_rank("auto", rank, GPUS, silent) for rank in range(GPUS)]
    assert dealt == [(torch.device("cuda", i),) for i in range(GPUS)]
    assert devices_of_rank("auto", 0, 1, silent) == (torch.device("cuda", 0),)


@pytest.mark.parametrize(("name", "slots"), [("alexnet", 2), ("alexnet-owt", 1)])
def test_a_network_uses_all_the_devices_named_or_says_no(name: str, slots: int) -> None:
    net = find_spec(name).empty(2).to_empty(device="cpu")
    for count in range(1, slots + 1):
        place(net, name, [CPU] * count)
        assert set(net.slots) == {CPU}
    with pytest.raises(UsageError, match=f"{name} runs on"):
        place(net, name, [CPU] * (slots + 1))
