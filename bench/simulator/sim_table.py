#!/usr/bin/env python3
"""The table of sustained request rates: every policy on every model, size and workload.

A unit of work is one model, number of instances, workload and policy; it runs `nanocp simulate
--find-rate` with all seeds and gives one row per seed, starting from what the next smaller number
of instances gave. The unit of bound/least_requests also runs dcp at the rates it found. Rows go to
a JSON file as they come. Rows that it already holds from the same program and settings are kept,
so that the command can be stopped and run again, on several machines too:

  sim_table.py                            all that is missing, then the page
  sim_table.py --estimate                 what is missing and how long it takes
  sim_table.py --shard 2/3 --minutes 9 --output part2.json
  sim_table.py --merge part1.json part2.json part3.json

Ends with exit code 3 when time ran out before all was done.
"""
import argparse
import fnmatch
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

import sim_table_page

ROOT = Path(__file__).resolve().parents[2]
TRACES = "bench/simulator/traces"  # from ROOT, where the program runs

MODELS = {  # hardware profile, numbers of instances
    "qwen3-30b-a3b": ("h100-nvlink", (2, 8, 16, 32, 64)),
    "qwen3-235b-a22b": ("h200-nvlink", (8, 16, 32, 64)),
    "deepseek-v3": ("h200-nvlink", (8, 16, 32, 64)),
}
MIXTURE = "95% lognormal(1k,4k) -> uniform(200,1000) ; 5% loguniform(32k,256k) -> uniform(200,1000)"
WORKLOADS = {  # arguments of the program, and what a row of it costs against the others
    "mixture": (["--workload", MIXTURE], 1.0),
    "issue1": (["--workload", "issue(1)"], 1.3),
    "issue5": (["--workload", "issue(5)"], 0.4),
    "mooncake": (["--trace", f"{TRACES}/mooncake_conversation.csv.gz"], 0.6),
    "servegen": (["--trace", f"{TRACES}/servegen_deepseek_r1_every_8th.csv.gz"], 1.3),
    "azure": (["--trace", f"{TRACES}/azure2023_conv.csv.gz"], 1.5),
}
UNCLIPPED = " unclipped"
LONGEST = {"mixture": 256_000, "issue1": 995_000, "issue5": 995_000}  # prompts; those of the traces always fit
SECONDS = {2: 2, 8: 3, 16: 5, 32: 10, 64: 25}  # of a unit, roughly
SHORTER = {32: 0.8, 64: 0.6}  # of the time of arrivals: more requests come in less time
CLIP = 0.8  # of one instance's KV memory
SEEDS = (1, 2, 3)
SLO = "tpot=50ms,queue=10s,percentile=99"
PUBLISHED = {"model": "deepseek-v3", "hardware": "profiles/h200-deepseek-v3-published.json",
             "instances": 32, "kv_tokens": 898_880, "rates": (10, 20, 30, 40, 50, 60),
             "policies": ("bound/least_requests", "threshold_cp/8", "dcp")}

COLUMNS = ("mode", "model", "instances", "workload", "policy", "seed", "rate_per_s", "limit", "is_met",
           "tpot_mean_ms", "tpot_p99_ms", "tpot_p99_ms_short", "tpot_p99_ms_middle", "tpot_p99_ms_long",
           "queue_p99_s", "refused_share", "straggler_ratio", "rows_per_step", "requests", "trials",
           "wall_s", "config", "build")
KEY = ("mode", "model", "instances", "workload", "policy", "seed")
MAX, AT_BOUND, FIXED, REFUSALS = "max", "at bound/least_requests", "published profile", "refusals"


def policies_of(instances, has_oracle):
    degrees = sorted({d for d in (2, 4, 8, instances) if d <= instances})
    names = [f"bound/{r}" for r in ("round_robin", "least_requests", "least_kv", "power_of_two", "any_instance")]
    names += [f"uniform_cp/{d}" for d in degrees] + [f"threshold_cp/{min(8, instances)}", "dcp", "dcp/slo"]
    return names + ["oracle"] * has_oracle


