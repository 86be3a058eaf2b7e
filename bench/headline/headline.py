#!/usr/bin/env python3
"""The headline run: correctness, exchange latencies, step times, and the highest request rate that each policy
sustains under a TPOT objective, measured on this machine's GPUs beside the simulator's prediction.

    bench/headline/headline.py --program build/cuda/bin/nanocp --output results

Builds nothing. Everything it starts has a time limit, all output goes to OUTPUT/headline.log, and
OUTPUT/headline.json is written anew after each step, so that a run that is cut off keeps what it has. Other
programs of the build (gpu_test, cuda_exchange_bench, cuda_nccl_compare_bench) are looked for beside the first;
a missing one is said in the report. `--device cpu` runs the same steps on a small model, which takes a minute.
Ends with exit code 1 if a check failed, 2 if a measurement did.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
POLICIES = ["bound/least_requests", "bound/least_kv", "uniform_cp/{n}", "threshold_cp/{n}", "dcp", "bound/any_instance"]

# What is measured on each device: the model, lengths, rates per instance, and times.
GPU = {
    "verify": ["--tolerance", "0.02"],  # bf16 activations
    "models": [("configs/qwen3-30b-a3b.json", [])],
    "fixtures": ["qwen3_moe_gpu", "deepseek_v3_gpu", "gpt_oss_gpu"],
    "contexts": "lognormal(1k,4k)x61,loguniform(32k,256k)x3",
    "workload": "95% lognormal(1k,4k) -> uniform(100,300) ; 5% loguniform(32k,256k) -> uniform(100,300)",
    "rates": [10, 14, 18, 22], "duration": 14, "warmup": 4, "drain": 10, "slo": "tpot=50ms,queue=10s",
    "engine": ["--max-num-batched-tokens", "512"],
    "calibrate": ["--rows", "1,8,64,128", "--tokens", "256,4096,16384", "--num-steps", "8", "--warmup", "2"],
}
EIGHT_GPUS = [("configs/qwen3-235b-a22b.json", ["--kv-cache-dtype", "fp8"])]
CPU = {
    "verify": [],
    "models": [("tests/fixtures/qwen3_moe/config.json", [])],
    "fixtures": ["qwen3_moe", "deepseek_v3", "gpt_oss"],
    "contexts": "uniform(20,60)x8,400",
    "workload": "90% uniform(20,60) -> uniform(3,6) ; 10% uniform(300,500) -> uniform(3,6)",
    "rates": [1, 2], "duration": 3, "warmup": 1, "drain": 20, "slo": "tpot=2s,queue=20s",
    "engine": ["--min-tokens-per-shard", "128", "--num-kv-blocks", "200"],
    "calibrate": ["--rows", "1,4", "--tokens", "16,64", "--num-steps", "2", "--warmup", "1"],
}


class Run:
    """Starts programs with a limit each, keeps their output and the report."""

    def __init__(self, args):
        self.args, self.start = args, time.monotonic()
        self.folder = Path(args.output)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = open(self.folder / "headline.log", "w", encoding="utf-8")
        self.report = {"benchmark": "headline", "command": " ".join(sys.argv), "steps": {}, "failed": []}

    def left_s(self):
        return self.args.minutes * 60 - (time.monotonic() - self.start)

    def program(self, name):
        path = Path(self.args.program).resolve().parent / name
        return path if path.exists() else None

    def call(self, words, limit_s, env=None):
        """(exit code, output); code None: it ran out of time or could not be started."""
        words = [str(word) for word in words]
        limit_s = max(1.0, min(limit_s, self.left_s()))
        self.log.write(f"$ {' '.join(words)}\n")
        try:
            done = subprocess.run(words, cwd=ROOT, env=dict(os.environ, **(env or {})), text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=limit_s, check=False)
            code, out = done.returncode, done.stdout
        except subprocess.TimeoutExpired as error:
            text = error.stdout or b""
            code, out = None, text.decode(errors="replace") if isinstance(text, bytes) else text
            out += f"\n(ended after {limit_s:.0f} s)"
        except OSError as error:
            code, out = None, str(error)
        self.log.write(f"{out}\n(exit code {code}, {time.monotonic() - self.start:.0f} s)\n\n")
        self.log.flush()
        return code, out

    def step(self, name, result, is_ok=True):
        self.report["steps"][name] = result
        if not is_ok:
            self.report["failed"].append(name)
        self.report["seconds"] = round(time.monotonic() - self.start, 1)
        (self.folder / "headline.json").write_text(json.dumps(self.report, indent=1) + "\n")
        print(f"[{self.report['seconds']:6.1f} s] {name}: {'ok' if is_ok else 'FAILED'}", flush=True)


def num_gpus():
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def machine(run, n):
    code, version = run.call([run.args.program, "--version"], 60)
    if code != 0:
        sys.exit(f"{run.args.program} does not run here: {version.strip() or code}")
    _, devices = run.call([run.args.program, "devices"], 60)
    _, smi = run.call(["nvidia-smi", "--query-gpu=name,driver_version,memory.total,power.limit", "--format=csv"], 60)
    run.step("machine", {"num_instances": n, "devices": devices.splitlines(), "nvidia_smi": smi.splitlines(),
                         "date": time.strftime("%Y-%m-%d"), "num_cores": os.cpu_count()})


def check_fixtures(run, plan, n):
    """Golden logits of every fixture at every degree, on all instances."""
    results, is_ok = {}, True
    for fixture in plan["fixtures"]:
        folder = Path(run.args.fixtures) / fixture
        if not folder.exists():
            results[fixture], is_ok = f"no {folder}", False
            continue
        for degree in degrees(n):
            code, out = run.call([run.args.program, "verify", folder, "--device", run.args.device, "--instances", n,
                                  "--cp-degree", degree, *plan["verify"]], 60)
            results[f"{fixture}, degree {degree}"] = out.strip().splitlines()[-1:] or [f"exit code {code}"]
            is_ok = is_ok and code == 0
    run.step("golden logits", results, is_ok)


def degrees(n):
    return [d for d in (1, 2, 3, 4, 8) if d < n] + [n]


def check_random_placements(run):
    """Steps under placements that change at random, a fixth of the test's 10,000."""
    if run.args.device == "cpu":
        name, test_filter = "e2e_test", "*RandomPlacement*qwen3_moe"
    else:
        name, test_filter = "gpu_test", "*TenThousandSteps*"
    program = run.program(name)
    if program is None:
        run.step("random placements", f"not run: no {name} beside the program", run.args.device == "cpu")
        return
    code, out = run.call([program, f"--gtest_filter={test_filter}"], 150,
                         {"NANOCP_GPU_TEST_SCALE": "0.2", "NANOCP_LARGE_FIXTURES": run.args.fixtures})
    passed = re.findall(r"\[  PASSED  \] (\d+) test", out)
    run.step("random placements", {"num_passed": int(passed[0]) if passed else 0, "exit_code": code},
             code == 0 and passed != ["0"])


