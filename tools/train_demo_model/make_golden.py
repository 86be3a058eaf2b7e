#!/usr/bin/env python3
"""Writes MODEL_DIR/golden.json with transformers, for `nanocp verify`: logits after a few prompts and greedy
continuations, float32 on the CPU, weights as stored.

    python3 tools/train_demo_model/make_golden.py MODEL_DIR
"""
import json
import sys

import torch
import transformers

PROMPTS = (
    "The state of the Union",
    "<|im_start|>user\nTell me about the whale.<|im_end|>\n<|im_start|>assistant\n",
    "Call me Ishmael. Some years ago, never mind how long precisely, having little or no money in my purse, ",
    "a",
)
GREEDY_TOKENS = 24


@torch.no_grad()
def golden_case(model, prompt):
    ids, greedy, logprobs, margins = list(prompt), [], [], []
    first = logits = model(torch.tensor([ids])).logits[0, -1]
    for _ in range(GREEDY_TOKENS):
        top = logits.topk(2)
        greedy.append(int(top.indices[0]))
        logprobs.append(round(float(torch.log_softmax(logits, -1)[greedy[-1]]), 5))
        margins.append(round(float(top.values[0] - top.values[1]), 5))
        ids.append(greedy[-1])
        logits = model(torch.tensor([ids])).logits[0, -1]
    return {
        "prompt": list(prompt), "last_logits": rounded(first), "greedy": greedy, "greedy_logprob": logprobs,
        "top2_margin": margins, "logits_after": rounded(logits),
    }


def rounded(logits):
    return [round(x, 3) for x in logits.tolist()]


def main():
    folder = sys.argv[1]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=f"{folder}/tokenizer.json")
    cases = [golden_case(model, tokenizer(p, add_special_tokens=False)["input_ids"]) for p in PROMPTS]
    reference = f"transformers {transformers.__version__}, torch {torch.__version__}, float32 on CPU, weights as stored"
    with open(f"{folder}/golden.json", "w", encoding="utf-8") as file:
        json.dump({"reference": reference, "cases": cases}, file, separators=(",", ":"))


if __name__ == "__main__":
    main()
