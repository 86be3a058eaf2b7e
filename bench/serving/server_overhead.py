#!/usr/bin/env python3
"""Compares output tokens per second through `nanocp serve` with those of `nanocp generate`.

Both answer the same prompts, with as many at a time and the same flags of the engine, in turn, so
that what the machine does meanwhile hits both alike. The server is loaded by `nanocp bench serve`
over HTTP on the same machine, whose own work is part of what the server loses.

Usage: bench/serving/server_overhead.py [--program build/cpu/bin/nanocp] [--model MODEL_DIR]
       [--streams 64] [--requests 256] [--output-tokens 64] [--rounds 5] [--json FILE]
       [-- FLAGS OF THE ENGINE...]
Ends with exit code 1 when the median share is below --least (0.95).
"""
import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORDS = "the of and to in is that for was on are with as they at be this have from or".split()
START_LIMIT_S = 120
RUN_LIMIT_S = 1800
STOP_LIMIT_S = 30


def write_prompts(path, count, words):
    """Different prompts, so that none shares a prefix with another."""
    generator = random.Random(1)
    with open(path, "w") as file:
        for _ in range(count):
            text = " ".join(generator.choice(WORDS) for _ in range(words))
            file.write(json.dumps({"prompt": text}) + "\n")


def generate(args, prompts):
    """Output tokens per second of the engine in process."""
    command = [args.program, "generate", *args.model, "--prompts", prompts, "--max-tokens",
               str(args.output_tokens), "--ignore-eos", "--max-num-seqs", str(args.streams),
               "--json", *args.engine_flags]
    result = subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT_S)
    if result.returncode != 0:
        sys.exit(f"nanocp generate: {result.stderr.strip()}")
    return json.loads(result.stdout)["summary"]["tokens_per_s"]


def load(args, prompts, url, folder):
    """Output tokens per second through the server."""
    output = Path(folder, "load.json")
    command = [args.program, "bench", "serve", "--base-url", url, "--prompt-file", prompts,
               "--concurrency", str(args.streams), "--num-requests", str(args.requests),
               "--workload", f"1 -> {args.output_tokens}", "--extra-body", '{"temperature": 0}',
               "--json", str(output)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT_S)
    if result.returncode != 0:
        sys.exit(f"nanocp bench serve: {result.stderr.strip()}")
    run = json.loads(output.read_text())["runs"][0]
    if run["errors"] or run["num_short"]:
        sys.exit(f"not all requests were answered in full: {run['errors']}, {run['num_short']} short")
    return run["output_tokens_per_s"]


def wait_until_ready(server, url):
    end = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end:
        if server.poll() is not None:
            sys.exit(f"nanocp serve ended with exit code {server.returncode}")
        try:
            urllib.request.urlopen(url + "/ready", timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    sys.exit(f"nanocp serve was not ready within {START_LIMIT_S} s")


def start_server(args, log):
    command = [args.program, "serve", *args.model, "--host", "127.0.0.1", "--port", "0",
               "--max-num-seqs", str(args.streams), *args.engine_flags]
    server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    end = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end and server.poll() is None:
        address = re.search(r"http://127\.0\.0\.1:\d+", Path(log.name).read_text())
        if address:
            wait_until_ready(server, address.group(0))
            return server, address.group(0)
        time.sleep(0.1)
    server.kill()
    sys.exit(f"nanocp serve does not say where it listens: {Path(log.name).read_text()}")


def stop(server):
    server.terminate()
    try:
        server.wait(timeout=STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        server.kill()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=str(ROOT / "build/cpu/bin/nanocp"))
    parser.add_argument("--model", action="append", default=[], metavar="MODEL_DIR")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--prompt-words", type=int, default=32)
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--least", type=float, default=0.95)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("engine_flags", nargs="*")
    args = parser.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory() as folder, open(Path(folder, "log"), "w") as log:
        prompts = str(Path(folder, "prompts.jsonl"))
        write_prompts(prompts, args.requests, args.prompt_words)
        for number in range(args.rounds):
            in_process = generate(args, prompts)
            # One of the two at a time: a server that waits keeps its memory, not a core.
            log.truncate(0)
            log.seek(0)
            server, url = start_server(args, log)
            try:
                served = load(args, prompts, url, folder)
            finally:
                stop(server)
            rounds.append({"in_process": in_process, "served": served})
            print(f"round {number + 1}: in process {in_process:.1f} tokens/s, served "
                  f"{served:.1f}, {served / in_process:.3f}", flush=True)
    shares = [one["served"] / one["in_process"] for one in rounds]
    median = statistics.median(shares)
    print(f"median {median:.3f} of the tokens/s in process ({min(shares):.3f} to "
          f"{max(shares):.3f} over {len(shares)} rounds)")
    if args.json:
        Path(args.json).write_text(json.dumps({**vars(args), "rounds": rounds}, indent=2) + "\n")
    sys.exit(0 if median >= args.least else 1)


if __name__ == "__main__":
    main()