class Table:
    """Rows by their key, and the file they are kept in."""

    def __init__(self, path):
        self.path, self.rows = Path(path), {}
        self.notes = {}  # by build: what to know of the rows that it gave; written by hand

    def read(self, path):
        document = json.loads(Path(path).read_text())
        self.notes.update(document["settings"].get("notes", {}))
        for values in document["rows"]:
            self.add(dict(zip(document["columns"], values)))

    def add(self, row):
        self.rows[tuple(row[c] for c in KEY)] = row

    def write(self, settings):
        lines = [json.dumps([row.get(c) for c in COLUMNS]) for _, row in sorted(self.rows.items())]
        text = ('{"settings": ' + json.dumps(settings) + ',\n "columns": ' + json.dumps(COLUMNS) +
                ',\n "rows": [\n' + ",\n".join(lines) + "\n]}\n")
        partial = self.path.with_suffix(".partial")
        partial.write_text(text)
        partial.replace(self.path)


class Unit:
    """What one process after another computes on one core."""

    def __init__(self, mode, model, instances, workload, policy, seconds):
        self.mode, self.model, self.instances = mode, model, instances
        self.workload, self.policy, self.seconds = workload, policy, seconds

    def keys(self):
        modes = [self.mode] + ([AT_BOUND] if self.mode == MAX and self.policy == "bound/least_requests" else [])
        if self.mode == FIXED:
            return [(FIXED, self.model, self.instances, f"issue1 at {r} req/s", self.policy, s)
                    for s in SEEDS for r in PUBLISHED["rates"]]
        return [(m, self.model, self.instances, self.workload, "dcp" if m == AT_BOUND else self.policy, s)
                for m in modes for s in (SEEDS[:1] if m == REFUSALS else SEEDS)]

    def chain(self):
        """Units of one chain differ in size; each starts from what the one before gave."""
        return (self.mode, self.model, self.workload, self.policy if self.policy != f"uniform_cp/{self.instances}" else "all")

    def name(self):
        return f"{self.mode}:{self.model}:{self.instances}:{self.workload}:{self.policy}"


