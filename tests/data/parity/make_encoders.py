#!/usr/bin/env python3
"""Makes the tiny random encoders of this folder (names below) and what transformers computes with
them. Needs torch, transformers and safetensors; versions used: see golden.json of each model.

    python3 make_encoders.py [name ...]
"""
import copy, json, pathlib, sys

import numpy as np
import torch
import transformers as tf
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
EOS = 99  # of CLIP's little vocabulary


def make(kind):
    small = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
    if kind == "roberta":
        return tf.RobertaForMaskedLM(tf.RobertaConfig(
            vocab_size=100, max_position_embeddings=60, type_vocab_size=1, **small))
    if kind == "roberta_untied":  # an output matrix and a bias of its own
        return tf.RobertaForMaskedLM(tf.RobertaConfig(
            vocab_size=100, max_position_embeddings=60, type_vocab_size=1, tie_word_embeddings=False,
            **small))
    if kind == "xlm_roberta":
        return tf.XLMRobertaForMaskedLM(tf.XLMRobertaConfig(
            vocab_size=100, max_position_embeddings=60, type_vocab_size=1, **small))
    if kind == "clip":  # towers of different shapes
        text = dict(small, vocab_size=100, max_position_embeddings=48, eos_token_id=EOS, bos_token_id=98)
        vision = dict(small, hidden_size=48, num_attention_heads=6, num_hidden_layers=3, image_size=32, patch_size=8)
        return tf.CLIPModel(tf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))
    if kind == "clip_vision":  # a single tower, pixels of another size than its own
        return tf.CLIPVisionModel(tf.CLIPVisionConfig(image_size=32, patch_size=8, **small))
    if kind == "vit_resized":
        return tf.ViTForImageClassification(tf.ViTConfig(
            image_size=32, patch_size=8, num_labels=7, qkv_bias=False, **small))
    if kind == "bart":  # more heads in the encoder than in the decoder
        return tf.BartForConditionalGeneration(tf.BartConfig(
            vocab_size=100, d_model=32, encoder_layers=2, decoder_layers=3, encoder_attention_heads=4,
            decoder_attention_heads=2, encoder_ffn_dim=48, decoder_ffn_dim=40, max_position_embeddings=64,
            scale_embedding=True))
    if kind == "bart_untied":  # each tower has embeddings of its own
        return tf.BartForConditionalGeneration(tf.BartConfig(
            vocab_size=100, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
            decoder_attention_heads=4, encoder_ffn_dim=40, decoder_ffn_dim=48, max_position_embeddings=64,
            tie_word_embeddings=False))
    if kind == "mt5":  # a number of buckets that four does not divide
        return tf.MT5ForConditionalGeneration(tf.MT5Config(
            vocab_size=100, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=2,
            relative_attention_num_buckets=10, relative_attention_max_distance=20,
            decoder_start_token_id=0))
    if kind == "t5_v11":
        return tf.T5ForConditionalGeneration(tf.T5Config(
            vocab_size=100, d_model=32, d_kv=12, d_ff=48, num_layers=2, num_decoder_layers=3, num_heads=4,
            relative_attention_num_buckets=8, relative_attention_max_distance=20, feed_forward_proj="gated-gelu",
            tie_word_embeddings=False, decoder_start_token_id=0))
    raise SystemExit(f"unknown model {kind}")


def attention_modules(kind, m):
    """{group: [attention module per layer]}"""
    if "roberta" in kind:
        return {"": [l.attention.self for l in m.roberta.encoder.layer]}
    if kind == "clip":
        return {"text": [l.self_attn for l in m.text_model.encoder.layers],
                "vision": [l.self_attn for l in m.vision_model.encoder.layers]}
    if kind == "clip_vision":
        return {"vision": [l.self_attn for l in getattr(m, "vision_model", m).encoder.layers]}
    if kind == "vit_resized":
        return {"": [l.attention for l in m.vit.layers]}
    if kind.startswith("bart"):
        return {"enc": [l.self_attn for l in m.model.encoder.layers],
                "dec": [l.self_attn for l in m.model.decoder.layers],
                "cross": [l.encoder_attn for l in m.model.decoder.layers]}
    return {"enc": [b.layer[0].SelfAttention for b in m.encoder.block],
            "dec": [b.layer[0].SelfAttention for b in m.decoder.block],
            "cross": [b.layer[1].EncDecAttention for b in m.decoder.block]}


def projections(module):
    for names in (("query", "key", "value"), ("q_proj", "k_proj", "v_proj"), ("q", "k", "v")):
        if all(hasattr(module, n) for n in names):
            return [getattr(module, n) for n in names]
    raise SystemExit(f"no projections in {type(module)}")


def heads_of(model, group):
    c = model.config
    if group == "enc" and hasattr(c, "encoder_attention_heads"):
        return c.encoder_attention_heads
    if group in ("dec", "cross") and hasattr(c, "decoder_attention_heads"):
        return c.decoder_attention_heads
    part = getattr(c, group + "_config", c) if group in ("text", "vision") else c
    return part.num_attention_heads if hasattr(part, "num_attention_heads") else part.num_heads


