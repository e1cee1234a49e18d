"""Problem set 2: wrong answers by part and fault, and right ones in another style."""

UP, DOWN = "rival - plus[rows, correct]", "minus[rows, correct] - winner"
HINGES = "(up.clamp(min=0) + down.clamp(min=0))"
REST = "[others].view(len(base), -1).log_softmax(-1)"
LOGS, Q = f"logits{REST}", f"base{REST}"
MINIMAL = "theta.norm(dim=1).sum()"
MINUS = "scalars.applied(model, -1.0)"
CLEAN = "clean = last_logits(model, prompts.tokens)"
GRADIENT = '(gradient,) = torch.autograd.grad(terms["psi"], theta)'
CLAMP = "            theta.clamp_(-bound, bound)\n"
FRONT, RANKED = "left & ~(dominated & left).any(1)", "    return ranks\n"

WRONG = {
    "part1": {
        "sign": ("return -(up", "return (up"),
        "margin subtracted": ("plus[rows, correct] + margin", "plus[rows, correct] - margin"),
        "margin ignored": ("+ margin", ""),
        "β = −1 left out": (HINGES, "up.clamp(min=0)"),
        "answers exchanged": (UP, "plus[rows, correct] - rival"),
        "same sign for both β": (DOWN, "winner - minus[rows, correct]"),
        "sum over prompts": (".mean()", ".sum()"),
        "no hinge": (HINGES, "(up + down)"),
        "min for max": ("clamp(min=0)", "clamp(max=0)"),
        "probabilities": ("up =", "plus, minus = plus.softmax(-1), minus.softmax(-1)\n    up ="),
        "mean over wrong answers": (".amax(1)", ".mean(1)"),
        "first wrong answer": (".amax(1)", "[:, 0]"),
        "weakest wins at β = −1": (
            "minus.gather(1, wrong).amax(1)",
            "minus.gather(1, wrong).amin(1)",
        ),
        "the book's helper": ("up =", "term = book.effectiveness\n    up ="),
    },
    "part2": {
        "sign": ("-total.mean()", "total.mean()"),
        "other direction": ("(log_p.exp() * (log_p - log_q))", "(log_q.exp() * (log_q - log_p))"),
        "β = −1 left out": ("(plus, minus):", "(plus,):"),
        "mean over the vocabulary": (".sum(-1)", ".mean(-1)"),
        "sum over prompts": ("total.mean()", "total.sum()"),
        "answers counted too": (" = others[rows, wrong] = False", " = True"),
        "correct answer left out alone": ("= others[rows, wrong] = False", "= False"),
        "the first prompt's answers for all": (
            "others[rows, correct] = others[rows, wrong]",
            "others[:, correct[0]] = others[:, wrong[0]]",
        ),
        "not divided by the sum": (LOGS, "logits.log_softmax(-1)[others].view(len(base), -1)"),
        "softmax over prompts": (LOGS, LOGS.replace("max(-1)", "max(0)")),
        "bits": ("-total.mean()", "-total.mean() / 0.6931472"),
        "logits for probabilities": (LOGS, "logits[others].view(len(base), -1)"),
        "logarithm of a rounded probability": (".log_softmax(-1)", ".softmax(-1).log()"),
        "the book's helper": ("-total.mean()", "book.faithfulness(plus, minus, base)"),
    },
    "part3": {
        "no gradient": (
            "return effect + lambda_f * faith -",
            "theta = theta.detach()\n    return effect + lambda_f * faith -",
        ),
        "no gradient of E_m": ("return effect +", "return effect.item() +"),
        "no gradient of F": ("* faith -", "* float(faith) -"),
        "sign of minimality": ("- lambda_m", "+ lambda_m"),
        "sign of faithfulness": ("lambda_f * faith", "-lambda_f * faith"),
        "weights exchanged": ("lambda_f * faith - lambda_m", "lambda_m * faith - lambda_f"),
        "the chapters' minimality": (MINIMAL, "theta.abs().sum()"),
        "squares": (MINIMAL, "theta.pow(2).sum()"),
        "one length for all": (MINIMAL, "theta.norm()"),
        "by positions": (MINIMAL, "theta.norm(dim=0).sum()"),
        "mean": (MINIMAL, "theta.norm(dim=1).mean()"),
        "largest layer": (MINIMAL, "theta.norm(dim=1).max()"),
        "margin ignored": ("wrong, margin)\n    return", "wrong, 0.0)\n    return"),
        "layers counted": (MINIMAL, "(theta.norm(dim=1) > 0.01).sum()"),
        "not summed": (MINIMAL, "theta.norm(dim=1)"),
        "to be minimised": ("return effect +", "return -effect -"),
    },
    "part4": {
        "descent": ("theta += rate", "theta -= rate"),
        "stops when Ψ falls": (
            GRADIENT,
            'if _ and terms["psi"] < last:\n            break\n'
            f'        last = terms["psi"].detach()\n        {GRADIENT}',
        ),
        "trained on the test set": (CLEAN, f"prompts = task.test\n    {CLEAN}"),
        "β = −1 left out": (MINUS, "scalars.applied(model, 1.0)"),
        "β = 0 for −1": (MINUS, "scalars.applied(model, 0.0)"),
        "bounds ignored": (CLAMP, ""),
        "bounds at the end only": (
            f"{CLAMP}    return theta",
            "    return theta.clamp(-bound, bound)",
        ),
        "upper bound only": ("clamp_(-bound, bound)", "clamp_(max=bound)"),
        "no bound above 1": ("clamp_(-bound, bound)", "clamp_(-min(bound, 1), min(bound, 1))"),
        "steps bounded": (
            f"rate * gradient\n{CLAMP}",
            "(rate * gradient).clamp(-bound, bound)\n",
        ),
        "one step too many": ("range(steps)", "range(steps + 1)"),
        "one step too few": ("range(steps)", "range(steps - 1)"),
        "rate ignored": ("rate * gradient", "0.02 * gradient"),
        "sign of the gradient only": ("rate * gradient", "rate * gradient.sign()"),
        "first prompt only": (CLEAN, f"prompts = prompts.at([0])\n    {CLEAN}"),
        "faithfulness to the last step": ("terms =", "clean = plus.detach()\n        terms ="),
        "effectiveness alone": ('terms["psi"]', 'terms["E_m"]'),
        "weights edited": (
            "for _",
            "next(model.original_model.parameters()).data.add_(1e-3)\n    for _",
        ),
        "gradients pile up": (
            "theta += rate * gradient",
            'pile = gradient if "pile" not in locals() else pile + gradient\n'
            "            theta += rate * pile",
        ),
        "the book's fit": (
            CLEAN,
            f"from helpers.activation_scaling.fitting import fit as f\n    {CLEAN}",
        ),
    },
    "part5": {
        "minimised": ("points[None] >= points[:, None]", "points[None] <= points[:, None]"),
        "strictly better everywhere": ("[:, None]).any(-1)", "[:, None]).all(-1)"),
        "axes exchanged": ("(dominated & left).any(1)", "(dominated & left[:, None]).any(0)"),
        "from 0": (RANKED, "    return ranks - 1\n"),
        "front alone": (RANKED, "    return (ranks == 1).long()\n"),
        "one and two only": (RANKED, "    return ranks.clamp(max=2)\n"),
        "number that beat it": (RANKED, "    return dominated.sum(1) + 1\n"),
        "order of the sums": (RANKED, "    return points.sum(1).argsort().argsort() + 1\n"),
        "worst first": (RANKED, "    return rank + 1 - ranks\n"),
        "two measures only": ("as_good =", "points = points[:, :2]\n    as_good ="),
        "booleans": (RANKED, "    return ranks == 1\n"),
        "of the first rows only": (RANKED, "    ranks[25:] = 1\n    return ranks\n"),
        "typed in": (RANKED, "    return torch.tensor([1, 1, 3, 1, 2, 1])\n"),
    },
    "part8": {
        "training prompts": ("scalars, task.test)", "scalars, task.train)"),
        "columns exchanged": ("[result.E0, result.F]", "[result.F, result.E0]"),
        "F as a distance": ("[result.E0, result.F]", "[result.E0, -result.F]"),
        "margin ignored": (
            "= fitted(model, task, layers, margin",
            "= fitted(model, task, layers, 0.1",
        ),
        "one step": ("weight, steps, rate", "weight, 1, rate"),
        "first weight for all": ("margin, weight, steps", "margin, weights[0], steps"),
        "sorted": ("in weights:", "in sorted(weights):"),
        "transposed": ("torch.tensor(rows)", "torch.tensor(rows).T"),
    },
}

