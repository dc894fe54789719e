"""Writes tests/data/invalid: one small file per validity rule of the formats. Each is a valid file
with one thing changed, so that it breaks that rule and no other; the files named `valid*` break
none. rules.json beside them says, by hand, what Sparsight must answer.

    python3 make_invalid.py
"""
import base64
import copy
import json
import os
import shutil
import struct
import sys

OUT = os.path.join(sys.path[0], "invalid")
made = set()


def put(name, data):
    path = f"{OUT}/{name}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    assert name not in made, name
    made.add(name)
    if not isinstance(data, bytes):
        data = (data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)).encode()
    open(path, "wb").write(data)


for folder in ["safetensors", "index", "config", "tokenizer"]:
    shutil.rmtree(f"{OUT}/{folder}", ignore_errors=True)


# --- safetensors --------------------------------------------------------------------------------
def file(header, data, announced=None):
    h = header if isinstance(header, bytes) else header.encode()
    return struct.pack("<Q", len(h) if announced is None else announced) + h + data


def st(name, header, data=b"12345678", announced=None):
    put(f"safetensors/{name}.safetensors", file(header, data, announced))


A = '"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
B = '"b":{"dtype":"F16","shape":[2,1],"data_offsets":[4,8]}'
GOOD = "{" + A + "," + B + "}"


def entry(dtype='"F16"', shape="[2,1]", offsets="[4,8]", more=""):
    return "{" + A + ',"b":{"dtype":' + dtype + ',"shape":' + shape + ',"data_offsets":' + offsets + more + "}}"


st("valid", GOOD)
st("valid_metadata", '{"__metadata__":{"format":"pt"},' + A + "," + B + "}")
st("valid_any_order", "{" + B + "," + A + "}")
st("valid_whitespace", " \n" + GOOD + "   ")
put("safetensors/too_short.safetensors", b"\x02\0\0\0")
st("header_over_100_million", GOOD, announced=100_000_001)
st("header_beyond_file", GOOD, announced=len(GOOD) + 9)
st("header_empty", "", b"")
st("header_not_utf8", GOOD.replace('"a"', '"\xff"').encode("latin-1"))
st("header_not_json", GOOD[:-1])
st("header_text_after", GOOD + "x")
st("header_nul_after", GOOD + "\0")
st("header_byte_order_mark", "\ufeff" + GOOD)
st("header_list", "[]", b"")
st("header_number", "7", b"")
st("header_string", '"a"', b"")
st("header_too_deep", entry(more=',"x":' + "[" * 40 + "]" * 40))
st("name_twice", GOOD.replace('"b"', '"a"'))
st("metadata_twice", '{"__metadata__":{},"__metadata__":{},' + A + "," + B + "}")
st("metadata_list", '{"__metadata__":[],' + A + "," + B + "}")
st("metadata_value_number", '{"__metadata__":{"k":1},' + A + "," + B + "}")
st("metadata_value_object", '{"__metadata__":{"k":{}},' + A + "," + B + "}")
st("metadata_value_null", '{"__metadata__":{"k":null},' + A + "," + B + "}")
st("entry_number", "{" + A + ',"b":3}')
st("entry_list", "{" + A + ',"b":[]}')
st("entry_null", "{" + A + ',"b":null}')
st("dtype_missing", "{" + A + ',"b":{"shape":[2,1],"data_offsets":[4,8]}}')
st("shape_missing", "{" + A + ',"b":{"dtype":"F16","data_offsets":[4,8]}}')
st("offsets_missing", "{" + A + ',"b":{"dtype":"F16","shape":[2,1]}}')
st("key_twice", entry(more=',"dtype":"F16"'))
st("dtype_unknown", entry(dtype='"F15"'))
st("dtype_lower_case", entry(dtype='"f16"'))
st("dtype_number", entry(dtype="16"))
st("shape_number", entry(shape="2"))
st("shape_of_strings", entry(shape='["2","1"]'))
st("shape_nested", entry(shape="[[2,1]]"))
st("shape_fraction", entry(shape="[2.0,1]"))
st("shape_exponent", entry(shape="[2e0,1]"))
st("shape_negative", entry(shape="[-2,1]"))
st("shape_out_of_range", entry(shape="[9223372036854775808,0]"))
st("shape_overflows", entry(shape="[4294967296,4294967296]"))
st("shape_bits_overflow", entry(shape="[1152921504606846976,1]"))
st("shape_too_many_axes", entry(shape="[2" + ",1" * 70 + "]"))
st("offsets_one", entry(offsets="[4]"))
st("offsets_three", entry(offsets="[4,8,8]"))
st("offsets_fraction", entry(offsets="[4,8.0]"))
st("offsets_negative", entry(offsets="[-4,8]"))
st("offsets_backwards", entry(offsets="[4,2]"))
st("offsets_hole", entry(offsets="[5,9]"), b"123456789")
st("offsets_overlap", entry(offsets="[2,6]"), b"123456")
st("offsets_aliased", entry(offsets="[0,4]"), b"1234")
st("offsets_late_start", '{"a":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}}', b"12345")
st("size_wrong", entry(shape="[3,1]"))
st("bits_not_whole_bytes", entry(dtype='"F4"', shape="[3]", offsets="[4,5]"), b"12345")
st("truncated", GOOD, b"1234567")
st("trailing_bytes", GOOD, b"123456789")


