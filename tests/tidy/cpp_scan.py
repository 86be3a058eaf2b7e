"""A small reader of C++ text for the tidy rules: blanks comments and literals, finds functions.

It follows braces, not the grammar: good enough for code in this repository's style.
"""
import re
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""//[^\n]*                                            # line comment
      | /\*.*?\*/                                           # block comment
      | R"(?P<delimiter>[^()\\\s]{0,16})\(.*?\)(?P=delimiter)"  # raw string
      | "(?:\\.|[^"\\\n])*"                                 # string
      | (?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'                 # character, not a digit separator
    """,
    re.VERBOSE | re.DOTALL,
)
_DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", re.MULTILINE)
_SCOPE = re.compile(r"^(?:template\s*<.*>\s*)?(?:inline\s+)?(?:typedef\s+)?"
                    r"(?:namespace|class|struct|union|enum|extern)\b", re.DOTALL)
_ANNOTATION = re.compile(r"alignas\s*\([^()]*\)|__\w+__\s*\([^()]*\)|\[\[.*?\]\]", re.DOTALL)
_NAME = re.compile(r"([A-Za-z_~][\w:~]*|operator\s*[^\s\w(]+|operator\s*\(\s*\))\s*\(")


@dataclass(frozen=True)
class Function:
    name: str
    first_line: int
    num_lines: int
    is_device: bool


def _blank(match):
    return re.sub(r"[^\n]", " ", match.group(0))


def without_comments(text):
    """The text with comments blanked and everything else, lines included, where it was."""
    return _TOKEN.sub(lambda m: _blank(m) if m.group(0).startswith("/") else m.group(0), text)


def code_only(text):
    """The text with comments, literals and preprocessor lines blanked."""
    return _DIRECTIVE.sub(_blank, _TOKEN.sub(_blank, text))


def _is_function_head(head):
    head = _ANNOTATION.sub(" ", head).strip()
    if "(" not in head or re.search(r"=\s*$", head):
        return False
    return not (_SCOPE.match(head) and not head.rstrip().endswith(")"))


def _function_name(head):
    test = re.search(r"TEST(?:_[FP])?\s*\(([^)]*)\)", head)
    if test:
        return "TEST(" + re.sub(r"\s+", "", test.group(1)) + ")"
    names = _NAME.findall(_ANNOTATION.sub(" ", head))
    names = [name for name in names if name not in ("decltype", "noexcept", "requires")]
    return re.sub(r"\s+", "", names[0]) if names else "?"


def _body_end(code, open_brace):
    """The index after the brace that closes the one at `open_brace`."""
    depth = 0
    for match in re.compile(r"[{}]").finditer(code, open_brace):
        depth += 1 if match.group(0) == "{" else -1
        if depth == 0:
            return match.end()
    return len(code)


def _make_function(code, head_start, end):
    head_start += len(code[head_start:end]) - len(code[head_start:end].lstrip())
    head = code[head_start : code.index("{", head_start)]
    return Function(
        name=_function_name(head),
        first_line=code.count("\n", 0, head_start) + 1,
        num_lines=code.count("\n", head_start, end) + 1,
        is_device=bool(re.search(r"__(?:global|device)__", head)),
    )


def functions(text):
    """Functions at namespace or class level, from the first line of the head to the brace."""
    code = code_only(text)
    found = []
    head_start = position = 0
    while True:
        match = re.compile(r"[{};]|\b(?:public|private|protected)\s*:").search(code, position)
        if match is None:
            return found
        position = match.end()
        if match.group(0) != "{":
            head_start = position
            continue
        if not _is_function_head(code[head_start : match.start()]):
            # A scope is walked into; anything else (an initialiser) is skipped as a whole.
            head = _ANNOTATION.sub(" ", code[head_start : match.start()]).strip()
            if head and not _SCOPE.match(head):
                position = _body_end(code, match.start())
            head_start = position
            continue
        position = _body_end(code, match.start())
        rest = code[position:].lstrip()
        if rest.startswith((",", "{")):  # that was a member's brace initialiser: go on
            continue
        found.append(_make_function(code, head_start, position))
        head_start = position
