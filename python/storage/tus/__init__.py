"""A server of tus 1.0.0 for resumable uploads, as a Django application: see docs/tus.md.

``INSTALLED_APPS`` has ``"storage"`` and ``"storage.tus"``, and the URLs ``include("storage.tus.urls")``. Under ASGI,
``storage.tus.asgi.TusApplication`` stands in front of Django's application.
"""
