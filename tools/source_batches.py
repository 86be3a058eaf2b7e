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
_TYPE = re.compile(r"^(?:struct|class|enum class|enum) (\w+)", re.MULTILINE)
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


class Batch:
    def __init__(self):
        self.files, self.names, self.types, self.words = [], set(), set(), set()

    def add_if_it_fits(self, path):
        text = Path(path).read_text()
        names, types, words = own_names(path), set(_TYPE.findall(text)), set(re.findall(r"\w+", text))
        # A type of one file also hides a header's type of that name from the others.
        clash = self.names & names or self.types & words or self.words & types
        if clash or len(self.files) == BATCH_FILES:
            return False
        self.files.append(path)
        self.names |= names
        self.types |= types
        self.words |= words
        return True


def batches(paths):
    """Lists of files that compile together, neighbours together."""
    found = []
    for path in sorted(paths):
        if not any(batch.add_if_it_fits(path) for batch in found):
            found.append(Batch())
            found[-1].add_if_it_fits(path)
    return [batch.files for batch in found]


if __name__ == "__main__":
    print("\n".join(" ".join(batch) for batch in batches(sys.argv[1:])))
