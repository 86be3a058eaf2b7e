#!/usr/bin/env python3
"""Sends `nanocp serve` requests that are wrong in headers, chunking or body, from a seed: it must
neither crash nor hang nor answer with 500, and must answer a good request as before afterwards.

Usage: tests/commands/http_fuzz.py PROGRAM [--requests N] [--seed N] [--jobs N]
"""
import argparse
import json
import random
import socket
import sys
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "clients"))
from serving import Serving  # noqa: E402

DEADLINE_SECONDS = 30
PATIENCE_SECONDS = 0.5
SERVER_FAULTS = {500, 502, 504}
PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/models", "/v1/models/x%00y", "/tokenize",
         "/detokenize", "/health", "/ready", "/version", "/load", "/metrics", "/", "/../etc", "*",
         "/%ff%zz", "http://x/health", "/health?a=%0d%0a", "/" + "a" * 9000]
METHODS = ["GET", "POST", "POST", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE", "CONNECT",
           "get", "P\x00ST", "A" * 3000, "PRI"]
BODIES = [
    {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}], "max_tokens": 1,
     "stream": True, "logprobs": True, "top_logprobs": 2},
    {"prompt": ["a", [1, 2]], "max_tokens": 2, "echo": True, "n": 2},
    {"prompt": "x", "max_tokens": 1, "stop": ["a", "b"], "logit_bias": {"5": 1}, "seed": 3},
    {"prompt": "text", "tokens": [1, 2, 3]},
    {"messages": [{"role": "user", "content": "x"}], "max_tokens": 9, "response_format":
     {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "integer"}}}},
]
ODD_VALUES = [None, True, -1, 0, 1e308, -1e400, 2**63, 2**70, "", "\u0000", "\ud800", [], {}, [[]],
              [None], {"a": {"b": []}}, "x" * 5000, [1] * 300, 0.5, "\U0001F600"]
ODD_HEADERS = [
    b"Content-Length: 5\r\nContent-Length: 6\r\n", b"Content-Length: -1\r\n",
    b"Content-Length: 99999999999999999999\r\n", b"Content-Length: 1e3\r\n", b"Content-Length:\r\n",
    b"Transfer-Encoding: gzip\r\n", b"Transfer-Encoding: chunked, chunked\r\n",
    b"Transfer-Encoding: identity\r\n", b"Content-Encoding: gzip\r\n", b"Expect: 100-continue\r\n",
    b"Expect: what\r\n", b"Upgrade: websocket\r\nConnection: Upgrade\r\n", b"Connection: close\r\n",
    b"Connection: keep-alive, close, x\r\n", b"Host: a\r\nHost: b\r\n", b" folded: line\r\n",
    b"a\r\n", b": empty\r\n", b"X: \xff\xfe\x00\r\n", b"X-Request-Id: " + b"r" * 5000 + b"\r\n",
    b"X-Request-Id: a\tb\x7f\r\n", b"Authorization: Bearer\r\n", b"Content-Type: text/plain\r\n",
    b"Content-Type: application/json; charset=utf-8\r\n", b"Range: bytes=0-\r\n",
    b"".join(b"H%d: v\r\n" % i for i in range(300)), b"Origin: null\r\n", b"B: " + b"v" * 70000 + b"\r\n"]


def mutate_json(value, rng):
    """A body with one member replaced, dropped or doubled."""
    value = json.loads(json.dumps(value))
    key = rng.choice(list(value))
    kind = rng.randrange(4)
    if kind == 0:
        value[key] = rng.choice(ODD_VALUES)
    elif kind == 1:
        del value[key]
    elif kind == 2:
        value[rng.choice(["n", "stop", "temperature", "tools", "tool_choice", "stream_options",
                          "response_format", "logit_bias", "max_tokens", "prompt", "messages",
                          "chat_template_kwargs", "seed", "priority"])] = rng.choice(ODD_VALUES)
    elif isinstance(value[key], list) and value[key]:
        value[key][0] = rng.choice(ODD_VALUES)
    return value


def mutate_bytes(data, rng, count):
    data = bytearray(data)
    for _ in range(count):
        if not data:
            break
        at = rng.randrange(len(data))
        kind = rng.randrange(4)
        if kind == 0:
            data[at] = rng.randrange(256)
        elif kind == 1:
            del data[at:at + rng.randrange(1, 9)]
        elif kind == 2:
            data[at:at] = rng.choice([b"\r\n", b"\n", b"\x00", b"\xff", b" ", b"\r\n\r\n", b"0", b"{"])
        else:
            data[at:at] = data[at:at + rng.randrange(1, 40)]
    return bytes(data)


def chunked(body, rng):
    out = b""
    while body:
        size = rng.randrange(1, len(body) + 1)
        extension = rng.choice([b"", b"", b";a=b", b";" + b"x" * 200, b" "])
        out += b"%x%s\r\n%s\r\n" % (size, extension, body[:size])
        body = body[size:]
    end = rng.choice([b"0\r\n\r\n"] * 12 + [b"0\r\nT: x\r\n\r\n", b"", b"0\r\n", b"-1\r\n\r\n",
                      b"ffffffffffffffff\r\n", b"7fffffff\r\nabc", b"g\r\n\r\n", b"00000000000000000000\r\n\r\n"])
    return out + end


