#!/usr/bin/env bash
# Computes every figure of RESULTS.md on VOC animals from the data folder and the DeiT-Tiny weights.
#
#     WSSS_VOC_ANIMALS=/data/voc-animals WSSS_WEIGHTS=/data/weights benchmarks/voc_animals.sh OUT [SEED]
#
# About fourteen hours on two cores. Finished results in OUT are kept, so a stopped run can be continued.
set -euo pipefail
out=${1:?"usage: benchmarks/voc_animals.sh OUT [SEED]"}
seed=${2:-0}
data=${WSSS_VOC_ANIMALS:?"WSSS_VOC_ANIMALS must name the VOC animals folder"}
weights=${WSSS_WEIGHTS:?"WSSS_WEIGHTS must name the folder of deit_tiny_patch16_224.safetensors"}/deit_tiny_patch16_224.safetensors
preset=voc-animals-cpu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"
rm -f "$out/figures.txt" # kept results are scored again, which takes seconds

once() { # once FOLDER COMMAND...: run it unless the folder holds a finished result
    local folder=$1
    shift
    if [ -f "$folder/.done" ]; then echo "kept: $folder" >&2; else "$@" && touch "$folder/.done"; fi
}

table() { # table FILE COMMAND...: write its output to FILE, only if it succeeds
    local file=$1
    shift
    [ -f "$file" ] || { "$@" | tee "$file.part" && mv "$file.part" "$file"; }
}

score() { # score RUN NAME FLAGS...: predict val and print the figures as JSON
    local run=$1 name=$2
    shift 2
    wsss predict "$run" "$data" --split val -c $preset "$@" -o "$out/masks/$name" >&2
    echo "$name $(wsss evaluate "$out/masks/$name" --data "$data" --split val --json)" | tee -a "$out/figures.txt"
}

once "$out/cls" wsss train-cls -c $preset --seed "$seed" --data "$data" --weights "$weights" -o "$out/cls"
table "$out/seeds.md" python "$here/seeds.py" "$out/cls" --data "$data" --split train --split val
while read -r method start gamma spread; do
    table "$out/labels-$method-$start-$spread.md" python "$here/labels.py" "$out/cls" --data "$data" --split train \
        --saliency "$data/Saliency" --method "$method" --start-layer "$start" --gamma "$gamma" --spread "$spread"
done <<READINGS
getam 0 1 0
getam 6 0.5 1
attention-gradient 6 0.5 1
READINGS
once "$out/pseudo" wsss make-pseudo "$out/cls" -c $preset --data "$data" --split train_aug --scales 224 --overlays 20 -o "$out/pseudo"
wsss evaluate "$out/pseudo" --data "$data" --split train_aug --json | tee -a "$out/figures.txt"

python "$here/ablation.py" "$out/ablation" --data "$data" --init "$out/cls" -c $preset --seeds "$seed" | tee "$out/ablation.md"
table "$out/agreement.md" python "$here/agreement.py" "$out/ablation/one-round-$seed" --data "$data" --split train --limit 110
seg=$out/ablation/default-$seed
for split in train val; do
    agreed="$out/pseudo-agreed-$split"
    once "$agreed" wsss make-pseudo "$seg" -c $preset --data "$data" --split $split --scales 320 -o "$agreed"
    echo "agreed-$split $(wsss evaluate "$agreed" --data "$data" --split $split --json)" | tee -a "$out/figures.txt"
done
for row in one-round one-round-energy; do # labels of train with and without the dense energy
    labels="$out/pseudo-$row"
    once "$labels" wsss make-pseudo "$out/ablation/$row-$seed" -c $preset --data "$data" --split train -o "$labels"
    echo "$row $(wsss evaluate "$labels" --data "$data" --split train --json)" | tee -a "$out/figures.txt"
done
once "$out/seg-disk" wsss train-seg -c $preset --seed "$seed" --data "$data" --init "$out/cls" --labels "$out/pseudo" -o "$out/seg-disk"
score "$out/seg-disk" seg-disk-224 --scales 224 --no-flip
score "$out/seg-disk" seg-disk-224-320-flip --scales 224,320 --flip
