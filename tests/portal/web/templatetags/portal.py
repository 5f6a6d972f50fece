"""Words of the page."""

from django import template

register = template.Library()


@register.filter
def human(size: int) -> str:
    """A number of bytes as file managers tell it: 20,000,000,000 are 20 GB."""
    if size < 1000:
        return f"{size} byte{'' if size == 1 else 's'}"
    units = ["TB", "GB", "MB", "kB"]
    amount = size / 1000
    while amount >= 999.95 and len(units) > 1:
        amount, _ = amount / 1000, units.pop()
    return f"{amount:.1f}".removesuffix(".0") + f" {units[-1]}"


@register.filter
def limit(size: int) -> str:
    """The same, but never more than it is, so that what is larger than a limit is larger than what is told of it."""
    unit = max(power for power in (1, 1000, 1000**2, 1000**3, 1000**4) if power <= max(size, 1))
    step = max(unit // 10, 1)
    return human(size // step * step)
