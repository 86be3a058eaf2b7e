"""The page of sim_table.py: what the rows say, in tables and against the bars."""
import math
from collections import defaultdict

LONG_CONTEXT = ("mixture", "issue1", "issue5", "mooncake")
WORKLOAD_ORDER = ("mixture", "issue1", "issue5", "mooncake", "servegen", "azure")
LEAST = "bound/least_requests"
WAITING = "dcp/slo"  # an option of dcp, no other policy
NOT_OTHERS = ("dcp", WAITING, "oracle")
UNCLIPPED = " unclipped"
CAUSES = """
What falls short: [2026-11-25-dcp-parts.md](2026-11-25-dcp-parts.md) has what separates `dcp` from the oracle, case by case, and why no placement makes twice the rate of bound routers on average.
"""


def geometric_mean(values):
    values = list(values)
    if not values or min(values) <= 0:
        return 0.0
    return math.exp(sum(map(math.log, values)) / len(values))


def ratio(a, b):
    """None where there is nothing to compare with."""
    return a / b if a is not None and b else None


def is_cp_to_all(policy, instances):
    return policy == f"uniform_cp/{instances}"


class Cells:
    """Rows by place (model, instances, workload) and policy, over seeds."""

    def __init__(self, rows):
        self.by_place = defaultdict(lambda: defaultdict(list))
        for row in rows:
            self.by_place[(row["model"], row["instances"], row["workload"])][row["policy"]].append(row)

    def places(self, is_wanted=lambda workload: True):
        def order(place):
            model, instances, workload = place
            base = workload.removesuffix(UNCLIPPED)
            at = WORKLOAD_ORDER.index(base) if base in WORKLOAD_ORDER else len(WORKLOAD_ORDER)
            return (model.startswith("deepseek"), len(model), model, instances, at, workload)
        return sorted((p for p in self.by_place if is_wanted(p[2])), key=order)

    def value(self, place, policy, field="rate_per_s"):
        """Over seeds; None where there is no row."""
        rows = self.by_place[place].get(policy)
        return geometric_mean(r[field] for r in rows) if rows else None

    def best(self, place, is_wanted):
        """(value, policy) of the best among them."""
        found = [(self.value(place, policy), policy) for policy in self.by_place[place] if is_wanted(policy)]
        return max(found, default=(None, ""))


def number(value, digits=2):
    return "" if value is None else f"{value:.{digits}f}"


def rate(value):
    return "" if value is None else "0" if value == 0 else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def table(header, lines):
    text = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    text += ["| " + " | ".join(map(str, line)) + " |" for line in lines]
    return "\n".join(text) + "\n"


def ratios(cells, at_bound, place):
    dcp = cells.value(place, "dcp")
    other, other_name = cells.best(place, lambda p: p not in NOT_OTHERS)
    bound, _ = cells.best(place, lambda p: p.startswith("bound/"))
    return {"least": ratio(dcp, cells.value(place, LEAST)), "other": ratio(dcp, other), "other_name": other_name,
            "bound": ratio(dcp, bound), "oracle": ratio(dcp, cells.value(place, "oracle")),
            "ceiling": ratio(cells.value(place, "oracle"), cells.value(place, LEAST)),
            "waiting": ratio(cells.value(place, WAITING), cells.value(place, "oracle")),
            "p99": ratio(cells.value(place, LEAST, "tpot_p99_ms"), at_bound.value(place, "dcp", "tpot_p99_ms"))}


def place_name(place):
    return f"{place[0]}, {place[1]} instances, {place[2]}"


def extreme(found, name, pick):
    """Of (place, ratios): the value and where it is."""
    known = [(r[name], place) for place, r in found if r[name] is not None]
    if not known:
        return None, ""
    value, place = pick(known)
    return value, place_name(place)


