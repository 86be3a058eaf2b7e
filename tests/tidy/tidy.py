#!/usr/bin/env python3
"""Checks the conventions of CONTRIBUTING.md that a program can check.

Usage: tests/tidy/tidy.py [REPOSITORY]
Prints one line for each violation, `path:line: rule: what to do`, and ends with exit code 1 if
there is one. Every rule is a function of a Tree, listed in RULES; tidy_test.py shows each of them
catching a violation.
"""
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import cpp_scan

# What the files of each folder of src/ may include, besides their own folder.
_HOST = ["base", "plan", "request", "kvcache", "scheduler", "engine", "sim"]
MAY_INCLUDE = {
    **{folder: set(_HOST[:i]) for i, folder in enumerate(_HOST)},
    "tensor": {"base"},
    "ops": {"base", "plan", "tensor"},
    "backend": {"base", "plan", "tensor", "ops"},
    "comm": {"base", "plan", "tensor", "backend"},
    "graph": {"base", "tensor"},
    "model": {"base", "plan", "tensor", "ops", "comm"},
    "chart": {"base"},
    "text": {"base", "plan"},
    "grammar": {"base", "plan", "request", "text"},
    "api": {"base", "plan", "request", "kvcache", "scheduler", "engine", "text", "grammar"},
    "http": {"base"},
    "http_client": {"base"},
    "load": {"base", "sim", "http_client"},
}
MAY_INCLUDE["server"] = (set(_HOST) - {"sim"}) | {"text", "grammar", "api", "http", "chart"}
MAY_INCLUDE["runner"] = (set(_HOST) - {"sim"}) | {"tensor", "ops", "comm", "graph", "model", "backend"}

# Libraries, by the header's first part, and the folders of src/ that may use them.
LIBRARY_USERS = {
    "nlohmann": {"model", "text", "api", "load", "grammar", "server"},
    "CLI": set(),
    "boost": {"http", "http_client"},
    "prometheus": {"server"},
    "cblas.h": {"backend"},
    "utf8proc.h": {"text"},
    "pcre2.h": {"text"},
    "zlib.h": set(),
}
HOST_POLICY = {"plan", "request", "kvcache", "scheduler", "engine", "sim"}
HOST_POLICY_BANNED = re.compile(
    r"thread|stop_token|(?:shared_)?mutex|condition_variable|atomic|future|latch|barrier|"
    r"semaphore|fstream|iostream|filesystem|unistd\.h|fcntl\.h|sys/.*|cuda.*|nccl.*|mpi\.h"
)
VENDOR_MACRO = re.compile(
    r"\b\w*(?:CUDA|NCCL|HIP_|ROCM|SYCL|OPENMPI|_MPI)\w*\b|__(?:AVX|ARM_NEON|SSE)\w*"
)

FUNCTION_LINES_MAX = 60
DEVICE_FUNCTION_LINES_MAX = 200
FILE_LINES_WARN = 400
FILE_LINES_MAX = 600
CONTRACT_LINES_MAX = 150
CONTRACT_FOLDERS = ["src/scheduler", "src/engine", "src/comm"]

# Spelt in parts so that this file does not hold them.
BANNED_WORDS = {"FIX" + "ME": "fix it or file an issue", "X" * 3: "say what is meant"}
BARE_TODO = re.compile(r"\bTO" + r"DO\b(?!\(#\d+\))")
LOCAL_PATH = re.compile(r"(?<![\w./$}{-])/(?:work|root|home|tmp" + r"/build)(?:/|\b)")
VERSIONED_NAME = re.compile(r"(?:^|_)(?:v\d+|new|old|fast|impl\d+|copy|tmp)(?=[_.])")
MODEL_VERSION = re.compile(r"(?:deepseek|kimi|qwen|glm)_?[vk]?\d+")

CODE_SUFFIXES = (".h", ".cc", ".cu", ".cuh")
OWN_TEXT_SUFFIXES = CODE_SUFFIXES + (".py", ".sh", ".cmake", ".txt", ".md", ".yml", ".seeds")
DATA_FOLDERS = ("models/", "configs/", "tests/fixtures/")


@dataclass(frozen=True)
class Violation:
    path: str
    line: int
    text: str

    def __str__(self):
        return f"{self.path}:{self.line}: {self.text}"


@dataclass
class Tree:
    """The files of a repository: path -> text; binary files and data have an empty text."""

    files: dict
    exceptions: dict = field(default_factory=dict)  # length_exceptions.txt: name -> lines

    def code(self, folder=""):
        for path, text in self.files.items():
            if path.startswith(folder) and path.endswith(CODE_SUFFIXES):
                yield path, text

    def own_text(self):
        for path, text in self.files.items():
            named = path.endswith(OWN_TEXT_SUFFIXES) or path in ("Makefile", ".ci/run")
            if named and not path.startswith(DATA_FOLDERS) and path != "LICENSE":
                yield path, text


