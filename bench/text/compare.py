#!/usr/bin/env python3
"""Encodes the same text with tokenizer_bench and with the PyPI package `tokenizers`, in turn, one thread each.

Usage: bench/text/compare.py TOKENIZER_JSON TEXT_FILE [--piece BYTES] [--rounds N] [--program FILE]
Prints both speeds in processor time (median and best over all rounds) and their ratio; ends with 1 if the ids differ.
"""
import argparse
import json
import os
import statistics
import subprocess
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
import tokenizers  # noqa: E402  after the number of threads is set


def pieces_of(text, piece_bytes):
    """As tokenizer_bench cuts them."""
    begin = 0
    while begin < len(text):
        end = text.find(b"\n", min(begin + piece_bytes, len(text)))
        end = len(text) if end < 0 else end + 1
        yield text[begin:end].decode()
        begin = end


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tokenizer")
    parser.add_argument("text")
    parser.add_argument("--piece", type=int, default=16384)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--program", default="build/cpu/bin/tokenizer_bench")
    args = parser.parse_args()
    data = open(args.text, "rb").read()
    pieces = list(pieces_of(data, args.piece))
    theirs = tokenizers.Tokenizer.from_file(args.tokenizer)
    our_s, their_s = [], []
    for _ in range(args.rounds):
        command = [args.program, args.tokenizer, args.text, str(args.piece), "1"]
        ours = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        our_s.append(ours["encode_s"])
        start = time.process_time()
        ids = [theirs.encode(piece, add_special_tokens=False).ids for piece in pieces]
        their_s.append(time.process_time() - start)
    checksum = 0
    for token in (token for piece in ids for token in piece):
        checksum = (checksum * 31 + token) % 2**32
    same = checksum == ours["checksum"]
    megabytes = len(data) / 1e6
    for name, times in (("nanocp", our_s), (f"tokenizers {tokenizers.__version__}", their_s)):
        print(f"{name:20} {megabytes / statistics.median(times):7.2f} MB/s median, {megabytes / min(times):7.2f} best")
    ratio = statistics.median(their_s) / statistics.median(our_s)
    print(f"ratio {ratio:.2f} (best {min(their_s) / min(our_s):.2f}), {ours['num_tokens']} tokens, ids {'equal' if same else 'DIFFER'}")
    raise SystemExit(not same)


main()
