"""What is told of uploads."""

from django.dispatch import Signal

upload_finished = Signal()
"""Sent once for each upload whose final object is stored and whose row says so; not for partial uploads.

If a process is killed while it tells, the next sweep or look at the upload after five minutes tells again.

``sender`` is the model ``Upload``, ``upload`` the row, ``final`` the ``FinalObject``. An exception of a receiver is
logged, and changes nothing for the client. An ``HttpResponse`` that a receiver returns answers the client: its headers,
cookies and body, and its status if that is an error.
"""
