#!/usr/bin/env python3
"""Writes the q, k and v of a prompt from any transformers model whose attention goes through the
library's attention functions: python dump_qkv.py MODEL_DIRECTORY PROMPT.txt OUT.safetensors
Then: sparsight import-tensors OUT.safetensors --tokenizer MODEL_DIRECTORY -o OUT.sparsight"""
import json
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as REGISTRY

model_dir, prompt_file, out_file = sys.argv[1:4]
tensors, layers, names = {}, [], {}


def visible(mask, tokens):
    """What an explicit mask says: (causal, window or None), from its first and last rows."""
    if mask is None or mask.dim() != 4:
        return None, None
    seen = mask[0, 0] if mask.dtype == torch.bool else mask[0, 0] > torch.finfo(mask.dtype).min / 2
    in_last_row = int(seen[-1].sum())
    return not bool(seen[0, -1]), in_last_row if in_last_row < tokens else None


def record(module, q, k, v, mask, **kw):
    if kw.get("position_bias") is not None:
        sys.exit("this model adds a bias by position to its scores, which q and k do not hold")
    i, tokens = len(layers), q.shape[2]
    for key, t in (("q", q), ("k", k), ("v", v)):  # [heads, tokens, width], after RoPE
        tensors[f"layer.{i}.{key}"] = t[0].detach().cpu().contiguous()
    sinks = getattr(module, "sinks", kw.get("s_aux"))
    if sinks is not None:
        tensors[f"layer.{i}.sinks"] = sinks.detach().float().cpu().contiguous()
    causal, window = visible(mask, tokens)
    if causal is None:
        causal = kw.get("is_causal")
    if causal is None:
        causal = getattr(module, "is_causal", True)
    layers.append(dict(module=names.get(id(module), "?"), causal=bool(causal),
                       scaling=float(kw.get("scaling") or q.shape[-1] ** -0.5),
                       softcap=kw.get("softcap"), window=kw.get("sliding_window") or window))


def recorded(attention):
    def run(module, q, k, v, mask, *args, **kw):
        record(module, q, k, v, mask, **kw)
        return attention(module, q, k, v, mask, *args, **kw)
    return run


registry = type(REGISTRY)
if hasattr(registry, "get_interface"):  # transformers 5
    plain = registry.get_interface
    registry.get_interface = lambda self, name, default: recorded(plain(self, name, default))
else:  # 4.51 and later
    plain = registry.__getitem__
    registry.__getitem__ = lambda self, name: recorded(plain(self, name))

tokenizer = AutoTokenizer.from_pretrained(model_dir)
model = AutoModel.from_pretrained(model_dir, torch_dtype="auto").eval()
model.to("cuda" if torch.cuda.is_available() else "cpu")
names.update({id(m): n for n, m in model.named_modules()})
with open(prompt_file, encoding="utf-8") as f:
    ids = tokenizer(f.read(), return_tensors="pt").input_ids.to(model.device)
with torch.no_grad():
    model(input_ids=ids, use_cache=False)
tensors["input_ids"] = ids[0].cpu().contiguous()
about = dict(version=1, model=str(model_dir), model_type=model.config.model_type, layers=layers)
save_file(tensors, out_file, metadata={"sparsight": json.dumps(about)})
print(f"{len(layers)} layers, {ids.shape[1]} tokens -> {out_file}")
