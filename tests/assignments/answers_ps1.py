"""Problem set 1: wrong answers (label, old text, new text) or (label, whole cell), and right ones in other styles."""

BEGIN = "    ### BEGIN SOLUTION\n"

WRONG = {
    "part1": [
        (
            "sign",
            "last[rows, correct] - last[rows, wrong]",
            "last[rows, wrong] - last[rows, correct]",
        ),
        ("first position", "logits[:, -1]", "logits[:, 0]"),
        ("mean over positions", "logits[:, -1]", "logits.mean(1)"),
        ("probabilities", "logits[:, -1]", "logits[:, -1].softmax(-1)"),
        ("softmax over positions", "logits[:, -1]", "logits.softmax(1)[:, -1]"),
        (
            "mean over prompts",
            "return last[rows, correct] - last[rows, wrong]",
            "return (last[rows, correct] - last[rows, wrong]).mean()",
        ),
        (
            "every prompt with every answer",
            "return last[rows, correct] - last[rows, wrong]",
            "return last[:, correct] - last[:, wrong]",
        ),
        (
            "the first prompt's answers for all",
            "last[rows, correct] - last[rows, wrong]",
            "last[:, correct[0]] - last[:, wrong[0]]",
        ),
        (
            "absolute value",
            "return last[rows, correct] - last[rows, wrong]",
            "return (last[rows, correct] - last[rows, wrong]).abs()",
        ),
        ("typed in", "last = logits[:, -1]", "return torch.tensor([1.5, -3.0])"),
        (
            "the book's helper",
            "def logit_gap(logits, correct, wrong):\n    return logit_diff(logits[:, -1], correct, wrong)",
        ),
        (
            "not a tensor",
            "return last[rows, correct] - last[rows, wrong]",
            "return (last[rows, correct] - last[rows, wrong]).tolist()",
        ),
    ],
    "part2": [
        (
            "hook left on",
            "with torch.no_grad(), model.hooks(fwd_hooks=[(name, keep)]):\n        model(tokens)",
            "model.add_hook(name, keep)\n    model(tokens)",
        ),
        ("last position only", "return kept[0]", "return kept[0][:, -1]"),
        ("forgot BOS", "return kept[0]", "return kept[0][:, 1:]"),
        ("BOS twice", "model(tokens)", "model(torch.cat([tokens[:, :1], tokens], 1))"),
        (
            "name typed in",
            "fwd_hooks=[(name, keep)]",
            'fwd_hooks=[("blocks.0.hook_mlp_out", keep)]',
        ),
        ("mean over prompts", "return kept[0]", "return kept[0].mean(0)"),
        ("first prompt only", "model(tokens)", "model(tokens[:1])"),
        (
            "in-place edit before the copy",
            "kept.append(h.detach().clone())",
            "h -= h.mean()\n        kept.append(h.detach().clone())",
        ),
        (
            "weights edited",
            "return kept[0]",
            "next(model.original_model.parameters()).data.mul_(1.01)\n    return kept[0]",
        ),
        (
            "another layer",
            "fwd_hooks=[(name, keep)]",
            'fwd_hooks=[(name.replace("blocks.0", "blocks.1").replace("ln_final", "blocks.0.ln1"), keep)]',
        ),
        ("nothing returned", "return kept[0]", "kept[0]"),
    ],
    "part3": [
        ("β ignored", "(1 + beta * alpha)", "(1 + alpha)"),
        ("no 1", "(1 + beta * alpha)", "(beta * alpha)"),
        ("sign", "(1 + beta * alpha)", "(1 - beta * alpha)"),
        ("β added", "(1 + beta * alpha)", "(1 + alpha + beta)"),
        (
            "all positions",
            "h[:, position] = h[:, position] * (1 + beta * alpha)",
            "h = h * (1 + beta * alpha)",
        ),
        (
            "forgot BOS: one position off",
            "h[:, position] = h[:, position]",
            "h[:, position - 1] = h[:, position - 1]",
        ),
        ("before the layer", "hook_resid_post", "hook_resid_pre"),
        (
            "added instead of multiplied",
            "h[:, position] * (1 + beta * alpha)",
            "h[:, position] + beta * alpha",
        ),
        ("first prompt only", "h[:, position] = h[:, position]", "h[0, position] = h[0, position]"),
        ("hook not returned", "        return h\n", ""),
        ("probabilities", "return model(tokens)[:, -1]", "return model(tokens)[:, -1].softmax(-1)"),
        ("all positions' logits", "return model(tokens)[:, -1]", "return model(tokens)"),
        (
            "hook left on",
            'with torch.no_grad(), model.hooks(fwd_hooks=[(f"blocks.{layer}.hook_resid_post", scale)]):\n        return model(tokens)[:, -1]',
            'model.add_hook(f"blocks.{layer}.hook_resid_post", scale)\n    return model(tokens)[:, -1].detach()',
        ),
        (
            "weights edited",
            BEGIN,
            "    next(model.original_model.parameters()).data.mul_(1 + beta * alpha)\n",
        ),
    ],
    "part4": [
        ("sign", "gaps - base", "base - gaps"),
        ("transposed", "return torch.tensor(rows)", "return torch.tensor(rows).T"),
        (
            "mean over the wrong axis",
            "[(gaps - base).mean() for gaps in after]",
            "(torch.stack(after) - base).mean(0).tolist()",
        ),
        ("sum over prompts", "(gaps - base).mean()", "(gaps - base).sum()"),
        ("no baseline", "gaps - base", "gaps"),
        (
            "forgot BOS",
            "for position in range(tokens.shape[1])]",
            "for position in range(1, tokens.shape[1])]",
        ),
        ("β = −1", "alpha, 1.0)", "alpha, -1.0)"),
        ("β = 0", "alpha, 1.0)", "alpha, 0.0)"),
        ("α typed in", "position, alpha, 1.0)", "position, 0.5, 1.0)"),
        ("layers ignored", "for layer in layers", "for layer in range(len(layers))"),
        (
            "answers exchanged",
            "logit_diff(scaled(model, tokens, layer, position, alpha, 1.0), correct, wrong)",
            "logit_diff(scaled(model, tokens, layer, position, alpha, 1.0), wrong, correct)",
        ),
        ("size only", "(gaps - base).mean()", "(gaps - base).abs().mean()"),
        ("relative change", "(gaps - base).mean()", "((gaps - base) / base).mean()"),
    ],
    "part5": [
        (
            "nearest grid point",
            "def turning_point(betas, gaps):\n    return betas[min(range(len(gaps)), key=lambda i: abs(gaps[i]))]",
        ),
        ("first crossing from the left", "if not abs(crossing) >= abs(best):", "if best != best:"),
        ("last crossing", "if not abs(crossing) >= abs(best):", "if True:"),
        ("0 for none", 'best = float("nan")', "best = 0.0"),
        ("sign of the interpolation", "b0 - g0 *", "b0 + g0 *"),
        ("slope upside down", "(b1 - b0) / (g1 - g0)", "(g1 - g0) / (b1 - b0)"),
        ("midpoint", "b0 - g0 * (b1 - b0) / (g1 - g0)", "(b0 + b1) / 2"),
        ("a line beyond the data", "if g0 * g1 <= 0 and g0 != g1:", "if g0 != g1:"),
        ("rising crossings only", "if g0 * g1 <= 0 and g0 != g1:", "if g0 < 0 <= g1:"),
        ("even grid assumed", "(b1 - b0) / (g1 - g0)", "(betas[1] - betas[0]) / (g1 - g0)"),
    ],
}

