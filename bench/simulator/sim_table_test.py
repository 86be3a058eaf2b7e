#!/usr/bin/env python3
"""Tests of sim_table.py with a real program: rows come, are kept, and are merged. Argument: the program."""
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import sim_table
import sim_table_page

FOLDER = Path(__file__).resolve().parent
PROGRAM = None


def run(*arguments):
    command = [sys.executable, str(FOLDER / "sim_table.py"), "--program", PROGRAM, "--jobs", "2", "--duration", "6",
               "--warmup", "1", "--min-requests", "20", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def rows_of(path):
    document = json.loads(Path(path).read_text())
    return [dict(zip(document["columns"], values)) for values in document["rows"]]


class SimTable(unittest.TestCase):
    def test_rows_come_are_kept_and_merged(self):
        with tempfile.TemporaryDirectory() as folder:
            first, second = Path(folder, "first.json"), Path(folder, "second.json")
            done = run("--output", first, "--only", "max:qwen3-30b-a3b:2:azure:bound/least_requests")
            self.assertEqual(done.returncode, 0, done.stderr)
            rows = rows_of(first)
            self.assertEqual([(r["mode"], r["seed"]) for r in rows],
                             [(m, s) for m in ("at bound/least_requests", "max") for s in (1, 2, 3)])
            rates = {r["seed"]: r["rate_per_s"] for r in rows if r["mode"] == "max"}
            for row in rows:
                self.assertEqual(row["rate_per_s"], rates[row["seed"]])
                self.assertGreater(row["rate_per_s"], 1.0)
                self.assertGreater(row["tpot_p99_ms"], 1.0)
            self.assertIn("dcp over", first.with_suffix(".md").read_text())
            again = run("--output", first, "--only", "max:qwen3-30b-a3b:2:azure:bound/least_requests")
            self.assertIn("0 units to do", again.stdout)
            other = run("--output", second, "--only", "refusals:qwen3-30b-a3b:2:issue5 unclipped:*")
            self.assertEqual(other.returncode, 0, other.stderr)
            refused = {r["policy"]: r["refused_share"] for r in rows_of(second)}
            self.assertGreater(refused["bound/least_kv"], 0.01)
            self.assertLess(refused["uniform_cp/2"], refused["bound/least_kv"])
            self.assertEqual(run("--output", first, "--merge", second).returncode, 0)
            self.assertEqual(len(rows_of(first)), 6 + len(refused))

    def test_time_that_is_over_and_failures_show(self):
        with tempfile.TemporaryDirectory() as folder:
            late = run("--output", Path(folder, "late.json"), "--minutes", "0", "--only", "max:*:azure:dcp")
            self.assertEqual(late.returncode, 3, late.stderr)

    def test_shards_share_all_work(self):
        units = sim_table.all_units(has_oracle=True, kv_tokens=lambda model, instances: 100_000 * instances)
        names = [u.name() for u in units]
        self.assertEqual(len(set(names)), len(names))
        parts = [sim_table.shard(units, f"{k}/3") for k in (1, 2, 3)]
        self.assertEqual(sorted(u.name() for part in parts for u in part), sorted(names))
        seconds = [sum(u.seconds for u in part) for part in parts]
        self.assertLess(max(seconds), 1.05 * min(seconds))
        keys = [k for u in units for k in u.keys()]
        self.assertEqual(len(set(keys)), len(keys))


class Page(unittest.TestCase):
    def row(self, policy, rate, p99=20.0, mode="max", instances=8):
        return {"mode": mode, "model": "m", "instances": instances, "workload": "issue1", "policy": policy, "seed": 1,
                "rate_per_s": rate, "tpot_p99_ms": p99, "build": "b", "wall_s": 1.0}

    def test_ratios_and_bars(self):
        rows = [self.row("bound/least_requests", 10.0, 48.0), self.row("bound/least_kv", 20.0),
                self.row("uniform_cp/8", 41.0), self.row("dcp", 40.0), self.row("oracle", 50.0),
                self.row("dcp", 10.0, 12.0, mode="at bound/least_requests")]
        cells = sim_table_page.Cells([r for r in rows if r["mode"] == "max"])
        at_bound = sim_table_page.Cells([r for r in rows if r["mode"] != "max"])
        found = sim_table_page.ratios(cells, at_bound, ("m", 8, "issue1"))
        self.assertAlmostEqual(found["least"], 4.0)
        self.assertAlmostEqual(found["bound"], 2.0)
        self.assertAlmostEqual(found["other"], 40.0 / 41.0)
        self.assertEqual(found["other_name"], "uniform_cp/8")
        self.assertAlmostEqual(found["oracle"], 0.8)
        self.assertAlmostEqual(found["p99"], 4.0)
        page = sim_table_page.make_page(rows, {"slo": "s", "seeds": [1], "clip": 0.8, "duration_s": 300, "warmup_s": 60,
                                               "min_requests": 1, "hardware": {"m": "h"}})
        self.assertIn("| 4.000 | >= 3.3 | yes |", page)
        self.assertIn("| 0.800 | >= 0.93 | no |", page)

    def test_notes_go_with_their_rows(self):
        settings = {"slo": "s", "seeds": [1], "clip": 0.8, "duration_s": 300, "warmup_s": 60, "min_requests": 1,
                    "hardware": {"m": "h"}, "notes": {"b": "Of an old rule.", "c": "Of another one."}}
        page = sim_table_page.make_page([self.row("dcp", 40.0)], settings)
        self.assertIn("Of an old rule.", page)
        self.assertNotIn("Of another one.", page)

    def test_none_where_nothing_is_known(self):
        cells = sim_table_page.Cells([self.row("dcp", 4.0)])
        found = sim_table_page.ratios(cells, sim_table_page.Cells([]), ("m", 8, "issue1"))
        self.assertIsNone(found["least"])
        self.assertIsNone(found["p99"])


if __name__ == "__main__":
    PROGRAM = sys.argv.pop(1)
    unittest.main()
