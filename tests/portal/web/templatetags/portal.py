"""Words of the page."""

from django import template

register = template.Library()


@register.filter
def human(size: int) -> str:
    """A number of bytes as file managers tell it: 20,000,000,000 are 20 GB."""
    if size < 1000:
        return f"{size} byte{'' if size == 1 else 's'}"
    amount = float(size)
    for unit in ("kB", "MB", "GB", "TB"):
        amount /= 1000
        if amount < 999.95:
            break
    return f"{amount:.1f}".removesuffix(".0") + f" {unit}"
