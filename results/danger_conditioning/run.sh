#!/usr/bin/env bash
# Does it help LOAN to see the weather in the light of the place? With and without location-aware normalisation,
# three seeds each, beside simple baselines, on the made-up fire cube.
#   bash results/danger_conditioning/run.sh
# Every command goes on where it was stopped. About an hour on one core.
set -euo pipefail
export OMP_NUM_THREADS=1
OUT=runs/danger_conditioning
if [ ! -f "$OUT/cube/cube.yaml" ]; then
  python -c "from framecast.data.synthetic_cubes import write_fire_cube; write_fire_cube('$OUT/cube', 1095, (64, 72))"
fi
train() {
  framecast train danger --data "$OUT/cube/cube.yaml" --seeds 0,1,2 --set epochs=5 --out "$OUT/$1" "${@:2}"
}
train with_location
train without_location --set model.config.location_aware=false
python results/danger_conditioning/collect.py "$OUT"
