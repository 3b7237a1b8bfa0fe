#!/usr/bin/env bash
# Raw video to scores: features, four models, 5 folds, 3 seeds. Finished runs are not repeated.
#   bash results/fir_actions/run.sh DATA      (DATA/fir_actions holds videos/, groundTruth/, mapping.txt)
set -euo pipefail
DATA=$1/fir_actions
OUT=runs/fir_actions
MODELS=${MODELS:-"linear linear_median mstcn ltcontext"}
framecast features "$DATA/videos" --out "$OUT/features" --size 112x154 --step 0.25
for model in $MODELS; do
  framecast train "fir_actions_$model" --data "$DATA" --set "data.features=$PWD/$OUT/features" \
    --splits all --seeds 0,1,2 --out "$OUT/studies/$model"
done
