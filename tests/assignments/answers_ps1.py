"""Problem set 1: wrong answers by part and fault, and right ones in another style.

A wrong answer is the reference answer with one text replaced by another.
"""

GAP = "last[rows, correct] - rivals.max(1).values"
READ = "model.hooks(fwd_hooks=readers):\n        model(tokens)"
LENGTH = ".norm(dim=-1).mean(0)"
REST = f"""

        return hook_of_name

    readers = [(name, measure(name)) for name in names]
    with torch.no_grad(), {READ}
    return torch.stack([found[name]"""
EDIT = "next(model.original_model.parameters()).data.mul_({})"
AT_POSITION = "h[:, position] += beta * alpha * component[:, None] * unit"
CROSSES = "if g0 * g1 < 0:"

WRONG = {
    "part1": {
        "sign": (GAP, "rivals.max(1).values - last[rows, correct]"),
        "padding read": ("rows, lengths - 1", "rows, -1"),
        "one too far": ("lengths - 1", "(lengths % logits.shape[1])"),
        "first position": ("rows, lengths - 1", "rows, 0"),
        "mean over wrong answers": ("rivals.max(1).values", "rivals.mean(1)"),
        "first wrong answer": ("rivals.max(1).values", "rivals[:, 0]"),
        "weakest wrong answer": ("rivals.max(1)", "rivals.min(1)"),
        "probabilities": ("logits[rows, lengths - 1]", "logits[rows, lengths - 1].softmax(-1)"),
        "mean over prompts": (GAP, f"({GAP}).mean()"),
        "best of the whole vocabulary": ("last.gather(1, wrong)", "last"),
        "the first prompt's answers for all": (
            "gather(1, wrong)",
            "gather(1, wrong[:1] + 0 * wrong)",
        ),
        "typed in": (GAP, "torch.tensor([1.5, -2.0])"),
        "the book's helper": (GAP, "logit_diff(last, correct, wrong[:, 0])"),
        "not a tensor": (GAP, f"({GAP}).tolist()"),
    },
    "part2": {
        "hook left on": (
            f"with torch.no_grad(), {READ}",
            "for name, hook in readers:\n        model.add_hook(name, hook)\n    model(tokens)",
        ),
        "order of the run": ("found[name] for name in names", "*found.values()"),
        "measured after the run": (f"h{LENGTH}{REST}", f"h{REST}{LENGTH}"),
        "length of the mean": ("h.norm(dim=-1).mean(0)", "h.mean(0).norm(dim=-1)"),
        "mean over positions": (".mean(0)", ".mean(1)"),
        "sum over prompts": (".mean(0)", ".sum(0)"),
        "squared": ("h.norm(dim=-1)", "h.pow(2).sum(-1)"),
        "root mean square": ("h.norm(dim=-1)", "h.pow(2).mean(-1).sqrt()"),
        "forgot BOS": ("model(tokens)", "model(tokens[:, 1:])"),
        "first prompt only": (".mean(0)", "[0]"),
        "weights edited": ("return torch", f"{EDIT.format(1.01)}\n    return torch"),
        "nothing returned": ("return torch", "torch"),
    },
    "part3": {
        "β ignored": ("beta * alpha", "alpha"),
        "whole vector": ("component[:, None] * unit", "h[:, position]"),
        "length of u": ("unit = u / u.norm()", "unit = u"),
        "length of u once": ("unit = u / u.norm()", "unit = u / u.norm().sqrt()"),
        "sign": ("+= beta", "-= beta"),
        "component alone": ("h[:, position] +=", "h[:, position] ="),
        "added, not scaled": ("component[:, None] * unit", "unit"),
        "first prompt's component": ("component[:, None]", "component[0]"),
        "size of the component": ("h[:, position] @ unit", "(h[:, position] @ unit).abs()"),
        "all positions": (AT_POSITION, "h += beta * alpha * (h @ unit)[..., None] * unit"),
        "forgot BOS: one position off": ("h[:, position]", "h[:, position - 1]"),
        "before the layer": ("hook_resid_post", "hook_resid_pre"),
        "first prompt only": (AT_POSITION, "h[0, position] += beta * alpha * component[0] * unit"),
        "hook not returned": ("        return h\n", ""),
        "probabilities": ("[:, -1]", "[:, -1].softmax(-1)"),
        "all positions' logits": ("model(tokens)[:, -1]", "model(tokens)"),
        "hook left on": ("scale)])", "scale)], reset_hooks_end=False)"),
        "weights edited": ("### BEGIN SOLUTION", EDIT.format("1 + beta * alpha")),
    },
    "part4": {
        "sign": ("gaps - base", "base - gaps"),
        "transposed": ("return effects", "return effects.T"),
        "mean over positions": ("return effects", "return effects.mean(1)"),
        "sum over prompts": ("(gaps - base).mean()", "(gaps - base).sum()"),
        "no baseline": ("gaps - base", "gaps"),
        "forgot BOS": ("return effects", "return effects[:, 1:]"),
        "β = −1": ("alpha, 1.0)", "alpha, -1.0)"),
        "α typed in": ("position, alpha, 1.0)", "position, 0.5, 1.0)"),
        "layers ignored": ("enumerate(layers)", "enumerate(range(len(layers)))"),
        "answers exchanged": ("(logits, correct, wrong)", "(logits, wrong, correct)"),
        "size only": ("(gaps - base).mean()", "(gaps - base).abs().mean()"),
        "relative change": ("(gaps - base).mean()", "((gaps - base) / base).mean()"),
    },
    "part5": {
        "nearest grid point": (
            "return min(crossings",
            "return sorted(zip(map(abs, gaps), betas))[0][1]\n    min(crossings",
        ),
        "first crossing from the left": ("(abs(b), b)", "b"),
        "last crossing": ("(abs(b), b)", "-b"),
        "the positive one of two": ("(abs(b), b)", "(abs(b), -b)"),
        "distances rounded": ("(abs(b), b)", "(round(abs(b), 1), b)"),
        "0 for none": ('default=float("nan")', "default=0.0"),
        "a touch is none": ("if g == 0", "if g != g"),
        "small gaps are zeros": ("if g == 0", "if abs(g) < 0.01"),
        "zeros in a row are none": ("if g == 0", "if g == 0 and list(gaps).count(0) < 2"),
        "interpolated by NumPy": (
            "return min(crossings",
            "import numpy as np\n    order = np.argsort(gaps)\n    if crossings:\n        return "
            "float(np.interp(0.0, np.array(gaps)[order], np.array(betas)[order]))\n"
            "    return min(crossings",
        ),
        "sign of the interpolation": ("b0 - g0 *", "b0 + g0 *"),
        "slope upside down": ("(b1 - b0) / (g1 - g0)", "(g1 - g0) / (b1 - b0)"),
        "midpoint": ("b0 - g0 * (b1 - b0) / (g1 - g0)", "(b0 + b1) / 2"),
        "a line beyond the data": (CROSSES, "if g0 != g1:"),
        "rising crossings only": (CROSSES, "if g0 < 0 < g1:"),
        "even grid assumed": ("(b1 - b0) / (g1", "(betas[1] - betas[0]) / (g1"),
    },
    "part8": {
        "answers exchanged": ("(logits, correct, wrong)[0]", "(logits, wrong, correct)[0]"),
        "β for α": ("position, alpha, 1.0)", "position, 1.0, -alpha)"),
        "β = −1": ("alpha, 1.0)", "alpha, -1.0)"),
        "layer ignored": ("tokens, layer, position, alpha", "tokens, 0, position, alpha"),
        "position ignored": ("tokens, layer, position, alpha", "tokens, layer, 1, alpha"),
        "a list": ("torch.stack(gaps)", "gaps"),
        "sorted": ("in alphas:", "in sorted(alphas):"),
        "size only": ("torch.stack(gaps)", "torch.stack(gaps).abs()"),
        "change instead of gap": (
            "return torch.stack(gaps)",
            "return torch.stack(gaps) - logit_diff(last_logits(model, tokens), correct, wrong)",
        ),
        "first and last only": ("in alphas:", "in (alphas[0], alphas[-1]):"),
    },
}

