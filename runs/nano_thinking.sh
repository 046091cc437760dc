#!/usr/bin/env bash
# Nano that thinks: long chains of thought by example, its own right answers, then learning by reward. What is there
# already is kept, so that it goes on where it stopped.
#
#   runs/nano_thinking.sh            on all cores, or on a GPU where there is one
#   runs/nano_thinking.sh --smoke    every stage for a few steps on a small set of data, in minutes: it shows that all of it runs
set -euo pipefail
cd "$(dirname "$0")/.."

root=.runs/nano_thinking
recipes=recipes/nano/reasoning
set=()
examples=()
rewards=()
few=()
own=()
if [ "${1:-}" = --smoke ]; then
  root=.runs/smoke_thinking
  rm -rf "$root"
  recipes=$root/recipes
  set=(--small)
  few=(--count 18)
  own=(--count 8 --answers 2)
  export NANO_DATA="${NANO_DATA:-$PWD/.data/nano-small}"
  examples=(--set steps=3 --set batch_size=8 --set warmup=1)
  rewards=(--set steps=2 --set batch_size=4 --set answers=2 --set updates=2 --set max_new_tokens=48 --set save_every=1)
fi

python -m recipes.nano.fetch "${set[@]}"
if [ "$recipes" != recipes/nano/reasoning ]; then
  python -m recipes.nano.smoke "$recipes" --recipes recipes/nano/reasoning
  sed -i "s#.runs/nano_thinking/own.jsonl#$root/own.jsonl#" "$recipes/own.toml"
fi
train=(python -m kimi_vl.cli train run)

echo "== long chains of thought"
"${train[@]}" "$recipes/long_cot.toml" --set run="$root/long_cot" "${examples[@]}"
echo "== its own right answers"
if [ ! -f "$root/own.jsonl" ]; then
  python -m recipes.nano.reasoning.own "$root/long_cot/model" "$root" "${own[@]}"
fi
"${train[@]}" "$recipes/own.toml" --set run="$root/own" --set start="$root/long_cot" "${examples[@]}"
echo "== learning by reward"
"${train[@]}" "$recipes/rl.toml" --set run="$root/rl" --set start="$root/own" "${rewards[@]}"
echo "== what it can do"
python -m recipes.nano.reasoning.measure "$root/rl/model" "${few[@]}"
python -m kimi_vl.cli train report "$root"
