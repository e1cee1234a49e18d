"""Problem set 3: wrong answers (label, old text, new text) or (label, whole cell), and right ones in other styles."""

WRONG = {
    "part1": [
        ("sign", "sum(weight *", "sum(-weight *"),
        ("forgot the space", "single_token(model, text)", "single_token(model, text.strip())"),
        (
            "the embedding",
            "model.W_U[:, single_token(model, text)]",
            "model.W_E[single_token(model, text)]",
        ),
        (
            "mean over tokens",
            "for text, weight in weights.items())",
            "for text, weight in weights.items()) / len(weights)",
        ),
        (
            "unit length",
            "return sum(weight * model.W_U[:, single_token(model, text)] for text, weight in weights.items())",
            "m = sum(weight * model.W_U[:, single_token(model, text)] for text, weight in weights.items())\n    return m / m.norm()",
        ),
        ("weights ignored", "sum(weight *", "sum((1 if weight > 0 else -1) *"),
        ("first token only", "weights.items())", "list(weights.items())[:1])"),
        (
            "a row for a column",
            "model.W_U[:, single_token(model, text)]",
            "model.W_U.T[:32, single_token(model, text) % 32]",
        ),
        (
            "typed-in tokens",
            "for text, weight in weights.items())",
            'for text, weight in {" she": 1.0, " he": -1.0}.items())',
        ),
        ("softmax of the unembedding", "model.W_U[:, single", "model.W_U.softmax(-1)[:, single"),
        (
            "the book's helper",
            "def observable_vector(model, weights):\n    return Observable.of(model, weights).vector(model)",
        ),
    ],
    "part2": [
        (
            "transposed",
            "return attention.W_V[head // per_value_head] @ attention.W_O[head]",
            "return (attention.W_V[head // per_value_head] @ attention.W_O[head]).T",
        ),
        (
            "order",
            "attention.W_V[head // per_value_head] @ attention.W_O[head]",
            "attention.W_O[head] @ attention.W_V[head // per_value_head]",
        ),
        (
            "every head its own values",
            "head // per_value_head",
            "min(head, attention.W_V.shape[0] - 1)",
        ),
        ("heads dealt out in turn", "head // per_value_head", "head % kv_heads(model)"),
        ("first value head for all", "head // per_value_head", "0"),
        ("layer ignored", "model.blocks[layer]", "model.blocks[0]"),
        (
            "keys for values",
            "attention.W_V[head // per_value_head]",
            "attention.W_K[head // per_value_head]",
        ),
        ("queries for values", "attention.W_V[head // per_value_head]", "attention.W_Q[head]"),
        (
            "all heads summed",
            "attention.W_V[head // per_value_head] @ attention.W_O[head]",
            "torch.einsum('hme,hen->mn', attention.W_V.repeat_interleave(per_value_head, 0), attention.W_O)",
        ),
        ("next head's output", "attention.W_O[head]", "attention.W_O[head - 1]"),
        (
            "the book's helper",
            "def ov_matrix(model, layer, head):\n    V, O = book_features.head_weights(model, layer)\n    return V[head] @ O[head]",
        ),
    ],
    "part3": [
        (
            "norm on the wrong side",
            "ov(model, layer, head) @ (w * m)",
            "w * (ov(model, layer, head) @ m)",
        ),
        ("norm left out", "(w * m)", "m"),
        ("norm twice", "(w * m)", "(w * w * m)"),
        ("transposed", "ov(model, layer, head) @", "ov(model, layer, head).T @"),
        ("the head's own norm", '"ln_final"', 'f"blocks.{layer}.ln1"'),
        (
            "unit length",
            "return ov(model, layer, head) @ (w * m)",
            "return torch.nn.functional.normalize(ov(model, layer, head) @ (w * m), dim=0)",
        ),
        ("divided by the norm's weights", "(w * m)", "(m / w)"),
        ("sign", "return ov", "return -ov"),
        ("layer ignored", "ov(model, layer, head)", "ov(model, 0, head)"),
        ("head ignored", "ov(model, layer, head)", "ov(model, layer, 1)"),
        ("a matrix", "@ (w * m)", "* (w * m)"),
    ],
    "part4": [
        (
            "σ held fixed",
            "return fixed - px * (px * fixed).mean(-1, keepdim=True) / sigma**2",
            "return fixed",
        ),
        ("sign of the projection", "return fixed - px", "return fixed + px"),
        ("weights left out", "w * y / sigma", "y / sigma"),
        (
            "ε outside the root",
            "(px.pow(2).mean(-1, keepdim=True) + eps).sqrt()",
            "px.pow(2).mean(-1, keepdim=True).sqrt() + eps",
        ),
        (
            "n − 1",
            "px.pow(2).mean(-1, keepdim=True)",
            "(px.pow(2).sum(-1, keepdim=True) / (x.shape[-1] - 1))",
        ),
        (
            "mean over the wrong axis",
            "px.pow(2).mean(-1, keepdim=True)",
            "px.pow(2).mean(0, keepdim=True)",
        ),
        ("never centred", "if centred else x", "if False else x"),
        (
            "gradient not centred",
            "    if centred:\n        fixed = fixed - fixed.mean(-1, keepdim=True)\n",
            "",
        ),
        (
            "sum for mean",
            "(px * fixed).mean(-1, keepdim=True)",
            "(px * fixed).sum(-1, keepdim=True)",
        ),
        (
            "always centred",
            "x - x.mean(-1, keepdim=True) if centred else x",
            "x - x.mean(-1, keepdim=True)",
        ),
        ("σ once", "/ sigma**2", "/ sigma"),
        (
            "the norm itself",
            "return fixed - px * (px * fixed).mean(-1, keepdim=True) / sigma**2",
            "return w * px / sigma",
        ),
    ],
    "part5": [
        ("cosine", "(y1 @ y1)\n", "(y1.norm() * y2.norm())\n"),
        ("the other length", "(y1 @ y1)\n", "(y2 @ y2)\n"),
        ("length not squared", "(y1 @ y1)\n", "y1.norm()\n"),
        ("no intercept", "    a, b = a - a.mean(), b - b.mean()\n", ""),
        ("axes exchanged", "(a @ b) / (a @ a)", "(a @ b) / (b @ b)"),
        ("correlation", "(a @ b) / (a @ a)", "(a @ b) / (a.norm() * b.norm())"),
        (
            "pair exchanged",
            "return float(coupling), float((a @ b) / (a @ a))",
            "return float((a @ b) / (a @ a)), float(coupling)",
        ),
        ("ratio of means", "float((a @ b) / (a @ a))", "float((x @ y2).mean() / (x @ y1).mean())"),
        ("slope from the weights", "float((a @ b) / (a @ a))", "float(coupling)"),
        ("coupling from the data", "return float(coupling)", "return float((a @ b) / (a @ a))"),
        ("first inputs only", "a, b = x @ y1, x @ y2", "x = x[:3]\n    a, b = x @ y1, x @ y2"),
    ],
}

