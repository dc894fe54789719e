"""Writes the corpus (one small file per thing that the readers know) and json.dict.

    python3 make_corpus.py
"""
import base64
import io
import json
import os
import struct
import sys
import zipfile

HERE = sys.path[0]
DATA = os.path.join(HERE, "..", "data")
words = set()


def put(target, name, data):
    os.makedirs(f"{HERE}/corpus/{target}", exist_ok=True)
    if not isinstance(data, bytes):
        collect(data)
        data = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    open(f"{HERE}/corpus/{target}/{name}", "wb").write(data)


def collect(x):
    if isinstance(x, dict):
        for k, v in x.items():
            if len(k) < 32:
                words.add(k)
            if k not in ("vocab", "weight_map"):
                collect(v)
    elif isinstance(x, list):
        for v in x:
            collect(v)
    elif isinstance(x, str) and 2 < len(x) < 24 and x.isascii():
        words.add(x)


# --- safetensors
def header(entries, data):
    h = json.dumps(entries).encode()
    collect(entries)
    return b"\x01" + bytes([data]) + h + bytes(data)


types = {"BOOL": 8, "U8": 8, "I16": 16, "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "I64": 64,
         "F8_E4M3": 8, "F8_E5M2": 8, "F4": 4}
for t, bits in types.items():
    n = 2 * bits // 8
    put("safetensors", t, header({"a": {"dtype": t, "shape": [2], "data_offsets": [0, n]}}, n))
