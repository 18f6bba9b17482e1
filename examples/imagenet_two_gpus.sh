#!/bin/bash
# The paper's network on ImageNet (ILSVRC-2012) on two GPUs of one machine, then its features.
#
#   examples/imagenet_two_gpus.sh imagenet/ [a fast disk for the pack, 252 GB]
#
# What follows the disk is given to train. The whole way on a few photos and without GPUs:
#
#   examples/imagenet_two_gpus.sh photos/ . --device cpu --epochs 1 --batch-size 16
#
# Hardware: two NVIDIA GPUs with 8 GB or more each; 252 GB of disk for the packed images.
# Time, from published figures, not measured with this script: the two GTX 580 of 2012 took 5
# to 6 days for 90 epochs (NIPS 2012, section 5); two P100 trained an AlexNet at 5,658 images a
# second on synthetic data and 4,448 on real data (TensorFlow's benchmarks, 2017), at which 90
# epochs, 115 million images, take 5.7 and 7.2 hours. Packing once takes as long as decoding
# 1.28 million JPEGs: about half an hour on 16 cores.
# Accuracy to expect: 59.3 % top-1 and 81.8 % top-5 of ten views, as the 2012 code logged it
# (40.7 and 18.2 % error in the paper); about two points less of the centre crop. The paper
# gives no spread between runs.
#
# It can be stopped (Ctrl-C, SIGTERM, SIGUSR1) and begun again at any time: it goes on from
# where it was.
set -euo pipefail

images=$1
pack=${2:-.}/imagenet.pack
shift "$(($# < 2 ? $# : 2))"
# The last word of an option counts.
options=(--recipe paper --device "cuda:0,1" --parallel auto "$@")

alexkit check "$images"
[ -f "$pack" ] || alexkit pack "$images" --out "$pack"
# A tower on each GPU, as in 2012: --parallel towers. Measured and chosen by itself: auto.
alexkit train "$pack" "${options[@]}" --out runs/imagenet
alexkit features "$pack" --weights runs/imagenet --layer fc7
