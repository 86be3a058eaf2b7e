#!/usr/bin/env python3
"""Writes a checkpoint of constant-scale random weights in the shapes of a Qwen3-MoE config.

Usage: tools/make_dummy_checkpoint.py CONFIG DIR [NUM_LAYERS]
For measuring how fast weights load: one safetensors file of any size, in bf16 or, where the config
asks for it, with block-wise fp8 projections and experts.
"""
import json
import os
import random
import struct
import sys

PATTERN_BYTES = 1 << 23


def list_tensors(config):
    """Yields (name, type, shape, pattern)."""
    is_fp8 = "quantization_config" in config
    hidden = config["hidden_size"]
    q_rows = config["num_attention_heads"] * config["head_dim"]
    kv_rows = config["num_key_value_heads"] * config["head_dim"]
    intermediate = config["moe_intermediate_size"]

    def plain(name, rows, cols):
        yield name + ".weight", "BF16", [rows, cols], "bf16"

    def projection(name, rows, cols):
        if not is_fp8:
            yield from plain(name, rows, cols)
            return
        yield name + ".weight", "F8_E4M3", [rows, cols], "fp8"
        yield name + ".weight_scale_inv", "F32", [-(-rows // 128), -(-cols // 128)], "scales"

    def norm(name, size):
        yield name + ".weight", "BF16", [size], "ones"

    yield from plain("model.embed_tokens", config["vocab_size"], hidden)
    yield from plain("lm_head", config["vocab_size"], hidden)
    yield from norm("model.norm", hidden)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        yield from norm(prefix + "input_layernorm", hidden)
        yield from norm(prefix + "post_attention_layernorm", hidden)
        yield from projection(prefix + "self_attn.q_proj", q_rows, hidden)
        yield from projection(prefix + "self_attn.k_proj", kv_rows, hidden)
        yield from projection(prefix + "self_attn.v_proj", kv_rows, hidden)
        yield from projection(prefix + "self_attn.o_proj", hidden, q_rows)
        yield from norm(prefix + "self_attn.q_norm", config["head_dim"])
        yield from norm(prefix + "self_attn.k_norm", config["head_dim"])
        yield from plain(prefix + "mlp.gate", config["num_experts"], hidden)
        for expert in range(config["num_experts"]):
            name = f"{prefix}mlp.experts.{expert}."
            yield from projection(name + "gate_proj", intermediate, hidden)
            yield from projection(name + "up_proj", intermediate, hidden)
            yield from projection(name + "down_proj", hidden, intermediate)


def make_patterns():
    half = PATTERN_BYTES // 2
    noise = random.Random(1).randbytes(PATTERN_BYTES)
    bf16 = bytearray(PATTERN_BYTES)  # +-[2^-7, 2^-5)
    bf16[0::2] = noise[:half]
    bf16[1::2] = bytes(0x3C | (byte & 0x80) for byte in noise[half:])
    return {
        "bf16": bytes(bf16),
        "fp8": bytes((byte & 0x87) | 0x38 for byte in noise),  # +-[1, 2)
        "scales": struct.pack("<f", 0.01) * (PATTERN_BYTES // 4),
        "ones": b"\x80\x3f" * half,
    }


def write_file(path, tensors):
    value_bytes = {"BF16": 2, "F8_E4M3": 1, "F32": 4}
    header = {}
    sizes = []
    begin = 0
    for name, dtype, shape, pattern in tensors:
        size = value_bytes[dtype]
        for dim in shape:
            size *= dim
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, begin + size]}
        sizes.append((size, pattern))
        begin += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    patterns = make_patterns()
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)))
        out.write(text)
        for size, pattern in sizes:
            while size > 0:
                part = min(size, PATTERN_BYTES)
                out.write(memoryview(patterns[pattern])[:part])
                size -= part
        out.flush()
        os.fsync(out.fileno())
    return begin


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8") as file:
        config = json.load(file)
    if config.get("model_type") != "qwen3_moe":
        sys.exit(f"{sys.argv[1]}: model_type must be qwen3_moe, not {config.get('model_type')}")
    if len(sys.argv) == 4:
        config["num_hidden_layers"] = int(sys.argv[3])
    folder = sys.argv[2]
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file, indent=2)
    size = write_file(os.path.join(folder, "model.safetensors"), list(list_tensors(config)))
    print(f"{folder}: {size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
