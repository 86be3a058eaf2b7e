#!/usr/bin/env python3
"""Holds many connections to `nanocp serve` at once: idle ones, then streams that wait.

Prints threads and memory of the server before, with N idle keep-alive connections, with N open
streams, and after all clients have left, when its KV cache must be empty again.

Usage: bench/serving/idle_connections.py [--program build/cpu/bin/nanocp] [--connections 9500]
Needs `ulimit -n` above N in both processes. Ends with exit code 1 when a connection is lost.
"""
import argparse
import json
import re
import select
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 120


def start(program, log):
    command = [program, "serve", "--port", "0", "--instances", "2", "--max-waiting", "100000"]
    server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end and server.poll() is None:
        address = re.search(r"http://127\.0\.0\.1:(\d+)/v1", Path(log.name).read_text())
        if address:
            return server, int(address.group(1))
        time.sleep(0.1)
    sys.exit("nanocp serve did not start: " + Path(log.name).read_text())


def report(what, server):
    status = Path(f"/proc/{server.pid}/status").read_text()
    threads = re.search(r"Threads:\s+(\d+)", status).group(1)
    rss_kib = int(re.search(r"VmRSS:\s+(\d+)", status).group(1))
    print(f"{what}: {threads} threads, {rss_kib / 1024:.1f} MiB")


def open_all(port, count, request):
    clients = []
    for _ in range(count):
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(request)
        clients.append(client)
    return clients


def count_ok(clients):
    """How many have got the start of an answer with status 200 in time."""
    by_file = {client.fileno(): client for client in clients}
    poller = select.epoll()
    for file in by_file:
        poller.register(file, select.EPOLLIN)
    heads = {}
    end = time.monotonic() + LIMIT_S
    while len(heads) < len(clients) and time.monotonic() < end:
        for file, _ in poller.poll(1):
            data = by_file[file].recv(65536)
            heads.setdefault(file, data[:12])
            if not data:
                poller.unregister(file)
    return sum(head.endswith(b"200") for head in heads.values())


def load(port):
    return json.loads(urllib.request.urlopen(f"http://127.0.0.1:{port}/load", timeout=30).read())


def is_empty(port):
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        state = load(port)
        if state["server_load"] == 0 and state["kv_cache_usage"] == 0:
            return True
        time.sleep(0.1)
    return False


def run(server, port, count):
    report("started", server)
    idle = open_all(port, count, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    num_idle = count_ok(idle)
    report(f"{num_idle} idle connections", server)
    for client in idle:
        client.close()
    body = json.dumps({"prompt": "x", "max_tokens": 2000, "stream": True, "ignore_eos": True})
    streams = open_all(port, count, (
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}").encode())
    num_streams = count_ok(streams)
    report(f"{num_streams} open streams", server)
    for client in streams:
        client.close()
    empty = is_empty(port)
    report("all have left" if empty else "KV is still in use", server)
    return num_idle == count and num_streams == count and empty


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=str(ROOT / "build/cpu/bin/nanocp"))
    parser.add_argument("--connections", type=int, default=9500)
    args = parser.parse_args()
    with tempfile.NamedTemporaryFile("w") as log:
        server, port = start(args.program, log)
        try:
            ok = run(server, port, args.connections)
        finally:
            server.terminate()
            server.wait(30)
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
