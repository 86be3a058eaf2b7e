#!/usr/bin/env python3
"""Compares the simulator's step times with those that `nanocp bench decode` measured on GPUs.

For each run of each benchmark the same requests are simulated under the same policy, on instances
with as many KV blocks, from constants that `nanocp calibrate` measured on the same machine. A run
whose requests the simulator places otherwise than the engine did is marked and not counted.

Usage: bench/simulator/compare_real.py --constants FILE.json RUN.json... [--output FILE.json]
       [--program build/cpu/bin/nanocp] [--contexts FOLDER]
RUN.json come from `nanocp bench decode --json`; lists of --context-file are looked for in FOLDER.
Ends with exit code 1 when a placement differs.
"""
import argparse
import csv
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ADMISSION_STEPS = 1  # that bench decode takes before its warm-up, when all requests fit


def contexts_of(bench, folder):
    """Context lengths in the order in which bench decode adds its requests: the longest first."""
    text = bench["contexts"]
    if re.fullmatch(r"\d+(x\d+)?(,\d+(x\d+)?)*", text):
        copies = bench["num_instances"] if bench["per_instance"] else 1
        pieces = [(piece + "x1").split("x")[:2] for piece in text.split(",")]
        lengths = [int(length) for length, count in pieces for _ in range(int(count) * copies)]
    else:
        path = Path(folder, Path(text).name)
        if not path.exists():
            sys.exit(f"contexts '{text}' are neither LENGTHxREQUESTS nor a file in {folder}: "
                     "give drawn lengths to bench decode as --context-file")
        with open(path) as file:
            lengths = [int(row[0]) for row in csv.reader(file) if row and row[0].isdigit()]
    return sorted(lengths, reverse=True)


def simulated_name(policy, num_instances):
    """The policy as `nanocp simulate` names it, with the defaults of bench decode."""
    return {"bound": "bound/least_kv", "dcp": "dcp"}.get(policy, f"{policy}/{num_instances}")


def simulate(args, bench, policy, contexts):
    # Time goes on while contexts grow: twice the steps up to the middle of the measured ones give
    # the same mean context.
    num_outputs = 2 * (ADMISSION_STEPS + bench["num_warmup_steps"]) + bench["num_steps"]
    with tempfile.TemporaryDirectory() as folder:
        trace, result = Path(folder, "trace.csv"), Path(folder, "result.json")
        lines = [f"0,{length},{num_outputs}" for length in contexts]
        trace.write_text("\n".join(["arrival_s,input_tokens,output_tokens"] + lines) + "\n")
        # At this rate the trace lasts two seconds: none of it comes again within the first.
        command = [args.program, "simulate", Path(bench["model"]).stem, "--constants", args.constants,
                   "--instances", bench["num_instances"], "--block-size", bench["block_size"],
                   "--kv-tokens", bench["num_kv_blocks"] * bench["block_size"],
                   "--trace", trace, "--arrivals", "trace", "--rate", len(contexts) / 2,
                   "--duration", 1, "--max-num-batched-tokens", 256,
                   "--policies", simulated_name(policy, bench["num_instances"]),
                   "--sample-every", 0.001, "--json", result]
        if subprocess.run([str(word) for word in command], stdout=subprocess.DEVNULL).returncode != 0:
            sys.exit(f"could not be simulated: {' '.join(str(word) for word in command)}")
        document = json.loads(result.read_text())
    return document["runs"][0]


def is_same_placement(bench, measured, simulated):
    """Rows are equal, and blocks in use agree with the tokens held up to a block per request."""
    sample = simulated["samples"][0]
    for i, instance in enumerate(measured["instances"]):
        held = sample["kv_share"][i] * bench["num_kv_blocks"] * bench["block_size"]
        room = bench["block_size"] * (2 + measured["num_requests"])
        if sample["num_rows"][i] != instance["num_rows"] or abs(held - instance["num_kv_tokens"]) > room:
            return False
    return True


def compare(args, file):
    bench = json.loads(Path(file).read_text())
    contexts = contexts_of(bench, args.contexts)
    for measured in bench["runs"]:
        simulated = simulate(args, bench, measured["policy"], contexts)
        measured_us, simulated_us = measured["tpot_us"]["mean"], simulated["mean_step_us"]
        yield {"case": Path(file).stem, "model": Path(bench["model"]).stem,
               "num_instances": bench["num_instances"], "contexts": bench["contexts"],
               "per_instance": bench["per_instance"], "policy": measured["policy"],
               "num_by_degree": measured["num_requests_by_degree"],
               "measured_us": measured_us, "simulated_us": simulated_us,
               "error": simulated_us / measured_us - 1.0,
               "is_same_placement": is_same_placement(bench, measured, simulated)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", help="JSON of nanocp bench decode")
    parser.add_argument("--constants", required=True, help="profile of nanocp calibrate")
    parser.add_argument("--program", default=str(ROOT / "build/cpu/bin/nanocp"))
    parser.add_argument("--contexts", default=str(Path(__file__).parent))
    parser.add_argument("--output")
    args = parser.parse_args()
    rows = [row for file in args.runs for row in compare(args, file)]
    for row in rows:
        degrees = " ".join(f"{d}:{n}" for d, n in enumerate(row["num_by_degree"]) if n)
        print(f"{row['case']:16} {row['policy']:14} degrees {degrees:12} measured {row['measured_us'] / 1e3:7.3f} ms"
              f"  simulated {row['simulated_us'] / 1e3:7.3f} ms ({row['error']:+6.1%})"
              f"{'' if row['is_same_placement'] else '  PLACED OTHERWISE'}")
    errors = [abs(row["error"]) for row in rows if row["is_same_placement"]]
    if errors:
        print(f"{len(errors)} runs: mean error {sum(errors) / len(errors):.1%}, largest {max(errors):.1%}")
    if args.output:
        Path(args.output).write_text(json.dumps(rows, indent=1) + "\n")
    return 0 if len(errors) == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