def exchange(run, n):
    """Latencies of the own exchange, and NCCL's beside them, between 2, 4 and 8 GPUs as far as there are."""
    for name, words in {"cuda_exchange_bench": ["--time"], "cuda_nccl_compare_bench": ["--nccl-graph"]}.items():
        program = run.program(name)
        if run.args.device == "cpu" or program is None:
            run.step(name, "not run: " + ("no GPU" if run.args.device == "cpu" else f"no {name} beside the program"))
            continue
        for gpus in [g for g in (2, 4, 8) if g <= n]:
            code, out = run.call([program, *words, "--gpus", gpus], 60)
            run.step(f"{name}, {gpus} GPUs", out.splitlines(), code == 0)


def model_words(run, plan, config, extra, n):
    return ["--config", config, "--load-format", "dummy", "--device", run.args.device, "--instances", n,
            *extra, *plan["engine"]]


def names(policies, n):
    return [policy.format(n=n) for policy in policies]


def step_times(run, plan, model, words, n):
    file = run.folder / f"decode-{model}.json"
    code, _ = run.call([run.args.program, "bench", "decode", *words, "--context", plan["contexts"], "--per-instance",
                        "--policies", ",".join(names(POLICIES, n)), "--num-steps", 20, "--json", file], 120)
    run.step(f"step times, {model}", json.loads(file.read_text()) if code == 0 else f"exit code {code}", code == 0)
    return code == 0 and json.loads(file.read_text())


def load_words(run, plan, n):
    return ["--workload", plan["workload"], "--rate", ",".join(map(str, rates_of(run, plan, n))),
            "--duration", plan["duration"], "--warmup", plan["warmup"], "--drain", plan["drain"],
            "--slo", run.args.slo or plan["slo"]]


def predict(run, plan, model, config, words, n, decode):
    """What the simulator says of the same arrivals, from constants calibrated on this machine."""
    constants, file = run.folder / f"constants-{model}.json", run.folder / f"predicted-{model}.json"
    code, _ = run.call([run.args.program, "calibrate", *words, *plan["calibrate"], "--output", constants], 150)
    if code != 0:
        run.step(f"prediction, {model}", f"calibrate: exit code {code}", False)
        return None
    engine = plan["engine"]
    shard = ["--min-tokens-per-shard", engine[engine.index("--min-tokens-per-shard") + 1]] \
        if "--min-tokens-per-shard" in engine else []
    code, _ = run.call([run.args.program, "simulate", config, "--constants", constants, "--instances", n,
                        "--block-size", decode["block_size"], "--kv-tokens",
                        decode["num_kv_blocks"] * decode["block_size"], "--cp-threshold", threshold(plan),
                        *shard, *load_words(run, plan, n),
                        "--policies", ",".join(names(POLICIES, n)), "--json", file], 60)
    run.step(f"prediction, {model}", {"constants": json.loads(constants.read_text()), "exit_code": code}, code == 0)
    return json.loads(file.read_text()) if code == 0 else None


