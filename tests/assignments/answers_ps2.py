"""Problem set 2: wrong answers (label, old text, new text) or (label, whole cell), and right ones in other styles."""

WRONG = {
    "part1": [
        ("sign", "return -(up", "return (up"),
        ("margin subtracted", "plus[rows, correct] + margin", "plus[rows, correct] - margin"),
        ("margin ignored", "+ margin", ""),
        ("β = −1 left out", "up.clamp(min=0) + down.clamp(min=0)", "up.clamp(min=0)"),
        (
            "answers exchanged",
            "up = plus[rows, wrong] - plus[rows, correct]",
            "up = plus[rows, correct] - plus[rows, wrong]",
        ),
        (
            "same sign for both β",
            "down = minus[rows, correct] - minus[rows, wrong]",
            "down = minus[rows, wrong] - minus[rows, correct]",
        ),
        ("sum over prompts", ".mean()", ".sum()"),
        ("no hinge", "(up.clamp(min=0) + down.clamp(min=0))", "(up + down)"),
        (
            "hinge outside the mean",
            "-(up.clamp(min=0) + down.clamp(min=0)).mean()",
            "-(up.mean().clamp(min=0) + down.mean().clamp(min=0))",
        ),
        ("min for max", "clamp(min=0)", "clamp(max=0)"),
        (
            "probabilities",
            "rows = torch.arange(len(plus))",
            "rows, plus, minus = torch.arange(len(plus)), plus.softmax(-1), minus.softmax(-1)",
        ),
        (
            "typed in",
            "rows = torch.arange(len(plus))",
            "return torch.tensor({0.0: 0.0, 3.0: -2.0}.get(margin, -5.0))",
        ),
        (
            "the book's helper",
            "def effect_term(plus, minus, correct, wrong, margin):\n    return book.effectiveness(plus, minus, correct, wrong, margin)",
        ),
    ],
    "part2": [
        ("sign", "return -total.mean()", "return total.mean()"),
        ("other direction", "(log_p.exp() * (log_p - log_q))", "(log_q.exp() * (log_q - log_p))"),
        ("β = −1 left out", "for logits in (plus, minus):", "for logits in (plus,):"),
        ("mean over the vocabulary", ".sum(-1)", ".mean(-1)"),
        ("sum over prompts", "total.mean()", "total.sum()"),
        ("softmax over prompts", "logits.log_softmax(-1)", "logits.log_softmax(0)"),
        ("bits", "return -total.mean()", "return -total.mean() / 0.6931472"),
        ("logits for probabilities", "log_p = logits.log_softmax(-1)", "log_p = logits"),
        (
            "logarithm of a rounded probability",
            "logits.log_softmax(-1)",
            "logits.softmax(-1).log()",
        ),
        ("mean of both β", "-total.mean()", "-total.mean() / 2"),
        (
            "the book's helper",
            "def faith_term(plus, minus, base):\n    return book.faithfulness(plus, minus, base)",
        ),
    ],
    "part3": [
        ("sign of minimality", "- lambda_m", "+ lambda_m"),
        ("sign of faithfulness", "lambda_f * faith", "-lambda_f * faith"),
        ("weights exchanged", "lambda_f * faith - lambda_m *", "lambda_m * faith - lambda_f *"),
        ("no absolute value", "theta.abs().sum()", "theta.sum()"),
        ("squares", "theta.abs().sum()", "theta.pow(2).sum()"),
        ("Euclidean norm", "theta.abs().sum()", "theta.norm()"),
        ("mean", "theta.abs().sum()", "theta.abs().mean()"),
        (
            "margin ignored",
            "correct, wrong, margin)\n    return",
            "correct, wrong, 0.0)\n    return",
        ),
        ("counted instead of summed", "theta.abs().sum()", "(theta.abs() >= 0.01).sum()"),
        ("over one axis only", "theta.abs().sum()", "theta.abs().sum(-1)"),
        (
            "to be minimised",
            "return effect + lambda_f * faith - lambda_m * theta.abs().sum()",
            "return -(effect + lambda_f * faith - lambda_m * theta.abs().sum())",
        ),
    ],
    "part4": [
        ("descent", "theta += rate", "theta -= rate"),
        (
            "trained on the test set",
            "base = last_logits(model, prompts.tokens)",
            "prompts = task.test\n    base = last_logits(model, prompts.tokens)",
        ),
        ("β = −1 left out", "scalars.applied(model, -1.0)", "scalars.applied(model, 1.0)"),
        ("β = 0 for −1", "scalars.applied(model, -1.0)", "scalars.applied(model, 0.0)"),
        ("one step too many", "range(steps)", "range(steps + 1)"),
        ("one step too few", "range(steps)", "range(steps - 1)"),
        ("rate ignored", "rate * gradient", "0.02 * gradient"),
        ("sign of the gradient only", "rate * gradient", "rate * gradient.sign()"),
        (
            "first prompt only",
            "base = last_logits(model, prompts.tokens)",
            "prompts = prompts.at([0])\n    base = last_logits(model, prompts.tokens)",
        ),
        (
            "faithfulness to the last step",
            "terms = objective",
            "base = plus.detach()\n        terms = objective",
        ),
        ("effectiveness alone", 'terms["psi"]', 'terms["E_m"]'),
        (
            "weights edited",
            "theta += rate * gradient",
            "theta += rate * gradient\n            next(model.original_model.parameters()).data.add_(1e-3)",
        ),
        (
            "gradients pile up",
            "theta += rate * gradient",
            'pile = gradient if "pile" not in locals() else pile + gradient\n            theta += rate * pile',
        ),
        (
            "gradient still attached",
            "return theta.detach()",
            "return (theta + 0 * theta.sum()).mean(1)",
        ),
        (
            "the book's fit",
            "base = last_logits(model, prompts.tokens)",
            "from helpers.activation_scaling.fitting import fit\n    return fit(model, scalars, prompts, objective, learning_rate=rate, epochs=max(1, steps)).intervention.theta['mlp_out'].detach()",
        ),
    ],
    "part5": [
        ("minimised", ">= points[:, None]).all(-1)", "<= points[:, None]).all(-1)"),
        (
            "strictly better everywhere",
            "~(as_good & better).any(1)",
            "~(points[None] > points[:, None]).all(-1).any(1)",
        ),
        ("equal rows beat each other", "~(as_good & better).any(1)", "as_good.sum(1) == 1"),
        ("better in any measure", "~(as_good & better).any(1)", "~better.any(1)"),
        ("axes exchanged", "(as_good & better).any(1)", "(as_good & better).any(0)"),
        ("complement", "return ~", "return "),
        (
            "indices",
            "return ~(as_good & better).any(1)",
            "return (~(as_good & better).any(1)).nonzero()[:, 0]",
        ),
        (
            "largest sum",
            "return ~(as_good & better).any(1)",
            "return points.sum(1) == points.sum(1).max()",
        ),
        (
            "best in one measure",
            "return ~(as_good & better).any(1)",
            "return (points == points.max(0).values).any(1)",
        ),
        (
            "two measures only",
            "as_good = (points[None]",
            "points = points[:, :2]\n    as_good = (points[None]",
        ),
        (
            "only the neighbour",
            "return ~(as_good & better).any(1)",
            "return ~(as_good & better).diagonal(1).any(-1).repeat(len(points))",
        ),
        (
            "typed in",
            "as_good =",
            "return torch.tensor([True, True, False, True, False, True])\n    as_good =",
        ),
    ],
}

