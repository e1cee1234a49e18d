"""Problem set 4: wrong answers by part and fault, and right ones in another style."""

DRAWN = "drawn = random.sample(group, 2 * per_gender)"
REPORT = "report += drawn[per_gender:]"
NORMS = "norm(stream) - norm(patched)"
CHANGE = "there[z][:, -1, head] - here[z][:, -1, head]"
EFFECT = f"({NORMS}) @ m"
ADD = "h[:, position] += scale * v"
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
        "total instead of direct effect": (
            f"return {EFFECT}",
            """def swap(value, hook):
        value = value.clone()
        value[:, -1, head] = there[z][:, -1, head]
        return value

    with model.hooks(fwd_hooks=[(z, swap)]):
        after, _ = read_activations(model, clean, [x])
    return (norm(stream) - norm(after[x][:, -1])) @ m""",
        ),
        "the book's helper": ("norm,", "patching = book_patching.path_patching\n    norm,"),
    },
    "part3": {
        "scale ignored": ("scale * v", "v"),
        "unit length": ("scale * v", "scale * v / v.norm()"),
        "all positions": (ADD, "h += scale * v"),
        "one position off": ("h[:, position] +=", "h[:, position - 1] +="),
        "multiplied": (ADD, "h[:, position] *= 1 + scale * v"),
        "replaced": (ADD, "h[:, position] = scale * v"),
        "after the layer": ("hook_resid_pre", "hook_resid_post"),
        "sign": ("+= scale * v", "-= scale * v"),
        "first prompt only": ("h[:, position] +=", "h[0, position] +="),
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
def direct_effect(model, clean, corrupted, layer, head, m):
    c, d = (model.run_with_cache(t)[1] for t in (clean, corrupted))
    name, ln = f'blocks.{layer}.attn.hook_z', Norm.of(model, 'ln_final')
    out = []
    for i in range(len(clean)):
        r, z = c['ln_final.hook_in'][i, -1], d[name][i, -1, head] - c[name][i, -1, head]
        out.append(m @ ln(r) - m @ ln(r + z @ model.blocks[layer].attn.W_O[head]))
    return torch.stack(out)
""",
    "part3": """
def with_added(model, tokens, layer, position, v, scale):
    def hook_fn(resid, hook):
        mask = torch.zeros(resid.shape[1])
        mask[position] = 1
        return resid + scale * torch.einsum('p,d->pd', mask, v)
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
