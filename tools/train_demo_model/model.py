"""The bundled model in PyTorch: the architecture of Qwen3-MoE, written for training.

All experts are computed for all tokens and weighted by the router (zero for those not chosen): wasteful for
large models, quick for 8 small experts. Parameter names are those of Hugging Face's `qwen3_moe`, but that the
experts of a layer lie in one tensor; `hugging_face_state` takes them apart.
"""
import torch
import torch.nn.functional as F
from torch import nn

CONFIG = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "decoder_sparse_step": 1,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 256,
    "initializer_range": 0.02,
    "intermediate_size": 768,
    "max_position_embeddings": 8192,
    "mlp_only_layers": [],
    "moe_intermediate_size": 192,
    "norm_topk_prob": True,
    "num_attention_heads": 4,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 5,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 100000.0,
    "rope_scaling": None,
    "router_aux_loss_coef": 0.01,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 4096,
}


class RmsNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        x32 = x.float()
        return (x32 * torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight).to(x.dtype)


def rotate(x, cos, sin):
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.kv_heads, self.dim = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        hidden = c["hidden_size"]
        self.q_proj = nn.Linear(hidden, self.heads * self.dim, bias=False)
        self.k_proj = nn.Linear(hidden, self.kv_heads * self.dim, bias=False)
        self.v_proj = nn.Linear(hidden, self.kv_heads * self.dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.dim, hidden, bias=False)
        self.q_norm = RmsNorm(self.dim, c["rms_norm_eps"])
        self.k_norm = RmsNorm(self.dim, c["rms_norm_eps"])

    def forward(self, x, cos, sin):
        batch, length, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(batch, length, self.heads, self.dim)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x).view(batch, length, self.kv_heads, self.dim)).transpose(1, 2)
        v = self.v_proj(x).view(batch, length, self.kv_heads, self.dim).transpose(1, 2)
        groups = self.heads // self.kv_heads
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        out = F.scaled_dot_product_attention(
            q, k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1), is_causal=True)
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, -1))


class Moe(nn.Module):
    def __init__(self, c):
        super().__init__()
        experts, hidden, inner = c["num_experts"], c["hidden_size"], c["moe_intermediate_size"]
        self.topk = c["num_experts_per_tok"]
        self.gate = nn.Linear(hidden, experts, bias=False)
        self.gate_up = nn.Parameter(torch.empty(experts, hidden, 2 * inner))
        self.down = nn.Parameter(torch.empty(experts, inner, hidden))

    def forward(self, x):
        shape = x.shape
        x = x.reshape(-1, shape[-1])
        scores = F.softmax(self.gate(x).float(), dim=-1)
        top, chosen = scores.topk(self.topk, dim=-1)
        weights = torch.zeros_like(scores).scatter(-1, chosen, top / top.sum(-1, keepdim=True))
        gate, up = torch.einsum("th,ehi->tei", x, self.gate_up.to(x.dtype)).chunk(2, dim=-1)
        inner = F.silu(gate) * up * weights.unsqueeze(-1).to(x.dtype)
        out = torch.einsum("tei,eih->th", inner, self.down.to(x.dtype))
        # The usual balance loss: share of tokens times mean score, 1 if even.
        share = (weights > 0).float().mean(0) / self.topk
        balance = scores.shape[-1] * (share * scores.mean(0)).sum()
        return out.view(shape), balance


class Layer(nn.Module):
    def __init__(self, c, dropout):
        super().__init__()
        self.input_layernorm = RmsNorm(c["hidden_size"], c["rms_norm_eps"])
        self.self_attn = Attention(c)
        self.post_attention_layernorm = RmsNorm(c["hidden_size"], c["rms_norm_eps"])
        self.mlp = Moe(c)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, cos, sin):
        x = x + self.dropout(self.self_attn(self.input_layernorm(x), cos, sin))
        out, balance = self.mlp(self.post_attention_layernorm(x))
        return x + self.dropout(out), balance


class DemoModel(nn.Module):
    def __init__(self, c, dropout=0.0):
        super().__init__()
        self.c = c
        self.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = nn.ModuleList(Layer(c, dropout) for _ in range(c["num_hidden_layers"]))
        self.norm = RmsNorm(c["hidden_size"], c["rms_norm_eps"])
        self.dropout = nn.Dropout(dropout)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                scale = (2 * c["num_hidden_layers"]) ** -0.5 if "o_proj" in name or "down" in name else 1.0
                nn.init.normal_(parameter, std=c["initializer_range"] * scale)

    def forward(self, ids):
        """Logits [batch, length, vocabulary] and the mean balance loss."""
        dim = self.c["head_dim"]
        powers = torch.arange(0, dim, 2, device=ids.device).float() / dim
        angles = torch.outer(torch.arange(ids.shape[1], device=ids.device).float(), self.c["rope_theta"] ** -powers)
        angles = torch.cat((angles, angles), dim=-1)
        cos, sin = angles.cos(), angles.sin()
        x = self.dropout(self.embed_tokens(ids))
        balance = 0.0
        for layer in self.layers:
            x, one = layer(x, cos, sin)
            balance = balance + one / len(self.layers)
        return F.linear(self.norm(x), self.embed_tokens.weight), balance


def hugging_face_state(model):
    """Weights in bf16 under the names of `Qwen3MoeForCausalLM` (the LM head is the embedding)."""
    state = {}
    for name, value in model.state_dict().items():
        value = value.detach().to(torch.bfloat16).cpu()
        if name.endswith("mlp.gate_up"):
            for e, expert in enumerate(value):
                gate, up = expert.t().contiguous().chunk(2)
                prefix = "model." + name.replace("gate_up", f"experts.{e}.")
                state[prefix + "gate_proj.weight"] = gate.contiguous()
                state[prefix + "up_proj.weight"] = up.contiguous()
        elif name.endswith("mlp.down"):
            for e, expert in enumerate(value):
                state["model." + name.replace("down", f"experts.{e}.down_proj.weight")] = expert.t().contiguous()
        else:
            state["model." + name] = value.contiguous()
    return state