# --- shards -------------------------------------------------------------------------------------
def shard(*names):
    h = {n: {"dtype": "U8", "shape": [1], "data_offsets": [i, i + 1]} for i, n in enumerate(names)}
    return file(json.dumps(h), bytes(len(names)))


def index(name, text, a=("x",), b=("y",), more=None):
    put(f"index/{name}/model.safetensors.index.json", text)
    put(f"index/{name}/a.safetensors", shard(*a))
    put(f"index/{name}/b.safetensors", shard(*b))
    for extra, content in (more or {}).items():
        put(f"index/{name}/{extra}", content)


def weight_map(**tensors):
    return {"metadata": {"total_size": 2}, "weight_map": {k: v for k, v in tensors.items()}}


GOOD_MAP = weight_map(x="a.safetensors", y="b.safetensors")
index("valid", GOOD_MAP)
index("valid_no_metadata", {"weight_map": GOOD_MAP["weight_map"]})
index("not_json", json.dumps(GOOD_MAP)[:-1])
index("list", [GOOD_MAP])
index("no_weight_map", {"metadata": {}})
index("weight_map_list", {"weight_map": ["a.safetensors"]})
index("weight_map_empty", {"weight_map": {}})
index("tensor_twice", '{"weight_map":{"x":"a.safetensors","x":"a.safetensors","y":"b.safetensors"}}')
index("file_number", weight_map(x=1, y="b.safetensors"))
index("file_absent", weight_map(x="a.safetensors", y="c.safetensors"))
index("file_parent", weight_map(x="../a.safetensors", y="b.safetensors"))
index("file_absolute", weight_map(x="/tmp/a.safetensors", y="b.safetensors"))
index("file_backslash", weight_map(x="..\\a.safetensors", y="b.safetensors"))
index("file_empty", weight_map(x="", y="b.safetensors"))
index("tensor_not_in_shard", weight_map(x="b.safetensors", y="b.safetensors"))
index("tensor_in_two_shards", GOOD_MAP, b=("y", "x"))
index("chosen_outside", GOOD_MAP, more={"config.json": {"transformers_weights": "../a.safetensors"}})
index("chosen_number", GOOD_MAP, more={"config.json": {"transformers_weights": 3}})
put("index/only_pickle/pytorch_model.bin", b"\x80\x02.")
put("index/only_variant/model.fp16.safetensors", shard("x"))
put("index/nothing/readme.txt", "no weights")


# --- config.json --------------------------------------------------------------------------------
SIZES = {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
         "num_attention_heads": 4, "max_position_embeddings": 64, "eos_token_id": 1, "dtype": "float32"}
LLAMA = {"model_type": "llama", **SIZES, "num_key_value_heads": 2, "head_dim": 8, "rms_norm_eps": 1e-5,
         "hidden_act": "silu", "rope_theta": 10000.0, "tie_word_embeddings": False,
         "attention_bias": False, "mlp_bias": False}