RIGHT = {
    "part1": """
def logit_gap(z, n, a, b):
    out = []
    for i in range(z.shape[0]):
        end = z[i, n[i] - 1]
        out.append(min(end[a[i]] - end[j] for j in b[i]))
    return torch.stack(out)
""",
    "part2": """
def lengths(model, tokens, names):
    rows = torch.zeros(len(names), tokens.shape[1])
    def at(i):
        def hook_fn(act, hook):
            rows[i] = (act ** 2).sum(-1).sqrt().mean(0)
            return act
        return hook_fn
    model.run_with_hooks(tokens, fwd_hooks=[(name, at(i)) for i, name in enumerate(names)])
    return rows
""",
    "part3": """
def along_logits(model, tokens, layer, position, u, alpha, beta):
    projector = torch.outer(u, u) / u.pow(2).sum()
    def f(h, hook):
        new = h.clone()
        new[:, position, :] = h[:, position, :] @ (torch.eye(len(u)) + alpha * beta * projector)
        return new
    hooks = [(f'blocks.{layer}.hook_resid_post', f)]
    return model.run_with_hooks(tokens, fwd_hooks=hooks)[:, -1, :]
""",
    "part4": """
def effect_map(model, tokens, correct, wrong, layers, alpha):
    before = logit_diff(last_logits(model, tokens), correct, wrong).mean()
    rows = []
    for l in layers:
        after = [scaled(model, tokens, l, p, alpha, 1) for p in range(tokens.shape[1])]
        rows.append([logit_diff(z, correct, wrong).mean() - before for z in after])
    return torch.tensor(rows)
""",
    "part5": """
def turning_point(betas, gaps):
    found = [b for b, g in zip(betas, gaps) if g == 0]
    for i in range(len(betas) - 1):
        if gaps[i] * gaps[i + 1] < 0:
            t = gaps[i] / (gaps[i] - gaps[i + 1])
            found.append((1 - t) * betas[i] + t * betas[i + 1])
    return min(sorted(found), key=abs) if found else float('nan')
""",
    "part8": """
STUDENT = "ada"

def effect_curve(m, t, right, other, l, p, alphas):
    logits = torch.cat([scaled(m, t, l, p, a, 1) for a in alphas])
    return logits[:, right[0]] - logits[:, other[0]]
""",
}
