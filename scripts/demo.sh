#!/usr/bin/env bash
# From a fresh clone to a real model's attention: installs what is missing, builds, captures the
# bundled prompt with the bundled model and opens the window on it. Without a display it draws the
# same window offscreen and writes demo-out/.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${SPARSIGHT_BUILD:-$root/build}
out=${SPARSIGHT_DEMO_OUT:-$root/demo-out}

"$root/scripts/build.sh" "$build" -DSPARSIGHT_TESTS=OFF
sparsight=$build/bin/sparsight
probe=$(<"$root/resources/prompts/demo.probe")

mkdir -p "$out"
session=$out/needle.sparsight
if ! "$sparsight" session check "$session" >/dev/null 2>&1; then
    rm -rf "$session"
    "$sparsight" capture bookworm --probe "$probe" -o "$session"
fi

if [[ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" && -z "${SPARSIGHT_DEMO_HEADLESS:-}" && -x $build/bin/sparsight-gui ]]; then
    exec "$build/bin/sparsight-gui" "$session"
fi

echo "No display: drawing the window offscreen into $out"
if [[ -x $build/bin/sparsight-gui ]]; then
    for theme in dark light; do
        "$build/bin/sparsight-gui" "$session" --geometry 1600x1000 --scale 1 --seed 0 --theme "$theme" \
            --settings "$out/settings" --ui-script "$root/resources/prompts/demo-view.json" \
            --screenshot "$out/window-$theme.png" 2> >(grep -v propagateSizeHints >&2)
    done
fi
for ending in png svg pdf; do
    "$sparsight" map "$session" --layer 6 --head 5 --overlay a-shape:sink=4,window=256 -o "$out/L6H5.$ending"
done
"$sparsight" mask "$session" --method a-shape:sink=4,window=256 -o "$out/a-shape-metrics.csv"
"$sparsight" plan --model bookworm --uniform retrieval-heads:heads=6.5,sink=4,window=256 -o "$out/plan.json"
"$sparsight" export "$out/plan.json" --to minference -o "$out/minference.json"
echo
echo "Heads, ordered by retrieval score; the last line is the retrieval head:"
"$sparsight" heads "$session" | {
    IFS= read -r titles
    printf '%s\n' "$titles"
    tail -n 8
}
echo
echo "Files are in $out"
