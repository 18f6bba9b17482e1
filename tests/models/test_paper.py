"""The two-tower network against the same network written with grouped convolutions."""

from __future__ import annotations

import logging

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from alexkit.models.division import Division
from alexkit.models.layered import LayeredNet, initialise, joined
from alexkit.models.paper import Tower, TwoTowerAlexNet, dropped
from tests.models.conftest import lively

LOG = logging.getLogger(__name__)  # figures: pytest --log-cli-level=INFO

LABELS = torch.tensor([1, 998, 500])


def norm_in_towers(x: Tensor) -> Tensor:
    """torch's normalisation over each tower's maps: towers are put into the batch."""
    n, c, h, w = x.shape
    halves = x.reshape(2 * n, c // 2, h, w)
    return F.local_response_norm(halves, 5, alpha=5e-4, beta=0.75, k=2.0).reshape(n, c, h, w)


def grouped(p: dict[str, Tensor], x: Tensor, *, training: bool) -> dict[str, Tensor]:
    """The paper's network on one device, from canonical tensors; independent of alexkit."""

    def conv(x: Tensor, layer: str, **how: int) -> Tensor:
        return F.conv2d(x, p[f"{layer}.weight"], p[f"{layer}.bias"], **how).relu()

    def drop(x: Tensor) -> Tensor:
        return x * (torch.empty_like(x).bernoulli_(0.5) if training else 0.5)

    v = {"conv1": conv(F.pad(x, (0, 3, 0, 3)), "conv1", stride=4)}
    v["norm1"] = norm_in_towers(v["conv1"])
    v["pool1"] = F.max_pool2d(v["norm1"], 3, 2)
    v["conv2"] = conv(v["pool1"], "conv2", padding=2, groups=2)
    v["norm2"] = norm_in_towers(v["conv2"])
    v["pool2"] = F.max_pool2d(v["norm2"], 3, 2)
    v["conv3"] = conv(v["pool2"], "conv3", padding=1)
    v["conv4"] = conv(v["conv3"], "conv4", padding=1, groups=2)
    v["conv5"] = conv(v["conv4"], "conv5", padding=1, groups=2)
    v["pool5"] = F.max_pool2d(v["conv5"], 3, 2)
    flat = v["pool5"].flatten(1)
    v["fc6"] = F.linear(flat, p["fc6.weight"], p["fc6.bias"]).relu()
    v["fc7"] = F.linear(drop(v["fc6"]), p["fc7.weight"], p["fc7.bias"]).relu()
    v["fc8"] = F.linear(drop(v["fc7"]), p["fc8.weight"], p["fc8.bias"])
    return v


def canonical_gradients(net: LayeredNet) -> dict[str, Tensor]:
    parts: dict[str, list[Tensor]] = {}
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        parts.setdefault(net.canonical_name(name), []).append(parameter.grad.cpu())
    return {name: torch.cat(grads) for name, grads in parts.items()}


def run(net: LayeredNet, x: Tensor, *, training: bool) -> tuple[float, dict[str, Tensor]]:
    net.train(training).zero_grad()
    torch.manual_seed(42)
    loss = F.cross_entropy(net(x), LABELS.to(net.slots[0]))
    loss.backward()
    return loss.item(), canonical_gradients(net)


@pytest.fixture(scope="module")
def net(make_net) -> LayeredNet:
    return make_net("alexnet")


@pytest.fixture(scope="module")
def wide_net(make_net) -> LayeredNet:
    """In float64: in float32, two sums of one convolution differ in the last bits, and now and
    then that turns which pixel a pooling takes, and with it a whole gradient. A tower's fc6 and
    fc7 have 64 units each: products with the paper's 2,048 would take most of the time."""
    net = make_net("alexnet")
    for tower in net.towers:
        tower.fc6, tower.fc7 = nn.Linear(9216, 64), nn.Linear(128, 64)
    net.fc8 = nn.Linear(128, 1000)
    lively(net, 0)
    return net.double()


def test_every_layer_equals_the_grouped_network(net, make_images, difference) -> None:
    x = make_images(n=3)
    with torch.inference_mode():
        expected = grouped(net.canonical_state_dict(), x, training=False)
        got = net.eval().taps(x, list(expected))
    figures = {name: difference(got[name], expected[name]) for name in expected}
    LOG.info("largest relative difference %.1e", max(figures.values()))
    assert max(figures.values()) <= 1e-5, figures
    assert difference(got["norm1"], got["conv1"]) > 0.1, "normalisation must matter"


@pytest.mark.parametrize(
    ("devices", "training"),
    [(["cpu"], False), (["cpu"], True), (["cpu", "cpu"], True)],
    ids=["one device", "one device, dropout", "two slots, dropout"],
)
def test_loss_and_every_gradient_equal_the_grouped_networks(
    wide_net, make_images, difference, devices, training
) -> None:
    x = make_images(n=3).double()
    parameters = {
        name: t.detach().clone().requires_grad_()
        for name, t in wide_net.canonical_state_dict().items()
    }
    torch.manual_seed(42)
    expected = F.cross_entropy(grouped(parameters, x, training=training)["fc8"], LABELS)
    expected.backward()
    wide_net.place([torch.device(d) for d in devices])
    loss, gradients = run(wide_net, x, training=training)
    worst = max(difference(gradients[n], t.grad) for n, t in parameters.items())
    LOG.info("largest relative difference %.1e", worst)
    assert gradients.keys() == parameters.keys()
    assert loss == pytest.approx(expected.item(), rel=1e-10)
    assert worst <= 1e-10


def test_dropout_changes_the_loss_and_follows_the_seed(net, make_images) -> None:
    x = make_images(n=3)
    plain, masked = run(net, x, training=False)[0], run(net, x, training=True)[0]
    assert plain != masked
    assert run(net, x, training=True)[0] == masked


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU for the second slot")
def test_a_gpu_as_second_slot_gives_the_same(wide_net, make_images, difference) -> None:
    x = make_images(n=3).double()
    wide_net.place([torch.device("cpu")])
    here, expected = run(wide_net, x, training=True)
    wide_net.place([torch.device("cpu"), torch.device("cuda:0")])
    try:
        there, gradients = run(wide_net, x, training=True)
    finally:
        wide_net.place([torch.device("cpu")])
    assert there == pytest.approx(here, rel=1e-10)
    assert max(difference(gradients[n], g) for n, g in expected.items()) <= 1e-10


def test_each_tower_stays_on_its_slot_and_fc8_on_the_first() -> None:
    # Fake tensors have devices without a machine that has them; mixing two is an error.
    with FakeTensorMode():
        net = TwoTowerAlexNet(10)
        with torch.device("cuda:1"):
            try:
                net.towers[1] = Tower()
            except RuntimeError:
                pytest.skip(
                    "this torch, 2.6 say, asks the GPU for a fake tensor's first values"
                )
        x = torch.empty(2, 3, 224, 224)
        assert net.slots == (torch.device("cpu"), torch.device("cuda:1"))
        seen = {}
        for name, value in net.walk(x):
            seen[name] = [part.device for part in value]
    assert seen.pop("fc8") == [net.slots[0]]
    assert all(devices == list(net.slots) for devices in seen.values())
    assert joined((torch.zeros(1, 2), torch.ones(1, 3))).tolist() == [[0, 0, 1, 1, 1]]


def test_dropout_as_the_paper_scales_it() -> None:
    halves = (torch.ones(64, 50), torch.ones(64, 30))
    torch.manual_seed(0)
    first, second = dropped(halves, Division(), training=True)
    torch.manual_seed(0)
    mask = torch.empty(64, 80).bernoulli_(0.5)
    assert torch.equal(torch.cat([first, second], dim=1), mask), "kept units are not scaled"
    assert 0.45 < mask.mean() < 0.55
    judged = dropped(halves, Division(), training=False)
    assert [half.unique().tolist() for half in judged] == [[0.5], [0.5]]


def test_canonical_shapes(net) -> None:
    state = net.canonical_state_dict()
    assert {n: tuple(t.shape) for n, t in state.items() if n.endswith("weight")} == {
        "conv1.weight": (96, 3, 11, 11),
        "conv2.weight": (256, 48, 5, 5),
        "conv3.weight": (384, 256, 3, 3),
        "conv4.weight": (384, 192, 3, 3),
        "conv5.weight": (256, 192, 3, 3),
        "fc6.weight": (4096, 9216),
        "fc7.weight": (4096, 4096),
        "fc8.weight": (1000, 4096),
    }


def test_canonical_tensors_make_an_equal_network(net, make_net, make_images) -> None:
    other = make_net("alexnet", seed=9)
    x = make_images(n=1)
    with torch.inference_mode():
        assert not torch.equal(other(x), net.eval()(x))
        other.load_canonical(net.canonical_state_dict())
        assert torch.equal(other(x), net(x))


def test_initial_values_are_the_papers(make_net) -> None:
    net = make_net("alexnet")
    initialise(net, 0)
    state = net.canonical_state_dict()
    for name, tensor in state.items():
        layer, kind = name.split(".")
        if kind == "weight":
            assert tensor.std().item() == pytest.approx(0.01, rel=0.02), name
            assert abs(tensor.mean().item()) < 2e-4, name
        else:
            expected = {0.0} if layer in ("conv1", "conv3", "fc8") else {1.0}
            assert set(tensor.tolist()) == expected, name
