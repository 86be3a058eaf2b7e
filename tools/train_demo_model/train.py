#!/usr/bin/env python3
"""Trains the bundled model and writes it as a Hugging Face checkpoint with its card and golden logits.

    python3 tools/train_demo_model/train.py --text moby_dick.txt.gz state_of_the_union.txt.gz --out models/demo-qwen3-moe

Needs torch, tokenizers, safetensors and numpy, and a GPU for the default length (about six minutes on an H200).
"""
import argparse
import copy
import datetime
import json
import math
import os
import time

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import data
from card import write_card
from model import CONFIG, DemoModel, hugging_face_state

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", nargs="+", required=True, help="gzipped text, documents apart by <|endoftext|>")
    parser.add_argument("--out", required=True)
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--batch-tokens", type=int, default=32768)
    parser.add_argument("--length", type=int, default=1024, help="tokens of a row")
    parser.add_argument("--long-length", type=int, default=4096, help="tokens of a row in the last fifth")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--averaging", type=float, default=0.998, help="decay of the running mean of the weights")
    parser.add_argument("--chat-share", type=float, default=0.3)
    parser.add_argument("--eval-every", type=int, default=200)
    parser.add_argument("--max-minutes", type=float, default=9.0, help="end of training, whatever the steps")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


@torch.no_grad()
def held_out_loss(model, stream, device, length=1024):
    """Mean of -log p over the held-out tokens, in nats per token."""
    model.eval()
    total, count = 0.0, 0
    ids = torch.from_numpy(stream.astype("int64")).to(device)
    for begin in range(0, len(ids) - length - 1, length):
        window = ids[begin:begin + length + 1].unsqueeze(0)
        logits, _ = model(window[:, :-1])
        total += F.cross_entropy(logits[0].float(), window[0, 1:], reduction="sum").item()
        count += length
    model.train()
    return total / max(count, 1)


def optimizer_of(model, args, fused):
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": args.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=args.learning_rate, betas=(0.9, 0.95), fused=fused)


def learning_rate_at(progress, peak):
    if progress < 0.03:
        return peak * progress / 0.03
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (progress - 0.03) / 0.97)))


def train(args, model, streams, held_out, device):
    """The state with the lowest held-out loss, that loss, and a log."""
    optimizer = optimizer_of(model, args, device == "cuda")
    # What is judged and kept is the running mean of the weights: better than those of any one step.
    averaged = copy.deepcopy(model)
    begin, best, best_state, log = time.time(), float("inf"), None, []
    model.train()
    for step in range(args.steps + 1):
        # Whichever ends first: a slow machine cools its learning rate down in time, too.
        progress = max(step / args.steps, (time.time() - begin) / (60 * args.max_minutes))
        progress = min(progress, 1.0)
        if step % args.eval_every == 0 or progress >= 1.0:
            with torch.autocast(device, dtype=torch.bfloat16):
                loss = held_out_loss(averaged, held_out, device)
            log.append({"step": step, "seconds": round(time.time() - begin, 1), "held_out_loss": round(loss, 4)})
            print(f"step {step}: held-out loss {loss:.4f} after {time.time() - begin:.0f} s", flush=True)
            if loss < best:
                best, best_state = loss, {k: v.detach().clone() for k, v in averaged.state_dict().items()}
        if progress >= 1.0:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(progress, args.learning_rate)
        length = args.long_length if progress > 0.8 else args.length
        rows = max(1, args.batch_tokens // length)
        batch = torch.from_numpy(streams.batch(rows, length, args.chat_share)).to(device)
        with torch.autocast(device, dtype=torch.bfloat16):
            logits, balance = model(batch[:, :-1])
        loss = F.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
        (loss + CONFIG["router_aux_loss_coef"] * balance).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        decay = min(args.averaging, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(averaged.parameters()), list(model.parameters()), 1 - decay)
        if step % 100 == 0:
            print(f"  step {step}: loss {loss.item():.3f}, balance {balance.item():.3f}", flush=True)
    return best_state, best, log


def save_checkpoint(out, model, tokenizer):
    end, pad = tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|pad|>")
    stop = [end, tokenizer.token_to_id("<|endoftext|>")]
    config = dict(CONFIG, bos_token_id=None, eos_token_id=stop, pad_token_id=pad)
    files = {
        "config.json": config,
        "generation_config.json": {"eos_token_id": stop, "pad_token_id": pad, "do_sample": True,
                                   "temperature": 0.6, "top_p": 0.9},
        "tokenizer_config.json": {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|pad|>",
                                  "chat_template": CHAT_TEMPLATE, "model_max_length": 8192},
    }
    for name, content in files.items():
        with open(f"{out}/{name}", "w", encoding="utf-8") as file:
            json.dump(content, file, indent=2)
            file.write("\n")
    with open(f"{out}/chat_template.jinja", "w", encoding="utf-8") as file:
        file.write(CHAT_TEMPLATE)
    tokenizer.save(f"{out}/tokenizer.json")
    save_file(hugging_face_state(model), f"{out}/model.safetensors", metadata={"format": "pt"})


@torch.no_grad()
def sample(model, tokenizer, prompt, device, tokens=60, temperature=0.6):
    ids = tokenizer.encode(prompt).ids
    generator = torch.Generator(device).manual_seed(1)
    stop = tokenizer.token_to_id("<|im_end|>")
    for _ in range(tokens):
        logits, _ = model(torch.tensor([ids], device=device))
        ids.append(torch.multinomial(F.softmax(logits[0, -1].float() / temperature, -1), 1, generator=generator).item())
        if ids[-1] == stop:
            break
    return tokenizer.decode(ids, skip_special_tokens=False)


def main():
    args = parse_args()
    torch.manual_seed(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    os.makedirs(args.out, exist_ok=True)
    documents, held_out_documents = data.read_documents(args.text)
    tokenizer = data.train_tokenizer(documents, CONFIG["vocab_size"])
    streams = data.Streams(tokenizer, documents, args.seed)
    held_out = data.token_stream(tokenizer, held_out_documents, tokenizer.token_to_id(data.SEPARATOR))
    print(f"{len(streams.prose)} tokens of prose, {len(streams.chat)} of conversations, {len(held_out)} held out")
    model = DemoModel(CONFIG, args.dropout).to(device)
    begin = time.time()
    state, _, log = train(args, model, streams, held_out, device)
    seconds = time.time() - begin
    # What is judged is what is stored: weights rounded to bf16.
    model.load_state_dict({k: v.to(torch.bfloat16).float() for k, v in state.items()})
    model = model.to(device).eval()
    loss = held_out_loss(model, held_out, device)
    held_out_chars = sum(len(d) for d in held_out_documents)
    samples = [sample(model, tokenizer, p, device) for p in (
        "The state of the Union", "<|im_start|>user\nTell me about the whale.<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>user\nWhat should the Congress do this year?<|im_end|>\n<|im_start|>assistant\n")]
    save_checkpoint(args.out, model, tokenizer)
    write_card(f"{args.out}/README.md", {
        "parameters": sum(p.numel() for p in model.parameters()), "loss": loss,
        "bits_per_char": loss * len(held_out) / held_out_chars / math.log(2),
        "tokens": len(streams.prose), "held_out_tokens": len(held_out), "seconds": seconds,
        "steps": log[-1]["step"], "batch_tokens": args.batch_tokens, "samples": samples,
        "device": torch.cuda.get_device_name() if device == "cuda" else "CPU",
        "date": datetime.date.today().isoformat(), "log": log})
    print(f"held-out loss {loss:.4f} as stored; written to {args.out}")
    print("\n---\n".join(samples))


if __name__ == "__main__":
    main()
