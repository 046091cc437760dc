#!/usr/bin/env bash
# The whole recipe, from nothing to a model folder. What is there already is kept, so that it goes on where it stopped.
#
#   runs/nano.sh            on all cores, or on a GPU where there is one
#   runs/nano.sh --smoke    every stage for a few steps on a small set of data, in minutes: it shows that all of it runs
set -euo pipefail
cd "$(dirname "$0")/.."

root=.runs/nano
recipes=recipes/nano
set=()
wishes=()
if [ "${1:-}" = --smoke ]; then
  root=.runs/smoke
  rm -rf "$root"
  recipes=$root/recipes
  set=(--small)
  export NANO_DATA="${NANO_DATA:-$PWD/.data/nano-small}"
  wishes=(--set steps=3 --set batch_size=8 --set warmup=1)
fi

python -m recipes.nano.fetch "${set[@]}"
if [ "$recipes" != recipes/nano ]; then
  python -m recipes.nano.smoke "$recipes"
fi
train=(python -m kimi_vl.cli train run)
before=()
for stage in text vision alignment joint cooldown long_1 long_2 sft_short sft_long; do
  echo "== $stage"
  "${train[@]}" "$recipes/$stage.toml" --set run="$root/$stage" "${before[@]}" "${wishes[@]}"
  before=(--set start="$root/$stage")
done
