"""Writes tokenizer_golden.json: what the `tokenizers` library makes of texts that are hard to cut.

Run from the repository root with `pip install tokenizers`. Each variant changes the bundled
tokenizer by a JSON merge patch (RFC 7386).
"""
import json
import random

from tokenizers import Tokenizer

BASE = "tests/fixtures/tiny_chat/tokenizer.json"
OUT = "src/text/testdata/tokenizer_golden.json"

TEXTS = [
    "", " ", "a", "Hello, world!", "  leading", "trailing  ", "The quick brown fox jumps over the lazy dog.",
    "I'm sure they've said it's what we'd do; you'll see we're right, don't you?", "I'M LOUD, IT'S",
    "'s't're've'm'll'd", "''s '' 'x' 'st 're-", "can't've", "12345 67 8 9.10", "a1b2c3 x86_64 v1.2.3-rc4",
    "\n", "\n\n", "\r\n\r\n", "a\nb", "a\n b", "a \n b", "a  \n  b", "\t\tindent", "x\t y", "tab\t\t\tend\t",
    "a b  c   d    e     f", "   ", "\n \n \n", " \n", "\n ", "a\u00a0b", "a\u00a0 b", "a \u00a0b", "\u3000全角\u3000",
    "a\u2003\u2003b", "a\u2028b\u2029c", "a\u200bb", "a\u200db", "a\u1680b", "a\u180eb", "a\u0085b", "a\x0b\x0cb",
    "a\x1cb\x1db\x1eb\x1fb", "\ufeffbom", "nul\x00in", "\x01\x02\x7f",
    "def f(x):\n    return x + 1\n\n\nclass A:\n\tpass\n",
    "for (int i = 0; i < n; ++i) { a[i] += b[i] * 2; }  // sum\n",
    "#include <vector>\nstd::vector<int> v{1, 2, 3};", "SELECT * FROM t WHERE a='b' AND c<>\"d\";",
    "<div class=\"x\">&amp;</div>", "{\"k\": [1, 2.5e-3, null, true]}", "https://example.org/a?b=c&d=%20#e",
    "e=mc² and ½ + ⅓ = Ⅳ ① ٣ ३ ௧", "x₁²³ 10⁻³", "½a ½ a½", "你好，世界！", "日本語のテキスト。カタカナ", "한국어 텍스트",
    "中文 English 混排 123", "Привет, мир!", "Ελληνικά", "עברית עם ניקוד שָׁלוֹם", "العربية ١٢٣", "हिन्दी क्षत्रिय",
    "ไทยไม่มีช่องว่าง", "naïve café", "nai\u0308ve cafe\u0301", "ǅ ʰ ª º", "😀", "😀😁 🤖", "👩‍👩‍👧‍👦 family", "🇩🇪🇯🇵", "👍🏽",
    "a😀b 😀 c", "①②③", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟘𝟙", "𠀀𠀁", "…—–“”‘’", "don’t", "£5 €6 ¥7 ₿", "a_b __init__ -- == !=",
    "<|im_start|>user\nhi<|im_end|>\n", "<|im_start|><|im_end|>", " <|im_end|> ", "a<|im_end|>b", "<|im_end|",
    "<<|im_end|>>", "<|endoftext|>x<|pad|>", "|im_start|>", "<|IM_END|>", "<|im_start|><|im_start", "<|<|pad|>|>",
    "x" * 300, " " * 37, "ab" * 200, "0" * 64, "\n" * 33, "-" * 50, "é" * 40, "a " * 60, "self.self.self", "return set list",
]

