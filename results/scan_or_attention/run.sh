#!/usr/bin/env bash
# Attention, scans, or both: ViT, VideoMamba and StableMamba of equal size, trained alike on a CPU.
#   bash results/scan_or_attention/run.sh DATA      (DATA holds cifar10_small and fir_actions)
# Every command goes on where it was stopped. About six hours on one core.
set -euo pipefail
DATA=$1
OUT=runs/scan_or_attention
for seeds in 0 0,1 0,1,2; do
  for model in vit videomamba stablemamba; do
    framecast train "cifar_$model" --data "$DATA/cifar10_small" --seeds "$seeds" --out "$OUT/cifar/$model"
    framecast train "fir_clips_$model" --data "$DATA/fir_actions" --splits 1,2 --seeds "$seeds" --out "$OUT/fir_clips/$model"
  done
done
framecast train fir_clips_dinov2_head --data "$DATA/fir_actions" --splits 1,2 --seeds 0,1,2 --out "$OUT/fir_clips/dinov2_head"
for model in vit videomamba stablemamba; do
  for run in "$OUT/cifar/$model"/seed* "$OUT/fir_clips/$model"/split1-seed*; do
    framecast evaluate "$run" --corruptions all --jpeg
  done
done
python results/scan_or_attention/jpeg_divergence.py "$OUT"/cifar/*/seed*
# Does it scale, and does it stay stable? Twice as deep, twice as wide; learning rates a factor of 4 apart.
for lr in 5e-4 2e-3 8e-3 3e-2; do
  for model in vit videomamba stablemamba; do
    case $model in vit) depth=12 ;; videomamba) depth=14 ;; *) depth=15 ;; esac
    common=(--data "$DATA/cifar10_small" --set "optim.lr=$lr" --set epochs=3 --set schedule.warmup=1 --set eval_every=3 --set watch_every=25)
    framecast train "cifar_$model" "${common[@]}" --out "$OUT/scaling/$model-small-$lr"
    framecast train "cifar_$model" "${common[@]}" --set "model.config.depth=$depth" --out "$OUT/scaling/$model-deep-$lr"
    framecast train "cifar_$model" "${common[@]}" --set model.config.width=128 --out "$OUT/scaling/$model-wide-$lr"
  done
done
python results/scan_or_attention/collect.py "$OUT"
