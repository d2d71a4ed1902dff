#!/usr/bin/env bash
# The README's three commands word for word, with DeiT-Tiny: the figures of a new user's first day in RESULTS.md.
#
#     WSSS_VOC_ANIMALS=/data/voc-animals WSSS_WEIGHTS=/data/weights benchmarks/plain_commands.sh OUT one|animals [FLAGS OF TRAIN-SEG]
#
# "one" is a set of one class with two looks (one_class.py), "animals" VOC animals as it is. Unfinished runs are resumed.
set -euo pipefail
out=${1:?"usage: benchmarks/plain_commands.sh OUT one|animals"}
set_=${2:?"usage: benchmarks/plain_commands.sh OUT one|animals"}
shift 2
animals=${WSSS_VOC_ANIMALS:?"WSSS_VOC_ANIMALS must name the VOC animals folder"}
weights=${WSSS_WEIGHTS:?"WSSS_WEIGHTS must name the folder of deit_tiny_patch16_224.safetensors"}/deit_tiny_patch16_224.safetensors
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"

data=$animals
if [ "$set_" = one ]; then
    data=$out/horse
    [ -f "$data/tags.csv" ] || python "$here/one_class.py" "$data" --data "$animals"
fi

if [ -f "$out/$set_-cls/last.pt" ]; then
    wsss train-cls --resume "$out/$set_-cls"
else
    wsss train-cls --data "$data" --backbone deit_tiny_patch16_224 --weights "$weights" -o "$out/$set_-cls"
fi
if [ -f "$out/$set_-seg/last.pt" ]; then
    wsss train-seg --resume "$out/$set_-seg"
else
    wsss train-seg --data "$data" --init "$out/$set_-cls" -o "$out/$set_-seg" "$@"
fi
wsss predict "$out/$set_-seg" "$data" --split val -o "$out/$set_-masks"
wsss evaluate "$out/$set_-masks" --data "$data" --split val --sizes --errors
