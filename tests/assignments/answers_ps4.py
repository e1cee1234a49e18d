"""Problem set 4: wrong answers by part and fault, and right ones in another style."""

DRAWN = "drawn = random.sample(group, 2 * per_gender)"
REPORT = "report += drawn[per_gender:]"
NORMS = "norm(stream) - norm(patched)"
CHANGE = "there[z][:, -1, head] - here[z][:, -1, head]"
EFFECT = f"({NORMS}) @ m"
ADD = "here + share * here.norm(dim=-1, keepdim=True) * unit"
ERROR = "women.var() / len(women) + men.var() / len(men)"
MEANS = "women.mean() - men.mean()"
CHOICE = "abs(gaps_choose[i])"
CHOSEN = "multiples[best], gaps_report[best]"

WRONG = {
    "part1": {
        "both halves the same": (REPORT, "report += drawn[:per_gender]"),
        "one person in both": (REPORT, "report += drawn[per_gender - 1 : -1]"),
        "seed ignored": (DRAWN, "drawn = group[: 2 * per_gender]"),
        "seed typed in": ("Random(seed)", "Random(0)"),
        "no seed at all": ("Random(seed)", "Random()"),
        "genders not balanced": ("if person[1] == gender", "if person not in choose + report"),
        "per_gender ignored": (DRAWN, f"per_gender = 4\n        {DRAWN}"),
        "the list is shuffled in place": ("(seed)\n", "(seed)\n    random.shuffle(people)\n"),
        "people are taken out of the list": (DRAWN, f"{DRAWN}\n        people.remove(drawn[0])"),
        "no error for too few": ("raise ValueError", "return group, group\n            ValueError"),
        "just enough is refused": ("< 2 * per_gender:", "<= 2 * per_gender:"),
        "sets": ("return choose, report", "return set(choose), set(report)"),
        "always the same choosers": (
            DRAWN,
            "drawn = group[:per_gender] + random.sample(group[per_gender:], per_gender)",
        ),
    },
    "part2": {
        "sign": (NORMS, "norm(patched) - norm(stream)"),
        "no final norm": (NORMS, "stream - patched"),
        "norm of the difference": (NORMS, "norm(stream - patched)"),
        "clean and corrupted exchanged": (CHANGE, f"-({CHANGE})"),
        "first position": (CHANGE, "there[z][:, 0, head] - here[z][:, 0, head]"),
        "mean over positions": (CHANGE, "(there[z] - here[z])[:, :, head].mean(1)"),
        "mean over pairs": (EFFECT, f"({EFFECT}).mean()"),
        "taken away instead of exchanged": (CHANGE, "-here[z][:, -1, head]"),
        "added instead of exchanged": (CHANGE, "there[z][:, -1, head]"),
        "another head's output": ("(model, layer)[1][head]", "(model, layer)[1][0]"),
        "last head alone": ("patched +=", "patched = stream +"),
        "first head alone": ("zip(names, heads)", "zip(names, heads[:1])"),
        "effects summed one by one": (
            "return (norm(stream) - norm(patched)) @ m",
            "both = [stream + (there[z][:, -1, h] - here[z][:, -1, h])"
            " @ head_weights(model, l)[1][h] for z, (l, h) in zip(names, heads)]\n"
            "    return sum((norm(stream) - norm(one)) @ m for one in both)",
        ),
        "total instead of direct effect": (
            f"return {EFFECT}",
            """def swap(value, hook):
        value = value.clone()
        for z, (layer, head) in zip(names, heads):
            if hook.name in z or z in hook.name or f".{layer}." in hook.name:
                value[:, -1, head] = there[z][:, -1, head]
        return value

    with model.hooks(fwd_hooks=[(z, swap) for z in names]):
        after, _ = read_activations(model, clean, ["ln_final.hook_in"])
    return (norm(stream) - norm(after["ln_final.hook_in"][:, -1])) @ m""",
        ),
        "the book's helper": ("norm,", "patching = book_patching.path_patching\n    norm,"),
    },
    "part3": {
        "share ignored": ("share * here", "here"),
        "length of v": ("v / v.norm()", "v"),
        "length ignored": ("here.norm(dim=-1, keepdim=True) * unit", "unit"),
        "one length for all": ("here.norm(dim=-1, keepdim=True)", "here.norm(dim=-1).mean()"),
        "length of the whole activation": ("here.norm(dim=-1, keepdim=True)", "h.norm()"),
        "all positions": (
            f"h[rows, positions] = {ADD}",
            "h = h + share * h.norm(dim=-1, keepdim=True) * unit",
        ),
        "all positions, one length": (
            f"h[rows, positions] = {ADD}",
            f"h += ({ADD} - here)[:, None]",
        ),
        "the first prompt's position": ("h[rows, positions]", "h[rows, positions[:1]]"),
        "one position off": ("h[rows, positions]", "h[rows, positions - 1]"),
        "replaced": (ADD, "share * here.norm(dim=-1, keepdim=True) * unit"),
        "after the layer": ("hook_resid_pre", "hook_resid_post"),
        "sign": ("here + share", "here - share"),
        "hook not returned": ("        return h\n", ""),
        "hook left on": ("add)])", "add)], reset_hooks_end=False)"),
        "softmax over prompts": ("(tokens)[:, -1]", "(tokens)[:, -1].softmax(0)"),
    },
    "part4": {
        "sign": (MEANS, "men.mean() - women.mean()"),
        "spread for error": (ERROR, "women.var() + men.var()"),
        "divided by n": ("var()", "var(correction=0)"),
        "one group's error": (ERROR, "women.var() / len(women)"),
        "all values in one": (ERROR, "values.var() / len(values)"),
        "variance for error": (".sqrt()\n", "\n"),
        "sums for means": (MEANS, "women.sum() - men.sum()"),
        "everybody's mean": ("men.mean())", "values.mean())"),
        "medians": (MEANS, "women.median() - men.median()"),
        "error first": (f"float({MEANS}), float(error)", f"float(error), float({MEANS})"),
    },
    "part5": {
        "chosen on the reporting half": (CHOICE, "abs(gaps_report[i])"),
        "the choosing half reported": ("gaps_report[best]", "gaps_choose[best]"),
        "smallest, not nearest to zero": (CHOICE, "gaps_choose[i]"),
        "largest": ("min(range", "max(range"),
        "both halves averaged for the choice": (CHOICE, "abs(gaps_choose[i] + gaps_report[i])"),
        "an index": (CHOSEN, "best, gaps_report[best]"),
        "smallest multiple": (CHOICE, "abs(multiples[i])"),
        "last of equal gaps": ("range(len(multiples))", "reversed(range(len(multiples)))"),
        "size only": ("gaps_report[best]", "abs(gaps_report[best])"),
        "gaps rounded": (CHOICE, "round(abs(gaps_choose[i]))"),
        "pair exchanged": (CHOSEN, "gaps_report[best], multiples[best]"),
        "typed in": (CHOSEN, "-1.0, -0.75"),
    },
    "part8": {
        "sign": (".mean() - values[~", ".mean() + values[~"),
        "men − women": (
            "values[prompts.female].mean() - values[~prompts.female].mean()",
            "values[~prompts.female].mean() - values[prompts.female].mean()",
        ),
        "last token": ("prompts.name_position", "-1"),
        "unit length": ("v, multiple)", "v / v.norm(), multiple)"),
        "layer ignored": ("prompts.tokens, layer,", "prompts.tokens, 2,"),
        "everybody's mean": ("values[~prompts.female].mean())", "values.mean())"),
        "multiple subtracted": ("v, multiple)", "v, -multiple)"),
        "sorted": ("in multiples:", "in sorted(multiples):"),
        "a list": ("torch.stack(found)", "[float(one) for one in found]"),
    },
}

