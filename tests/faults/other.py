"""Another process with adapters on the same stores: it puts and deletes parts, a line of JSON at a time.

Each line {"adapter": class, "options": {...}, "method": ..., "arguments": [...], "data": hex or null} is answered by
{"ok": ...} or {"error": class, "code": ...}.
"""

import importlib
import json
import sys

import django
from django.conf import settings


def main():
    settings.configure(INSTALLED_APPS=["storage"], USE_TZ=True)
    django.setup()
    adapters = {}
    for line in sys.stdin:
        order = json.loads(line)
        made = json.dumps([order["adapter"], order["options"]])
        if made not in adapters:
            adapters[made] = getattr(importlib.import_module("storage"), order["adapter"])(**order["options"])
        arguments = order["arguments"] + ([bytes.fromhex(order["data"])] if order["data"] is not None else [])
        try:
            answer = {"ok": str(getattr(adapters[made], order["method"])(*arguments))}
        except Exception as error:
            answer = {"error": type(error).__name__, "code": getattr(error, "code", str(error))}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
