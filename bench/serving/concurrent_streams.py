#!/usr/bin/env python3
"""Many streams at once against a `nanocp serve` of its own: none is lost or mixed up, and clients that
go away give their memory back.

Usage: bench/serving/concurrent_streams.py PROGRAM [--streams N] [--prompts N] [--disconnects N]
           [--minutes M] [--max-tokens N] [--seed N]
Standard library only. First every prompt is answered alone. Then N streams run at once, again and
again for M minutes (at least once), each compared with the answer of its prompt alone; the resident
memory of the server is read after each round. Then N clients go away at a random moment of their
stream; KV blocks in use must return to zero. The result is one JSON object; exit code 1 if anything
differs.
"""
import argparse
import asyncio
import json
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests/clients"))
from serving import Serving  # noqa: E402

STREAM_SECONDS = 300
IDLE_SECONDS = 30


class Broken(Exception):
    pass


def body_of(prompt, options, stream):
    return json.dumps({"prompt": prompt, "max_tokens": options.max_tokens, "temperature": 0.8,
                       "seed": options.seed, "ignore_eos": True, "stream": stream}).encode()


async def open_stream(port, body):
    """Sends the request; returns reader and writer after the head of a good answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
                 b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        rest = await reader.read(2000)
        writer.close()
        raise Broken((head + rest).decode(errors="replace"))
    return reader, writer


async def chunks(reader):
    """The parts of a chunked body."""
    while True:
        size = int((await reader.readline()).split(b";")[0], 16)
        data = await reader.readexactly(size + 2)
        if size == 0:
            return
        yield data[:-2]


async def events(reader):
    pending = b""
    async for chunk in chunks(reader):
        pending += chunk
        while b"\n\n" in pending:
            event, pending = pending.split(b"\n\n", 1)
            yield event.removeprefix(b"data: ")
    if pending:
        raise Broken(f"half an event at the end: {pending!r}")


async def answer(port, body):
    """The text and its finish reason."""
    reader, writer = await open_stream(port, body)
    try:
        text, reason, done = "", None, False
        async for event in events(reader):
            if event == b"[DONE]":
                done = True
                continue
            choice = json.loads(event)["choices"][0]
            text += choice["text"]
            reason = choice["finish_reason"] or reason
        if not done:
            raise Broken("the stream has no [DONE]")
        return text, reason
    finally:
        writer.close()


async def answer_in_time(port, body):
    return await asyncio.wait_for(answer(port, body), STREAM_SECONDS)


async def go_away(port, body, rng, num_tokens):
    reader, writer = await open_stream(port, body)
    stay = rng.randrange(num_tokens)
    async for _ in events(reader):
        stay -= 1
        if stay <= 0:
            break
    writer.transport.abort()


def resident_bytes(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise Broken("no VmRSS")


async def run_round(port, bodies, alone, options):
    """One round of streams; the number of wrong ones and the first complaint."""
    start = time.monotonic()
    results = await asyncio.gather(
        *(answer_in_time(port, bodies[i % len(bodies)]) for i in range(options.streams)),
        return_exceptions=True)
    wrong = [(i, result) for i, result in enumerate(results) if result != alone[i % len(bodies)]]
    return time.monotonic() - start, wrong


async def measure(server, options):
    port = int(server.url.rsplit(":", 1)[1])
    rng = random.Random(options.seed)
    words = Path(__file__).read_text().split()
    prompts = [" ".join(rng.choices(words, k=rng.randrange(2, 20))) for _ in range(options.prompts)]
    bodies = [body_of(prompt, options, True) for prompt in prompts]
    alone = [await answer_in_time(port, body) for body in bodies]
    result = {"streams": options.streams, "prompts": options.prompts, "rounds": 0, "answers": 0,
              "wrong": 0, "max_tokens": options.max_tokens, "distinct_answers": len(set(alone)),
              "resident_mib": [], "seconds": []}
    end = time.monotonic() + options.minutes * 60
    while result["rounds"] == 0 or time.monotonic() < end:
        seconds, wrong = await run_round(port, bodies, alone, options)
        result["rounds"] += 1
        result["answers"] += options.streams
        result["wrong"] += len(wrong)
        result["seconds"].append(round(seconds, 2))
        result["resident_mib"].append(round(resident_bytes(server.process.pid) / 2**20, 1))
        if wrong and "first_wrong" not in result:
            index, got = wrong[0]
            result["first_wrong"] = {"stream": index, "got": str(got), "alone": str(alone[index % len(alone)])}
    departures = await asyncio.gather(
        *(go_away(port, bodies[i % len(bodies)], rng, options.max_tokens)
          for i in range(options.disconnects)), return_exceptions=True)
    result["disconnects"] = options.disconnects
    result["disconnect_failures"] = [str(failure) for failure in departures if failure][:5]
    server.wait_until_idle(IDLE_SECONDS)
    result["kv_blocks_used_afterwards"] = server.kv_blocks_used()
    result["text_after_all"] = await answer_in_time(port, bodies[0]) == alone[0]
    return result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--disconnects", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=0)
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    waiting = str(max(1024, options.streams))
    with Serving(options.program, "--max-waiting", waiting, "--max-connections", "4096") as server:
        result = asyncio.run(measure(server, options))
    print(json.dumps(result, indent=1))
    good = result["wrong"] == 0 and not result["disconnect_failures"] and result["text_after_all"]
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
