#!/usr/bin/env python3
"""Which sources can be compiled as one: those that define no name twice. Most of the time of a compiler, and of
clang-tidy, goes into the headers that sources share.

Usage: tools/source_batches.py FILE ...
Prints the batches, one a line, files separated by blanks.
"""
import re
import sys
from pathlib import Path

BATCH_FILES = 8

_NAME = re.compile(r"(?<![:\w])(?!(?:const|noexcept|if|for|return)\b)([A-Za-z]\w*)(?= ?(?:[({=;\[]|:(?!:)))")
_CASE = re.compile(r"(?:TEST(?:_P|_F)?|INSTANTIATE_TEST_SUITE_P)\(")


def own_names(path):
    """Roughly the names that a source defines: two that share one do not compile together."""
    names = set()
    for line in Path(path).read_text().splitlines():
        if _CASE.match(line):
            names.add(line)
        elif line.lstrip().startswith("using ") and "=" in line:  # a local one would hide the other
            names.update(_NAME.findall(line)[:1])
        elif line[:1].isalpha() and not line.startswith("namespace"):
            names.update(_NAME.findall(line)[:1])
    return names


def batches(paths):
    """Lists of files without a name in common, neighbours together."""
    found = []
    for path in sorted(paths):
        own = own_names(path)
        fitting = (batch for batch in found if not batch[1] & own and len(batch[0]) < BATCH_FILES)
        files, taken = next(fitting, (None, None))
        if files is None:
            found.append(([path], own))
        else:
            files.append(path)
            taken |= own
    return [files for files, _ in found]


if __name__ == "__main__":
    print("\n".join(" ".join(batch) for batch in batches(sys.argv[1:])))