class Runner:
    def __init__(self, args):
        self.args = args
        self.program = str(Path(args.program).resolve())
        self.build = hashlib.sha256(Path(self.program).read_bytes()).hexdigest()[:8]

    def load_arguments(self, unit):
        """All but the policy and what is done with it."""
        if unit.mode == FIXED:
            return [PUBLISHED["model"], "--hardware", PUBLISHED["hardware"], "--instances", str(unit.instances),
                    "--kv-tokens", str(PUBLISHED["kv_tokens"]), "--workload", "issue(1)", "--duration", "600"]
        words = [unit.model, "--hardware", MODELS[unit.model][0], "--instances", str(unit.instances)]
        words += WORKLOADS[unit.workload.removesuffix(UNCLIPPED)][0]
        if "--trace" in words:
            words += ["--arrivals", "trace", "--rotate-trace"]
        if not unit.workload.endswith(UNCLIPPED):
            words += ["--clip-prompts", str(CLIP)]
        if unit.mode == REFUSALS:  # who fits does not depend on the rate: no need to serve them
            return words + ["--rate", "500", "--duration", "4", "--drain", "0"]
        duration = self.args.duration * SHORTER.get(unit.instances, 1.0)
        return words + ["--duration", f"{duration:g}", "--warmup", str(self.args.warmup),
                        "--min-requests", str(self.args.min_requests)]

    def config(self, unit):
        return hashlib.sha256(json.dumps([self.load_arguments(unit), SLO]).encode()).hexdigest()[:8]

    def simulate(self, words, deadline):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "result.json")
            command = [self.program, "simulate", *words, "--slo", SLO, "--json", str(file)]
            left = None if deadline is None else max(0.1, deadline - time.monotonic())
            environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # it starts a thread a core, to wait
            done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                  text=True, timeout=left)
            if done.returncode != 0:
                raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
            return json.loads(file.read_text())

    def row(self, unit, run, **more):
        def p99(metrics):
            return round(metrics["tpot_us"]["p99"] / 1e3, 3)

        every = run["all"]
        classes = list(run["by_class"][name] for name in ("below 8k", "8k to 64k", "above 64k"))
        row = {"mode": unit.mode, "model": unit.model, "instances": unit.instances, "workload": unit.workload,
               "policy": run["policy"], "seed": run["seed"], "rate_per_s": run["rate_per_s"],
               "limit": run["missed"], "is_met": run["meets_objectives"],
               "tpot_mean_ms": round(every["tpot_us"]["mean"] / 1e3, 3), "tpot_p99_ms": p99(every),
               "tpot_p99_ms_short": p99(classes[0]), "tpot_p99_ms_middle": p99(classes[1]),
               "tpot_p99_ms_long": p99(classes[2]), "queue_p99_s": round(every["queue_us"]["p99"] / 1e6, 3),
               "refused_share": round(every["num_refused"] / max(1, every["num_requests"]), 5),
               "straggler_ratio": round(run["straggler_ratio"], 3), "rows_per_step": round(run["mean_rows"], 1),
               "requests": every["num_requests"], "trials": 1, "wall_s": round(run["wall_s"], 1),
               "config": self.config(unit), "build": self.build}
        row.update(more)
        return row

    def rows(self, unit, guess, deadline):
        """All rows of the unit; `guess` is a rate to start from or None."""
        words, seeds = self.load_arguments(unit), ",".join(map(str, SEEDS))
        if unit.mode == FIXED:
            rates = ",".join(map(str, PUBLISHED["rates"]))
            document = self.simulate(words + ["--policies", unit.policy, "--seeds", seeds, "--rate", rates], deadline)
            return [self.row(unit, r, workload=f"issue1 at {r['rate_per_s']:g} req/s") for r in document["runs"]]
        if unit.mode == REFUSALS:
            document = self.simulate(words + ["--policies", unit.policy], deadline)
            return [self.row(unit, r) for r in document["runs"]]
        start = [] if guess is None else ["--rate-guess", f"{guess:.4g}"]
        document = self.simulate(words + start + ["--policies", unit.policy, "--seeds", seeds, "--find-rate"], deadline)
        rows = []
        for found in document["rates"]:
            rate = found["rate_per_s"]
            rows.append(self.row(unit, found["at_rate"], rate_per_s=rate, limit=found["limit"], is_met=rate > 0,
                                 trials=len(found["trials"]), wall_s=round(found["wall_s"], 1)))
            if unit.policy == "bound/least_requests":
                if rate > 0:
                    extra = self.simulate(words + ["--policies", "dcp", "--seeds", str(found["seed"]), "--rate",
                                                   str(rate)], deadline)
                    rows.append(self.row(unit, extra["runs"][0], mode=AT_BOUND))
                else:
                    rows.append(self.row(unit, found["at_rate"], mode=AT_BOUND, policy="dcp", rate_per_s=0.0))
        return rows

    def short_run(self, model, instances, policy):
        words = [model, "--hardware", MODELS[model][0], "--instances", str(instances), "--rate", "1", "--duration", "1"]
        return self.simulate(words + ["--policies", policy], time.monotonic() + 60)

    def kv_tokens(self, model, instances):
        return self.short_run(model, instances, "dcp")["kv_tokens_per_instance"]

    def knows(self, policy):
        try:
            self.short_run("qwen3-30b-a3b", 2, policy)
        except RuntimeError:
            return False
        return True