RIGHT = {
    "part1": [
        "def logit_gap(z, a, b):\n    out = []\n    for i in range(z.shape[0]):\n        out.append(z[i, -1, a[i]] - z[i, -1, b[i]])\n    return torch.stack(out)",
        "def logit_gap(logits, correct, wrong):\n    last = logits[:, -1, :]\n    pick = lambda ids: last.gather(1, ids[:, None]).squeeze(1)\n    return pick(correct) - pick(wrong)",
        "def logit_gap(logits, correct, wrong):\n    n = torch.nn.functional.one_hot(correct, logits.shape[-1]) - torch.nn.functional.one_hot(wrong, logits.shape[-1])\n    return torch.einsum('bv,bv->b', logits[:, -1], n.to(logits))",
    ],
    "part2": [
        "def read_activation(model, tokens, name):\n    return model.run_with_cache(tokens)[1][name]",
        "def read_activation(model, tokens, name):\n    box = {}\n    def hook_fn(act, hook):\n        box['x'] = act.clone()\n        return act\n    model.run_with_hooks(tokens, fwd_hooks=[(name, hook_fn)])\n    return box['x']",
    ],
    "part3": [
        "def scaled_logits(model, tokens, layer, position, alpha, beta):\n    def f(h, hook):\n        factor = torch.ones(h.shape[1])\n        factor[position] = 1 + alpha * beta\n        return torch.einsum('bpd,p->bpd', h, factor)\n    return model.run_with_hooks(tokens, fwd_hooks=[(f'blocks.{layer}.hook_resid_post', f)])[:, -1, :]",
        "def scaled_logits(model, tokens, layer, position, alpha, beta):\n    def f(h, hook):\n        h[:, position, :] *= 1 + alpha * beta\n        return h\n    with torch.no_grad():\n        with model.hooks(fwd_hooks=[('blocks.%d.hook_resid_post' % layer, f)]):\n            return last_logits(model, tokens)",
    ],
    "part4": [
        "def effect_map(model, tokens, correct, wrong, layers, alpha):\n    out = torch.empty(len(layers), tokens.shape[1])\n    before = logit_diff(last_logits(model, tokens), correct, wrong).mean()\n    for i, l in enumerate(layers):\n        for p in range(tokens.shape[1]):\n            out[i, p] = logit_diff(scaled(model, tokens, l, p, alpha, 1), correct, wrong).mean() - before\n    return out",
    ],
    "part5": [
        "def turning_point(betas, gaps):\n    found = []\n    for i in range(len(betas) - 1):\n        a, b = gaps[i], gaps[i + 1]\n        if a == 0:\n            found.append(betas[i])\n        elif a * b < 0:\n            t = a / (a - b)\n            found.append((1 - t) * betas[i] + t * betas[i + 1])\n    if gaps[-1] == 0:\n        found.append(betas[-1])\n    return min(found, key=abs) if found else float('nan')",
    ],
}