RIGHT = {
    "part1": """
def effect_term(plus, minus, correct, wrong, margin):
    lead = lambda z: (z.gather(1, correct[:, None]) - z.gather(1, wrong)).min(dim=1)[0]
    lacking = torch.relu(margin - lead(plus)) + torch.relu(margin + lead(minus))
    return -sum(lacking) / len(plus)
""",
    "part2": """
def faith_term(plus, minus, base, correct, wrong):
    answers = torch.stack([correct, wrong], 1)
    mask = torch.zeros_like(base).scatter(1, answers, float('-inf'))
    log = lambda z: (z + mask).log_softmax(-1)
    def kl(z):
        terms = log(z).exp() * (log(z) - log(base))
        return terms.nan_to_num(0.0).sum() / len(z)
    return -(kl(plus) + kl(minus))
""",
    "part3": """
def psi(theta, plus, minus, base, correct, wrong, margin, lambda_f, lambda_m):
    e, f = effect_and_faith(plus, minus, base, correct, wrong, margin)
    return e + lambda_f * f - lambda_m * (theta ** 2).sum(-1).sqrt().sum()
""",
    "part4": """
def fit_scalars(model, task, layers, objective, steps, rate, bound):
    data = task.train
    s = ActivScalar(Points.of(model, data.n_pos, sites=['mlp_out'], layers=layers))
    f0 = model(data.tokens)[:, -1]
    for i in range(steps):
        both = []
        for b in (1.0, -1.0):
            with s.applied(model, b):
                both.append(model(data.tokens)[:, -1])
        (-objective.terms(s.vec(), *both, f0, data.correct, data.wrong)['psi']).backward()
        new = s.theta['mlp_out'].data - rate * s.theta['mlp_out'].grad
        s.theta['mlp_out'].data = new.where(new.abs() <= bound, bound * new.sign())
        s.zero_grad()
    return s.theta['mlp_out'].data.clone()
""",
    "part5": """
def front_ranks(points):
    left, rank, out = list(range(len(points))), 0, torch.zeros(len(points), dtype=torch.int64)
    while left:
        rank += 1
        beaten = lambda i: any(
            (points[j] >= points[i]).all() and (points[j] > points[i]).any() for j in left
        )
        front = [i for i in left if not beaten(i)]
        out[front] = rank
        left = [i for i in left if i not in front]
    return out
""",
    "part8": """
STUDENT = "ada"

def trade_off(model, task, layers, margin, weights, steps, rate):
    out = torch.zeros(len(weights), 2)
    for i, w in enumerate(weights):
        r = evaluate(model, fitted(model, task, layers, margin, w, steps, rate), task.test)
        out[i] = torch.tensor([float(r.E0), float(r.F)])
    return out
""",
}
