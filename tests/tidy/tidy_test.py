#!/usr/bin/env python3
"""Shows that each tidy rule catches its violation and passes its clean counterpart."""
import unittest

import cpp_scan
import tidy

HEADER = "// Says what it is.\n#pragma once\n"


def found(rule, files, exceptions=None):
    return [str(violation) for violation in rule(tidy.Tree(files, exceptions or {}))]


def long_function(num_lines, head="int answer() {"):
    return head + "\n" + "  work();\n" * (num_lines - 2) + "}\n"


class RuleTest(unittest.TestCase):
    def assert_caught(self, rule, files, text, exceptions=None):
        violations = found(rule, files, exceptions)
        self.assertEqual(len(violations), 1, violations)
        self.assertIn(text, violations[0])

    def assert_clean(self, rule, files, exceptions=None):
        self.assertEqual(found(rule, files, exceptions), [])

    def test_every_rule_is_covered(self):
        covered = {name for name in dir(self) if name.startswith("test_check_")}
        for rule in tidy.RULES:
            self.assertTrue(
                any(name.startswith(f"test_{rule.__name__}") for name in covered), rule.__name__
            )

    def test_check_include_arrows(self):
        rule = tidy.check_include_arrows
        self.assert_caught(
            rule, {"src/kvcache/x.h": '#include "scheduler/y.h"\n'}, "kvcache may not include scheduler"
        )
        self.assert_caught(
            rule, {"src/model/x.cc": '\n#include "engine/y.h"\n'}, "src/model/x.cc:2: arrows: model"
        )
        self.assert_caught(rule, {"src/engine/x.cc": '#include "tensor/y.h"\n'}, "may not include")
        self.assert_caught(rule, {"src/oddity/x.cc": ""}, "src/oddity is unknown")
        self.assert_caught(rule, {"src/base/x.cc": '#include "x.h"\n'}, "from the src root")
        self.assert_clean(
            rule,
            {
                "src/scheduler/policies/x.cc": '#include "scheduler/a.h"\n#include "kvcache/b.h"\n',
                "src/runner/x.cc": '#include "engine/a.h"\n#include "model/b.h"\n',
                "src/base/y.cc": '// #include "engine/a.h"\n',
                "apps/x.cc": '#include "runner/a.h"\n',
            },
        )

    def test_check_library_use(self):
        rule = tidy.check_library_use
        self.assert_caught(rule, {"src/ops/x.cc": "#include <nlohmann/json.hpp>\n"}, "may not use")
        self.assert_caught(rule, {"src/model/x.cc": "#include <CLI/CLI.hpp>\n"}, "may not use")
        self.assert_caught(rule, {"src/model/x.cc": "#include <gtest/gtest.h>\n"}, "_test.cc only")
        self.assert_clean(
            rule,
            {
                "src/model/x.cc": "#include <nlohmann/json.hpp>\n#include <vector>\n",
                "src/model/x_test.cc": "#include <gtest/gtest.h>\n",
                "src/backend/cpu/x.cc": "#include <cblas.h>\n",
            },
        )

    def test_check_host_policy_includes(self):
        rule = tidy.check_host_policy_includes
        for header in ("thread", "mutex", "shared_mutex", "atomic", "iostream", "fstream",
                       "filesystem", "sys/mman.h", "cuda_runtime.h"):
            self.assert_caught(rule, {"src/scheduler/x.cc": f"#include <{header}>\n"}, header)
        self.assert_clean(
            rule,
            {
                "src/engine/x.cc": "#include <string>\n#include <algorithm>\n",
                "src/base/x.cc": "#include <thread>\n",
                "src/engine/x_test.cc": "#include <iostream>\n",
            },
        )

    def test_check_vendor_conditions(self):
        rule = tidy.check_vendor_conditions
        self.assert_caught(rule, {"src/model/x.cc": "#ifdef NANOCP_CUDA\n"}, "vendor #if")
        self.assert_caught(rule, {"src/comm/x.h": "#if defined(USE_NCCL)\n"}, "vendor #if")
        self.assert_caught(rule, {"src/ops/x.cc": "#ifdef __AVX2__\n"}, "vendor #if")
        self.assert_clean(
            rule,
            {
                "src/backend/cuda/x.cu": "#if __CUDA_ARCH__ >= 900\n",
                "src/comm/nccl/x.cc": "#ifdef NCCL_VERSION\n",
                "src/base/x.h": "#ifdef NDEBUG\n",
            },
        )

    def test_check_lengths_of_functions(self):
        rule = tidy.check_lengths
        self.assert_clean(rule, {"src/base/x.cc": long_function(60)})
        self.assert_caught(rule, {"src/base/x.cc": long_function(61)}, "x.cc:answer has 61 lines")
        kernel = "__global__ void k(Params p) {"
        self.assert_clean(rule, {"src/backend/cuda/x.cu": long_function(200, kernel)})
        self.assert_caught(rule, {"src/backend/cuda/x.cu": long_function(201, kernel)}, "201 lines")
        self.assert_caught(rule, {"src/backend/cuda/x.cu": long_function(61)}, "61 lines")

    def test_check_lengths_of_files(self):
        rule = tidy.check_lengths
        self.assert_clean(rule, {"src/base/x.cc": "int a;\n" * 600})
        self.assert_caught(rule, {"src/base/x.cc": "int a;\n" * 601}, "601 lines")

    def test_check_lengths_ratchet(self):
        rule = tidy.check_lengths
        name = "src/base/x.cc:answer"
        self.assert_clean(rule, {"src/base/x.cc": long_function(80)}, {name: 80})
        self.assert_caught(rule, {"src/base/x.cc": long_function(81)}, "at most 80", {name: 80})
        self.assert_caught(rule, {"src/base/x.cc": long_function(70)}, "set it to 70", {name: 80})
        self.assert_caught(rule, {"src/base/x.cc": long_function(9)}, "remove the entry", {name: 80})
        self.assert_caught(rule, {"src/base/x.cc": "int a;\n"}, "is gone", {name: 80})

    def test_check_words(self):
        rule = tidy.check_words
        for word in ("FIX" + "ME", "X" * 3, "TO" + "DO: later", "TO" + "DO(somebody)"):
            self.assert_caught(rule, {"src/base/x.cc": f"int a;  // {word}\n"}, "words")
        self.assert_clean(rule, {"src/base/x.cc": "// TO" + "DO(#12): later\n", "LICENSE": "X" * 3})

    def test_check_local_paths(self):
        rule = tidy.check_local_paths
        for path in ("/ro" + "ot/x", "/wo" + "rk/main", "/ho" + "me/me", "/tm" + "p/build-x"):
            self.assert_caught(rule, {"tools/x.sh": f"cd {path}\n"}, "one machine only")
        self.assert_clean(
            rule, {"tools/x.sh": 'cd "$root/wo' + 'rk"\n', "README.md": "src/ro" + "ot/x\n"}
        )

    def test_check_file_names(self):
        rule = tidy.check_file_names
        for name in ("gemm_v2.cc", "new_gemm.cc", "gemm_impl2.h", "gemm_fast.cu", "Gemm.cc"):
            self.assert_caught(rule, {f"src/ops/{name}": ""}, "names")
        self.assert_clean(
            rule,
            {"src/ops/gemm_sm90.cu": "", "src/model/deepseek_v2.cc": "", "configs/a/New-v2.py": ""},
        )

    def test_check_headers(self):
        rule = tidy.check_headers
        self.assert_caught(rule, {"src/base/x.h": "// What.\nint a;\n"}, "#pragma once")
        self.assert_caught(
            rule, {"src/base/x.h": "// What.\n#include <a>\n#pragma once\n"}, "#pragma once"
        )
        self.assert_caught(rule, {"src/base/x.h": "#pragma once\n"}, "open with a comment")
        self.assert_clean(rule, {"src/base/x.h": HEADER + "int a();\n", "src/base/x.cc": "int a;"})

    def test_check_contracts(self):
        rule = tidy.check_contracts
        files = {f"{folder}/CONTRACT.md": "text\n" * 149 for folder in tidy.CONTRACT_FOLDERS}
        self.assert_clean(rule, files)
        self.assert_caught(rule, files | {"src/comm/CONTRACT.md": "text\n" * 150}, "under 150 lines")
        del files["src/engine/CONTRACT.md"]
        self.assert_caught(rule, files, "src/engine/CONTRACT.md:1: contracts: missing")

    def test_check_decisions(self):
        rule = tidy.check_decisions
        files = {"docs/decisions/0001-a.md": "", "docs/decisions/0002-b.md": ""}
        self.assert_clean(rule, files)
        self.assert_caught(rule, files | {"docs/decisions/0004-d.md": ""}, "0003 is next")
        self.assert_caught(rule, files | {"docs/decisions/0002-c.md": ""}, "0003 is next")
        self.assert_caught(rule, files | {"docs/decisions/Notes.md": ""}, "name it")

    def test_check_links(self):
        rule = tidy.check_links
        files = {"docs/a.md": "", "src/base/x.h": HEADER}
        self.assert_clean(
            rule, files | {"docs/b.md": "[a](a.md) [b](../src/base) [c](https://x.org) [d](#top)\n"}
        )
        self.assert_caught(rule, files | {"README.md": "\n[a](docs/c.md)\n"}, "README.md:2: links")


