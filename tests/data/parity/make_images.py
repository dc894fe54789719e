#!/usr/bin/env python3
"""Makes image/: small pictures, and what PIL and transformers' image processors make of them. Needs
pillow, numpy, safetensors, torch and transformers."""
import json, pathlib

import numpy as np
import transformers as tf
from PIL import Image
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).parent / "image"
HERE.mkdir(exist_ok=True)
rng = np.random.default_rng(5)
y, x = np.mgrid[0:53, 0:37]
colour = np.stack([(x * 7 + y) % 256, (y * 5) % 256, rng.integers(0, 256, size=(53, 37))], -1).astype(np.uint8)
alpha = np.concatenate([colour, np.where(x < 18, 255, 0)[..., None].astype(np.uint8)], -1)
Image.fromarray(colour).save(HERE / "colour.png")
Image.fromarray(alpha, "RGBA").save(HERE / "alpha.png")
Image.fromarray(colour[..., 0]).save(HERE / "grey.png")
smooth = np.stack([x * 6, y * 4, (x + y) * 2], -1).clip(0, 255).astype(np.uint8)
Image.fromarray(smooth).save(HERE / "smooth.jpg", quality=95)

out = {}
for name in ("colour", "grey"):
    image = Image.open(HERE / f"{name}.png").convert("RGB")
    out[f"{name}.rgb"] = np.asarray(image)
    for filter in (1, 2, 3):  # lanczos, bilinear, bicubic
        for h, w in ((24, 40), (90, 20), (53, 12)):
            # Pillow 13 chooses which side comes first; all before it begin with the width.
            wide = image.resize((w, image.height), resample=filter)
            out[f"{name}.{filter}.{h}x{w}"] = np.asarray(wide.resize((w, h), resample=filter))
out["alpha.rgb"] = np.asarray(Image.open(HERE / "alpha.png").convert("RGB"))
out["smooth.rgb"] = np.asarray(Image.open(HERE / "smooth.jpg").convert("RGB"))

image = Image.fromarray(colour.transpose(1, 0, 2))  # wide: every Pillow begins with the width
image.save(HERE / "wide.png")
pil = lambda name: getattr(tf, name + "Pil", None) or getattr(tf, name)
vit = pil("ViTImageProcessor")(size={"height": 32, "width": 32})
out["vit.pixels"] = np.asarray(vit(image, return_tensors="np")["pixel_values"][0], np.float32)
clip = pil("CLIPImageProcessor")(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
out["clip.pixels"] = np.asarray(clip(image, return_tensors="np")["pixel_values"][0], np.float32)
save_file({k: np.ascontiguousarray(v) for k, v in out.items()}, HERE / "golden.safetensors")
(HERE / "vit_preprocessor.json").write_text(json.dumps(vit.to_dict(), indent=1, default=str) + "\n")
(HERE / "clip_preprocessor.json").write_text(json.dumps(clip.to_dict(), indent=1, default=str) + "\n")
print(type(vit).__name__, type(clip).__name__, sum(f.stat().st_size for f in HERE.iterdir()) // 1024, "KiB")
