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
    """Compile commands by file name, one for each file however often it is compiled."""
    commands = {}
    for command in json.loads((build / "compile_commands.json").read_text()):
        path = Path(command["directory"], command["file"]).resolve()
        if not path.is_relative_to(ROOT) or path.is_relative_to(build):
            continue
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith(("src/", "apps/")) or name.endswith(("_test.cc", ".cu")):
            continue
        if not only or name in only:
            commands[name] = command
    return commands


def check(database, name):
    start = time.monotonic()
    # The compile commands are gcc's and may turn off warnings that clang does not know.
    extra = "--extra-arg=-Wno-unknown-warning-option"
    command = ["clang-tidy", "-p", str(database), "--quiet", extra, str(ROOT / name)]
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
    commands = sources(build, set(arguments.files))
    if not commands:
        sys.exit(f"no sources of src/ or apps/ in {build}/compile_commands.json")
    database = build / "clang_tidy"
    database.mkdir(exist_ok=True)
    (database / "compile_commands.json").write_text(json.dumps(list(commands.values())))
    # Large files first, so that no long one is left for the end.
    names = sorted(commands, key=lambda name: -(ROOT / name).stat().st_size)
    failed = []
    with ThreadPoolExecutor(max_workers=arguments.jobs) as pool:
        for name, passed, text, seconds in pool.map(lambda name: check(database, name), names):
            print(f"{'ok' if passed else 'FAILED'} {name} ({seconds:.1f} s)", flush=True)
            if not passed:
                failed.append(name)
                print(text, flush=True)
    print(f"clang-tidy: {len(names)} files, {len(failed)} with findings")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
