#!/usr/bin/env python3
"""Compares the simulator with published end-to-end measurements.

The measurements (published_issue1.csv): DeepSeek-V3 on 4 nodes of 8 H200, workload "Issue 1 %",
two systems at five request rates. For each system two constants are fitted, the fixed time of a
step and the time per row, to the mean TPOT at 10 and 30 requests per second; everything else is
from profiles/h200-deepseek-v3-published.json. The other rates are predictions.

Usage: bench/simulator/validate.py [--program build/cpu/bin/nanocp] [--output FILE.json]
Ends with exit code 1 when a prediction is off by more than 12 % (mean) or 20 % (P99).
"""
import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROFILE = ROOT / "profiles/h200-deepseek-v3-published.json"
SYSTEMS = {"bound": "bound/least_requests", "threshold_cp": "threshold_cp/8"}
FITTED_RATES = (10.0, 30.0)
MEAN_MAX, P99_MAX = 0.12, 0.20
KV_TOKENS = 898_880  # 14,045 blocks of 64 tokens


def simulate(program, policy, rates, fixed_us, row_us):
    """Mean and P99 TPOT in ms for each rate."""
    profile = json.loads(PROFILE.read_text())
    source = "fitted to 10 and 30 requests per second"
    profile["constants"]["step_fixed_us"] = {"value": fixed_us, "source": source}
    profile["constants"]["step_us_per_row"] = {"value": row_us, "source": source}
    with tempfile.TemporaryDirectory() as folder:
        hardware, result = Path(folder, "profile.json"), Path(folder, "result.json")
        hardware.write_text(json.dumps(profile))
        command = [program, "simulate", "deepseek-v3", "--hardware", str(hardware), "--instances", "32",
                   "--kv-tokens", str(KV_TOKENS), "--workload", "issue(1)", "--duration", "600",
                   "--rate", ",".join(str(r) for r in rates), "--policies", policy,
                   "--json", str(result)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        runs = json.loads(result.read_text())["runs"]
    return [(r["all"]["tpot_us"]["mean"] / 1e3, r["all"]["tpot_us"]["p99"] / 1e3) for r in runs]


def fit(program, policy, targets):
    """Fixed and per-row us that give the two target means. Newton's method with wide differences:
    a run is a sample of a random process, so that small ones would only measure its noise."""
    def errors_at(point):
        means = [mean for mean, _ in simulate(program, policy, FITTED_RATES, *point)]
        return [target - mean for target, mean in zip(targets, means)]

    def size(errors):
        return max(abs(e) for e in errors)

    point, best = [15_000.0, 100.0], None
    for _ in range(10):
        errors = errors_at(point)
        if best is None or size(errors) < size(best[0]):
            best = (errors, point)
        is_bound = point[1] == 0.0  # a row costs nothing beyond the published constants
        if size(errors) < 0.1 or (is_bound and abs(sum(errors)) < 0.1):
            break
        fixed = errors_at([point[0] + 2_000.0, point[1]])
        a, c = ((e - f) / 2_000.0 for e, f in zip(errors, fixed))
        if is_bound:
            point = [max(0.0, point[0] + sum(errors) / (a + c)), 0.0]
            continue
        row = errors_at([point[0], point[1] + 50.0])
        b, d = ((e - r) / 50.0 for e, r in zip(errors, row))
        determinant = a * d - b * c
        if determinant == 0.0:
            break
        point = [min(60_000.0, max(0.0, point[0] + (errors[0] * d - b * errors[1]) / determinant)),
                 min(2_000.0, max(0.0, point[1] + (a * errors[1] - errors[0] * c) / determinant))]
    return best[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--program", default=str(ROOT / "build/cpu/bin/nanocp"))
    parser.add_argument("--output")
    args = parser.parse_args()
    with open(Path(__file__).with_name("published_issue1.csv")) as file:
        rows = list(csv.DictReader(file))
    rates = [float(row["rate_rps"]) for row in rows]
    report, is_good = [], True
    for system, policy in SYSTEMS.items():
        targets = [float(row[f"{system}_mean_ms"]) for row in rows if float(row["rate_rps"]) in FITTED_RATES]
        fixed_us, row_us = fit(args.program, policy, targets)
        print(f"{system}: fitted step_fixed_us {fixed_us:.0f}, step_us_per_row {row_us:.1f}")
        for row, rate, (mean, p99) in zip(rows, rates, simulate(args.program, policy, rates, fixed_us, row_us)):
            want_mean, want_p99 = float(row[f"{system}_mean_ms"]), float(row[f"{system}_p99_ms"])
            off_mean, off_p99 = mean / want_mean - 1, p99 / want_p99 - 1
            predicted = rate not in FITTED_RATES
            ok = not predicted or (abs(off_mean) <= MEAN_MAX and abs(off_p99) <= P99_MAX)
            is_good = is_good and ok
            print(f"  {rate:4.0f} req/s  mean {mean:7.2f} of {want_mean:7.2f} ms ({off_mean:+6.1%})"
                  f"  P99 {p99:7.2f} of {want_p99:7.2f} ms ({off_p99:+6.1%})"
                  f"{'' if predicted else '  fitted'}{'' if ok else '  OFF'}")
            report.append({"system": system, "rate_rps": rate, "mean_ms": mean, "p99_ms": p99,
                           "published_mean_ms": want_mean, "published_p99_ms": want_p99,
                           "fitted": not predicted, "step_fixed_us": fixed_us, "step_us_per_row": row_us})
    if args.output:
        Path(args.output).write_text(json.dumps(report, indent=1) + "\n")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
