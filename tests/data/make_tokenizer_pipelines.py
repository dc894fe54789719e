"""Makes tokenizer_pipelines.json: small tokenizers put together at random from the components of
tokenizer.json, and what the `tokenizers` library (0.23) makes of tricky texts with them.

    python3 make_tokenizer_pipelines.py > tokenizer_pipelines.json
"""
import base64
import json
import random
import sys

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers import decoders as D, models as M, normalizers as N, pre_tokenizers as P
from tokenizers import processors as PP, trainers as T

HERE = sys.path[0]
kinds = ["llama3", "gemma", "t5", "bert_cased"]
texts = sorted({x["text"] for k in kinds
                for x in json.load(open(f"{HERE}/parity/tokenizers/{k}/golden.json"))["single"]})
charsmap = base64.b64decode(json.load(open(f"{HERE}/parity/tokenizers/t5/tokenizer.json"))
                            ["normalizer"]["precompiled_charsmap"])
pieces = ["the", "The", " ", "  ", "\n", "\t", "\r\n", "\u00a0", "\u200b", "\u00e9", "e\u0301", "\u0130",
          "\ufb01", "\u2026", "\u4e2d", "\u6587", "\u30ab", "\u30fc", "\u3072", "\U0001f600",
          "\u1112\u1161\u11ab", "\u0928\u092e\u0938", "1", "345", "\u00b2", "'s", "don't", ".", ",",
          "<s>", "<unk>", "<mask>", "\u2581", "_", "CamelCase", "zz", "\u0301", "##ing", "\x07"]
rnd = random.Random(7)


def sample():
    if rnd.random() < 0.3:
        return rnd.choice(texts)
    return "".join(rnd.choice(pieces) for _ in range(rnd.randrange(1, 10)))


SPLIT = (r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
normalizers = [
    None, N.NFKC(), N.Sequence([N.NFD(), N.StripAccents(), N.Lowercase()]), N.BertNormalizer(),
    N.BertNormalizer(lowercase=False, strip_accents=True), N.Precompiled(charsmap),
    N.Sequence([N.Nmt(), N.Strip(True, False), N.Replace(Regex(" {2,}"), "\u2581")]),
    N.Sequence([N.Prepend("\u2581"), N.Replace(" ", "\u2581")]), N.Replace(Regex("[aeiou]"), "xy"),
    N.Sequence([N.NFC(), N.Replace(Regex(r"\s+"), " "), N.Lowercase()]), N.Strip(True, True)]
pre_tokenizers = [
    None, P.Split(Regex(SPLIT), "isolated"), P.Split(Regex(r"\p{L}+"), "merged_with_next", True),
    P.Sequence([P.Digits(True), P.Split(" ", "merged_with_previous")]), P.Whitespace(),
    P.BertPreTokenizer(), P.Metaspace(), P.Metaspace(prepend_scheme="first", split=False),
    P.Sequence([P.WhitespaceSplit(), P.Metaspace()]), P.UnicodeScripts(), P.FixedLength(3),
    P.Sequence([P.Punctuation("contiguous"), P.CharDelimiterSplit("e")])]
decoders = [None, D.Metaspace(), D.WordPiece(), D.BPEDecoder("</w>"), D.CTC("a", "e"),
            D.Sequence([D.Replace("\u2581", " "), D.ByteFallback(), D.Fuse(), D.Strip(" ", 1, 0)])]
SP = ["<unk>", "<s>", "</s>"]


def build(kind):
    pre = rnd.choice(pre_tokenizers)
    if kind == "bpe":
        t = Tokenizer(M.BPE(unk_token="<unk>", fuse_unk=rnd.random() < 0.5, byte_fallback=True))
        half = [f"<0x{i:02X}>" for i in range(256) if i % 7]
        trainer = T.BpeTrainer(vocab_size=420, special_tokens=SP + half, limit_alphabet=60)
    elif kind == "clip":
        t = Tokenizer(M.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
        pre = P.Sequence([P.Split(Regex(r"'s|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"), "removed", True),
                          P.ByteLevel(add_prefix_space=False)])
        trainer = T.BpeTrainer(vocab_size=400, special_tokens=SP, end_of_word_suffix="</w>",
                               initial_alphabet=P.ByteLevel.alphabet())
    elif kind == "unigram":
        words = sorted({w[i:i + n] for x in texts for w in ["\u2581" + v for v in x.split()]
                        for n in (1, 2, 3) for i in range(len(w) - n + 1)})
        vocab = [(w, 0.0) for w in SP] + [(w, -rnd.uniform(2, 9)) for w in rnd.sample(words, 200)]
        t, trainer, pre = Tokenizer(M.Unigram(vocab, 0)), None, P.Metaspace()
    elif kind == "wordpiece":
        t = Tokenizer(M.WordPiece(unk_token="<unk>", max_input_chars_per_word=6))
        trainer = T.WordPieceTrainer(vocab_size=250, special_tokens=SP)
    else:
        t = Tokenizer(M.WordLevel(unk_token="<unk>"))
        trainer = T.WordLevelTrainer(vocab_size=120, special_tokens=SP)
    normalizer, decoder = rnd.choice(normalizers), rnd.choice(decoders)
    if normalizer:
        t.normalizer = normalizer
    if pre:
        t.pre_tokenizer = pre
    if decoder:
        t.decoder = decoder
    if trainer:
        trainer.show_progress = False
        t.train_from_iterator(texts, trainer)
    for content in rnd.sample(["<mask>", "the", "zz", "\u0130x"], 2):
        t.add_tokens([AddedToken(content, single_word=rnd.random() < 0.5, lstrip=rnd.random() < 0.5,
                                 rstrip=rnd.random() < 0.5, normalized=rnd.random() < 0.5)])
    cls, sep = ("<s>", t.token_to_id("<s>")), ("</s>", t.token_to_id("</s>"))
    t.post_processor = rnd.choice([
        PP.BertProcessing(sep, cls), PP.RobertaProcessing(sep, cls, True, rnd.random() < 0.5),
        PP.Sequence([PP.ByteLevel(trim_offsets=True, add_prefix_space=True), PP.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B:1 </s>:1", special_tokens=[cls, sep])])])
    return t


cases = []
for kind in ["bpe", "clip", "unigram", "wordpiece", "wordlevel"] * 4:
    t = build(kind)
    case = {"tokenizer": json.loads(t.to_str()), "texts": []}
    for i in range(20):
        pair = (sample(),) if i % 5 else (sample(), sample())
        e = t.encode(*pair)
        case["texts"].append(dict(zip("ab", pair), ids=e.ids, tokens=e.tokens, offsets=e.offsets,
                                  type_ids=e.type_ids, special_mask=e.special_tokens_mask,
                                  words=e.word_ids, decoded=t.decode(e.ids)))
    cases.append(case)
json.dump(cases, sys.stdout, ensure_ascii=True, separators=(",", ":"))