EXPERTS = {"num_experts_per_tok": 2, "num_key_value_heads": 2}
BASES = {
    "llama": LLAMA,
    "mistral": {**LLAMA, "model_type": "mistral", "sliding_window": 16},
    "qwen2": {**LLAMA, "model_type": "qwen2", "sliding_window": 16, "use_sliding_window": True,
              "max_window_layers": 1},
    "qwen3_moe": {**LLAMA, "model_type": "qwen3_moe", "num_experts": 4, "moe_intermediate_size": 8,
                  "decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True,
                  "num_experts_per_tok": 2, "use_sliding_window": False},
    "mixtral": {**LLAMA, "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2,
                "sliding_window": None},
    "gemma": {**LLAMA, "model_type": "gemma", "hidden_activation": "gelu_pytorch_tanh"},
    "gemma2": {**LLAMA, "model_type": "gemma2", "hidden_activation": "gelu_pytorch_tanh",
               "sliding_window": 16, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 50.0,
               "final_logit_softcapping": 30.0},
    "gemma3_text": {**LLAMA, "model_type": "gemma3_text", "hidden_activation": "gelu_pytorch_tanh",
                    "sliding_window": 16, "query_pre_attn_scalar": 8, "sliding_window_pattern": 2,
                    "rope_local_base_freq": 10000.0},
    "phi3": {**LLAMA, "model_type": "phi3", "sliding_window": None, "original_max_position_embeddings": 32},
    "smollm3": {**LLAMA, "model_type": "smollm3", "no_rope_layers": [1, 0], "use_sliding_window": False,
                "no_rope_layer_interval": 4},
    "gpt2": {"model_type": "gpt2", "vocab_size": 32, "n_embd": 32, "n_layer": 2, "n_head": 4,
             "n_positions": 64, "n_inner": 64, "layer_norm_epsilon": 1e-5,
             "activation_function": "gelu_new", "eos_token_id": 1},
    "gpt_neox": {**SIZES, "model_type": "gpt_neox", "rotary_pct": 0.5, "rotary_emb_base": 10000,
                 "layer_norm_eps": 1e-5, "hidden_act": "gelu", "use_parallel_residual": True},
    "opt": {**SIZES, "model_type": "opt", "ffn_dim": 64, "word_embed_proj_dim": 16,
            "do_layer_norm_before": True, "activation_function": "relu"},
    "gpt_oss": {**LLAMA, "model_type": "gpt_oss", "sliding_window": 16, "num_local_experts": 4,
                "num_experts_per_tok": 2, "swiglu_limit": 7.0},
    "deepseek_v2": {**SIZES, "model_type": "deepseek_v2", "kv_lora_rank": 16, "q_lora_rank": 8,
                    "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8, "n_routed_experts": 8,
                    "num_experts_per_tok": 2, "moe_intermediate_size": 8, "n_shared_experts": 1,
                    "first_k_dense_replace": 1, "topk_method": "group_limited_greedy", "n_group": 4,
                    "topk_group": 2, "routed_scaling_factor": 1.0, "rope_theta": 10000.0,
                    "hidden_act": "silu", "rms_norm_eps": 1e-6},
    "deepseek_v3": {**SIZES, "model_type": "deepseek_v3", "kv_lora_rank": 16, "q_lora_rank": 8,
                    "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8, "n_routed_experts": 8,
                    "num_experts_per_tok": 2, "moe_intermediate_size": 8, "n_shared_experts": 1,
                    "first_k_dense_replace": 1, "n_group": 4, "topk_group": 2, "rope_theta": 10000.0,
                    "hidden_act": "silu", "rms_norm_eps": 1e-6},
    "bert": {**SIZES, "model_type": "bert", "hidden_act": "gelu", "layer_norm_eps": 1e-12,
             "type_vocab_size": 2, "pad_token_id": 0},
    "roberta": {**SIZES, "model_type": "roberta", "hidden_act": "gelu", "layer_norm_eps": 1e-5,
                "type_vocab_size": 1, "pad_token_id": 1},
    "vit": {"model_type": "vit", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
            "intermediate_size": 64, "image_size": 32, "patch_size": 8, "num_channels": 3,
            "hidden_act": "gelu", "layer_norm_eps": 1e-12, "qkv_bias": True, "num_labels": 2},
    "clip": {"model_type": "clip", "projection_dim": 16,
             "text_config": {"vocab_size": 32, "hidden_size": 32, "num_hidden_layers": 2,
                             "num_attention_heads": 4, "intermediate_size": 64, "eos_token_id": 1,
                             "max_position_embeddings": 16, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
             "vision_config": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
                               "intermediate_size": 64, "image_size": 32, "patch_size": 8,
                               "num_channels": 3, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}},
    "t5": {"model_type": "t5", "vocab_size": 32, "d_model": 32, "num_layers": 2, "num_heads": 4, "d_kv": 8,
           "d_ff": 64, "layer_norm_epsilon": 1e-6, "feed_forward_proj": "gated-gelu",
           "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128,
           "num_decoder_layers": 2, "decoder_start_token_id": 0, "tie_word_embeddings": True},
    "bart": {"model_type": "bart", "vocab_size": 32, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
             "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64,
             "decoder_ffn_dim": 64, "max_position_embeddings": 64, "activation_function": "gelu",
             "decoder_start_token_id": 2, "scale_embedding": False},
}
for arch, base in BASES.items():
    put(f"config/valid_{arch}.json", base)


def config(arch, name, remove=None, **change):
    j = copy.deepcopy(BASES[arch])
    for key in [remove] if remove else []:
        del j[key]
    for key, value in change.items():
        at = j
        path = key.split("__")
        for part in path[:-1]:
            at = at[part]
        at[path[-1]] = value
    put(f"config/{arch}_{name}.json", j)


put("config/not_json.json", json.dumps(LLAMA)[:-1])
put("config/list.json", [LLAMA])
put("config/nul.json", json.dumps(LLAMA) + "\0")
put("config/key_twice.json", json.dumps(LLAMA)[:-1] + ', "head_dim": 8}')
put("config/too_deep.json", json.dumps(LLAMA)[:-1] + ', "x": ' + "[" * 80 + "]" * 80 + "}")
put("config/no_model_type.json", {k: v for k, v in LLAMA.items() if k != "model_type"})
config("llama", "model_type_number", model_type=3)
config("llama", "model_type_unknown", model_type="lama")
for key in ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
            "num_key_value_heads", "head_dim", "max_position_embeddings"]:
    config("llama", f"{key}_zero", **{key: 0})
    config("llama", f"{key}_fraction", **{key: 4.5})
    config("llama", f"{key}_text", **{key: "4"})
