#!/usr/bin/env python3
"""Runs clang-tidy over src/ and apps/ (tests left out), several files at a time.

Most of its time goes into the headers that files share, so files with the same flags are checked
as one: a source that includes a few of them. Where they do not compile together, as names clash
that are private to each, the batch is cut in two.

Usage: tools/clang_tidy.py BUILD_FOLDER [--jobs N] [FILE ...]
The build folder must hold a compile_commands.json. Ends with exit code 1 if there is a finding.
"""
import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import source_batches

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


def flags(command):
    """The compile command without the names of source and object."""
    words = shlex.split(command["command"])
    own = {command["file"], words[words.index("-o") + 1] if "-o" in words else None}
    return [word for word in words if word not in own and word not in ("-o", "-c")]


def batches(commands):
    """Lists of files that have the same flags and can be one source."""
    alike = {}
    for name in commands:
        alike.setdefault(tuple(flags(commands[name])), []).append(str(ROOT / name))
    for paths in alike.values():
        for batch in source_batches.batches(paths):
            yield [Path(path).relative_to(ROOT).as_posix() for path in batch]


def run_clang_tidy(commands, names, folder):
    """Whether the files, as one source, have no finding, and what clang-tidy printed."""
    source = ROOT / names[0]
    if len(names) > 1:
        source = folder / (names[0].replace("/", "_") + f"_{len(names)}.cc")
        source.write_text("".join(f'#include "{ROOT / name}"  // NOLINT\n' for name in names))
    words = [word for word in flags(commands[names[0]])[1:] if not word.startswith("-Werror")]
    # The compile commands are gcc's and may turn off warnings that clang does not know.
    words += ["-Wno-unknown-warning-option"]
    config = f"--config-file={ROOT / '.clang-tidy'}"
    result = subprocess.run(
        ["clang-tidy", "--quiet", config, str(source), "--", *words],
        cwd=commands[names[0]]["directory"], capture_output=True, text=True,
        timeout=FILE_LIMIT_S * len(names), check=False,
    )
    # Every file suppresses warnings of system headers and says so; only findings are of use.
    noise = ("warnings generated.", "warning generated.", "Suppressed ", "Use -header-filter")
    text = "\n".join(
        line
        for line in (result.stdout + result.stderr).splitlines()
        if not line.startswith(noise) and not line.endswith(noise)
    )
    return result.returncode == 0, text.strip()


def check(commands, names, folder):
    """(names, passed, text, seconds) of the files, together or, if need be, in parts."""
    start = time.monotonic()
    try:
        passed, text = run_clang_tidy(commands, names, folder)
    except subprocess.TimeoutExpired:
        passed, text = False, f"{names}: clang-tidy took longer than {FILE_LIMIT_S} s a file"
    results = [(names, passed, text, time.monotonic() - start)]
    if passed or len(names) == 1:
        return results
    half = len(names) // 2
    return check(commands, names[:half], folder) + check(commands, names[half:], folder)


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
    folder = build / "clang_tidy"
    folder.mkdir(exist_ok=True)
    failed = []
    with ThreadPoolExecutor(max_workers=arguments.jobs) as pool:
        for results in pool.map(lambda names: check(commands, names, folder), batches(commands)):
            for names, passed, text, seconds in results:
                print(f"{'ok' if passed else 'FAILED'} {' '.join(names)} ({seconds:.1f} s)", flush=True)
                if not passed:
                    failed += names
                    print(text, flush=True)
    print(f"clang-tidy: {len(commands)} files, {len(failed)} with findings")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