def all_units(has_oracle, kv_tokens):
    """`kv_tokens(model, instances)` of one instance."""
    units = []
    for model, (_, sizes) in MODELS.items():
        for instances in sizes:
            uncut = CLIP * kv_tokens(model, instances)
            for workload, (_, weight) in WORKLOADS.items():
                for policy in policies_of(instances, has_oracle):
                    is_wide = policy in ("oracle", f"uniform_cp/{instances}")  # many items for each row
                    seconds = SECONDS[instances] * weight * (1.0 + instances / 32 if is_wide else 1.0)
                    units.append(Unit(MAX, model, instances, workload, policy, seconds))
                    if LONGEST.get(workload, 0) <= uncut:  # would be the same row
                        continue
                    units.append(Unit(REFUSALS, model, instances, workload + UNCLIPPED, policy, 1.0))
                    refuses = policy.startswith("bound")
                    units.append(Unit(MAX, model, instances, workload + UNCLIPPED, policy,
                                      3.0 if refuses else seconds))
    units += [Unit(FIXED, PUBLISHED["model"], PUBLISHED["instances"], "issue1", policy, 90.0)
              for policy in PUBLISHED["policies"]]
    return units


class Pool:
    """Runs units on threads, each a process at a time, largest first, until all are done or time is over."""

    def __init__(self, runner, table, settings, jobs, deadline):
        self.runner, self.table, self.settings = runner, table, settings
        self.jobs, self.deadline = jobs, deadline
        self.lock = threading.Lock()
        self.failures, self.spent, self.estimated = [], 0.0, 0.0
        self.started, self.written = time.monotonic(), time.monotonic()

    def run(self, units):
        self.left = sorted(units, key=lambda u: u.instances)
        self.running = set()  # chains
        self.num_done, self.num_all = 0, len(units)
        threads = [threading.Thread(target=self.work) for _ in range(self.jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.table.write(self.settings)

    def scale(self):
        return self.spent / self.estimated if self.estimated > 0 else 1.0

    def take(self):
        """The first unit of the chain with most to do, and the rate to start from; None: nothing to do."""
        with self.lock:
            left_s = float("inf") if self.deadline is None else self.deadline - time.monotonic()
            if left_s <= 0.0:
                return None
            first, seconds = {}, defaultdict(float)
            for unit in self.left:
                first.setdefault(unit.chain(), unit)
                seconds[unit.chain()] += unit.seconds
            ready = [u for chain, u in first.items()
                     if chain not in self.running and u.seconds * self.scale() < left_s]
            if not ready:
                return None
            unit = max(ready, key=lambda u: seconds[u.chain()])
            self.left.remove(unit)
            self.running.add(unit.chain())
            return unit, self.guess(unit)

    def guess(self, unit):
        sizes = [n for n in MODELS.get(unit.model, (None, ()))[1] if n < unit.instances]
        if unit.mode != MAX or not sizes:
            return None
        is_all = unit.chain()[-1] == "all"
        policy = f"uniform_cp/{sizes[-1]}" if is_all else unit.policy
        if not is_all and policy == f"uniform_cp/{sizes[-1]}":  # of another chain
            return None
        row = self.table.rows.get((MAX, unit.model, sizes[-1], unit.workload, policy, SEEDS[0]))
        return row["rate_per_s"] * unit.instances / sizes[-1] if row and row["rate_per_s"] > 0 else None

    def work(self):
        while (taken := self.take()) is not None:
            unit, guess = taken
            start = time.monotonic()
            try:
                rows, error = self.runner.rows(unit, guess, self.deadline), None
            except subprocess.TimeoutExpired:
                rows, error = [], None  # time is over
                with self.lock:
                    self.left.append(unit)
            except (RuntimeError, OSError, ValueError, KeyError) as e:
                rows, error = [], e
            self.commit(unit, rows, error, time.monotonic() - start)

    def commit(self, unit, rows, error, seconds):
        with self.lock:
            self.running.discard(unit.chain())
            for row in rows:
                self.table.add(row)
            if error is not None:
                self.failures.append(f"{unit.name()}: {error}")
                print(self.failures[-1], file=sys.stderr)
            if not rows:
                return
            self.num_done += 1
            self.spent, self.estimated = self.spent + seconds, self.estimated + unit.seconds
            now = time.monotonic()
            if now - self.written > 10.0:
                self.written = now
                self.table.write(self.settings)
                rest = sum(u.seconds for u in self.left) * self.scale() / self.jobs
                print(f"{self.num_done} of {self.num_all} units, {now - self.started:.0f} s, "
                      f"about {rest / 60:.1f} min left", flush=True)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=str(ROOT / "build/cpu/bin/nanocp"))
    parser.add_argument("--output", default=str(ROOT / "docs/benchmarks/sim-table.json"))
    parser.add_argument("--page", help="the page (default: beside the output, .md)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at the same time")
    parser.add_argument("--minutes", type=float, help="stop after so long; what is done is kept")
    parser.add_argument("--shard", help="K/N: the K-th of N parts of equal work")
    parser.add_argument("--only", default="*", help="units whose MODE:MODEL:INSTANCES:WORKLOAD:POLICY matches")
    parser.add_argument("--merge", nargs="+", default=[], metavar="FILE", help="take rows from these and run nothing")
    parser.add_argument("--from", dest="earlier", nargs="+", default=[], metavar="FILE", help="keep rows of these, too")
    parser.add_argument("--any-build", action="store_true", help="keep rows of other builds of the program")
    parser.add_argument("--estimate", action="store_true", help="say what is missing and run nothing")
    parser.add_argument("--duration", type=float, default=300, help="seconds of arrivals, warm-up included")
    parser.add_argument("--warmup", type=float, default=40)
    parser.add_argument("--min-requests", type=int, default=4000)
    return parser.parse_args()


def missing_units(runner, table, args):
    """Those with a row that is not there or is of other settings. A unit's earlier time, if known, is its estimate."""
    units = []
    for unit in all_units(runner.knows("oracle"), runner.kv_tokens):
        rows = [table.rows.get(key) for key in unit.keys()]
        known = [row for row in rows if row is not None]
        if known:
            unit.seconds = max(0.1, sum(row["wall_s"] for row in known))
        config = runner.config(unit)
        is_kept = len(known) == len(rows) and all(
            row["config"] == config and (args.any_build or row["build"] == runner.build) for row in known)
        if not is_kept and fnmatch.fnmatch(unit.name(), args.only):
            units.append(unit)
    return shard(units, args.shard) if args.shard else units


def shard(units, part):
    """The K-th of N parts ("K/N") of about equal work, made of whole chains."""
    k, n = map(int, part.split("/"))
    seconds = defaultdict(float)
    for unit in units:
        seconds[unit.chain()] += unit.seconds
    sums, part_of = [0.0] * n, {}
    for chain in sorted(seconds, key=lambda c: (-seconds[c], c)):
        part_of[chain] = min(range(n), key=lambda i: sums[i])
        sums[part_of[chain]] += seconds[chain]
    return [u for u in units if part_of[u.chain()] == k - 1]


def main():
    args = parse_arguments()
    table = Table(args.output)
    if table.path.exists():
        table.read(table.path)
    for file in args.earlier + args.merge:
        table.read(file)
    settings = {"notes": table.notes, "slo": SLO, "seeds": SEEDS, "clip": CLIP, "duration_s": args.duration, "warmup_s": args.warmup,
                "min_requests": args.min_requests, "hardware": {m: h for m, (h, _) in MODELS.items()}}
    page = Path(args.page) if args.page else table.path.with_suffix(".md")
    code = 0
    if args.merge:
        table.write(settings)
    else:
        deadline = None if args.minutes is None else time.monotonic() + args.minutes * 60
        runner = Runner(args)
        units = missing_units(runner, table, args)
        seconds = sum(u.seconds for u in units)
        print(f"{len(units)} units to do, about {seconds / 3600:.1f} core-hours, "
              f"{seconds / 60 / args.jobs:.0f} min with {args.jobs} jobs", flush=True)
        if args.estimate:
            return 0
        pool = Pool(runner, table, settings, args.jobs, deadline)
        pool.run(units)
        if pool.failures:
            code = 1
        elif pool.left:
            print(f"time is over, {len(pool.left)} units left", flush=True)
            code = 3
    page.write_text(sim_table_page.make_page(table.rows.values(), settings))
    print(f"wrote {table.path} ({len(table.rows)} rows) and {page}")
    return code


if __name__ == "__main__":
    sys.exit(main())