RIGHT = {
    "part1": """
def held_out(people, per_gender, seed):
    rng, k = Random(seed), per_gender
    mixed = list(people)
    rng.shuffle(mixed)
    women = [p for p in mixed if p[1] == 'F']
    men = [p for p in mixed if p[1] == 'M']
    if min(len(women), len(men)) < 2 * k:
        raise ValueError('too few')
    return women[:k] + men[:k], women[k:2 * k] + men[k:2 * k]
""",
    "part2": """
def direct_effect(model, clean, corrupted, heads, m):
    c, d = (model.run_with_cache(t)[1] for t in (clean, corrupted))
    ln, out = Norm.of(model, 'ln_final'), []
    for i in range(len(clean)):
        r = c['ln_final.hook_in'][i, -1]
        total = torch.zeros_like(r)
        for layer, head in heads:
            z = [run[f'blocks.{layer}.attn.hook_z'][i, -1, head] for run in (d, c)]
            total = total + (z[0] - z[1]) @ model.blocks[layer].attn.W_O[head]
        out.append(m @ ln(r) - m @ ln(r + total))
    return torch.stack(out)
""",
    "part3": """
def with_share(model, tokens, layer, positions, v, share):
    def hook_fn(resid, hook):
        mask = torch.nn.functional.one_hot(positions % resid.shape[1], resid.shape[1])
        size = torch.linalg.vector_norm(resid, dim=2)
        return resid + torch.einsum('bp,d->bpd', share * mask * size, v / torch.linalg.norm(v))
    hooks = [(f'blocks.{layer}.hook_resid_pre', hook_fn)]
    return model.run_with_hooks(tokens, fwd_hooks=hooks)[:, -1]
""",
    "part4": """
def gap_and_error(values, female):
    v, f = np.asarray(values), np.asarray(female)
    a, b = v[f], v[~f]
    return a.mean() - b.mean(), np.sqrt(a.var(ddof=1) / a.size + b.var(ddof=1) / b.size)
""",
    "part5": """
def choose_then_report(multiples, gaps_choose, gaps_report):
    i = int(np.argmin(np.abs(gaps_choose)))
    return multiples[i], gaps_report[i]
""",
    "part8": """
STUDENT = "ada"

def gaps(model, prompts, n, layer, v, multiples):
    f = prompts.female.float()
    weights = f / f.sum() - (1 - f) / (1 - f).sum()
    out = torch.zeros(len(multiples))
    for i, k in enumerate(multiples):
        z = steered(model, prompts.tokens, layer, prompts.name_position, v, k)
        out[i] = n.measure(z) @ weights
    return out
""",
}
