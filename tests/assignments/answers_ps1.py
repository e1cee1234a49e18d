"""Problem set 1: wrong answers by part and fault, and right ones in another style.

A wrong answer is the reference answer with one text replaced by another.
"""

GAP = "last[rows, correct] - last[rows, wrong]"
READ = "with torch.no_grad(), model.hooks(fwd_hooks=[(name, keep)]):\n        model(tokens)"
EDIT = "next(model.original_model.parameters()).data.mul_({})"
AT_POSITION = "h[:, position] = h[:, position]"
BETTER = "if not abs(crossing) >= abs(best):"
CROSSES = "if g0 * g1 <= 0 and g0 != g1:"

WRONG = {
    "part1": {
        "sign": (GAP, "last[rows, wrong] - last[rows, correct]"),
        "first position": ("logits[:, -1]", "logits[:, 0]"),
        "mean over positions": ("logits[:, -1]", "logits.mean(1)"),
        "probabilities": ("logits[:, -1]", "logits[:, -1].softmax(-1)"),
        "mean over prompts": (GAP, f"({GAP}).mean()"),
        "every prompt with every answer": (GAP, "last[:, correct] - last[:, wrong]"),
        "the first prompt's answers for all": (GAP, "last[:, correct[0]] - last[:, wrong[0]]"),
        "absolute value": (GAP, f"({GAP}).abs()"),
        "typed in": (GAP, "torch.tensor([1.5, -3.0])"),
        "the book's helper": (GAP, "logit_diff(last, correct, wrong)"),
        "not a tensor": (GAP, f"({GAP}).tolist()"),
    },
    "part2": {
        "hook left on": (READ, "model.add_hook(name, keep)\n    model(tokens)"),
        "last position only": ("kept[0]", "kept[0][:, -1]"),
        "forgot BOS": ("kept[0]", "kept[0][:, 1:]"),
        "BOS twice": ("model(tokens)", "model(torch.cat([tokens[:, :1], tokens], 1))"),
        "name typed in": ("(name, keep)", '("blocks.0.hook_mlp_out", keep)'),
        "mean over prompts": ("kept[0]", "kept[0].mean(0)"),
        "first prompt only": ("model(tokens)", "model(tokens[:1])"),
        "in-place edit before the copy": ("kept.append", "h -= h.mean()\n        kept.append"),
        "weights edited": ("return", f"{EDIT.format(1.01)}\n    return"),
        "nothing returned": ("return kept[0]", "kept[0]"),
    },
    "part3": {
        "β ignored": ("(1 + beta * alpha)", "(1 + alpha)"),
        "no 1": ("(1 + beta * alpha)", "(beta * alpha)"),
        "sign": ("(1 + beta * alpha)", "(1 - beta * alpha)"),
        "all positions": (f"{AT_POSITION} *", "h = h *"),
        "forgot BOS: one position off": ("h[:, position]", "h[:, position - 1]"),
        "before the layer": ("hook_resid_post", "hook_resid_pre"),
        "added instead of multiplied": (" * (1 + beta * alpha)", " + beta * alpha"),
        "first prompt only": (AT_POSITION, "h[0, position] = h[0, position]"),
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
        "nearest grid point": ("return best", "return sorted(zip(map(abs, gaps), betas))[0][1]"),
        "first crossing from the left": (BETTER, "if best != best:"),
        "last crossing": (BETTER, "if True:"),
        "0 for none": ('best = float("nan")', "best = 0.0"),
        "sign of the interpolation": ("b0 - g0 *", "b0 + g0 *"),
        "slope upside down": ("(b1 - b0) / (g1 - g0)", "(g1 - g0) / (b1 - b0)"),
        "midpoint": ("b0 - g0 * (b1 - b0) / (g1 - g0)", "(b0 + b1) / 2"),
        "a line beyond the data": (CROSSES, "if g0 != g1:"),
        "rising crossings only": (CROSSES, "if g0 < 0 <= g1:"),
        "even grid assumed": ("(b1 - b0) / (g1", "(betas[1] - betas[0]) / (g1"),
    },
    "part8": {
        "answers exchanged": ("(logits, correct, wrong)[0]", "(logits, wrong, correct)[0]"),
        "β for α": ("position, alpha, 1.0)", "position, 1.0, -alpha)"),
        "β = −1": ("alpha, 1.0)", "alpha, -1.0)"),
        "layer ignored": ("tokens, layer, position, alpha", "tokens, 0, position, alpha"),
        "position ignored": ("tokens, layer, position, alpha", "tokens, layer, 1, alpha"),
        "a list": ("torch.stack(gaps)", "gaps"),
        "change instead of gap": (
            "return torch.stack(gaps)",
            "return torch.stack(gaps) - logit_diff(last_logits(model, tokens), correct, wrong)",
        ),
        "first and last only": ("in alphas:", "in (alphas[0], alphas[-1]):"),
    },
}

RIGHT = {
    "part1": """
def logit_gap(z, a, b):
    out = []
    for i in range(z.shape[0]):
        out.append(z[i, -1, a[i]] - z[i, -1, b[i]])
    return torch.stack(out)
""",
    "part2": """
def read_activation(model, tokens, name):
    box = {}
    def hook_fn(act, hook):
        box['x'] = act.clone()
        return act
    model.run_with_hooks(tokens, fwd_hooks=[(name, hook_fn)])
    return box['x']
""",
    "part3": """
def scaled_logits(model, tokens, layer, position, alpha, beta):
    def f(h, hook):
        factor = torch.ones(h.shape[1])
        factor[position] = 1 + alpha * beta
        return torch.einsum('bpd,p->bpd', h, factor)
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
    return min(found, key=abs) if found else float('nan')
""",
    "part8": """
STUDENT = "ada"

def effect_curve(m, t, right, other, l, p, alphas):
    logits = torch.cat([scaled(m, t, l, p, a, 1) for a in alphas])
    return logits[:, right[0]] - logits[:, other[0]]
""",
}
