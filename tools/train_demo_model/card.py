"""The model card that goes with the bundled checkpoint."""

CARD = """# demo-qwen3-moe

A small language model with the architecture of Qwen3-MoE, bundled with NanoCP so that there is something to serve
at once. It writes English in the manner of its two sources; it knows nothing, and is of no use but to try the engine.
It has the words and the views of a novel of 1851 and of addresses since 1790, some of which offend today.

| | |
|---|---|
| Parameters | {parameters:,}: 5 layers, 8 experts of which 2 are chosen, 4 query and 2 KV heads of 64, vocabulary of 4,096 (own byte-level BPE), tied embedding, bf16 |
| Context | trained on rows of 1,024 and, in the last fifth, 4,096 tokens; positions up to 8,192 |
| Data | State of the Union addresses 1790-2019 (works of the US government) and *Moby-Dick* (Herman Melville, 1851); both in the public domain; {tokens:,} tokens |
| Conversations | made from the same text: a paragraph's first sentence asks, the sentences after it answer; 30 % of the rows |
| Held-out loss | {loss:.3f} nats per token, {bits_per_char:.3f} bits per character, on {held_out_tokens:,} tokens of every fortieth document, weights as stored |
| Training | {steps:,} steps of {batch_tokens:,} tokens, AdamW, {seconds:.0f} s on one {device}, {date}; the step with the lowest held-out loss is kept |
| Made by | `tools/train_demo_model/train.py` of this repository |
| Licence | that of this repository; the training text is in the public domain |

## What it writes
Temperature 0.6, first sample of each prompt:
{samples}

## Held-out loss by step
{log}
"""


def write_card(path, values):
    samples = "".join(f"\n```text\n{s}\n```\n" for s in values["samples"])
    log = "\n".join(f"- {e['step']}: {e['held_out_loss']:.3f} ({e['seconds']:.0f} s)" for e in values["log"])
    with open(path, "w", encoding="utf-8") as file:
        file.write(CARD.format(**dict(values, samples=samples, log=log)))