def inputs(kind, rng, n):
    ids = lambda k, last=90: torch.tensor(rng.integers(4, last, size=(1, k)))
    if "roberta" in kind:
        x = ids(n)
        if n > 10:
            x[0, 7] = 1  # a pad token in the middle: positions do not count it
        return dict(input_ids=x)
    if kind in ("bart", "bart_untied", "t5_v11", "mt5"):
        return dict(input_ids=ids(n), decoder_input_ids=ids(max(3, n // 3)))
    if kind == "clip":
        x = ids(n)
        x[0, n // 2 + 1] = EOS
        return dict(input_ids=x, pixel_values=torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(n)))
    h, w = (48, 72) if n > 10 else (32, 32)
    return dict(pixel_values=torch.randn(1, 3, h, w, generator=torch.Generator().manual_seed(n)))


def main(kind):
    torch.manual_seed(sum(map(ord, kind)))
    rng = np.random.default_rng(sum(map(ord, kind)))
    model = make(kind).eval()
    for p in model.parameters():  # uneven attention; norms stay around 1
        norm = p.dim() == 1 and bool((p == 1).all())
        p.data = torch.randn_like(p) * (0.12 if "t5" in kind else 0.3) + (1.0 if norm else 0.0)
    out = HERE / kind
    out.mkdir(exist_ok=True)
    model.save_pretrained(out)
    model = type(model).from_pretrained(out, attn_implementation="eager").eval()
    groups = attention_modules(kind, model)
    seen = {}
    for group, modules in groups.items():
        for i, module in enumerate(modules):
            for name, linear in zip("qkv", projections(module)):
                linear.register_forward_hook(
                    lambda _m, _a, y, key=(group, i, name): seen.__setitem__(key, y.detach()))
    tensors, prompts = {}, []
    config_file = json.loads((out / "config.json").read_text())
    for number, n in enumerate((6, 40)):
        x = inputs(kind, rng, n)
        seen.clear()
        more = dict(interpolate_pos_encoding=True) if kind in ("clip_vision", "vit_resized") else {}
        with torch.no_grad():
            y = model(**x, output_attentions=True, **more)
        maps = {}
        if kind == "clip":
            maps = {"text": y.text_model_output.attentions, "vision": y.vision_model_output.attentions}
        elif "enc" in groups:
            maps = {"enc": y.encoder_attentions, "dec": y.decoder_attentions, "cross": y.cross_attentions}
        else:
            maps = {next(iter(groups)): y.attentions}
        for group, modules in groups.items():
            heads = heads_of(model, group)
            for i in range(len(modules)):
                key = f"p{number}." + (group + "." if group else "") + f"L{i}"
                for name in "qkv":
                    t = seen[(group, i, name)][0]
                    tensors[f"{key}.{name}"] = t.view(t.shape[0], heads, -1).transpose(0, 1).contiguous()
                tensors[f"{key}.attn"] = maps[group][i][0].contiguous()
        for name, value in x.items():
            tensors[f"p{number}.{name}"] = value[0].contiguous()
        if kind == "clip":  # the projections before they are normalised
            pooled = lambda f: f if isinstance(f, torch.Tensor) else f.pooler_output
            with torch.no_grad():
                text = pooled(model.get_text_features(input_ids=x["input_ids"]))
                image = pooled(model.get_image_features(pixel_values=x["pixel_values"]))
            tensors[f"p{number}.text_embeds"], tensors[f"p{number}.image_embeds"] = text, image
        elif hasattr(y, "logits"):
            logits = y.logits[0] if y.logits.dim() == 3 else y.logits
            tensors[f"p{number}.logits_last4"] = logits[-4:].contiguous()
            tensors[f"p{number}.argmax"] = logits.argmax(-1).to(torch.int32)
            wide = logits.double()
            tensors[f"p{number}.logits_sums"] = torch.stack([wide.sum(), wide.square().sum(), wide.abs().sum()])
        prompts.append({k: list(v.shape) for k, v in x.items()})
    save_file({k: v.contiguous() for k, v in tensors.items()}, out / "golden.safetensors")
    layers = [dict(group=g, index=i) for g, m in groups.items() for i in range(len(m))]
    (out / "golden.json").write_text(json.dumps(dict(
        name=kind, generator="make_encoders.py", layers=layers, prompts=prompts,
        versions=dict(torch=torch.__version__, transformers=tf.__version__)), indent=1) + "\n")
    # As most of the hub has it: v4 names, and nothing that is the class's default.
    old = copy.deepcopy(config_file)
    old["torch_dtype"] = old.pop("dtype", "float32")
    old["transformers_version"] = "4.46.0"
    if kind == "t5_v11":
        old.pop("scale_decoder_outputs", None)
        old["tie_word_embeddings"] = False
    (out / "config_v4.json").write_text(json.dumps(old, indent=2) + "\n")
    (out / "generation_config.json").unlink(missing_ok=True)
    print(kind, sum(f.stat().st_size for f in out.iterdir()) // 1024, "KiB")


for kind in sys.argv[1:] or ["roberta", "roberta_untied", "xlm_roberta", "clip", "clip_vision", "vit_resized",
                             "bart", "bart_untied", "t5_v11", "mt5"]:
    main(kind)