ADDED = [
    {"id": 508, "content": "<|endoftext|>", "special": True},
    {"id": 509, "content": "<L>", "lstrip": True},
    {"id": 510, "content": "<R>", "rstrip": True},
    {"id": 511, "content": "<LR>", "lstrip": True, "rstrip": True, "special": True},
    {"id": 512, "content": "word", "single_word": True},
    {"id": 513, "content": "norm", "normalized": True},
    {"id": 514, "content": "normal", "normalized": True},
    {"id": 515, "content": "<R>x"},
    {"id": 516, "content": "日本"},
    {"id": 517, "content": "two words"},
    {"id": 518, "content": "norm<", "normalized": False},
]
ADDED_TEXTS = [
    "a <L> b", "a  \n<L>b", "<L><L>", " <L> <L> ", "a <R> b", "<R>  \u3000 b", "a<R> <R> b", "a  <LR>  b", "<LR> <LR>",
    "<R>  <L>", "<R>  <LR>  <L>", "word", "a word b", "words", "sword", "a-word-b", "word1", "_word", "wordword", "日word",
    "éword", "word.", "word word", "norm", "normal", "normally", "abnormal", "norm<", "norm<R>", "normal<R>x", "<R>x", "<R> x",
    "日本語", "two words", "two  words", "two wordsword", "  <endoftext> <|endoftext|>", "<L", "<L> ", "\u00a0<L>\u00a0",
]


MARKS = ["e\u0301", "\u1e69 s\u0323\u0307 s\u0307\u0323", "\uac00 \u1100\u1161 \u1100\u1161\u11a8", "\ufb01 \u00bd \u2460 \uff21", "a" + "\u0301\u0323" * 20, "\u0958 \u2126 \u212b \u1e9b\u0323",
         "'\u017f I'\u017f it'S WE'LL", "\U0001d15e \u0344", "x\u0301\n\u0301", "HelloWorld helloWORLD ABCdef \u01c5a", "a/b//\n/c \u200d\u0301"]
# Text whose bytes are tokens decodes one by one there and by whole characters here, so only valid text is compared.
FALLBACK_TEXTS = ["", " ", "  ", "a", " a", "hello world", " hello  world ", "the\nhello", "日本語 中文 \U0001f600!", "the<s>hello</s> world", "<s> the", "\u2581the", "a\u2581b", "é ü x\u0301", "\t\x00\x7f", "in the " * 20,
                  "<0x41>", "ing ering", "\ud55c\uad6d\uc5b4", "<unk> a", "</s>", " </s> ", "a  b"]


def random_texts(rng):
    ascii_chars = [chr(c) for c in range(32, 127)] + ["\n", "\t", " ", " ", "'", "s"]
    wide = [0x20, 0x27, 0x41, 0x61, 0x30, 0xA0, 0xB2, 0xE9, 0x301, 0x3B1, 0x416, 0x5D0, 0x661, 0x915, 0x2003, 0x2028,
            0x20AC, 0x2160, 0x3000, 0x4E00, 0xAC00, 0xFEFF, 0x1F600, 0x1D400, 0x20000, 0xA, 0xD, 0x9]
    for _ in range(30):
        yield "".join(rng.choice(ascii_chars) for _ in range(rng.randint(1, 60)))
    for _ in range(30):
        yield "".join(chr(rng.choice(wide)) for _ in range(rng.randint(1, 30)))
    for _ in range(20):
        codes = (rng.randrange(0x3000) if rng.random() < 0.7 else rng.randrange(0x10000, 0x20000) for _ in range(24))
        yield "".join(chr(c) for c in codes)


def added(entry):
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    return {**flags, **entry}


def merge_patch(target, patch):
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


# The split patterns of published tokenizers, with the bundled vocabulary.
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT_OSS = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
           r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
           r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK = [r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
            "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*"
            "|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"]
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}


def splits(*patterns):
    steps = [{"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": False} for p in patterns]
    return {"type": "Sequence", "pretokenizers": steps + [BYTE_LEVEL]}


def byte_fallback_base():
    """Characters and bytes, as in Llama 2 and Mixtral, merged by what a few English words suggest."""
    vocab = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    vocab += ["\u2581"] + [chr(c) for c in range(33, 127)] + list("éüßñ日本中文한Пр")
    merges = []
    for word in ["\u2581the", "\u2581a", "\u2581to", "\u2581hello", "\u2581world", "ing", "er", "\u2581\u2581", "日本", "\u2581in", "he"]:
        left = word[0]
        for right in word[1:]:
            if [left, right] not in merges:
                merges.append([left, right])
                if left + right not in vocab:
                    vocab.append(left + right)
            left += right
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [added({"id": i, "content": vocab[i], "special": True}) for i in range(3)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
        "pre_tokenizer": None,
        "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                           "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                           "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": {token: i for i, token in enumerate(vocab)}, "merges": [" ".join(m) for m in merges]},
    }


