"""``--device`` as typed, into torch devices that are really there."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from joblib import cpu_count

from alexkit.choices import Precision
from alexkit.errors import DeviceMissing, UsageError
from alexkit.events import Chosen, Reporter, Warned
from alexkit.models.layered import LayeredNet


def resolve_devices(text: str, report: Reporter, *, most: int = 1) -> tuple[torch.device, ...]:
    """The devices ``text`` names: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``cuda:0,1``.

    ``auto`` is the first GPUs, ``most`` of them at the most, or the CPU where there is none,
    and is said.

    Raises:
        UsageError: ``text`` is none of these forms.
        DeviceMissing: a GPU that is not there. Another device is never taken instead.
    """
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if text == "auto":
        used = min(there, most)
        found = f"cuda:{','.join(map(str, range(used)))}" if used else "cpu"
        report(Chosen("device", found, f"{there} GPUs found" if there else "no GPU found"))
        return tuple(torch.device("cuda", i) for i in range(used)) or (torch.device("cpu"),)
    if text == "cpu":
        return (torch.device("cpu"),)
    kind, colon, numbers = text.partition(":")
    indices = numbers.split(",") if colon else ["0"]
    if kind != "cuda" or not all(i.isascii() and i.isdigit() for i in indices):
        raise UsageError(
            f"--device {text!r} is no device", hint="use auto, cpu, cuda, cuda:1 or cuda:0,1"
        )
    if len(set(indices)) < len(indices):
        raise UsageError(f"--device {text} names a GPU twice", hint="name each GPU once")
    missing = [i for i in indices if int(i) >= there]
    if missing:
        count = {0: "no GPU", 1: "one GPU, cuda:0"}.get(there, f"{there} GPUs")
        raise DeviceMissing(
            f"cuda:{','.join(missing)} is not there: this machine has {count}",
            hint="use --device cpu, or see what there is with alexkit doctor",
        )
    return tuple(torch.device("cuda", int(i)) for i in indices)


def place(net: LayeredNet, name: str, devices: Sequence[torch.device]) -> None:
    """Moves a network to the devices that were asked for, all of them.

    Raises:
        UsageError: there are more devices than the network called ``name`` can use.
    """
    slots = len(net.slots)
    if len(devices) > slots:
        can = "two devices, a tower on each" if slots == 2 else "one device"
        raise UsageError(
            f"{len(devices)} devices were named, and {name} runs on {can}",
            hint=f"use --device {devices[0]}",
        )
    net.place(devices)


def one_device(text: str, report: Reporter) -> torch.device:
    """As :func:`resolve_devices`, for work that runs on a single device.

    Raises:
        UsageError: several devices were named.
    """
    devices = resolve_devices(text, report)
    if len(devices) > 1:
        raise UsageError(
            f"--device {text} names {len(devices)} devices, and this work runs on one",
            hint=f"use --device {devices[0]}",
        )
    return devices[0]


def devices_of_rank(
    text: str, local_rank: int, local_world: int, report: Reporter
) -> tuple[torch.device, ...]:
    """As :func:`resolve_devices`, dealt among the processes of this machine.

    With fewer devices than processes some get the same. One process alone takes, of ``auto``,
    the first GPU.

    Raises:
        UsageError, DeviceMissing: see :func:`resolve_devices`.
    """
    devices = resolve_devices(text, report, most=local_world)
    return devices[local_rank::local_world] or (devices[local_rank % len(devices)],)


def decode_threads(workers: int | None, local_world: int = 1) -> int:
    """``--workers``, or one a core this process may use; the cores are dealt among
    ``local_world`` processes."""
    return workers or max(1, cpu_count() // local_world)


def use_deterministic(wanted: bool) -> None:
    """Lets torch use only kernels that give equal bits on every run; raises where it has none.

    The CPU kernels of these networks are deterministic as they are.
    """
    if wanted:
        # cuBLAS reads this when the first matrix product runs.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(wanted)


def use_precision(precision: Precision, device: torch.device) -> None:
    """Lets NVIDIA GPUs round the inputs of products to TF32's 10 bits only if that was asked
    for; torch by itself lets their convolutions do so.

    Raises:
        UsageError: TF32 was asked for and ``device`` does not have it.
    """
    tf32 = precision is Precision.TF32
    if tf32 and device.type != "cuda":
        raise UsageError(
            f"--precision tf32 is of NVIDIA GPUs, and the device is {device}",
            hint="leave --precision out, or use bf16",
        )
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32


def autocast_of(
    precision: Precision, device: torch.device, report: Reporter
) -> torch.dtype | None:
    """What the products of a network are rounded to, settled for ``device``; None is nothing.

    Raises:
        UsageError: see :func:`use_precision`.
    """
    use_precision(precision, device)
    if precision is not Precision.BF16:
        return None
    if device.type == "cpu":
        # 10 times as long a step on a processor that has no such products (EPYC, 2 cores).
        report(Warned("bf16 on a CPU: most have no such products, and take longer to mimic it"))
    return torch.bfloat16