config("llama", "layers_too_many", num_hidden_layers=5000)
config("llama", "head_dim_too_large", head_dim=65538)
config("llama", "head_dim_odd", head_dim=7)
config("llama", "kv_heads_do_not_divide", num_key_value_heads=3)
config("llama", "heads_do_not_divide", remove="head_dim", num_attention_heads=6)
config("llama", "eps_zero", rms_norm_eps=0)
config("llama", "eps_infinite", rms_norm_eps={"__float__": "Infinity"})
config("llama", "act_unknown", hidden_act="sulu")
config("llama", "act_number", hidden_act=1)
config("llama", "attention_bias_text", attention_bias="yes")
config("llama", "mlp_bias_number", mlp_bias=1)
config("llama", "tied_text", tie_word_embeddings="no")
config("llama", "dtype_number", dtype=32)
config("llama", "eos_text", eos_token_id="1")
config("llama", "eos_list_of_text", eos_token_id=[1, "2"])
config("llama", "per_layer_config", per_layer_config={"0": {"head_dim": 4}})
config("llama", "quantisation_unknown", quantization_config={"quant_method": "gptq"})
config("llama", "quantisation_unnamed", quantization_config={"bits": 4})
config("llama", "mxfp4_of_another", quantization_config={"quant_method": "mxfp4"})
config("llama", "fp8_tiles", quantization_config={"quant_method": "fp8", "weight_block_size": [64, 64]})
config("llama", "layer_types_length", layer_types=["full_attention"])
config("llama", "layer_types_text", layer_types="full_attention")
config("llama", "layer_types_linear", layer_types=["full_attention", "linear_attention"])
config("llama", "layer_types_sliding", layer_types=["full_attention", "sliding_attention"])
config("llama", "rope_theta_zero", rope_theta=0)
config("llama", "rope_scaling_number", rope_scaling=3)
config("llama", "rope_by_layer_type", rope_parameters={"full_attention": {"rope_type": "default"}})
ROPES = {
    "linear": {"rope_type": "linear", "factor": 2.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 32},
    "yarn": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32, "truncate": True},
    "longrope": {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "factor": 2.0,
                 "original_max_position_embeddings": 32},
}
for kind, rope in ROPES.items():
    put(f"config/valid_rope_{kind}.json", {**LLAMA, "rope_scaling": rope})


def rope(kind, name, **change):
    r = {**ROPES[kind], **change}
    put(f"config/rope_{kind}_{name}.json", {**LLAMA, "rope_scaling": {k: v for k, v in r.items() if v is not None}})


