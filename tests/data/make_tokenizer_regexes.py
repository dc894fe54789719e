"""Makes tokenizer_regexes.json: where the `tokenizers` library (0.23) cuts texts by regular
expressions whose syntax or sets of characters PCRE2 has otherwise.

    python3 make_tokenizer_regexes.py > tokenizer_regexes.json
"""
import json
import sys

from tokenizers import Regex, Tokenizer, models, pre_tokenizers

PATTERNS = [
    # sets that belong to a script, not all that its text uses
    r"\p{Han}", r"\P{Han}", r"\p{^Han}+", r"[\p{Han}a]+", r"[^\p{Han}]+", r"[\p{L}&&[^\p{Han}]]+",
    r"\p{Hiragana}+", r"\p{Katakana}", r"\p{latin}+", r"\p{Greek}+", r"\p{Arabic}", r"\p{Devanagari}+",
    # POSIX names and long names
    r"[[:punct:]]", r"[[:^punct:]]+", r"\p{Punct}", r"[[:^space:]]+", r"[[:blank:]]", r"[[:word:]]+",
    r"\p{Word}+", r"\p{Alnum}+", r"\p{Digit}", r"\p{Letter}+", r"\p{Mark}", r"\p{Number}+",
    r"\p{Punctuation}", r"\p{Symbol}", r"\p{Lowercase_Letter}+", r"\p{uppercase letter}",
    # \w alone and inside a class
    r"\w+", r"\W", r"[\w']+", r"[^\w\s]", r"\b", r"[\W&&\S]",
    # escapes and repeats
    r"\u00e9|\u4e2d", r"[\u4e00-\u9fa5]+", r"\v", r"[\v]", r"\Q.\E", r"a{,2}b", r"\pL+", r"\h+"]
TEXTS = [
    "\u4e2d\u6587\u3002\u3001\u30ab\u30fc\u3099 \u3072\u3089\u30fc\u300c\u3007\u300d \u3005\u3006 a\u0485\u0342x \u03b1\u0345",
    "5\u20ac + 3 = 8! \u00ab\u00bd\u00bb x\u00b2 \u00b3\u00b5\u00ba\u00bf ~`^|<> \U0001f600 caf\u00e9 e\u0301 _a'b-c",
    "\u0645\u0631\u062d\u0628\u0627\u060c \u064b\u0661 \u0928\u092e\u0964\u0951 \u180e\u00a0\u2003\t\u000b\u000c\u0085\u2028 Q.E aab ab b \u01c5\u2168"]

cases = []
for pattern in PATTERNS:
    t = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    t.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    cases.append({"pattern": pattern, "offsets": [t.encode(x).offsets for x in TEXTS]})
json.dump({"texts": TEXTS, "cases": cases}, sys.stdout, ensure_ascii=True, separators=(",", ":"))