put("safetensors", "two", header({"__metadata__": {"k": "v"},
                                  "b": {"dtype": "F32", "shape": [2, 1], "data_offsets": [4, 12]},
                                  "a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}, 12))
raw = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
put("safetensors", "file", b"\x00" + struct.pack("<Q", len(raw)) + raw + b"\x07")
put("safetensors", "empty", b"\x01\x00{}")

# --- index
put("index", "good", {"metadata": {"total_size": 28}, "weight_map": {
    "x": "a.safetensors", "y": "a.safetensors", "z": "b.safetensors"}})
put("index", "part", {"weight_map": {"x": "a.safetensors"}})
put("index", "long_name", {"weight_map": {"x": "n" * 300}})  # once threw from std::filesystem
put("index", "out", {"weight_map": {"x": "../a.safetensors"}})

# --- config
base = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 32,
        "intermediate_size": 32, "max_position_embeddings": 64}
for kind in ["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "gpt2",
             "gpt_neox", "opt", "gpt_oss", "glm4", "mixtral", "qwen3_moe", "olmo2", "smollm3",
             "deepseek_v2", "deepseek_v3", "bert", "roberta", "vit", "clip", "t5", "bart"]:
    put("config", kind, {"model_type": kind, **base})
put("config", "rope", {"model_type": "llama", **base, "rope_scaling": {
    "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}})
put("config", "v5", {"model_type": "llama", **base, "rope_parameters": {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 32}, "layer_types":
    ["full_attention", "sliding_attention"], "sliding_window": {"__float__": "Infinity"}})
put("config", "longrope", {"model_type": "phi3", **base, "rope_scaling": {
    "type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}})

# --- tokenizer.json
bpe = {"type": "BPE", "unk_token": "<u>", "vocab": {"<u>": 0, "a": 1, "b": 2, "ab": 3, "<0x20>": 4},
       "merges": ["a b"], "byte_fallback": True, "fuse_unk": True, "ignore_merges": False,
       "continuing_subword_prefix": "", "end_of_word_suffix": ""}
models = {
    "bpe": bpe, "merges": {**bpe, "merges": [["a", "b"]]},
    "suffix": {"type": "BPE", "vocab": {"a": 0, "a</w>": 1}, "merges": [], "end_of_word_suffix": "</w>"},
    "unigram": {"type": "Unigram", "unk_id": 0, "byte_fallback": True,
                "vocab": [["<u>", 0], ["a", -1.5], ["ab", -2], ["\u2581", -3]]},
    "wordpiece": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "a": 1, "##b": 2}},
    "wordlevel": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"[UNK]": 0, "a": 1}}}
added = [{"id": 9, "content": "<s>", "single_word": True, "lstrip": True, "rstrip": True,
          "normalized": True, "special": True}]
for name, model in models.items():
    put("tokenizer_load", name, {"added_tokens": added, "model": model})
charsmap = base64.b64encode(struct.pack("<I5I", 20, 0x400, 0x161, 0, 0, 0) + b"xy\0").decode()
stages = {
    "normalizer": [
        {"type": "NFC"}, {"type": "NFKD"}, {"type": "Lowercase"}, {"type": "StripAccents"},
        {"type": "Nmt"}, {"type": "ByteLevel"}, {"type": "Prepend", "prepend": "\u2581"},
        {"type": "Strip", "strip_left": True, "strip_right": True},
        {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": ""},
        {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
         "strip_accents": None, "lowercase": True},
        {"type": "Precompiled", "precompiled_charsmap": charsmap},
        {"type": "Sequence", "normalizers": [{"type": "NFD"}]}],
    "pre_tokenizer": [
        {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True, "trim_offsets": True},
        {"type": "Split", "pattern": {"Regex": "[^\\W[a-z&&[^b]]]|\\p{N}{1,3}+"},
         "behavior": "Isolated", "invert": False},
        {"type": "Split", "pattern": {"String": "a"}, "behavior": "MergedWithNext", "invert": True},
        {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True},
        {"type": "Digits", "individual_digits": True}, {"type": "Whitespace"},
        {"type": "WhitespaceSplit"}, {"type": "BertPreTokenizer"}, {"type": "UnicodeScripts"},
        {"type": "Punctuation", "behavior": "Contiguous"}, {"type": "FixedLength", "length": 3},
        {"type": "CharDelimiterSplit", "delimiter": "-"},
        {"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}]}],
    "post_processor": [
        {"type": "ByteLevel", "trim_offsets": True}, {"type": "BertProcessing", "sep": ["s", 1], "cls": ["c", 2]},
        {"type": "RobertaProcessing", "sep": ["s", 1], "cls": ["c", 2], "trim_offsets": True},
        {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                                                  {"Sequence": {"id": "A", "type_id": 0}}],
         "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
         "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        {"type": "Sequence", "processors": [{"type": "ByteLevel"}]}],
    "decoder": [
        {"type": "ByteLevel"}, {"type": "Metaspace"}, {"type": "WordPiece", "prefix": "##", "cleanup": True},
        {"type": "BPEDecoder", "suffix": "</w>"}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "CTC", "pad_token": "a", "word_delimiter_token": "|", "cleanup": True},
        {"type": "Strip", "content": " ", "start": 1, "stop": 1},
        {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "a"}, "content": "b"}]}]}
for key, list_ in stages.items():
    for i, stage in enumerate(list_):
        put("tokenizer_load", f"{key}_{i}", {key: stage, "added_tokens": added, "model": bpe})


def field(number, payload):
    if isinstance(payload, int):
        return bytes([number << 3 & 127 | 128 * (number > 15)]) + (bytes([number >> 4]) if number > 15 else b"") + bytes([payload])
    return bytes([number << 3 | 2, len(payload)]) + payload


for kind in (1, 2):
    pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("a", -1.0, 1), ("b", -2.0, 1), ("ab", -1.5, 1),
              ("\u2581", -3.0, 1), ("[U]", 0.0, 4), ("<0x20>", 0.0, 6)]
    proto = b"".join(field(1, field(1, p.encode()) + b"\x15" + struct.pack("<f", s) + field(3, t))
                     for p, s, t in pieces)
    put("tokenizer_load", f"sentencepiece_{kind}", proto + field(2, field(3, kind)) + field(3, field(3, 1)))

# --- texts, for every stored tokenizer
for i, kind in enumerate(sorted(os.listdir(f"{DATA}/parity/tokenizers"))):
    golden = json.load(open(f"{DATA}/parity/tokenizers/{kind}/golden.json"))["single"]
    for k in range(3):
        put("tokenizer_encode", f"{kind}_{k}", bytes([i + 14 * k]) + golden[(7 * i + 11 * k) % len(golden)]["text"].encode())

# --- numpy arrays: header texts, files, archives
def array(descr, shape, fortran=False):
    return f"{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}".encode()


for i, d in enumerate(["<f2", "<f4", "<f8", "|u1", "<u2", "<V2", "<i8", "|b1", "<U3", ">f4", "|O", "<c8"]):
    put("npy", f"header_{i}", bytes([1 + 4 * (i % 3)]) + array(d, "(2, 3)", i % 2 == 1))
put("npy", "header_scalar", b"\x01" + array("<f4", "()"))
put("npy", "header_records", b"\x01{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }")
head = array("<i4", "(2,)")
whole = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + struct.pack("<2i", 1, -1)
put("npy", "header_whole", b"\x00" + whole)
put("npy", "file", b"\x04" + whole)
put("npy", "zipped", b"\x03" + whole)
for name, method in [("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)]:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as z:
        z.writestr(zipfile.ZipInfo("a.npy"), whole, method)
        if name == "deflated":
            z.writestr(zipfile.ZipInfo("layer0/q.npy"), whole, method)
    put("npy", f"archive_{name}", b"\x02" + buffer.getvalue())
words |= {"NUMPY", "descr", "fortran_order", "shape", "'<f4'", "'|O'", "(1, 2)", "True", "False"}

# --- names of foreign tensors
meta = json.dumps({"version": 1, "model": "m", "layers": [
    {"module": "a", "scaling": 0.5, "softcap": None, "window": 4, "causal": True}]})
for name, first, pattern, tensors in [
        ("hook", meta, "", ["layer.0.q|2 4 8", "layer.0.k|1 4 8", "layer.0.v|1 4 8", "layer.0.sinks|2", "input_ids|i 4"]),
        ("stacked", "", "", ["q|1 2 4 8", "k|1 2 4 8"]),
        ("heads", "", "l{layer}/h{head}/q", ["l0/h0/q|4 8", "l0/h1/q|4 8", "l0/h0/k|4 8", "l0/h1/k|4 8"]),
        ("lse", "", "dec/L{layer}_Queries", ["dec/L3_Queries|2 4 8", "dec/L3_Keys|2 4 8", "dec/L3_LSE|4 2"]),
        ("weights", "", "", ["model.layers.0.self_attn.q_proj.weight|8 8"]),
        ("maps", "", "", ["attention.0|2 4 4"]), ("bad", "", "{layer}{head}", ["12|1 1 1"])]:
    put("import_names", name, "\n".join([first, pattern] + tensors).encode())
words |= {"{layer}", "{head}", "scaling", "softcap", "window", "causal", "position_bias", "|2 4 8"}

# --- chat templates
for name in sorted(os.listdir(f"{DATA}/chat_templates")):
    if name.endswith(".jinja"):
        put("chat_template", name[:-6], open(f"{DATA}/chat_templates/{name}", "rb").read())
put("chat_template", "boolean_sum", b"{{ 7 / true }} {{ true|int }} {{ false < 2 }}")  # once threw
words |= {"{%", "%}", "{{", "}}", "{%-", "-%}", "endfor", "endif", "endset", "macro", "endmacro", "namespace(",
          "range(", "| join", "| tojson", "| selectattr", "is defined", "loop.index", "messages", "not in"}

with open(f"{HERE}/json.dict", "w") as f:
    for w in sorted(words):
        f.write('"' + w.replace("\\", "\\\\").replace('"', '\\"') + '"\n')