rope("linear", "type_unknown", rope_type="liner")
rope("linear", "type_number", rope_type=1)
rope("linear", "factor_missing", factor=None)
rope("linear", "factor_zero", factor=0)
rope("linear", "factor_text", factor="2")
rope("linear", "theta_negative", rope_theta=-1.0)
rope("linear", "partial_above_one", partial_rotary_factor=1.5)
rope("linear", "partial_none", partial_rotary_factor=0.1)
rope("linear", "original_zero", original_max_position_embeddings=0)
rope("dynamic", "factor_missing", factor=None)
rope("dynamic", "two_dimensions", partial_rotary_factor=0.25)
rope("llama3", "low_zero", low_freq_factor=0)
rope("llama3", "high_not_above_low", high_freq_factor=1.0)
rope("yarn", "beta_fast_zero", beta_fast=0)
rope("yarn", "beta_slow_text", beta_slow="1")
rope("yarn", "truncate_number", truncate=1)
rope("yarn", "mscale_text", mscale="1")
rope("yarn", "attention_factor_text", attention_factor="1")
rope("longrope", "short_length", short_factor=[1.0] * 3)
rope("longrope", "long_length", long_factor=[1.0] * 5)
rope("longrope", "long_missing", long_factor=None)
rope("longrope", "short_zero", short_factor=[1.0, 1.0, 0, 1.0])
rope("longrope", "short_of_text", short_factor=["1", "1", "1", "1"])
rope("longrope", "long_number", long_factor=2.0)
config("mistral", "window_zero", sliding_window=0)
config("mistral", "window_text", sliding_window="16")
config("qwen2", "max_window_layers_negative", max_window_layers=-1)
config("qwen2", "use_window_text", use_sliding_window="yes")
config("qwen2", "layer_type_unknown", layer_types=["sliding_attention", "chunked_attention"])
config("qwen3_moe", "experts_zero", num_experts=0)
config("qwen3_moe", "experts_too_many", num_experts=70000)
config("qwen3_moe", "per_token_above_experts", num_experts_per_tok=5)
config("qwen3_moe", "moe_width_zero", moe_intermediate_size=0)
config("qwen3_moe", "sparse_step_zero", decoder_sparse_step=0)
config("qwen3_moe", "mlp_only_number", mlp_only_layers=1)
config("qwen3_moe", "norm_topk_text", norm_topk_prob="true")
config("mixtral", "experts_text", num_local_experts="4")
config("gemma", "activation_unknown", hidden_activation="geglu")
config("gemma", "bidirectional", use_bidirectional_attention=True)
config("gemma2", "scalar_zero", query_pre_attn_scalar=0)
config("gemma2", "softcap_negative", attn_logit_softcapping=-50)
config("gemma2", "final_softcap_text", final_logit_softcapping="30")
config("gemma3_text", "pattern_zero", sliding_window_pattern=0)
config("gemma3_text", "local_base_zero", rope_local_base_freq=0)
config("gemma3_text", "rope_part_number", rope_parameters={"full_attention": 3, "sliding_attention": {"rope_theta": 1.0}})
config("phi3", "original_zero", original_max_position_embeddings=0)
config("smollm3", "no_rope_length", no_rope_layers=[1])
config("smollm3", "no_rope_text", no_rope_layers=["1", "0"])
config("smollm3", "no_rope_interval_zero", no_rope_layer_interval=0)
config("gpt2", "heads_do_not_divide", n_head=5)
config("gpt2", "layers_zero", n_layer=0)
config("gpt2", "cross_attention", add_cross_attention=True)
config("gpt2", "scale_by_layer_text", scale_attn_by_inverse_layer_idx="no")
config("gpt_neox", "rotary_pct_zero", rotary_pct=0)
config("gpt_neox", "rotary_base_text", rotary_emb_base="10000")
config("gpt_neox", "parallel_number", use_parallel_residual=1)
config("opt", "word_width_zero", word_embed_proj_dim=0)
config("opt", "norm_without_weights", layer_norm_elementwise_affine=False)
config("opt", "norm_before_text", do_layer_norm_before="yes")
config("gpt_oss", "activation", hidden_act="gelu")
config("gpt_oss", "limit_zero", swiglu_limit=0)
config("gpt_oss", "mxfp4_width", quantization_config={"quant_method": "mxfp4"}, intermediate_size=48)
config("deepseek_v2", "kv_rank_zero", kv_lora_rank=0)
config("deepseek_v2", "q_rank_text", q_lora_rank="8")
config("deepseek_v2", "nope_zero", qk_nope_head_dim=0)
config("deepseek_v2", "rope_odd", qk_rope_head_dim=3)
config("deepseek_v2", "value_width_zero", v_head_dim=0)
config("deepseek_v2", "per_token_missing", remove="num_experts_per_tok")
config("deepseek_v2", "topk_method_unknown", topk_method="greedyy")
config("deepseek_v2", "groups_do_not_divide", n_group=3)
config("deepseek_v2", "topk_group_above_groups", topk_group=5)
config("deepseek_v2", "per_token_above_groups", num_experts_per_tok=5)
config("deepseek_v2", "shared_negative", n_shared_experts=-1)
config("deepseek_v2", "scaling_text", routed_scaling_factor="1")
config("deepseek_v3", "groups_of_one", n_group=8)
config("deepseek_v3", "dense_negative", first_k_dense_replace=-1)
for key in ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size",
            "max_position_embeddings", "type_vocab_size"]:
    config("bert", f"{key}_zero", **{key: 0})
    config("bert", f"{key}_text", **{key: "4"})
config("bert", "heads_do_not_divide", num_attention_heads=5)
config("bert", "eps_zero", layer_norm_eps=0)
config("bert", "act_unknown", hidden_act="gelo")
config("bert", "decoder", is_decoder=True)
config("bert", "relative_positions", position_embedding_type="relative_key")
config("bert", "quantised", quantization_config={"quant_method": "gptq"})
config("bert", "per_layer_config", per_layer_config={"0": {}})
config("roberta", "pad_negative", pad_token_id=-1)
config("roberta", "no_position_left", max_position_embeddings=2)
config("vit", "patch_zero", patch_size=0)
config("vit", "patch_not_square", patch_size=[8, 4])
config("vit", "image_of_three", image_size=[32, 32, 3])
config("vit", "image_below_patch", image_size=4)
config("vit", "channels", num_channels=1)
config("vit", "qkv_bias_text", qkv_bias="true")
config("clip", "text_config_list", text_config=[])
config("clip", "vision_config_text", vision_config="vit")
config("clip", "text_heads_do_not_divide", text_config__num_attention_heads=5)
config("clip", "text_eos_negative", text_config__eos_token_id=-1)
config("clip", "vision_patch_zero", vision_config__patch_size=0)
config("clip", "vision_quantised", vision_config__quantization_config={"quant_method": "awq"})
config("clip", "projection_zero", projection_dim=0)
config("t5", "d_kv_zero", d_kv=0)
config("t5", "heads_text", num_heads="4")
config("t5", "feed_forward_unknown", feed_forward_proj="gated-gelo")
config("t5", "buckets_too_few", relative_attention_num_buckets=3)
config("t5", "buckets_beyond_distance", relative_attention_max_distance=16)
config("t5", "start_outside", decoder_start_token_id=32)
config("t5", "tied_text", tie_word_embeddings="yes")
config("t5", "scaled_number", scale_decoder_outputs=1)
config("bart", "encoder_layers_zero", encoder_layers=0)
config("bart", "decoder_heads_do_not_divide", decoder_attention_heads=5)
config("bart", "ffn_text", decoder_ffn_dim="64")
config("bart", "start_outside", decoder_start_token_id=32)
config("bart", "scale_number", scale_embedding=1)