def make_body(rng):
    value = rng.choice(BODIES)
    path = "/tokenize" if "tokens" in value else (
        "/v1/chat/completions" if "messages" in value else "/v1/completions")
    if rng.randrange(3):
        value = mutate_json(value, rng)
    body = json.dumps(value).encode()
    if rng.randrange(5) == 0:
        body = mutate_bytes(body, rng, rng.randrange(1, 4))
    if rng.randrange(100) == 0:
        body = b"[" * 200000
    return path, body


def make_request(rng):
    """A request with some of its parts wrong; each part is right more often than not, so that the
    wrong ones get as far as they can."""
    path, body = make_body(rng)
    method = "POST"
    if rng.randrange(5) == 0:
        method = rng.choice(METHODS)
        path = rng.choice(PATHS)
        body = body if rng.randrange(2) else b""
    version = "1.1" if rng.randrange(15) else rng.choice(["1.0", "1.0", "2.0", "9.9", "x", ""])
    head = f"{method} {path} HTTP/{version}\r\nHost: 127.0.0.1\r\n".encode("latin-1")
    head += b"Connection: close\r\n"
    if rng.randrange(4) == 0:
        head += rng.choice(ODD_HEADERS)
    if body and rng.randrange(3) == 0:
        head += b"Transfer-Encoding: chunked\r\n"
        body = chunked(body, rng)
    elif body:
        size = len(body) + rng.choice([0] * 20 + [-1, 1, 1000])
        head += b"Content-Length: %d\r\n" % size
    data = head + b"\r\n" + body
    if rng.randrange(6) == 0:
        data = mutate_bytes(data, rng, rng.randrange(1, 4))
    if rng.randrange(15) == 0:
        data = data[:rng.randrange(len(data) + 1)]
    if rng.randrange(10) == 0:
        data += data
    return data


def statuses_of(answer):
    """Of all answers on a connection; bodies are JSON or events, which hold no status line."""
    found = []
    for piece in answer.split(b"HTTP/1.")[1:]:
        if len(piece) > 5 and piece[2:5].isdigit():
            found.append(int(piece[2:5]))
    return found


def read_to_end(connection):
    answer = b""
    connection.settimeout(PATIENCE_SECONDS)
    while True:
        try:
            piece = connection.recv(65536)
        except TimeoutError:
            if connection.gettimeout() == DEADLINE_SECONDS:
                raise
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(DEADLINE_SECONDS)
            continue
        if not piece:
            return answer
        answer += piece


def exchange(port, data, rng):
    """Sends `data` in pieces and reads to the end; a server that waits for more is told that there is
    none. The statuses and a complaint, if
    there is one."""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_SECONDS) as connection:
        answer = b""
        try:
            while data:
                size = rng.choice([1, 7, 100, 5000, len(data)])
                connection.sendall(data[:size])
                data = data[size:]
            if rng.randrange(8) == 0:
                return [], None  # goes away without reading
        except OSError:
            pass  # the server had enough; its answer may be there
        try:
            answer = read_to_end(connection)
        except TimeoutError:
            return [], f"no end within {DEADLINE_SECONDS} s"
        except OSError:
            pass
        statuses = statuses_of(answer)
        faults = [status for status in statuses if status in SERVER_FAULTS]
        return statuses, f"answered {faults}: {answer[:500]!r}" if faults else None


def one(port, seed):
    rng = random.Random(seed)
    data = make_request(rng)
    statuses, complaint = exchange(port, data, rng)
    return statuses, f"seed {seed}: {complaint}\n  request {data[:600]!r}" if complaint else None


def good_answer(server):
    body = json.dumps({"prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}).encode()
    request = urllib.request.Request(server.url + "/v1/completions", data=body,
                                     headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=DEADLINE_SECONDS) as response:
        return json.loads(response.read())["choices"][0]["text"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=8)
    options = parser.parse_args()
    with Serving(options.program, "--idle-timeout", "5") as server:
        port = int(server.url.rsplit(":", 1)[1])
        before = good_answer(server)
        first = options.seed * 1_000_000
        with ThreadPoolExecutor(options.jobs) as pool:
            seeds = range(first, first + options.requests)
            results = list(pool.map(lambda seed: one(port, seed), seeds))
        complaints = [complaint for _, complaint in results if complaint]
        counts = Counter(status for statuses, _ in results for status in statuses)
        for complaint in complaints[:10]:
            print(complaint)
        if not server.is_alive():
            print(f"the server has ended:\n{server.log()[-4000:]}")
            return 1
        server.wait_until_idle(DEADLINE_SECONDS)
        after = good_answer(server)
        print("answers by status:", dict(sorted(counts.items())))
        print(f"{options.requests} requests, {len(complaints)} complaints, "
              f"good answers {'agree' if before == after else 'DIFFER'}")
        return 1 if complaints or before != after else 0


if __name__ == "__main__":
    sys.exit(main())
