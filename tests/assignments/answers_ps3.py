"""Problem set 3: wrong answers by part and fault, and right ones in another style."""

SOFT = "@ (x @ columns).softmax(0)"
W_V, W_O = "attention.W_V[head // per_value_head]", "attention.W_O[head]"
OV, SHARED = f"{W_V} @ {W_O}", "head // per_value_head"
LATER, FINAL = "ov(model, *later) @", 'Norm.of(model, "ln_final").weight * m'
CORRECTED = "fixed - px * (px * fixed).mean(-1, keepdim=True) / sigma**2"
SQUARES = "px.pow(2).mean(-1, keepdim=True)"
SLOPE = "float((a @ b) / (a @ a))"

WRONG = {
    "part1": {
        "sign": ("((1, first), (-1, second))", "((-1, first), (1, second))"),
        "forgot the space": ("single_token(model, text)", "single_token(model, text.strip())"),
        "the embedding": ("model.W_U[:, ids]", "model.W_E.T[:, ids]"),
        "sum of the columns": (SOFT, "@ torch.ones(len(texts))"),
        "mean of the columns": (SOFT, "@ torch.ones(len(texts)) / len(texts)"),
        "likeliest word alone": (SOFT, "[:, (x @ columns).argmax()]"),
        "softmax over the vocabulary": (
            "(x @ columns).softmax(0)",
            "(x @ model.W_U).softmax(0)[ids]",
        ),
        "softmax over both groups": (
            "(x @ columns).softmax(0)",
            "(x @ model.W_U[:, [single_token(model, one) for one in first + second]]"
            ").softmax(0)[: len(texts)]",
        ),
        "logits for probabilities": (".softmax(0)", ""),
        "groups added": ("(-1, second)", "(1, second)"),
        "typed-in words": ("(1, first)", '(1, [" she", " her"][: len(first)])'),
        "the book's helper": (
            "return m",
            "return Observable.of(model, {first[0]: 1, second[0]: -1}).vector(model)",
        ),
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
        "norm on the wrong side": (f"{LATER} ({FINAL})", f"({FINAL}) * ({LATER} m) / m"),
        "final norm left out": (FINAL, "m"),
        "norm between left out": ("(between * y)", "y"),
        "the earlier head's norm": ("later[0]}.ln1", "earlier[0]}.ln1"),
        "the norm in front of the MLP": ("}.ln1", "}.ln2"),
        "heads exchanged": ("earlier, later, m):", "later, earlier, m):"),
        "transposed": (LATER, "ov(model, *later).T @"),
        "both transposed": (LATER, "ov(model, *earlier) @ ov(model, *later).T @"),
        "later head alone": ("return ov(model, *earlier) @ (between * y)", "return y"),
        "earlier head alone": (f"{LATER} ({FINAL})", FINAL),
        "norms divided": ("between * y", "y / between"),
        "unit length": ("(between * y)", "(between * y / y.norm())"),
        "sign": ("return ov", "return -ov"),
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
def group_vector(model, x, first, second):
    z = x.clone().requires_grad_(True)
    p = (z @ model.W_U).softmax(-1)
    a, b = (sum(p[single_token(model, t)] for t in texts) for texts in (first, second))
    return torch.autograd.grad((a / b).log(), z)[0]
""",
    "part2": """
def ov_matrix(model, l, h):
    V, O = model.blocks[l].attn.W_V, model.blocks[l].attn.W_O
    V = V.repeat_interleave(O.shape[0] // V.shape[0], dim=0)
    return torch.einsum('de,ef->df', V[h], O[h])
""",
    "part3": """
def path_vector(model, earlier, later, m):
    w1, w2 = model.blocks[later[0]].ln1.weight, model.ln_final.weight
    A, B = ov(model, *earlier), ov(model, *later)
    return torch.einsum('ij,j,jk,k,k->i', A, w1, B, w2, m)
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