# --- tokenizer.json -----------------------------------------------------------------------------
BPE = {"type": "BPE", "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
       "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "dropout": None,
       "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}
UNIGRAM = {"type": "Unigram", "unk_id": 0, "byte_fallback": False, "vocab": [["<unk>", 0.0], ["a", -1.0]]}
WORDPIECE = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
             "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "a": 1, "##b": 2}}
WORDLEVEL = {"type": "WordLevel", "unk_token": "<unk>", "vocab": {"<unk>": 0, "a": 1}}
TOKEN = {"id": 3, "content": "<s>", "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
TOKENIZER = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [TOKEN], "normalizer": None,
             "pre_tokenizer": None, "post_processor": None, "decoder": None, "model": BPE}


def tokenizer(name, **change):
    put(f"tokenizer/{name}.json", {**TOKENIZER, **change})


def model(base, name, remove=None, **change):
    j = {**base, **change}
    if remove:
        del j[remove]
    tokenizer(f"{base['type'].lower()}_{name}", model=j)


tokenizer("valid_bpe")
for base in [UNIGRAM, WORDPIECE, WORDLEVEL]:
    tokenizer(f"valid_{base['type'].lower()}", model=base)
put("tokenizer/not_json.json", json.dumps(TOKENIZER)[:-1])
put("tokenizer/list.json", [TOKENIZER])
put("tokenizer/no_model.json", {k: v for k, v in TOKENIZER.items() if k != "model"})
put("tokenizer/key_twice.json", json.dumps(TOKENIZER)[:-1] + ', "version": "1.0"}')
tokenizer("version_unknown", version="2.0")
tokenizer("model_list", model=[])
tokenizer("model_type_unknown", model={**BPE, "type": "BPEE"})
tokenizer("model_type_number", model={**BPE, "type": 1})
model(BPE, "vocab_missing", remove="vocab")
model(BPE, "vocab_list", vocab=["a", "b"])
model(BPE, "id_negative", vocab={"a": 0, "b": 1, "ab": -2})
model(BPE, "id_text", vocab={"a": 0, "b": 1, "ab": "2"})
model(BPE, "id_beyond_28_bits", vocab={"a": 0, "b": 1, "ab": 1 << 29})
model(BPE, "id_far_beyond", vocab={"a": 0, "b": 1, "ab": 1 << 27})
model(BPE, "merges_missing", remove="merges")
model(BPE, "merges_object", merges={})
model(BPE, "merge_of_one", merges=["ab"])
model(BPE, "merge_of_three", merges=[["a", "b", "a"]])
model(BPE, "merge_number", merges=[3])
model(BPE, "merge_unknown_token", merges=["a z"])
model(BPE, "merge_without_result", merges=["b a"])
model(BPE, "dropout", dropout=0.1)
model(BPE, "unk_number", unk_token=0)
model(BPE, "prefix_number", continuing_subword_prefix=0)
model(BPE, "suffix_list", end_of_word_suffix=[])
model(BPE, "byte_fallback_text", byte_fallback="yes")
model(BPE, "fuse_unk_number", fuse_unk=1)
model(BPE, "ignore_merges_text", ignore_merges="no")
model(UNIGRAM, "vocab_object", vocab={"a": -1.0})
model(UNIGRAM, "vocab_empty", vocab=[], unk_id=None)
model(UNIGRAM, "entry_short", vocab=[["<unk>", 0.0], ["a"]])
model(UNIGRAM, "score_text", vocab=[["<unk>", 0.0], ["a", "-1"]])
model(UNIGRAM, "unk_outside", unk_id=2)
model(UNIGRAM, "unk_negative", unk_id=-1)
model(UNIGRAM, "byte_fallback_text", byte_fallback="yes")
model(WORDPIECE, "vocab_missing", remove="vocab")
model(WORDPIECE, "unk_number", unk_token=0)
model(WORDPIECE, "prefix_null", continuing_subword_prefix=None)
model(WORDPIECE, "longest_word_text", max_input_chars_per_word="100")
model(WORDLEVEL, "vocab_list", vocab=["a"])
model(WORDLEVEL, "unk_list", unk_token=[])
tokenizer("added_object", added_tokens={})
tokenizer("added_text", added_tokens=["<s>"])
tokenizer("added_without_content", added_tokens=[{k: v for k, v in TOKEN.items() if k != "content"}])
tokenizer("added_without_id", added_tokens=[{k: v for k, v in TOKEN.items() if k != "id"}])
tokenizer("added_id_negative", added_tokens=[{**TOKEN, "id": -1}])
for key in ["single_word", "lstrip", "rstrip", "normalized", "special"]:
    tokenizer(f"added_{key}_number", added_tokens=[{**TOKEN, key: 1}])
charsmap = struct.pack("<I5I", 20, 0x400, 0x161, 0, 0, 0) + b"xy\0"
STAGES = {
    "normalizer": {
        "nfc": {"type": "NFC"},
        "sequence": {"type": "Sequence", "normalizers": [{"type": "NFD"}]},
        "strip": {"type": "Strip", "strip_left": True, "strip_right": True},
        "replace": {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "},
        "prepend": {"type": "Prepend", "prepend": "\u2581"},
        "bert": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                 "strip_accents": None, "lowercase": True},
        "precompiled": {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()}},
    "pre_tokenizer": {
        "byte_level": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True, "trim_offsets": True},
        "sequence": {"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}]},
        "split": {"type": "Split", "pattern": {"String": " "}, "behavior": "Isolated", "invert": False},
        "metaspace": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True},
        "digits": {"type": "Digits", "individual_digits": True},
        "punctuation": {"type": "Punctuation", "behavior": "Isolated"},
        "delimiter": {"type": "CharDelimiterSplit", "delimiter": "-"},
        "fixed": {"type": "FixedLength", "length": 5}},
    "post_processor": {
        "byte_level": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True},
        "sequence": {"type": "Sequence", "processors": [{"type": "ByteLevel"}]},
        "template": {"type": "TemplateProcessing",
                     "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                     "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                     "special_tokens": {"<s>": {"id": "<s>", "ids": [3], "tokens": ["<s>"]}}},
        "bert": {"type": "BertProcessing", "sep": ["b", 1], "cls": ["a", 0]},
        "roberta": {"type": "RobertaProcessing", "sep": ["b", 1], "cls": ["a", 0], "trim_offsets": True,
                    "add_prefix_space": True}},
    "decoder": {
        "byte_level": {"type": "ByteLevel"},
        "sequence": {"type": "Sequence", "decoders": [{"type": "Fuse"}]},
        "wordpiece": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "bpe": {"type": "BPEDecoder", "suffix": "</w>"},
        "ctc": {"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": True},
        "strip": {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        "metaspace": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always"},
        "replace": {"type": "Replace", "pattern": {"String": "a"}, "content": "b"}},
}
for place, stages in STAGES.items():
    for kind, stage in stages.items():
        tokenizer(f"valid_{place}_{kind}", **{place: stage})


