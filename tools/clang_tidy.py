#!/usr/bin/env python3
"""Runs clang-tidy over src/ and apps/ (tests left out), several files at a time.

Usage: tools/clang_tidy.py BUILD_FOLDER [--jobs N] [FILE ...]
The build folder must hold a compile_commands.json. Ends with exit code 1 if there is a finding.
"""
import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE_LIMIT_S = 300


def sources(build, only):
    """One entry per source file, whatever number of times it is compiled."""
    commands = json.loads((build / "compile_commands.json").read_text())
    found = set()
    for command in commands:
        path = Path(command["directory"], command["file"]).resolve()
        if not path.is_relative_to(ROOT) or path.is_relative_to(build):
            continue
        relative = path.relative_to(ROOT).as_posix()
        if not relative.startswith(("src/", "apps/")) or relative.endswith("_test.cc"):
            continue
        if relative.endswith(".cu"):
            continue
        if not only or relative in only:
            found.add(relative)
    # Large files first, so that no long one is left for the end.
    return sorted(found, key=lambda name: -(ROOT / name).stat().st_size)


def check(build, name):
    start = time.monotonic()
    command = ["clang-tidy", "-p", str(build), "--quiet", str(ROOT / name)]
    try:
        result = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=FILE_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return name, False, f"{name}: clang-tidy took longer than {FILE_LIMIT_S} s", FILE_LIMIT_S
    # Every file suppresses warnings of system headers and says so; only findings are of use.
    noise = ("warnings generated.", "warning generated.", "Suppressed ", "Use -header-filter")
    text = "\n".join(
        line
        for line in (result.stdout + result.stderr).splitlines()
        if not line.startswith(noise) and not line.endswith(noise)
    )
    return name, result.returncode == 0, text.strip(), time.monotonic() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=Path)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("files", nargs="*", help="relative to the repository root")
    arguments = parser.parse_args()
    build = arguments.build.resolve()
    names = sources(build, set(arguments.files))
    if not names:
        sys.exit(f"no sources of src/ or apps/ in {build}/compile_commands.json")
    failed = []
    with ThreadPoolExecutor(max_workers=arguments.jobs) as pool:
        for name, passed, text, seconds in pool.map(lambda name: check(build, name), names):
            print(f"{'ok' if passed else 'FAILED'} {name} ({seconds:.1f} s)", flush=True)
            if not passed:
                failed.append(name)
                print(text, flush=True)
    print(f"clang-tidy: {len(names)} files, {len(failed)} with findings")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