def summary(found):
    long_context = [(p, r) for p, r in found if p[2] in LONG_CONTEXT]
    most, most_at = extreme(long_context, "least", max)
    p99, p99_at = extreme(found, "p99", max)
    other, other_at = extreme(found, "other", min)
    oracle, oracle_at = extreme(found, "oracle", min)
    num_below = sum(1 for _, r in found if r["other"] is not None and r["other"] < 0.98)
    num_known = sum(1 for _, r in found if r["other"] is not None)
    num_far = sum(1 for _, r in found if r["oracle"] is not None and r["oracle"] < 0.93)
    lines = [
        (f"dcp over {LEAST}, the largest", most, 3.3, most_at),
        (f"dcp over {LEAST}, geometric mean over long-context rows", mean_of(long_context, "least"), 2.0,
         ", ".join(LONG_CONTEXT)),
        (f"P99 TPOT of {LEAST} over that of dcp, at the rate that the former just sustains, the largest", p99, 2.2,
         p99_at),
        ("dcp over the best other policy, the smallest", other, 0.98, f"{other_at}; below in {num_below} of {num_known}"),
        ("dcp over the best bound router, 8 instances, geometric mean",
         mean_of([(p, r) for p, r in found if p[1] == 8], "bound"), 1.15, ""),
        ("dcp over the oracle, the smallest", oracle, 0.93, f"{oracle_at}; below in {num_far}"),
        ("dcp over the oracle, geometric mean", mean_of(found, "oracle"), 0.93, ""),
        (f"{WAITING} over the oracle (which does not wait), the smallest", *extreme_and_bar(found, "waiting", 0.93)),
        (f"the oracle over {LEAST}, geometric mean over long-context rows: what no placement passes",
         mean_of(long_context, "ceiling"), None, ""),
        (f"the same for the best workload, {best_ceiling(long_context)[1]}", best_ceiling(long_context)[0], None, ""),
    ]
    return table(("what", "value", "asked for", "met", "where"),
                 [(what, number(value, 3), *against(value, bar), where) for what, value, bar, where in lines])


def against(value, bar):
    """What is asked for, and whether it is met."""
    if bar is None:
        return "", ""
    return f">= {bar}", "" if value is None else "yes" if value >= bar else "no"


def extreme_and_bar(found, name, bar):
    value, place = extreme(found, name, min)
    return value, bar, place


def best_ceiling(long_context):
    """Of the workload that leaves most to win: the oracle over bound/least_requests, and its name."""
    means = [(mean_of([(p, r) for p, r in long_context if p[2] == w], "ceiling"), w) for w in LONG_CONTEXT]
    return max((m for m in means if m[0] is not None), default=(None, ""))


def mean_of(found, name):
    values = [r[name] for _, r in found if r[name] is not None and r[name] > 0]
    return geometric_mean(values) if values else None


def policy_columns(cells, places):
    """Columns, uniform_cp over all instances as one."""
    names = {p for place in places for p in cells.by_place[place]}
    fixed = ["bound/round_robin", LEAST, "bound/least_kv", "bound/power_of_two", "bound/any_instance",
             "uniform_cp/2", "uniform_cp/4", "uniform_cp/8"]
    columns = [p for p in fixed if p in names]
    return columns + ["uniform_cp/N"] + [p for p in ("threshold_cp/2", "threshold_cp/8", *NOT_OTHERS) if p in names]


def cell(cells, place, column, show):
    policy = f"uniform_cp/{place[1]}" if column == "uniform_cp/N" else column
    return show(cells, place, policy)


def policy_table(cells, places, show):
    columns = policy_columns(cells, places)
    return table(("model", "instances", "workload", *(f"`{c}`" for c in columns)),
                 [(*place, *(cell(cells, place, c, show) for c in columns)) for place in places])


def ratio_table(found):
    header = ("model", "instances", "workload", f"over `{LEAST}`", "over best bound", "over best other", "which is",
              "over oracle", "P99 TPOT lower by")
    return table(header, [(*place, number(r["least"]), number(r["bound"]), number(r["other"], 3),
                           f"`{r['other_name']}`", number(r["oracle"], 3), number(r["p99"])) for place, r in found])


def published_table(rows):
    cells = Cells(rows)
    lines = []
    for place in sorted(cells.by_place, key=lambda p: float(p[2].split()[2])):
        line = [place[2].split()[2]]
        for policy in (LEAST, "threshold_cp/8", "dcp"):
            line += [number(cells.value(place, policy, f)) for f in ("tpot_mean_ms", "tpot_p99_ms")]
        mean, p99 = (ratio(cells.value(place, "threshold_cp/8", f), cells.value(place, "dcp", f))
                     for f in ("tpot_mean_ms", "tpot_p99_ms"))
        lines.append((*line, number(mean, 3), number(p99, 3)))
    return table(("req/s", f"`{LEAST}` mean, ms", "P99", "`threshold_cp/8` mean", "P99", "`dcp` mean", "P99",
                  "threshold over dcp, mean", "P99"), lines)


