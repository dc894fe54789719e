"""Compares what `scripts/gpu-check.sh` computed on the CPU (float32) and on the GPU (the type of the
weights): cpu.* and cuda.* in one folder. Needs h5py and numpy."""

import glob
import json
import os
import sys

import h5py
import numpy as np

# bfloat16 keeps 8 bits; errors grow over the layers. The CPU's own figures are float32's. On an H100
# the bundled model's largest differences are 0.26, 0.009 and 0.20.
MOST = {"LSE, nats": 0.6, "block mass / row": 0.05, "logits": 0.6}
LEAST_AGREEMENT = 0.9


def layers(folder):
    found = {}
    for path in glob.glob(os.path.join(folder, "seg", "*", "*.h5")):
        with h5py.File(path) as f:
            kind = f.attrs["kind"]
            kind = kind.decode() if isinstance(kind, bytes) else kind
            layer = int(f.attrs["layer"])
            if kind == "qkv":
                found.setdefault(layer, {})["lse"] = f["LSE"][...]
            elif kind == "pyr":
                found.setdefault(layer, {})["mass"] = f["mass/L0"][...]
                found[layer]["error"] = float(f.attrs["mass_error"])
    return found


def main(folder):
    worst = {name: 0.0 for name in MOST}
    cpu, gpu = (layers(os.path.join(folder, d + ".sparsight")) for d in ("cpu", "cuda"))
    if sorted(cpu) != sorted(gpu) or not cpu:
        sys.exit(f"layers differ: {sorted(cpu)} and {sorted(gpu)}")
    for layer in sorted(cpu):
        a, b = cpu[layer], gpu[layer]
        lse = float(np.abs(a["lse"] - b["lse"]).max())
        # A block row holds 64 rows of mass 1.
        mass = float(np.abs(a["mass"] - b["mass"]).sum(axis=-1).max()) / 64
        typical = float(np.abs(a["lse"] - b["lse"]).mean())
        print(f"layer {layer}: LSE differs by {lse:.4f} at most, {typical:.5f} in the mean; block "
              f"mass by {mass:.4f} of a row; self-check {b['error']:.1e}")
        worst["LSE, nats"] = max(worst["LSE, nats"], lse)
        worst["block mass / row"] = max(worst["block mass / row"], mass)
        if b["error"] > 1e-4:
            sys.exit(f"layer {layer}: the GPU's block masses do not add up")
    a, b = (np.load(os.path.join(folder, d + ".npy")) for d in ("cpu", "cuda"))
    worst["logits"] = float(np.abs(a - b).max())
    agree = float((a.argmax(1) == b.argmax(1)).mean())
    texts = [json.load(open(os.path.join(folder, d + ".generate.json"))) for d in ("cpu", "cuda")]
    same = 0
    for x, y in zip(texts[0]["ids"], texts[1]["ids"]):
        if x != y:
            break
        same += 1
    print(f"the GPU ran on {texts[1]['model']}, kernels on {texts[1]['kernels']}")
    if not texts[1]["model"].startswith("cuda"):
        sys.exit("the model did not run on the GPU")
    print("; ".join(f"{name} {value:.4f}" for name, value in worst.items())
          + f"; best token the same in {100 * agree:.1f} % of rows; {same} of "
          f"{len(texts[0]['ids'])} generated tokens the same")
    bad = [name for name, most in MOST.items() if worst[name] > most]
    if bad or agree < LEAST_AGREEMENT:
        sys.exit("too far apart: " + ", ".join(bad or ["best tokens"]))


main(sys.argv[1])
