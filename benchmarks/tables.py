"""From measured seconds to comparisons: words per second, ratios within a round, shares of the limits."""

import statistics

from benchmarks.workload import Workload

OURS = "ours"
LIMITS = ("product", "stream")


def summarise(workload: Workload, entries: list[dict]) -> dict:
    """Return the record of one model; adds what follows from the measured seconds to the record of each entry.

    `entries` are the records of one run: of the limits, of ours and of the peers. Lists have one value per round, and only
    values of the same round are compared.
    """
    limits = {(entry["name"], entry["precision"]): rates(entry) for entry in entries if entry["name"] in LIMITS}
    ours = {entry["precision"]: entry["step_seconds"] for entry in entries if entry["name"] == OURS}
    contestants = [entry for entry in entries if entry["name"] not in LIMITS]
    for entry in contestants:
        seconds, precision = entry["step_seconds"], entry["precision"]
        if entry["error"]:
            continue
        entry["words_per_second"] = [workload.words_per_step / s for s in seconds]
        entry["ours_over_it"] = quotients(seconds, ours.get(precision, []))
        arithmetic = [workload.flops_per_step / rate for rate in limits.get(("product", precision), [])]
        entry["share_of_product_limit"] = quotients(arithmetic, seconds)
        weights = workload.recurrent_bytes_per_step(2 if precision == "bfloat16" else 4)
        reading = [weights / rate for rate in limits.get(("stream", "float32"), [])]
        entry["share_of_recurrence_limit"] = quotients(reading, seconds)
    return {
        "flops_per_step": workload.flops_per_step,
        "words_per_step": workload.words_per_step,
        "limits": [{"name": name, "precision": precision, "rates": r} for (name, precision), r in limits.items()],
        "contestants": contestants,
        "over_fastest_float32_peer": over_fastest_float32_peer(contestants, ours),
    }


def rates(entry: dict) -> list[float]:
    """Return the rate of a limit in each round: floating-point operations or bytes per second."""
    return [] if entry["error"] else [entry["description"]["work_per_step"] / seconds for seconds in entry["step_seconds"]]


def quotients(numerators: list[float], denominators: list[float]) -> list[float]:
    """Return the quotient of each round; empty unless both were measured in every round."""
    return [a / b for a, b in zip(numerators, denominators)] if len(numerators) == len(denominators) else []


def over_fastest_float32_peer(contestants: list[dict], ours: dict[str, list[float]]) -> dict[str, list[float]]:
    """Return for each precision how many times faster ours is than the fastest peer in float32; {} without a peer."""
    peers = [e for e in contestants if e["precision"] == "float32" and not e["error"] and not e["name"].startswith(OURS)]
    if not peers:
        return {}
    fastest = min(peers, key=lambda entry: statistics.median(entry["step_seconds"]))
    return {precision: quotients(fastest["step_seconds"], seconds) for precision, seconds in ours.items()}


def print_summary(model: str, summary: dict) -> None:
    """Print the table of one model."""
    print(f"\n{model}: {summary['flops_per_step'] / 1e9:.1f} Gflop in a step of {summary['words_per_step']} words")
    for limit in summary["limits"]:
        unit = "Gflop/s" if limit["name"] == "product" else "GB/s"
        print(f"  {limit['name']} {limit['precision']}: {spread(limit['rates'], 1e-9, 0)} {unit}")
    print(f"{'contestant':22}{'precision':>10}{'words/s':>10}{'ms/step':>9}{'ours ÷ it':>21}{'of limit':>10}{'of reading':>11}"
          f"{'peak MiB':>10}{'GPU MiB':>9}")  # fmt: skip
    for entry in summary["contestants"]:
        print(f"{entry['name']:22}{entry['precision']:>10}", end="")
        if entry["error"]:
            print(f"  not measured: {entry['error'][:90]}")
            continue
        print(f"{statistics.median(entry['words_per_second']):10.0f}{1e3 * statistics.median(entry['step_seconds']):9.2f}"
              f"{spread(entry['ours_over_it']):>21}{share(entry['share_of_product_limit']):>10}"
              f"{share(entry['share_of_recurrence_limit']):>11}{mebibytes(entry['peak_bytes']):>10}"
              f"{mebibytes(entry['gpu_peak_bytes']):>9}")  # fmt: skip
    for precision, ratios in summary["over_fastest_float32_peer"].items():
        print(f"  ours {precision} ÷ fastest float32 peer: {spread(ratios)}")


def spread(values: list[float], scale: float = 1, digits: int = 2) -> str:
    """Return the median and, in brackets, the smallest and the largest value; "-" if there are none."""
    if not values:
        return "-"
    middle, low, high = [f"{scale * value:.{digits}f}" for value in (statistics.median(values), min(values), max(values))]
    return f"{middle} [{low}, {high}]"


def share(values: list[float]) -> str:
    return f"{statistics.median(values):.1%}" if values else "-"


def mebibytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 2**20:.0f}"
