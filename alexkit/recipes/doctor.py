"""Is this installation right: versions, devices, the decoder, features known in advance."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import torch
from PIL import Image

from alexkit.choices import Precision
from alexkit.errors import FileMismatch
from alexkit.events import Reporter
from alexkit.images.decode import decode
from alexkit.images.draws import uniform, words
from alexkit.models.layered import LayeredNet
from alexkit.models.specs import SPECS
from alexkit.recipes.devices import decode_threads, resolve_devices, use_precision
from alexkit.recipes.options import DoctorOptions
from alexkit.recipes.out_file import RESULT, check_out, write_result
from alexkit.recipes.run_dir import versions
from alexkit.reports.tables import size

GOLDEN = {
    "alexnet": (16.935371, 92.350433),
    "alexnet-owt": (195.34977, 1054.587),
    "alexnet-bn": (166.77681, 1009.7305),
    "bvlc-alexnet": (52.951485, 284.62576),
    "caffenet": (42.783777, 228.45738),
}
"""pool5 of each network for formula weights and a formula image: its mean and its largest
value. Made with torch 2.15 on x86-64; the test of this module makes them again."""

GOLDEN_TOLERANCE = 1e-4
"""Relative. Kernels of other builds differ by 1e-6; a wrong padding or constant by far more."""

Check = dict[str, Any]


def run(options: DoctorOptions, report: Reporter) -> dict[str, Any]:
    """Every check with what it found: ``{"checks": [{"check", "ok", "found"}, ...]}``.

    Raises:
        DeviceMissing: ``--device`` names a GPU that is not there.
    """
    if options.out is not None:
        check_out(options.out, options.overwrite, endings=RESULT[1:])
    devices = resolve_devices(options.device, report)
    use_precision(Precision.FLOAT32, devices[0])
    checks = [_fact(name, value) for name, value in versions().items()]
    checks += [_fact("cores", str(decode_threads(None))), *map(_device, devices), _decoder()]
    checks += [_golden(name, devices[0]) for name in GOLDEN]
    result = {"checks": checks}
    if options.out is not None:
        write_result(options.out, result, None, report)
    return result


def raise_if_wrong(result: dict[str, Any]) -> None:
    """Raises FileMismatch naming the checks that failed, if any did."""
    wrong = [check["check"] for check in result["checks"] if not check["ok"]]
    if wrong:
        raise FileMismatch(
            f"this installation computes wrong values: {', '.join(wrong)}",
            hint="install alexkit into a fresh environment and run alexkit doctor again",
        )


def _fact(name: str, value: str) -> Check:
    return {"check": name, "ok": True, "found": value}


def _device(device: torch.device) -> Check:
    if device.type == "cpu":
        return _fact("cpu", f"{torch.get_num_threads()} compute threads")
    properties = torch.cuda.get_device_properties(device)
    return _fact(str(device), f"{properties.name}, {size(properties.total_memory)}")


def _decoder() -> Check:
    """Decodes a JPEG made here with Pillow and with the fast decoder: equal to the bit."""
    y, x = np.mgrid[0:67, 0:83]
    pixels = np.stack([3 * x % 256, 2 * y % 256, x * y % 256], axis=-1).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    with Image.open(file) as image:
        reference = np.asarray(image.convert("RGB"))
    found = decode(file.getvalue(), exif=False).rgb
    equal = found.shape == reference.shape and bool((found == reference).all())
    told = "equal to Pillow to the bit" if equal else "differs from Pillow"
    return {"check": "decoder", "ok": equal, "found": told}


def golden_values(name: str, device: torch.device) -> tuple[float, float]:
    """Mean and maximum of pool5 of network ``name`` for noise that a hash gives."""
    net = SPECS[name].empty()
    net.cut("fc6")
    net = net.to_empty(device="cpu")
    net.load_canonical(_hashed_weights(net))
    net.place([device])
    side = net.input_side
    x = _noise("image", 3 * side * side).mul(60).reshape(1, 3, side, side)
    with torch.inference_mode():
        pool5 = net.eval().taps(x.to(device), ["pool5"])["pool5"].double().cpu()
    return float(pool5.mean()), float(pool5.max())


def _noise(purpose: str, count: int) -> torch.Tensor:
    """(count) float32 of mean 0 and variance 1, the same on every machine."""
    draws = uniform(words(purpose, 0, 0, np.arange(count), 1)[:, 0])
    return torch.from_numpy(((draws - 0.5) * math.sqrt(12)).astype(np.float32))


def _hashed_weights(net: LayeredNet) -> dict[str, torch.Tensor]:
    """Weights of the variance that keeps activations alive, and batch norm near rest."""
    state = {}
    for name, tensor in net.canonical_state_dict().items():
        values = _noise(name, tensor.numel())
        if tensor.ndim > 1:
            values *= math.sqrt(2 / tensor[0].numel())
        else:
            values *= 0.1
            values += name.endswith(("running_var", "bn.weight"))
        state[name] = values.reshape(tensor.shape).to(tensor.dtype)
    return state


def _golden(name: str, device: torch.device) -> Check:
    found, known = golden_values(name, device), GOLDEN[name]
    apart = max(abs(f - k) / abs(k) for f, k in zip(found, known, strict=True))
    told = f"pool5 differs by {apart:.1e} from the known values"
    return {"check": f"golden {name}", "ok": apart <= GOLDEN_TOLERANCE, "found": told}