def stage(place, kind, name, remove=None, **change):
    j = copy.deepcopy(STAGES[place][kind])
    for key in [remove] if remove else []:
        del j[key]
    tokenizer(f"{place}_{kind}_{name}", **{place: {**j, **change}})


def nested(list_key, leaf, depth):
    for _ in range(depth):
        leaf = {"type": "Sequence", list_key: [leaf]}
    return leaf


for place, list_key, leaf in [("normalizer", "normalizers", "NFC"), ("pre_tokenizer", "pretokenizers", "Whitespace"),
                              ("post_processor", "processors", "ByteLevel"), ("decoder", "decoders", "Fuse")]:
    tokenizer(f"{place}_text", **{place: leaf})
    tokenizer(f"{place}_without_type", **{place: {}})
    tokenizer(f"{place}_unknown", **{place: {"type": leaf + "x"}})
    stage(place, "sequence", "without_list", remove=list_key)
    tokenizer(f"{place}_too_deep", **{place: nested(list_key, {"type": leaf}, 20)})
stage("normalizer", "strip", "flag_text", strip_left="yes")
stage("normalizer", "replace", "pattern_missing", remove="pattern")
stage("normalizer", "replace", "pattern_unknown", pattern={"Glob": "*"})
stage("normalizer", "replace", "regex_open", pattern={"Regex": "(a"})
stage("normalizer", "replace", "content_missing", remove="content")
stage("normalizer", "prepend", "missing", remove="prepend")
stage("normalizer", "bert", "lowercase_text", lowercase="no")
stage("normalizer", "precompiled", "missing", remove="precompiled_charsmap")
stage("normalizer", "precompiled", "not_base64", precompiled_charsmap="AAAA*")
stage("normalizer", "precompiled", "too_short", precompiled_charsmap=base64.b64encode(b"abc").decode())
stage("normalizer", "precompiled", "trie_beyond", precompiled_charsmap=base64.b64encode(struct.pack("<I", 64)).decode())
stage("normalizer", "precompiled", "not_utf8",
      precompiled_charsmap=base64.b64encode(charsmap[:-3] + b"\xff\0\0").decode())
