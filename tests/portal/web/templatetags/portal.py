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
