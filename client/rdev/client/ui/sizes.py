"""Sizes as people read them."""


def human_size(count: int) -> str:
    """Bytes in decimal units, as `14 kB`."""
    amount = float(count)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit in ("B", "kB") else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"
