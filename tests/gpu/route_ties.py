#!/usr/bin/env python3
"""Which greedy tokens of a golden fixture hang on rounding: PyTorch's float32 model, with noise of the size of bf16
rounding on what attention and each layer give, run again and again over the golden tokens.

    tests/gpu/route_ties.py FIXTURE_FOLDER [RUNS]

Tokens whose margin is beyond the tests' bar and that come out otherwise in some runs are those behind which a
router's choice is nearly a tie; device_golden_test.cc lists them. Needs torch and transformers.
"""
import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

NOISE = 2.0**-9  # of a value, standard deviation
BAR = 0.04  # of max |logit|, as in device_golden_test.cc


def main():
    folder, runs = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 64
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    torch.manual_seed(1)

    def perturb(_module, _inputs, output):
        hidden = output[0] if isinstance(output, tuple) else output
        hidden = hidden * (1 + NOISE * torch.randn_like(hidden))
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    for layer in model.model.layers:
        layer.self_attn.register_forward_hook(perturb)
        layer.register_forward_hook(perturb)
    with torch.no_grad():
        for number, case in enumerate(json.loads((folder / "golden.json").read_text())["cases"]):
            ids = torch.tensor([case["prompt"] + case["greedy"]])
            first, count = len(case["prompt"]) - 1, len(case["greedy"])
            others = torch.zeros(count)
            for _ in range(runs):
                best = model(ids).logits[0].argmax(-1)[first:first + count]
                others += best != torch.tensor(case["greedy"])
            bar = BAR * max(map(abs, case["last_logits"]))
            for token in range(count):
                if others[token] > 0 and case["top2_margin"][token] > bar:
                    print(f"case {number} token {token}: margin {case['top2_margin'][token]:.3f}, bar {bar:.3f}, "
                          f"another token in {int(others[token])} of {runs} runs", flush=True)


if __name__ == "__main__":
    main()
