"""Trains the small rank files of tiktoken/ and writes what the tiktoken library (0.14) makes of some
texts. A folder is a directory as a model's: tokenizer.model of Llama 3, qwen.tiktoken, o200k_base.tiktoken.

    python3 make_tiktoken.py TEXT.txt
"""
import base64
import json
import os
import sys
import unicodedata

import tiktoken
from tiktoken._educational import bpe_train

HERE = sys.path[0]
passage = open(sys.argv[1], encoding="utf-8").read()[:40000]
passage += " \u4e2d\u6587\u5206\u8bcd \u4e2d\u6587 12345 1999 don't we'll I'M na\u00efve \U0001f600 \U0001f600\n\n\n    x" * 30
texts = sorted({x["text"] for k in ["llama3", "o200k"]
                for x in json.load(open(f"{HERE}/parity/tokenizers/{k}/golden.json"))["single"]})
texts += [passage[i:i + 80] for i in range(0, 3000, 200)]
texts += ["a" * 40, "aaa aa aaaa", "e\u0301 caf\u00e9", "<|begin_of_text|>hi<|eot_id|>", "<|im_start|>user\nhi<|im_end|>",
          "x<|endoftext|>y"]
LETTERS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
           r"\s*[\r\n]+|\s+(?!\S)|\s+")
CASES = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def llama3(first):
    names = ["<|begin_of_text|>", "<|end_of_text|>"] + [f"<|reserved_special_token_{i}|>" for i in range(4)]
    names += ["<|start_header_id|>", "<|end_header_id|>", "<|reserved_special_token_4|>", "<|eot_id|>"]
    names += [f"<|reserved_special_token_{i}|>" for i in range(5, 251)]
    return {name: first + i for i, name in enumerate(names)}


def qwen(first):
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] + [f"<|extra_{i}|>" for i in range(205)]
    return {name: first + i for i, name in enumerate(names)}


golden = {}
for name, file, pattern, specials, size in [
        ("llama3", "tokenizer.model", LETTERS, llama3, 600),
        ("qwen", "qwen.tiktoken", LETTERS.replace("{1,3}", ""), qwen, 500),
        ("o200k", "o200k_base.tiktoken", CASES,
         lambda first: {"<|endoftext|>": 199999, "<|endofprompt|>": 200018}, 550)]:
    ranks = bpe_train(data=passage, vocab_size=size, pat_str=pattern, visualise=None)
    os.makedirs(f"{HERE}/tiktoken/{name}", exist_ok=True)
    with open(f"{HERE}/tiktoken/{name}/{file}", "wb") as out:
        for token, rank in sorted(ranks.items(), key=lambda x: x[1]):
            out.write(base64.b64encode(token) + b" " + str(rank).encode() + b"\n")
    special = specials(size)
    enc = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
    # Qwen's tokenizer composes its text before this.
    form = (lambda t: unicodedata.normalize("NFC", t)) if name == "qwen" else (lambda t: t)
    golden[name] = [{"text": t, "ids": enc.encode(form(t), allowed_special="all")} for t in texts]
    for case in golden[name]:
        case["decoded"] = enc.decode(case["ids"])
json.dump(golden, open(f"{HERE}/tiktoken/golden.json", "w"), separators=(",", ":"))
