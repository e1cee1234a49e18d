"""Problem set 5: wrong answers by part and fault, and right ones in another style."""

BOUNDS = "(centre - reach) / (1 + z**2 / n), (centre + reach) / (1 + z**2 / n)"
DECIDED = "not intervals or not all(a or b for a, b in zip(above, below))"

WRONG = {
    "part2": {
        "normal interval": (
            BOUNDS,
            "p - z * math.sqrt(p * (1 - p) / n), p + z * math.sqrt(p * (1 - p) / n)",
        ),
        "90 %": ("1.959964", "1.644854"),
        "not divided": (BOUNDS, "centre - reach, centre + reach"),
        "percent": ("return p,", "return 100 * p,"),
        "ends exchanged": (
            BOUNDS,
            "(centre + reach) / (1 + z**2 / n), (centre - reach) / (1 + z**2 / n)",
        ),
        "centre for share": ("return p,", "return centre / (1 + z**2 / n),"),
        "None for no trial": ('raise ValueError("no trial")', "return None"),
        "z not squared": ("z**2 / (4 * n**2)", "z / (4 * n**2)"),
        "the book's helper": (
            "    p = sum",
            "    return book.share_and_interval(hits)\n    p = sum",
        ),
    },
    "part3": {
        "undecided does not hold": ('return "undecided"', 'return "does not hold"'),
        "nothing holds": ("not intervals or ", ""),
        "ends count as above": ("low > threshold", "low >= threshold"),
        "ends count as below": ("high < threshold", "high <= threshold"),
        "threshold ignored": ("low > threshold", "low > 0.5"),
        "middles": ("[high < threshold for _, high", "[(l + high) / 2 < threshold for l, high"),
        "any for all": ("    if all(above)", "    if any(above)"),
        "first interval only": ("    above =", "    intervals = intervals[:1]\n    above ="),
    },
}

RIGHT = {
    "part2": """
STUDENT = "ada"

def share_with_interval(hits):
    from statistics import NormalDist
    k, n = sum(map(bool, hits)), len(hits)
    if n == 0:
        raise ValueError('nothing was tried')
    z2 = NormalDist().inv_cdf(0.975) ** 2
    root = (z2 * (4 * k * (n - k) / n + z2)) ** 0.5
    return k / n, (2 * k + z2 - root) / (2 * (n + z2)), (2 * k + z2 + root) / (2 * (n + z2))
""",
    "part3": """
def verdict(intervals, threshold):
    sides = {1 if a > threshold else -1 if b < threshold else 0 for a, b in intervals}
    if not sides or 0 in sides:
        return 'undecided'
    return 'holds in part' if len(sides) == 2 else 'holds' if sides == {1} else 'does not hold'
""",
}