def metaspace(base, scheme, split):
    step = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": split}
    return {**base, "normalizer": None, "pre_tokenizer": step, "decoder": step}


def make_variant(name, base, patch, texts, is_document=False):
    """With `is_document`, `base` is written out whole and takes the place of the bundled tokenizer."""
    variant = make_cases(name, base, patch, texts)
    if is_document:
        variant["document"] = base
    return variant


def make_cases(name, base, patch, texts):
    tokenizer = Tokenizer.from_str(json.dumps(merge_patch(base, patch)))
    cases = []
    for allow_special in (True, False):
        tokenizer.encode_special_tokens = not allow_special
        for text in texts:
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            if not allow_special and cases_have(cases, text, ids):
                continue
            cases.append({
                "text": text, "allow_special": allow_special, "ids": ids,
                "decoded": tokenizer.decode(ids, skip_special_tokens=False),
                "decoded_plain": tokenizer.decode(ids, skip_special_tokens=True),
            })
    return {"name": name, "patch": patch, "cases": cases}


def cases_have(cases, text, ids):
    return any(case["text"] == text and case["ids"] == ids for case in cases)


def variant_lines(variant):
    head = json.dumps({key: value for key, value in variant.items() if key != "cases"})
    cases = ",\n".join(json.dumps(case) for case in variant["cases"])
    return head[:-1] + ', "cases": [\n' + cases + "\n]}"


def main():
    base = json.load(open(BASE, encoding="utf-8"))
    fallback = byte_fallback_base()
    texts = TEXTS + list(random_texts(random.Random(1)))
    variants = [
        make_variant("plain", base, {}, texts),
        make_variant("added_tokens", base, {"added_tokens": [added(e) for e in ADDED]}, ADDED_TEXTS),
        make_variant("prefix_space", base, {"pre_tokenizer": {"add_prefix_space": True}}, TEXTS[:20] + TEXTS[-36:-20]),
        make_variant("no_split", base, {"pre_tokenizer": {"use_regex": False}}, TEXTS[:60]),
        make_variant("ignore_merges", base,
                     {"added_tokens": [], "model": {"ignore_merges": True, "vocab": {"Ġzq": 508, "zq": 509}}},
                     ["zq", " zq", "zqx", "a zq", "zq zq", "the set of lists"]),
        make_variant("qwen", base, {"normalizer": {"type": "NFC"}, "pre_tokenizer": splits(QWEN)}, TEXTS + MARKS),
        make_variant("llama", base, {"pre_tokenizer": splits(LLAMA)}, TEXTS[::3]),
        make_variant("gpt_oss", base, {"pre_tokenizer": splits(GPT_OSS)}, TEXTS + MARKS),
        make_variant("deepseek", base, {"normalizer": {"type": "Sequence", "normalizers": []}, "pre_tokenizer": splits(*DEEPSEEK)}, TEXTS + MARKS),
        make_variant("digits", base, {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL]}}, TEXTS[20:60:3]),
        make_variant("nfkc", base, {"normalizer": {"type": "NFKC"}}, MARKS + TEXTS[50:80:2]),
        make_variant("nfd", base, {"normalizer": {"type": "NFD"}}, MARKS),
        make_variant("byte_fallback", fallback, {}, FALLBACK_TEXTS, True),
        make_variant("metaspace_first", metaspace(fallback, "first", False), {}, FALLBACK_TEXTS, True),
        make_variant("metaspace_always", metaspace(fallback, "always", True), {}, FALLBACK_TEXTS, True),
        make_variant("metaspace_never", metaspace(fallback, "never", True), {}, FALLBACK_TEXTS, True),
    ]
    with open(OUT, "w", encoding="utf-8") as out:
        out.write('{"variants": [\n' + ",\n".join(variant_lines(v) for v in variants) + "\n]}\n")
    print(sum(len(v["cases"]) for v in variants), "cases")


main()
