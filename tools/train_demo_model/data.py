"""Text, tokenizer and token streams of the bundled model."""
import gzip
import random
import re

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
SEPARATOR = "<|endoftext|>"
HELD_OUT_EVERY = 40  # of the documents, and of the pieces of the novel
PIECE = 12_000       # characters of a piece of the novel
ANSWER_CHARS = 700


def read_documents(paths):
    """(for training, held out): lists of documents, long ones cut at paragraphs."""
    pieces = []
    for path in paths:
        text = gzip.open(path, "rt", encoding="utf-8").read().replace("\r\n", "\n")
        for document in text.split(SEPARATOR):
            piece = ""
            for paragraph in document.strip().split("\n"):
                piece += paragraph + "\n"
                if len(piece) > PIECE:
                    pieces.append(piece)
                    piece = ""
            if piece.strip():
                pieces.append(piece)
    held_out = pieces[HELD_OUT_EVERY // 2::HELD_OUT_EVERY]
    train = [p for i, p in enumerate(pieces) if i % HELD_OUT_EVERY != HELD_OUT_EVERY // 2]
    return train, held_out


def train_tokenizer(documents, vocab_size):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=SPECIAL, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def conversations(documents, rng):
    """A paragraph's first sentence asks, the sentences after it answer."""
    for document in documents:
        text = re.sub(r"\n(?!\n)", " ", document)
        for paragraph in re.split(r"\n+", text):
            sentences = [s for s in re.split(r"(?<=[.!?])\s+", paragraph.strip()) if s]
            at = 0
            while at + 2 < len(sentences):
                question, answer = sentences[at], ""
                at += 1
                wanted = rng.randint(80, ANSWER_CHARS)
                while at < len(sentences) and len(answer) < wanted:
                    answer += (" " if answer else "") + sentences[at]
                    at += 1
                if 20 < len(question) < 400:
                    yield f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"


def token_stream(tokenizer, texts, end):
    ids = []
    for encoding in tokenizer.encode_batch(list(texts)):
        ids.extend(encoding.ids)
        if end is not None:
            ids.append(end)
    return np.array(ids, dtype=np.int32)


class Streams:
    """Prose and conversations; a batch takes `chat_share` of its rows from the latter."""

    def __init__(self, tokenizer, documents, seed):
        rng = random.Random(seed)
        end = tokenizer.token_to_id(SEPARATOR)
        self.prose = token_stream(tokenizer, documents, end)
        chats = list(conversations(documents, rng))
        rng.shuffle(chats)
        self.chat = token_stream(tokenizer, chats, None)
        self.rng = np.random.default_rng(seed)

    def batch(self, rows, length, chat_share):
        out = np.empty((rows, length + 1), dtype=np.int64)
        for row in range(rows):
            stream = self.chat if row < rows * chat_share else self.prose
            begin = self.rng.integers(0, len(stream) - length - 1)
            out[row] = stream[begin:begin + length + 1]
        return out
