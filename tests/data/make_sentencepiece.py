"""Trains the small models of sentencepiece/ and writes what the sentencepiece library (0.2.3) makes
of some texts.

    python3 make_sentencepiece.py TEXT.txt
"""
import json
import sys
import tempfile

import sentencepiece as spm

HERE = sys.path[0]
passage = open(sys.argv[1], encoding="utf-8").read()[:60000]
kinds = ["llama3", "gemma"]
texts = sorted({x["text"] for k in kinds
                for x in json.load(open(f"{HERE}/parity/tokenizers/{k}/golden.json"))["single"]})
texts = [t for t in texts if "<" not in t and "\u0301" not in t]
texts += [passage[i:i + 60] for i in range(0, 3000, 150)]


def points(s):
    return " ".join(f"{ord(c):X}" for c in s)


rules = {"\u2026": "...", "\ufb01": "fi", "\u00bd": "1/2", "\u00e9": "e", "\t": " ", "\n": " "}
golden = {}
with tempfile.TemporaryDirectory() as work:
    open(f"{work}/rules.tsv", "w").write("".join(f"{points(k)}\t{points(v)}\n" for k, v in rules.items()))
    open(f"{work}/text", "w").write(passage)
    for name, options in {
            "bpe": dict(model_type="bpe", byte_fallback=True, vocab_size=450,
                        normalization_rule_name="identity", remove_extra_whitespaces=False),
            "runs": dict(model_type="bpe", byte_fallback=True, vocab_size=420, add_dummy_prefix=False,
                         normalization_rule_name="identity", remove_extra_whitespaces=False,
                         user_defined_symbols=["\u2581\u2581", "\n"]),
            "unigram": dict(model_type="unigram", vocab_size=260,
                            normalization_rule_tsv=f"{work}/rules.tsv")}.items():
        spm.SentencePieceTrainer.train(input=f"{work}/text", model_prefix=f"{HERE}/sentencepiece/{name}",
                                       minloglevel=2, **options)
        sp = spm.SentencePieceProcessor(model_file=f"{HERE}/sentencepiece/{name}.model")
        golden[name] = [{"text": t, "ids": sp.encode(t)} for t in texts]
json.dump(golden, open(f"{HERE}/sentencepiece/golden.json", "w"), indent=0)