stage("pre_tokenizer", "byte_level", "flag_text", use_regex="yes")
stage("pre_tokenizer", "split", "pattern_number", pattern=3)
stage("pre_tokenizer", "split", "regex_open_class", pattern={"Regex": "[a"})
stage("pre_tokenizer", "split", "behavior_unknown", behavior="Merged")
stage("pre_tokenizer", "split", "behavior_number", behavior=2)
stage("pre_tokenizer", "split", "invert_number", invert=0)
stage("pre_tokenizer", "metaspace", "replacement_long", replacement="ab")
stage("pre_tokenizer", "metaspace", "scheme_unknown", prepend_scheme="last")
stage("pre_tokenizer", "metaspace", "split_text", split="no")
stage("pre_tokenizer", "digits", "flag_number", individual_digits=1)
stage("pre_tokenizer", "punctuation", "behavior_unknown", behavior="Keep")
stage("pre_tokenizer", "delimiter", "missing", remove="delimiter")
stage("pre_tokenizer", "delimiter", "empty", delimiter="")
stage("pre_tokenizer", "fixed", "zero", length=0)
stage("pre_tokenizer", "fixed", "text", length="5")
stage("post_processor", "byte_level", "flag_text", trim_offsets="yes")
stage("post_processor", "template", "single_missing", remove="single")
stage("post_processor", "template", "piece_unknown", single=[{"Token": {"id": "A"}}])
stage("post_processor", "template", "piece_without_id", single=[{"Sequence": {"type_id": 0}}])
stage("post_processor", "template", "sequence_c", single=[{"Sequence": {"id": "C", "type_id": 0}}])
stage("post_processor", "template", "type_id_256", single=[{"Sequence": {"id": "A", "type_id": 256}}])
stage("post_processor", "template", "special_unlisted", special_tokens={})
stage("post_processor", "template", "special_without_ids", special_tokens={"<s>": {"id": "<s>", "tokens": ["<s>"]}})
stage("post_processor", "template", "special_lengths", special_tokens={"<s>": {"id": "<s>", "ids": [3, 4], "tokens": ["<s>"]}})
stage("post_processor", "bert", "sep_missing", remove="sep")
stage("post_processor", "bert", "cls_swapped", cls=[0, "a"])
stage("post_processor", "roberta", "cls_missing", remove="cls")
stage("post_processor", "roberta", "trim_text", trim_offsets="yes")
stage("decoder", "wordpiece", "prefix_number", prefix=2)
stage("decoder", "wordpiece", "cleanup_text", cleanup="yes")
stage("decoder", "bpe", "suffix_number", suffix=3)
stage("decoder", "ctc", "pad_number", pad_token=0)
stage("decoder", "strip", "content_long", content="ab")
stage("decoder", "strip", "start_negative", start=-1)
stage("decoder", "strip", "stop_missing", remove="stop")
stage("decoder", "metaspace", "scheme_number", prepend_scheme=1)
stage("decoder", "replace", "content_number", content=1)


# A SentencePiece model is read where there is no tokenizer.json.
def field(number, payload):
    if isinstance(payload, int):
        key = number << 3
        return (bytes([key]) if key < 128 else bytes([key & 127 | 128, key >> 7])) + bytes([payload])
    return bytes([number << 3 | 2, len(payload)]) + payload


def pieces(*more):
    return b"".join(field(1, field(1, t) + b"\x15" + struct.pack("<f", s) + field(3, k))
                    for t, s, k in [(b"<unk>", 0.0, 2), (b"a", -1.0, 1), *more])


UNI, SPACES = field(2, field(3, 1)), field(3, field(3, 1))
put("tokenizer/valid_sentencepiece.model", pieces() + UNI + SPACES)
put("tokenizer/sentencepiece_no_pieces.model", UNI + SPACES)
put("tokenizer/sentencepiece_damaged.model", (pieces() + UNI + SPACES)[:-1])
put("tokenizer/sentencepiece_piece_not_utf8.model", pieces((b"\xff", -1.0, 1)) + UNI + SPACES)
put("tokenizer/sentencepiece_of_words.model", pieces() + field(2, field(3, 3)) + SPACES)
put("tokenizer/sentencepiece_suffix_spaces.model", pieces() + field(2, field(3, 1) + field(24, 1)) + SPACES)
put("tokenizer/sentencepiece_spaces_kept.model", pieces() + UNI + field(3, field(5, 0)))

rules = f"{OUT}/rules.json"
known = set(json.load(open(rules))) if os.path.exists(rules) else set()
cases = {n if not n.startswith("index/") else "/".join(n.split("/")[:2]) for n in made}
cases = {c for c in cases if not c.split("/")[1].startswith("valid")}
for c in sorted(cases - known):
    print("rules.json lacks", c)
for c in sorted(known - cases):
    print("rules.json has no file for", c)