class FunctionScanTest(unittest.TestCase):
    def names(self, text):
        return [(f.name, f.num_lines) for f in cpp_scan.functions(text)]

    def test_finds_functions_in_scopes(self):
        text = (
            "namespace a {\nclass B final : public C {\n public:\n  int f() const override {\n"
            "    return 1;\n  }\n  int g_ = 0;\n};\n}\nstatic void h(int x) {\n}\n"
        )
        self.assertEqual(self.names(text), [("f", 3), ("h", 2)])

    def test_constructor_with_brace_initialisers_is_one_function(self):
        text = "A::A(int x)\n    : x_{x},\n      y_(x) {\n  work();\n}\n"
        self.assertEqual(self.names(text), [("A::A", 5)])

    def test_braces_in_literals_comments_and_macros_do_not_count(self):
        text = (
            "#define M(x) \\\n  do { \\\n  } while (0)\n"
            'const char* k = "{";\nconst char c = \'{\';\n'
            'auto r = R"(}{)";\nint big = 1\'000\'000;\n// {\nvoid f() {\n  g("}"); /* } */\n}\n'
        )
        self.assertEqual(self.names(text), [("f", 3)])

    def test_initialisers_are_no_functions(self):
        text = "constexpr std::array<int, 2> kA = {f(1), f(2)};\nint f() {\n}\n"
        self.assertEqual(self.names(text), [("f", 2)])

    def test_templates_attributes_and_test_macros(self):
        text = (
            "template <typename T>\nclass [[nodiscard]] R {\n  R(T t) : t_(t) {}\n};\n"
            "TEST(A, B) {\n  if (x) {\n  }\n}\nstruct alignas(64) S {\n  int a = 0;\n};\n"
        )
        self.assertEqual(self.names(text), [("R", 1), ("TEST(A,B)", 4)])


if __name__ == "__main__":
    unittest.main()
