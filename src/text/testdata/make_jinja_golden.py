"""Writes jinja_golden.jsonl: what Jinja2, set up as in the transformers library, makes of small templates.

What is known to differ is left out: tuples print as lists, % does not format strings, keys of dicts are strings.

Run from the repository root with `pip install jinja2`. Each line has the template and either what it prints or
`error`, true where Jinja2 raises.
"""
import json
import datetime

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

OUT = "src/text/testdata/jinja_golden.jsonl"

VARIABLES = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Grüße, <b>\"you\"</b> & 'me' 😀\n\tend "},
        {"role": "assistant", "content": None, "tool_calls": [
            {"type": "function", "id": "c1", "function": {"name": "f", "arguments": {"x": 1, "y": [1.5, True, None], "z": {}}}}]},
        {"role": "tool", "content": "42", "items": "own key"},
    ],
    "empty": "", "zero": 0, "one": 1, "pi": 3.14159, "big": 1e16, "tiny": 1e-5, "whole": 2.0, "neg": -7,
    "yes": True, "no": False, "nothing": None,
    "words": ["b", "A", "c", "a"], "numbers": [3, 1, 2], "nested": [[1, 2], [3, 4]], "d": {"b": 1, "a": {"k": "v"}, "c": [1]},
    "text": "  The quick brown fox \n jumps  ", "uni": "äöü😀z", "lines": "a\nb\r\nc\n\nd",
    "people": [{"name": "Ann", "age": 30}, {"name": "bob", "age": 4}, {"name": "Cid", "age": 30, "x": {"y": 1}}],
}

