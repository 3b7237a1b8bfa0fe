#!/usr/bin/env bash
# Temperature, rain and vegetation of real maps: the Focal-TSMP family and ConvLSTM, three seeds each, beside
# climatology, persistence, ridge regression and gradient boosting.
#   bash results/earth_maps/run.sh DATA/earth       (the packed series)
# Every command goes on where it was stopped. About 40 minutes on one core.
set -euo pipefail
export OMP_NUM_THREADS=1
OUT=runs/earth_maps
python results/earth_maps/make_cubes.py "$1" "$OUT/cubes"
REGIONS="{north: [-10, 41, 5, 45], south: [-10, 35, 5, 41]}"
for model in focal_tsmp focal_tsmp_cnn convlstm focal_tsmp_swin focal_tsmp_wave; do
  small=()
  if [ "$model" = convlstm ]; then small=(--set "model.config={width: 24}"); fi
  framecast train downscaling --data "$OUT/cubes/iberia/cube.yaml" --seeds 0,1,2 \
    --set "model.name=$model" "${small[@]}" --set "data.regions=$REGIONS" --out "$OUT/iberia/$model"
  for place in kilimanjaro bale; do
    framecast train vegetation --data "$OUT/cubes/$place/cube.yaml" --seeds 0,1,2 \
      --set "model.name=$model" "${small[@]}" --set data.vegetation=ndvi --out "$OUT/$place/$model"
  done
done
for place in iberia kilimanjaro bale; do
  python results/earth_maps/score.py "$OUT/$place" "$OUT/$place.json"
done
python results/earth_maps/collect.py "$OUT"
