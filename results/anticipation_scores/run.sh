#!/usr/bin/env bash
# Futures from noisy per-frame scores: the scores as a timeline, a segmentation of them, and as features.
#   bash results/anticipation_scores/run.sh DATA     (DATA/tas_scores holds salads50_mid)
# The segmentation models are those of results/tas_scores, which run first if they are missing.
set -euo pipefail
export OMP_NUM_THREADS=1
DATA=$1/tas_scores/salads50_mid
SEEN=runs/tas_scores/salads50_mid
OUT=runs/anticipation_scores
framecast train tas_scores_mstcn --data "$DATA" --splits all --out "$SEEN/mstcn"
COMMON="--data $DATA --splits all --set data.split=1 --set data.label_fps=1 --set data.sample_rate=5"
LONG="--set epochs=150 --set eval_every=150 --set save_every=150"
SHORT="--set epochs=75 --set eval_every=75 --set save_every=75"
# shellcheck disable=SC2086
framecast train anticipation $COMMON $LONG --out "$OUT/labels"
# shellcheck disable=SC2086
framecast train anticipation $COMMON $SHORT --out "$OUT/features" --set data.observe=features
python results/anticipation/from_timelines.py results/anticipation_scores --data "$DATA" \
  --splits 1,2,3,4 --label-fps 1 --scores SVM --segmenters MS-TCN="$SEEN/mstcn" \
  --forecaster "$OUT/labels" --direct "$OUT/features"