TEMPLATES = [
    # white space
    "a\n{% if yes %}\nb\n{% endif %}\nc\n", "a\n  {% if yes %}  \n  b\n  {% endif %}  \nc\n\n", "a {%- if yes -%} b {%- endif -%} c",
    "x\n   {{ one }}\n   y", "x\n   {{- one -}}\n   y", "  {%+ if yes %}a{% endif +%}\n b", "{# c #}\nx", "a {#- c -#} b", "  {# c #}\n  x\n  {#- d #}\n y",
    "{% for i in numbers %}\n  {{ i }}\n{% endfor %}\nend", "{%- for i in numbers -%}\n  {{ i }}\n{%- endfor -%}\nend", "\n\nx\n\n", "a\r\nb\rc\n",
    "{% raw %}{{ not }} {% if %}{% endraw %}|", "a\n  {%- raw -%}  {{ x }}  {%- endraw -%}\n b", "{{ '{{' }} {{ '%}' }} {{ \"}}\" }}", "{ { } } {x} %} }}",
    "a{% set x = 1 %}\n\nb", "{% if yes %}{% if no %}{% else %}\nq{% endif %}{% endif %}\n", "\t{% if yes %}\t\n\tz\t{% endif %}",
    # output of values
    "{{ nothing }}|{{ yes }}|{{ pi }}|{{ big }}|{{ tiny }}|{{ whole }}|{{ neg }}|{{ missing }}|", "{{ words }} {{ d }} {{ nested }}", "{{ messages[2] }}",
    "{{ [1, 'a', \"it's\", 'say \"x\"', none, true, 1.0] }}", "{{ {'a': 1, 'b': [2]} }}", "{{ ('a', 1)[0] }}", "{{ 'a\\n\\t\\\\\\'\\x41\\u00e9\\U0001F600\\101\\q' }}",
    "{{ ['\\n\\x01\\\\'] }}", "{{ 'a' 'b' }}", "{{ 1_000 + 2 }}", "{{ 1e3 }} {{ 1.5e-3 }} {{ 12345678901234567.0 }}", "{{ 0.1 + 0.2 }} {{ 1e22 }} {{ 123456.789 }} {{ 1e15 }}",
    # expressions
    "{{ 1 + 2 * 3 - 4 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 2 ** 10 }} {{ 2 ** -1 }}", "{{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 1 / 3 }}",
    "{{ 'a' ~ 1 ~ none ~ 2.5 }}", "{{ 'ab' * 3 }} {{ 2 * 'x' }} {{ [1] * 2 }} {{ [1] + [2, 3] }}", "{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }}",
    "{{ 1 == 1.0 }} {{ true == 1 }} {{ 'a' == 'a' }} {{ [1] == [1.0] }} {{ {'a': 1} == {'a': 1} }} {{ none == false }} {{ missing == none }}",
    "{{ 1 in numbers }} {{ 9 not in numbers }} {{ 'qu' in text }} {{ 'b' in d }} {{ 'x' in missing }}", "{{ not yes }} {{ not missing }} {{ yes and zero }} {{ no or 'x' }} {{ empty or nothing }}",
    "{{ 'a' if yes else 'b' }} {{ 'a' if no }} {{ 'a' if no else 'b' if no else 'c' }}", "{{ (1, 2, 3) | length }} {{ () | length }} {{ [] | length }}", "{{ -pi | abs }} {{ -one | string }} {{ +one }} {{ -(1 + 2) }}",
    "{{ one + 'a' }}", "{{ 'a' + one }}", "{{ 'a' + missing }}", "{{ missing + 'a' }}", "{{ nothing + 1 }}", "{{ 1 / 0 }}", "{{ missing.x }}", "{{ nothing.x }}|{{ nothing.x is defined }}", "{{ missing.x.y }}",
    "{{ d.zz.y }}", "{{ d.zz is defined }} {{ d.a.k }} {{ d['a']['k'] }} {{ d['zz'] }}|", "{{ missing() }}", "{{ one() }}", "{{ numbers[0] }} {{ numbers[-1] }} {{ numbers[5] }}|{{ uni[3] }} {{ uni[-1] }} {{ uni[9] }}|",
    "{{ numbers[1:] }} {{ numbers[:-1] }} {{ numbers[::-1] }} {{ numbers[::2] }} {{ numbers[5:] }} {{ numbers[-2:] }}", "{{ uni[1:3] }} {{ uni[::-1] }} {{ uni[:2] }} {{ uni[3:] }} {{ uni[2:1] }} {{ uni[-3:-1] }} {{ uni[::2] }}",
    "{{ numbers['a'] }}|", "{{ text.nope }}|", "{{ messages[3].items is string }} {{ messages[3]['items'] }} {{ d['items'] is defined }} {{ d.items is callable }}", "{{ d['items']['type'] == 'x' }}", "{{ 1 > 'a' }}", "{{ 1 if 2 else }}",
    # strings
    "{{ text.strip() }}|{{ text.lstrip() }}|{{ text.rstrip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'abcba'.lstrip('ab') }}|{{ '\\u3000a\\u00a0'.strip() }}|{{ 'äaä'.strip('ä') }}",
    "{{ text.split() }} {{ 'a,b,,c'.split(',') }} {{ 'a,b,c'.split(',', 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ ''.split(',') }} {{ ''.split() }} {{ ' a  b '.split(none, 1) }} {{ 'a--b--c'.split('--')[-1] }}",
    "{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'c')) }} {{ 'abc'.startswith('') }}", "{{ 'aXbX'.replace('X', 'yy') }} {{ 'aaa'.replace('a', 'b', 2) }} {{ 'ab'.replace('', '-') }} {{ 'ab'.replace('', '-', 2) }}",
    "{{ 'ÄbC'.lower() }} {{ 'äbC'.upper() }} {{ 'hello wORLD'.title() }} {{ 'hELLO'.capitalize() }}", "{{ ', '.join(words) }} {{ ''.join(['a']) }}", "{{ ', '.join(numbers) }}",
    "{{ 'abcabc'.find('c') }} {{ 'abcabc'.rfind('c') }} {{ 'abc'.find('x') }} {{ 'äbc'.find('c') }} {{ 'aaa'.count('a') }} {{ 'aaa'.count('aa') }} {{ 'abc'.count('') }}", "{{ lines.splitlines() }} {{ lines.splitlines(true) }}",
    "{{ '12'.isdigit() }} {{ 'a1'.isalnum() }} {{ 'ab'.isalpha() }} {{ ' \\n'.isspace() }} {{ ''.isdigit() }} {{ 'AB'.isupper() }} {{ 'ab1'.islower() }} {{ '1'.isupper() }}", "{{ 'abc'.removeprefix('a') }} {{ 'abc'.removesuffix('c') }} {{ '-5'.zfill(4) }}",
    "{{ 'a'.split('') }}", "{{ 'abc'.index('x') }}",
    # dicts
    "{{ d.keys() | list }} {{ d.values() | list }} {{ d.get('b') }} {{ d.get('q') }} {{ d.get('q', 5) }}", "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k in d %}{{ k }};{% endfor %}", "{{ d | length }} {{ d | list }}",
    "{{ d.update({'x': 1}) }}", "{{ numbers.append(4) }}", "{{ dict(a=1, b='x') }} {{ dict() }}",
    # filters
    "{{ d | tojson }} {{ messages | tojson }}", "{{ d | tojson(indent=2) }}", "{{ [] | tojson }} {{ {} | tojson(indent=4) }} {{ 'é\\u2028\\x7f\\x1f\"\\\\/' | tojson }} {{ 1.0 | tojson }} {{ big | tojson }} {{ none | tojson }} {{ true | tojson }}",
    "{{ d | tojson(separators=(',', ':')) }} {{ uni | tojson(ensure_ascii=true) }} {{ d | tojson(sort_keys=true) }}", "{{ missing | tojson }}", "{{ uni | tojson(true) }} {{ d | tojson(false, 1) }} {{ d | tojson(indent=0) }}", "{{ words | join }} {{ words | join('-') }} {{ numbers | join(', ') }} {{ people | join('/', attribute='name') }}",
    "{{ missing | default('x') }} {{ empty | default('x') }} {{ empty | default('x', true) }} {{ nothing | d('x') }} {{ nothing | d('x', true) }} {{ missing | default }}|", "{{ text | trim }}|{{ 'xax' | trim('x') }}", "{{ 'a' | upper }} {{ 'B' | lower }} {{ 'abc def' | title }} {{ 'aBC' | capitalize }} {{ 'aab' | replace('a', 'x', 1) }}",
    "{{ words | first }} {{ words | last }} {{ [] | first }}| {{ uni | first }} {{ uni | last }} {{ uni | length }} {{ uni | list }} {{ uni | reverse }} {{ numbers | reverse | list }}",
    "{{ '3' | int }} {{ '3.7' | int }} {{ 'x' | int }} {{ 'x' | int(5) }} {{ 3.9 | int }} {{ '2.5' | float }} {{ 'x' | float }} {{ 3 | float }} {{ -3 | abs }} {{ 2.5 | round }} {{ 2.567 | round(2) }} {{ 2.1 | round(0, 'ceil') }} {{ 2.9 | round(method='floor') }}",
    "{{ words | sort }} {{ words | sort(reverse=true) }} {{ words | sort(case_sensitive=true) }} {{ numbers | sort }} {{ people | sort(attribute='age') | map(attribute='name') | list }} {% for k, v in d | dictsort %}{{ k }}{{ v }}{% endfor %}",
    "{{ words | unique | list }} {{ [1, 2, 1] | unique | list }} {{ numbers | max }} {{ numbers | min }} {{ numbers | sum }} {{ people | sum(attribute='age') }} {{ [] | max }}|",
    "{{ people | map(attribute='name') | list }} {{ words | map('upper') | list }} {{ people | map(attribute='x.y', default=0) | list }} {{ words | map('replace', 'a', 'z') | join(',') }}",
    "{{ people | selectattr('age', 'equalto', 30) | map(attribute='name') | list }} {{ people | rejectattr('x') | map(attribute='name') | list }} {{ numbers | select('odd') | list }} {{ numbers | reject('gt', 1) | list }} {{ [0, 1] | select | list }}",
    "{{ 'a\\nb\\n\\nc' | indent }}|{{ 'a\\nb' | indent(2, true) }}|{{ 'a\\n\\nb' | indent(2, blank=true) }}|{{ 'a\\nb' | indent('> ') }}", "{{ '<a href=\"x\">&\\'' | escape }} {{ '<' | e }} {{ 'x' | safe }} {{ 5 | string + 'a' }} {{ 'a' | string }}", "{% for k, v in d | items %}{{ k }}{{ v }}{% endfor %} {{ missing | items | list }}",
    "{{ 1 | nofilter }}", "{{ 1 is notest }}", "{{ one | length }}", "{{ people | map(attribute='zz') | list | length }}",
    # tests
    "{{ one is defined }} {{ missing is undefined }} {{ nothing is none }} {{ empty is string }} {{ one is number }} {{ yes is number }} {{ yes is integer }} {{ one is integer }} {{ pi is float }} {{ yes is boolean }} {{ d is mapping }} {{ words is sequence }} {{ d is sequence }} {{ words is iterable }} {{ one is iterable }} {{ 'x' is iterable }}",
    "{{ yes is true }} {{ one is true }} {{ no is false }} {{ 3 is odd }} {{ 4 is even }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(2) }} {{ 'a' is in words }} {{ 'a' is eq 'a' }} {{ 1 is ne 2 }} {{ 2 is gt 1 }} {{ 'abc' is lower }} {{ 'ABC' is upper }} {{ range is callable }} {{ nothing is sameas none }}",
    "{{ one is not defined }} {{ not missing is defined }} {{ one is defined and missing is not defined }} {{ 'x' if one is defined else 'y' }} {{ one is number is string }}", "{{ missing.foo is defined }}",
    # statements
    "{% if no %}a{% elif zero %}b{% elif one %}c{% else %}d{% endif %}", "{% for x in words %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ x }} {% endfor %}",
    "{% for x in words %}{{ loop.previtem }}-{{ loop.nextitem }};{% endfor %}", "{% for x in words %}{{ loop.cycle('o', 'e') }}{% endfor %}", "{% for x in [] %}a{% else %}none{% endfor %}", "{% for x in missing %}a{% else %}none{% endfor %}", "{% for x in nothing %}a{% endfor %}", "{% for c in 'äb' %}[{{ c }}]{% endfor %}",
    "{% for x in numbers if x > 1 %}{{ loop.index }}:{{ x }}/{{ loop.length }} {% endfor %}", "{% for a, b in nested %}{{ a }}+{{ b }} {% endfor %}", "{% for a, b in numbers %}{{ a }}{% endfor %}", "{% for x in numbers %}{% for y in words %}{{ loop.depth }}{{ x }}{{ y }}{% endfor %}{{ loop.depth }}{% endfor %}",
    "{% for x in numbers %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}", "{% for x in numbers %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% else %}e{% endfor %}|", "{% set x = 1 %}{% for i in numbers %}{% set x = i %}{{ x }}{% endfor %}{{ x }}", "{% for i in numbers %}{{ x is defined }}{% set x = i %}{% endfor %}",
    "{% set ns = namespace(a=1) %}{% for i in numbers %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }} {{ ns.zz }}|", "{% set ns = namespace({'a': 2}, b=3) %}{{ ns.a }}{{ ns.b }}", "{% set d.x = 1 %}", "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set a = 1, 2 %}{{ a | length }}", "{% set x %}  body {{ one }} {% endset %}[{{ x }}]", "{% set x | upper | trim %} abc {% endset %}[{{ x }}]",
    "{% filter upper %}abc {{ uni }}{% endfilter %}", "{% if yes %}{% set q = 5 %}{% endif %}{{ q }}", "{% set loop = 5 %}{{ loop }}",
    "{% macro m(a, b=2, c='x') %}{{ a }}-{{ b }}-{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, c='y') }} {{ m(1, 3, 4) }} {{ m() }} {{ m(b=5, a=6) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(z=1) }}",
    "{% macro f(n) %}{{ n }}{% if n > 0 %},{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(4) }}", "{% macro m() %}{{ late }}{% endmacro %}{% set late = 'seen' %}{{ m() }}", "{% macro m() %}{% set one = 9 %}{{ one }}{% endmacro %}{{ m() }}{{ one }}", "{% macro a() %} x {% endmacro %}{{ a() | trim }}{{ a().strip() ~ '!' }}", "{% for i in numbers %}{% macro m() %}{{ pi }}{% endmacro %}{{ m() }}{% endfor %}",
    "{{ range(5) | list }} {{ range(2, 5) | list }} {{ range(5, 0, -2) | list }} {% for i in range(3) %}{{ i }}{% endfor %} {{ range(0) | list }}", "{{ strftime_now('%Y-%m-%d %H:%M %A %B %d %j') }}", "{{ raise_exception('bad ' ~ one) }}", "{{ bos_token }}|{{ messages | length }}",
    "{% include 'x' %}", "{% import 'x' as y %}", "{% extends 'x' %}", "{% if %}", "{% if yes %}", "{{ 1 + }}", "{% endfor %}", "{{ (1 }}", "{{ 'a }}", "{% for in x %}{% endfor %}", "{{ a b }}", "{# open", "{% unknown %}", "{{ [1, 2 }}",
    "{{ ''.__class__ }}|", "{{ ''.__class__.__mro__ }}", "{{ messages.__init__ }}|", "{{ range.__globals__ }}|", "{{ (messages | attr('__class__')) }}|",
    "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}", "{% for m in messages %}{{ m['role'] | upper }}{{ '' if loop.last else ', ' }}{% endfor %}", "{{ messages[-1].content }} {{ (messages | last).role }} {{ messages[1:] | length }} {{ messages[2].tool_calls[0].function.arguments | tojson }}",
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}{{ system_message }}",
]


def environment():
    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = datetime.datetime(2025, 8, 15, 12, 0).strftime
    return env


def main():
    env = environment()
    num_errors = 0
    with open(OUT, "w", encoding="utf-8") as out:
        out.write(json.dumps({"variables": VARIABLES}) + "\n")
        for source in TEMPLATES:
            try:
                result = {"printed": env.from_string(source).render(**VARIABLES, bos_token="<s>")}
            except Exception as error:  # whatever Jinja or Python raises
                result = {"error": str(error)}
                num_errors += 1
            out.write(json.dumps({"template": source, **result}) + "\n")
    print(len(TEMPLATES), "templates,", num_errors, "errors")


main()
