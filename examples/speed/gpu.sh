#!/bin/bash
# Every figure of training that needs a GPU, in under ten minutes on one (an H100's worth):
#
#   examples/speed/gpu.sh imagenette/ figures/
#
# DATA is a folder of labelled photos, a few thousand (ten classes of ImageNet will do). Left in
# the second folder are
#   training.json    images/s on synthetic images and on every loader tier, by batch size and
#                    number type, the share of the device's peak, hours for 90 epochs of ImageNet
#   compiled.json    the same step with torch.compile beside it
#   placements.json  data, hybrid and towers, where there are two GPUs or more: milliseconds and
#                    megabytes a step in float32 and bf16, and how far from one process
#   paper/, bn60/    run folders: accuracy from scratch over 60 epochs, with their curves
# and the last line says whether a killed run continues to the bit on this GPU.
set -euo pipefail

data=$1
out=$2
here=$(dirname "$0")
mkdir -p "$out"

python "$here/training.py" "$data" --device cuda --images 4000 --steps 30 \
  --batch-size 256 --batch-size 1024 \
  --precision float32 --precision tf32 --precision bf16 --json "$out/training.json"
alexkit pack "$data" --out "$out/photos.pack"
python "$here/training.py" "$out/photos.pack" --device cuda --images 4000 --steps 30 \
  --batch-size 1024 --precision bf16 --compile --json "$out/compiled.json"
gpus=$(python -c 'import torch; print(torch.cuda.device_count())')
if [ "$gpus" -gt 1 ]; then
  python "$here/placements.py" --device cuda --processes "$gpus" --batch-size 128 --steps 20 \
    --exchange float32 --exchange bf16 --json "$out/placements.json"
fi
for recipe in paper bn60; do
  alexkit train "$out/photos.pack" --recipe "$recipe" --epochs 60 --device cuda \
    --out "$out/$recipe"
done
alexkit train "$out/photos.pack" --verify-resume --device cuda --out "$out/verified"