RIGHT = {
    "part1": [
        "def effect_term(plus, minus, correct, wrong, margin):\n    total = 0\n    for p, q, c, w in zip(plus, minus, correct, wrong):\n        total = total + torch.relu(p[w] - p[c] + margin) + torch.relu(q[c] - q[w] + margin)\n    return -total / len(plus)",
        "def effect_term(plus, minus, correct, wrong, margin):\n    lead = lambda z: (z.gather(1, correct[:, None]) - z.gather(1, wrong[:, None])).squeeze(1)\n    a = torch.minimum(lead(plus) - margin, torch.zeros(len(plus)))\n    b = torch.minimum(-lead(minus) - margin, torch.zeros(len(plus)))\n    return a.mean() + b.mean()",
    ],
    "part2": [
        "def faith_term(plus, minus, base):\n    import torch.nn.functional as F\n    kl = lambda z: F.kl_div(base.log_softmax(-1), z.log_softmax(-1), log_target=True, reduction='batchmean')\n    return -(kl(plus) + kl(minus))",
        "def faith_term(plus, minus, base):\n    q = torch.log_softmax(base, dim=1)\n    ps = [torch.log_softmax(x, dim=1) for x in (plus, minus)]\n    return -sum(torch.einsum('bv,bv->b', p.exp(), p - q) for p in ps).mean()",
    ],
    "part3": [
        "def psi(theta, plus, minus, base, correct, wrong, margin, lambda_f, lambda_m):\n    e, f = effect_and_faith(plus, minus, base, correct, wrong, margin)\n    m1 = -torch.linalg.vector_norm(theta.reshape(-1), ord=1)\n    return e + lambda_f * f + lambda_m * m1",
    ],
    "part4": [
        "def fit_scalars(model, task, layers, objective, steps, rate):\n    data = task.train\n    s = ActivScalar(Points.of(model, data.n_pos, sites=['mlp_out'], layers=layers))\n    opt = torch.optim.SGD(s.parameters(), lr=rate)\n    with torch.no_grad():\n        f0 = last_logits(model, data.tokens)\n    for i in range(steps):\n        opt.zero_grad()\n        both = []\n        for b in (1.0, -1.0):\n            with s.applied(model, b):\n                both.append(model(data.tokens)[:, -1])\n        loss = -objective.terms(s.vec(), both[0], both[1], f0, data.correct, data.wrong)['psi']\n        loss.backward()\n        opt.step()\n    return s.theta['mlp_out'].data.clone()",
    ],
    "part5": [
        "def on_the_front(points):\n    n = len(points)\n    keep = torch.ones(n, dtype=torch.bool)\n    for i in range(n):\n        for j in range(n):\n            if (points[j] >= points[i]).all() and (points[j] > points[i]).any():\n                keep[i] = False\n    return keep",
    ],
}
