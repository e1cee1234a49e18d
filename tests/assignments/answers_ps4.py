"""Problem set 4: wrong answers (label, old text, new text) or (label, whole cell), and right ones in other styles."""

WRONG = {
    "part1": [
        ("both halves the same", "report += drawn[per_gender:]", "report += drawn[:per_gender]"),
        (
            "one person in both",
            "report += drawn[per_gender:]",
            "report += drawn[per_gender - 1 : -1]",
        ),
        (
            "seed ignored",
            "drawn = random.sample(group, 2 * per_gender)",
            "drawn = group[: 2 * per_gender]",
        ),
        ("seed typed in", "Random(seed)", "Random(0)"),
        ("no seed at all", "Random(seed)", "Random()"),
        (
            "genders not balanced",
            'for gender in "FM":\n        group = [person for person in people if person[1] == gender]',
            'for gender in "FM":\n        group = [person for person in people if person not in choose + report]',
        ),
        (
            "women choose and men report",
            "report += drawn[per_gender:]",
            'report += drawn[per_gender:]\n    choose, report = ([p for p in choose + report if p[1] == g] for g in "FM")',
        ),
        (
            "per_gender ignored",
            "drawn = random.sample(group, 2 * per_gender)",
            "per_gender = 4\n        drawn = random.sample(group, 2 * per_gender)",
        ),
        (
            "the list is shuffled in place",
            "random = Random(seed)",
            "random = Random(seed)\n    random.shuffle(people)",
        ),
        (
            "people are taken out of the list",
            "drawn = random.sample(group, 2 * per_gender)",
            "drawn = random.sample(group, 2 * per_gender)\n        people.remove(drawn[0])",
        ),
        (
            "no error for too few",
            "if len(group) < 2 * per_gender:",
            "if len(group) < 2 * per_gender:\n            return group, group\n        if False:",
        ),
        (
            "always the same choosers",
            "drawn = random.sample(group, 2 * per_gender)",
            "drawn = group[:per_gender] + random.sample(group[per_gender:], per_gender)",
        ),
    ],
    "part2": [
        ("sign", "norm(stream) - norm(patched)", "norm(patched) - norm(stream)"),
        ("no final norm", "(norm(stream) - norm(patched)) @ m", "(stream - patched) @ m"),
        ("norm of the difference", "norm(stream) - norm(patched)", "norm(stream - patched)"),
        (
            "all heads of the layer",
            "(there[z][:, -1, head] - here[z][:, -1, head]) @ W_O",
            'torch.einsum("bhe,hem->bm", there[z][:, -1] - here[z][:, -1], head_weights(model, layer)[1])',
        ),
        (
            "clean and corrupted exchanged",
            "there[z][:, -1, head] - here[z][:, -1, head]",
            "here[z][:, -1, head] - there[z][:, -1, head]",
        ),
        (
            "first position",
            "there[z][:, -1, head] - here[z][:, -1, head]",
            "there[z][:, 0, head] - here[z][:, 0, head]",
        ),
        (
            "mean over positions",
            "there[z][:, -1, head] - here[z][:, -1, head]",
            "there[z][:, :, head].mean(1) - here[z][:, :, head].mean(1)",
        ),
        (
            "mean over pairs",
            "return (norm(stream) - norm(patched)) @ m",
            "return ((norm(stream) - norm(patched)) @ m).mean()",
        ),
        ("corrupted stream", "here[x][:, -1]", "read(model, corrupted, [x])[0][x][:, -1]"),
        (
            "taken away instead of exchanged",
            "there[z][:, -1, head] - here[z][:, -1, head]",
            "-here[z][:, -1, head]",
        ),
        (
            "added instead of exchanged",
            "there[z][:, -1, head] - here[z][:, -1, head]",
            "there[z][:, -1, head]",
        ),
        (
            "another head's output",
            "head_weights(model, layer)[1][head]",
            "head_weights(model, layer)[1][0]",
        ),
        (
            "total instead of direct effect",
            "return (norm(stream) - norm(patched)) @ m",
            """def swap(value, hook):
        value = value.clone()
        value[:, -1, head] = there[z][:, -1, head]
        return value

    with model.hooks(fwd_hooks=[(z, swap)]):
        after, _ = read(model, clean, [x])
    return (norm(stream) - norm(after[x][:, -1])) @ m""",
        ),
        (
            "the book's helper",
            "def direct_effect(model, clean, corrupted, layer, head, m):\n    from helpers.observable_propagation.patching import path_patching as p\n    n = Observable.of(model, {' she': 1, ' he': -1})\n    return p(model, clean, corrupted, n)[:, layer, head]",
        ),
    ],
    "part3": [
        ("scale ignored", "scale * v", "v"),
        ("unit length", "scale * v", "scale * v / v.norm()"),
        ("all positions", "h[:, position] += scale * v", "h += scale * v"),
        ("one position off", "h[:, position] +=", "h[:, position - 1] +="),
        ("multiplied", "h[:, position] += scale * v", "h[:, position] *= 1 + scale * v"),
        ("replaced", "h[:, position] += scale * v", "h[:, position] = scale * v"),
        ("after the layer", "hook_resid_pre", "hook_resid_post"),
        ("sign", "+= scale * v", "-= scale * v"),
        ("first prompt only", "h[:, position] +=", "h[0, position] +="),
        ("hook not returned", "        return h\n", ""),
        (
            "hook left on",
            'with torch.no_grad(), model.hooks(fwd_hooks=[(f"blocks.{layer}.hook_resid_pre", add)]):\n        return model(tokens)[:, -1]',
            'model.add_hook(f"blocks.{layer}.hook_resid_pre", add)\n    return model(tokens)[:, -1].detach()',
        ),
        (
            "softmax over prompts",
            "return model(tokens)[:, -1]",
            "return model(tokens)[:, -1].softmax(0)",
        ),
    ],
    "part4": [
        ("sign", "women.mean() - men.mean()", "men.mean() - women.mean()"),
        (
            "spread for error",
            "(women.var() / len(women) + men.var() / len(men)).sqrt()",
            "(women.var() + men.var()).sqrt()",
        ),
        (
            "divided by n",
            "women.var() / len(women) + men.var() / len(men)",
            "women.var(correction=0) / len(women) + men.var(correction=0) / len(men)",
        ),
        (
            "one group's error",
            "women.var() / len(women) + men.var() / len(men)",
            "women.var() / len(women)",
        ),
        (
            "errors added",
            "(women.var() / len(women) + men.var() / len(men)).sqrt()",
            "(women.var() / len(women)).sqrt() + (men.var() / len(men)).sqrt()",
        ),
        (
            "all values in one",
            "women.var() / len(women) + men.var() / len(men)",
            "values.var() / len(values)",
        ),
        ("variance for error", ".sqrt()\n", "\n"),
        ("sums for means", "women.mean() - men.mean()", "women.sum() - men.sum()"),
        ("everybody's mean", "men.mean())", "values.mean())"),
        ("medians", "women.mean() - men.mean()", "women.median() - men.median()"),
        (
            "error first",
            "return float(women.mean() - men.mean()), float(error)",
            "return float(error), float(women.mean() - men.mean())",
        ),
        (
            "equal groups assumed",
            "women, men = values[female], values[~female]",
            "women, men = values[: len(values) // 2], values[len(values) // 2 :]",
        ),
    ],
    "part5": [
        ("chosen on the reporting half", "abs(gaps_choose[i])", "abs(gaps_report[i])"),
        ("the choosing half reported", "gaps_report[best]", "gaps_choose[best]"),
        ("smallest, not nearest to zero", "abs(gaps_choose[i])", "gaps_choose[i]"),
        ("largest", "min(range", "max(range"),
        (
            "both halves averaged for the choice",
            "abs(gaps_choose[i])",
            "abs(gaps_choose[i] + gaps_report[i])",
        ),
        (
            "both halves averaged for the report",
            "gaps_report[best]",
            "(gaps_choose[best] + gaps_report[best]) / 2",
        ),
        ("an index", "return multiples[best]", "return best"),
        ("smallest multiple", "abs(gaps_choose[i])", "abs(multiples[i])"),
        ("last of equal gaps", "range(len(multiples))", "reversed(range(len(multiples)))"),
        ("size only", "gaps_report[best]", "abs(gaps_report[best])"),
        (
            "pair exchanged",
            "return multiples[best], gaps_report[best]",
            "return gaps_report[best], multiples[best]",
        ),
        ("typed in", "return multiples[best], gaps_report[best]", "return -1.0, -0.75"),
    ],
}

