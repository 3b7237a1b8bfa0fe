#!/usr/bin/env bash
# From raw video to futures: features, a timeline by a segmentation model, what may follow; 5 folds by video.
#   bash results/anticipation_video/run.sh DATA      (DATA/fir_actions holds videos/, groundTruth/, mapping.txt)
# The features and the segmentation models are those of results/fir_actions, which run first if they are missing.
set -euo pipefail
export OMP_NUM_THREADS=1
DATA=$1/fir_actions
SEEN=runs/fir_actions
OUT=runs/anticipation_video
MODELS="linear_median mstcn" bash results/fir_actions/run.sh "$1"
COMMON="--data $DATA --splits all --set data.layout=mstcn --set data.folds=5 --set data.split=1 --set data.label_fps=8
  --set epochs=150 --set eval_every=150 --set save_every=150"
# shellcheck disable=SC2086
framecast train anticipation $COMMON --out "$OUT/labels" --set data.sample_rate=8
# shellcheck disable=SC2086
framecast train anticipation $COMMON --out "$OUT/features" --set data.sample_rate=4 \
  --set data.observe=features --set "data.features=$PWD/$SEEN/features"
python results/anticipation/from_timelines.py results/anticipation_video --data "$DATA" --layout mstcn \
  --folds 5 --splits 1,2,3,4,5 --seeds 0 --label-fps 8 --features "$PWD/$SEEN/features" --pooled \
  --segmenters linear="$SEEN/studies/linear_median" MS-TCN="$SEEN/studies/mstcn" \
  --forecaster "$OUT/labels" --direct "$OUT/features"
