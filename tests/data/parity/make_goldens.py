#!/usr/bin/env python3
"""Tiny random models and what transformers computes with them, for test_parity_decoders.

Made once with torch 2.15 (CPU) and transformers 5.24; nothing that the project builds or tests runs
this script. Usage: make_goldens.py OUT [NAME ...]

Per model: config.json (as transformers 5 writes it), config_v4.json (as most of the hub has it),
model.safetensors, golden.json and golden.safetensors, in the format of the other goldens here:
prompts p0, p1, p2 with attn, q, k, v, lse (lse_sink) per layer, logits_last4, argmax, logits_sums
(sum, sum of squares, sum of absolute values), hidden_l2, and a greedy decode from p1.
"""
import json
import math
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as REG

torch.manual_seed(0)
LENGTHS = {"p0": 7, "p1": 33, "p2": 48}
DECODE = 8
VOCAB = 160

BASE = dict(vocab_size=VOCAB, hidden_size=48, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
            bos_token_id=1, eos_token_id=2, pad_token_id=None)


def base(**more):
    return {**BASE, **more}


def rope(kind="default", theta=10000.0, **more):
    return {"rope_type": kind, "rope_theta": theta, **more}


EIGHT = [1.0, 1.02, 1.05, 1.1, 1.2, 1.35, 1.5, 1.8]
LONG = [1.0, 1.3, 1.7, 2.4, 3.5, 5.0, 7.0, 9.5]
MLA = dict(q_lora_rank=24, kv_lora_rank=20, qk_nope_head_dim=12, qk_rope_head_dim=8, v_head_dim=10,
           num_key_value_heads=4, first_k_dense_replace=1, moe_intermediate_size=24,
           n_routed_experts=8, num_experts_per_tok=3, n_shared_experts=2)