def source_folder(path):
    """`kvcache` for src/kvcache/x.h, None outside src/."""
    parts = path.split("/")
    return parts[1] if parts[0] == "src" and len(parts) > 2 else None


def matches(text, pattern):
    """(line number, match) of every match of a compiled pattern."""
    for match in pattern.finditer(text):
        yield text.count("\n", 0, match.start()) + 1, match


def is_test(path):
    return path.endswith("_test.cc") or path.startswith("tests/")


_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)


def check_include_arrows(tree):
    for path, text in tree.code("src/"):
        folder = source_folder(path)
        if folder not in MAY_INCLUDE:
            yield Violation(path, 1, f"arrows: folder src/{folder} is unknown; add it to MAY_INCLUDE")
            continue
        for line, match in matches(cpp_scan.without_comments(text), _INCLUDE):
            if match.group(1) is None:
                continue
            target = match.group(1).split("/")[0] if "/" in match.group(1) else None
            if target is None:
                yield Violation(path, line, f'arrows: include "{match.group(1)}" from the src root')
            elif target != folder and target not in MAY_INCLUDE[folder]:
                yield Violation(path, line, f"arrows: {folder} may not include {target}")


def check_library_use(tree):
    for path, text in tree.code("src/"):
        for line, match in matches(cpp_scan.without_comments(text), _INCLUDE):
            name = (match.group(2) or "").split("/")[0]
            if name in LIBRARY_USERS and source_folder(path) not in LIBRARY_USERS[name]:
                yield Violation(path, line, f"libraries: {source_folder(path)} may not use <{name}>")
            if name in ("gtest", "gmock") and not path.endswith("_test.cc"):
                yield Violation(path, line, f"libraries: <{name}> is for *_test.cc only")


def check_host_policy_includes(tree):
    for path, text in tree.code("src/"):
        if source_folder(path) not in HOST_POLICY or is_test(path):
            continue
        for line, match in matches(cpp_scan.without_comments(text), _INCLUDE):
            if match.group(2) and HOST_POLICY_BANNED.fullmatch(match.group(2)):
                yield Violation(
                    path, line, f"host policy: <{match.group(2)}> is a thread, I/O or device header"
                )


_CONDITION = re.compile(r"^[ \t]*#[ \t]*(?:if|ifdef|ifndef|elif)\b(.*)", re.MULTILINE)


def check_vendor_conditions(tree):
    for path, text in tree.code("src/"):
        if re.match(r"src/backend/|src/comm/[^/]+/", path):
            continue
        for line, match in matches(cpp_scan.without_comments(text), _CONDITION):
            if VENDOR_MACRO.search(match.group(1)):
                yield Violation(
                    path, line, "vendor #if: choose the backend by linking (backend/cuda, no_cuda)"
                )


def function_limit(path, function):
    is_cuda = path.endswith((".cu", ".cuh"))
    return DEVICE_FUNCTION_LINES_MAX if is_cuda and function.is_device else FUNCTION_LINES_MAX


def check_lengths(tree):
    """Functions and files; an entry of the exceptions holds the present length and only shrinks."""
    unused = dict(tree.exceptions)
    for path, text in tree.code():
        measured = [(path, 1, text.count("\n"), FILE_LINES_MAX)]
        for function in cpp_scan.functions(text):
            name = f"{path}:{function.name}"
            limit = function_limit(path, function)
            measured.append((name, function.first_line, function.num_lines, limit))
        for name, line, num_lines, limit in measured:
            allowed = tree.exceptions.get(name)
            unused.pop(name, None)
            if num_lines > (allowed or limit):
                yield Violation(path, line, f"length: {name} has {num_lines} lines, at most "
                                f"{allowed or limit}: split it")
            elif allowed and num_lines < allowed:
                new = f"set it to {num_lines}" if num_lines > limit else "remove the entry"
                yield Violation(path, line, f"length: {name} shrank to {num_lines} lines: {new} in "
                                "tests/tidy/length_exceptions.txt")
    for name in unused:
        yield Violation("tests/tidy/length_exceptions.txt", 1, f"length: {name} is gone: remove it")


def check_words(tree):
    for path, text in tree.own_text():
        for word, advice in BANNED_WORDS.items():
            for line, _ in matches(text, re.compile(rf"\b{word}\b")):
                yield Violation(path, line, f"words: {word}: {advice}")
        for line, _ in matches(text, BARE_TODO):
            yield Violation(path, line, "words: a to-do needs its issue: TO" + "DO(#12)")


