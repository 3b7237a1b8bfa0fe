#!/usr/bin/env bash
# Temporal models on published frame-wise scores, beside the published models' predictions on the same videos.
#   bash results/tas_scores/run.sh DATA       (DATA/tas_scores holds salads50_mid, salads50_eval, gtea)
set -euo pipefail
DATA=$1/tas_scores
OUT=runs/tas_scores
SEEDS=${SEEDS:-0}
python results/tas_scores/published.py "$DATA"
for set in salads50_mid salads50_eval gtea; do
  # GTEA has 7 training videos a split instead of 30: more epochs, as many steps.
  [ "$set" = gtea ] && LENGTH="--set epochs=600 --set eval_every=600 --set save_every=600" || LENGTH=""
  for model in mstcn ltcontext; do
    framecast train "tas_scores_$model" --data "$DATA/$set" --splits all --seeds "$SEEDS" --out "$OUT/$set/$model" $LENGTH
  done
done