# name -> (model_type, keys of the config, keys that config_v4.json leaves to the class or renames)
MODELS = {
    "llama_bias": ("llama", base(attention_bias=True, mlp_bias=True, head_dim=16,
                                 rope_parameters=rope())),
    "llama_dynamic": ("llama", base(max_position_embeddings=32,
                                    rope_parameters=rope("dynamic", factor=3.0))),
    "llama_yarn": ("llama", base(rope_parameters=rope("yarn", factor=4.0,
                                                      original_max_position_embeddings=32))),
    "llama_longrope": ("llama", base(head_dim=16, rope_parameters=rope(
        "longrope", factor=4.0, original_max_position_embeddings=32, short_factor=EIGHT,
        long_factor=LONG))),
    "mistral": ("mistral", base(sliding_window=8, rope_parameters=rope())),
    "mistral_nemo": ("mistral", base(sliding_window=None, head_dim=8,
                                     rope_parameters=rope(theta=1e6))),
    "qwen2_window": ("qwen2", base(num_hidden_layers=3, use_sliding_window=True, sliding_window=9,
                                   max_window_layers=1, rope_parameters=rope(theta=1e6))),
    "gemma": ("gemma", base(head_dim=16, rope_parameters=rope())),
    "gemma3": ("gemma3_text", base(
        num_hidden_layers=6, hidden_size=32, head_dim=8, sliding_window=8, query_pre_attn_scalar=12,
        final_logit_softcapping=4.0,
        rope_parameters={"full_attention": rope("linear", 1e6, factor=8.0),
                         "sliding_attention": rope()})),
    "phi3_partial": ("phi3", base(num_attention_heads=3, num_key_value_heads=1,
                                  original_max_position_embeddings=36,
                                  rope_parameters=rope("longrope", partial_rotary_factor=0.75,
                                                       original_max_position_embeddings=36,
                                                       short_factor=EIGHT[:6],
                                                       long_factor=LONG[:6]))),
    "gpt2_scaled": ("gpt2", dict(vocab_size=VOCAB, n_embd=48, n_layer=2, n_head=4, n_positions=128,
                                 n_inner=100, scale_attn_by_inverse_layer_idx=True, bos_token_id=1,
                                 eos_token_id=2)),
    "gpt_neox": ("gpt_neox", base(use_parallel_residual=True, rope_parameters=rope(
        partial_rotary_factor=0.5))),
    "gpt_neox_sequential": ("gpt_neox", base(use_parallel_residual=False, hidden_act="gelu_new",
                                             rope_parameters=rope(partial_rotary_factor=1.0))),
    "gpt_neox_odd": ("gpt_neox", base(hidden_size=40, attention_bias=False, use_parallel_residual=True,
                                      rope_parameters=rope(partial_rotary_factor=0.5))),
    "opt": ("opt", base(ffn_dim=64, word_embed_proj_dim=48)),
    "opt_post_norm": ("opt", base(ffn_dim=64, word_embed_proj_dim=20, do_layer_norm_before=False)),
    "glm4": ("glm4", base(head_dim=16, attention_bias=True,
                          rope_parameters=rope(partial_rotary_factor=0.5))),
    "qwen3_moe": ("qwen3_moe", base(num_hidden_layers=4, hidden_size=32, intermediate_size=40,
                                    head_dim=12,
                                    moe_intermediate_size=24, num_experts=6, num_experts_per_tok=2,
                                    norm_topk_prob=True, decoder_sparse_step=2, mlp_only_layers=[1],
                                    rope_parameters=rope(theta=1e6))),
    "smollm3": ("smollm3", base(num_hidden_layers=4, hidden_size=32, use_sliding_window=True,
                                sliding_window=7, rope_parameters=rope(theta=2e6))),
    "deepseek_v2": ("deepseek_v2", base(**{**MLA, "q_lora_rank": None}, topk_method="greedy",
                                        routed_scaling_factor=1.5, rope_parameters=rope())),
    "deepseek_v2_groups": ("deepseek_v2", base(**MLA, topk_method="group_limited_greedy", n_group=4,
                                               topk_group=2, routed_scaling_factor=2.0,
                                               rope_parameters=rope(
                                                   "yarn", factor=4.0, mscale=0.7,
                                                   mscale_all_dim=0.9,
                                                   original_max_position_embeddings=32))),
    "deepseek_v2_bias": ("deepseek_v2", base(**MLA, topk_method="greedy", attention_bias=True,
                                             mlp_bias=True, rope_parameters=rope())),
    "deepseek_v3": ("deepseek_v3", base(**MLA, n_group=4, topk_group=2, routed_scaling_factor=2.5,
                                        rope_parameters=rope("yarn", factor=4.0, mscale=1.0,
                                                             mscale_all_dim=1.0,
                                                             original_max_position_embeddings=32))),
    "deepseek_v3_halves": ("deepseek_v3", base(**MLA, n_group=2, topk_group=1, norm_topk_prob=False,
                                               rope_interleave=False, rope_parameters=rope())),
    "gpt_oss_mxfp4": ("gpt_oss", base(hidden_size=32, intermediate_size=32, head_dim=8,
                                      sliding_window=16, num_local_experts=4, num_experts_per_tok=2,
                                      rope_parameters=rope("yarn", 150000.0, factor=8.0,
                                                           beta_fast=32.0, beta_slow=1.0,
                                                           truncate=False,
                                                           original_max_position_embeddings=32))),
}

calls = []


def recorder(fn):
    def run(module, q, k, v, mask, **kw):
        out = fn(module, q, k, v, mask, **kw)
        calls.append(dict(module=module, q=q[0], k=k[0], v=v[0], mask=mask, attn=out[1][0],
                          scaling=float(kw.get("scaling") or q.shape[-1] ** -0.5),
                          softcap=kw.get("softcap")))
        return out
    return run


plain = type(REG).get_interface
type(REG).get_interface = lambda self, impl, default: recorder(plain(self, impl, default))