def check_local_paths(tree):
    for path, text in tree.own_text():
        for line, match in matches(text, LOCAL_PATH):
            yield Violation(path, line, f"paths: {match.group(0)} exists on one machine only")


def check_file_names(tree):
    for path in tree.files:
        if path.startswith(DATA_FOLDERS) or not path.endswith(CODE_SUFFIXES + (".py", ".cmake")):
            continue
        name = path.rsplit("/", 1)[-1]
        if VERSIONED_NAME.search(MODEL_VERSION.sub("model", name)):
            yield Violation(path, 1, "names: replace the old file instead of naming a version")
        if not re.fullmatch(r"[a-z0-9_]+(?:\.[a-z]+)+", name):
            yield Violation(path, 1, "names: files are snake_case")


def check_headers(tree):
    for path, text in tree.code():
        if not path.endswith((".h", ".cuh")):
            continue
        lines = [line for line in cpp_scan.without_comments(text).splitlines() if line.strip()]
        if not lines or lines[0].strip() != "#pragma once":
            yield Violation(path, 1, "headers: #pragma once comes before all other code")
        if not text.startswith("// "):
            yield Violation(path, 1, "headers: open with a comment: what it is, who owns it, threads")


def check_contracts(tree):
    for folder in CONTRACT_FOLDERS:
        path = f"{folder}/CONTRACT.md"
        if path not in tree.files:
            yield Violation(path, 1, "contracts: missing: ownership, invariants, checklist")
        elif tree.files[path].count("\n") >= CONTRACT_LINES_MAX:
            yield Violation(path, 1, f"contracts: keep it under {CONTRACT_LINES_MAX} lines")


def check_decisions(tree):
    pattern = re.compile(r"docs/decisions/(\d{4})-[a-z0-9-]+\.md")
    numbers = []
    for path in sorted(path for path in tree.files if path.startswith("docs/decisions/")):
        match = pattern.fullmatch(path)
        if match is None:
            yield Violation(path, 1, "decisions: name it NNNN-title-in-lower-case.md")
        else:
            numbers.append((int(match.group(1)), path))
    for expected, (number, path) in enumerate(numbers, start=1):
        if number != expected:
            yield Violation(path, 1, f"decisions: number {expected:04d} is next, without gaps")
            return


_LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")


def check_links(tree):
    """Links of our Markdown files lead to files or folders of the repository."""
    folders = {parent.as_posix() for path in tree.files for parent in Path(path).parents}
    for path, text in tree.own_text():
        if not path.endswith(".md"):
            continue
        for line, match in matches(text, _LINK):
            target = match.group(1).split("#")[0]
            if not target or "://" in target or target.startswith("mailto:"):
                continue
            resolved = normalise(Path(path).parent / target)
            if resolved not in tree.files and resolved not in folders:
                yield Violation(path, line, f"links: {target} does not exist")


def normalise(path):
    parts = []
    for part in path.parts:
        if part == ".." and parts:
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


RULES = [
    check_include_arrows,
    check_library_use,
    check_host_policy_includes,
    check_vendor_conditions,
    check_lengths,
    check_words,
    check_local_paths,
    check_file_names,
    check_headers,
    check_contracts,
    check_decisions,
    check_links,
]


def list_files(root):
    """Tracked and new files; all files where git does not know the folder (a source archive)."""
    try:
        command = ["git", "-c", f"safe.directory={root}", "ls-files", "-z", "--cached", "--others",
                   "--exclude-standard"]
        output = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout
        names = output.decode().split("\0")
    except (OSError, subprocess.CalledProcessError):
        names = [p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()]
        names = [name for name in names if not name.startswith(("build/", ".git/"))]
    return sorted({name for name in names if name and (root / name).is_file()})


def read_exceptions(text):
    entries = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            name, lines = line.rsplit(None, 1)
            entries[name] = int(lines)
    return entries


def read_tree(root):
    files = {}
    for name in list_files(root):
        own = name.endswith(OWN_TEXT_SUFFIXES) or name in ("Makefile", ".ci/run")
        files[name] = (root / name).read_text() if own else ""
    return Tree(files, read_exceptions(files.get("tests/tidy/length_exceptions.txt", "")))


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2]).resolve()
    tree = read_tree(root)
    for path, text in tree.code():
        if text.count("\n") > FILE_LINES_WARN:
            print(f"{path}: note: {text.count(chr(10))} lines; most files stay below "
                  f"{FILE_LINES_WARN}")
    violations = [violation for rule in RULES for violation in rule(tree)]
    for violation in violations:
        print(violation)
    print(f"tidy: {len(tree.files)} files, {len(RULES)} rules, {len(violations)} violations")
    sys.exit(1 if violations else 0)


if __name__ == "__main__":
    main()