def seed_spread(cells, places):
    """The largest ratio between seeds of a cell."""
    spreads = [max(v) / min(v) for place in places for rows in cells.by_place[place].values()
               if len(v := [r["rate_per_s"] for r in rows]) > 1 and min(v) > 0]
    return (geometric_mean(spreads), max(spreads)) if spreads else (None, None)


def notes(settings, builds):
    """Of the builds that gave rows; they are gone when all rows are of another one."""
    return "".join(f"{text}\n\n" for build, text in settings.get("notes", {}).items() if build in builds)


def make_page(all_rows, settings):
    rows = defaultdict(list)
    for row in all_rows:
        rows[row["mode"]].append(row)
    cells, at_bound = Cells(rows["max"]), Cells(rows["at bound/least_requests"])
    clipped = cells.places(lambda w: not w.endswith(UNCLIPPED))
    unclipped = cells.places(lambda w: w.endswith(UNCLIPPED))
    found = [(place, ratios(cells, at_bound, place)) for place in clipped]
    mean_spread, max_spread = seed_spread(cells, clipped)
    builds = sorted({row["build"] for row in all_rows})
    wall_h = sum(row["wall_s"] for row in all_rows) / 3600
    hardware = ", ".join(f"{m} on {h}" for m, h in settings["hardware"].items())
    parts = [f"""# Sustained request rates in the simulator

Written by `make sim-table` (`bench/simulator/sim_table.py`) from `sim-table.json`, which has a row for each model, number of instances, workload, policy and seed. {len(rows["max"])} searches, {wall_h:.1f} core-hours; build {", ".join(builds)}.

A rate is sustained when P99 of TPOT over all and within each class of prompts, and P99 of the queueing delay, keep `{settings["slo"]}`; refused and unserved requests are misses. A run has {settings["warmup_s"]:g} s of warm-up, and {settings["duration_s"] - settings["warmup_s"]:g} s or {settings["min_requests"]} requests that are measured, whichever is longer: an overload of less than 10 s over that time is not seen. Rates are known to 1.5 %.
Costs are derived from hardware profiles ({hardware}; `profiles/`), not measured on the sizes shown. Figures are geometric means over seeds {", ".join(map(str, settings["seeds"]))}; the largest seed is {number(mean_spread, 3)} times the smallest on average, {number(max_spread, 2)} at most. Prompts are cut to {settings["clip"]:.0%} of one instance's KV memory but where it says unclipped. Traces bring their own arrivals, stretched to the rate.

{notes(settings, builds)}## What was asked for
""", summary(found), CAUSES, "\n## Requests per second\n", policy_table(cells, clipped, lambda c, p, n: rate(c.value(p, n))),
             "\n## dcp against the others\nP99 TPOT: of `bound/least_requests` over that of `dcp`, both at the rate that the former just sustains.\n\n",
             ratio_table(found)]
    refusals = Cells(rows["refusals"])
    if refusals.by_place:
        parts += ["\n## Unclipped prompts\nWhere cutting would change them. Share of requests that can never be served because their KV does not fit, and the rate sustained (0: too many are refused).\n\n",
                  policy_table(refusals, refusals.places(), lambda c, p, n: refused_and_rate(c, cells, p, n))]
    if rows["published profile"]:
        parts += ["\n## The published reference profile\ndeepseek-v3 on 32 instances of `h200-deepseek-v3-published`, Issue 1 %, 600 s, geometric means over seeds.\n\n",
                  published_table(rows["published profile"])]
    return "".join(parts)


def refused_and_rate(refusals, cells, place, policy):
    known = refusals.by_place[place].get(policy)
    if not known:
        return ""
    share = sum(r["refused_share"] for r in known) / len(known)
    found = cells.value(place, policy) if place in cells.by_place else None
    return f"{share:.2%}, {rate(found)}" if found is not None else f"{share:.2%}"