RIGHT = {
    "part1": [
        "def observable_vector(model, weights):\n    n = torch.zeros(model.cfg.d_vocab)\n    for t, v in weights.items():\n        n[single_token(model, t)] += v\n    return model.W_U @ n",
        "def observable_vector(model, weights):\n    ids = [single_token(model, t) for t in weights]\n    return torch.einsum('dt,t->d', model.W_U[:, ids], torch.tensor(list(weights.values())))",
    ],
    "part2": [
        "def ov_matrix(model, l, h):\n    V = model.blocks[l].attn.W_V\n    O = model.blocks[l].attn.W_O\n    V = V.repeat_interleave(O.shape[0] // V.shape[0], dim=0)\n    return torch.einsum('de,ef->df', V[h], O[h])",
        "def ov_matrix(model, layer, head):\n    per = model.cfg.n_heads // kv_heads(model)\n    kv = int(head / per)\n    return torch.matmul(model.W_V[layer, kv], model.W_O[layer, head])",
    ],
    "part3": [
        "def feature_vector(model, layer, head, m):\n    W = ov(model, layer, head)\n    scale = model.ln_final.weight\n    return torch.einsum('io,o,o->i', W, scale, m)",
    ],
    "part4": [
        "def norm_gradient(y, x, w, eps, centred):\n    z = x.clone().requires_grad_(True)\n    p = z - z.mean(-1, keepdim=True) if centred else z\n    out = w * p / torch.sqrt((p ** 2).mean(-1, keepdim=True) + eps)\n    return torch.autograd.grad(out @ y, z, grad_outputs=torch.ones(len(x)))[0]",
        "def norm_gradient(y, x, w, eps, centred):\n    d = x.shape[1]\n    P = torch.eye(d) - (torch.ones(d, d) / d if centred else 0)\n    rows = []\n    for row in x:\n        c = P @ row\n        s = ((c @ c) / d + eps) ** 0.5\n        J = torch.diag(w) @ (torch.eye(d) / s - torch.outer(c, c) / (d * s ** 3)) @ P\n        rows.append(J.T @ y)\n    return torch.stack(rows)",
    ],
    "part5": [
        "def coupling_and_slope(y1, y2, x):\n    c = (y1 * y2).sum() / y1.norm() ** 2\n    fit = np.polyfit((x @ y1).double().numpy(), (x @ y2).double().numpy(), 1)\n    return c.item(), fit[0]".replace(
            "def ", "import numpy as np\ndef ", 1
        ),
        "def coupling_and_slope(y1, y2, x):\n    return (y1 @ y2 / (y1 @ y1)).item(), stats.linregress(x @ y1, x @ y2).slope",
    ],
}