RIGHT = {
    "part1": [
        "def held_out(people, per_gender, seed):\n    rng = Random(seed)\n    mixed = list(people)\n    rng.shuffle(mixed)\n    women = [p for p in mixed if p[1] == 'F']\n    men = [p for p in mixed if p[1] == 'M']\n    if min(len(women), len(men)) < 2 * per_gender:\n        raise ValueError('too few')\n    k = per_gender\n    return women[:k] + men[:k], women[k:2 * k] + men[k:2 * k]",
    ],
    "part2": [
        "def direct_effect(model, clean, corrupted, layer, head, m):\n    c, d = (model.run_with_cache(t)[1] for t in (clean, corrupted))\n    name = f'blocks.{layer}.attn.hook_z'\n    ln = Norm.of(model, 'ln_final')\n    W = model.blocks[layer].attn.W_O[head]\n    out = []\n    for i in range(len(clean)):\n        r = c['ln_final.hook_in'][i, -1]\n        change = torch.einsum('e,em->m', d[name][i, -1, head] - c[name][i, -1, head], W)\n        out.append(m @ ln(r) - m @ ln(r + change))\n    return torch.stack(out)",
    ],
    "part3": [
        "def with_added(model, tokens, layer, position, v, scale):\n    def hook_fn(resid, hook):\n        mask = torch.zeros(resid.shape[1])\n        mask[position] = 1\n        return resid + scale * torch.einsum('p,d->pd', mask, v)\n    return model.run_with_hooks(tokens, fwd_hooks=[(f'blocks.{layer}.hook_resid_pre', hook_fn)])[:, -1]",
    ],
    "part4": [
        "def gap_and_error(values, female):\n    v = np.asarray(values)\n    f = np.asarray(female)\n    a, b = v[f], v[~f]\n    return a.mean() - b.mean(), np.sqrt(a.var(ddof=1) / a.size + b.var(ddof=1) / b.size)",
        "def gap_and_error(values, female):\n    groups = [[float(x) for x, f in zip(values, female) if bool(f) is w] for w in (True, False)]\n    means = [sum(g) / len(g) for g in groups]\n    parts = [sum((x - m) ** 2 for x in g) / (len(g) - 1) / len(g) for g, m in zip(groups, means)]\n    return means[0] - means[1], sum(parts) ** 0.5",
    ],
    "part5": [
        "def choose_then_report(multiples, gaps_choose, gaps_report):\n    i = int(np.argmin(np.abs(gaps_choose)))\n    return multiples[i], gaps_report[i]",
        "def choose_then_report(multiples, gaps_choose, gaps_report):\n    best = None\n    for m, a, b in zip(multiples, gaps_choose, gaps_report):\n        if best is None or abs(a) < best[0]:\n            best = (abs(a), m, b)\n    return best[1:]",
    ],
}
