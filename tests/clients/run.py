#!/usr/bin/env python3
"""Runs clients from PyPI against `nanocp serve`, each in an environment of its own.

Usage: tests/clients/run.py PROGRAM BUILD_DIR [CLIENT ...]
CLIENT: openai (the default), schemathesis, lm_eval, aiperf. The environments are made in
BUILD_DIR/clients from requirements-CLIENT.txt with pinned versions. Where PyPI cannot be reached a
line `left out: ...` says so; that is no failure.
"""
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from serving import Serving

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
INSTALL_SECONDS = 900
CLIENT_SECONDS = 900
UNREACHABLE = re.compile(
    r"NewConnectionError|NameResolution|Temporary failure|Network is unreachable|ConnectTimeout|"
    r"ReadTimeout|Connection (?:refused|reset)|ConnectionResetError|ProxyError|SSLError|Max retries|"
    r"from versions: none")


class LeftOut(Exception):
    pass


def environment(client, build_dir):
    """The bin folder of the client's environment, made or made anew if its requirements changed."""
    requirements = HERE / f"requirements-{client.replace('_', '-')}.txt"
    folder = build_dir / "clients" / client
    stamp = folder / "requirements.sha256"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        venv.create(folder, with_pip=True, clear=True)
        result = subprocess.run(
            [folder / "bin/pip", "install", "--quiet", "--disable-pip-version-check", "-r",
             requirements], stderr=subprocess.PIPE, text=True, timeout=INSTALL_SECONDS)
        if result.returncode != 0 and UNREACHABLE.search(result.stderr):
            raise LeftOut(f"PyPI cannot be reached, so {client} was not run")
        if result.returncode != 0:
            raise SystemExit(f"{client}: pip failed:\n{result.stderr}")
        stamp.write_text(digest)
    return folder / "bin"


def run(command, **options):
    print("$", " ".join(map(str, command)), flush=True)
    return subprocess.run(list(map(str, command)), timeout=CLIENT_SECONDS, **options)


def run_openai(program, bin_dir):
    return run([bin_dir / "python", HERE / "openai_checks.py", program]).returncode


def run_schemathesis(program, bin_dir):
    """Every operation of docs/openapi.json with generated bodies, right and wrong ones."""
    with Serving(program) as server, tempfile.TemporaryDirectory() as folder:
        result = run([bin_dir / "schemathesis", "run", ROOT / "docs/openapi.json", "--url", server.url,
                      "--seed", "7", "--max-examples", "60",
                      "--checks", "not_a_server_error,status_code_conformance,"
                      "content_type_conformance,response_schema_conformance",
                      "--phases", "examples,coverage,fuzzing", "--request-timeout", "60",
                      "--generation-database", "none"], cwd=folder)
        server.wait_until_idle(30)
        return result.returncode


def run_lm_eval(program, bin_dir):
    """A task of this folder: answers that are generated, and answers that are chosen by likelihood."""
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    with Serving(program) as server, tempfile.TemporaryDirectory() as results:
        model = json.loads(server.get("/v1/models"))["data"][0]["id"]
        arguments = (f"model={model},base_url={server.url}/v1/completions,num_concurrent=4,"
                     f"tokenizer_backend=huggingface,tokenizer={ROOT / 'models' / model},"
                     "max_length=512")
        result = run([bin_dir / "lm-eval", "run", "--model", "local-completions", "--model_args", arguments,
                      "--include_path", HERE / "lm_eval_tasks", "--tasks",
                      "nanocp_generate,nanocp_choose", "--output_path", results],
                     env={**os.environ, **offline, "HF_HOME": results}, cwd=HERE / "lm_eval_tasks")
        server.wait_until_idle(30)
        return result.returncode


def run_aiperf(program, bin_dir):
    with Serving(program) as server, tempfile.TemporaryDirectory() as results:
        model = json.loads(server.get("/v1/models"))["data"][0]["id"]
        result = run([bin_dir / "aiperf", "profile", "--model", model, "--url", server.url,
                      "--endpoint-type", "chat", "--streaming", "--tokenizer",
                      ROOT / "models" / model, "--concurrency", "4", "--request-count", "40", "--use-server-token-count",
                      "--synthetic-input-tokens-mean", "64", "--output-tokens-mean", "32",
                      "--extra-inputs", "ignore_eos:true", "--artifact-dir", results, "--ui", "none"],
                     cwd=results)
        server.wait_until_idle(30)
        return result.returncode


CLIENTS = {"openai": run_openai, "schemathesis": run_schemathesis, "lm_eval": run_lm_eval,
           "aiperf": run_aiperf}


def main():
    program, build_dir = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    status = 0
    for client in sys.argv[3:] or ["openai"]:
        start = time.monotonic()
        try:
            failed = CLIENTS[client](program, environment(client, build_dir)) != 0
        except LeftOut as reason:
            print(f"left out: {reason}")
            continue
        status = 1 if failed else status
        print(f"{client}: {'FAILED' if failed else 'passed'} ({time.monotonic() - start:.0f} s)")
    return status


if __name__ == "__main__":
    sys.exit(main())