def threshold(plan):
    return 100 if plan is CPU else 32768


def rates_of(run, plan, n):
    """Requests per second of all instances together."""
    return run.args.rates or [rate * (n if plan is not CPU else 1) for rate in plan["rates"]]


def measure(run, plan, model, words, n):
    """All policies at each rate, the lowest first: what is cut off for time is the highest ones."""
    file = run.folder / f"load-{model}.json"
    code, _ = run.call([run.args.program, "bench", "load", *words, "--cp-threshold", threshold(plan),
                        *load_words(run, plan, n), "--policies", ",".join(names(POLICIES, n)), "--json", file],
                       run.left_s() - 5)
    runs = json.loads(file.read_text())["runs"] if file.exists() else []
    note = {"cut_off": code is None, "runs": runs}
    run.step(f"load, {model}", note, code in (0, None) and bool(runs))
    return runs


def highest_rates(runs):
    rates = {}
    for r in runs:
        if r["meets_objectives"]:
            rates[r["policy"]] = max(rates.get(r["policy"], 0), r["rate_per_s"])
    return rates


def summary(run, model, measured, predicted, n):
    sim = {(r["policy"], r["rate_per_s"]): r for r in (predicted or {}).get("runs", [])}
    rows = []
    for r in measured:
        twin = sim.get((r["policy"], r["rate_per_s"]))
        row = {"policy": r["policy"], "rate_per_s": r["rate_per_s"], "meets_objectives": r["meets_objectives"],
               "attainment": r["attainment"], "straggler_ratio": r["straggler_ratio"]}
        for key in ("mean", "p99"):
            row[f"tpot_{key}_us"] = r["all"]["tpot_us"][key]
            if twin:
                row[f"predicted_tpot_{key}_us"] = twin["all"]["tpot_us"][key]
                row[f"error_{key}"] = twin["all"]["tpot_us"][key] / max(1e-9, r["all"]["tpot_us"][key]) - 1
        rows.append(row)
    rates = highest_rates(measured)
    bound = max([rates.get(p, 0) for p in names(POLICIES, n) if p.startswith("bound")] or [0])
    run.step(f"summary, {model}", {"rows": rows, "highest_rate": rates, "predicted_highest_rate":
             highest_rates((predicted or {}).get("runs", [])),
             "dcp_over_best_bound": rates.get("dcp", 0) / bound if bound else None})
    print(f"{'policy':22} {'req/s':>7} {'TPOT ms':>8} {'P99':>8} {'kept':>6}  {'predicted P99':>13}")
    for row in rows:
        said = row.get("predicted_tpot_p99_us")
        beside = f"{said / 1e3:8.2f} ({row['error_p99']:+.0%})" if said else ""
        print(f"{row['policy']:22} {row['rate_per_s']:7g} {row['tpot_mean_us'] / 1e3:8.2f} "
              f"{row['tpot_p99_us'] / 1e3:8.2f} {row['attainment']:6.1%}  {beside:>13}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=str(ROOT / "build/cuda/bin/nanocp"))
    parser.add_argument("--output", required=True, help="folder for log and results")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--instances", type=int, default=0, help="default: all GPUs; 8 on a CPU")
    parser.add_argument("--fixtures", default=str(ROOT / "tests/fixtures"), help="folder of small checkpoints with goldens")
    parser.add_argument("--rates", type=lambda text: [float(rate) for rate in text.split(",")],
                        help="requests per second, e.g. 20,30; default: by instances")
    parser.add_argument("--slo", help="e.g. tpot=25ms,queue=10s; default: tpot=50ms,queue=10s")
    parser.add_argument("--minutes", type=float, default=9.0, help="for everything")
    args = parser.parse_args()
    args.program, args.output = str(Path(args.program).resolve()), str(Path(args.output).resolve())
    n = args.instances or (num_gpus() if args.device == "cuda" else 8)
    if n == 0:
        sys.exit("no GPU found by nvidia-smi; --device cpu tries the script itself")
    plan = GPU if args.device == "cuda" else CPU
    run = Run(args)
    machine(run, n)
    check_fixtures(run, plan, n)
    check_random_placements(run)
    if run.report["failed"]:
        sys.exit(1)  # figures of a wrong engine are worth nothing
    exchange(run, n)
    for config, extra in plan["models"] + (EIGHT_GPUS if args.device == "cuda" and n >= 8 else []):
        model = Path(config).stem if Path(config).stem != "config" else Path(config).parent.name
        words = model_words(run, plan, config, extra, n)
        decode = step_times(run, plan, model, words, n)
        predicted = decode and predict(run, plan, model, config, words, n, decode)
        summary(run, model, measure(run, plan, model, words, n), predicted, n)
    sys.exit(2 if run.report["failed"] else 0)


if __name__ == "__main__":
    main()
