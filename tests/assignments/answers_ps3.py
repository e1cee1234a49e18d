"""Problem set 3: wrong answers by part and fault, and right ones in another style."""

COLUMN = "model.W_U[:, single_token(model, text)]"
ITEMS = "for text, weight in weights.items())"
W_V, W_O = "attention.W_V[head // per_value_head]", "attention.W_O[head]"
OV, SHARED = f"{W_V} @ {W_O}", "head // per_value_head"
Y = "ov(model, layer, head) @ (w * m)"
CORRECTED = "fixed - px * (px * fixed).mean(-1, keepdim=True) / sigma**2"
SQUARES = "px.pow(2).mean(-1, keepdim=True)"
SLOPE = "float((a @ b) / (a @ a))"

WRONG = {
    "part1": {
        "sign": ("sum(weight *", "sum(-weight *"),
        "forgot the space": ("single_token(model, text)", "single_token(model, text.strip())"),
        "the embedding": (COLUMN, "model.W_E[single_token(model, text)]"),
        "mean over tokens": (ITEMS, f"{ITEMS} / len(weights)"),
        "weights ignored": ("sum(weight *", "sum((1 if weight > 0 else -1) *"),
        "first token only": ("weights.items())", "list(weights.items())[:1])"),
        "a row for a column": (COLUMN, "model.W_U.T[:32, single_token(model, text) % 32]"),
        "typed-in tokens": ("weights.items()", '{" she": 1.0, " he": -1.0}.items()'),
        "softmax of the unembedding": ("model.W_U[:", "model.W_U.softmax(-1)[:"),
        "the book's helper": ("return", "return Observable.of(model, weights).vector(model)\n   "),
    },
    "part2": {
        "transposed": (OV, f"({OV}).T"),
        "order": (OV, f"{W_O} @ {W_V}"),
        "every head its own values": (SHARED, "min(head, attention.W_V.shape[0] - 1)"),
        "heads dealt out in turn": (SHARED, "head % kv_heads(model)"),
        "first value head for all": (SHARED, "0"),
        "layer ignored": ("model.blocks[layer]", "model.blocks[0]"),
        "keys for values": ("attention.W_V", "attention.W_K"),
        "queries for values": (W_V, "attention.W_Q[head]"),
        "next head's output": (W_O, "attention.W_O[head - 1]"),
        "the book's helper": (W_V, "book_pull_back.head_weights(model, layer)[0][head]"),
    },
    "part3": {
        "norm on the wrong side": (Y, "w * (ov(model, layer, head) @ m)"),
        "norm left out": ("(w * m)", "m"),
        "norm twice": ("(w * m)", "(w * w * m)"),
        "transposed": ("ov(model, layer, head) @", "ov(model, layer, head).T @"),
        "the head's own norm": ('"ln_final"', 'f"blocks.{layer}.ln1"'),
        "unit length": (Y, f"torch.nn.functional.normalize({Y}, dim=0)"),
        "divided by the norm's weights": ("(w * m)", "(m / w)"),
        "sign": ("return ov", "return -ov"),
        "layer ignored": ("ov(model, layer, head)", "ov(model, 0, head)"),
        "head ignored": ("ov(model, layer, head)", "ov(model, layer, 1)"),
        "a matrix": ("@ (w * m)", "* (w * m)"),
    },
    "part4": {
        "σ held fixed": (CORRECTED, "fixed"),
        "sign of the projection": ("return fixed - px", "return fixed + px"),
        "weights left out": ("w * y / sigma", "y / sigma"),
        "ε outside the root": (f"({SQUARES} + eps).sqrt()", f"{SQUARES}.sqrt() + eps"),
        "n − 1": (SQUARES, "(px.pow(2).sum(-1, keepdim=True) / (x.shape[-1] - 1))"),
        "mean over the wrong axis": (SQUARES, "px.pow(2).mean(0, keepdim=True)"),
        "never centred": ("if centred else x", "if False else x"),
        "gradient not centred": ("fixed = fixed - fixed.mean(-1, keepdim=True)", "pass"),
        "sum for mean": ("(px * fixed).mean(", "(px * fixed).sum("),
        "always centred": (" if centred else x", ""),
        "σ once": ("/ sigma**2", "/ sigma"),
        "the norm itself": (CORRECTED, "w * px / sigma"),
    },
    "part5": {
        "cosine": ("(y1 @ y1)\n", "(y1.norm() * y2.norm())\n"),
        "the other length": ("(y1 @ y1)\n", "(y2 @ y2)\n"),
        "length not squared": ("(y1 @ y1)\n", "y1.norm()\n"),
        "no intercept": ("    a, b = a - a.mean(), b - b.mean()\n", ""),
        "axes exchanged": ("(a @ a)", "(b @ b)"),
        "correlation": ("(a @ a)", "(a.norm() * b.norm())"),
        "pair exchanged": (f"float(coupling), {SLOPE}", f"{SLOPE}, float(coupling)"),
        "ratio of means": (SLOPE, "float((x @ y2).mean() / (x @ y1).mean())"),
        "slope from the weights": (SLOPE, "float(coupling)"),
        "coupling from the data": ("float(coupling)", SLOPE),
        "first inputs only": ("a, b = x @", "x = x[:3]\n    a, b = x @"),
    },
    "part8": {
        "of the observables": (
            "ov(model, layer, head) @ (w * m) for m",
            "m + 0 * ov(model, layer, head)[0] for m",
        ),
        "norm left out": ("@ (w * m) for", "@ m for"),
        "transposed": ("ov(model, layer, head) @", "ov(model, layer, head).T @"),
        "coupling": ("(y1.norm() * y2.norm())", "(y1 @ y1)"),
        "absolute value": ("found.append((y1 @ y2)", "found.append((y1 @ y2).abs()"),
        "layer ignored": ("ov(model, layer, head)", "ov(model, 0, head)"),
        "one head only": ("range(model.cfg.n_heads)", "range(1)"),
        "dot product": (" / (y1.norm() * y2.norm())", ""),
    },
}

RIGHT = {
    "part1": """
def observable_vector(model, weights):
    n = torch.zeros(model.cfg.d_vocab)
    for t, v in weights.items():
        n[single_token(model, t)] += v
    return model.W_U @ n
""",
    "part2": """
def ov_matrix(model, l, h):
    V, O = model.blocks[l].attn.W_V, model.blocks[l].attn.W_O
    V = V.repeat_interleave(O.shape[0] // V.shape[0], dim=0)
    return torch.einsum('de,ef->df', V[h], O[h])
""",
    "part3": """
def feature_vector(model, layer, head, m):
    return torch.einsum('io,o,o->i', ov(model, layer, head), model.ln_final.weight, m)
""",
    "part4": """
def norm_gradient(y, x, w, eps, centred):
    z = x.clone().requires_grad_(True)
    p = z - z.mean(-1, keepdim=True) if centred else z
    out = w * p / torch.sqrt((p ** 2).mean(-1, keepdim=True) + eps)
    return torch.autograd.grad(out @ y, z, grad_outputs=torch.ones(len(x)))[0]
""",
    "part5": """
def coupling_and_slope(y1, y2, x):
    return (y1 @ y2 / (y1 @ y1)).item(), stats.linregress(x @ y1, x @ y2).slope
""",
    "part8": """
STUDENT = "ada"

def cosines(model, layer, m1, m2):
    w = model.ln_final.weight
    W = torch.stack([ov(model, layer, h) for h in range(model.cfg.n_heads)])
    return torch.cosine_similarity(W @ (w * m1), W @ (w * m2), dim=-1)
""",
}
