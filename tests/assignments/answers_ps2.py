"""Problem set 2: wrong answers by part and fault, and right ones in another style."""

UP = "plus[rows, wrong] - plus[rows, correct]"
DOWN = "minus[rows, correct] - minus[rows, wrong]"
HINGES = "(up.clamp(min=0) + down.clamp(min=0))"
MINUS = "scalars.applied(model, -1.0)"
CLEAN = "clean = last_logits(model, prompts.tokens)"
FRONT = "~(as_good & better).any(1)"

WRONG = {
    "part1": {
        "sign": ("return -(up", "return (up"),
        "margin subtracted": ("plus[rows, correct] + margin", "plus[rows, correct] - margin"),
        "margin ignored": ("+ margin", ""),
        "β = −1 left out": (HINGES, "up.clamp(min=0)"),
        "answers exchanged": (UP, "plus[rows, correct] - plus[rows, wrong]"),
        "same sign for both β": (DOWN, "minus[rows, wrong] - minus[rows, correct]"),
        "sum over prompts": (".mean()", ".sum()"),
        "no hinge": (HINGES, "(up + down)"),
        "min for max": ("clamp(min=0)", "clamp(max=0)"),
        "probabilities": ("up =", "plus, minus = plus.softmax(-1), minus.softmax(-1)\n    up ="),
        "the book's helper": ("up =", "term = book.effectiveness\n    up ="),
    },
    "part2": {
        "sign": ("-total.mean()", "total.mean()"),
        "other direction": ("(log_p.exp() * (log_p - log_q))", "(log_q.exp() * (log_q - log_p))"),
        "β = −1 left out": ("(plus, minus):", "(plus,):"),
        "mean over the vocabulary": (".sum(-1)", ".mean(-1)"),
        "sum over prompts": ("total.mean()", "total.sum()"),
        "softmax over prompts": ("logits.log_softmax(-1)", "logits.log_softmax(0)"),
        "bits": ("-total.mean()", "-total.mean() / 0.6931472"),
        "logits for probabilities": ("log_p = logits.log_softmax(-1)", "log_p = logits"),
        "logarithm of a rounded probability": (".log_softmax(-1)", ".softmax(-1).log()"),
        "the book's helper": ("-total.mean()", "book.faithfulness(plus, minus, base)"),
    },
    "part3": {
        "sign of minimality": ("- lambda_m", "+ lambda_m"),
        "sign of faithfulness": ("lambda_f * faith", "-lambda_f * faith"),
        "weights exchanged": ("lambda_f * faith - lambda_m", "lambda_m * faith - lambda_f"),
        "no absolute value": ("theta.abs().sum()", "theta.sum()"),
        "squares": ("theta.abs().sum()", "theta.pow(2).sum()"),
        "Euclidean norm": ("theta.abs().sum()", "theta.norm()"),
        "mean": ("theta.abs().sum()", "theta.abs().mean()"),
        "margin ignored": ("wrong, margin)\n    return", "wrong, 0.0)\n    return"),
        "counted instead of summed": ("theta.abs().sum()", "(theta.abs() >= 0.01).sum()"),
        "over one axis only": ("theta.abs().sum()", "theta.abs().sum(-1)"),
        "to be minimised": ("return effect +", "return -effect -"),
    },
    "part4": {
        "descent": ("theta += rate", "theta -= rate"),
        "trained on the test set": (CLEAN, f"prompts = task.test\n    {CLEAN}"),
        "β = −1 left out": (MINUS, "scalars.applied(model, 1.0)"),
        "β = 0 for −1": (MINUS, "scalars.applied(model, 0.0)"),
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
        "minimised": (">= points[:, None]).all(-1)", "<= points[:, None]).all(-1)"),
        "strictly better everywhere": (FRONT, "~(points[None] > points[:, None]).all(-1).any(1)"),
        "equal rows beat each other": (FRONT, "as_good.sum(1) == 1"),
        "better in any measure": (FRONT, "~better.any(1)"),
        "axes exchanged": ("(as_good & better).any(1)", "(as_good & better).any(0)"),
        "complement": ("return ~", "return "),
        "indices": (FRONT, f"({FRONT}).nonzero()[:, 0]"),
        "largest sum": (FRONT, "points.sum(1) == points.sum(1).max()"),
        "best in one measure": (FRONT, "(points == points.max(0).values).any(1)"),
        "two measures only": ("as_good =", "points = points[:, :2]\n    as_good ="),
        "typed in": (FRONT, "torch.tensor([True, True, False, True, False, True])"),
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
    lead = lambda z: (z.gather(1, correct[:, None]) - z.gather(1, wrong[:, None])).squeeze(1)
    lacking = torch.relu(margin - lead(plus)) + torch.relu(margin + lead(minus))
    return -sum(lacking) / len(plus)
""",
    "part2": """
def faith_term(plus, minus, base):
    import torch.nn.functional as F
    options = {'log_target': True, 'reduction': 'batchmean'}
    kl = lambda z: F.kl_div(base.log_softmax(-1), z.log_softmax(-1), **options)
    return -(kl(plus) + kl(minus))
""",
    "part3": """
def psi(theta, plus, minus, base, correct, wrong, margin, lambda_f, lambda_m):
    e, f = effect_and_faith(plus, minus, base, correct, wrong, margin)
    return e + lambda_f * f - lambda_m * torch.linalg.vector_norm(theta.reshape(-1), ord=1)
""",
    "part4": """
def fit_scalars(model, task, layers, objective, steps, rate):
    data = task.train
    s = ActivScalar(Points.of(model, data.n_pos, sites=['mlp_out'], layers=layers))
    f0 = model(data.tokens)[:, -1]
    for i in range(steps):
        both = []
        for b in (1.0, -1.0):
            with s.applied(model, b):
                both.append(model(data.tokens)[:, -1])
        (-objective.terms(s.vec(), *both, f0, data.correct, data.wrong)['psi']).backward()
        s.theta['mlp_out'].data -= rate * s.theta['mlp_out'].grad
        s.zero_grad()
    return s.theta['mlp_out'].data.clone()
""",
    "part5": """
def on_the_front(points):
    keep = torch.ones(len(points), dtype=torch.bool)
    for i, a in enumerate(points):
        for b in points:
            if (b >= a).all() and (b > a).any():
                keep[i] = False
    return keep
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