def randomise(model, model_type):
    one_plus = model_type.startswith("gemma")
    generator = torch.Generator().manual_seed(sum(map(ord, model_type)) + model.num_parameters())
    with torch.no_grad():
        corrections = [(n, b) for n, b in model.named_buffers() if "correction_bias" in n]
        for name, p in list(model.named_parameters()) + corrections:
            noise = torch.randn(p.shape, generator=generator)
            if "norm" in name or ".ln_" in name:
                shift = 0.0 if one_plus or name.endswith("bias") else 1.0
                p.copy_(shift + 0.3 * noise)
            elif name.endswith("bias") or p.dim() == 1:
                p.copy_(0.3 * noise)
            elif "embed" in name or "wte" in name or "wpe" in name:
                p.copy_((0.15 if one_plus else 0.8) * noise)
            else:
                fan = p.shape[0] if model_type == "gpt2" else p.shape[-1]
                if model_type == "gpt_oss" and p.dim() == 3:
                    fan = p.shape[1]
                p.copy_(1.4 * noise / math.sqrt(fan))


LUT = torch.tensor([0, .5, 1, 1.5, 2, 3, 4, 6, -0.0, -.5, -1, -1.5, -2, -3, -4, -6])


def mxfp4(model):
    """Experts that MXFP4 holds exactly: the model computes with them, the file has the blocks."""
    blocks = {}
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if not name.endswith(("gate_up_proj", "down_proj")):
                continue
            e, cols, rows = p.shape  # [E, in, out]
            codes = torch.randint(0, 16, (e, rows, cols // 32, 32), generator=generator)
            scales = torch.randint(121, 125, (e, rows, cols // 32), generator=generator)
            values = LUT[codes] * torch.pow(2.0, scales.float() - 127)[..., None]
            p.copy_(values.reshape(e, rows, cols).transpose(1, 2))
            blocks[name + "_blocks"] = (codes[..., 0::2] | (codes[..., 1::2] << 4)).to(torch.uint8)
            blocks[name + "_scales"] = scales.to(torch.uint8)
    return blocks


def version4(config):
    """The keys as files of transformers 4 have them: class defaults are left out."""
    c = dict(config)
    kind = c["model_type"]
    c["torch_dtype"] = c.pop("dtype")
    c["transformers_version"] = "4.46.0"
    r = c.pop("rope_parameters", None) or {}
    if kind == "gemma3_text":
        c["rope_local_base_freq"] = r["sliding_attention"]["rope_theta"]
        r = r["full_attention"]
    r = dict(r)
    if r:
        theta = r.pop("rope_theta")
        partial = r.pop("partial_rotary_factor", None)
        if kind == "gpt_neox":
            c["rotary_emb_base"], c["rotary_pct"] = theta, partial
        else:
            c["rope_theta"] = theta
            if partial is not None:
                c["partial_rotary_factor"] = partial
        if r.get("rope_type") in (None, "default"):
            c["rope_scaling"] = None
        else:
            if kind == "phi3":  # the oldest name of the kind, and its length at the top level
                r["type"] = "su"
                del r["rope_type"]
                r.pop("original_max_position_embeddings", None)
                r.pop("factor", None)
            c["rope_scaling"] = r
    c.pop("layer_types", None)
    if kind == "smollm3":
        c.pop("no_rope_layers", None)
    if kind == "qwen3_moe" and "num_local_experts" in c:
        c["num_experts"] = c.pop("num_local_experts")
    if kind.startswith("deepseek"):
        for key in ("head_dim", "qk_head_dim"):
            c.pop(key, None)
    return c


def record(model, ids, name, tensors, layers):
    calls.clear()
    with torch.no_grad():
        out = model(input_ids=ids[None], use_cache=False, output_hidden_states=True)
    for i, call in enumerate(calls):
        at = f"{name}.L{i}."
        q, k, v, scaling = call["q"], call["k"], call["v"], call["scaling"]
        if model.config.model_type == "opt":  # q comes already scaled
            q, scaling = q / (q.shape[-1] ** -0.5), q.shape[-1] ** -0.5
        sinks = getattr(call["module"], "sinks", None)
        visible = torch.tril(torch.ones(q.shape[1], k.shape[1], dtype=torch.bool))
        if call["mask"] is not None:
            m = call["mask"][0, 0]
            visible = m if m.dtype == torch.bool else m == 0
        group = q.shape[0] // k.shape[0]
        s = q.double() @ k.double().repeat_interleave(group, 0).transpose(1, 2) * scaling
        if call["softcap"]:
            s = call["softcap"] * torch.tanh(s / call["softcap"])
        s = s.masked_fill(~visible, -math.inf)
        lse = torch.logsumexp(s, -1)
        p = torch.softmax(s, -1)
        if sinks is not None:
            total = torch.logaddexp(lse, sinks.double()[:, None])
            tensors[at + "lse_sink"] = total.float()
            p = torch.exp(s - total[..., None])
        attn = call["attn"][..., : k.shape[1]]
        worst = (p - attn.double()).abs().max().item()
        assert worst < 3e-6, (name, i, worst)
        for key, t in dict(attn=attn, q=q, k=k, v=v, lse=lse.float()).items():
            tensors[at + key] = t.float().contiguous().clone()
        if name == "p2":  # longer than every window here
            seen = int(visible[-1].sum())
            layers.append(dict(group="", index=i, scaling=scaling, softcap=call["softcap"],
                               sliding_window=seen if seen < visible.shape[1] else None,
                               sinks=sinks is not None))
    logits = out.logits[0].float()
    tensors[name + ".input_ids"] = ids
    tensors[name + ".logits_last4"] = logits[-4:].clone()
    tensors[name + ".argmax"] = logits.argmax(-1).int()
    d = logits.double()
    tensors[name + ".logits_sums"] = torch.stack([d.sum(), (d * d).sum(), d.abs().sum()])
    tensors[name + ".hidden_l2"] = torch.stack([h[0].norm(dim=-1) for h in out.hidden_states])


def make(name, folder):
    kind, keys = MODELS[name]
    folder.mkdir(parents=True, exist_ok=True)
    config = AutoConfig.for_model(kind, **keys)
    config.dtype = torch.float32
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager",
                                             dtype=torch.float32).eval()
    randomise(model, kind)
    blocks = mxfp4(model) if name.endswith("mxfp4") else {}
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    written = json.loads((folder / "config.json").read_text())
    if blocks:
        state = load_file(folder / "model.safetensors")
        for key in blocks:
            state.pop(key.rsplit("_", 1)[0], None)
        save_file({**state, **blocks}, folder / "model.safetensors", metadata={"format": "pt"})
        written["quantization_config"] = {"quant_method": "mxfp4",
                                          "modules_to_not_convert": ["lm_head"]}
        (folder / "config.json").write_text(json.dumps(written, indent=2) + "\n")
    (folder / "config_v4.json").write_text(json.dumps(version4(written), indent=2) + "\n")

    tensors, layers = {}, []
    generator = torch.Generator().manual_seed(len(name))
    prompts = {prompt: torch.randint(3, VOCAB, (length,), generator=generator)
               for prompt, length in LENGTHS.items()}
    # First, since dynamic RoPE remembers the longest sequence that a model has seen.
    ids = prompts["p1"]
    margins, logits = [], []
    with torch.no_grad():
        out = model.generate(ids[None], max_new_tokens=DECODE, min_new_tokens=DECODE,
                             do_sample=False, output_logits=True, return_dict_in_generate=True,
                             eos_token_id=None, pad_token_id=0, use_cache=True)
    for step in out.logits:
        top = step[0].topk(2).values
        margins.append(float(top[0] - top[1]))
        logits.append(step[0].float())
    tensors["decode.ids"] = out.sequences[0, len(ids):]
    tensors["decode.logits"] = torch.stack(logits)
    assert min(margins) > 5e-5, (name, margins)
    for prompt, tokens in prompts.items():
        record(model, tokens, prompt, tensors, layers)
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "golden.safetensors",
              metadata={"name": name, "generator": "tests/data/parity/make_goldens.py"})
    facts = dict(name=name, architecture=type(model).__name__, layers=layers,
                 computed="float32, CPU, eager attention",
                 versions=dict(torch=torch.__version__, transformers=transformers.__version__))
    (folder / "golden.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(name, "margin", min(margins), "bytes",
          sum(f.stat().st_size for f in folder.iterdir()))


if __name__ == "__main__":
    for chosen in sys.argv[2:] or MODELS:
        make(chosen, Path(sys.argv[1]) / chosen)
