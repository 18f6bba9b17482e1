"""Is a feature file what a plain torchvision script computes? Prints the difference a layer.

    alexkit features photos/ --weights alexnet.pth --layer conv1 --layer pool5 --out F.h5
    python examples/compare_with_torchvision.py F.h5 alexnet.pth

The difference is max |ours - theirs| / max |theirs| over all rows of a layer.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from PIL import Image
from torchvision.models import alexnet
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.transforms import CenterCrop, Compose, Normalize, PILToTensor, Resize

from alexkit.features.store import FeatureStore

# The modules after whose ReLU (or pooling) torchvision's network has our layers.
NODES = {
    "conv1": "features.1",
    "pool1": "features.2",
    "conv2": "features.4",
    "pool2": "features.5",
    "conv3": "features.7",
    "conv4": "features.9",
    "conv5": "features.11",
    "pool5": "features.12",
    "fc6": "classifier.2",
    "fc7": "classifier.5",
    "fc8": "classifier.6",
}


def main(features: Path, weights: Path) -> dict[str, float]:
    """Recomputes every row and returns the relative difference of each layer."""
    net = alexnet()
    net.load_state_dict(torch.load(weights, weights_only=True), strict=False)
    preset = Compose(
        [
            Resize(256),
            CenterCrop(224),
            PILToTensor(),
            lambda x: x.float() / 255,
            Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    with FeatureStore.open(features) as store, torch.inference_mode():
        nodes = {NODES[layer]: layer for layer in store.layers}
        extractor = create_feature_extractor(net.eval(), nodes)
        apart, largest = dict.fromkeys(store.layers, 0.0), dict.fromkeys(store.layers, 0.0)
        rows = store.rows()
        for row in rows:
            path = Path(store.provenance["data"]["root"]) / store.paths[row]
            theirs = extractor(preset(Image.open(path).convert("RGB"))[None])
            for layer, values in theirs.items():
                ours = torch.from_numpy(store.values(layer, rows[rows == row]))
                apart[layer] = max(apart[layer], float((ours - values).abs().max()))
                largest[layer] = max(largest[layer], float(values.abs().max()))
    return {layer: apart[layer] / largest[layer] for layer in apart}


if __name__ == "__main__":
    for layer, difference in main(Path(sys.argv[1]), Path(sys.argv[2])).items():
        print(f"{layer}  {difference:.1e}")
