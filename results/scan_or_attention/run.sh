#!/usr/bin/env bash
# Attention, scans, or both: ViT, VideoMamba and StableMamba of equal size, trained alike on a CPU.
#   bash results/scan_or_attention/run.sh DATA      (DATA holds cifar10_small and surveillance_fights)
# Every command goes on where it was stopped. Several hours on one core.
set -euo pipefail
DATA=$1
OUT=runs/scan_or_attention
for seeds in 0 0,1 0,1,2; do
  for model in vit videomamba stablemamba; do
    framecast train "cifar_$model" --data "$DATA/cifar10_small" --seeds "$seeds" --out "$OUT/cifar/$model"
    framecast train "fights_$model" --data "$DATA/surveillance_fights" --splits 1,2,3 --seeds "$seeds" --out "$OUT/fights/$model"
  done
done
framecast train fights_dinov2_head --data "$DATA/surveillance_fights" --splits 1,2,3 --seeds 0,1,2 --out "$OUT/fights/dinov2_head"
for run in "$OUT"/cifar/*/*seed*/ "$OUT"/fights/*/*seed*/; do
  case $run in *dinov2*) continue ;; esac
  framecast evaluate "$run" --corruptions all --jpeg
done
# Does it scale, and does it stay stable? Twice as deep, twice as wide; learning rates a factor of 4 apart.
for model in vit videomamba stablemamba; do
  [ "$model" = stablemamba ] && depth=15 || { [ "$model" = vit ] && depth=12 || depth=14; }
  for lr in 5e-4 2e-3 8e-3; do
    common=(--data "$DATA/cifar10_small" --set "optim.lr=$lr" --set watch_every=25)
    framecast train "cifar_$model" "${common[@]}" --out "$OUT/scaling/$model-small-$lr"
    framecast train "cifar_$model" "${common[@]}" --set "model.config.depth=$depth" --out "$OUT/scaling/$model-deep-$lr"
    framecast train "cifar_$model" "${common[@]}" --set model.config.width=128 --out "$OUT/scaling/$model-wide-$lr"
  done
done
