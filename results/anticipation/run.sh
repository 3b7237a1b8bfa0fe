#!/usr/bin/env bash
# What comes next, from labels of what was seen: baselines, the networks of 2018, GTDA and MANTA.
#   bash results/anticipation/run.sh DATA      (DATA/breakfast and DATA/50salads hold labels and splits)
# Every command goes on where it was stopped. About three hours on one core.
set -euo pipefail
export OMP_NUM_THREADS=1
DATA=$1
OUT=runs/anticipation
for set in breakfast 50salads; do
  mkdir -p "$OUT/data/$set"
  cp -r "$DATA/$set"/{mapping.txt,splits} "$OUT/data/$set"
  tar -xJf "$DATA/$set/groundTruth.tar.xz" -C "$OUT/data/$set"
done
python results/anticipation/baselines.py "$OUT/data" "$OUT/baselines.json"
for model in rnn cnn labels_manta labels_gtda; do
  framecast train "breakfast_$model" --data "$OUT/data/breakfast" --splits all --out "$OUT/breakfast/$model"
  framecast train "salads50_$model" --data "$OUT/data/50salads" --splits all --out "$OUT/50salads/$model"
done
python results/anticipation/temperature.py "$OUT/data" "$OUT" 0.5
python results/anticipation/transcripts.py "$OUT/data" "$OUT"
python results/anticipation/collect.py "$OUT"
python results/anticipation/cost.py "$OUT/breakfast" "$OUT/data/breakfast" --split 1 --max-videos 60
python results/anticipation/calibration.py "$OUT/breakfast" "$OUT/data/breakfast" 1
